"""The filter expressions of list calls, as far as anybody here uses them: comparisons, joined by AND and OR, in parentheses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.peers.gce.errors import invalid

TOKEN = re.compile(r"""\s*(?:(\(|\))|(AND|OR)\b|([\w.-]+)\s*(!=|=|:)\s*("[^"]*"|[^\s()]+))""")
Test = Callable[[Mapping[str, Any]], bool]


class Filter:
    """A parsed expression; call it with a resource."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._test: Test = self._either()
        if self._text[self._at :].strip():
            raise self._wrong()

    def __call__(self, resource: Mapping[str, Any]) -> bool:
        return self._test(resource)

    def _wrong(self) -> Exception:
        return invalid("filter", self._text, "Invalid list filter expression.")

    def _next(self) -> re.Match[str] | None:
        return TOKEN.match(self._text, self._at)

    def _either(self) -> Test:
        parts = [self._all()]
        while (found := self._next()) and found[2] == "OR":
            self._at = found.end()
            parts.append(self._all())
        return lambda resource: any(part(resource) for part in parts)

    def _all(self) -> Test:
        parts = [self._one()]
        while (found := self._next()) and (found[2] == "AND" or found[1] == "(" or found[3]):
            self._at = found.end() if found[2] else self._at
            parts.append(self._one())
        return lambda resource: all(part(resource) for part in parts)

    def _one(self) -> Test:
        found = self._next()
        if found is None or found[1] == ")" or found[2]:
            raise self._wrong()
        self._at = found.end()
        if found[1] == "(":
            inner = self._either()
            closing = self._next()
            if closing is None or closing[1] != ")":
                raise self._wrong()
            self._at = closing.end()
            return inner
        return _comparison(found[3], found[4], found[5].strip('"'))


def _comparison(field: str, operator: str, wanted: str) -> Test:
    def test(resource: Mapping[str, Any]) -> bool:
        value: Any = resource
        for part in field.split(".", 1):
            value = value.get(part) if isinstance(value, Mapping) else None
        if operator == ":":
            return value is not None if wanted == "*" else wanted in str(value or "")
        return (str(value if value is not None else "") == wanted) == (operator == "=")

    return test
