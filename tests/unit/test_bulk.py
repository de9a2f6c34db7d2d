"""One statement for many rows: on SQLite a document stores what each row alone would, or it is not made."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from storage.ledger.bulk import WORTH_A_DOCUMENT, Batch, insert

COLUMNS = ("claim_id", "epoch", "state", "data", "since")
Row = tuple[Any, ...]
THINGS = insert("things", COLUMNS, long="data", tail="ON CONFLICT (claim_id) DO UPDATE SET epoch = excluded.epoch")
RAISE = Batch(
    "UPDATE things SET epoch = things.epoch + 1 {from} WHERE things.claim_id = :claim_id AND things.epoch = :epoch", ("claim_id", "epoch")
)
COPY = Batch("INSERT INTO copies SELECT :epoch, things.data FROM {with}things WHERE things.claim_id = :claim_id", ("claim_id", "epoch"))


def rows(change: Callable[[int], Row] = lambda it: ()) -> list[Row]:
    """Each differs from the others in all that a document may tell; `change` gives the last fields."""
    made: list[Row] = [(f"c{it}'\"é\\", it, None if it % 2 else "", f'{{"ä":"{it} 你\\""}}', 1.1) for it in range(WORTH_A_DOCUMENT)]
    return [(*row[: len(row) - len(change(it))], *change(it)) for it, row in enumerate(made)]


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE things (claim_id TEXT PRIMARY KEY, epoch INTEGER, state TEXT, data TEXT, since REAL)")
    connection.execute("CREATE TABLE copies (epoch INTEGER, data TEXT)")
    return connection


def everything(connection: sqlite3.Connection) -> list[Row]:
    return sorted(connection.execute("SELECT * FROM things").fetchall()) + sorted(connection.execute("SELECT * FROM copies").fetchall())


def test_a_document_does_what_the_rows_do_one_by_one() -> None:
    alone, at_once = database(), database()
    some = [(row[0], row[1] + (row[1] == 7)) for row in rows()]
    for batch, given in ((THINGS, rows()), (RAISE, some), (COPY, some), (THINGS, rows())):
        call = batch.sqlite_at_once(given)
        assert call is not None
        assert at_once.execute(*call).rowcount == alone.executemany(batch.sqlite, given).rowcount
        assert everything(at_once) == everything(alone)


@pytest.mark.parametrize(
    "given",
    [
        rows()[1:],
        rows(lambda it: (it / 10,)),
        rows(lambda it: ("{}", 1.1))[:1] * WORTH_A_DOCUMENT,
        [(f"c\0{it}", *row[1:]) for it, row in enumerate(rows())],
    ],
    ids=["too few", "fractions", "all the same", "a NUL"],
)
def test_what_a_document_could_not_tell_whole_is_told_row_by_row(given: list[Row]) -> None:
    assert THINGS.sqlite_at_once(given) is None
