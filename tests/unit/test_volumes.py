"""What people ask to have done to volumes, with platforms that refuse, fail or do not answer."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from msgspec.structs import replace

from framework.growing import growth_of
from framework.mesos.events import Status
from framework.mesos.instances import Task
from framework.service import ImportOrder, VolumeOrder
from storage.errors import (
    AlreadyExists,
    BornAsAnother,
    Conflict,
    Invalid,
    NotOurs,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
from storage.inventory import Ledger
from storage.lifecycle import VolumeState
from storage.model import Birth, Sizes, SnapshotId, Volume
from storage.platforms.base import CreateRequest, PoolReport
from storage.platforms.marks import Mark
from storage.platforms.testing import ABILITIES
from tests.ledgers import Clock
from tests.stage import ShakyLedger, Stage, external_of, stage_config, status


def born(stage: Stage, app_id: str = "/db", **more: Any) -> Volume:
    """A volume with data that nobody claims."""
    (task,) = stage.run(app_id, **more)
    stage.start(task)
    stage.apps.scale(app_id, 0, "test")
    stage.end(task, "TASK_KILLED")
    return next(iter(task.volumes.values()))


def failure(future: Future[Any]) -> PollyError:
    error = future.exception(timeout=0)
    assert isinstance(error, PollyError)
    return error


def test_a_volume_that_is_deleted_twice_at_once_is_deleted_once(stage: Stage) -> None:
    volume = born(stage)
    first = stage.volumes.delete(volume.volume_id, "jane")
    second = stage.volumes.delete(volume.volume_id, "joe")
    stage.janitor.resume()
    assert len(stage.hands.jobs) == 1
    stage.work()
    assert (first.result(timeout=0), second.result(timeout=0)) == (None, None)
    assert stage.storage.volumes == {}
    assert stage.ledger.volumes().items == []


def test_a_delete_that_the_platform_refuses_gives_the_volume_back(stage: Stage) -> None:
    volume = born(stage)
    assert volume.external_id
    stage.platform.attach(volume.external_id, "elsewhere", epoch=9)
    future = stage.volumes.delete(volume.volume_id, "jane")
    stage.work()
    assert isinstance(failure(future), VolumeInUse)
    assert stage.ledger.volume(volume.name).state is VolumeState.AVAILABLE
    assert not stage.janitor.resume()


def test_what_somebody_has_put_in_the_place_of_a_volume_is_not_deleted(stage: Stage) -> None:
    """As where a platform's ids are names, and somebody's tools have deleted the volume and made another of its name."""
    volume = born(stage)
    ((key, was),) = stage.storage.volumes.items()
    stage.storage.volumes[key] = replace(was, birth=None, mark=Mark(), request=replace(was.request, token=""))
    future = stage.volumes.delete(volume.volume_id, "jane")
    stage.work()
    assert isinstance(failure(future), NotOurs)
    assert stage.ledger.volume(volume.name).state is VolumeState.AVAILABLE
    assert key in stage.storage.volumes


def test_a_delete_without_an_answer_is_gone_on_with(stage: Stage) -> None:
    volume = born(stage)
    stage.storage.expired = True
    future = stage.volumes.delete(volume.volume_id, "jane")
    stage.work()
    assert isinstance(failure(future), PlatformUnavailable)
    assert stage.ledger.volume(volume.name).state is VolumeState.DELETING
    stage.storage.expired = False
    later = stage.next_life()
    later.janitor.resume()
    later.work()
    assert later.ledger.volumes().items == []


def test_a_name_is_free_once_its_volume_is_deleted(stage: Stage) -> None:
    volume = born(stage)
    stage.volumes.delete(volume.volume_id, "jane")
    stage.apps.scale("/db", 1, "test")
    stage.offer("a1")
    assert "being deleted" in stage.state().waiting[0].blocked
    stage.work()
    stage.offer("a1")
    assert len(stage.tasks()) == 1


def test_a_volume_from_a_snapshot_is_made_by_its_first_claim_and_only_from_it(stage: Stage) -> None:
    volume = born(stage)
    taken = stage.volumes.snapshot(volume.volume_id, "monday", "jane")
    stage.work()
    snapshot = taken.result(timeout=0)
    stage.volumes.create(VolumeOrder(name="copy", profile="fast", snapshot=snapshot.snapshot_id), "jane")
    with pytest.raises(Conflict):
        stage.volumes.delete_snapshot(snapshot.snapshot_id, "jane")
    for life in (stage.next_life(), stage.next_life()):
        (task,) = life.run(f"/copy{next(life.numbers)}", volumes=[external_of("copy")])
        (plan,) = life.plans(task)
        assert plan.snapshot == snapshot.external_id
        life.hear(_failed(task))


def test_a_clone_is_made_by_its_first_claim_and_its_source_waits_for_that(stage: Stage) -> None:
    source = born(stage)
    planned = stage.volumes.create(VolumeOrder(name="copy", profile="fast", source="/db#0/data"), "jane").result(timeout=0)
    assert (planned.source, planned.pool, planned.size_mib) == (source.external_id, source.pool, source.size_mib)
    for verb in (lambda: stage.volumes.delete("/db#0/data", "jane"), lambda: stage.volumes.expand("/db#0/data", 64, "jane")):
        with pytest.raises(Conflict, match="no clone that is still to be made of it, found volume copy, which was not mounted yet"):
            verb()
    first, life = stage.next_life(), stage.next_life()
    (task,) = first.run("/first", volumes=[external_of("copy")])
    (plan,) = first.plans(task)
    assert (plan.source, plan.may_create) == (source.external_id, True)
    first.hear(_failed(task))
    (task,) = life.run("/second", volumes=[external_of("copy")])
    life.start(task)
    assert life.storage.volumes[life.ledger.volume("copy").external_id or ""].request.source == source.external_id
    life.volumes.delete("/db#0/data", "jane")
    life.work()
    assert [volume.name for volume in life.ledger.volumes().items] == ["copy"]


def test_what_cannot_be_a_clone_is_said_with_what_would_be_right(ledger: Ledger, clock: Clock) -> None:
    profiles = {"fast": {"platforms": ["disks"]}, "xfs": {"filesystem": "xfs"}, "far": {"pools": ["far"]}}
    stage = Stage(ledger, clock, config=stage_config(profiles=profiles))
    stage.subscribed()
    taken = stage.volumes.snapshot(born(stage).volume_id, "monday", "jane")
    stage.work()
    snapshot = taken.result(timeout=0).snapshot_id
    stage.volumes.create(VolumeOrder(name="new", profile="fast", size_mib=16), "jane")
    refusals: list[tuple[dict[str, Any], type[PollyError], str]] = [
        ({"source": "none"}, UnknownVolume, "none"),
        ({"source": "new"}, Unsupported, "never used, so there is nothing on it"),
        ({"source": "/db#0/data", "snapshot": SnapshotId("s")}, Invalid, "this volume or the snapshot s, not both"),
        ({"source": "/db#0/data", "size_mib": 8}, Invalid, "volume /db#0/data has 16 MiB, and a volume from it at least that"),
        ({"source": "/db#0/data", "profile": "xfs"}, Invalid, "it makes xfs, volume /db#0/data has ext4"),
        ({"source": "/db#0/data", "profile": "far"}, Invalid, "is made on disks/default, .* name one of fast, xfs"),
        ({"snapshot": snapshot, "profile": "xfs"}, Invalid, f"it makes xfs, snapshot {snapshot} has ext4"),
    ]
    for asked, kind, words in refusals:
        with pytest.raises(kind, match=words):
            stage.volumes.create(VolumeOrder(**{"name": "copy", "profile": "fast", **asked}), "jane")
    stage.platform._capabilities = replace(ABILITIES, clones=False)
    with pytest.raises(Unsupported, match="polly volume snapshot /db#0/data and polly volume create --snapshot can"):
        stage.volumes.create(VolumeOrder(name="copy", profile="fast", source="/db#0/data"), "jane")
    assert [volume.name for volume in stage.ledger.volumes().items] == ["/db#0/data", "new"]


def _failed(task: Task) -> Status:
    return status(task, "TASK_FAILED", source="SOURCE_AGENT")


def test_a_snapshot_whose_answer_was_lost_is_gone_on_with(stage: Stage) -> None:
    volume = born(stage)
    stage.storage.expired = True
    taken = stage.volumes.snapshot(volume.volume_id, "monday", "jane")
    stage.work()
    assert isinstance(failure(taken), PlatformUnavailable)
    (pending,) = stage.ledger.unfinished_snapshots()
    with pytest.raises(Conflict):
        stage.volumes.delete_snapshot(pending.snapshot_id, "jane")
    stage.storage.expired = False
    later = stage.next_life()
    later.janitor.resume()
    later.work()
    assert later.ledger.snapshot(SnapshotId(pending.snapshot_id)).state == "READY"
    assert len(later.storage.snapshots) == 1


def test_what_has_no_data_has_no_snapshot(stage: Stage) -> None:
    stage.volumes.create(VolumeOrder(name="new", profile="fast", size_mib=16), "jane")
    with pytest.raises(Unsupported):
        stage.volumes.snapshot("new", "monday", "jane")


@pytest.mark.parametrize("size_mib", [0, -1, 2**63, 10**30])
def test_no_size_is_beyond_the_ledger(stage: Stage, size_mib: int) -> None:
    volume = born(stage)
    with pytest.raises(Invalid):
        stage.volumes.expand(volume.volume_id, size_mib, "jane")
    with pytest.raises(Invalid):
        stage.volumes.create(VolumeOrder(name="new", profile="fast", size_mib=size_mib), "jane")


def test_an_expanded_volume_is_accounted_as_the_platform_rounds_it(stage: Stage) -> None:
    volume = born(stage)
    grown = stage.volumes.expand(volume.volume_id, 31, "jane")
    stage.work()
    assert grown.result(timeout=0).size_mib == 32
    assert [it.size_mib for it in stage.storage.volumes.values()] == [32]


@pytest.mark.parametrize(
    ("able", "is_claimed", "words"),
    [
        ({"expand_detached": False}, False, r"keep their size\."),
        ({"expand_attached": False}, True, "keep their size while they are in use"),
    ],
)
def test_what_keeps_its_size_takes_no_room_to_grow(stage: Stage, able: dict[str, bool], is_claimed: bool, words: str) -> None:
    volume = born(stage)
    if is_claimed:
        stage.apps.scale("/db", 1, "test")
        stage.tick(60.0)
        stage.offer("a1")
    stage.platform._capabilities = replace(ABILITIES, **able)
    with pytest.raises(Unsupported, match=words):
        stage.volumes.expand(volume.volume_id, 64, "jane")
    assert sizes(stage) == (16, 16)


def sizes(stage: Stage) -> tuple[int, int]:
    """The only volume's in the ledger, and what its pool has provisioned."""
    (volume,), (pool,) = stage.ledger.volumes().items, stage.ledger.pools()
    return volume.size_mib, pool.provisioned_mib


