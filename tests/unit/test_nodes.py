"""What the ledger says of agents: up, unreachable, gone for good, and at last nothing."""

from __future__ import annotations

import pytest

from framework.mesos.events import Failed
from framework.mesos.nodes import KEPT_S, LOOK_S
from tests.stage import Stage, from_master, status


def states(stage: Stage) -> dict[str, str]:
    return {node.node_id: node.state for node in stage.ledger.nodes()}


def test_an_agent_that_mesos_removed_is_up_again_with_its_task(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.scheduler.handle([Failed(agent_id="a1")])
    assert states(stage) == {"a1": "UNREACHABLE"}
    stage.hear(status(task, "TASK_RUNNING"))
    assert states(stage) == {"a1": "UP"}


@pytest.mark.parametrize("removed_first", [False, True])
def test_an_agent_that_is_gone_stays_gone(stage: Stage, removed_first: bool) -> None:
    (task,) = stage.run()
    stage.start(task)
    removed, gone = Failed(agent_id="a1"), from_master(task, "TASK_GONE_BY_OPERATOR")
    if removed_first:
        stage.scheduler.handle([removed])
    stage.hear(gone)
    stage.scheduler.handle([removed])
    assert states(stage) == {"a1": "GONE"}


def test_a_task_that_its_agent_does_not_know_says_nothing_of_the_agent(stage: Stage) -> None:
    (task,) = stage.run()
    stage.hear(from_master(task, "TASK_GONE", reason="REASON_RECONCILIATION"))
    assert states(stage) == {"a1": "UP"}


def test_who_is_away_and_holds_nothing_is_forgotten_in_time(stage: Stage) -> None:
    stage.offer("a1", "a2", "a3")
    stage.scheduler.handle([Failed(agent_id="a1"), Failed(agent_id="a2")])
    with stage.ledger.begin("test") as tx:
        tx.node_state(stage.context.scheduler, stage.ledger.nodes()[1].node_id, "GONE")
    assert states(stage) == {"a1": "UNREACHABLE", "a2": "GONE", "a3": "UP"}
    stage.tick(KEPT_S["GONE"] - 1.0)
    assert len(states(stage)) == 3
    stage.tick(LOOK_S)
    assert states(stage) == {"a1": "UNREACHABLE", "a3": "UP"}
    stage.tick(KEPT_S["UNREACHABLE"])
    assert states(stage) == {"a3": "UP"}
    assert [event.what for event in stage.ledger.events(limit=100).items].count("node.forgotten") == 2
    stage.offer("a1")
    assert states(stage) == {"a1": "UP", "a3": "UP"}


def test_who_holds_a_claim_or_a_task_is_never_forgotten(stage: Stage) -> None:
    (held,) = stage.run("/db", unreachableStrategy="disabled")
    stage.start(held)
    (plain,) = stage.run("/web", agents=("a2",), unreachableStrategy="disabled", volumes=[])
    stage.hear(status(plain, "TASK_RUNNING"))
    for task in (held, plain):
        stage.hear(from_master(task, "TASK_UNREACHABLE"))
        stage.scheduler.handle([Failed(agent_id=task.agent_id)])
    stage.tick(KEPT_S["UNREACHABLE"] * 2)
    assert states(stage) == {"a1": "UNREACHABLE", "a2": "UNREACHABLE"}
