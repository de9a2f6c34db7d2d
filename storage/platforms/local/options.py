"""The keys of a block `[platforms.NAME]` with `kind = "local"`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from storage.platforms.local.formats import FORMATS
from storage.platforms.local.layout import DEFAULT_POOL, POOL_NAME, VOLUMES
from storage.platforms.options import option


def _absolute(root: str) -> str:
    path = PurePosixPath(root)
    return "" if path.is_absolute() and ".." not in path.parts else "it must be an absolute path without '..'"


def _format(name: str) -> str:
    return "" if name in FORMATS else f"it must be one of {', '.join(sorted(FORMATS))}"


def _at_least_one(size_mib: int) -> str:
    return "" if size_mib >= 1 else "it must be 1 or more"


def _pool_names(pools: Sequence[str]) -> str:
    wrong = [pool for pool in pools if not POOL_NAME.fullmatch(pool) or pool == VOLUMES]
    if wrong or not pools or len(set(pools)) != len(pools):
        return "it must be a list of different folder names of letters, digits, '_' and '-'"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    root: str = option(
        says="the folder that holds the pools; an absolute path, the same on all agents of the machine", check=_absolute, where=True
    )
    format: str = option(
        "image", says='"image": files on loop devices, for root; "folder": plain folders, without root and without a quota', check=_format
    )
    pools: tuple[str, ...] = option(
        (DEFAULT_POOL,), says="sub-folders of root that are pools; all but `default` must exist already", check=_pool_names
    )
    capacity_mib: int | None = option(
        None, says="how much each pool may use of its filesystem, in MiB; not given: all of it", check=_at_least_one
    )
    region: str = option("", says="the region of its pools; empty: they are reached from everywhere")
    zone: str = option("", says="the zone of its pools; empty: they are reached from everywhere")
