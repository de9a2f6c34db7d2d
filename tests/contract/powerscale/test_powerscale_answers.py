"""What OneFS' codes become, how sessions end, and what the doctor says of a PowerScale cluster."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from storage.errors import (
    Conflict,
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownVolume,
    Unsupported,
)
from storage.model import ExternalId
from storage.platforms.powerscale.platform import PowerScalePlatform
from storage.platforms.restapi import Answer
from tests.contract.powerscale.arena import BASE, NODES, names, platform_on, request
from tests.peers.powerscale_onefs import PASSWORD, OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

MIB = 1 << 20


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


def verbs(platform: PowerScalePlatform, volume: ExternalId, snapshot: ExternalId) -> Iterator[Callable[[], object]]:
    yield from (platform.pools, platform.volumes, platform.snapshots, lambda: platform.inspect(volume), lambda: platform.find("t1"))
    yield lambda: platform.create(request("t3"))
    yield lambda: platform.create(request("t3", snapshot=snapshot))
    yield lambda: platform.attach(volume, NODES[0], epoch=1)
    yield lambda: platform.detach(volume, NODES[0])
    yield lambda: platform.fence(volume, 4)
    yield lambda: platform.expand(volume, 64)
    yield lambda: platform.snapshot(volume, token="s3")
    yield lambda: platform.delete(volume)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>not OneFS</html>"),
        (200, []),
        (200, {}),
        (200, {"quotas": [{"path": f"{BASE}/polly-t1"}], "exports": [{"paths": None}], "snapshots": [{}], "stats": [], "attrs": None}),
        (200, {"quotas": [None], "exports": {}, "snapshots": "", "stats": [{"key": "ifs.bytes.free", "value": None}], "attrs": 1}),
        (302, None),
        (404, "<html>the web server is starting</html>"),
        (409, "<html>a proxy</html>"),
        (502, "<html>a proxy</html>"),
    ],
)
def test_an_answer_that_is_not_onefs_is_an_error_with_a_name(front: OneFs, platform: PowerScalePlatform, answer: tuple[int, Any]) -> None:
    volume = platform.create(request()).external_id
    snapshot = platform.snapshot(volume, token="s1").external_id
    for verb in verbs(platform, volume, snapshot):
        front.refuse = [answer] * 30
        with pytest.raises(PlatformError):
            verb()
        front.refuse = []
    assert (names(front), len(front.cluster.quotas), len(front.cluster.exports), len(front.cluster.snapshots)) == ([volume], 1, 1, 1)


@pytest.mark.parametrize("call", ["DELETE /platform/12/protocols/nfs/exports/", "DELETE /platform/12/quota/quotas/"])
def test_nothing_is_gone_because_a_proxy_says_so(front: OneFs, platform: PowerScalePlatform, call: str) -> None:
    volume = platform.create(request()).external_id
    method, _, path = call.partition(" ")
    front.meet.append((method, path, lambda: front.refuse.append((404, "<html>nothing</html>"))))
    with pytest.raises(PlatformUnavailable, match="without a word of OneFS'"):
        platform.delete(volume)
    platform.delete(volume)
    assert (front.cluster.quotas, front.cluster.exports) == ({}, {})


def test_a_cluster_that_makes_nothing_of_filters_shows_no_volume_for_another(
    front: OneFs, platform: PowerScalePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = platform.create(request()).external_id
    real = platform._onefs.all
    monkeypatch.setattr(platform._onefs, "all", lambda action, where, kind, /, **_: real(action, where, kind))
    with pytest.raises(UnknownVolume):
        platform.inspect(ExternalId("polly-t2"))
    platform.delete(ExternalId("polly-t2"))
    assert (names(front), len(front.cluster.quotas)) == ([".polly", volume], 1)


def test_a_list_that_tells_one_volume_twice_has_it_once(platform: PowerScalePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume tokens go through what changes meanwhile."""
    platform.snapshot(platform.create(request()).external_id, token="s1")
    real = platform._onefs.all
    monkeypatch.setattr(platform._onefs, "all", lambda *what, **more: 2 * real(*what, **more))
    assert (len(platform.volumes().items), len(platform.snapshots().items)) == (1, 1)


def test_a_call_that_onefs_calls_transient_is_made_again(front: OneFs, platform: PowerScalePlatform) -> None:
    platform.pools()
    front.refuse = [(200, said("AEC_TRANSIENT"))] * 2
    assert platform.pools()
    front.refuse = [(200, said("AEC_TRANSIENT"))] * 9
    with pytest.raises(PlatformUnavailable, match="AEC_TRANSIENT"):
        platform.pools()
    front.refuse.clear()


def test_a_refusal_in_an_answer_that_is_none_is_told(front: OneFs, platform: PowerScalePlatform) -> None:
    volume = platform.create(request()).external_id
    front.meet.append(("DELETE", "/quota/quotas/", lambda: front.refuse.append((200, said("AEC_FORBIDDEN")))))
    with pytest.raises(PlatformError, match="AEC_FORBIDDEN"):
        platform.delete(volume)
    assert len(front.cluster.quotas) == 1


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


@pytest.mark.parametrize("cookie", ["isisessid=not-a\nreal-one", "isisessid=not-ä-real-one"])
def test_a_session_that_no_header_can_hold_is_not_said(platform: PowerScalePlatform, cookie: str) -> None:
    platform._onefs._session = {"Cookie": cookie}
    with pytest.raises(PlatformUnavailable, match="is no header") as caught:
        platform.pools()
    assert "real-one" not in "".join(traceback.format_exception(caught.value))
    platform._onefs._session = None


@pytest.mark.parametrize("size", ["1e400", "0x10", None])
def test_a_size_that_is_no_number_is_an_error_with_a_name(platform: PowerScalePlatform, size: str | None) -> None:
    answer = Answer("nas", "look", {"size": json.loads(size) if size == "1e400" else size})
    with pytest.raises(PlatformUnavailable, match="'size'"):
        answer.whole("size")


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


def test_the_doctor_advises_nothing_where_nothing_is_wrong_and_names_the_key_that_is(
    front: OneFs, platform: PowerScalePlatform, tmp_path: Path
) -> None:
    assert [finding.mend for finding in platform.check()] == [""] * 6
    (shown := tmp_path / "password").write_text(PASSWORD)
    shown.chmod(0o640)
    assert all(finding.ok for finding in platform_on(front, password_file=str(shown)).check())
    shown.chmod(0o660)
    (finding,) = [finding for finding in platform_on(front, password_file=str(shown)).check() if not finding.ok]
    assert (finding.subject, finding.mend) == (str(shown), f"chmod 600 {shown}")
    (finding,) = platform_on(front, password_file=f"{tmp_path}/none").check()
    assert "none cannot be read: No such file or directory" in finding.message
    assert "password_file" in finding.mend


def test_the_doctor_knows_access_zones(front: OneFs) -> None:
    front.cluster.zones["other"] = "/ifs/other"
    for zone, message in (("other", "the base path is not below it"), ("none", "there is no such access zone")):
        platform = platform_on(front, access_zone=zone)
        assert [finding.message for finding in platform.check() if not finding.ok and message in finding.message]
        platform.close()
