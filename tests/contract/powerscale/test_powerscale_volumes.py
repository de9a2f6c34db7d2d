"""PowerScale's volumes as folders: made, copied, grown and deleted, whatever is lost on the way, and what OneFS' codes become."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage.errors import (
    Conflict,
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownSnapshot,
    UnknownVolume,
    Unsupported,
)
from storage.model import ExternalId
from storage.platforms.powerscale.platform import PowerScalePlatform
from tests.contract.powerscale.arena import BASE, NODES, SIZE_MIB, platform_on, request
from tests.peers.powerscale_onefs import PASSWORD, OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

MIB = 1 << 20


def folder(front: OneFs, path: str, files: dict[str, str] | None = None) -> None:
    front.cluster.ifs.make(path, recursive=True)
    for name, text in (files or {}).items():
        front.cluster.ifs.write(f"{path}/{name}", text.encode(), overwrite=True)


def files(front: OneFs, path: str) -> dict[str, str]:
    place = front.cluster.ifs.real(path)
    return {str(one.relative_to(place)): one.read_text() for one in sorted(place.rglob("*")) if one.is_file()}


def names(front: OneFs, path: str = BASE) -> list[str]:
    return [one["name"] for one in front.cluster.ifs.children(path)]


# --- making ------------------------------------------------------------------------------------------


def test_a_volume_is_a_folder_with_a_hard_quota_of_its_size(front: OneFs, platform: PowerScalePlatform) -> None:
    made = platform.create(request(parameters={"mode": "0770"}))
    (quota,) = front.cluster.quotas.values()
    assert (made.external_id, made.size_mib) == ("polly-t1", SIZE_MIB)
    assert (quota["path"], quota["type"], quota["thresholds"]["hard"]) == (f"{BASE}/polly-t1", "directory", SIZE_MIB * MIB)
    assert (quota["enforced"], quota["container"], quota["include_snapshots"]) == (True, True, False)
    assert front.cluster.ifs.child(front.cluster.ifs.known(quota["path"]))["mode"] == "0770"


@pytest.mark.parametrize("keeps_existing", [True, False])
@pytest.mark.parametrize("lost", [("PUT", "/namespace"), ("POST", "/quota/quotas"), ("POST", "/nfs/exports"), ("GET", "/nfs/exports")])
def test_whatever_answer_of_a_create_is_lost_its_repeat_goes_on(
    front: OneFs, platform: PowerScalePlatform, lost: tuple[str, str], keeps_existing: bool
) -> None:
    front.cluster.ifs.keeps_existing, front.lose = keeps_existing, lost
    with pytest.raises(PlatformUnavailable):
        platform.create(request(parameters={"shared": "true"}))
    platform.create(request(parameters={"shared": "true"}))
    for epoch, node in enumerate(NODES, start=1):
        platform.attach(ExternalId("polly-t1"), node, epoch=epoch)
    assert (len(front.cluster.quotas), len(front.cluster.exports), names(front)) == (1, 3, ["polly-t1"])


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


# --- snapshots and copies ------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "lost", [("PUT", "/.polly/copies"), ("PUT", "/copies/polly-copy"), ("POST", "/.polly/copies"), ("POST", "/quota/quotas")]
)
def test_whatever_answer_of_a_copy_is_lost_its_repeat_is_whole(front: OneFs, platform: PowerScalePlatform, lost: tuple[str, str]) -> None:
    snapshot = taken(front, platform)
    front.lose = lost
    with pytest.raises(PlatformUnavailable):
        platform.create(request("copy", snapshot=snapshot))
    copy = platform.create(request("copy", snapshot=snapshot)).external_id
    assert files(front, f"{BASE}/{copy}") == {"deep/file": "kept"}
    platform.delete(copy)
    front.cluster.finish_jobs()
    assert (names(front, f"{BASE}/.polly/copies"), names(front, f"{BASE}/.polly/trash")) == ([], [])


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
    with pytest.raises(PoolFull, match="disk quota exceeded"):
        platform.create(request("copy", snapshot=snapshot))
    assert platform.find("copy") is None


def test_a_snapshot_keeps_the_size_that_its_volume_had_and_its_token(front: OneFs, platform: PowerScalePlatform) -> None:
    snapshot = taken(front, platform)
    platform.expand(ExternalId("polly-origin"), 4 * SIZE_MIB)
    again = platform.snapshot(ExternalId("polly-origin"), token="s1")
    assert (again.external_id, again.size_mib, len(front.cluster.snapshots)) == (snapshot, SIZE_MIB, 1)
    (listed,) = platform.snapshots().items
    assert listed == again


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
        ("PUT", "/nfs/exports/"),
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
    assert platform.find("t1") is None, "half a volume is found"
    assert [one for one in platform.volumes().items if one.external_id == volume] == [], "half a volume is listed"
    platform.delete(volume)
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


# --- what OneFS says -----------------------------------------------------------------------------------


def said(code: str, message: str = "words of its own", **more: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message, **more}]}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "AEC_BAD_REQUEST", Invalid),
        (400, "AEC_ARG_REQUIRED", Invalid),
        (400, "AEC_ARG_SINGLE_ONLY", Invalid),
        (400, "AEC_NAMETOOLONG", Invalid),
        (400, "AEC_NAMEEMPTY", Invalid),
        (400, "AEC_NAMEILLEGAL", Invalid),
        (400, "AEC_NO_SPACE", PoolFull),
        (403, "AEC_LIMIT_EXCEEDED", PoolFull),
        (403, "AEC_FORBIDDEN", PlatformError),
        (403, "AEC_INVALID_LICENSE", Unsupported),
        (404, "AEC_NOT_FOUND", PlatformError),
        (405, "AEC_METHOD_NOT_ALLOWED", PlatformError),
        (406, "AEC_NOT_ACCEPTABLE", PlatformError),
        (409, "AEC_CONFLICT", PlatformError),
        (412, "AEC_PRE_CONDITION_FAILED", Conflict),
        (416, "AEC_INVALID_REQUEST_RANGE", PlatformError),
        (500, "AEC_EXCEPTION", PlatformUnavailable),
        (500, "AEC_SYSTEM_INTERNAL_ERROR", PlatformUnavailable),
    ],
)
def test_every_code_becomes_one_of_pollys_errors_and_is_kept(
    front: OneFs, platform: PowerScalePlatform, status: int, code: str, kind: type[PollyError]
) -> None:
    front.meet.append(("POST", "/quota/quotas", lambda: front.refuse.append((status, said(code)))))
    with pytest.raises(kind) as caught:
        platform.create(request())
    assert f"{code}: words of its own" in str(caught.value)
    assert isinstance(caught.value, PlatformUnavailable) == (kind is PlatformUnavailable)


@pytest.mark.parametrize("answer", [(200, "<html>not OneFS</html>"), (502, "<html>a proxy</html>"), (404, "<html>nothing</html>")])
def test_what_is_not_onefs_is_an_error_of_the_platform(front: OneFs, platform: PowerScalePlatform, answer: tuple[int, str]) -> None:
    platform.pools()
    front.refuse = [answer]
    with pytest.raises(PlatformError):
        platform.pools()


def test_a_call_that_onefs_calls_transient_is_made_again(front: OneFs, platform: PowerScalePlatform) -> None:
    platform.pools()
    front.refuse = [(200, said("AEC_TRANSIENT"))] * 2
    assert platform.pools()
    front.refuse = [(200, said("AEC_TRANSIENT"))] * 9
    with pytest.raises(PlatformUnavailable, match="AEC_TRANSIENT"):
        platform.pools()
    front.refuse.clear()


@pytest.mark.parametrize("end", [(401, said("AEC_UNAUTHORIZED")), (403, "<html><h1>Forbidden</h1></html>"), (401, "<html>Login</html>")])
def test_a_session_that_ends_is_begun_anew_by_one_of_those_who_notice(front: OneFs, end: tuple[int, Any]) -> None:
    platform = platform_on(front)
    platform.pools()
    front.refuse = [end]
    assert platform.pools()
    assert front.calls["POST /session/1/session"] == 2
    front.sessions.clear()
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: platform.pools(), range(4)))) == 4
    assert front.calls["POST /session/1/session"] == 3
    platform.close()
    assert front.sessions == {}, "a session is left on the cluster"


def test_a_wrong_password_is_said_without_it(front: OneFs, platform: PowerScalePlatform) -> None:
    front.password = "another"
    with pytest.raises(PlatformUnavailable, match="OneFS does not accept user polly") as caught:
        platform.pools()
    assert PASSWORD not in repr((str(caught.value), caught.value.fields))


# --- polly doctor -----------------------------------------------------------------------------------------


def without(*names: str) -> Callable[[OneFs], None]:
    def change(front: OneFs) -> None:
        for name in names:
            del front.privileges[name]

    return change


def reading_only(front: OneFs) -> None:
    front.privileges["ISI_PRIV_NFS"] = "r"


def unlicensed(front: OneFs) -> None:
    front.cluster.licensed.discard("SnapshotIQ")


def old(front: OneFs) -> None:
    front.latest = 11


def rebuilt(front: OneFs) -> None:
    front.cluster.ifs.clear()


def locked(front: OneFs) -> None:
    front.password = "another"


@pytest.mark.parametrize(
    ("change", "subject", "message"),
    [
        (without("ISI_PRIV_QUOTA", "ISI_PRIV_STATISTICS"), "polly", "the user lacks ISI_PRIV_QUOTA (write), ISI_PRIV_STATISTICS (read)"),
        (reading_only, "polly", "the user lacks ISI_PRIV_NFS (write)"),
        (unlicensed, "SnapshotIQ", "its licence is Unlicensed"),
        (old, "https://", "OneFS with version 11 of its API"),
        (rebuilt, BASE, "there is no such folder"),
        (locked, "https://", "OneFS does not accept user polly"),
    ],
)
def test_the_doctor_says_what_is_missing(
    front: OneFs, platform: PowerScalePlatform, change: Callable[[OneFs], None], subject: str, message: str
) -> None:
    change(front)
    wrong = [finding for finding in platform.check() if not finding.ok]
    assert len(wrong) == 1
    assert (wrong[0].subject.startswith(subject), message in wrong[0].message, bool(wrong[0].mend)) == (True, True, True)


def test_the_doctor_knows_access_zones(front: OneFs) -> None:
    front.cluster.zones["other"] = "/ifs/other"
    for zone, message in (("other", "the base path is not below it"), ("none", "there is no such access zone")):
        platform = platform_on(front, access_zone=zone)
        assert [finding.message for finding in platform.check() if not finding.ok and message in finding.message]
        platform.close()
