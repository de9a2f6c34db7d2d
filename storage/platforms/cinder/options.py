"""The keys of a block `[platforms.NAME]` with `kind = "cinder"`. Who Polly is there, it reads from clouds.yaml or the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from storage.platforms.options import option

NOVA: Final = "nova"
BARE_METAL: Final = "bare-metal"
TYPES: Final = "types"
BACKENDS: Final = "backends"


def _one_of(*names: str) -> Callable[[str], str]:
    return lambda name: "" if name in names else f"it must be one of {', '.join(names)}"


def _at_least_one(number: int) -> str:
    return "" if number >= 1 else "it must be 1 or more"


def _absolute(path: str) -> str:
    return "" if not path or PurePosixPath(path).is_absolute() else "it must be an absolute path"


@dataclass(frozen=True, slots=True, kw_only=True)
class CinderOptions:
    cloud: str = option("", says="the cloud's name in clouds.yaml; empty: the OS_* variables of the environment say all", where=True)
    clouds_file: str = option(
        "",
        says="the clouds.yaml to read, an absolute path, the same on all agents; empty: where openstacksdk looks",
        check=_absolute,
        where=True,
    )
    region: str = option("", says="the region; empty: the one that clouds.yaml or the environment names", where=True)
    attach: str = option(
        NOVA,
        says='"nova": agents are servers of the same project; "bare-metal": agents are machines of their own, '
        "which reach Cinder's storage themselves",
        check=_one_of(NOVA, BARE_METAL),
    )
    pools: str = option(
        TYPES,
        says='"types": a pool for each volume type in each availability zone, with the quota as its capacity; '
        '"backends": the pools of Cinder\'s scheduler, for administrators',
        check=_one_of(TYPES, BACKENDS),
    )
    zone_bound: bool = option(False, says="a volume is reached only from agents whose zone is named as its availability zone")
    slots_per_node: int | None = option(
        None, says='how many volumes a node can hold; not given: 25 with attach = "nova", else no limit', check=_at_least_one
    )
    snapshot_in_use: bool = option(False, says="the backend can snapshot a volume in use as of one moment")
    clone_in_use: bool = option(False, says="the backend can clone a volume in use as of one moment")
    extend_in_use: bool = option(False, says="the backend can extend a volume in use")
    calls_per_second: int = option(20, says="how many calls the API is asked in a second, at most", check=_at_least_one)
    wait_s: int = option(300, says="how many seconds a volume may take from one state to the next", check=_at_least_one)
