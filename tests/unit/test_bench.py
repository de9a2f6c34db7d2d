"""What `make bench` stands on: it is run by hand, so a change elsewhere could break it unseen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from storage.inventory import open_ledger
from tests.bench import placing
from tests.bench.broker import broker
from tests.bench.cluster import Log
from tests.bench.filling import PER_APP, fill, sound
from tests.bench.matching import offers_event
from tests.ledgers import Clock
from tests.stage import Stage


def test_a_round_of_the_benchmark_places_all_its_tasks(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/polly.db")
    try:
        with broker(ledger, tmp_path) as engine:
            fill(ledger, PER_APP, platform="disks", pool=ledger.pools()[0].name)
            spent_s, cpu_s = engine.ask(partial(placing._round, engine, 0, offers_event()))
        sound(ledger)
    finally:
        ledger.close()
    assert spent_s > 0
    assert cpu_s > 0


def test_the_benchmarks_on_a_real_mesos_count_each_task_that_ended_well(sqlite_url: str, clock: Clock) -> None:
    ledger = open_ledger(sqlite_url, clock=clock)
    try:
        stage = Stage(ledger, clock)
        stage.subscribed()
        for app_id, state in (("/with", "TASK_FINISHED"), ("/with-more", "TASK_FINISHED"), ("/failing", "TASK_FAILED")):
            (task,) = stage.run(app_id)
            stage.start(task)
            stage.end(task, state)
        log = Log(sqlite_url)
        assert [log.ended(app_id, 0) for app_id in ("/with", "/failing")] == [1, 0]
        assert log.ended("/with", log.newest()) == 0
    finally:
        ledger.close()
