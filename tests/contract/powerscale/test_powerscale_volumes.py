"""PowerScale's volumes as folders: made, listed and deleted, whatever is lost on the way."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from storage.errors import (
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PoolFull,
    UnknownVolume,
)
from storage.model import ExternalId
from storage.platforms.powerscale.platform import PowerScalePlatform
from tests.contract.powerscale.arena import BASE, NODES, SIZE_MIB, Meet, files, folder, in_every_gap, names, request
from tests.peers.powerscale_onefs import OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

MIB = 1 << 20


# --- making ------------------------------------------------------------------------------------------


def test_a_volume_is_a_folder_with_a_hard_quota_of_its_size(front: OneFs, platform: PowerScalePlatform) -> None:
    made = platform.create(request(parameters={"mode": "0770"}))
    (quota,) = front.cluster.quotas.values()
    assert (made.external_id, made.size_mib) == ("polly-t1", SIZE_MIB)
    assert (quota["path"], quota["type"], quota["thresholds"]["hard"]) == (f"{BASE}/polly-t1", "directory", SIZE_MIB * MIB)
    assert (quota["enforced"], quota["container"], quota["include_snapshots"]) == (True, True, False)
    assert front.cluster.ifs.child(front.cluster.ifs.known(quota["path"]))["mode"] == "0770"


def test_tokens_that_no_name_can_hold_stand_in_hex_or_are_refused(platform: PowerScalePlatform) -> None:
    made = platform.create(request("a/b ü"))
    assert made.external_id == "polly-x-612f6220c3bc"
    assert platform.inspect(made.external_id).token == "a/b ü"
    for token in ("", "t" * 250):
        with pytest.raises(Invalid, match="it must fit into a name"):
            platform.create(request(token))


@pytest.mark.parametrize(("key", "value"), [("shared", "yes"), ("mode", "755"), ("mode", "0999"), ("size", "1")])
def test_parameters_are_checked(platform: PowerScalePlatform, key: str, value: str) -> None:
    with pytest.raises(Invalid, match=rf"parameters\.{key}"):
        platform.create(request(parameters={key: value}))


def test_the_base_paths_own_quota_is_the_pools_capacity(front: OneFs, platform: PowerScalePlatform) -> None:
    folder(front, BASE, {"theirs": "x" * (2 * MIB)})
    body = {"path": BASE, "type": "directory", "enforced": True, "thresholds": {"hard": 64 * MIB}}
    front.cluster.make_quota(body)
    (pool,) = platform.pools()
    assert (pool.name, pool.capacity_mib, pool.foreign_mib) == ("System", 64, 2)
    assert [one.external_id for one in platform.volumes().items] == []
    platform.create(request(size_mib=62))
    with pytest.raises(PoolFull, match="62 MiB free, 63 MiB"):
        platform.create(request("t2", size_mib=63))


def test_what_others_use_of_the_cluster_is_foreign(front: OneFs, platform: PowerScalePlatform) -> None:
    volume = platform.create(request()).external_id
    folder(front, f"{BASE}/{volume}", {"mine": "x" * MIB})
    (pool,) = platform.pools()
    assert (pool.capacity_mib, pool.foreign_mib) == (100 << 20, 10 << 20)


def test_a_cluster_without_room_for_an_export_keeps_nothing(front: OneFs, platform: PowerScalePlatform) -> None:
    front.cluster.most_exports = 0
    with pytest.raises(PoolFull, match="AEC_LIMIT_EXCEEDED"):
        platform.create(request())
    front.cluster.finish_jobs()
    assert (platform.find("t1"), names(front), names(front, f"{BASE}/.polly/trash")) == (None, [".polly"], [])


# --- lists -------------------------------------------------------------------------------------------


def test_folders_with_a_quota_that_others_made_are_listed_and_can_be_attached(front: OneFs, platform: PowerScalePlatform) -> None:
    for name in ("theirs", "theirs/deep", "with blank", ".hidden", "plain"):
        folder(front, f"{BASE}/{name}")
        if name != "plain":
            front.cluster.make_quota({"path": f"{BASE}/{name}", "type": "directory", "enforced": True, "thresholds": {"hard": 3 * MIB}})
    folder(front, f"{BASE}/advised")
    front.cluster.make_quota({"path": f"{BASE}/advised", "type": "directory", "thresholds": {"advisory": MIB}})
    (theirs,) = platform.volumes().items
    assert (theirs.external_id, theirs.token, theirs.size_mib, theirs.held_by) == ("theirs", "", 3, ())
    platform.attach(theirs.external_id, NODES[0], epoch=1)
    assert platform.inspect(theirs.external_id).held_by == (NODES[0],)
    for name in ("plain", "advised"):
        with pytest.raises(UnknownVolume):
            platform.attach(ExternalId(name), NODES[0], epoch=1)
        platform.delete(ExternalId(name))
    assert {"plain", "advised"} <= set(names(front)), "what is no volume was deleted"


class Forgetful(dict[str, list[Any]]):
    """Tokens for the rest of a list, the first of which is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1

    def __contains__(self, key: object) -> bool:
        self.left -= 1
        return self.left < 0 and super().__contains__(key)


