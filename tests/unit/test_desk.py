"""The desk: what people ask of a running broker, answered out of its thread; by the kind of answer, with what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from executors.wire import VolumeProgress
from framework import reasons, remedies
from framework.desk import Desk
from framework.engine import Engine
from framework.mesos.events import Offers
from framework.reasons import Reasons
from framework.service import ImportOrder, VolumeOrder
from offers.tally import Tallies
from storage.errors import (
    Conflict,
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    UnknownApp,
    UnknownClaim,
    UnknownVolume,
    VolumeInUse,
)
from storage.lifecycle import ClaimState
from storage.model import ClaimId, ExternalId, WorkloadId
from storage.platforms.base import CreateRequest, Finding
from storage.platforms.testing import MemoryPlatform, MemoryStorage
from tests.ledgers import fresh, new, placed, task
from tests.stage import FRAMEWORK, ShakyLedger, app, from_master, offers_event, status, volume_of
from tests.support import eventually
from tests.unit.engines import Started, parts, start, tasks_of, tell


@pytest.fixture
def driver() -> Started:
    return Started()


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform("disks", storage=MemoryStorage())


@pytest.fixture
def engine(shaky_ledger: ShakyLedger, driver: Started, platform: MemoryPlatform) -> Iterator[Engine]:
    made = Engine(parts(shaky_ledger, driver, platform))
    made.start(who="test")
    yield made
    made.stop()


@pytest.fixture
def desk(engine: Engine) -> Desk:
    return Desk(engine)


def offer(engine: Engine, *agents: str, cpus: float = 8.0) -> None:
    engine.loop.post(Offers(data=offers_event(*agents, number=next(NUMBERS), cpus=cpus)))
    engine.ask(lambda: None)


NUMBERS = iter(range(10_000))


def test_it_says_who_the_broker_is(desk: Desk) -> None:
    info = desk.info()
    assert (info.scheduler, info.framework_name, info.framework_id) == ("mesos/stage", "stage", FRAMEWORK)
    assert (info.connected, info.roles) == (True, ("polly",))


def test_an_app_is_run_scaled_and_deleted(desk: Desk, engine: Engine) -> None:
    assert desk.run_app(app(instances=2), "jane").instances == 2
    assert desk.scale("/db", 3, "jane").instances == 3
    assert [event.actor for event in engine.ledger.events(limit=100).items if event.what.startswith("app.")] == ["jane", "jane"]
    desk.delete_app("db", "joe")
    eventually(lambda: not engine.ledger.workloads(), 10, "the app is gone")
    with pytest.raises(UnknownApp):
        desk.scale("/db", 1, "jane")
    with pytest.raises(UnknownApp):
        desk.explain("/db")


def scale(engine: Engine) -> None:
    engine.scheduler.apps.scale("/db", 3, "joe")


def test_a_question_about_many_is_answered_in_slices_between_which_the_broker_goes_on(
    desk: Desk, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reasons, "SLICE", 2)
    desk.run_app(app(instances=5), "jane")
    desk.run_app(app("/web", volumes=[]), "jane")
    offer(engine, "a1", cpus=0.1)
    told, counted = [], []
    tell, tally = Reasons._tell, Tallies.get

    def slowly(self: Reasons, instances: Sequence[tuple[WorkloadId, int]]) -> list[Any]:
        told.append(len(instances))
        if len(told) == 1:  # what comes meanwhile is done before the next slice
            engine.loop.post(partial(scale, engine))
        return tell(self, instances)

    def seen(self: Tallies, key: str) -> Any:
        counted.append(threading.current_thread().name)
        return tally(self, key)

    monkeypatch.setattr(Reasons, "_tell", slowly)
    monkeypatch.setattr(Tallies, "get", seen)
    db, web = desk.explain_all()
    assert told == [2, 2, 2]
    assert [it.slot for it in db.waiting] == [0, 1, 2]
    assert [refusal.reason for it in (*db.waiting, *web.waiting) for refusal in it.refusals] == ["CPUS"] * 4
    assert set(counted) == {threading.current_thread().name}, "no refusal is counted in the broker's thread"


def test_an_instance_that_waits_is_explained_with_its_refusals(desk: Desk, engine: Engine) -> None:
    desk.run_app(app(instances=2), "jane")
    offer(engine, "a1", "a2", cpus=0.1)
    explained = desk.explain("/db")
    assert (explained.instances, explained.running, explained.staging, len(explained.waiting)) == (2, 0, 0, 2)
    assert [it.slot for it in explained.waiting] == [0, 1]
    (refusal,) = explained.waiting[0].refusals
    assert (refusal.reason, refusal.count) == ("CPUS", 2)
    assert "cpus wanted" in refusal.example
    assert explained.waiting[0].offers_seen == 2


def test_an_app_that_goes_while_it_is_explained_is_unknown(desk: Desk, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run_app(app(), "jane")

    def deleted_first(reasons: Reasons, app_ids: Sequence[WorkloadId]) -> Any:
        engine.context.picture.apps.clear()
        return drafts(reasons, app_ids)

    drafts = Reasons._drafts
    monkeypatch.setattr(Reasons, "_drafts", deleted_first)
    with pytest.raises(UnknownApp):
        desk.explain("/db")


def test_of_all_apps_those_are_explained_that_wait_for_something(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform
) -> None:
    assert desk.explain_all() == []
    for app_id in ("/db", "/web", "/cache"):
        desk.run_app(app(app_id), "jane")
        if app_id == "/db":
            offer(engine, "a1")
            start(engine, driver, platform)
    offer(engine, "a1", cpus=0.1)
    assert [(why.app_id, len(why.waiting), why.waiting[0].refusals[0].reason) for why in desk.explain_all()] == [
        ("/cache", 1, "CPUS"),
        ("/web", 1, "CPUS"),
    ]


def test_a_task_counts_as_staging_until_it_runs(desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform) -> None:
    desk.run_app(app(), "jane")
    offer(engine, "a1")
    explained = desk.explain("/db")
    assert (explained.running, explained.staging, explained.waiting) == (0, 1, ())
    start(engine, driver, platform)
    explained = desk.explain("/db")
    assert (explained.running, explained.staging, explained.waiting) == (1, 0, ())


def test_instances_that_are_held_back_after_failures_are_counted(desk: Desk, engine: Engine) -> None:
    desk.run_app(app(instances=2), "jane")
    assert desk.delayed() == {}
    offer(engine, "a1")
    tell(engine, status(tasks_of(engine)[0], "TASK_FAILED"))
    assert desk.delayed() == {"/db": 1}


def strand(desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform) -> ClaimId:
    """An app whose task is on an agent that is away, and is to stay there."""
    desk.run_app(app(unreachableStrategy="disabled"), "jane")
    offer(engine, "a1")
    task = start(engine, driver, platform)
    tell(engine, from_master(task, "TASK_UNREACHABLE"))
    (claim,) = engine.ledger.claims().items
    assert claim.state is ClaimState.STRANDED
    return claim.claim_id


def test_an_instance_whose_agent_is_away_is_explained_by_its_claim(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform
) -> None:
    strand(desk, engine, driver, platform)
    (waiting,) = desk.explain("/db").waiting
    assert "volume /db#0/data is STRANDED: TASK_UNREACHABLE" in waiting.blocked
    assert 'unreachableStrategy is "disabled"' in waiting.blocked


def test_who_asks_why_an_instance_waits_for_a_stranded_volume_is_told_the_ways_out(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform
) -> None:
    """Of an instance that is not replaced before its end is proven, and of the replacement of another."""
    claim_id = strand(desk, engine, driver, platform)
    told = [
        "bring agent a1.example back: its task is then heard to run, or to have ended",
        "if the machine is dead, stop or delete a1.example on platform disks: Polly looks by itself",
        "if it will never come back, tell the Mesos master so (MARK_AGENT_GONE): curl -X POST 127.0.0.1:5050/api/v1 -H 'Content-Type: "
        """application/json' -d '{"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "a1"}}}'""",
        f'if you know that nothing on a1.example writes to it any more: polly claim release {claim_id} --because "how you know"',
    ]
    (waiting,) = desk.explain("/db").waiting
    assert list(waiting.remedies) == told
    desk.scale("/db", 0, "jane")
    desk.scale("/db", 1, "jane")
    (waiting,) = desk.explain("/db").waiting
    assert list(waiting.remedies) == told


