"""Where the things of a local platform lie, and what their ids look like. It opens nothing.

    ROOT/.locks/3f                           the guard of all ids whose shard is 3f; held for milliseconds
    ROOT/POOL/volumes/3f/vol-3f....img       a volume's image (folder format: .dir and .lock); its being there is the volume's
    ROOT/POOL/volumes/3f/vol-3f....json      its sidecar
    ROOT/POOL/volumes/3f/vol-3f....snap-a1....img  and .json: a snapshot of it
    ROOT/POOL/NAME.img                       a volume that an operator put there, to be imported; its sidecar comes beside it
    ROOT/POOL/.new/                          what is being made or torn down

A volume's id is the hash of its token, so that a token leads to its volume by name alone, and two creators with one token
meet at one name. Shards keep folders short: of a million volumes each has four thousand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from storage.model import ExternalId

VOLUMES: Final = "volumes"
NEW: Final = ".new"
LOCKS: Final = ".locks"
DEFAULT_POOL: Final = "default"

POOL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
SHARD: Final = re.compile(r"[0-9a-f]{2}")
_OWN: Final = re.compile(r"vol-([0-9a-f]{2})[0-9a-f]{30}")
_OTHERS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_SNAPSHOT: Final = re.compile(r"(.+)\.snap-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a thing of this name lies in any pool."""

    stem: str
    """Its external id; the file names are this with a suffix."""
    shard: str
    """Two hex digits: names its guard, and the folder where Polly made it."""
    own: bool
    """Polly made it (or its volume)."""


def volume_id(token: str) -> ExternalId:
    return ExternalId(f"vol-{sha256(token.encode()).hexdigest()[:32]}")


def snapshot_id(volume: str, token: str) -> ExternalId:
    return ExternalId(f"{volume}.snap-{sha256(token.encode()).hexdigest()[:32]}")


def volume_spot(external_id: str) -> Spot | None:
    """None for what cannot be a volume's id here, such as a path."""
    if own := _OWN.fullmatch(external_id):
        return Spot(stem=external_id, shard=own[1], own=True)
    if _OTHERS.fullmatch(external_id) and not _SNAPSHOT.fullmatch(external_id):
        return Spot(stem=external_id, shard=sha256(external_id.encode()).hexdigest()[:2], own=False)
    return None


def snapshot_spot(external_id: str) -> Spot | None:
    """None for what cannot be a snapshot's id here."""
    parts = _SNAPSHOT.fullmatch(external_id)
    volume = volume_spot(parts[1]) if parts else None
    return None if volume is None else Spot(stem=external_id, shard=volume.shard, own=volume.own)


def car_name(stem: str) -> str:
    return f"{stem}.json"
