"""P5sync: taking 100,000 listed volumes over into the ledger, over a plain executemany of the same rows in the same database."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count

from sqlalchemy import delete

from storage import schema
from storage.inventory import Ledger, open_ledger, written
from storage.model import ExternalId, Page
from storage.platforms.base import Platform, VolumeReport
from storage.platforms.testing import MemoryPlatform
from storage.syncing import sync_volumes
from tests.bench.harness import Result, in_pairs, ratios, scratch

VOLUMES = 100_000


class Listing(MemoryPlatform):
    """A platform that lists what it is given; each round has volumes of its own, so that every row is new."""

    def __init__(self, name: str, reports: Sequence[VolumeReport]) -> None:
        super().__init__(name)
        self._reports = reports

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        start = int(after or 0)
        end = start + limit
        return Page(items=self._reports[start:end], after=str(end) if end < len(self._reports) else None)


def reports(name: str) -> list[VolumeReport]:
    return [
        VolumeReport(
            external_id=ExternalId(f"vol-{number:017x}"),
            pool="zone-a",
            size_mib=1024,
            serial=f"vol{number:017x}",
            token=f"{name}-{number}",
            name=f"/app#{number}/data",
            held_by=("i-0123456789abcdef0",),
            zone="zone-a",
        )
        for number in range(VOLUMES)
    ]


def bench() -> Result:
    rounds = count()
    with scratch() as folder:
        ledger = open_ledger(f"sqlite:///{folder}/polly.db")
        try:
            mine, theirs = in_pairs(lambda: _synced(ledger, f"p{next(rounds)}"), lambda: _inserted(ledger, f"p{next(rounds)}"))
            again = _again(ledger)
        finally:
            ledger.close()
    return Result(
        name="P5sync",
        ratios=ratios(mine, theirs),
        what=f"seconds to take {VOLUMES:,} listed volumes over into the ledger, over one executemany of the same rows, SQLite",
        details={"s_ours": min(mine), "s_executemany": min(theirs), "s_nothing_changed": again},
    )


def _synced(ledger: Ledger, name: str) -> float:
    platform: Platform = Listing(name, reports(name))
    before = time.perf_counter()
    listed = sync_volumes(ledger, platform)
    spent = time.perf_counter() - before
    if listed != VOLUMES or len(ledger.fingerprints(name)) != VOLUMES:
        raise AssertionError(f"{listed} of {VOLUMES} volumes were taken over")
    _clear(ledger)
    return spent


def _inserted(ledger: Ledger, name: str) -> float:
    """The rows are made beforehand: only the database's own work is counted."""
    rows = [(name, it.external_id, it.token, written(it)) for it in reports(name)]
    connection = ledger._database.writer.raw_connection()
    cursor = connection.cursor()
    before = time.perf_counter()
    cursor.execute("BEGIN IMMEDIATE")
    cursor.executemany("INSERT INTO sightings (platform, external_id, token, report) VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    spent = time.perf_counter() - before
    connection.close()
    _clear(ledger)
    return spent


def _again(ledger: Ledger) -> float:
    """A second look, which finds nothing new."""
    platform = Listing("again", reports("again"))
    sync_volumes(ledger, platform)
    before = time.perf_counter()
    sync_volumes(ledger, platform)
    return time.perf_counter() - before


def _clear(ledger: Ledger) -> None:
    with ledger.begin("bench") as tx:
        tx.session.execute(delete(schema.sightings))
