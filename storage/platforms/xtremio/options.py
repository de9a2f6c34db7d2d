"""The keys of a block `[platforms.NAME]` with `kind = "xtremio"`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.platforms.options import option
from storage.platforms.restapi import RestOptions

PROTOCOLS: Final = ("iscsi", "fc")


def _protocol(name: str) -> str:
    return "" if name in PROTOCOLS else f"it must be one of {', '.join(PROTOCOLS)}"


def _positive(size_mib: int) -> str:
    return "" if size_mib >= 1 else "it must be 1 or more"


def _names(names: Sequence[str]) -> str:
    return "" if len(set(names)) == len(names) else "a name stands in it twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class XtremioOptions(RestOptions):
    cluster: str = option("", says="the name of the cluster; empty: the only one that the XMS manages", where=True)
    protocol: str = option("iscsi", says='how nodes reach the array: "iscsi" or "fc"', check=_protocol)
    portals: tuple[str, ...] = option(
        (), says="names of the iSCSI portals that nodes log in to; not given: all of the cluster", check=_names
    )
    register_hosts: bool = option(
        True, says="whether a node that the array does not know is registered, with an initiator group of its own"
    )
    capacity_mib: int | None = option(
        None,
        says="how much Polly may provision on the cluster, in MiB; not given: its flash, without what data reduction saves",
        check=_positive,
    )
    region: str = option("", says="the region of the cluster; empty: it is reached from everywhere")
    zone: str = option("", says="the zone of the cluster; empty: it is reached from everywhere")