def test_lists_of_many_pages_are_whole_also_where_onefs_forgets_how_they_go_on(front: OneFs, platform: PowerScalePlatform) -> None:
    made = sorted(platform.create(request(f"t{number}")).external_id for number in range(8))
    snapshots = sorted(platform.snapshot(ExternalId(made[0]), token=f"s{number}").external_id for number in range(5))
    front.page_size, front.resumes = 3, Forgetful()
    assert [volume.external_id for volume in platform.volumes().items] == made
    assert isinstance(front.resumes, Forgetful)
    assert front.resumes.left < 0, "no token was asked for"
    assert [one.external_id for one in platform.snapshots().items] == snapshots


# --- deleting -----------------------------------------------------------------------------------------


def test_a_deleted_volume_is_gone_at_once_and_its_files_by_a_job(front: OneFs, platform: PowerScalePlatform) -> None:
    volume = platform.create(request()).external_id
    folder(front, f"{BASE}/{volume}", {"file": "data"})
    front.cluster.job_looks = 100
    platform.delete(volume)
    assert (names(front), front.cluster.quotas, front.cluster.exports) == ([".polly"], {}, {})
    (left,) = names(front, f"{BASE}/.polly/trash")
    assert left.startswith(f"{volume}.")
    assert platform.create(request()).external_id == volume
    assert files(front, f"{BASE}/{volume}") == {}
    front.cluster.finish_jobs()
    assert names(front, f"{BASE}/.polly/trash") == []


@pytest.mark.parametrize(
    "lost",
    [
        ("POST", "/nfs/exports"),
        ("DELETE", "/quota/quotas/"),
        ("PUT", "/.polly/trash"),
        ("POST", "/namespace"),
        ("DELETE", "/nfs/exports/"),
        ("GET", "/.polly/trash"),
        ("POST", "/job/jobs"),
    ],
)
def test_whatever_answer_of_a_delete_is_lost_its_repeat_goes_on(front: OneFs, platform: PowerScalePlatform, lost: tuple[str, str]) -> None:
    volume = platform.create(request()).external_id
    folder(front, f"{BASE}/{volume}", {"file": "data"})
    front.lose = lost
    with pytest.raises(PlatformUnavailable):
        platform.delete(volume)
    found = platform.find("t1")
    assert found is None or found.size_mib == 0, "half a volume is found as a whole one"
    assert [one for one in platform.volumes().items if one.external_id == volume] == [], "half a volume is listed"
    while left := platform.find("t1"):
        platform.delete(left.external_id)
    front.cluster.finish_jobs()
    assert (names(front), names(front, f"{BASE}/.polly/trash"), front.cluster.quotas, front.cluster.exports) == ([".polly"], [], {}, {})