def test_a_volume_that_the_platform_refuses_to_grow_has_the_size_that_it_has(stage: Stage) -> None:
    volume = born(stage)
    stage.storage.capacity_mib = 20
    grown = stage.volumes.expand(volume.volume_id, 64, "jane")
    assert sizes(stage) == (64, 64)
    stage.work()
    assert isinstance(failure(grown), PoolFull)
    assert sizes(stage) == (16, 16)
    assert stage.ledger.growing() == []


def test_a_volume_that_grew_while_nobody_heard_of_it_is_gone_on_with(stage: Stage) -> None:
    volume = born(stage)
    stage.storage.expired = True
    grown = stage.volumes.expand(volume.volume_id, 64, "jane")
    stage.work()
    assert isinstance(failure(grown), PlatformUnavailable)
    assert [it.volume_id for it in stage.ledger.growing()] == [volume.volume_id]
    stage.storage.expired = False
    later = stage.next_life()
    assert later.janitor.resume()
    later.work()
    assert sizes(later) == (64, 64)
    assert [it.size_mib for it in later.storage.volumes.values()] == [64]
    assert not later.janitor.resume()


def test_a_volume_that_is_just_being_made_does_not_grow(stage: Stage) -> None:
    """Its executor was told the size that it had; larger it would be in the ledger only, until it is made."""
    (task,) = stage.run()
    with pytest.raises(VolumeInUse, match=task.task_id):
        stage.volumes.expand("/db#0/data", 64, "jane")
    stage.start(task)
    assert sizes(stage) == (16, 16)
    stage.volumes.expand("/db#0/data", 64, "jane")
    stage.work()
    assert sizes(stage) == (64, 64)


