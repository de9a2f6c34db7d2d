"""What is kept beside a volume or a snapshot, as JSON: who made it, its fencing mark, its birth certificate, its holders.

A file that cannot be read as one is an error for a person, never taken for an empty one: it holds the fencing mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from storage.errors import PlatformError
from storage.model import Birth
from storage.platforms.local.folders import Folder
from storage.platforms.marks import Mark

VERSION: Final = 1


class HolderNote(msgspec.Struct, frozen=True, kw_only=True):
    """Who attached it. Only words for people: whether it is held at all is said by the lock."""

    node: str
    pid: int
    epoch: int
    read_only: bool = False

    def __str__(self) -> str:
        return f"node {self.node}, pid {self.pid}, epoch {self.epoch}{', read-only' if self.read_only else ''}"


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    token: str = ""
    name: str = ""
    size_mib: int = 0
    """What was asked for; a folder has no other size, an image has the file's."""
    labels: Mapping[str, str] = {}
    mark: Mark = Mark()
    birth: Birth | None = None
    holders: tuple[HolderNote, ...] = ()


class SnapshotCar(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    volume: str
    token: str
    name: str = ""
    size_mib: int
    created_at: float


T = TypeVar("T", Sidecar, SnapshotCar)


def read_car(kind: type[T], folder: Folder, name: str, *, platform: str) -> T | None:
    """None where there is no such file. Raises PlatformError for one that is not what was written."""
    content = folder.read(name)
    if content is None:
        return None
    try:
        car = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlatformError(platform=platform, action=f"read {folder.path / name}", reason=f"{error}; restore the file by hand") from error
    if car.version != VERSION:
        raise PlatformError(platform=platform, action=f"read {folder.path / name}", reason=f"it is of version {car.version}, not {VERSION}")
    return car


def encode_car(car: Sidecar | SnapshotCar) -> bytes:
    return msgspec.json.format(msgspec.json.encode(car), indent=1) + b"\n"
