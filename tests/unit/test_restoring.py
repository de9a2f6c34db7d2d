"""A ledger that is older than the platform's volumes: what was born since is not deleted, not formatted, and found again."""

from __future__ import annotations

import logging
from itertools import count

import pytest
from msgspec.structs import replace

from framework.deleting import refuse_born
from framework.restoring import NotRecalled, catch_up
from storage.errors import BornElsewhere, PlatformUnavailable
from storage.inventory import Ledger, NewVolume
from storage.lifecycle import ProofKind, VolumeState
from storage.model import Birth, ExternalId, Proof, Volume, VolumeId
from storage.platforms.base import CreateRequest, PoolReport
from storage.platforms.testing import ABILITIES, MemoryPlatform, MemoryStorage, MemoryVolume
from tests.stage import Stage, birth_of, status

TOKEN = "of-a-claim-after-the-backup"


def volume_of(platform: MemoryPlatform, *, token: str = TOKEN, name: str = "", born: bool = True, epoch: int = 3) -> ExternalId:
    """A volume as a life of the ledger that is lost has left it."""
    external = platform.create(CreateRequest(pool="default", size_mib=16, token=token, name=name)).external_id
    platform.attach(external, "n1", epoch=epoch)
    if born and platform.capabilities.marks:
        platform.record_birth(external, birth_of(external), epoch=epoch)
    platform.detach(external, "n1")
    return external


def platform_of(*, marks: bool = True) -> MemoryPlatform:
    return MemoryPlatform("disks", storage=MemoryStorage(), capabilities=replace(ABILITIES, marks=marks, fences=marks))


def prepared(ledger: Ledger) -> None:
    """A backup that has the pool, and a volume that was planned by hand."""
    with ledger.begin("test") as tx:
        tx.sync_pools("disks", [PoolReport(name="default", capacity_mib=1024)])
        tx.plan(NewVolume(volume_id=VolumeId("v1"), name="db", platform="disks", pool="default", size_mib=16, profile=""), token="t1")


def learn(ledger: Ledger, platform: MemoryPlatform) -> dict[str, Volume]:
    """Twice: a broker may be killed and started with --restored again."""
    for _ in range(2):
        catch_up(ledger, {"disks": platform}, ids=map(str, count(1)).__next__)
    return {volume.name: volume for volume in ledger.volumes().items}


def test_a_volume_that_was_born_under_the_token_that_the_ledger_has_is_known_again(ledger: Ledger) -> None:
    platform = platform_of()
    prepared(ledger)
    external = volume_of(platform, token="t1")
    volume = learn(ledger, platform)["db"]
    assert (volume.external_id, volume.state, volume.birth, volume.epoch) == (external, VolumeState.AVAILABLE, birth_of(external), 3)
    assert not volume.unborn


def test_one_that_was_born_under_a_later_claims_token_is_known_by_its_name(ledger: Ledger) -> None:
    platform = platform_of()
    prepared(ledger)
    external = volume_of(platform, name="db")
    assert learn(ledger, platform)["db"].external_id == external


def test_one_that_the_ledger_never_had_is_taken_over_for_its_app(ledger: Ledger) -> None:
    platform = platform_of()
    prepared(ledger)
    external = volume_of(platform, name="/shop/db#3/data")
    volume = learn(ledger, platform)["/shop/db#3/data"]
    assert (volume.external_id, volume.owner, volume.epoch, volume.birth) == (external, "/shop/db", 3, birth_of(external))


def test_where_nothing_is_marked_whatever_is_there_may_hold_data(ledger: Ledger) -> None:
    platform = platform_of(marks=False)
    prepared(ledger)
    external = volume_of(platform, token="t1")
    volume = learn(ledger, platform)["db"]
    assert (volume.external_id, volume.birth, volume.unborn) == (external, None, False)


