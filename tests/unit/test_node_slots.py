"""How many volumes one node can hold, where its platform can say it: asked once the node's name is known, and kept for matching."""

from __future__ import annotations

import msgspec
import pytest

from executors.wire import Progress, encode
from framework.mesos.cycle import NODE_SEEN_S
from framework.mesos.instances import Task
from framework.mesos.slots import AGAIN_S
from storage.platforms.testing import ABILITIES, MemoryPlatform
from tests.ledgers import Clock
from tests.stage import ShakyLedger, Stage, stage_config, status

NODE = "i-1"
DECLARED = 2
ABLE = msgspec.structs.replace(ABILITIES, identity="cloud", slots_per_node=DECLARED)


@pytest.fixture
def stage(shaky_ledger: ShakyLedger, clock: Clock) -> Stage:
    made = Stage(shaky_ledger, clock, platform=MemoryPlatform("disks", capabilities=ABLE), config=stage_config())
    made.subscribed()
    made.storage.slots[NODE] = 1
    return made


def names_itself(stage: Stage, task: Task, name: str = NODE) -> None:
    said = encode(Progress(volumes=(), identities={"disks": name}))
    stage.hear(msgspec.structs.replace(status(task, "TASK_STARTING"), data=said))


def slots(stage: Stage) -> dict[str, int]:
    return {node.node_id: node.slots["disks"] for node in stage.ledger.nodes()}


def test_the_platforms_word_on_a_node_wins_over_its_declaration(stage: Stage) -> None:
    (task,) = stage.run()
    assert slots(stage) == {"a1": DECLARED}
    names_itself(stage, task)
    stage.work()
    assert slots(stage) == {"a1": 1}
    assert stage.run("/second") == []
    stage.offer("a2")
    assert [task.agent_id for task in stage.tasks("/second")] == ["a2"]
    stage.clock.now += NODE_SEEN_S
    stage.offer("a1", "a2")
    assert slots(stage) == {"a1": 1, "a2": DECLARED}


def test_a_node_may_hold_more_than_is_declared(stage: Stage) -> None:
    stage.storage.slots[NODE] = 3
    (task,) = stage.run()
    names_itself(stage, task)
    stage.work()
    assert len(stage.run("/second", instances=3)) == 2


def test_a_node_may_have_a_limit_where_the_others_have_none(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    able = msgspec.structs.replace(ABLE, slots_per_node=None)
    stage = Stage(shaky_ledger, clock, platform=MemoryPlatform("disks", capabilities=able))
    stage.subscribed()
    stage.storage.slots[NODE] = 2
    (task,) = stage.run(agents=("a1", "a2"))
    names_itself(stage, task)
    stage.work()
    assert {node.node_id: dict(node.slots) for node in stage.ledger.nodes()}[task.agent_id] == {"disks": 2}
    assert len(stage.run("/second", agents=(task.agent_id,), instances=3)) == 1


def test_what_polly_toml_says_is_not_asked_for(stage: Stage) -> None:
    fixed = stage.next_life(stage_config(platforms={"disks": {"kind": "memory", "slots_per_node": 5}}))
    (task,) = fixed.run()
    names_itself(fixed, task)
    assert fixed.hands.jobs == []
    assert slots(fixed) == {"a1": 5}


def test_a_new_broker_knows_it_before_it_asks_again(stage: Stage) -> None:
    (task,) = stage.run()
    names_itself(stage, task)
    stage.work()
    later = stage.next_life()
    assert later.run("/second") == []
    assert slots(later) == {"a1": 1}
    stage.storage.slots[NODE] = 2
    later.work()
    later.offer("a1")
    assert len(later.tasks("/second")) == 1


def test_who_did_not_answer_is_asked_with_the_next_offer_and_who_did_after_a_while(stage: Stage) -> None:
    (task,) = stage.run()
    stage.storage.expired = True
    names_itself(stage, task)
    stage.work()
    assert slots(stage) == {"a1": DECLARED}
    stage.storage.expired = False
    stage.clock.now += NODE_SEEN_S
    stage.offer("a1")
    stage.work()
    assert slots(stage) == {"a1": 1}
    stage.clock.now += NODE_SEEN_S
    stage.offer("a1")
    assert stage.hands.jobs == []
    del stage.storage.slots[NODE]
    stage.clock.now += AGAIN_S
    stage.offer("a1")
    stage.work()
    stage.clock.now += NODE_SEEN_S
    stage.offer("a1")
    assert slots(stage) == {"a1": DECLARED}
