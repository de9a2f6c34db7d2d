"""One JSON object of a definition, read field by field. What nobody asks for is an unknown field.

Every read reports what is wrong and goes on with the default, so that all errors are found in one pass; null is as good as absent.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from framework.marathon.problems import Path, Report

INT32: Final = 2**31 - 1
INT64: Final = 2**63 - 1


class Section:
    def __init__(self, value: object, path: Path, report: Report) -> None:
        self.path = path
        self.report = report
        self._asked: dict[str, None] = {}
        self.sound = isinstance(value, Mapping)
        self._fields: dict[str, Any] = {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}
        if not self.sound:
            self.wrong("", f"must be an object, not {show(value)}")

    def wrong(self, name: str, message: str) -> None:
        self.report.wrong(self.at(name), message)

    def not_yet(self, name: str, what: str) -> None:
        self.report.not_yet(self.at(name), what)

    def at(self, name: str, index: int | None = None) -> Path:
        path = (*self.path, name) if name else self.path
        return path if index is None else (*path, index)

    def has(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> Any:
        """The raw value; None if it is absent or null."""
        self._asked[name] = None
        return self._fields.get(name)

    def need(self, *names: str) -> None:
        for name in names:
            if self.sound and not self.has(name):
                self.wrong(name, "is required")

    def close(self) -> None:
        """Reports every field that nobody has asked for. Call it once all are read."""
        for name in [name for name in self._fields if name not in self._asked]:
            near = difflib.get_close_matches(name, self._asked, n=1)
            ask = f"; did you mean {near[0]!r}?" if near else ""
            self.wrong(name, f"is no field here (its value is {show(self._fields[name])}{ask})")

    # --- one value -----------------------------------------------------------------------------

    def text(self, name: str, *, pattern: re.Pattern[str] | None = None, rule: str = "", empty: bool = False) -> str | None:
        """`rule` says in words what `pattern` wants of the whole text."""
        value = self.get(name)
        return None if value is None else check_text(self.report, self.at(name), value, pattern=pattern, rule=rule, empty=empty)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        value = self.get(name)
        if value is None:
            return default
        if value not in choices:
            self.wrong(name, f"must be one of {', '.join(choices)}, not {show(value)}")
            return default
        return str(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.wrong(name, f"must be true or false, not {show(value)}")
        return default

    def number(self, name: str, default: float, *, least: float = 0.0, most: float = float(INT64)) -> float:
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
            self.wrong(name, f"must be a number, not {show(value)}")
            return default
        return float(value) if self._within(name, value, least, most) else default

    def whole(self, name: str, default: int, *, least: int = 0, most: int = INT32) -> int:
        value = self.whole_or_none(name, least=least, most=most)
        return default if value is None else value

    def whole_or_none(self, name: str, *, least: int = 0, most: int = INT32) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        number = as_whole(value)
        if number is None:
            self.wrong(name, f"must be a whole number, not {show(value)}")
            return None
        return number if self._within(name, number, least, most) else None

    def _within(self, name: str, value: float, least: float, most: float) -> bool:
        if value < least:
            self.wrong(name, f"must be at least {least}, not {show(value)}")
        elif value > most:
            self.wrong(name, f"must be at most {most}, not {show(value)}")
        return least <= value <= most

    # --- several values ------------------------------------------------------------------------

    def section(self, name: str) -> Section | None:
        value = self.get(name)
        return None if value is None else Section(value, self.at(name), self.report)

    def items(self, name: str) -> list[Any]:
        value = self.get(name)
        if value is None or isinstance(value, list | tuple):
            return list(value or ())
        self.wrong(name, f"must be a list, not {show(value)}")
        return []

    def sections(self, name: str) -> Iterator[Section]:
        for index, item in enumerate(self.items(name)):
            yield Section(item, self.at(name, index), self.report)

    def texts(self, name: str, *, empty: bool = False) -> tuple[str, ...]:
        found = (check_text(self.report, self.at(name, i), item, empty=empty) for i, item in enumerate(self.items(name)))
        return tuple(item for item in found if item is not None)

    def entries(self, name: str) -> Mapping[str, Any]:
        """A map with names of the writer's choice; its values are unchecked."""
        value = self.get(name)
        if value is None or isinstance(value, Mapping):
            return {str(key): item for key, item in (value or {}).items()}
        self.wrong(name, f"must be an object, not {show(value)}")
        return {}

    def pairs(self, name: str) -> dict[str, str]:
        """A map of texts, such as labels."""
        found = {key: self._pair(name, key, value) for key, value in self.entries(name).items()}
        return {key: value for key, value in found.items() if value is not None}

    def _pair(self, name: str, key: str, value: object) -> str | None:
        path = (*self.at(name), key)
        named = check_text(self.report, path, key) is not None
        text = check_text(self.report, path, value, empty=True)
        return text if named else None


def check_text(
    report: Report, path: Path, value: object, *, pattern: re.Pattern[str] | None = None, rule: str = "", empty: bool = False
) -> str | None:
    """The value if it is a text that a process and a database can hold and that keeps the rule; else None, reported."""
    if not isinstance(value, str):
        report.wrong(path, f"must be a text, not {show(value)}")
    elif not value and not empty:
        report.wrong(path, "must not be empty")
    elif "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        report.wrong(path, "holds a character that no text may hold (NUL or half a surrogate pair)")
    elif pattern is not None and not pattern.fullmatch(value):
        report.wrong(path, f"{rule or f'must match {pattern.pattern}'}, not {show(value)}")
    else:
        return value
    return None


def as_whole(value: object) -> int | None:
    """A JSON number without a fraction, as an int."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    return value


def show(value: object) -> str:
    """A value as a sentence can hold it: short, on one line."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