def test_what_no_task_can_have_used_stays_unborn(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    platform = platform_of()
    caplog.set_level(logging.INFO)
    prepared(ledger)
    volume_of(platform, token="t1", born=False)
    volume_of(platform, name="/other#0/data", born=False)
    volumes = learn(ledger, platform)
    assert (list(volumes), volumes["db"].unborn) == (["db"], True)
    assert caplog.text.count("no task ever used it") == 4


def test_a_copy_that_bears_the_birth_of_its_origin_is_not_born(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    platform = platform_of()
    caplog.set_level(logging.INFO)
    prepared(ledger)
    external = volume_of(platform, token="t1", born=False)
    platform.record_birth(external, Birth(serial="origin", filesystem="ext4", filesystem_uuid="u"), epoch=3)
    assert learn(ledger, platform)["db"].unborn
    assert "it is a copy, and bears no birth certificate but that of origin" in caplog.text
    assert "no task ever used it" not in caplog.text
    refuse_born(platform, platform.inspect(external))


def test_an_orphan_stays_one(ledger: Ledger) -> None:
    platform = platform_of(marks=False)
    prepared(ledger)
    with ledger.begin("test") as tx:
        tx.unplan(VolumeId("v1"))
    volume_of(platform, token="t1", name="db")
    assert learn(ledger, platform) == {}


def test_an_orphan_that_was_born_after_all_is_taken_over(ledger: Ledger) -> None:
    platform = platform_of()
    prepared(ledger)
    with ledger.begin("test") as tx:
        tx.unplan(VolumeId("v1"))
    external = volume_of(platform, token="t1", name="db")
    assert learn(ledger, platform)["db"].external_id == external


def test_two_of_one_name_are_left_to_a_person(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    platform = platform_of()
    prepared(ledger)
    first, second = volume_of(platform, token="t1"), volume_of(platform, name="db")
    assert [volume.external_id for volume in learn(ledger, platform).values()] == [first]
    assert f"polly volume import {second} --platform disks" in caplog.text


def test_one_that_the_ledger_refuses_keeps_none_of_the_others_from_being_learnt(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """Its app would begin with an empty one in its place, so nothing is placed before it is known too."""
    platform = platform_of()
    prepared(ledger)
    first = volume_of(platform, token="a", name="/shop#0/data")
    lost = [volume_of(platform, token=f"lost{number}", name=f"/db#{number}/data") for number in range(12)]
    for external in lost:
        made = platform.storage.volumes[external]
        platform.storage.volumes[external] = replace(made, request=replace(made.request, pool="fast"))
    last = volume_of(platform, token="z", name="/shop#1/data")
    named = [f"{it} of disks ({platform.storage.volumes[it].request.name}): There is no pool fast on platform disks" for it in sorted(lost)]
    with pytest.raises(NotRecalled) as refused:
        learn(ledger, platform)
    assert str(refused.value) == (
        "The broker does not start, for the restored ledger refuses 12 volumes that the platforms have: "
        + "; ".join([*named[:10], "and 2 more, which the log names."])
    )
    assert [record.message for record in caplog.records if "/db#" in record.message] == [f"restored {words}" for words in named]
    learnt = {volume.name: volume.external_id for volume in ledger.volumes().items}
    assert learnt == {"db": None, "/shop#0/data": first, "/shop#1/data": last}
    with ledger.begin("test") as tx:
        tx.sync_pools("disks", [PoolReport(name=pool, capacity_mib=1024) for pool in ("default", "fast")])
    catch_up(ledger, {"disks": platform}, ids=map(str, count(100)).__next__)
    assert ledger.volume("/db#11/data").external_id == lost[11]


def test_what_is_not_pollys_is_not_taken(ledger: Ledger) -> None:
    platform = platform_of(marks=False)
    prepared(ledger)
    platform.storage.volumes["x"] = made_by_others()
    assert learn(ledger, platform)["db"].unborn


def made_by_others() -> MemoryVolume:
    return MemoryVolume(external_id=ExternalId("x"), request=CreateRequest(pool="default", size_mib=16, token="", name="db"), size_mib=16)


def test_an_epoch_is_taken_over_and_never_lowered(ledger: Ledger) -> None:
    platform = platform_of()
    prepared(ledger)
    external = volume_of(platform, token="t1", epoch=7)
    assert learn(ledger, platform)["db"].epoch == 7
    with ledger.begin("test") as tx:
        tx.recall(VolumeId("v1"), external_id=external, epoch=2, birth=None)
    assert ledger.volume("db").epoch == 7
    platform.attach(external, "n1", epoch=9)
    assert learn(ledger, platform)["db"].epoch == 9, "of one that the backup knows as born, too"


def test_an_imports_epoch_is_taken_over_too(ledger: Ledger) -> None:
    """It bears no token, or another's."""
    platform = platform_of(marks=False)
    prepared(ledger)
    for name in ("x", "y"):
        platform.storage.volumes[name] = replace(made_by_others(), external_id=ExternalId(name))
        platform.attach(ExternalId(name), "n1", epoch=5)
        with ledger.begin("test") as tx:
            tx.adopt(
                Volume(volume_id=VolumeId(name), name=name, platform="disks", pool="default", size_mib=16, external_id=ExternalId(name))
            )
    theirs = platform.storage.volumes["y"]
    platform.storage.volumes["y"] = replace(theirs, request=replace(theirs.request, token="theirs"))
    volumes = learn(ledger, platform)
    assert [(volumes[name].epoch, volumes[name].unborn) for name in ("x", "y")] == [(5, False)] * 2


def test_a_platform_that_cannot_be_listed_stops_it(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = platform_of()

    def away(**_: object) -> None:
        raise PlatformUnavailable(platform="disks", action="list volumes", reason="no answer")

    monkeypatch.setattr(platform, "volumes", away)
    with pytest.raises(PlatformUnavailable):
        catch_up(ledger, {"disks": platform}, ids=lambda: "x")


# --- without --restored -----------------------------------------------------------------------------------


def test_an_orphan_that_was_born_after_all_is_not_deleted(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    made = stage.make(plan)
    assert made.external_id
    stage.platform.record_birth(made.external_id, birth_of(made.external_id), epoch=plan.epoch)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.janitor.resume()
    stage.work()
    assert made.external_id in stage.storage.volumes
    assert stage.ledger.orphans() == []
    assert "Start the broker once with --restored" in caplog.text


def test_a_volume_that_was_born_after_all_is_not_deleted_with_its_app(stage: Stage) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    made = stage.make(plan)
    assert made.external_id
    stage.platform.record_birth(made.external_id, birth_of(made.external_id), epoch=plan.epoch)
    with stage.ledger.begin("test") as tx:
        tx.created(plan.volume_id, token=plan.token, external_id=made.external_id, size_mib=plan.size_mib)
        tx.free(plan.claim_id, plan.epoch, Proof(kind=ProofKind.NEVER_BORN, evidence="as an older ledger says"))
    deleted = stage.volumes.delete(plan.name, "test")
    stage.work()
    assert isinstance(deleted.exception(), BornElsewhere)
    assert stage.ledger.volume(plan.name).state is VolumeState.AVAILABLE
    assert made.external_id in stage.storage.volumes
