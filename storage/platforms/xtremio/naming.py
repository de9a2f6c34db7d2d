"""How Polly's tokens stand in the array's names: it keeps nothing else with a volume. Both ways, without loss.

A volume's name is its id; that of a volume that others have made, and may rename, has the array's own id behind it, so that another
one of the same name is not taken for it. A volume is `polly-TOKEN`, a snapshot `polly-snap-TOKEN`; a token with other characters than
a name may have stands in hex. A copy that has not got its name yet is `ORIGIN.polly-TOKEN` or `ORIGIN.polly-snap-TOKEN`, and neither.
"""

from __future__ import annotations

import re
from typing import Final

from storage.errors import Invalid
from storage.model import ExternalId

LONGEST: Final = 128
"""Characters of a name."""
VOLUME: Final = "polly-"
SNAPSHOT: Final = "polly-snap-"
BEGUN: Final = ".polly-"
PLAIN: Final = re.compile(r"(?!snap-|x-)(?!.*\.polly-)[A-Za-z0-9._-]+")
HEX: Final = "x-"
FOREIGN: Final = re.compile(r"(.{1,128})#([0-9a-f]{32})", re.DOTALL)


def volume_name(token: str) -> str:
    """Raises Invalid for a token that no name can hold."""
    return _name(VOLUME, token)


def snapshot_name(token: str) -> str:
    """Raises Invalid for a token that no name can hold."""
    return _name(SNAPSHOT, token)


def begun_name(origin: str, name: str) -> str:
    """What the array calls a copy until it is renamed."""
    return f"{origin}.{name}"


def volume_id(name: str, key: str) -> ExternalId:
    """`key` is the array's own id of it."""
    return ExternalId(name if is_ours(name) or not FOREIGN.fullmatch(f"{name}#{key}") else f"{name}#{key}")


def name_in(external_id: str) -> str:
    found = FOREIGN.fullmatch(external_id)
    return found[1] if found else external_id


def is_begun(name: str) -> bool:
    return BEGUN in name


def is_snapshot(name: str) -> bool:
    return name.startswith(SNAPSHOT) and not is_begun(name)


def is_volume(name: str) -> bool:
    """Whether it can be one, Polly's or another's."""
    return 0 < len(name) <= LONGEST and name.isprintable() and not is_snapshot(name) and not is_begun(name)


def is_ours(name: str) -> bool:
    return name.startswith(VOLUME) or is_begun(name)


def token_of_volume(name: str) -> str:
    """The token that a volume was made with; empty for one that Polly did not make."""
    return _token(VOLUME, name) if is_volume(name) else ""


def token_of_snapshot(name: str) -> str:
    return _token(SNAPSHOT, name)


def _name(prefix: str, token: str) -> str:
    name = prefix + (token if PLAIN.fullmatch(token) else HEX + token.encode().hex())
    if not token or len(name) > LONGEST:
        raise Invalid(field="token", value=token, reason=f"it must fit into a name of {LONGEST} characters")
    return name


def _token(prefix: str, name: str) -> str:
    token = name.removeprefix(prefix)
    if token == name:
        return ""
    if not token.startswith(HEX):
        return token
    try:
        return bytes.fromhex(token.removeprefix(HEX)).decode()
    except ValueError:
        return ""
