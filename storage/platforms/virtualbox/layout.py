"""What names say: which file of a pool's folder is a volume, a snapshot, or neither, and the token that it was made with.

A name is given to a file in one step when it is complete, so a file with a volume's name is a whole volume.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Final
from urllib.parse import quote, unquote

from msgspec import Struct

from storage.errors import Invalid
from storage.platforms.virtualbox.options import FORMATS

VOLUME: Final = "polly-volume-"
SNAPSHOT: Final = "polly-snapshot-"
PART: Final = "polly-part-"
LOCK: Final = "polly-lock.vdi"
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LONGEST: Final = 150
"""Characters of a token in a file's name, which must also hold an origin and a suffix."""
RECORDS: Final = "polly/"
"""How the keys of Polly's records among VirtualBox's extra data begin."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a medium's file is, as far as it is in a pool."""

    pool: str
    stem: str
    suffix: str

    @property
    def token(self) -> str:
        """Empty for a file that Polly did not make."""
        if self.stem.startswith(VOLUME):
            return unquote(self.stem.removeprefix(VOLUME))
        return unquote(self.stem.removeprefix(SNAPSHOT)[37:]) if is_snapshot(self) else ""

    @property
    def origin(self) -> str:
        """The id of the volume that a snapshot was made of."""
        return self.stem.removeprefix(SNAPSHOT)[:36] if is_snapshot(self) else ""


def is_volume(place: Place) -> bool:
    """One of Polly's or one that an operator could adopt."""
    return not is_snapshot(place) and not is_part(place) and f"{place.stem}.{place.suffix}" != LOCK


def is_snapshot(place: Place) -> bool:
    return place.stem.startswith(SNAPSHOT)


def is_part(place: Place) -> bool:
    """A medium that is being made, or was when its maker died."""
    return place.stem.startswith(PART)


class Layout:
    """The pools' folders on the VM host, which may run another system than we do."""

    def __init__(self, root: str, pools: Sequence[str]) -> None:
        self._root = _path(root)
        self.root = str(self._root)
        self.pools = tuple(pools)
        self._pools = {self._root / pool: pool for pool in pools}

    def folder(self, pool: str) -> str:
        return str(self._root / pool)

    def file(self, pool: str, stem: str, suffix: str) -> str:
        return str(self._root / pool / f"{stem}.{suffix}")

    def lock(self) -> str:
        return str(self._root / self.pools[0] / LOCK)

    def is_kept(self, location: str) -> bool:
        """Whether a medium keeps this file's name: Polly gives it once, to what is complete. Others' are renamed and moved at will."""
        place = self.place(location)
        return place is not None and bool(place.token)

    def place(self, location: str) -> Place | None:
        """None for a file that is in no pool."""
        file = _path(location)
        if (pool := self._pools.get(file.parent)) is None or not file.suffix:
            return None
        return Place(pool=pool, stem=file.stem, suffix=file.suffix[1:])


def volume_stem(token: str) -> str:
    return VOLUME + _quoted(token)


def snapshot_stem(origin: str, token: str) -> str:
    return f"{SNAPSHOT}{origin}-{_quoted(token)}"


def part_stem(now: float, chance: str) -> str:
    """Of a medium that is being made; says when, so that what a dead maker left can be told from what is going on."""
    return f"{PART}{int(now)}-{chance}"


def part_since(stem: str) -> float:
    began = stem.removeprefix(PART).partition("-")[0]
    return float(began) if began.isascii() and began.isdigit() else 0.0


def record_key(place: Place, uuid: str) -> str:
    """By the name where the name is ours, and so is known before the medium is; otherwise by the medium's id."""
    return RECORDS + (place.stem if place.token else uuid)


def is_uuid(text: str) -> bool:
    return UUID.fullmatch(text) is not None


def serial(uuid: str) -> str:
    """What an AHCI disk of VirtualBox shows its guest: the first and the last four bytes of its id, the last ones backwards."""
    last = bytes.fromhex(uuid[-8:])[::-1].hex()
    return f"VB{uuid[:8]}-{last}"


def suffixes() -> tuple[str, ...]:
    return tuple(FORMATS)


def _quoted(token: str) -> str:
    text = quote(token, safe="")
    if not token or len(text) > LONGEST:
        raise Invalid(field="token", value=token, reason=f"it becomes a part of a file's name: 1 to {LONGEST} characters once quoted")
    return text


def _path(text: str) -> PurePath:
    return PureWindowsPath(text) if re.match(r"[A-Za-z]:[\\/]|\\\\", text) else PurePosixPath(text)
