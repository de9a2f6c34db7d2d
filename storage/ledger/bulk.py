"""One statement for many rows, on SQLite and on PostgreSQL, where SQLAlchemy's own way would cost more than the work.

A statement is written once. `:name` is a value of the row. On PostgreSQL it runs once, joined with all rows, each column of
which travels as one text: one round trip for a whole batch, and read by the server in a seventh of the time that it takes to read JSON.
On SQLite it does so where rows are many, from one JSON document, for then other threads have Python until all is done; where they
are few the driver runs it for each row (executemany). Either way the number of rows that changed comes back, and that number is the
guard: fewer than rows given means that one of them was not as expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, count
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
WORTH_A_DOCUMENT: Final = 10
"""How many rows SQLite is given in one document: row by row, its thread would wait for Python as many times."""
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
    """For one row, whose values are its parameters."""
    _on_sqlite: dict[tuple[int, ...], str] = field(init=False, default_factory=dict)
    _on_postgresql: dict[tuple[int, ...], str] = field(init=False, default_factory=dict)
    """For rows of which these columns are told; what is the same in all rows is a parameter of its own."""

    def __post_init__(self) -> None:
        place = {name: f"?{number}" for number, name in enumerate(self.columns, 1)}
        marks = {"from": "", "using": "", "with": "", "values": "VALUES (", "end": ")"}
        object.__setattr__(self, "sqlite", _NAME.sub(lambda found: place[found[1]], self.text.format_map(marks)))

    def postgresql_at_once(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, dict[str, Any]]:
        """The statement for all rows, with its parameters."""
        names, values = self.columns, list(zip(*rows, strict=True))
        varying = _varying(values)
        if varying and len(rows) < WORTH_A_DOCUMENT:
            varying = tuple(range(len(names)))  # always the same, so that the statement stays prepared
        parameters = {name: _plain(values[index][0]) for index, name in enumerate(names) if index not in varying}
        if not varying:
            return self._postgresql(varying), {**parameters, "rows": len(rows)}
        told = [values[index] for index in varying]
        between, missing = _marks(told)
        texts = {names[index]: _text(column, between, missing) for index, column in zip(varying, told, strict=True)}
        return self._postgresql(varying), {**parameters, **texts, "between": between, "missing": missing}

    def _postgresql(self, varying: tuple[int, ...]) -> str:
        known = self._on_postgresql.get(varying)
        if known is None:
            types = {name: NUMBERS.get(name, "text") for name in self.columns}
            told = [self.columns[index] for index in varying]
            # by a query of its own, so that the server does not plan for so many rows that it would read whole tables to find them
            texts = ", ".join(f"(SELECT string_to_array(%({name})s, %(between)s, %(missing)s))" for name in told)
            rows = f"unnest({texts}) AS batch ({', '.join(told)})" if told else "generate_series(1, %(rows)s::integer) AS batch"
            place = {name: f"batch.{name}::{types[name]}" if name in told else f"%({name})s::{types[name]}" for name in self.columns}
            marks = {"from": f"FROM {rows}", "using": f"USING {rows}", "with": f"{rows}, ", "values": "SELECT ", "end": f" FROM {rows}"}
            # the marks last: a type is no name of a column
            known = self._on_postgresql[varying] = _NAME.sub(lambda found: place[found[1]], self.text).format_map(marks)
        return known

    def sqlite_at_once(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]] | None:
        """The statement for all rows, with its parameters; None where only each row alone can be given whole.

        SQLite reads no decimal fraction exactly, and no text past a NUL.
        """
        if len(rows) < WORTH_A_DOCUMENT or "{using}" in self.text:
            return None
        values = list(zip(*rows, strict=True))
        varying = _varying(values)
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
        return self._sqlite(varying), (document, *parameters)

    def _sqlite(self, varying: tuple[int, ...]) -> str:
        """The parameters are the document, what is the same in all rows, and the long texts."""
        known = self._on_sqlite.get(varying)
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
            self._on_sqlite[varying] = known
        return known


def _varying(values: Sequence[tuple[Any, ...]]) -> tuple[int, ...]:
    """Which columns are not the same in all rows."""
    return tuple([index for index, column in enumerate(values) if column.count(column[0]) < len(column)])


def _marks(columns: Sequence[Sequence[Any]]) -> tuple[str, str]:
    """What no text of the columns has in it: one mark to stand between two texts, one in the place of none."""
    whole = "".join([_text(column, "", "") for column in columns])
    # Each begins and ends with what it has nowhere else, so it is not found where two texts meet.
    tries = chain([("\x1f", "\x1e")], ((f"\x1f{number}\x1d", f"\x1e{number}\x1d") for number in count()))
    return next((between, missing) for between, missing in tries if between not in whole and missing not in whole)


def _text(column: Sequence[Any], between: str, missing: str) -> str:
    """The column as one text."""
    try:
        return between.join(column)
    except TypeError:  # it has numbers, or nothing in some places
        return between.join([value if isinstance(value, str) else missing if value is None else str(value) for value in column])


def _plain(value: Any) -> Any:
    """A text of a kind of its own, such as an enumeration's, would be no text to PostgreSQL's driver."""
    return str(value) if isinstance(value, str) else value


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
            between, _ = _marks([keys])
            sql = self.text.format(among="= ANY(string_to_array(%s, %s))", lock="FOR UPDATE", share="FOR SHARE")
            yield sql, (between.join(keys), between)
            return
        start = 0
        while start < len(keys):
            size = next(size for size in CHUNKS if size <= len(keys) - start)
            yield self.text.format(among=f"IN ({', '.join('?' * size)})", lock="", share=""), tuple(keys[start : start + size])
            start += size


def lookup(columns: Sequence[Any], rest: str) -> Lookup:
    """A Lookup of these columns of tables; `rest` begins with FROM."""
    return Lookup(f"SELECT {', '.join(str(column) for column in columns)} {rest}")
