"""Many volumes deleted at once: each that may be is, and each other one is refused by itself."""

from __future__ import annotations

import pytest

from storage.errors import Conflict, UnknownVolume, VolumeInUse
from storage.inventory import Ledger
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Snapshot, SnapshotId, VolumeId
from tests.ledgers import fresh, furnish, make, new, old, placed, task

NAMES = ("free", "held", "source", "copied", "kept", "going")


def volume_id(name: str) -> VolumeId:
    return VolumeId(f"v-{name}")


def snapshot(name: str) -> Snapshot:
    return Snapshot(
        snapshot_id=SnapshotId(f"s-{name}"),
        volume_id=volume_id(name),
        platform="local",
        external_id=None,
        size_mib=100,
        token=f"token-{name}",
        name="",
        state="PENDING",
        created_at=0.0,
    )


def fill(ledger: Ledger) -> None:
    """A volume for each reason why one cannot be deleted, and some that can."""
    furnish(ledger, capacity_mib=2_000)
    for name in NAMES:
        make(ledger, name)
    placed(ledger, task("t-held", old("c-held", "held", 1)))
    placed(ledger, task("t-nowhere", fresh("c-nowhere", new("nowhere"))))
    source = ledger.volume("source").external_id
    with ledger.begin("op") as tx:
        tx.plan(new("planned"), "r-planned")
        tx.plan(new("clone", source=source), "r-clone")
        for name in ("copied", "kept"):
            tx.plan_snapshot(snapshot(name))
        tx.snapshot_made(SnapshotId("s-kept"), ExternalId("snap-kept"), 100, 1.0)
        tx.deleting(volume_id("going"))


def test_each_is_refused_by_itself(ledger: Ledger) -> None:
    fill(ledger)
    wanted = [*NAMES, "planned", "none", "free"]
    with ledger.begin("op") as tx:
        outcomes = tx.deleting_all([volume_id(name) for name in wanted])
    words = [getattr(outcome, "code", None) or getattr(outcome, "state", None) for outcome in outcomes]
    assert words == [
        VolumeState.DELETING,
        "VolumeInUse",
        "Conflict",
        "HasSnapshots",
        "HasSnapshots",
        VolumeState.DELETING,
        "Conflict",
        "UnknownVolume",
        VolumeState.DELETING,
    ]
    assert "t-held" in str(outcomes[1])
    assert "clone" in str(outcomes[2])
    assert "on its platform" in str(outcomes[6])
    doomed = [name for name in (*NAMES, "planned") if ledger.volume(name).state is VolumeState.DELETING]
    assert doomed == ["free", "going"]
    events = [event.volume_id for event in ledger.events(limit=1000).items if event.what == "volume.deleting"]
    assert events == ["v-going", "v-free"]


def test_snapshots_that_are_kept_are_in_nobodys_way_once_they_are_made(ledger: Ledger) -> None:
    fill(ledger)
    with ledger.begin("op") as tx:
        copied, kept = tx.deleting_all([volume_id("copied"), volume_id("kept")], keep_snapshots=True)
    assert getattr(copied, "code", "") == "HasSnapshots"
    assert getattr(kept, "state", "") is VolumeState.DELETING


def test_what_the_platform_has_deleted_goes_all_or_not_at_all(ledger: Ledger) -> None:
    fill(ledger)
    with ledger.begin("op") as tx:
        tx.deleting(volume_id("free"))
    before = ledger.pools()[0].provisioned_mib
    for other, error in (("held", VolumeInUse), ("kept", Conflict), ("none", UnknownVolume)):
        with pytest.raises(error, match=other), ledger.begin("op") as tx:
            tx.deleted_all([volume_id("going"), volume_id(other), volume_id("free")])
    assert ledger.pools()[0].provisioned_mib == before
    with ledger.begin("op") as tx:
        tx.deleted_all([volume_id("going"), volume_id("free")])
    assert ledger.pools()[0].provisioned_mib == before - 200
    assert set(ledger.volumes_named(NAMES)) == {"held", "source", "copied", "kept"}
    assert [event.volume_id for event in ledger.events(limit=1000).items if event.what == "volume.deleted"] == ["v-going", "v-free"]
