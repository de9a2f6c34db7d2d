"""How Polly's tokens stand in the names of folders and snapshots. Both ways, without loss. Knows no API.

A volume's folder is `polly-TOKEN`, which is its id; a snapshot is `polly-snap-TOKEN-SIZE`, with the size of its volume then.
"""

from __future__ import annotations

import re
from typing import Final

from storage.errors import Invalid

LONGEST: Final = 200
"""OneFS' names have 255 characters; what is on its way gets some more."""
VOLUME: Final = "polly-"
SNAPSHOT: Final = "polly-snap-"
CLONE: Final = "polly-clone-"
ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
PLAIN: Final = re.compile(r"(?!x-)[A-Za-z0-9._-]+")
HEX: Final = "x-"


def is_id(external_id: str) -> bool:
    """Whether a folder of this name can be a volume."""
    return len(external_id) <= LONGEST and ID.fullmatch(external_id) is not None


def volume_name(token: str) -> str:
    """Raises Invalid for a token that no name can hold."""
    return VOLUME + _written(token)


def token_of_volume(name: str) -> str:
    """The token that a volume was made with; empty for one that Polly did not make."""
    return _read(name.removeprefix(VOLUME)) if name.startswith(VOLUME) else ""


def snapshot_name(token: str, size_mib: int) -> str:
    """Raises Invalid for a token that no name can hold."""
    return f"{SNAPSHOT}{_written(token)}-{size_mib}"


def clone_name(token: str) -> str:
    """The snapshot that a clone is copied from. Raises Invalid for a token that no name can hold."""
    return CLONE + _written(token)


def of_snapshot(name: str) -> tuple[str, int] | None:
    """Token and size in MiB; None for a snapshot that is not Polly's."""
    token, _, size = name.removeprefix(SNAPSHOT).rpartition("-")
    if not (name.startswith(SNAPSHOT) and len(name) <= 255 and token and size.isascii() and size.isdigit() and PLAIN.fullmatch(name)):
        return None
    return (found, int(size)) if (found := _read(token)) else None


def _written(token: str) -> str:
    name = token if PLAIN.fullmatch(token) else HEX + token.encode().hex()
    if not token or len(name) > LONGEST - len(CLONE):
        raise Invalid(field="token", value=token, reason=f"it must fit into a name of {LONGEST} characters")
    return name


def _read(text: str) -> str:
    if not text.startswith(HEX):
        return text
    try:
        return bytes.fromhex(text.removeprefix(HEX)).decode()
    except ValueError:
        return ""
