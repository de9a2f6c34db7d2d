"""An adapter's settings: a frozen dataclass declares them, and this reads a block of polly.toml into it.

A field's type is its check (str, int, bool, each with `| None`, or tuple[str, ...]), its metadata the rest. The same settings
come back as text when an executor builds the adapter, so an int and a bool are also read from their text. Every refusal is an
Invalid that names the key, the value, and what would be right.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_type_hints

from storage.errors import Invalid

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

REQUIRED: Final = dataclasses.MISSING
SECRETS: Final = re.compile("passw|secret|token|credential|private|access_?key|api_?key", re.IGNORECASE)
"""Of keys that there are not: what a person may have written a secret behind."""
LOGIN: Final = re.compile("//[^/?#]*@")
"""A user and a password in an address."""
Check = Callable[[Any], str]
"""Returns "" or what would be right, as in `it must be an absolute path`."""


def option(default: Any = REQUIRED, *, says: str, check: Check | None = None, where: bool = False) -> Any:
    """A key of the block: what it means in a sentence, and a check beyond its type. Without a default it must be given.

    `where`: it says, with the others of which that is said, which storage system and account the platform is.
    """
    return dataclasses.field(default=default, metadata={"says": says, "check": check, "where": where})


def read_options(kind: type[T], block: str, settings: Mapping[str, object]) -> T:
    """The settings of `[block]` as a `kind`. Raises Invalid for an unknown, missing or wrong key."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key, value in settings.items():
        if key not in fields:
            raise _unknown(f"{block}.{key}", value, sorted(fields))
    types = get_type_hints(kind)
    given = {key: _checked(f"{block}.{key}", value, types[key], fields[key].metadata.get("check")) for key, value in settings.items()}
    for name, field in fields.items():
        if name not in given and field.default is REQUIRED and field.default_factory is REQUIRED:
            raise Invalid(field=f"{block}.{name}", value="", reason=f"it must be given: {field.metadata.get('says', name)}")
    return kind(**given)


def _unknown(field: str, value: object, keys: list[str]) -> Invalid:
    """What was written behind a key that sounds like a secret's is not shown: errors are printed and logged."""
    reason = f"there is no such key; the keys are {', '.join(keys)}"
    if SECRETS.search(field.rpartition(".")[2]):
        return Invalid(field=field, value="(not shown)", reason=f"no secret stands in polly.toml, and {reason}")
    return Invalid(field=field, value=value, reason=reason)


def whereabouts(options: DataclassInstance) -> dict[str, str]:
    """What says where the platform is, as text; two that say the same are one. Empty where the adapter marks no key."""
    keys = [field.name for field in dataclasses.fields(options) if field.metadata.get("where")]
    return {key: _as_text(value).rstrip("/") for key in keys if (value := getattr(options, key)) not in ("", None)}


def write_options(options: DataclassInstance) -> dict[str, str]:
    """The settings as text, those that have their default left out: what read_options reads back."""
    values = {
        field.name: getattr(options, field.name) for field in dataclasses.fields(options) if getattr(options, field.name) != field.default
    }
    return {key: _as_text(value) for key, value in values.items()}


def describe(kind: type[DataclassInstance]) -> list[tuple[str, str, str]]:
    """Each key with its default as text (empty: it must be given or is not set) and its sentence: for documents and errors."""
    return [
        (field.name, "" if field.default in (REQUIRED, None) else _as_text(field.default), field.metadata["says"])
        for field in dataclasses.fields(kind)
    ]


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(field: str, value: object, wanted: Any, check: Check | None) -> object:
    read = _as_type(field, value, _without_none(wanted))
    if check is not None and (reason := check(read)):
        raise Invalid(field=field, value=LOGIN.sub("//(not shown)@", value) if isinstance(value, str) else value, reason=reason)
    return read


def _without_none(wanted: Any) -> Any:
    if isinstance(wanted, UnionType):
        return next(part for part in get_args(wanted) if part is not type(None))
    return wanted


def _as_type(field: str, value: object, wanted: Any) -> object:
    if wanted is str:
        return _as_str(field, value)
    if wanted is bool:
        return _as_bool(field, value)
    if wanted is int:
        return _as_int(field, value)
    return _as_names(field, value)


def _as_str(field: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise Invalid(field=field, value=value, reason="it must be text, in quotes")


def _as_bool(field: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise Invalid(field=field, value=value, reason="it must be true or false")


def _as_int(field: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit():
        return int(value)
    raise Invalid(field=field, value=value, reason="it must be a whole number")


def _as_names(field: str, value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and all(isinstance(part, str) and part.strip() for part in parts):
        return tuple(part.strip() for part in parts)
    raise Invalid(field=field, value=value, reason='it must be a list of names, such as ["ssd", "hdd"]')
