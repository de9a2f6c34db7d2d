"""That a list of volumes costs what is listed, however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text

from storage.errors import AlreadyExists
from storage.filters import VolumeFilter
from storage.inventory import Ledger, open_ledger
from storage.ledger.reads import _volumes
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Volume, VolumeId
from tests.ledgers import SCHEDULER


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"platform": "local"},
        {"platform": "local", "pool": "p"},
        {"profile": "fast"},
        {"zone": "z1"},
        {"state": VolumeState.FAULTED},
        {"owner": "/app"},
        {"role": "r"},
        {"name": "a"},
        {"labels": {"k": "v"}},
        {"labels": {"k": "v", "l": "w"}},
    ],
)
@pytest.mark.parametrize("after", [None, "5"])
def test_every_list_of_volumes_walks_an_index(sqlite_url: str, wanted: dict[str, object], after: str | None) -> None:
    """So that a page costs the same with a million of them: no scan but of what is listed anyway, and never a sort."""
    ledger = open_ledger(sqlite_url)
    with ledger._database.reading() as session:
        # fields as they come
        sql = str(_volumes(VolumeFilter(**wanted), after, 100).compile(ledger._database.reader, compile_kwargs={"literal_binds": True}))  # type: ignore[arg-type]
        plan = [row.detail for row in session.all(text(f"EXPLAIN QUERY PLAN {sql}"))]
    ledger.close()
    assert not any("TEMP B-TREE" in step for step in plan), plan
    assert all(step.startswith("SEARCH") for step in plan) or (not wanted and after is None), plan


def _adopt(ledger: Ledger) -> None:
    """Refused at last, because of a volume that is just being made."""
    taken = Volume(
        volume_id=VolumeId("v"), name="v", platform="local", pool="p", size_mib=1, external_id=ExternalId("x-new"), token="planned"
    )
    with pytest.raises(AlreadyExists), ledger.begin("test") as tx:
        tx.adopt(taken)


def _delete(ledger: Ledger) -> None:
    with ledger.begin("test") as tx:
        tx.deleting(VolumeId("v1"))


def _steps(path: str, number: int, asked: Callable[[Ledger], object]) -> int:
    """How many instructions SQLite takes to answer with so many volumes in the ledger, of which one is planned."""
    ledger = open_ledger(f"sqlite:///{path}")
    with sqlite3.connect(path) as made:
        made.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO volumes "
            "(volume_id, name, platform, pool, size_mib, profile, state, external_id, token, epoch, access_mode, filesystem, owner, role, "
            "region, zone, labels, reason, created_at) SELECT 'v' || i, 'n' || i, 'local', 'p', 1, '', 'AVAILABLE', 'x' || i, 't' || i, 1, "
            "'SINGLE_NODE_WRITER', 'ext4', '', '', '', '', '{}', '', 0 FROM n",
            (number,),
        )
        made.execute("UPDATE volumes SET state = 'PLANNED', external_id = NULL, token = 'planned' WHERE volume_id = 'v2'")
        made.execute(
            "INSERT INTO sightings SELECT 'local', 'stray' || number, 'lost' || number, "
            """'{"external_id":"x","pool":"p","size_mib":1,"serial":"s"}' FROM volumes WHERE number <= 20"""
        )
        made.execute("ANALYZE")
    made.close()
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    def counted(connection: Any, *_: object) -> None:
        connection.set_progress_handler(count, 1)

    for engine in (ledger._database.reader, ledger._database.writer):
        event.listen(engine, "checkout", counted)
    asked(ledger)
    answered = taken
    ledger.close()
    return answered


@pytest.mark.parametrize(
    "asked",
    [
        Ledger.growing,
        Ledger.orphans,
        Ledger.unfinished_snapshots,
        Ledger.in_use,
        lambda ledger: ledger.restore(SCHEDULER),
        lambda ledger: ledger.strays("local"),
        _adopt,
        _delete,
    ],
)
def test_what_the_broker_asks_again_and_again_costs_no_more_with_more_volumes(
    asked: Callable[[Ledger], object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    few, many = (_steps(str(tmp_path_factory.mktemp("ledger") / "it.db"), number, asked) for number in (100, 2000))
    assert 0 < many < few * 1.5
