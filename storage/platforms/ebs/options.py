"""The keys of a block `[platforms.NAME]` with `kind = "ebs"`. None of them is a secret: those come by the SDK's own chain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from storage.platforms.options import option

REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
ZONE: Final = re.compile(r"[a-z]{2,4}(-[a-z0-9]+)+[a-z]?")


def _region(name: str) -> str:
    return "" if REGION.fullmatch(name) else "it must be a region's name, such as eu-central-1"


def _zones(names: Sequence[str]) -> str:
    wrong = [name for name in names if not ZONE.fullmatch(name)]
    if wrong or len(set(names)) != len(names):
        return "it must be a list of different availability zones, such as eu-central-1a"
    return ""


def _url(text: str) -> str:
    if not text:
        return ""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        return "it must be an address such as https://ec2.eu-central-1.amazonaws.com"
    if url.username or url.password:
        return "credentials do not belong in an address"
    return ""


def _file(text: str) -> str:
    path = PurePosixPath(text)
    return "" if not text or (path.is_absolute() and ".." not in path.parts) else "it must be an absolute path without '..'"


def _one_or_more(number: int) -> str:
    return "" if number >= 1 else "it must be 1 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class EbsOptions:
    region: str = option(says="the region, such as eu-central-1", check=_region, where=True)
    zones: tuple[str, ...] = option((), says="the availability zones that are its pools; not given: all of the region", check=_zones)
    capacity_gib: int = option(
        51200, says="how much Polly may make in each zone, in GiB; EBS itself knows no such figure, only quotas", check=_one_or_more
    )
    profile: str = option(
        "", says="the profile of the shared credentials and config files; empty: as the SDK's own chain finds it", where=True
    )
    credentials_file: str = option(
        "", says="another shared credentials file, by its absolute path; it must be there on agents too", check=_file, where=True
    )
    endpoint_url: str = option(
        "", says="another address of EC2's API, such as an interface endpoint's; empty: the region's", check=_url, where=True
    )
    multi_attach: bool = option(False, says="whether profiles with `multiAttach` may be read from many nodes at once")
    reads_per_s: int = option(20, says="how often each Describe call may be made in a second", check=_one_or_more)
    writes_per_s: int = option(5, says="how often each changing call may be made in a second", check=_one_or_more)
    timeout_s: int = option(180, says="how long a volume may take to be made, attached, detached or grown", check=_one_or_more)
    snapshot_timeout_s: int = option(
        900, says="how long one call waits for a snapshot to be complete; the next one waits on", check=_one_or_more
    )
