"""The keys of a block `[platforms.NAME]` with `kind = "powerscale"`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from storage.platforms.options import option
from storage.platforms.restapi import RestOptions

PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
HOST: Final = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*")
MODE: Final = re.compile(r"0[0-7]{3}")


def _below_ifs(path: str) -> str:
    root, _, rest = path.removeprefix("/").partition("/")
    plain = path.startswith("/") and root == "ifs" and rest and all(PART.fullmatch(part) for part in rest.split("/"))
    return "" if plain else "it must be a folder below /ifs, such as /ifs/data/polly, of plain names"


def _host(name: str) -> str:
    return "" if not name or HOST.fullmatch(name) else "it must be a host name or an address (IPv6 in brackets), such as nfs.example"


def is_mode(mode: str) -> str:
    return "" if MODE.fullmatch(mode) else "it must be permissions in octal, such as 0755"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerScaleOptions(RestOptions):
    base_path: str = option(says="the folder of /ifs that volumes are made in; it must be there", check=_below_ifs)
    nfs_host: str = option("", says="what nodes mount from: a SmartConnect name; empty: the host of `endpoint`", check=_host)
    access_zone: str = option("System", says="the access zone that exports volumes; it is the name of the pool")
    mode: str = option("0755", says="permissions of a new volume's folder; root of the node is root on it", check=is_mode)
    region: str = option("", says="the region of the cluster; empty: it is reached from everywhere")
    zone: str = option("", says="the zone of the cluster; empty: it is reached from everywhere")

    @property
    def server(self) -> str:
        """Where nodes mount from, as `mount` writes it."""
        host = urlsplit(self.endpoint).hostname or ""
        return self.nfs_host or (f"[{host}]" if ":" in host else host)
