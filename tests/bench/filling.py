"""A ledger with very many volumes, made in seconds, and the plainest use of the same database to compare with."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from storage.inventory import Ledger
from storage.ledger.bulk import insert

PER_APP = 500
"""Volumes of each app that the filled ledger knows: app `/old/N` has the volumes `/old/N#0/data` to `/old/N#499/data`."""
CHUNK = 20_000
VOLUMES = insert(
    "volumes",
    (
        "volume_id",
        "name",
        "platform",
        "pool",
        "size_mib",
        "profile",
        "external_id",
        "token",
        "epoch",
        "access_mode",
        "filesystem",
        "birth_serial",
        "birth_filesystem",
        "birth_uuid",
        "owner",
        "labels",
        "created_at",
    ),
    fixed={"state": "'AVAILABLE'", "role": "''", "region": "''", "zone": "''", "reason": "''"},
)
EVENTS = insert("events", ("at", "volume_id"), fixed={"actor": "'bench'", "what": "'volume.planned'", "why": "''"})


def volume_id(number: int) -> str:
    """The id of the volume of this number: they sort by their age, as the broker's do."""
    return f"0192{number:08x}-{random.Random(number).getrandbits(64):016x}"


def fill(ledger: Ledger, number: int, *, platform: str, pool: str, size_mib: int = 16, profile: str = "fast") -> None:
    """Makes so many volumes, born and free at epoch 1, each with its line in the event log."""
    rows = _rows(number, platform, pool, size_mib, profile)
    while chunk := list(islice(rows, CHUNK)):
        with ledger.begin("bench") as tx:
            tx.session.run(VOLUMES, chunk)
            tx.session.run(EVENTS, [(1.0, row[0]) for row in chunk])
            tx._account(platform, pool, len(chunk) * size_mib)


def _rows(number: int, platform: str, pool: str, size_mib: int, profile: str) -> Iterator[tuple[object, ...]]:
    for it in range(number):
        name, owner = volume_id(it), f"/old/{it // PER_APP}"
        born = (f"serial-{it}", "ext4", f"{it:036}")
        yield (
            name,
            f"{owner}#{it % PER_APP}/data",
            platform,
            pool,
            size_mib,
            profile,
            f"vol-{name}",
            name,
            1,
            "SINGLE_NODE_WRITER",
            "ext4",
            *born,
            owner,
            "{}",
            1.0,
        )


def committed_inserts(ledger: Ledger, number: int = 400) -> float:
    """INSERTs of one row into a plain table, each committed alone, in one second: the database's own driver, and nothing around it."""
    connection = ledger._database.writer.raw_connection()
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE IF NOT EXISTS bench_plain (id TEXT PRIMARY KEY, data TEXT)")
    connection.commit()
    mark = "?" if ledger._database.is_sqlite else "%s"
    rows = [(f"{time.monotonic_ns()}-{it}", "a task with a volume") for it in range(number)]
    begin = time.perf_counter()
    for row in rows:
        cursor.execute(f"INSERT INTO bench_plain VALUES ({mark}, {mark})", row)  # noqa: S608  # the mark is no data
        connection.commit()
    spent = time.perf_counter() - begin
    connection.close()
    return number / spent


def sound(ledger: Ledger) -> None:
    """Raises AssertionError if a volume is held twice or anything leaked: then no figure counts."""
    wrong = {name: number for name, number in ledger.counters().items() if number}
    if wrong:
        raise AssertionError(f"the ledger is not sound: {wrong}")


def picked(number: int, out_of: int, seed: int) -> Sequence[int]:
    """Different numbers of volumes, at random."""
    return random.Random(seed).sample(range(out_of), number)
