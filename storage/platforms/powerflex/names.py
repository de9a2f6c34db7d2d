"""What Polly calls its volumes and snapshots on the array, where a name of 31 characters is all that an object can carry.

The name is made of the idempotency token alone, so that a repeat finds what was made, and the array itself refuses a second
object of that name. A UUID and any short token can be read back out of it; of a longer one it holds a hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final
from uuid import UUID

VOLUME: Final = "polly-v"
SNAPSHOT: Final = "polly-s"
_PLAIN, _UUID, _HASH = ".", "-", "~"
_SHORT: Final = re.compile(r"[A-Za-z0-9_.-]{1,23}")
_OURS: Final = re.compile(r"(polly-[vs])([.~-])(.{1,23})")


def name_of(kind: str, token: str) -> str:
    """The name of the volume or snapshot that this token makes."""
    if _is_uuid(token):
        return f"{kind}{_UUID}{_text(UUID(token).bytes)}"
    if _SHORT.fullmatch(token):
        return f"{kind}{_PLAIN}{token}"
    return f"{kind}{_HASH}{_text(hashlib.sha256(token.encode()).digest()[:16])}"


def kind_in(name: str) -> str:
    """VOLUME or SNAPSHOT; empty for an object that Polly did not make."""
    found = _OURS.fullmatch(name)
    return found[1] if found else ""


def token_in(name: str) -> str:
    """The token that an object of this name was made with; empty where the name does not tell."""
    found = _OURS.fullmatch(name)
    if not found or found[2] == _HASH:
        return ""
    if found[2] == _PLAIN:
        return found[3]
    try:
        return str(UUID(bytes=base64.urlsafe_b64decode(f"{found[3]}==")))
    except ValueError:
        return ""


def _is_uuid(token: str) -> bool:
    try:
        return str(UUID(token)) == token
    except ValueError:
        return False


def _text(data: bytes) -> str:
    """16 bytes as 22 characters."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
