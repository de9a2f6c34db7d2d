"""A real Mesos with a real broker process to measure on, and what the ledger says of its tasks. Needs root, for loop devices."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.bench.harness import scratch
from tests.cluster.mesos_cluster import MesosCluster
from tests.cluster.rig import Rig, counter
from tests.support import eventually

WITH, WITHOUT = "/with", "/without"


@contextmanager
def rig() -> Iterator[Rig]:
    """One agent and one broker, its ledger on disk. Raises AssertionError at the end for anything held twice, lost or left."""
    if os.geteuid() != 0:
        raise SystemExit("this is measured with real loop devices, which needs root")
    with scratch() as folder, MesosCluster(1) as cluster:
        made = Rig(cluster, folder / "polly")
        try:
            made.start_broker()
            yield made
            for app_id in (WITH, WITHOUT):
                made.delete(app_id)
                made.gone(app_id)
            made.settle()
            made.nothing_left()
        finally:
            made.stop()


def app(app_id: str, cmd: str, instances: int = 0) -> dict[str, Any]:
    """The app with a volume of 16 MiB in each instance, or without any."""
    made = counter(app_id, instances=instances, cmd=cmd, backoffSeconds=0, maxLaunchDelaySeconds=0)
    if app_id == WITHOUT:
        del made["container"]
    return made


class Log:
    """What the broker has committed, read from beside it."""

    def __init__(self, database: str) -> None:
        """`database` as the broker was told it: an SQLite URL."""
        self._file = Path(database.removeprefix("sqlite:///"))

    def _one(self, query: str, *values: object) -> Any:
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchone()[0]

    def newest(self) -> int:
        """The number of the newest line."""
        return int(self._one("SELECT coalesce(max(seq), 0) FROM events"))

    def ended(self, app_id: str, after: int, since: float = 0.0, until: float = float("inf")) -> int:
        """How many tasks of the app ended well in this span of time, by the lines after that number."""
        task = f"{app_id.strip('/')}.instance-%"
        query = (
            "SELECT count(*) FROM events WHERE seq > ? AND what = 'task.ended' AND at >= ? AND at < ? AND placement_id LIKE ? "
            "AND why LIKE '%: TASK_FINISHED%'"
        )
        return int(self._one(query, after, since, until, task))

    def launch_s(self, task_id: str) -> float:
        """From the moment that the broker took up the offer until it had stored that the task runs."""
        query = "SELECT json_extract(data, '$.started_at') - json_extract(data, '$.launched_at') FROM placements WHERE placement_id = ?"
        return float(self._one(query, task_id))


def idle(rig: Rig, app_id: str) -> None:
    """Scales the app down and waits until none of its tasks is left."""
    rig.scale(app_id, 0)
    eventually(lambda: not rig.http.get(f"/v2/apps{app_id}").json()["app"]["tasks"], 60, f"no task of {app_id} is left")


def until(instant: float) -> None:
    eventually(lambda: time.time() >= instant, instant - time.time() + 60, "the time is over")