def test_two_expansions_end_at_the_size_that_the_platform_has(stage: Stage) -> None:
    volume = born(stage)
    first = stage.volumes.expand(volume.volume_id, 32, "jane")
    second = stage.volumes.expand(volume.volume_id, 64, "jane")
    stage.work()
    assert (first.result(timeout=0).size_mib, second.result(timeout=0).size_mib) == (32, 64)
    assert sizes(stage) == (64, 64)
    assert not stage.volumes.is_under_way(growth_of(volume))


def test_a_volume_that_is_gone_from_its_platform_keeps_no_intent(stage: Stage) -> None:
    volume = born(stage)
    stage.storage.volumes.clear()
    grown = stage.volumes.expand(volume.volume_id, 64, "jane")
    stage.work()
    assert isinstance(failure(grown), UnknownVolume)
    assert stage.ledger.growing() == []


def test_what_is_about_to_be_deleted_is_not_imported(stage: Stage) -> None:
    (task,) = stage.run()
    made = stage.make(stage.plans(task)[0])
    stage.apps.scale("/db", 0, "test")
    stage.hear(_failed(task))
    assert made.external_id
    adopted = stage.volumes.adopt(ImportOrder(platform="disks", external_id=made.external_id, name="mine", profile="fast"), "jane")
    stage.work()
    assert isinstance(failure(adopted), Conflict)