def test_who_asks_about_a_claim_that_has_been_ending_for_long_is_told_what_keeps_it_and_the_ways_out(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.run_app(app(), "jane")
    offer(engine, "a1")
    task = start(engine, driver, platform)
    (volume,) = platform.volumes().items
    refused = PlatformError(platform="disks", action="detach", reason="IncorrectState: vol-1 is busy")
    monkeypatch.setattr(remedies, "LONG_S", 1e10)  # the ledger's clock is not the broker's here
    monkeypatch.setattr(platform, "detach", lambda *_: raising(refused))
    tell(engine, status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    eventually(lambda: "IncorrectState" in desk.explain("/db").waiting[0].blocked, 10, "the platform has refused")
    (claim,) = engine.ledger.claims().items
    (waiting,) = desk.explain("/db").waiting
    (hold,) = waiting.holds
    assert (hold.volume, hold.state, hold.since, hold.claim_id) == ("/db#0/data", "RELEASING", claim.since, claim.claim_id)
    assert (hold.node, hold.hostname, hold.reason) == ("a1", "a1.example", str(refused))
    assert (waiting.remedies, waiting.since) == ((), claim.since), "it may well end by itself"
    monkeypatch.setattr(remedies, "LONG_S", 0.0)
    assert list(desk.explain("/db").waiting[0].remedies) == [
        "end what still uses it on agent a1.example, a process with a file of it open or its mount in a namespace of its own "
        f"(as root there: lsof, and grep -l {task.task_id} /proc/[0-9]*/mountinfo)",
        f"once nothing there has it mounted, detach {volume.external_id} from a1.example on platform disks: Polly looks by itself",
        "if the machine is dead, stop or delete a1.example on platform disks: Polly looks by itself",
        f'if you know that nothing on a1.example writes to it any more: polly claim release {claim.claim_id} --because "how you know"',
    ]
    by_process = replace(platform.capabilities, held_by_process=True)
    monkeypatch.setattr(platform, "_capabilities", by_process)
    assert not [way for way in desk.explain("/db").waiting[0].remedies if "detach" in way], "nobody can, but by ending the process"


def test_a_task_that_has_been_starting_for_long_is_told_with_what_to_look_at(
    desk: Desk, engine: Engine, driver: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.run_app(app(volumes=[volume_of(), volume_of("log")]), "jane")
    offer(engine, "a1")
    (task,) = tasks_of(engine)
    said = [VolumeProgress(claim_id=claim.claim_id, epoch=claim.epoch, step="ATTACHING") for claim in task.claims.values()]
    tell(engine, status(task, "TASK_STARTING", *said))
    assert (desk.explain("/db").slow, desk.explain_all()) == ((), [])
    monkeypatch.setattr(remedies, "LONG_S", 0.0)
    (why,) = desk.explain_all()
    (slow,) = why.slow
    assert (why.staging, why.waiting, slow.phase, slow.since) == (1, (), "STARTING", task.record.launched_at)
    assert slow.blocked == "volume /db#0/data is ATTACHING; volume /db#0/log is ATTACHING"
    assert [(hold.volume, hold.state) for hold in slow.holds] == [("/db#0/data", "ATTACHING"), ("/db#0/log", "ATTACHING")]
    assert slow.holds[0].since >= task.record.launched_at, "not since it was reserved"
    assert list(slow.remedies) == [
        f"read what its executor says: stderr in the sandbox of task {task.task_id} on agent a1.example, which Mesos' web page shows",
        "see what was done so far: polly events --volume '/db#0/data' --newest-first",
        "see whether the agent has what it needs, on a1.example and as root: polly doctor --config polly.toml",
        "see what was done so far: polly events --volume '/db#0/log' --newest-first",
    ]


def test_an_instance_whose_volume_is_deleted_is_told_since_when_and_what_the_platform_says(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.run_app(app(), "jane")
    offer(engine, "a1")
    start(engine, driver, platform)
    desk.delete_app("/db", "jane")
    tell(engine, status(tasks_of(engine)[0], "TASK_KILLED", source="SOURCE_AGENT"))
    eventually(lambda: not engine.ledger.workloads(), 10, "the app is gone")
    refused = PlatformUnavailable(platform="disks", action="delete", reason="RequestLimitExceeded")
    monkeypatch.setattr(platform, "delete", lambda *_: raising(refused))
    with pytest.raises(PlatformUnavailable):
        desk.delete_volume("/db#0/data", "jane")
    desk.run_app(app(), "jane")
    offer(engine, "a1")
    (waiting,) = desk.explain("/db").waiting
    assert waiting.blocked == f"volume /db#0/data is being deleted: {refused}"
    events = {event.what: event for event in engine.ledger.events(limit=100).items}
    assert (waiting.holds[0].state, waiting.holds[0].since) == ("DELETING", events["volume.deleting"].at)
    assert (events["volume.not_deleted"].why, engine.ledger.volume("/db#0/data").reason) == (str(refused), str(refused))
    assert list(waiting.remedies) == [
        "mend what platform disks says: Polly deletes it again by itself, at the latest after a minute",
        "see what was done so far: polly events --volume '/db#0/data' --newest-first",
    ]


def raising(error: PollyError) -> None:
    raise error


def test_of_an_instance_that_only_offers_are_wanting_for_no_way_out_is_told(desk: Desk) -> None:
    desk.run_app(app(), "jane")
    (waiting,) = desk.explain("/db").waiting
    assert waiting.remedies == ()


def test_an_instance_and_its_replacement_are_one_in_the_explanation(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform
) -> None:
    desk.run_app(app(), "jane")
    offer(engine, "a1")
    task = start(engine, driver, platform)
    tell(engine, from_master(task, "TASK_UNREACHABLE"))
    eventually(lambda: "is claimed by task" in desk.explain("/db").waiting[0].blocked, 10, "the replacement waits for the volume")
    explained = desk.explain("/db")
    assert (explained.running, explained.staging, len(explained.waiting)) == (0, 0, 1)


def test_a_task_without_volumes_on_an_agent_that_is_away_is_named(desk: Desk, engine: Engine) -> None:
    desk.run_app(app(volumes=[], unreachableStrategy="disabled"), "jane")
    offer(engine, "a1")
    (task,) = tasks_of(engine)
    tell(engine, status(task, "TASK_RUNNING"), from_master(task, "TASK_UNREACHABLE"))
    (waiting,) = desk.explain("/db").waiting
    assert waiting.blocked == f"task {task.task_id} is UNREACHABLE on a1.example"


def test_a_person_ends_a_stranded_claim_with_a_reason(desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform) -> None:
    claim_id = strand(desk, engine, driver, platform)
    with pytest.raises(Invalid, match="because"):
        desk.release_claim(claim_id, "  ", "operator:jane")
    (volume,) = platform.volumes().items
    assert volume.held_by == ("a1.example",)
    desk.release_claim(claim_id, "the machine burnt down", "operator:jane")
    assert platform.inspect(volume.external_id).held_by == ()
    assert engine.ledger.claims().items == []
    freed = next(event for event in engine.ledger.events(limit=100).items if event.what == "claim.freed")
    assert freed.actor == "operator:jane"
    assert freed.why.startswith("OPERATOR_OVERRIDE: operator:jane: the machine burnt down; nothing holds ")
    with pytest.raises(UnknownClaim):
        desk.release_claim(claim_id, "again", "operator:jane")


def test_a_persons_word_is_void_once_the_holder_was_heard_while_the_platform_was_asked(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_id = strand(desk, engine, driver, platform)
    (task,) = tasks_of(engine)
    detach = platform.detach

    def meanwhile(external_id: ExternalId, node: str) -> None:
        tell(engine, status(task, "TASK_RUNNING"))
        detach(external_id, node)

    monkeypatch.setattr(platform, "detach", meanwhile)
    with pytest.raises(Conflict, match=r"MOUNTED: its holder .* is heard of"):
        desk.release_claim(claim_id, "the machine burnt down", "operator:jane")
    (claim,) = engine.ledger.claims().items
    assert (claim.claim_id, claim.state) == (claim_id, ClaimState.MOUNTED)
    assert not engine.ask(lambda: engine.context.in_doubt)


def test_no_person_ends_the_claim_of_a_task_that_runs(desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform) -> None:
    desk.run_app(app(), "jane")
    offer(engine, "a1")
    start(engine, driver, platform)
    (claim,) = engine.ledger.claims().items
    with pytest.raises(Conflict, match="MOUNTED"):
        desk.release_claim(claim.claim_id, "I want it", "operator:jane")
    assert engine.ledger.claims().items == [claim]


def test_the_claim_of_another_brokers_task_is_that_ones_to_end(desk: Desk, engine: Engine) -> None:
    placed(engine.ledger, task("t1", fresh("c1", new("v", platform="disks", pool="default")), scheduler="mesos/other"))
    with pytest.raises(Conflict, match="wanted one of mesos/stage, found one of mesos/other: ask the broker of that framework"):
        desk.release_claim(ClaimId("c1"), "the machine burnt down", "operator:jane")


def test_offers_are_shown_with_what_polly_adds_and_what_became_of_them(desk: Desk, engine: Engine) -> None:
    desk.run_app(app(), "jane")
    offer(engine, "a1", "a2")
    shown = {view.offer["agent_id"]["value"]: view for view in desk.offers()}
    assert sorted(view.fate for view in shown.values()) == ["accepted", "declined"]
    assert [len(view.tasks) for view in shown.values() if view.fate == "accepted"] == [1]
    for view in shown.values():
        assert view.overlay
        assert {resource["name"] for resource in view.overlay} == {"disk"}
        assert {resource["disk"]["source"]["type"] for resource in view.overlay} >= {"RAW"}


def test_volumes_are_made_grown_copied_and_deleted(desk: Desk, engine: Engine, platform: MemoryPlatform) -> None:
    made = platform.create(CreateRequest(pool="default", size_mib=16, token="theirs"))
    volume = desk.import_volume(ImportOrder(platform="disks", external_id=made.external_id, name="mine", profile="fast"), "jane")
    assert (volume.name, volume.size_mib) == ("mine", 16)
    assert desk.expand_volume("mine", 32, "jane").size_mib == 32
    snapshot = desk.snapshot_volume("mine", "monday", "jane")
    assert snapshot.state == "READY"
    desk.delete_snapshot(snapshot.snapshot_id, "jane")
    desk.delete_volume("mine", "jane")
    assert (platform.storage.volumes, platform.storage.snapshots) == ({}, {})
    planned = desk.create_volume(VolumeOrder(name="later", profile="fast", size_mib=16), "jane")
    assert planned.external_id is None
    desk.delete_volume(planned.volume_id, "jane")
    assert engine.ledger.volumes().items == []


def test_what_a_platform_or_the_ledger_refuses_is_the_callers_error(
    desk: Desk, engine: Engine, driver: Started, platform: MemoryPlatform
) -> None:
    with pytest.raises(UnknownVolume):
        desk.delete_volume("nothing", "jane")
    with pytest.raises(UnknownVolume):
        desk.import_volume(ImportOrder(platform="disks", external_id="nowhere", name="mine", profile="fast"), "jane")
    desk.run_app(app(volumes=[volume_of()]), "jane")
    offer(engine, "a1")
    start(engine, driver, platform)
    with pytest.raises(VolumeInUse):
        desk.delete_volume("/db#0/data", "jane")


def test_the_doctor_looks_at_mesos_the_ledger_and_each_platform(
    desk: Desk, driver: Started, platform: MemoryPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(finding.ok for finding in desk.doctor())

    def without_levels(parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        if pool is not None:
            raise Invalid(field="parameters.level", value="high", reason="there are none")

    monkeypatch.setattr(platform, "check_parameters", without_levels)
    refused = [finding.message for finding in desk.doctor() if not finding.ok]
    assert "profiles.fast.parameters.level is 'high': there are none; so says pool default of platform disks" in refused[0]

    def away() -> list[Finding]:
        raise PlatformUnavailable(platform="disks", action="log in", reason="the credentials have expired")

    driver.connected, driver.away = False, "h1:5050: Connection refused"
    monkeypatch.setattr(platform, "check", away)
    wrong = {finding.subject: finding for finding in desk.doctor() if not finding.ok}
    assert wrong.keys() == {"mesos", "platform disks"}
    assert wrong["mesos"].message == "not registered with a master: h1:5050: Connection refused"
    assert "--master" in wrong["mesos"].mend
    assert "expired" in wrong["platform disks"].message
