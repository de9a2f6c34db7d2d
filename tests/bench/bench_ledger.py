"""How fast the ledger is, against the plainest use of the same database. `python -m tests.bench.bench_ledger URL` prints all."""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from statistics import median

from sqlalchemy import text

from storage.inventory import ClaimRequest, Ledger, NewVolume, Placed, Placement, PlaceRequest, open_ledger
from storage.lifecycle import VolumeState
from storage.model import Access, Birth, ClaimId, ExternalId, Node, NodeId, PlacementId, Volume, VolumeId, WorkloadId
from storage.platforms.base import PoolReport

SCHEDULER = "mesos/bench"
POOLS = 8
NODES = 100
BATCH = 1_000


def ids(seed: int = 1) -> Iterator[str]:
    """Ids that sort by their age, as the broker's do."""
    chance = random.Random(seed)
    for number in count(1_700_000_000_000):
        yield f"{number:012x}{chance.getrandbits(80):020x}"


@dataclass(slots=True)
class Load:
    """A ledger with many volumes, and tasks to place on it."""

    ledger: Ledger
    names: Iterator[str]
    free: list[tuple[VolumeId, int]]
    """Volumes to claim, in random order, with their epochs."""

    def new_tasks(self, number: int = BATCH) -> list[PlaceRequest]:
        return [self._task(self._fresh(name)) for name in islice(self.names, number)]

    def old_tasks(self, number: int = BATCH) -> list[PlaceRequest]:
        picked, self.free = self.free[:number], self.free[number:]
        return [
            self._task(ClaimRequest(claim_id=ClaimId(next(self.names)), volume_id=volume_id, access=Access.RW, epoch=epoch))
            for volume_id, epoch in picked
        ]

    def _fresh(self, name: str) -> ClaimRequest:
        new = NewVolume(
            volume_id=VolumeId(name), name=f"/new/{name}#0/data", platform="local", pool="p1", size_mib=64, profile="fast", owner="/new", zone="z1"
        )
        return ClaimRequest(claim_id=ClaimId(next(self.names)), volume_id=new.volume_id, access=Access.RW, new=new)

    def _task(self, claim: ClaimRequest) -> PlaceRequest:
        name = next(self.names)
        placement = Placement(
            placement_id=PlacementId(f"app.{name}"),
            scheduler=SCHEDULER,
            workload=WorkloadId("/app"),
            slot=0,
            node=NodeId(f"agent-S{int(name[-2:], 16) % NODES}"),
            state="LAUNCHED",
            data='{"hostname":"node1.example","role":"*","ports":[31000]}',
            created_at=1.0,
            updated_at=1.0,
        )
        return PlaceRequest(placement=placement, claims=(claim,), lease_s=60.0)

    def place(self, tasks: Sequence[PlaceRequest]) -> None:
        """Places them in one commit."""
        with self.ledger.begin("broker") as tx:
            outcomes = tx.place(tasks)
        if not all(isinstance(outcome, Placed) for outcome in outcomes):
            raise AssertionError("a task was refused")


def loaded(url: str, volumes: int) -> Load:
    """A new ledger at `url` with so many volumes, made and born."""
    ledger, names = open_ledger(url, clock=lambda: 1_700_000_000.0), ids()
    with ledger.begin("bench") as tx:
        tx.sync_pools("local", [PoolReport(name=f"p{n}", capacity_mib=10**9, zone=f"z{n % 4}") for n in range(POOLS)])
        tx.put_nodes([Node(node_id=NodeId(f"agent-S{n}"), scheduler=SCHEDULER, hostname=f"n{n}", slots={"local": 10**6}) for n in range(NODES)])
    made = [_volume(next(names), number) for number in range(volumes)]
    for start in range(0, volumes, 20_000):
        _fill(ledger, made[start : start + 20_000])
    free = [(volume.volume_id, volume.epoch) for volume in made]
    random.Random(2).shuffle(free)
    return Load(ledger, names, free)


def _volume(name: str, number: int) -> Volume:
    return Volume(
        volume_id=VolumeId(name),
        name=f"/app{number}#0/data",
        platform="local",
        pool=f"p{number % POOLS}",
        size_mib=64,
        profile="fast",
        state=VolumeState.AVAILABLE,
        external_id=ExternalId(f"vol-{name}"),
        token=name,
        epoch=1,
        birth=Birth(serial=f"serial-{number}", filesystem="ext4", filesystem_uuid=f"{number:036}"),
        owner=f"/app{number}",
        zone=f"z{number % 4}",
        created_at=1.0,
    )