def test_what_a_claim_is_making_is_not_imported(stage: Stage) -> None:
    (task,) = stage.run()
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token=stage.plans(task)[0].token))
    adopted = stage.volumes.adopt(ImportOrder(platform="disks", external_id=made.external_id, name="mine", profile="fast"), "jane")
    stage.work()
    error = failure(adopted)
    assert isinstance(error, AlreadyExists)
    assert error.fields["name"] == next(iter(task.volumes.values())).name


def test_an_imported_volume_is_claimed_as_it_is(stage: Stage) -> None:
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token="theirs"))
    stage.volumes.adopt(ImportOrder(platform="disks", external_id=made.external_id, name="mine", profile="fast"), "jane")
    stage.work()
    (task,) = stage.run(volumes=[external_of("mine")])
    (plan,) = stage.plans(task)
    assert (plan.external_id, plan.token, plan.may_format) == (made.external_id, "", False)


@pytest.mark.parametrize("its_own", [True, False])
def test_a_copy_that_bears_its_origins_certificate_is_not_imported(stage: Stage, its_own: bool) -> None:
    """Some tools copy a volume's tags with its data. No task could mount it, and to be rid of it one would have to delete it."""
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token="theirs"))
    birth = Birth(serial=made.serial if its_own else "another", filesystem="ext4", filesystem_uuid="u")
    stage.platform.record_birth(made.external_id, birth, epoch=0)
    adopted = stage.volumes.adopt(ImportOrder(platform="disks", external_id=made.external_id, name="mine", profile="fast"), "jane")
    stage.work()
    if its_own:
        assert adopted.result(timeout=0).birth == birth
    else:
        error = failure(adopted)
        assert isinstance(error, BornAsAnother)
        assert (error.fields["serial"], error.status) == ("another", 409)
        assert not stage.ledger.volumes_named(["mine"])


