"""PowerMax: what becomes of volumes, snapshots and copies when the array is as unkind as it may be."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage.errors import Conflict, HasSnapshots, Invalid, PlatformUnavailable, PoolFull, UnknownSnapshot, UnknownVolume
from storage.model import ExternalId
from storage.platforms.powermax import naming
from storage.platforms.powermax.platform import PowerMaxPlatform
from storage.platforms.powermax.unisphere import LOCKS, Refused
from tests.contract.powermax.arena import NODES, SIZE_MIB, foreign, platform_on, racer_on, request
from tests.peers.powermax_unisphere import Unisphere

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powermax")]
HOME = "polly-pool-SRP_1-Optimized-1"


# --- making ---------------------------------------------------------------------------------------


def test_a_volume_is_in_the_group_of_its_pool_and_level(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    made = adapter.create(request(parameters={"service_level": "Diamond"}))
    assert (made.external_id, made.size_mib, made.pool) == ("00001-polly-t1", SIZE_MIB, "SRP_1")
    assert made.serial == "naa.60000970000220200123533030303031"
    assert front.array.groups_of("00001") == ["polly-pool-SRP_1-Diamond-1"]
    assert front.array.volumes["00001"].cylinders * 1.875 == SIZE_MIB, "a volume is not whole cylinders"
    with pytest.raises(Invalid, match="Diamond"):
        adapter.create(request("t2", parameters={"service_level": "Unobtainium"}))


def test_a_full_group_is_followed_by_the_next(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    front.array.most_in_group = 2
    made = [adapter.create(request(f"t{number}")).external_id for number in range(5)]
    assert [len(front.array.groups[f"polly-pool-SRP_1-Optimized-{number}"].volumes) for number in (1, 2, 3)] == [2, 2, 1]
    assert [one.external_id for one in adapter.volumes().items] == made


def test_makers_that_share_nothing_make_one_volume(front: Unisphere, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in processes of their own, which have no locks in common."""
    monkeypatch.setattr(LOCKS, "hold", lambda *_: contextlib.nullcontext())
    for round_ in range(10):
        makers = [racer_on(front) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            made = {one.external_id for one in pool.map(lambda maker, label=f"t{round_}": maker.create(request(label)), makers)}
        assert len(made) == 1, f"{len(made)} volumes were given for one token"
        assert sum(volume.name == f"polly-t{round_}" for volume in front.array.volumes.values()) == 1


def test_who_sees_anothers_volume_gives_way(front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes its volume between our look and our own: theirs stays, whichever number it has."""
    make = adapter._volumes.make

    def late(name: str, *arguments: Any, **options: Any) -> str:
        foreign(front, "polly-t1", group=HOME)
        return make(name, *arguments, **options)

    monkeypatch.setattr(adapter._volumes, "make", late)
    made = adapter.create(request())
    assert made.external_id == "00001-polly-t1"
    assert list(front.array.volumes) == ["00001"]


def test_what_a_dead_maker_left_is_taken_up(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    left = foreign(front, "pollynew-t1", group=HOME)
    assert adapter.volumes().items == []
    assert adapter.pools()[0].foreign_mib == 0
    with pytest.raises(UnknownVolume):
        adapter.inspect(ExternalId(f"{left}-pollynew-t1"))
    assert adapter.create(request()).token == "t1"
    assert [volume.name for volume in front.array.volumes.values()] == ["polly-t1"]


def test_a_volume_that_gets_its_name_while_it_is_taken_up_stays(
    front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker lives and was only slow: it gives the name just after ours has seen it too often."""
    slow = foreign(front, "pollynew-t1", group=HOME)
    take = adapter._volumes.take

    def late(group: str, key: str, action: str) -> bool:
        front.array.rename(slow, "polly-t1")
        return take(group, key, action)

    monkeypatch.setattr(adapter._volumes, "take", late)
    assert adapter.create(request()).external_id == f"{slow}-polly-t1"
    assert front.array.groups_of(slow) == [HOME]


def test_a_maker_whose_volume_is_taken_up_begins_anew(front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = adapter._volumes.rename
    gone: list[str] = []

    def late(key: str, name: str) -> None:
        if not gone:
            gone.append(key)
            front.array.remove(HOME, [key])
            front.array.delete(key)
        rename(key, name)

    monkeypatch.setattr(adapter._volumes, "rename", late)
    assert adapter.create(request()).token == "t1"
    assert len(front.array.volumes) == 1


def test_a_delete_that_was_begun_can_be_ended_and_is_no_volume_for_a_maker(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    front.lose = ("PUT", HOME)
    with pytest.raises(PlatformUnavailable):
        adapter.delete(volume)
    found = adapter.find("t1")
    assert found is not None, "what is left of a delete is not found, and stays for ever"
    adapter.delete(found.external_id)
    assert front.array.volumes == {}
    key = foreign(front, "polly-t1", group=HOME)
    front.array.remove(HOME, [key])
    made = adapter.create(request())
    assert front.array.groups_of(made.external_id.partition("-")[0]) == [HOME]
    assert len(front.array.volumes) == 1


def test_a_volume_with_data_that_is_in_no_group_is_for_a_person(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    key = foreign(front, "polly-t1", group=HOME)
    front.array.remove(HOME, [key])
    front.array.volumes[key].data = b"data"
    with pytest.raises(Conflict, match="data on it"):
        adapter.create(request())
    assert front.array.volumes[key].data == b"data"


def test_copiers_that_share_nothing_make_one_volume(front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = adapter.snapshot(adapter.create(request("origin")).external_id, token="s1").external_id
    monkeypatch.setattr(LOCKS, "hold", lambda *_: contextlib.nullcontext())
    for round_ in range(5):
        makers = [racer_on(front) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            wanted = request(f"t{round_}", snapshot=snapshot)
            made = {one.external_id for one in pool.map(lambda maker, wanted=wanted: maker.create(wanted), makers)}
        assert len(made) == 1, f"{len(made)} copies were given for one token"
    assert len(front.array.volumes) == 6, "a copy was left behind"
    assert [one.links for one in front.array.snapshots.values()] == [{}]


def test_of_two_with_one_name_the_used_one_counts(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    foreign(front, "polly-t1", group=HOME)
    second = foreign(front, "polly-t1", group=HOME)
    front.array.volumes[second].data = b"data"
    found = adapter.find("t1")
    assert found is not None
    assert found.external_id == f"{second}-polly-t1"
    front.array.volumes["00001"].data = b"data"
    with pytest.raises(Conflict, match="00001, 00002"):
        adapter.find("t1")


def test_a_job_that_fails_after_it_was_accepted_is_told_in_the_arrays_words(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    adapter.create(request("first"))
    front.fail_jobs = ["The SYMAPI database is out of sync"]
    with pytest.raises(Refused, match=r"job \d+ FAILED: The SYMAPI database is out of sync"):
        adapter.create(request())
    front.fail_jobs = ["not enough free capacity"]
    with pytest.raises(PoolFull):
        adapter.create(request())
    assert adapter.find("t1") is None


def test_a_lock_that_somebody_holds_is_waited_for(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    adapter.create(request("first"))
    front.fail_jobs = ["Unable to acquire the Symmetrix device lock"] * 3
    assert adapter.create(request()).token == "t1"
    front.fail_jobs = ["Unable to acquire the Symmetrix device lock"] * 50
    with pytest.raises(PlatformUnavailable, match="device lock"):
        adapter.create(request("t2"))


def test_a_job_that_never_ends_is_unavailable(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    front.job_looks = 10_000
    with pytest.raises(PlatformUnavailable, match="is still RUNNING after"):
        adapter.create(request())


class Forgetful(dict[str, Any]):
    def __setitem__(self, key: str, job: Any) -> None:
        """As if it had been forgotten at once."""


def test_a_job_that_unisphere_has_forgotten_proves_nothing(
    front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover: that the job is not there does not mean that its volume was in no group."""
    volume = adapter.create(request()).external_id
    adapter.attach(volume, NODES[0], epoch=1)
    monkeypatch.setattr(front, "jobs", Forgetful())
    with pytest.raises(PlatformUnavailable, match="has forgotten job"):
        adapter.detach(volume, NODES[0])


def test_a_refusal_in_an_answer_that_is_none_is_told(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    front.refuse = [(200, {"success": False, "message": "The array is in a state in which it cannot"})]
    with pytest.raises(Refused, match="in which it cannot"):
        adapter.inspect(volume)


# --- finding and listing ------------------------------------------------------------------------------


def test_lists_of_many_pages_are_whole_and_their_iterators_dropped(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    front.page_size = 3
    made = [adapter.create(request(f"t{number}")).external_id for number in range(10)]
    assert [volume.external_id for volume in adapter.volumes(limit=100).items] == made
    assert front.iterators == {}
    assert sum(count for path, count in front.calls.items() if path.endswith("/page")) == 3


def test_a_list_whose_iterator_has_ended_is_read_anew(front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    front.page_size = 3
    for number in range(5):
        adapter.create(request(f"t{number}"))
    pages = front.pages
    lives = iter([False, True])

    def pages_that_end(found: list[Any]) -> dict[str, Any]:
        first = pages(found)
        if not next(lives):
            front.iterators.clear()
        return first

    monkeypatch.setattr(front, "pages", pages_that_end)
    assert len(adapter.volumes().items) == 5
    lives = iter([False] * 10)
    with pytest.raises(PlatformUnavailable, match="iterators end"):
        adapter.volumes()


def test_a_page_that_is_cut_off_loses_no_volume(front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [adapter.create(request(f"t{number}")).external_id for number in range(3)]
    pages, cut = front.pages, [True, False]

    def short(found: list[Any]) -> dict[str, Any]:
        first = pages(found)
        rows = first["resultList"]["result"]
        return {**first, "resultList": {"result": rows[:-1] if cut.pop(0) else rows}}

    monkeypatch.setattr(front, "pages", short)
    assert [one.external_id for one in adapter.volumes().items] == made
    assert cut == []


def test_a_number_that_is_given_again_is_another_volume(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    adapter.delete(volume)
    assert foreign(front, "their database") == "00001"
    for verb in (adapter.inspect, lambda key: adapter.attach(key, NODES[0], epoch=1)):
        with pytest.raises(UnknownVolume):
            verb(volume)
    adapter.delete(volume)
    assert "00001" in front.array.volumes, "a repeated delete took the next volume of the same number away"


def test_foreign_volumes_count_as_foreign_and_can_be_adopted(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    key = foreign(front, "their database", gib=4)
    adapter.create(request())
    (pool,) = adapter.pools()
    assert (pool.name, pool.capacity_mib, pool.foreign_mib) == ("SRP_1", 10 << 20, 4096)
    theirs = adapter.volumes().items[0]
    assert (theirs.external_id, theirs.token, theirs.size_mib) == (f"{key}-their database", "", 4096)
    assert adapter.inspect(theirs.external_id) == theirs
    assert adapter.attach(theirs.external_id, NODES[0], epoch=1).serial == theirs.serial
    assert platform_on(front, capacity_mib=5000).pools()[0].capacity_mib == 5000


def test_an_anchor_is_no_volume_of_anybodys(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    adapter.attach(volume, NODES[0], epoch=1)
    assert len(front.array.volumes) == 2
    assert [one.external_id for one in adapter.volumes().items] == [volume]
    assert adapter.pools()[0].foreign_mib == 0


# --- snapshots and copies ---------------------------------------------------------------------------------


def test_a_volume_with_snapshots_is_kept(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    adapter.snapshot(volume, token="s1")
    with pytest.raises(HasSnapshots, match="pollyps1"):
        adapter.delete(volume)
    assert front.array.groups_of("00001") == [HOME], "a refused delete took the volume out of its group"


def test_what_was_left_of_a_copy_goes_with_the_next_repeat(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    """Whoever took a copy out of its group died before it was deleted."""
    snapshot = adapter.snapshot(adapter.create(request()).external_id, token="s1").external_id
    made = adapter.create(request("t2", snapshot=snapshot))
    left = foreign(front, "polly-t2", group="polly-copying-000000000000")
    front.array.remove("polly-copying-000000000000", [left])
    assert adapter.create(request("t2", snapshot=snapshot)) == made
    assert (sorted(front.array.volumes), sorted(front.array.groups)) == (["00001", "00002"], [HOME])


def test_a_copy_is_seen_by_nobody_until_it_is_whole(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    snapshot = adapter.snapshot(volume, token="s1").external_id
    front.array.link_looks = 1 << 20
    with pytest.raises(PlatformUnavailable, match="its link to 00002 is CopyInProg"):
        adapter.create(request("t2", snapshot=snapshot))
    assert [one.external_id for one in adapter.volumes().items] == [volume]
    with pytest.raises(UnknownVolume):
        adapter.inspect(ExternalId("00002-polly-t2"))
    next(iter(front.array.snapshots.values())).links["00002"].looks_left = 0
    assert platform_on(front).create(request("t2", snapshot=snapshot)).external_id == "00002-polly-t2"


def test_a_copy_of_a_snapshot_that_goes_meanwhile_is_refused_and_leaves_nothing(
    front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = adapter.create(request()).external_id
    snapshot = adapter.snapshot(volume, token="s1").external_id
    take = adapter._copies._act

    def late(*arguments: Any) -> None:
        front.array.snapshots.clear()
        take(*arguments)

    monkeypatch.setattr(adapter._copies, "_act", late)
    with pytest.raises(UnknownSnapshot):
        adapter.create(request("t2", snapshot=snapshot))
    assert list(front.array.volumes) == ["00001"]


def test_too_many_snapshots_are_a_full_pool(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    front.array.most_snapshots = 1
    adapter.snapshot(volume, token="s1")
    with pytest.raises(PoolFull, match="maximum number of snapshots"):
        adapter.snapshot(volume, token="s2")


def test_somebody_elses_snapshots_are_nobodys_to_take_back(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    volume = adapter.create(request()).external_id
    list(front.array.snap(["00001"], "nightly"))
    mine = adapter.snapshot(volume, token="s1").external_id
    assert [(one.external_id == mine, one.token) for one in adapter.snapshots().items] == [(False, ""), (True, "s1")]
    adapter.delete_snapshot(mine)
    with pytest.raises(HasSnapshots, match="nightly"):
        adapter.delete(volume)


def test_a_snapshot_that_people_have_renamed_is_the_same(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    snapshot = adapter.snapshot(adapter.create(request()).external_id, token="s1").external_id
    (kept,) = front.array.snapshots.values()
    front.array.rename_snapshot(kept, "keep_this_one")
    assert [one.external_id for one in adapter.snapshots().items] == [snapshot]
    assert adapter.create(request("t2", snapshot=snapshot)).token == "t2"
    adapter.delete_snapshot(ExternalId(f"{snapshot}-pollyps1"))
    assert not front.array.snapshots, "one that an older ledger knows is not found"


@pytest.mark.parametrize("token", ["s1", "0b5a2c9e-6f0e-4f51-9a4e-2d7c1b3a4f5e", "a" * 26])
def test_snapshots_names_hold_tokens_without_loss(token: str) -> None:
    name = naming.snapshot_name(token)
    assert len(name) <= 32
    assert naming.token_of_snapshot(name) == token


def test_names_of_long_tokens_hold_a_hash() -> None:
    token = "with blanks and more than fifty-eight characters, which no name of a volume can hold"
    assert (len(naming.volume_name(token)), naming.token_of_volume(naming.volume_name(token))) == (34, "")
    assert (len(naming.snapshot_name(token)), naming.token_of_snapshot(naming.snapshot_name(token))) == (32, "")
    assert naming.volume_name(token) != naming.volume_name(token + ".")
    assert naming.token_of_volume(naming.volume_name("h-1")) == ""
    for nothing in (naming.volume_name, naming.snapshot_name):
        with pytest.raises(Invalid, match="token"):
            nothing("")