def _fill(ledger: Ledger, volumes: Sequence[Volume]) -> None:
    """Inserts volumes as if each had been planned, made and born, with the line of each in the event log."""
    from sqlalchemy import insert

    from storage import schema
    from storage.ledger.volumes import _row

    with ledger.begin("bench") as tx:
        tx.session.connection.execute(insert(schema.volumes), [_row(volume) for volume in volumes])
        for volume in volumes:
            tx.note("volume.planned", volume_id=volume.volume_id)
        for pool in range(POOLS):
            tx._account("local", f"p{pool}", sum(volume.size_mib for volume in volumes if volume.pool == f"p{pool}"))


def committed_inserts(ledger: Ledger, number: int = 500) -> float:
    """Seconds for each INSERT of one row into a plain table of the same database, committed alone, by the database's own driver."""
    connection = ledger._database.writer.raw_connection()
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE IF NOT EXISTS bench_plain (id TEXT PRIMARY KEY, data TEXT)")
    connection.commit()
    mark = "?" if ledger._database.is_sqlite else "%s"
    names = [(f"{time.monotonic_ns()}-{n}", "a task with a volume") for n in range(number)]
    begin = time.perf_counter()
    for row in names:
        cursor.execute(f"INSERT INTO bench_plain VALUES ({mark}, {mark})", row)  # noqa: S608
        connection.commit()
    spent = time.perf_counter() - begin
    connection.close()
    return spent / number


def timed(do: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - wall, time.process_time() - cpu


def placing(load: Load, kind: str, rounds: int = 9) -> None:
    """P1's ledger part: tasks durably placed for each committed insert, in interleaved pairs."""
    ratios, walls, cpus = [], [], []
    for _ in range(rounds):
        plain = committed_inserts(load.ledger)
        tasks = load.new_tasks() if kind == "new" else load.old_tasks()
        wall, cpu = timed(lambda tasks=tasks: load.place(tasks))  # type: ignore[misc]
        walls.append(wall / BATCH)
        cpus.append(cpu / BATCH)
        ratios.append(plain / (wall / BATCH))
    print(
        f"  {kind:4} volumes: {median(walls) * 1e6:6.1f} us wall, {median(cpus) * 1e6:6.1f} us cpu a task;"
        f" {median(ratios):5.2f} tasks per committed insert"
    )


def one_claim(load: Load, number: int = 300) -> float:
    """P7: CPU seconds of one claim in a transaction of its own."""
    tasks = load.old_tasks(number)
    load.place(load.old_tasks(50))
    _, cpu = timed(lambda: [load.place([task]) for task in tasks])
    return cpu / number


def restoring(load: Load) -> tuple[float, float]:
    """P8: CPU seconds of restore, and of plain SELECTs of the same rows."""
    load.ledger.restore(SCHEDULER)

    def plain() -> None:
        with load.ledger._database.reading() as session:
            driver = session.connection.connection.cursor()
            driver.execute("SELECT * FROM placements")
            driver.fetchall()
            driver.execute("SELECT * FROM claims")
            driver.fetchall()
            driver.execute("SELECT volumes.* FROM claims JOIN volumes ON volumes.volume_id = claims.volume_id")
            driver.fetchall()

    ours = min(timed(lambda: load.ledger.restore(SCHEDULER))[1] for _ in range(5))
    return ours, min(timed(plain)[1] for _ in range(5))


def main(url: str, sizes: Sequence[int]) -> None:
    for size in sizes:
        load = loaded(fresh(url, size), size)
        print(f"{load.ledger.url}: {size} volumes")
        placing(load, "new")
        if size > 10 * BATCH:
            placing(load, "old")
            ours, plain = restoring(load)
            print(f"  restore of {len(load.ledger.restore(SCHEDULER).claims)}: {ours:.3f} s cpu, plain SELECTs {plain:.3f} s, {ours / plain:.2f} x")
        print(f"  one claim alone: {one_claim(load) * 1e6:.0f} us cpu")
        for name, value in load.ledger.counters().items():
            assert value == 0, (name, value)
        load.ledger.close()


def fresh(url: str, size: int) -> str:
    """A database of its own for each size."""
    if url.startswith("sqlite"):
        path = Path(f"{url.removeprefix('sqlite:///')}.{size}")
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()
        return f"sqlite:///{path}"
    ledger = open_ledger(url)
    with ledger._database.writing() as session:
        session.connection.execute(text("DROP SCHEMA public CASCADE"))
        session.connection.execute(text("CREATE SCHEMA public"))
    ledger.close()
    return url


if __name__ == "__main__":
    main(sys.argv[1], [int(size) for size in sys.argv[2:]] or [1_000, 100_000])