def test_an_import_of_what_is_not_there_says_where_it_is_not(stage: Stage) -> None:
    adopted = stage.volumes.adopt(ImportOrder(platform="disks", external_id="none", name="mine", profile="fast"), "jane")
    stage.work()
    error = failure(adopted)
    assert str(error) == "Platform disks has no volume none."
    assert error.advice.endswith("polly volume foreign --platform disks")
    assert (error.status, error.exit_code) == (404, 4)


def test_a_volume_takes_the_room_that_the_platform_will_take_for_it(stage: Stage) -> None:
    volume = stage.volumes.create(VolumeOrder(name="odd", profile="fast", size_mib=15), "jane").result(timeout=0)
    assert (volume.size_mib, stage.ledger.volume("odd").size_mib) == (16, 16)
    (planned,) = [event for event in stage.ledger.events().items if event.what == "volume.planned"]
    assert planned.why == "16 MiB (15 MiB were asked for) of pool default on disks"
    (pool,) = stage.ledger.pools()
    assert pool.provisioned_mib == 16
    stage.janitor.store_pools("disks", [PoolReport(name="default", capacity_mib=31)])
    with pytest.raises(PoolFull) as full:
        stage.volumes.create(VolumeOrder(name="more", profile="fast", size_mib=15), "jane")
    assert (full.value.fields["free_mib"], full.value.fields["size_mib"]) == (15, 16)


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 256])
def test_names_are_printable(stage: Stage, name: str) -> None:
    with pytest.raises(Invalid):
        stage.volumes.create(VolumeOrder(name=name, profile="fast", size_mib=16), "jane")


def test_a_volume_is_not_made_larger_than_its_profile_allows(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    small = Stage(shaky_ledger, clock, config=stage_config(profiles={"small": {"platforms": ["disks"], "max_mib": 21}}))
    with pytest.raises(Invalid, match="platform disks makes it 22 MiB, and profile small allows 21 MiB"):
        small.volumes.create(VolumeOrder(name="odd", profile="small", size_mib=21), "jane")
    assert small.volumes.create(VolumeOrder(name="even", profile="small", size_mib=20), "jane").result(timeout=0).size_mib == 20


def test_a_volume_is_made_where_its_type_fits(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of one platform differ: what the roomiest refuses, or has no room for, another may make."""
    stage = Stage(ledger, clock)
    pools = [PoolReport(name=name, capacity_mib=size) for name, size in (("coarse", 900), ("fine", 500), ("other", 2000))]
    stage.janitor.store_pools("disks", pools)

    def sizes(parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        if pool == "other":
            raise Invalid(field="parameters.type", value="none", reason="the pool has another type")
        return Sizes(of=f"type {pool}", min_mib=800 if pool == "coarse" else 1, max_mib=600 if pool == "fine" else None)

    monkeypatch.setattr(stage.platform, "sizes", sizes)
    made = stage.volumes.create(VolumeOrder(name="small", profile="fast", size_mib=16), "jane").result(timeout=0)
    assert (made.pool, made.size_mib) == ("fine", 16)
    made = stage.volumes.create(VolumeOrder(name="large", profile="fast", size_mib=601), "jane").result(timeout=0)
    assert (made.pool, made.size_mib) == ("coarse", 800)
    grown = stage.volumes.expand("large", 850, "jane").result(timeout=0)
    assert grown.size_mib == 850
    with pytest.raises(PoolFull) as full:
        stage.volumes.create(VolumeOrder(name="more", profile="fast", size_mib=601), "jane")
    assert (full.value.fields["pool"], full.value.fields["size_mib"]) == ("coarse", 800)
