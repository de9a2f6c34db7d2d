"""Drift: each kind of difference is named, looked at twice, and mended where that is safe; nothing is ever deleted for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from framework.service import DriftOrder, DriftReport
from storage.drift import MEANINGS, Drift, DriftKind, NodeMount, Severity, of_mounts, of_pools, of_snapshots, of_volume
from storage.errors import Conflict, UnknownPlatform
from storage.inventory import Ledger
from storage.lifecycle import ClaimState, VolumeState
from storage.model import (
    Access,
    Birth,
    Claim,
    ClaimId,
    ExternalId,
    Holder,
    NodeId,
    PlacementId,
    Pool,
    Snapshot,
    SnapshotId,
    Volume,
    VolumeId,
)
from storage.platforms.base import CreateRequest, PoolReport, SnapshotReport, VolumeReport
from tests.ledgers import Clock
from tests.stage import Stage, shaky, sound, volume_of

BIRTH = Birth(serial="s", filesystem="ext4", filesystem_uuid="u")
VOLUME = Volume(
    volume_id=VolumeId("v"),
    name="/db#0/data",
    platform="disks",
    pool="p",
    size_mib=64,
    state=VolumeState.AVAILABLE,
    external_id=ExternalId("e"),
    token="t",
    epoch=3,
    birth=BIRTH,
    zone="z1",
)
SEEN = VolumeReport(external_id=ExternalId("e"), pool="p", size_mib=64, serial="s", token="t", epoch=3, birth=BIRTH, zone="z1")
CLAIM = Claim(
    claim_id=ClaimId("c"),
    volume_id=VolumeId("v"),
    holder=Holder(scheduler="mesos/polly", placement=PlacementId("t1"), node=NodeId("S1")),
    epoch=3,
    access=Access.RW,
    state=ClaimState.MOUNTED,
    lease_until=0.0,
)
HELD = replace(SEEN, held_by=("i-1",))


def kinds(found: Iterator[Drift]) -> list[DriftKind]:
    return [it.kind for it in found]


def test_every_kind_says_how_bad_it_is_and_what_to_do() -> None:
    assert set(MEANINGS) == set(DriftKind)
    assert all(meaning.advice for meaning in MEANINGS.values())


def test_what_agrees_is_no_drift() -> None:
    assert kinds(of_volume(VOLUME, SEEN, [], {}, marks=True)) == []
    assert kinds(of_volume(VOLUME, HELD, [CLAIM], {"S1": "i-1"}, marks=True)) == []
    assert kinds(of_volume(replace(VOLUME, state=VolumeState.DELETING), None, [], {}, marks=True)) == []
    assert kinds(of_volume(replace(VOLUME, state=VolumeState.PLANNED, external_id=None), None, [], {}, marks=True)) == []


@pytest.mark.parametrize(
    ("volume", "seen", "claims", "kind"),
    [
        (VOLUME, None, [], DriftKind.VOLUME_GONE),
        (VOLUME, replace(SEEN, size_mib=128), [], DriftKind.SIZE_LARGER),
        (VOLUME, replace(SEEN, size_mib=32), [], DriftKind.SIZE_SMALLER),
        (VOLUME, HELD, [], DriftKind.HELD_UNCLAIMED),
        (VOLUME, SEEN, [CLAIM], DriftKind.NOT_HELD),
        (VOLUME, replace(SEEN, held_by=("i-2",)), [CLAIM], DriftKind.HELD_ELSEWHERE),
        (VOLUME, replace(SEEN, epoch=4), [], DriftKind.EPOCH_AHEAD),
        (VOLUME, replace(HELD, epoch=2), [CLAIM], DriftKind.EPOCH_BEHIND),
        (VOLUME, replace(SEEN, birth=replace(BIRTH, filesystem_uuid="other")), [], DriftKind.BIRTH_DIFFERS),
        (VOLUME, replace(SEEN, birth=None), [], DriftKind.BIRTH_UNMARKED),
        (VOLUME, replace(SEEN, pool="q"), [], DriftKind.POOL_MOVED),
        (VOLUME, replace(SEEN, zone="z2"), [], DriftKind.POOL_MOVED),
    ],
)
def test_each_difference_has_its_name(volume: Volume, seen: VolumeReport | None, claims: list[Claim], kind: DriftKind) -> None:
    (found,) = of_volume(volume, seen, claims, {"S1": "i-1"}, marks=True)
    assert (found.kind, found.severity, found.subject, found.volume_id) == (kind, MEANINGS[kind].severity, "/db#0/data", "v")


def test_a_claim_that_is_on_its_way_is_no_drift() -> None:
    for state in (ClaimState.RESERVED, ClaimState.ATTACHING):
        assert kinds(of_volume(VOLUME, replace(SEEN, epoch=2), [replace(CLAIM, state=state)], {}, marks=True)) == []


def test_a_node_is_named_by_some_of_its_initiators_in_any_order() -> None:
    held = replace(SEEN, held_by=("esx-1,21000024ff57b236,21000024ff57b237,21000024ff57b238",))
    for name in ("21000024FF57B238,21000024ff57b236", "esx-1"):
        assert kinds(of_volume(VOLUME, held, [CLAIM], {"S1": name}, marks=True)) == []
    assert kinds(of_volume(VOLUME, held, [CLAIM], {"S1": "21000024ff57b236,2100000000000000"}, marks=True)) == [DriftKind.HELD_ELSEWHERE]


def test_without_marks_and_names_nothing_is_said_of_them() -> None:
    bare = replace(SEEN, epoch=0, birth=None, held_by=("pid 17",))
    assert kinds(of_volume(VOLUME, bare, [CLAIM], {}, marks=False)) == []


def test_snapshots_and_pools() -> None:
    known = Snapshot(
        snapshot_id=SnapshotId("n"), volume_id=VolumeId("v"), platform="disks", external_id=ExternalId("s1"), size_mib=64, token="t1"
    )
    stray = SnapshotReport(external_id=ExternalId("s2"), volume=ExternalId("e"), size_mib=64, token="t2")
    foreign = replace(stray, external_id=ExternalId("s3"), token="")
    unfinished = replace(known, external_id=None, token="t2", state="PENDING")
    assert kinds(of_snapshots("disks", [known], [stray, foreign])) == [DriftKind.SNAPSHOT_GONE, DriftKind.STRAY_SNAPSHOT]
    assert kinds(of_snapshots("disks", [unfinished], [stray])) == []
    there = SnapshotReport(external_id=ExternalId("s1"), volume=ExternalId("e"), size_mib=64, token="t1")
    second = replace(there, external_id=ExternalId("s4"))
    assert [it.subject for it in of_snapshots("disks", [known], [there, second])] == ["s4"]
    pool, report = Pool(platform="disks", name="p", capacity_mib=10), PoolReport(name="p", capacity_mib=10, foreign_mib=3)
    assert kinds(of_pools("disks", [pool], [report])) == []
    assert kinds(of_pools("disks", [pool], [replace(report, capacity_mib=20), PoolReport(name="q", capacity_mib=1)])) == [
        DriftKind.POOL_CHANGED,
        DriftKind.POOL_CHANGED,
    ]
    assert kinds(of_pools("disks", [pool], [])) == [DriftKind.POOL_GONE]
    assert kinds(of_pools("disks", [replace(pool, online=False)], [])) == []


def test_mounts_of_a_node() -> None:
    mount = NodeMount(claim_id=ClaimId("old"), target="/run/polly/old", source="/dev/loop1", pids=(7,))
    found = list(of_mounts("n1", [mount], set(), [(CLAIM, VOLUME)]))
    assert [(it.kind, it.severity) for it in found] == [
        (DriftKind.MOUNT_STRAY, Severity.DANGER),
        (DriftKind.MOUNT_MISSING, Severity.DANGER),
    ]
    assert kinds(of_mounts("n1", [replace(mount, claim_id=ClaimId("c"))], {ClaimId("c")}, [(CLAIM, VOLUME)])) == []


# --- the look itself ---------------------------------------------------------------------------------------


@pytest.fixture
def stage(sqlite_url: str) -> Iterator[Stage]:
    clock = Clock()
    ledger = shaky(sqlite_url, clock)
    stage = Stage(ledger, clock)
    stage.subscribed()
    yield stage
    sound(ledger)
    ledger.close()


def look(stage: Stage, *, apply: bool = False) -> DriftReport:
    stage.drifting.start(DriftOrder(apply=apply), "operator:jane")
    assert stage.drifting.report().running
    stage.work()
    stage.work()
    report = stage.drifting.report()
    assert not report.running
    return report


def found(stage: Stage, *, apply: bool = False) -> list[Drift]:
    (part,) = look(stage, apply=apply).platforms
    assert part.error == ""
    return list(part.found)


def used(stage: Stage) -> tuple[ExternalId, VolumeId]:
    """A volume that is born, free and on the platform."""
    (task,) = stage.run(volumes=[volume_of()])
    stage.start(task)
    for plan in stage.plans(task):
        volume = stage.ledger.volume(plan.volume_id)
        assert volume.external_id
        assert volume.birth
        stage.platform.record_birth(volume.external_id, volume.birth, epoch=plan.epoch)
    stage.apps.scale("/db", 0, "test")
    stage.end(task, "TASK_KILLED")
    stage.tick()
    volume = stage.ledger.volume("/db#0/data")
    assert volume.external_id
    return volume.external_id, volume.volume_id


def test_a_sound_set_up_has_no_drift(stage: Stage) -> None:
    used(stage)
    report = look(stage)
    assert [(part.state, part.listed, part.compared, part.found) for part in report.platforms] == [("DONE", 1, 1, ())]
    assert report.started_at
    assert report.ended_at


def test_a_volume_that_was_deleted_by_hand_is_set_faulted_and_comes_back(stage: Stage) -> None:
    external, volume_id = used(stage)
    taken = stage.storage.volumes.pop(external)
    assert [it.kind for it in found(stage)] == [DriftKind.VOLUME_GONE]
    assert stage.ledger.volume(volume_id).state is VolumeState.AVAILABLE
    assert [(it.kind, it.mended) for it in found(stage, apply=True)] == [(DriftKind.VOLUME_GONE, True)]
    assert stage.ledger.volume(volume_id).state is VolumeState.FAULTED
    assert found(stage) == []
    stage.storage.volumes[external] = taken
    assert [(it.kind, it.mended) for it in found(stage, apply=True)] == [(DriftKind.VOLUME_BACK, True)]
    assert stage.ledger.volume(volume_id).state is VolumeState.AVAILABLE


def test_a_volume_that_grew_on_the_platform_is_accounted(stage: Stage) -> None:
    external, volume_id = used(stage)
    stage.platform.expand(external, 64)
    assert [(it.kind, it.mended) for it in found(stage, apply=True)] == [(DriftKind.SIZE_LARGER, True)]
    assert stage.ledger.volume(volume_id).size_mib == 64
    assert found(stage) == []


def test_a_birth_certificate_that_the_platform_lost_is_stored_again(stage: Stage) -> None:
    external, _ = used(stage)
    stage.storage.volumes[external] = replace(stage.storage.volumes[external], birth=None)
    assert [(it.kind, it.mended) for it in found(stage, apply=True)] == [(DriftKind.BIRTH_UNMARKED, True)]
    assert found(stage) == []


def test_a_pool_that_grew_is_taken_over(stage: Stage) -> None:
    stage.storage.capacity_mib = 9000
    assert [(it.kind, it.mended) for it in found(stage, apply=True)] == [(DriftKind.POOL_CHANGED, True)]
    assert stage.ledger.pools()[0].capacity_mib == 9000


def test_strays_are_shown_and_left_alone(stage: Stage) -> None:
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token="another-ledger's"))
    assert [(it.kind, it.external_id) for it in found(stage, apply=True)] == [(DriftKind.STRAY_VOLUME, made.external_id)]
    assert made.external_id in stage.storage.volumes


def test_a_foreign_volume_is_no_drift_but_can_be_listed(stage: Stage) -> None:
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token="x"))
    stage.storage.volumes[made.external_id] = replace(
        stage.storage.volumes[made.external_id], request=CreateRequest(pool="default", size_mib=16, token="")
    )
    assert found(stage) == []
    assert [seen.external_id for seen in stage.ledger.foreign("disks").items] == [made.external_id]


def test_what_changes_while_it_is_looked_at_is_no_drift(stage: Stage) -> None:
    external, _ = used(stage)
    listed = stage.platform.volumes

    def late(**asked: object) -> object:
        """The list is of a moment ago: the volume is deleted, by Polly, after it was made."""
        page = listed()
        stage.volumes.delete("/db#0/data", "test")
        stage.work(1)
        return page

    stage.platform.volumes = late  # type: ignore[method-assign, assignment]  # for this look only
    stage.drifting.start(DriftOrder(), "operator:jane")
    stage.work()
    (part,) = stage.drifting.report().platforms
    assert (part.state, part.found) == ("DONE", ())
    assert external not in stage.storage.volumes


def test_a_platform_that_does_not_answer_fails_alone_and_says_why(stage: Stage) -> None:
    stage.storage.expired = True
    (part,) = look(stage).platforms
    assert part.state == "FAILED"
    assert "the credentials have expired" in part.error


def test_one_look_at_a_time_and_only_at_what_is_there(stage: Stage) -> None:
    with pytest.raises(UnknownPlatform):
        stage.drifting.start(DriftOrder(platform="nowhere"), "operator:jane")
    stage.drifting.start(DriftOrder(), "operator:jane")
    with pytest.raises(Conflict):
        stage.drifting.start(DriftOrder(), "operator:jane")
    stage.work()
    stage.drifting.start(DriftOrder(platform="disks"), "operator:jane")


def test_a_volume_that_goes_between_the_list_and_the_second_look_is_no_drift(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    external, volume_id = used(stage)
    sighted = stage.ledger.sighted
    stage.storage.volumes.pop(external)

    def meanwhile(platform: str, wanted: Sequence[ExternalId]) -> Mapping[ExternalId, VolumeReport]:
        with stage.ledger.begin("test") as tx:
            tx.deleting(volume_id)
            if wanted:
                tx.deleted(volume_id)
        return sighted(platform, wanted)

    monkeypatch.setattr(stage.ledger, "sighted", meanwhile)
    assert found(stage) == []


@pytest.mark.parametrize("change", ["deleting", "claimed"])
def test_a_difference_that_polly_is_making_is_no_drift(stage: Stage, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """The ledger says something else after the platform was asked than before."""
    external, volume_id = used(stage)
    seen = replace(stage.platform.inspect(external), held_by=("i-9",), epoch=99)

    def meanwhile(asked: ExternalId) -> VolumeReport:
        if change == "claimed":
            stage.tick(60.0)
            stage.apps.scale("/db", 1, "test")
            stage.offer("a1")
        else:
            with stage.ledger.begin("test") as tx:
                tx.deleting(volume_id)
        return seen

    monkeypatch.setattr(stage.platform, "inspect", meanwhile)
    monkeypatch.setattr(stage.ledger, "sighted", lambda *_: {external: seen})
    assert found(stage) == []
    assert stage.ledger.volume(volume_id).state is VolumeState.DELETING or stage.ledger.claims_on([volume_id])


def test_what_cannot_be_mended_any_more_says_why(stage: Stage) -> None:
    external, volume_id = used(stage)
    taken = stage.storage.volumes.pop(external)
    stage.drifting.start(DriftOrder(apply=True), "operator:jane")
    answers = stage.hands.work()
    stage.storage.volumes[external] = taken
    with stage.ledger.begin("test") as tx:
        tx.deleting(volume_id)
        tx.deleted(volume_id)
    stage.storage.volumes.pop(external)
    stage.hand_on(answers)
    ((gone,),) = [part.found for part in stage.drifting.report().platforms]
    assert (gone.kind, gone.mended) == (DriftKind.VOLUME_GONE, False)
    assert gone.advice.startswith("It could not be mended: ")


def test_a_birth_certificate_that_could_not_be_stored_again_is_found_by_the_next_look(stage: Stage) -> None:
    external, _ = used(stage)
    stage.storage.volumes[external] = replace(stage.storage.volumes[external], birth=None)
    stage.drifting.start(DriftOrder(apply=True), "operator:jane")
    stage.work()
    stage.storage.expired = True
    stage.work()
    stage.storage.expired = False
    assert [it.kind for it in found(stage)] == [DriftKind.BIRTH_UNMARKED]


# --- sightings ---------------------------------------------------------------------------------------------


def test_sightings_follow_the_platform_and_are_written_only_where_they_changed(
    ledger_url: str, open_any: Callable[[str], Ledger], tmp_path: Path
) -> None:
    from storage.platforms.testing import MemoryPlatform, MemoryStorage
    from storage.syncing import sync_volumes

    ledger, platform = open_any(ledger_url), MemoryPlatform("disks", storage=MemoryStorage(capacity_mib=10**6))
    made = [platform.create(CreateRequest(pool="default", size_mib=2, token=f"t{number}")) for number in range(1200)]
    heard: list[int] = []
    assert sync_volumes(ledger, platform, heard.append) == 1200
    assert heard == [1000, 1200]
    before = ledger.fingerprints("disks")
    platform.expand(made[0].external_id, 4)
    platform.delete(made[1].external_id)
    assert sync_volumes(ledger, platform) == 1199
    after = ledger.fingerprints("disks")
    assert before.keys() - after.keys() == {made[1].external_id}
    assert [key for key in after if after[key] != before[key]] == [made[0].external_id]
    assert ledger.sighted("disks", [made[0].external_id])[made[0].external_id].size_mib == 4
    first = ledger.foreign("disks", limit=700)
    rest = ledger.foreign("disks", after=first.after, limit=700)
    assert (len(first.items), len(rest.items), rest.after) == (700, 499, None)
    assert len(ledger.strays("disks", 2000)) == 1199


@pytest.fixture
def open_any() -> Iterator[Callable[[str], Ledger]]:
    from storage.inventory import open_ledger

    opened: list[Ledger] = []

    def start(url: str) -> Ledger:
        opened.append(open_ledger(url))
        return opened[-1]

    yield start
    for ledger in opened:
        ledger.close()
