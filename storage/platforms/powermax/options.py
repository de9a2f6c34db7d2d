"""The keys of a block `[platforms.NAME]` with `kind = "powermax"`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.platforms.options import option
from storage.platforms.restapi import RestOptions

PROTOCOLS: Final = ("iscsi", "fc")
SERIAL: Final = re.compile(r"[0-9]{12}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SERVICE_LEVEL: Final = "Optimized"


def _serial(text: str) -> str:
    return "" if SERIAL.fullmatch(text) else "it must be the array's serial number, of 12 digits"


def _protocol(name: str) -> str:
    return "" if name in PROTOCOLS else f"it must be one of {', '.join(PROTOCOLS)}"


def _name(name: str) -> str:
    return "" if NAME.fullmatch(name) else "it must be a name on the array: letters, digits, _ and -, at most 64"


def _names(names: Sequence[str]) -> str:
    return "" if len(set(names)) == len(names) else "a name stands in it twice"


def _positive(size_mib: int) -> str:
    return "" if size_mib >= 1 else "it must be 1 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMaxOptions(RestOptions):
    array: str = option(says="the array's serial number, of 12 digits", check=_serial, where=True)
    port_group: str = option(says="the port group that nodes reach the array by", check=_name)
    protocol: str = option("iscsi", says='how nodes reach the array: "iscsi" or "fc"', check=_protocol)
    service_level: str = option(SERVICE_LEVEL, says="the service level of volumes whose profile names none", check=_name)
    srps: tuple[str, ...] = option((), says="the storage resource pools that Polly uses; not given: all of the array", check=_names)
    register_hosts: bool = option(True, says="whether a node that the array does not know is registered as a host")
    capacity_mib: int | None = option(
        None, says="how much Polly may provision in each pool, in MiB; not given: what is usable of it", check=_positive
    )
    region: str = option("", says="the region of the array; empty: it is reached from everywhere")
    zone: str = option("", says="the zone of the array; empty: it is reached from everywhere")