def test_a_job_that_fails_is_said_and_begun_again_by_the_next_delete(front: OneFs, platform: PowerScalePlatform) -> None:
    volume = platform.create(request()).external_id
    front.cluster.job_looks, front.cluster.fail_jobs = 0, True
    with pytest.raises(PlatformError, match=r"its job \d+, TreeDelete of .*/\.polly/trash/polly-t1\..* is failed"):
        platform.delete(volume)
    front.cluster.fail_jobs = False
    platform.delete(volume)
    assert names(front, f"{BASE}/.polly/trash") == []


@pytest.mark.parametrize("has_failed", [True, False], ids=["its job has failed", "whoever was to begin its job has died"])
def test_what_no_job_removes_any_more_goes_with_the_next_delete(front: OneFs, platform: PowerScalePlatform, has_failed: bool) -> None:
    volumes = [platform.create(request(f"t{number}")).external_id for number in range(2)]
    if has_failed:
        front.cluster.fail_jobs = True
        platform.delete(volumes[0])
        front.cluster.finish_jobs()
        front.cluster.fail_jobs = False
    else:
        folder(front, f"{BASE}/.polly/trash/polly-t9.00c0ffee", {"file": "data"})
    assert len(names(front, f"{BASE}/.polly/trash")) == 1
    platform.delete(volumes[1])
    front.cluster.finish_jobs()
    assert names(front, f"{BASE}/.polly/trash") == []


def test_what_a_job_is_about_is_left_to_it(front: OneFs, platform: PowerScalePlatform) -> None:
    volumes = [platform.create(request(f"t{number}")).external_id for number in range(2)]
    front.cluster.job_looks = 100
    for volume in volumes:
        platform.delete(volume)
    assert len(front.cluster.jobs) == 2
    front.cluster.finish_jobs()
    assert names(front, f"{BASE}/.polly/trash") == []


# --- growing ------------------------------------------------------------------------------------------


def grows(platform: PowerScalePlatform, volume: ExternalId, size_mib: int) -> None:
    with contextlib.suppress(Invalid):  # it is larger by now
        assert platform.expand(volume, size_mib).size_mib >= size_mib


@pytest.mark.parametrize(("mine_mib", "theirs_mib"), [(16, 32), (32, 16)])
def test_of_two_who_grow_a_volume_at_once_neither_makes_it_smaller(
    front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform, mine_mib: int, theirs_mib: int
) -> None:
    def rule(volume: ExternalId, meet: Meet) -> None:
        meet(lambda: grows(other, volume, theirs_mib))
        grows(platform, volume, mine_mib)
        if not front.meet:
            assert platform.inspect(volume).size_mib == 32

    in_every_gap(front, platform, rule)


def test_a_volume_that_somebody_left_smaller_than_it_is_comes_to_a_node_as_large_as_it_is(
    front: OneFs, platform: PowerScalePlatform
) -> None:
    """As of two who grow it at once one may, that dies before it looks again."""
    volume = platform.create(request()).external_id
    platform.expand(volume, 32)
    (quota,) = front.cluster.quotas.values()
    quota["thresholds"]["hard"] = 16 * MIB
    platform.attach(volume, NODES[0], epoch=1)
    assert (quota["thresholds"]["hard"], platform.inspect(volume).size_mib) == (32 * MIB, 32)


def test_a_volume_that_has_marks_grows_and_keeps_them(front: OneFs, platform: PowerScalePlatform) -> None:
    volume = platform.create(request()).external_id
    platform.attach(volume, NODES[0], epoch=7)
    before = platform.inspect(volume)
    grown = platform.expand(volume, 64)
    assert (grown.size_mib, grown.epoch, grown.held_by) == (64, before.epoch, before.held_by)
    assert len(front.cluster.exports) == 2
