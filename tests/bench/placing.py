"""P1: tasks with a volume placed durably in a second, over single-row INSERTs committed in a second on the same database.

Ours is all that the broker does: an OFFERS event of a thousand offers comes in as bytes; a thousand instances wait, half of
them for a volume that is there already among a hundred thousand and half for a new one; the claims are committed; the
ACCEPTs are bytes again. The reference is the database's own driver with one INSERT and one COMMIT at a time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

from framework.engine import Engine
from framework.mesos.events import Offers
from storage.inventory import Ledger, open_ledger
from tests.bench.broker import app, broker
from tests.bench.filling import PER_APP, committed_inserts, fill, sound
from tests.bench.harness import Result, in_pairs, ratios, scratch
from tests.bench.matching import offers_event
from tests.servers import Postgres

VOLUMES = 100_000
TASKS = 2 * PER_APP


def bench_sqlite() -> Result:
    with scratch() as folder:
        return _bench("P1", "SQLite", f"sqlite:///{folder}/polly.db")


def bench_postgresql() -> Result:
    server = Postgres(durable=True).start()
    try:
        return _bench("P1pg", "PostgreSQL with fsync", server.url(server.create_database()))
    finally:
        server.stop()


def _bench(name: str, database: str, url: str) -> Result:
    ledger = open_ledger(url)
    try:
        with scratch() as folder, broker(ledger, folder) as engine:
            fill(ledger, VOLUMES, platform="disks", pool=ledger.pools()[0].name)
            return _measure(name, database, ledger, engine)
    finally:
        ledger.close()


def _measure(name: str, database: str, ledger: Ledger, engine: Engine) -> Result:
    rounds, data, cpu = itertools.count(), offers_event(), []

    def ours() -> float:
        spent, used = engine.ask(partial(_round, engine, next(rounds), data))
        cpu.append(used)
        return TASKS / spent

    mine, theirs = in_pairs(ours, partial(committed_inserts, ledger))
    sound(ledger)
    return Result(
        name=name,
        ratios=ratios(mine, theirs),
        what=f"tasks with a volume durably placed per second over committed INSERTs per second, {database}",
        details={
            "tasks_per_s": max(mine),
            "inserts_per_s": max(theirs),
            "us_cpu_per_task": min(cpu) / TASKS * 1e6,
            "volumes_in_the_ledger": VOLUMES,
        },
    )


def _round(engine: Engine, number: int, data: bytes) -> tuple[float, float]:
    """Seconds, and seconds of CPU, from the event to the ACCEPTs. Raises AssertionError if not every task was placed."""
    for app_id in (f"/old/{number}", f"/new/{number}"):
        engine.scheduler.apps.run(app(app_id, PER_APP), "bench")
    spent, used = timed(lambda: engine.scheduler.handle([Offers(data=data)]))
    placed = sum(accept.count(b'"task_id"') for accept in engine.driver.accepts)
    if placed != TASKS:
        raise AssertionError(f"{placed} of {TASKS} tasks were placed: a figure for less than the whole work would mean nothing")
    return spent, used


def timed(do: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - wall, time.process_time() - cpu
