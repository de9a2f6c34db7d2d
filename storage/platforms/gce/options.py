"""The keys of a block `[platforms.NAME]` with `kind = "gce"`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from storage.platforms.gce.kinds import TYPES
from storage.platforms.options import option

PROJECT: Final = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,61}[a-z0-9]")
ZONE: Final = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]")


def _project(name: str) -> str:
    return "" if PROJECT.fullmatch(name) else "it must be a project's id, such as my-project-123"


def _zones(zones: Sequence[str]) -> str:
    if not zones or len(set(zones)) != len(zones) or not all(ZONE.fullmatch(zone) for zone in zones):
        return 'it must be a list of different zones, such as ["europe-west4-a", "europe-west4-b"]'
    return ""


def _types(types: Sequence[str]) -> str:
    if not types or len(set(types)) != len(types) or not set(types) <= TYPES.keys():
        return f"it must be a list of different types of disks: {', '.join(TYPES)}"
    return ""


def _absolute(path: str) -> str:
    return "" if PurePosixPath(path).is_absolute() else "it must be an absolute path"


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.path not in ("", "/") or parts.query or "@" in parts.netloc:
        return "it must be an address such as https://compute.example.net, without a path"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)):
        return ""
    return "it must begin with https://; http:// is for loopback alone, because a token travels with each call"


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _at_least_one(number: int) -> str:
    return "" if number >= 1 else "it must be 1 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class GceOptions:
    project: str = option(says="the project's id", check=_project, where=True)
    zones: tuple[str, ...] = option(says="the zones whose disks are used; the agents' instances are in them", check=_zones)
    types: tuple[str, ...] = option(
        ("pd-balanced",), says="the types of disks; each zone has one pool for each, named ZONE.TYPE", check=_types
    )
    capacity_mib: int | None = option(
        None, says="how much each pool may hold, in MiB; not given: what the region's quota has", check=_at_least_one
    )
    credentials_file: str | None = option(
        None,
        says="the path of a service account's key; not given: Google's default chain",
        check=_absolute,
    )
    endpoint: str | None = option(None, says="another address of the API, for private access", check=_endpoint, where=True)
    calls_per_s: int = option(20, says="how many calls a second one process makes at most", check=_at_least_one)
    timeout_s: int = option(120, says="how many seconds an operation, or a refusal for the rate, is waited for", check=_at_least_one)
