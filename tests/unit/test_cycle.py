"""Rounds of offers: what is claimed, accepted and declined, for how long, and when offers are wanted again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from executors.wire import Failure, VolumeProgress
from framework.mesos.cycle import BUSY_REFUSE_S, IDLE_REFUSE_S
from framework.mesos.errors import CallInDoubt, CallRefused
from framework.mesos.events import Disconnected, Failed, Offers, Rescinded
from framework.mesos.instances import Phase
from framework.service import VolumeOrder
from offers.tally import Refusal
from storage.errors import PoolFull
from storage.inventory import WORTH_A_THREAD, Ledger, NewVolume
from storage.model import VolumeId
from storage.platforms.base import PoolReport
from tests.ledgers import Clock
from tests.stage import ShakyLedger, Stage, Told, app, external_of, from_master, offers_event, sound, stage_config, status, volume_of

DOUBT = CallInDoubt(call="ACCEPT", reason="no answer")
REFUSED = CallRefused(call="ACCEPT", http_status=403, body="no")


def test_a_claim_is_committed_before_its_launch(stage: Stage) -> None:
    seen = []
    stage.driver.on_accept = lambda _: seen.append([claim.claim_id for claim in stage.ledger.claims().items])
    (task,) = stage.run()
    assert seen == [list(task.claims)]
    assert [plan.claim_id for plan in stage.plans(task)] == list(task.claims)


def test_launches_that_are_made_while_their_claims_are_stored_are_sent_afterwards(stage: Stage) -> None:
    seen = []
    stage.driver.on_accept = lambda _: seen.append(len(stage.ledger.claims().items))
    tasks = stage.run(agents=("a1", "a2"), instances=2 * WORTH_A_THREAD - 2, cpus=0.1)
    assert seen == [len(tasks)] * len(stage.driver.accepts)
    assert {plan.claim_id for task in tasks for plan in stage.plans(task)} == {claim.claim_id for claim in stage.ledger.claims().items}
    sound(stage.ledger)


def test_of_claims_whose_commit_is_in_doubt_nothing_is_launched(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    stage.offer("a1")
    stage.apps.run(app(instances=WORTH_A_THREAD, cpus=0.1), "test")
    shaky_ledger.fails_after = 1
    stage.offer("a1")
    assert (stage.driver.accepts, stage.tasks()) == ([], [])
    stage.tick(1.0)
    assert len(stage.tasks()) == WORTH_A_THREAD


def test_nothing_waits_so_offers_are_refused_for_long_and_then_suppressed(stage: Stage) -> None:
    stage.offer("a1")
    assert stage.driver.declined[0][1] == IDLE_REFUSE_S
    stage.tick()
    assert stage.driver.demand == ["suppress"]


def test_whoever_begins_to_wait_gets_offers_again(stage: Stage) -> None:
    stage.offer("a1")
    stage.tick()
    stage.apps.run(app(), "test")
    stage.tick()
    assert stage.driver.demand == ["suppress", "revive"]


def test_while_an_instance_is_blocked_no_offer_is_refused_for_long(stage: Stage) -> None:
    shared = [external_of("shared", shared=True, size=1)]
    (task,) = stage.run("/first", volumes=shared)
    stage.apps.run(app("/second", volumes=shared), "test")
    stage.offer("a2")
    assert "claimed by" in stage.state("/second").waiting[0].blocked
    assert stage.driver.declined[-1][1] == BUSY_REFUSE_S
    stage.start(task)
    stage.end(task)
    stage.offer("a2")
    assert len(stage.tasks("/second")) == 1


def test_an_offer_that_is_rescinded_in_the_same_batch_is_not_used(stage: Stage) -> None:
    stage.apps.run(app(), "test")
    stage.scheduler.handle([Offers(data=offers_event("a1", number=7)), Rescinded(offer_id="offer-a1-7")])
    assert stage.driver.accepts == []


def test_offers_of_a_connection_that_is_gone_are_not_used(stage: Stage) -> None:
    stage.apps.run(app(), "test")
    stage.scheduler.handle([Offers(data=offers_event("a1")), Disconnected(reason="cut")])
    assert stage.driver.accepts == []


@pytest.mark.parametrize("data", [b"{}", b'{"offers": {"offers": [{"id": 7}]}}', b"\xff"])
def test_offers_that_cannot_be_read_end_nothing(stage: Stage, data: bytes) -> None:
    stage.apps.run(app(), "test")
    stage.scheduler.handle([Offers(data=data), Offers(data=offers_event("a1"))])
    assert len(stage.tasks()) == 1


def test_a_launch_that_the_master_refused_leaves_nothing(stage: Stage) -> None:
    stage.driver.outcomes = [REFUSED]
    assert stage.run() == []
    assert (stage.ledger.volumes().items, stage.ledger.orphans(), stage.ledger.placements()) == ([], [], [])
    assert stage.context.reconciler.next_at() is not None  # the implicit question only
    stage.tick(1.0)
    assert [asked for asked in stage.driver.reconciled if asked] == []
    stage.offer("a1")
    assert len(stage.tasks()) == 1


def test_a_launch_in_doubt_is_asked_about_and_not_sent_again(stage: Stage) -> None:
    stage.driver.outcomes = [DOUBT]
    (task,) = stage.run()
    stage.tick()
    assert [task.task_id] in stage.driver.reconciled
    stage.offer("a1")
    assert len(stage.driver.accepts) == 1


def test_a_launch_without_volumes_that_nothing_is_heard_of_is_asked_about(stage: Stage) -> None:
    (task,) = stage.run(volumes=[])
    stage.tick(59.0)
    assert [task.task_id] not in stage.driver.reconciled
    stage.tick(2.0)
    assert [task.task_id] in stage.driver.reconciled
    stage.hear(from_master(task, "TASK_GONE"))
    assert stage.tasks() == []


def test_a_launch_that_is_heard_of_is_asked_about_no_more(stage: Stage) -> None:
    (task,) = stage.run(volumes=[])
    stage.hear(status(task, "TASK_STARTING"))
    stage.driver.reconciled.clear()
    stage.tick(70.0)
    assert [task.task_id] not in stage.driver.reconciled


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profiles": {"brief": {}}}, "no profile fast"),
        ({"framework": {"name": "stage", "roles": ["other"]}}, "role"),
    ],
)
def test_an_app_that_polly_toml_no_longer_suits_waits_and_says_why(stage: Stage, change: dict[str, object], words: str) -> None:
    stage.apps.run(app(role="polly"), "test")
    later = stage.next_life(stage_config(**change))
    later.offer("a1")
    assert words in later.state().waiting[0].blocked
    assert later.driver.accepts == []


def test_two_instances_that_need_one_new_volume_do_not_both_make_it(stage: Stage) -> None:
    for name in ("/one", "/two"):
        stage.apps.run(app(name, volumes=[external_of("shared", shared=True, size=1)]), "test")
    stage.offer("a1", "a2")
    assert len(stage.tasks("/one")) + len(stage.tasks("/two")) <= 1
    stage.offer("a1", "a2")
    assert len([volume for volume in stage.ledger.volumes().items if volume.name == "shared"]) <= 1
    sound(stage.ledger)


def full(stage: Stage, pool: str) -> Failure:
    error = PoolFull(pool=pool, platform="disks", free_mib=3, size_mib=16)
    return Failure(code=error.code, message=str(error))


def refuse(stage: Stage) -> str:
    """The executor finds the pool full, which the ledger had room in. Returns the pool's name."""
    (task,) = stage.tasks()
    (plan,) = stage.plans(task)
    said = VolumeProgress(claim_id=plan.claim_id, epoch=plan.epoch, step="FAILED", held=False, error=full(stage, plan.pool))
    stage.hear(status(task, "TASK_FAILED", said))
    return plan.pool


