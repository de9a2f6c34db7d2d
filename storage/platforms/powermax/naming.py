"""What Polly calls its things on the array: volumes and snapshots by their tokens, groups by the pool or the host that they are of.

The array keeps nothing else of Polly's with a volume. Ids of volumes hold a device's number and its name, because the array gives
the number of a deleted volume to the next one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final
from uuid import UUID

from storage.errors import Invalid
from storage.model import ExternalId

LONGEST: Final = 64
"""Characters of a name; a snapshot's has half as many."""
VOLUME: Final = "polly-"
BEGUN: Final = "pollynew-"
ANCHOR: Final = "pollyanchor-"
INTERNAL: Final = (BEGUN, ANCHOR)
POOL: Final = "polly-pool-"
COPIES: Final = "polly-copying-"
HOST: Final = "polly-host-"
REGISTERED: Final = "polly-"
PLAIN: Final = re.compile(r"(?!h-)[A-Za-z0-9_.-]{1,55}")
SHORT: Final = re.compile(r"[A-Za-z0-9_-]{1,26}")
CLONE: Final = "pollyc"
SNAPSHOT: Final = re.compile(r"polly([puh])([A-Za-z0-9_-]{1,26})")
HOST_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
VOLUME_ID: Final = re.compile(r"([0-9A-F]{5})(?:-([\x20-\x7e]{1,64}))?")
SNAPSHOT_ID: Final = re.compile(r"([0-9A-F]{5})-([0-9]{1,19})(?:-[A-Za-z0-9_-]{1,32})?")
"""In older ledgers with the name behind it."""


# --- volumes ----------------------------------------------------------------------------------


def volume_name(token: str) -> str:
    """Raises Invalid for no token."""
    if not token:
        raise Invalid(field="token", value=token, reason="a volume is created with an idempotency token")
    return VOLUME + (token if PLAIN.fullmatch(token) else f"h-{_hash(token)}")


def token_of_volume(name: str) -> str:
    """The token that a volume was made with; empty for one that Polly did not make, and where its name holds only a hash."""
    token = name.removeprefix(VOLUME)
    return token if token != name and PLAIN.fullmatch(token) else ""


def begun_name(name: str) -> str:
    """What a volume is called until it is certain that it is the only one of its name."""
    return BEGUN + name.removeprefix(VOLUME)


def is_ours(name: str) -> bool:
    return name.startswith((VOLUME, *INTERNAL))


def is_internal(name: str) -> bool:
    """Whether it is a volume that nobody is to see."""
    return name.startswith(INTERNAL)


def is_anchor(name: str) -> bool:
    return name.startswith(ANCHOR)


def volume_id(device: str, name: str) -> ExternalId:
    return ExternalId(f"{device}-{name}" if name else device)


def parse_volume_id(external_id: str) -> tuple[str, str] | None:
    """Device and name; None for what no volume is called."""
    found = VOLUME_ID.fullmatch(external_id)
    return (found[1], found[2] or "") if found else None


# --- snapshots ----------------------------------------------------------------------------------


def snapshot_name(token: str) -> str:
    """At most 32 characters. A short token and a UUID stand in it without loss, of another its hash. Raises Invalid for no token."""
    if not token:
        raise Invalid(field="token", value=token, reason="a snapshot is made with an idempotency token")
    if SHORT.fullmatch(token):
        return f"pollyp{token}"
    if _is_uuid(token):
        return f"pollyu{_text(UUID(token).bytes)}"
    return f"pollyh{_hash(token)}"


def is_snapshot(name: str) -> bool:
    return SNAPSHOT.fullmatch(name) is not None


def token_of_snapshot(name: str) -> str:
    found = SNAPSHOT.fullmatch(name)
    if not found or found[1] == "h":
        return ""
    if found[1] == "p":
        return found[2]
    try:
        return str(UUID(bytes=base64.b32decode(f"{found[2].upper()}======")))
    except ValueError:
        return ""


def clone_name(token: str) -> str:
    """The snapshot that a clone is copied from."""
    return CLONE + _hash(token)


def is_clone(name: str) -> bool:
    return name.startswith(CLONE) and len(name) == len(clone_name(""))


def snapshot_id(device: str, key: int) -> ExternalId:
    """Without its name, which people may change: of the snapshots of a device each has a number of its own."""
    return ExternalId(f"{device}-{key}")


def parse_snapshot_id(external_id: str) -> tuple[str, int] | None:
    found = SNAPSHOT_ID.fullmatch(external_id)
    return (found[1], int(found[2])) if found else None


# --- groups, views and hosts ----------------------------------------------------------------------


def pool_group(srp: str, level: str, number: int) -> str:
    return f"{POOL}{srp}-{level}-{number}"


def pool_of_group(group: str) -> str:
    """The SRP whose volumes are in it; empty for a group that is not of this kind."""
    return group.removeprefix(POOL).rsplit("-", 2)[0] if group.startswith(POOL) else ""


def copying_group(chance: float) -> str:
    """A group for one copy."""
    return f"{COPIES}{int(chance * (1 << 48)):012x}"


def is_copying(group: str) -> bool:
    return group.startswith(COPIES)


def is_home(group: str) -> bool:
    """Whether a volume that is in it only is nobody's."""
    return group.startswith((POOL, COPIES))


def host_group(host: str) -> str:
    """The storage group of a host, and its masking view."""
    return _fitting(HOST, host)


def host_name(node: str) -> str:
    """What a node is registered as."""
    return _fitting(REGISTERED, node)


def anchor_name(host: str) -> str:
    return _fitting(ANCHOR, host)


def _fitting(prefix: str, text: str) -> str:
    """A name of the characters that the array takes; what is lost of the text is told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    if plain == text and len(prefix) + len(plain) <= LONGEST:
        return prefix + plain
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{prefix}{plain[: LONGEST - len(prefix) - 9]}-{digest}"


def _is_uuid(token: str) -> bool:
    try:
        return str(UUID(token)) == token
    except ValueError:
        return False


def _hash(token: str) -> str:
    return _text(hashlib.sha256(token.encode()).digest()[:16])


def _text(data: bytes) -> str:
    """16 bytes as 26 characters, which no change of case confuses."""
    return base64.b32encode(data).decode().rstrip("=").lower()
