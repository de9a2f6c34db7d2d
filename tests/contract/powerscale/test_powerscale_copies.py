"""PowerScale's snapshots, and volumes that are copies of one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.errors import (
    PlatformError,
    PlatformUnavailable,
    PoolFull,
    UnknownSnapshot,
    UnknownVolume,
    Unsupported,
)
from storage.model import ExternalId
from storage.platforms.powerscale.platform import PowerScalePlatform
from tests.contract.powerscale.arena import BASE, SIZE_MIB, files, folder, names, platform_on, request
from tests.peers.powerscale_onefs import OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

MIB = 1 << 20


def taken(front: OneFs, platform: PowerScalePlatform) -> ExternalId:
    volume = platform.create(request("origin")).external_id
    folder(front, f"{BASE}/{volume}/deep", {"file": "kept"})
    return platform.snapshot(volume, token="s1").external_id


def test_a_copy_waits_until_its_quota_holds(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    front.cluster.scan_looks = 4
    copy = platform.create(request("copy", snapshot=snapshot)).external_id
    assert files(front, f"{BASE}/{copy}") == {"deep/file": "kept"}
    assert front.cluster.scanning == {}, "a copy was given before its quota was ready"
    assert names(front, f"{BASE}/.polly/copies") == []


def test_creators_of_one_copy_at_once_make_one(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    together = threading.Barrier(4)

    def create(number: int) -> str:
        mine = platform_on(front)
        together.wait(timeout=30)
        made = mine.create(request("copy", snapshot=snapshot)).external_id
        mine.close()
        return made

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(create, range(4))) == {"polly-copy"}
    front.cluster.finish_jobs()
    assert files(front, f"{BASE}/polly-copy") == {"deep/file": "kept"}
    assert (names(front), names(front, f"{BASE}/.polly/copies")) == ([".polly", "polly-copy", "polly-origin"], [])


def test_a_copy_that_lacks_files_is_no_volume(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    said = {"success": False, "copy_errors": [{"message": "permission denied", "source": "/ifs/a", "target": "/ifs/b", "error_src": "s"}]}
    front.meet.append(("PUT", "/copies/polly-copy", lambda: front.refuse.append((200, said))))
    with pytest.raises(PlatformError, match="1 files were not copied, the first of them: permission denied"):
        platform.create(request("copy", snapshot=snapshot))
    assert platform.find("copy") is None


def test_a_snapshot_that_goes_while_it_is_copied_is_unknown(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    front.meet.append(("PUT", "/copies/polly-copy", lambda: front.cluster.delete_snapshot(snapshot)))
    with pytest.raises(UnknownSnapshot):
        platform.create(request("copy", snapshot=snapshot))


def test_a_copy_of_what_is_larger_than_the_base_paths_quota_is_refused(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    folder(front, BASE, {"theirs": "x" * MIB})
    body = {"path": BASE, "type": "directory", "enforced": True, "thresholds": {"hard": 16 * MIB}}
    front.cluster.make_quota(body)

    def fill() -> None:
        folder(front, BASE, {"more": "x" * (15 * MIB)})

    front.meet.append(("PUT", "/copies/polly-copy", fill))
    with pytest.raises(PoolFull, match="Disc quota exceeded"):
        platform.create(request("copy", snapshot=snapshot))
    assert platform.find("copy") is None


def test_a_snapshot_keeps_the_size_that_its_volume_had_and_its_token(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    platform.expand(ExternalId("polly-origin"), 4 * SIZE_MIB)
    again = platform.snapshot(ExternalId("polly-origin"), token="s1")
    assert (again.external_id, again.size_mib, len(front.cluster.snapshots)) == (snapshot, SIZE_MIB, 1)
    (listed,) = platform.snapshots().items
    assert listed == again


def test_a_snapshot_whose_volume_goes_before_the_repeat_is_there(front: OneFs, platform: PowerScalePlatform) -> None:
    volume = platform.create(request()).external_id
    snapshot = platform.snapshot(volume, token="s1")
    platform.delete(volume)
    assert platform.snapshot(volume, token="s1") == snapshot
    for key, token in ((ExternalId("polly-t2"), "s1"), (volume, "s2")):
        with pytest.raises(UnknownVolume):
            platform.snapshot(key, token=token)


def test_snapshots_of_others_are_left_alone(front: OneFs, platform: PowerScalePlatform) -> None:
    platform.create(request("origin"))
    for name in ("daily", "polly-snap-x-zz-8", "polly-snap-", "polly-snap-t-big"):
        front.cluster.make_snapshot({"name": name, "path": f"{BASE}/polly-origin"})
    assert platform.snapshots().items == []
    for name in ("daily", "../snapshots", ""):
        platform.delete_snapshot(ExternalId(name))
    assert len(front.cluster.snapshots) == 4


def test_too_many_snapshots_are_a_full_pool_and_a_lock_is_said(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    front.cluster.most_snapshots = 1
    with pytest.raises(PoolFull, match="AEC_LIMIT_EXCEEDED"):
        platform.snapshot(ExternalId("polly-origin"), token="s2")
    front.cluster.snapshots[snapshot]["has_locks"] = True
    with pytest.raises(PlatformError, match=r"AEC_CONFLICT: .* has locks"):
        platform.delete_snapshot(snapshot)


@pytest.mark.parametrize("lost", [("PUT", "/copies/polly-copy"), ("POST", "/.polly/copies"), ("PUT", "/namespace")])
def test_what_a_creator_that_gave_up_has_left_is_found_and_deleted(
    front: OneFs, platform: PowerScalePlatform, lost: tuple[str, str]
) -> None:
    snapshot = taken(front, platform)
    front.lose = lost
    with pytest.raises(PlatformUnavailable):
        platform.create(request("copy", snapshot=None if lost[1] == "/namespace" else snapshot))
    front.cluster.finish_jobs()
    if names(front, f"{BASE}/.polly/copies") or "polly-copy" in names(front):
        left = platform.find("copy")
        assert left is not None
        assert (left.external_id, left.size_mib, left.held_by) == ("polly-copy", 0, ())
    platform.delete(ExternalId("polly-copy"))
    assert platform.find("copy") is None
    front.cluster.finish_jobs()
    assert (names(front), names(front, f"{BASE}/.polly/copies"), names(front, f"{BASE}/.polly/trash")) == (
        [".polly", "polly-origin"],
        [],
        [],
    )


# --- clones ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost",
    [("POST", "/snapshot/snapshots"), ("PUT", "/copies/polly-twin"), ("POST", "/quota/quotas"), ("DELETE", "/snapshot/snapshots/")],
)
def test_whatever_answer_of_a_clone_is_lost_its_repeat_is_of_the_first_moment(
    front: OneFs, platform: PowerScalePlatform, lost: tuple[str, str]
) -> None:
    source = platform.create(request("origin")).external_id
    folder(front, f"{BASE}/{source}/deep", {"file": "kept"})
    front.lose = lost
    with pytest.raises(PlatformUnavailable):
        platform.create(request("twin", source=source))
    folder(front, f"{BASE}/{source}/deep", {"later": "not in it"})
    twin = platform_on(front).create(request("twin", source=source)).external_id
    assert files(front, f"{BASE}/{twin}") == {"deep/file": "kept"}
    assert (platform.snapshots().items, list(front.cluster.snapshots)) == ([], [])


def test_a_clone_that_was_given_up_is_found_and_deleted_with_its_snapshot(front: OneFs, platform: PowerScalePlatform) -> None:
    source = platform.create(request("origin")).external_id
    platform._snapshots.take_for_clone(f"{BASE}/{source}", "twin")
    begun = platform.find("twin")
    assert begun
    platform.delete(begun.external_id)
    assert platform.find("twin") is None
    assert list(front.cluster.snapshots) == []


def test_without_the_licence_for_snapshots_all_else_goes_on(front: OneFs, platform: PowerScalePlatform) -> None:
    front.cluster.licensed.discard("SnapshotIQ")
    assert platform.find("origin") is None
    source = platform.create(request("origin")).external_id
    with pytest.raises(Unsupported, match="SnapshotIQ"):
        platform.create(request("twin", source=source))
    assert platform.find("twin") is None
    platform.delete(source)
    assert platform.find("origin") is None
