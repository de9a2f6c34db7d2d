"""P3: tasks in a second, each with a volume, over tasks in a second without: the whole framework on a real Mesos, durable.

Twelve instances run `true` again and again; each run is an executor of its own. With a volume each run attaches, checks,
mounts and releases an ext4 image on a loop device. What is counted is committed task ends in a window of some seconds.
"""

from __future__ import annotations

import time
from functools import partial

from tests.bench.cluster import WITH, WITHOUT, Log, app, idle, rig, until
from tests.bench.harness import Result, in_pairs, ratios
from tests.cluster.rig import Rig
from tests.support import eventually

INSTANCES = 12
WINDOW_S = 5.0


def bench() -> Result:
    with rig() as made:
        for app_id in (WITH, WITHOUT):
            made.run(app(app_id, "true"))
        mine, theirs = in_pairs(partial(_rate, made, WITH), partial(_rate, made, WITHOUT))
    return Result(
        name="P3",
        ratios=ratios(mine, theirs),
        what=f"tasks per second with a volume over tasks per second without, {INSTANCES} instances of `true` on a real Mesos",
        details={"with_per_s": max(mine), "without_per_s": max(theirs), "window_s": WINDOW_S},
    )


def _rate(made: Rig, app_id: str) -> float:
    """Task ends in a second, once every instance has had its first run."""
    log = Log(made.database)
    before = log.newest()
    made.scale(app_id, INSTANCES)
    eventually(lambda: log.ended(app_id, before) >= INSTANCES, 120, f"{INSTANCES} tasks of {app_id} have ended")
    begin = time.time()
    until(begin + WINDOW_S)
    rate = log.ended(app_id, before, begin, begin + WINDOW_S) / WINDOW_S
    idle(made, app_id)
    return rate