def next_offer(stage: Stage) -> None:
    """Once the failed instance's back-off is over."""
    stage.tick(2.0)
    stage.offer("a1")


def test_a_pool_that_refused_is_passed_over_and_another_taken(stage: Stage) -> None:
    with stage.ledger.begin("test") as tx:
        tx.sync_pools("disks", [PoolReport(name="default", capacity_mib=1000), PoolReport(name="other", capacity_mib=1000)])
    stage.run()
    first = refuse(stage)
    next_offer(stage)
    (task,) = stage.tasks()
    assert {first, stage.plans(task)[0].pool} == {"default", "other"}


def test_a_new_volume_is_accounted_as_large_as_its_platform_makes_it(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The platform makes volumes of 2 MiB and their multiples; who attaches them does not matter."""
    caplog.set_level(logging.INFO, "polly.story")
    stage.storage.capacity_mib = 31
    stage.janitor.sync_pools_now()
    (task,) = stage.run(volumes=[volume_of(size_mib=15)])
    (plan,) = stage.plans(task)
    (pool,) = stage.ledger.pools()
    assert (plan.size_mib, stage.ledger.volume("/db#0/data").size_mib, pool.provisioned_mib) == (16, 16, 16)
    said = [event.why for event in stage.ledger.events().items if event.what == "claim.reserved"]
    assert said == ["a new volume, 16 MiB (15 MiB were asked for) of pool default on disks"]
    assert "disks/default 16 MiB (15 MiB were asked for), reserved for /db#0" in caplog.text
    assert stage.run("/more", volumes=[volume_of(size_mib=15)]) == [], "15 MiB are free, and 16 it would be"
    stage.start(task)
    assert [pool.provisioned_mib for pool in stage.ledger.pools()] == [16]


def test_a_volume_that_its_type_makes_larger_is_placed_and_accounted_as_large_as_it_will_be(ledger: Ledger, clock: Clock) -> None:
    stage = Stage(ledger, clock, config=stage_config(profiles={"fast": {"platforms": ["disks"], "parameters": {"type": "large"}}}))
    stage.storage.capacity_mib = 63
    stage.janitor.sync_pools_now()
    (task,) = stage.run(instances=2)
    (plan,) = stage.plans(task)
    (pool,) = stage.ledger.pools()
    assert (plan.size_mib, pool.provisioned_mib) == (32, 32)
    stage.start(task)
    assert stage.ledger.volume("/db#0/data").size_mib == 32
    assert "needs 32 MiB" in str(stage.state().waiting[1].tallies["/db#1"].examples)


def test_a_full_pool_is_looked_at_at_once_and_explained(stage: Stage) -> None:
    stage.run()
    refuse(stage)
    next_offer(stage)
    (waiting,) = stage.state().waiting.values()
    tally = waiting.tallies["/db#0"]
    assert tally.counts == {Refusal.POOL_FULL: 1}
    assert "15 MiB free" in tally.examples[Refusal.POOL_FULL]
    stage.storage.capacity_mib = 10
    stage.janitor.look_at_pools()
    stage.work()
    next_offer(stage)
    assert "10 MiB free" in waiting.tallies["/db#0"].examples[Refusal.POOL_FULL]
    stage.state().app = replace(stage.state().app, role="gone")
    next_offer(stage)
    assert (waiting.blocked, dict(waiting.tallies)) == ("the app's role is gone, and this broker has the roles polly", {}), (
        "what blocks it counts, and the round that refused it is kept in memory no longer"
    )


def test_a_pool_that_was_looked_at_again_is_tried_again(stage: Stage) -> None:
    stage.run()
    refuse(stage)
    while stage.context.full.look_at("disks") is not None:
        stage.clock.now = stage.janitor.pools_due_at()
        stage.janitor.look_at_pools()
        stage.work()
    next_offer(stage)
    assert len(stage.tasks()) == 1


def test_nodes_are_known_before_claims_count_on_their_slots(stage: Stage) -> None:
    limited = stage.next_life(stage_config(platforms={"disks": {"kind": "memory", "slots_per_node": 1}}))
    limited.run(instances=2)
    assert len(limited.tasks()) == 1
    (node,) = limited.ledger.nodes()
    assert (node.slots, node.used) == ({"disks": 1}, {"disks": 1})
    limited.offer("a2")
    assert len(limited.tasks()) == 2


def test_mesos_is_asked_about_each_task_of_an_agent_that_it_removed(stage: Stage) -> None:
    """What it says of them by itself is lost with the connection."""
    lost, other = stage.run(instances=2, agents=("a1", "a2"), volumes=[], constraints=[["hostname", "UNIQUE"]])
    for task in (lost, other):
        stage.hear(status(task, "TASK_RUNNING"))
    stage.tick()
    stage.driver.reconciled.clear()
    stage.scheduler.handle([Failed(agent_id=lost.agent_id)])
    stage.tick()
    assert stage.driver.reconciled == [[lost.task_id]]


def test_an_agent_that_is_gone_is_forgotten(stage: Stage) -> None:
    stage.offer("a1")
    stage.scheduler.handle([Failed(agent_id="a1")])
    assert list(stage.scheduler.cycle.latest) == []


def test_where_a_task_is_over_the_next_may_run_while_its_volume_is_proven_free(stage: Stage) -> None:
    first, second = stage.run(instances=2, agents=("a1", "a2"), constraints=[["hostname", "UNIQUE"]])
    stage.start(first)
    stage.start(second)
    stage.hear(from_master(first, "TASK_GONE"))
    stage.apps.scale("/db", 3, "test")
    stage.tick()
    stage.offer("a1", "a2")
    assert first.phase is Phase.SETTLING
    (third,) = [task for task in stage.tasks() if task.slot == 2]
    assert third.record.hostname == first.record.hostname


def test_a_malformed_offer_is_declined_and_the_others_of_its_event_are_served(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.apps.run(app(volumes=[], constraints=[["rack", "UNIQUE"]]), "test")
    for number in range(2):
        document = json.loads(offers_event("a1", "a2", number=number))
        bad, good = document["offers"]["offers"]
        bad["attributes"] = [{"name": "rack", "type": "SCALAR", "scalar": {"value": "two"}}]
        good["attributes"] = [{"name": "rack", "type": "TEXT", "text": {"value": "r2"}}]
        stage.scheduler.handle([Offers(data=json.dumps(document).encode())])
        assert bad["id"]["value"] in stage.driver.declined[-1][0]
    assert [task.record.attributes for task in stage.tasks()] == [{"rack": "r2"}]
    assert [seen.offer.agent_id for seen in stage.scheduler.cycle.latest] == [good["agent_id"]["value"]]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1, "of an agent it is said once, not with each of its offers"
    assert said[0].startswith(
        f"passed over: offer {json.loads(offers_event('a1', number=0))['offers']['offers'][0]['id']['value']} of agent "
    )
    assert "scalar" in said[0]


def test_of_equally_named_attributes_the_first_counts_for_offers_and_for_peers(stage: Stage) -> None:
    stage.apps.run(app(instances=2, volumes=[], constraints=[["rack", "UNIQUE"]]), "test")
    for number, agent in enumerate(("a1", "a2")):
        document = json.loads(offers_event(agent, number=number))
        document["offers"]["offers"][0]["attributes"] = [
            {"name": "rack", "type": "TEXT", "text": {"value": value}} for value in ("same", agent)
        ]
        stage.scheduler.handle([Offers(data=json.dumps(document).encode())])
    assert [task.record.attributes for task in stage.tasks()] == [{"rack": "same"}]


def test_a_volume_that_another_broker_made_is_found_by_whoever_waits_for_it(stage: Stage) -> None:
    stage.apps.run(app(volumes=[external_of("late")]), "test")
    stage.offer("a1")
    assert stage.state().waiting[0].blocked.startswith("there is no volume late, and the app gives no size to make it with")
    other = stage.next_life()
    other.volumes.create(VolumeOrder(name="late", profile="fast", size_mib=16), "test")
    stage.offer("a1")
    (task,) = stage.tasks()
    assert [volume.name for volume in task.volumes.values()] == ["late"]


def test_claims_that_the_ledger_refuses_are_not_launched_and_say_why(stage: Stage) -> None:
    stage.apps.run(app(), "test")
    stage.tick()
    taken = NewVolume(volume_id=VolumeId("v"), name="/db#0/data", platform="disks", pool="default", size_mib=16)
    with stage.ledger.begin("another") as tx:
        tx.plan(taken, "another's")
    stage.context.named["/db#0/data"] = None
    stage.offer("a1")
    assert (stage.driver.accepts, stage.tasks(), stage.ledger.claims().items) == ([], [], [])
    (waiting,) = stage.state().waiting.values()
    assert "the ledger refused the claim" in waiting.blocked
    stage.offer("a1")
    assert [list(task.volumes) for task in stage.tasks()] == [["v"]]


def test_a_volume_on_a_platform_that_is_not_configured_any_more_keeps_its_app_waiting(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    stage.end(task)
    stage.context.platforms.pop("disks")  # type: ignore[attr-defined]  # a dict, as the stage has it
    stage.tick(60.0)
    stage.offer("a1")
    (waiting,) = stage.state().waiting.values()
    assert waiting.blocked == "volume /db#0/data is on platform disks, which polly.toml does not have"
    assert len(stage.driver.accepts) == 1


class Deaf(Told):
    """A driver with a connection that takes no call about offers."""

    deaf = False

    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None:
        if self.deaf:
            raise DOUBT
        super().decline(offer_ids, refuse_s=refuse_s)

    def revive(self, roles: Sequence[str] = ()) -> None:
        if self.deaf:
            raise DOUBT
        super().revive(roles)


def test_a_revive_that_did_not_get_through_is_made_again(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    stage = Stage(shaky_ledger, clock, driver=(driver := Deaf()))
    stage.subscribed()
    stage.offer("a1")
    stage.tick()
    driver.deaf = True
    stage.apps.run(app(), "test")
    stage.tick()
    stage.offer("a1")
    assert (driver.demand, len(stage.tasks())) == (["suppress"], 1)
    stage.apps.run(app("/other", volumes=[]), "test")
    stage.tick()
    driver.deaf = False
    stage.tick()
    assert driver.demand == ["suppress", "revive"]
