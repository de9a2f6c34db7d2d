"""What Polly keeps of a medium among VirtualBox's global extra data, as JSON: name, labels, fencing mark, birth certificate.

Media have a description too, but it is lost as soon as somebody takes the medium from VirtualBox's list, and its file can be put
back without it; the global extra data stay. A record that cannot be read is an error for a person, never taken for an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from storage.errors import PlatformError
from storage.model import Birth
from storage.platforms.marks import Mark

VERSION: Final = 1


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    version: int = VERSION
    name: str = ""
    labels: Mapping[str, str] = {}
    mark: Mark = Mark()
    birth: Birth | None = None
    made_at: float = 0.0
    part: str = ""
    """What its medium was called while it was made: where that is all there is, its maker died before it got its name."""
    deleting: bool = False
    """Its medium is to be deleted: where it is gone, whoever deleted it died before the record was taken away."""


def read_record(platform: str, key: str, text: str) -> Record:
    """The record that was written; an empty text is that of a medium that Polly has not touched. Raises PlatformError."""
    if not text:
        return Record()
    action = f"read the extra data {key}"
    try:
        record = msgspec.json.decode(text, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlatformError(platform=platform, action=action, reason=f"{error}; restore it by hand") from error
    if record.version != VERSION:
        raise PlatformError(platform=platform, action=action, reason=f"it is of version {record.version}, not {VERSION}")
    return record


def write_record(record: Record) -> str:
    return msgspec.json.encode(record).decode()
