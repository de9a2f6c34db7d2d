"""One statement for many rows, on SQLite and on PostgreSQL, where SQLAlchemy's own way would cost more than the work.

A statement is written once. `:name` is a value of the row. On PostgreSQL it runs once, joined with all rows, which travel
as one JSON document: one round trip for a whole batch. On SQLite it does so where rows are many, for then other threads
have Python until all is done; where they are few the driver runs it for each row (executemany). Either way the number of
rows that changed comes back, and that number is the guard: fewer than rows given means that one of them was not as expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
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
WORTH_A_DOCUMENT: Final = 50
"""How many rows SQLite is given in one document."""
_NAME: Final = re.compile(r"(?<!:):([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Batch:
    """One statement for rows of `columns`. `{from}`, `{using}` and `{with}` mark where the document's rows are named in an UPDATE, in
    a DELETE and before another table; `{values}` and `{end}` enclose what an INSERT inserts."""

    text: str
    columns: tuple[str, ...]
    long: str = ""
    """The column whose texts are long: SQLite is given them beside the document, so that it need not read them as JSON."""
    sqlite: str = field(init=False)
    postgresql: str = field(init=False)
    _sqlite_at_once: dict[tuple[int, ...], str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        place = {name: f"?{number}" for number, name in enumerate(self.columns, 1)}
        marks = {"from": "", "using": "", "with": "", "values": "VALUES (", "end": ")"}
        object.__setattr__(self, "sqlite", _NAME.sub(lambda found: place[found[1]], self.text.format_map(marks)))
        typed = ", ".join(f"{name} {NUMBERS.get(name, 'text')}" for name in self.columns)
        rows = f"json_to_recordset(%s::json) AS batch ({typed})"
        marks = {"from": f"FROM {rows}", "using": f"USING {rows}", "with": f"{rows}, ", "values": "SELECT ", "end": f" FROM {rows}"}
        object.__setattr__(self, "postgresql", _NAME.sub(r"batch.\1", self.text).format_map(marks))

    def document(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """The rows as PostgreSQL gets them."""
        names = self.columns
        return msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows]).decode()

    def sqlite_at_once(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]] | None:
        """The statement for all rows, with its parameters; None where only each row alone can be given whole.

        What is the same in all rows is a parameter of its own. SQLite reads no decimal fraction exactly, and no text past a NUL.
        """
        if len(rows) < WORTH_A_DOCUMENT or "{using}" in self.text:
            return None
        values = list(zip(*rows, strict=True))
        varying = tuple([index for index, column in enumerate(values) if column.count(column[0]) < len(column)])
        parameters: list[Any] = [column[0] for index, column in enumerate(values) if index not in varying]
        told: list[Sequence[Any]] = []
        for index in varying:
            if self.columns[index] == self.long:
                texts = [text.encode() for text in values[index]]
                lengths = list(map(len, texts))
                told += [list(accumulate(lengths, initial=1))[:-1], lengths]
                parameters.append(b"".join(texts))
            elif NUMBERS.get(self.columns[index]) == "double precision":
                return None
            else:
                told.append(values[index])
        document = msgspec.json.encode(list(zip(*told, strict=True))).decode()
        if not varying or "\\u0000" in document:
            return None
        return self._told_at_once(varying), (document, *parameters)

    def _told_at_once(self, varying: tuple[int, ...]) -> str:
        """The statement for a document that tells these columns; the others are parameters, and then come the long texts."""
        known = self._sqlite_at_once.get(varying)
        if known is None:
            shared = [name for index, name in enumerate(self.columns) if index not in varying]
            place = {name: f"?{number}" for number, name in enumerate(shared, 2)}
            at = 0
            for name in (self.columns[index] for index in varying):
                place[name] = f"json_extract(batch.value, '$[{at}]')"
                at += 1
                if name == self.long:
                    place[name] = f"CAST(substr(?{len(shared) + 2}, {place[name]}, json_extract(batch.value, '$[{at}]')) AS TEXT)"
                    at += 1
            rows = "json_each(?1) AS batch"
            # WHERE, for else an ON CONFLICT after it could be meant for a join
            marks = {"from": f"FROM {rows}", "with": f"{rows} CROSS JOIN ", "values": "SELECT ", "end": f" FROM {rows} WHERE true"}
            known = _NAME.sub(lambda found: place[found[1]], self.text.format_map(marks))
            self._sqlite_at_once[varying] = known
        return known


def insert(table: str, columns: Sequence[str], *, fixed: Mapping[str, str] | None = None, tail: str = "", long: str = "") -> Batch:
    """Inserts rows of `columns`; `fixed` columns have the same SQL expression in each row. For `long` see Batch."""
    fixed = fixed or {}
    names, values = [*columns, *fixed], [*(f":{name}" for name in columns), *fixed.values()]
    return Batch(f"INSERT INTO {table} ({', '.join(names)}) {{values}}{', '.join(values)}{{end}} {tail}", tuple(columns), long)


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
