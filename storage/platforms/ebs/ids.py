"""EC2's ids, as far as their form goes: what cannot be one is never sent."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from storage.errors import Invalid, UnknownSnapshot, UnknownVolume

HEX: Final = "([0-9a-f]{8}|[0-9a-f]{17})"
VOLUME: Final = re.compile(f"vol-{HEX}")
SNAPSHOT: Final = re.compile(f"snap-{HEX}")
INSTANCE: Final = re.compile(f"i-{HEX}")


def volume(text: str) -> str:
    """The text, if it has the form of a volume's id. Raises UnknownVolume."""
    if not VOLUME.fullmatch(text):
        raise UnknownVolume(volume=text)
    return text


def snapshot(text: str) -> str:
    """The text, if it has the form of a snapshot's id. Raises UnknownSnapshot."""
    if not SNAPSHOT.fullmatch(text):
        raise UnknownSnapshot(snapshot=text)
    return text


def instance(text: str) -> str:
    """The text, if it has the form of an instance's id. Raises Invalid."""
    if not INSTANCE.fullmatch(text):
        raise Invalid(field="node", value=text, reason="EC2 knows its machines by an id such as i-0123456789abcdef0")
    return text


def serial(volume_id: str) -> str:
    """What an NVMe device of this volume says as its serial: the id without its dash."""
    return volume_id.replace("-", "", 1)


def client_token(token: str) -> str:
    """EC2's idempotency token, at most 64 characters, from Polly's."""
    return sha256(f"polly volume {token}".encode()).hexdigest()
