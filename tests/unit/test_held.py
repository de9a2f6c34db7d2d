"""An app that an earlier Polly took and this one cannot read: it keeps no broker from starting, and what runs of it is left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from framework.desk import Desk
from framework.engine import Engine
from framework.marathon.problems import HeldApp
from framework.mesos.apps import KILL_AGAIN_S, RECLAIM_AGAIN_S
from framework.mesos.instances import Phase
from storage.errors import UnknownApp
from storage.lifecycle import ClaimState
from tests.stage import ShakyLedger, Stage, app, from_master, status
from tests.unit.engines import Started, parts

WHY = "The app definition is not valid. mems: is no field here"


def spoil(stage: Stage, **more: Any) -> str:
    """What an earlier Polly has stored of the app; with what is to be changed of the workload."""
    (stored,) = stage.ledger.workloads()
    spec = json.dumps({**json.loads(stored.spec), "mems": 1})
    with stage.ledger.begin("test") as tx:
        tx.put_workload(replace(stored, spec=spec, **more))
    return spec


def claims(stage: Stage) -> list[tuple[str, ClaimState]]:
    return [(claim.claim_id, claim.state) for claim in stage.ledger.claims().items]


def test_its_tasks_and_their_claims_are_kept_and_none_is_launched_or_killed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    first, second = stage.run(instances=2, agents=("a1", "a2"))
    stage.start(first)
    stage.start(second)
    spoil(stage, instances=1)
    before = claims(stage)
    later = stage.next_life()
    assert f"app /db, of which nothing is launched or killed: {WHY}" in caplog.text
    later.offer("a1", "a2")
    later.tick(KILL_AGAIN_S)
    assert (later.driver.kills, later.driver.accepts, claims(later)) == ([], [], before)
    assert [task.task_id for task in later.tasks()] == [first.task_id, second.task_id]
    with pytest.raises(HeldApp, match="App /db is held, so nothing of it is launched, replaced or killed: The app definition"):
        later.apps.scale("/db", 2, "test")


def test_one_that_ends_is_not_replaced_and_says_why(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    spoil(stage)
    later = stage.next_life()
    (task,) = later.tasks()
    later.end(task, "TASK_FAILED")
    later.tick(3600.0)
    later.offer("a1")
    assert (later.driver.accepts, claims(later)) == ([], [])
    assert later.state().waiting[0].blocked.startswith(f"the app is held: {WHY}")


def test_one_that_nobody_can_reach_is_neither_replaced_nor_forgotten_and_is_taken_back(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    spoil(stage)
    later = stage.next_life()
    (task,) = later.tasks()
    later.hear(from_master(task, "TASK_UNREACHABLE"))
    later.tick(1e6)
    later.work()
    later.tick()
    assert [state for _, state in claims(later)] == [ClaimState.STRANDED]
    assert (later.tasks()[0].phase, later.state().waiting) == (Phase.UNREACHABLE, {})
    later.hear(status(task, "TASK_RUNNING"))
    later.tick()
    assert ([state for _, state in claims(later)], later.driver.kills) == ([ClaimState.MOUNTED], [])


def test_a_person_can_end_it_and_its_definition_stays_as_it_was_stored(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    spec = spoil(stage)
    later = stage.next_life()
    later.apps.delete("/db", "jane")
    later.tick()
    (stored,) = later.ledger.workloads()
    assert (later.driver.kills, stored.spec, stored.state) == ([task.task_id], spec, "DELETING")
    assert later.state().held == ""
    last = later.next_life()
    last.tick()
    assert (last.driver.kills, last.state().held) == ([task.task_id], ""), "also after another death"
    last.end(last.tasks()[0], "TASK_KILLED")
    last.tick(RECLAIM_AGAIN_S)
    with pytest.raises(UnknownApp):
        last.apps.app("/db")


def test_a_polly_that_can_read_it_goes_on_with_it(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    (stored,) = stage.ledger.workloads()
    spoil(stage)
    held = stage.next_life()
    held.end(held.tasks()[0], "TASK_FAILED")
    with stage.ledger.begin("test") as tx:
        tx.put_workload(stored)
    later = held.next_life()
    later.tick()
    later.offer("a1")
    assert len(later.driver.accepts) == 1


def test_explain_and_doctor_say_so(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    stage.apps.run(app(), "test")
    spoil(stage, instances=0)
    engine = Engine(parts(shaky_ledger, Started()))
    engine.start(who="test")
    try:
        desk = Desk(engine)
        (why,) = desk.explain_all()
        assert why.held.startswith(WHY)
        (finding,) = [finding for finding in desk.doctor() if finding.subject == "app /db"]
        assert finding.message.startswith(f"App /db is held, so nothing of it is launched, replaced or killed: {WHY}")
        assert not finding.ok
    finally:
        engine.stop()
