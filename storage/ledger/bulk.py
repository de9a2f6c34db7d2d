"""One statement for many rows, on SQLite and on PostgreSQL, where SQLAlchemy's own way would cost more than the work.

A statement is written once. `:name` is a value of the row. On SQLite the driver runs it for each row (executemany); on
PostgreSQL it runs once, joined with all rows, which travel as one JSON document: one round trip for a whole batch.
Either way the number of rows that changed comes back, and that number is the guard: fewer than rows given means that
one of them was not as expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

NUMBERS: Final = {
    **dict.fromkeys(
        ("number", "size_mib", "seat", "epoch", "claims", "slot", "used", "slots", "freed", "grown", "instances", "looks"), "bigint"
    ),
    **dict.fromkeys(
        ("at", "since", "keep_until", "lease_until", "created_at", "updated_at", "seen_at", "heard_at", "silent_since"), "double precision"
    ),
}
"""The PostgreSQL type of each name that is not text."""
CHUNKS: Final = (500, 60, 8, 1)
"""How many keys a SQLite lookup takes: few sizes, so that its statements stay prepared."""
_NAME: Final = re.compile(r"(?<!:):([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Batch:
    """One statement for rows of `columns`. `{from}`, `{using}` and `{and}` mark where PostgreSQL names the rows in an UPDATE,
    in a DELETE and after another table; `{values}` and `{end}` enclose what an INSERT inserts."""

    text: str
    columns: tuple[str, ...]
    sqlite: str = field(init=False)
    postgresql: str = field(init=False)

    def __post_init__(self) -> None:
        place = {name: f"?{number}" for number, name in enumerate(self.columns, 1)}
        marks = {"from": "", "using": "", "and": "", "values": "VALUES (", "end": ")"}
        object.__setattr__(self, "sqlite", _NAME.sub(lambda found: place[found[1]], self.text.format_map(marks)))
        typed = ", ".join(f"{name} {NUMBERS.get(name, 'text')}" for name in self.columns)
        rows = f"json_to_recordset(%s::json) AS batch ({typed})"
        marks = {"from": f"FROM {rows}", "using": f"USING {rows}", "and": f", {rows}", "values": "SELECT ", "end": f" FROM {rows}"}
        object.__setattr__(self, "postgresql", _NAME.sub(r"batch.\1", self.text).format_map(marks))

    def document(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """The rows as PostgreSQL gets them."""
        names = self.columns
        return msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows]).decode()


def insert(table: str, columns: Sequence[str], *, fixed: Mapping[str, str] | None = None, tail: str = "") -> Batch:
    """Inserts rows of `columns`; `fixed` columns have the same SQL expression in each row."""
    fixed = fixed or {}
    names, values = [*columns, *fixed], [*(f":{name}" for name in columns), *fixed.values()]
    return Batch(f"INSERT INTO {table} ({', '.join(names)}) {{values}}{', '.join(values)}{{end}} {tail}", tuple(columns))


@dataclass(frozen=True, slots=True)
class Lookup:
    """A SELECT for some keys, of any number. `{among}` stands after the key's column, `{lock}` or `{share}` where
    PostgreSQL locks the rows."""

    text: str

    def calls(self, keys: Sequence[str], *, sqlite: bool) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The statements to run, with their parameters."""
        if not sqlite:
            yield self.text.format(among="= ANY(%s)", lock="FOR UPDATE", share="FOR SHARE"), (list(keys),)
            return
        start = 0
        while start < len(keys):
            size = next(size for size in CHUNKS if size <= len(keys) - start)
            yield self.text.format(among=f"IN ({', '.join('?' * size)})", lock="", share=""), tuple(keys[start : start + size])
            start += size


def lookup(columns: Sequence[Any], rest: str) -> Lookup:
    """A Lookup of these columns of tables; `rest` begins with FROM."""
    return Lookup(f"SELECT {', '.join(str(column) for column in columns)} {rest}")
