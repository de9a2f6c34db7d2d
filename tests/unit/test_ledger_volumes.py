"""Volumes and snapshots apart from claims: planned, made, born, adopted, grown, deleted, and their pool's account."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from storage.errors import (
    AlreadyExists,
    Conflict,
    HasSnapshots,
    Invalid,
    PoolFull,
    UnknownPool,
    UnknownSnapshot,
    UnknownVolume,
    VolumeInUse,
)
from storage.inventory import Ledger, written
from storage.ledger import volumes
from storage.lifecycle import QUIET_AFTER_LEASES, VolumeState
from storage.model import Birth, ExternalId, Snapshot, SnapshotId, Volume, VolumeId
from storage.platforms.base import VolumeReport
from tests.ledgers import BIRTH, assert_sound, end, fresh, furnish, make, new, old, placed, refusal, task

A = VolumeId("v-a")


def provisioned(ledger: Ledger) -> int:
    return ledger.pools()[0].provisioned_mib


def test_planned_by_hand_it_takes_capacity_and_waits(ledger: Ledger) -> None:
    furnish(ledger)
    with ledger.begin("operator:eve") as tx:
        volume = tx.plan(new("a", labels={"k": "v"}), "request-1")
    assert volume == ledger.volume("a") == ledger.volume("v-a")
    assert (volume.state, volume.token, volume.epoch) == (VolumeState.PLANNED, "request-1", 0)
    assert provisioned(ledger) == 100
    assert refusal(ledger, task("t1", old("c1", "a", 0))).code == "Conflict"
    (claim,) = placed(ledger, task("t1", old("c1", "a", 0, renew=True)))
    assert claim.epoch == 1
    event = ledger.events(volume_id=A).items[0]
    assert (event.actor, event.what, event.why) == ("operator:eve", "volume.planned", "100 MiB of pool p on local")


def test_a_clone_begins_with_what_is_there_and_keeps_it_until_it_is_born(ledger: Ledger) -> None:
    furnish(ledger)
    with pytest.raises(Conflict, match="wanted AVAILABLE, found none"), ledger.begin("op") as tx:
        tx.plan(new("b", source=ExternalId("ext-a")), "r1")
    make(ledger, "a")
    source = ledger.volume("a").external_id
    with ledger.begin("op") as tx:
        planned = tx.plan(new("b", source=source), "r1")
    assert (planned.source, ledger.volume("b")) == (source, planned)
    with pytest.raises(Conflict, match="no clone that is still to be made of it, found volume b"), ledger.begin("op") as tx:
        tx.deleting(A)
    with pytest.raises(Conflict, match="no clone that is still to be made of it, found volume b"), ledger.begin("op") as tx:
        tx.resize(A, 200)
    with ledger.begin("op") as tx:
        tx.unplan(VolumeId("v-b"))
        tx.deleting(A)
    with pytest.raises(Conflict, match="wanted AVAILABLE, found DELETING"), ledger.begin("op") as tx:
        tx.plan(new("b", source=source), "r2")


def test_a_plan_is_refused_by_name(ledger: Ledger) -> None:
    furnish(ledger, capacity_mib=150)
    with ledger.begin("op") as tx:
        tx.plan(new("a"), "r1")
    for wanted, error in ((new("a"), AlreadyExists), (new("b"), PoolFull), (new("b", pool="q"), UnknownPool)):
        with pytest.raises(error), ledger.begin("op") as tx:
            tx.plan(wanted, "r2")
    with pytest.raises(Invalid), ledger.begin("op") as tx:
        tx.plan(new("b", size_mib=1), "")
    assert provisioned(ledger) == 100


def test_created_follows_the_platforms_size_and_is_safe_to_repeat(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    for _ in range(2):
        with ledger.begin("mesos") as tx:
            tx.created(A, token="c1", external_id=ExternalId("x1"), size_mib=1024)
    assert provisioned(ledger) == 1024
    assert ledger.pools()[0].free_mib == 0
    for token, external in (("c1", "x2"), ("c9", "x1")):
        with pytest.raises(Conflict), ledger.begin("mesos") as tx:
            tx.created(A, token=token, external_id=ExternalId(external), size_mib=1024)
    with pytest.raises(Conflict, match="no such volume"), ledger.begin("mesos") as tx:
        tx.created(VolumeId("gone"), token="c1", external_id=ExternalId("x1"), size_mib=1)
    assert [event.what for event in ledger.events(volume_id=A).items].count("volume.created") == 1
    end(ledger, [claim])


def test_what_a_person_must_look_at_is_not_made_meanwhile(ledger: Ledger) -> None:
    furnish(ledger)
    placed(ledger, task("t1", fresh("c1", new("a"))))
    with ledger.begin("op") as tx:
        tx.fault(A, "odd")
    with pytest.raises(Conflict, match="PLANNED"), ledger.begin("mesos") as tx:
        tx.created(A, token="c1", external_id=ExternalId("x1"), size_mib=100)
    assert (ledger.volume("a").state, ledger.volume("a").external_id) == (VolumeState.FAULTED, None)


def test_two_volumes_are_never_the_same_one_outside(ledger: Ledger) -> None:
    furnish(ledger)
    placed(ledger, task("t1", fresh("c1", new("a")), fresh("c2", new("b"))))
    with ledger.begin("mesos") as tx:
        tx.created(A, token="c1", external_id=ExternalId("x1"), size_mib=100)
    with pytest.raises(Conflict), ledger.begin("mesos") as tx:
        tx.created(VolumeId("v-b"), token="c2", external_id=ExternalId("x1"), size_mib=100)
    assert ledger.volume("b").external_id is None


def test_a_birth_certificate_is_stored_once_by_a_live_claim(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    with pytest.raises(Conflict), ledger.begin("mesos") as tx:
        tx.born(A, epoch=1, birth=BIRTH)
    with ledger.begin("mesos") as tx:
        tx.created(A, token="c1", external_id=ExternalId("x1"), size_mib=100)
    with pytest.raises(Conflict, match="epoch 2"), ledger.begin("mesos") as tx:
        tx.born(A, epoch=2, birth=BIRTH)
    for _ in range(2):
        with ledger.begin("mesos") as tx:
            tx.born(A, epoch=1, birth=BIRTH)
    other = Birth(serial="s2", filesystem="xfs", filesystem_uuid="u2")
    with pytest.raises(Conflict, match="birth certificate"), ledger.begin("mesos") as tx:
        tx.born(A, epoch=1, birth=other)
    assert ledger.volume("a").birth == BIRTH
    end(ledger, [claim])


def test_a_certificate_that_comes_after_its_claims_end_is_refused(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    with ledger.begin("mesos") as tx:
        tx.created(A, token="c1", external_id=ExternalId("x1"), size_mib=100)
    end(ledger, [claim])
    with pytest.raises(Conflict), ledger.begin("mesos") as tx:
        tx.born(A, epoch=1, birth=BIRTH)


def test_unplanned_its_capacity_comes_back_and_its_token_is_an_orphan(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a", labels={"k": "v"}))))
    with pytest.raises(VolumeInUse), ledger.begin("op") as tx:
        tx.unplan(A)
    end(ledger, [claim])
    with ledger.begin("op") as tx:
        tx.unplan(A)
    with pytest.raises(UnknownVolume):
        ledger.volume("a")
    assert provisioned(ledger) == 0
    assert [(orphan.platform, orphan.token, orphan.external_id) for orphan in ledger.orphans()] == [("local", "c1", None)]
    assert [event.what for event in ledger.events(volume_id=A).items][-1] == "volume.unplanned"


def test_an_orphan_says_how_long_its_maker_may_still_make_it(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    end(ledger, [claim])
    with ledger.begin("op") as tx:
        tx.unplan(A, keep_until=77.5)
        tx.plan(new("b"), token="by hand")
    (orphan,) = ledger.orphans()
    assert (orphan.token, orphan.keep_until) == ("c1", 77.5)
    (first,) = placed(ledger, task("t2", old("c2", "b", 0, renew=True)))
    end(ledger, [first])
    (second,) = placed(ledger, task("t3", old("c3", "b", 1, renew=True)))
    kept = {orphan.token: orphan.keep_until for orphan in ledger.orphans()}
    assert kept["by hand"] == 0.0
    assert kept["c2"] == second.since + QUIET_AFTER_LEASES * (second.lease_until - second.since)


def test_what_may_hold_data_is_never_unplanned(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    adopt(ledger, "b", birth=None)
    for volume_id in (A, VolumeId("v-b")):
        with pytest.raises(Conflict, match="may hold data"), ledger.begin("op") as tx:
            tx.unplan(volume_id)
    assert refusal(ledger, task("t", old("c", "b", 0, renew=True))).code == "Conflict"


def adopt(ledger: Ledger, name: str, **changes: object) -> Volume:
    fields = {
        "volume_id": VolumeId(f"v-{name}"),
        "name": name,
        "platform": "local",
        "pool": "p",
        "size_mib": 300,
        "token": "theirs",
        "external_id": ExternalId(f"x-{name}"),
        "birth": BIRTH,
        "labels": {"from": "elsewhere"},
    }
    with ledger.begin("op") as tx:
        return tx.adopt(Volume(**(fields | changes)))  # type: ignore[arg-type]  # fields as they come


def test_adopted_it_is_accounted_and_claimed_as_it_is(ledger: Ledger) -> None:
    furnish(ledger, capacity_mib=100)
    adopted = adopt(ledger, "b", birth=None)
    assert adopted == ledger.volume("b")
    assert (adopted.state, adopted.token) == (VolumeState.AVAILABLE, "")
    assert provisioned(ledger) == 300
    (claim,) = placed(ledger, task("t1", old("c1", "b", 0)))
    with ledger.begin("mesos") as tx:
        tx.born(claim.volume_id, epoch=1, birth=BIRTH)
    assert ledger.volume("b").birth == BIRTH


def test_adoption_is_refused_by_name(ledger: Ledger) -> None:
    furnish(ledger)
    adopt(ledger, "b")
    with ledger.begin("op") as tx:
        tx.plan(new("a", size_mib=100), token="planned")
    for name, changes, error in (
        ("b", {"external_id": ExternalId("x-other")}, AlreadyExists),
        ("c", {"external_id": ExternalId("x-b")}, AlreadyExists),
        ("c", {"token": "planned"}, AlreadyExists),
        ("c", {"external_id": None}, Invalid),
        ("c", {"pool": "q"}, UnknownPool),
    ):
        with pytest.raises(error):
            adopt(ledger, name, **changes)
    assert provisioned(ledger) == 400
    adopt(ledger, "d", token="")


def test_faulted_it_waits_for_a_person(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    with ledger.begin("mesos") as tx:
        tx.fault(A, "two signatures")
    assert (ledger.volume("a").state, ledger.volume("a").reason) == (VolumeState.FAULTED, "two signatures")
    assert "FAULTED: two signatures" in str(refusal(ledger, task("t1", old("c1", "a", 1))))
    with ledger.begin("operator:eve") as tx:
        for was in (VolumeState.DELETING, VolumeState.FAULTED, VolumeState.FAULTED):
            tx.mend(A, was)
    assert placed(ledger, task("t1", old("c1", "a", 1)))[0].epoch == 2


def test_deleted_in_two_steps(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    (claim,) = placed(ledger, task("t1", old("c1", "a", 1)))
    with pytest.raises(VolumeInUse), ledger.begin("op") as tx:
        tx.deleting(A)
    end(ledger, [claim])
    with pytest.raises(Conflict), ledger.begin("op") as tx:
        tx.deleted(A)
    for _ in range(2):
        with ledger.begin("op") as tx:
            assert tx.deleting(A).state is VolumeState.DELETING
    assert refusal(ledger, task("t2", old("c2", "a", 2))).code == "Conflict"
    found = ledger.volume(A)
    assert found.external_id is not None
    report = VolumeReport(external_id=found.external_id, pool=found.pool, size_mib=found.size_mib, serial="s")
    with ledger.begin("op") as tx:
        tx.sight(found.platform, [(report, written(report))])
        tx.mend(A, VolumeState.FAULTED)
        assert tx.deleting(A).state is VolumeState.DELETING
        tx.mend(A, VolumeState.DELETING)
        tx.deleting(A)
        tx.deleted(A)
    assert ledger.foreign(found.platform).items == []
    assert provisioned(ledger) == 0
    with pytest.raises(UnknownVolume), ledger.begin("op") as tx:
        tx.deleting(A)
    assert ledger.events(volume_id=A, newest_first=True).items[0].what == "volume.deleted"


def test_why_a_volume_is_still_there_is_kept_until_it_is_given_back_and_told_once_in_the_log(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    with ledger.begin("op") as tx:
        tx.still_there(A, "it is not to be deleted")
        tx.deleting(A)
    assert ledger.volume(A).reason == ""
    for reason in ("busy", "busy", "throttled"):
        with ledger.begin("op") as tx:
            tx.still_there(A, reason)
    assert ledger.volume(A).reason == "throttled"
    assert [event.why for event in ledger.events(volume_id=A).items if event.what == "volume.not_deleted"] == ["busy"]
    with ledger.begin("op") as tx:
        tx.mend(A, VolumeState.DELETING)
    assert ledger.volume(A).reason == ""


def test_what_is_nowhere_is_not_deleted_but_unplanned(ledger: Ledger) -> None:
    furnish(ledger)
    with ledger.begin("op") as tx:
        tx.plan(new("a"), "r1")
    with pytest.raises(Conflict, match="on its platform"), ledger.begin("op") as tx:
        tx.deleting(A)


def test_it_grows_if_there_is_room_and_never_shrinks(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    with ledger.begin("op") as tx:
        assert tx.resize(A, 1000).size_mib == 1000
        assert tx.resize(A, 1000).size_mib == 1000
    assert provisioned(ledger) == 1000
    with pytest.raises(PoolFull) as full, ledger.begin("op") as tx:
        tx.resize(A, 1001)
    assert full.value.fields == {"platform": "local", "pool": "p", "free_mib": 0, "size_mib": 1}
    with pytest.raises(Invalid, match="never shrinks"), ledger.begin("op") as tx:
        tx.resize(A, 999)
    assert ledger.volume("a").size_mib == 1000


def test_nothing_is_planned_or_grown_without_its_room_though_room_came_when_the_reason_was_looked_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(ledger)
    make(ledger, "a")
    monkeypatch.setattr(volumes, "no_room", lambda *_: iter(()))  # as another writer's commit has it
    with pytest.raises(Conflict, match="pool p on local"), ledger.begin("op") as tx:
        tx.plan(new("b", size_mib=901), "r1")
    with pytest.raises(Conflict, match="pool p on local"), ledger.begin("op") as tx:
        tx.resize(A, 1001)
    assert_sound(ledger)


def snapshot(name: str) -> Snapshot:
    return Snapshot(
        snapshot_id=SnapshotId(name),
        volume_id=A,
        platform="local",
        external_id=None,
        size_mib=100,
        token=name,
        name="before",
        state="READY",
    )


def test_a_snapshot_from_intent_to_end(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    with ledger.begin("op") as tx:
        tx.plan_snapshot(snapshot("s1"))
    assert ledger.snapshot(SnapshotId("s1")).state == "PENDING"
    with pytest.raises(AlreadyExists), ledger.begin("op") as tx:
        tx.plan_snapshot(snapshot("s1"))
    for _ in range(2):
        with ledger.begin("op") as tx:
            tx.snapshot_made(SnapshotId("s1"), ExternalId("snap-x"), 90, 7.0)
    made = replace(snapshot("s1"), state="READY", external_id=ExternalId("snap-x"), size_mib=90, created_at=7.0, volume_name="a")
    assert ledger.snapshot(SnapshotId("s1")) == made
    assert ledger.snapshots(A).items == [made]
    with pytest.raises(Conflict, match="wanted PENDING, found READY"), ledger.begin("op") as tx:
        tx.snapshot_made(SnapshotId("s1"), ExternalId("snap-of-another"), 90, 7.0)
    with pytest.raises(HasSnapshots, match="s1"), ledger.begin("op") as tx:
        tx.deleting(A)
    with pytest.raises(Conflict), ledger.begin("op") as tx:
        tx.snapshot_deleted(SnapshotId("s1"))
    with ledger.begin("op") as tx:
        tx.snapshot_deleting(SnapshotId("s1"))
        tx.snapshot_deleting(SnapshotId("s1"))
        tx.snapshot_deleted(SnapshotId("s1"))
    with pytest.raises(UnknownSnapshot):
        ledger.snapshot(SnapshotId("s1"))
    with pytest.raises(UnknownSnapshot), ledger.begin("op") as tx:
        tx.snapshot_deleting(SnapshotId("s1"))


def test_a_snapshot_is_kept_until_what_begins_with_it_is_born(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    s1, snap = SnapshotId("s1"), ExternalId("snap-x")
    with ledger.begin("op") as tx:
        tx.plan_snapshot(snapshot("s1"))
    with pytest.raises(Conflict, match=r"snapshot snap-x of local .* wanted READY, found none"), ledger.begin("op") as tx:
        tx.plan(new("b", snapshot=snap), "r1")
    with ledger.begin("op") as tx:
        tx.snapshot_made(s1, snap, 90, 7.0)
        tx.plan(new("b", snapshot=snap), "r1")
        tx.plan(new("c", snapshot=snap), "r2")
        tx.unplan(VolumeId("v-c"))
    (claim,) = placed(ledger, task("t1", old("c1", "b", 0, renew=True)))
    with ledger.begin("mesos") as tx:
        tx.created(claim.volume_id, token="c1", external_id=ExternalId("ext-b"), size_mib=100)
    with pytest.raises(Conflict, match="no volume that is still to begin with it, found volume b"), ledger.begin("op") as tx:
        tx.snapshot_deleting(s1)
    with ledger.begin("mesos") as tx:
        tx.born(claim.volume_id, epoch=1, birth=BIRTH)
        tx.snapshot_deleting(s1)
    assert ledger.volume("b").snapshot == snap
    with pytest.raises(Conflict, match="wanted READY, found DELETING"), ledger.begin("op") as tx:
        tx.plan(new("d", snapshot=snap), "r3")


def test_snapshots_can_outlive_their_volume(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    with ledger.begin("op") as tx:
        for name in ("s1", "s2", "s3"):
            tx.plan_snapshot(snapshot(name))
        tx.snapshot_deleted(SnapshotId("s2"))
        tx.snapshot_made(SnapshotId("s1"), ExternalId("snap-1"), 90, 7.0)
    with pytest.raises(HasSnapshots, match="s3"), ledger.begin("op") as tx:
        tx.deleting(A, keep_snapshots=True)  # what is still to be made of it could never be
    with ledger.begin("op") as tx:
        tx.snapshot_made(SnapshotId("s3"), ExternalId("snap-3"), 90, 7.0)
        tx.deleting(A, keep_snapshots=True)
        tx.deleted(A)
    page = ledger.snapshots(limit=1)
    assert [item.snapshot_id for item in page.items] == ["s1"]
    assert [item.snapshot_id for item in ledger.snapshots(after=page.after).items] == ["s3"]


def test_no_snapshot_of_what_is_not_there(ledger: Ledger) -> None:
    furnish(ledger)
    with pytest.raises(UnknownVolume), ledger.begin("op") as tx:
        tx.plan_snapshot(snapshot("s1"))


def test_a_growth_is_an_intent_until_the_platform_has_answered(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    before = provisioned(ledger)
    size_mib = ledger.volume(A).size_mib
    for more in (10, 20, 20):
        with ledger.begin("op") as tx:
            tx.resize(A, size_mib + more)
    assert [volume.size_mib for volume in ledger.growing()] == [size_mib + 20]
    with ledger.begin("op") as tx:
        tx.grown(A, size_mib, asked_mib=size_mib + 10)
    assert provisioned(ledger) == before + 20
    with ledger.begin("op") as tx:
        assert tx.grown(A, size_mib, asked_mib=size_mib + 20).size_mib == size_mib
    assert (ledger.growing(), provisioned(ledger)) == ([], before)


def test_what_is_nowhere_yet_grows_without_its_platform_and_a_growth_ends_with_its_volume(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    with ledger.begin("op") as tx:
        tx.plan(new("b"), token="by hand")
        tx.resize(VolumeId("v-b"), 200)
        tx.resize(A, 200)
    assert [volume.volume_id for volume in ledger.growing()] == [A]
    with ledger.begin("op") as tx:
        tx.deleting(A)
        tx.deleted(A)
    assert ledger.growing() == []
