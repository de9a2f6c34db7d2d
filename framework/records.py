"""Records as JSON, and back: the one form in which the HTTP API sends them and `-o json` prints them.

Fields keep their names; instants are seconds since the epoch, sizes MiB, as in storage/model.py.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from storage.errors import Invalid
from storage.model import Page

T = TypeVar("T")


def plain(record: object) -> Any:
    """A record as dicts, lists, texts and numbers."""
    return msgspec.to_builtins(record, str_keys=True)


def encode(record: object) -> bytes:
    return msgspec.json.encode(record)


def revive(kind: type[T], value: object, what: str) -> T:
    """The record of this kind. Raises Invalid, naming `what` and the field, if it is none."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        raise Invalid(field=what + where.rstrip("`"), value=value, reason=reason) from error


def revive_page(kind: type[T], value: object, what: str) -> Page[T]:
    found = revive(dict[str, Any], value, what)
    items = [revive(kind, item, what) for item in found.get("items", ())]
    after = found.get("after")
    return Page(items=items, after=None if after is None else str(after))
