"""The PowerFlex adapter and the wire: logins that end, gateways that are busy, gone or not what they say, and what the doctor finds."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from storage.errors import PlatformError, PlatformUnavailable, PollyError
from storage.model import ExternalId
from storage.platforms.base import Platform
from storage.platforms.powerflex.client import TRIES
from storage.platforms.powerflex.platform import PowerFlexPlatform
from storage.platforms.powerflex.session import Session
from tests.contract.powerflex.arena import NODES, POOL, foreign, options, password_file, platform, renewed, request
from tests.peers.powerflex_gateway import PASSWORD, Answer, Gateway, serving

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def older(powerflex_gateways: dict[str, Gateway]) -> Gateway:
    return renewed(powerflex_gateways["3.6"])


@pytest.fixture
def newer(powerflex_gateways: dict[str, Gateway]) -> Gateway:
    return renewed(powerflex_gateways["4.5"])


def timed(gateway: Gateway) -> Clock:
    clock = Clock()
    gateway.array.clock = clock
    return clock


def failure(code: int, message: str, status: int = 500) -> Answer:
    return status, {"message": message, "httpStatusCode": status, "errorCode": code}


def refusal(call: Callable[[], object], kind: type[PollyError] = PlatformUnavailable) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert PASSWORD not in str(caught.value), "an error has the password in it"
    return str(caught.value)


# --- logins -----------------------------------------------------------------------------------------


def test_nothing_is_called_before_it_is_needed(gateway: Gateway) -> None:
    array = platform(gateway)

    assert array.capabilities.snapshots
    assert array.settings()
    array.close()
    assert not gateway.calls


def test_one_login_serves_many_calls_and_is_given_back(gateway: Gateway) -> None:
    array = platform(gateway)
    for number in range(5):
        array.create(request(f"volume-{number}"))
    logins = 1 if gateway.array.version < "4" else 2
    assert gateway.calls["login"] == logins, "version 4 is asked who it is with the old login, and then for a token"
    assert len(gateway.sessions) == 1

    array.close()
    assert gateway.sessions == {}
    assert array.find("volume-0"), "one that was closed does not begin again"


def test_a_token_is_renewed_before_it_ends(newer: Gateway) -> None:
    clock = timed(newer)
    array = platform(newer)
    array.pools()
    newer.calls.clear()

    clock.now += 260
    array.pools()
    assert newer.calls["login"] == 0
    clock.now += 20
    array.pools()
    assert newer.calls["login"] == 1, "a token that has 20 s left was used"
    assert newer.calls["logout"] == 1
    assert len(newer.sessions) == 1, "the old session was left open"


def test_a_login_that_nobody_used_for_long_is_renewed(older: Gateway) -> None:
    clock = timed(older)
    array = platform(older)
    array.pools()

    clock.now += 601
    assert array.find("volume") is None
    assert older.calls["login"] == 2


def test_a_login_that_ends_in_the_middle_is_renewed_once(gateway: Gateway) -> None:
    array = platform(gateway)
    made = array.create(request())
    gateway.calls.clear()

    gateway.revoke()
    assert array.attach(made.external_id, NODES[0], epoch=1).serial == made.serial
    assert gateway.calls["login"] == 1
    assert list(gateway.array.volumes[made.external_id].mapped) == [next(iter(gateway.array.sdcs))]


def test_a_session_that_the_array_has_lost_is_renewed(gateway: Gateway) -> None:
    array = platform(gateway)
    array.pools()
    gateway.calls.clear()

    gateway.refuse = [failure(248, "Invalid session. Please login and try again.")]
    assert array.find("volume") is None
    assert gateway.calls["login"] == 1


def test_a_login_that_is_refused_at_once_is_not_tried_for_ever(gateway: Gateway) -> None:
    array = platform(gateway)
    array.pools()
    gateway.calls.clear()

    gateway.refuse = [(401, None), (401, None), (401, None)]
    assert "refuses the login that it has just given" in refusal(lambda: array.find("volume"))
    assert gateway.calls["login"] == 1
    assert gateway.refuse == [(401, None)]
    gateway.refuse.clear()


def test_a_changed_password_is_read_anew(gateway: Gateway) -> None:
    file = password_file(gateway)
    array = platform(gateway)
    array.pools()
    gateway.password = "another one"
    gateway.revoke()
    assert "refuses user polly (HTTP status 401)" in refusal(array.pools)

    file.write_text("another one")
    try:
        assert array.pools()
    finally:
        file.unlink()


def test_a_password_that_cannot_be_read_is_said(gateway: Gateway, tmp_path: Path) -> None:
    missing = str(tmp_path / "password")

    assert f"password_file {missing} cannot be read: No such file" in refusal(platform(gateway, password_file=missing).pools)
    assert "there is no password in the variable" in refusal(platform(gateway, password_file="").pools)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert refusal(platform(gateway, password_file=str(empty)).pools).endswith(f": there is no password in {empty}.")
    assert gateway.calls["login"] == 0


def test_a_gateway_that_is_too_old_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, "2.6") as gateway:
        assert "is of version 2.6, and Polly needs 3.0 or later" in refusal(platform(gateway).pools)


def test_a_login_is_as_patient_as_any_call(gateway: Gateway) -> None:
    gateway.refuse_logins = [(429, None), (503, None)]
    assert platform(gateway).pools()
    assert gateway.refuse_logins == []

    gateway.refuse_logins = [(503, None)] * TRIES
    assert "answers the login with HTTP status 503" in refusal(platform(gateway).pools)


def test_tokens_are_not_shown(gateway: Gateway) -> None:
    session = Session(
        "polly", lambda: PASSWORD, lambda *_, **__: httpx.Response(200, text='"3.6"'), lambda *_, **__: httpx.Response(200), now=Clock()
    )

    assert session.token().text == "3.6"
    assert "3.6" not in repr(session.token())


# --- the wire -----------------------------------------------------------------------------------------


def test_a_gateway_that_nobody_vouches_for_is_not_spoken_to(gateway: Gateway, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))

    for ca_file in ("", str(tmp_path / "other.pem")):
        assert "certificate verify failed" in refusal(platform(gateway, ca_file=ca_file).pools).lower()
    assert f"ca_file {tmp_path / 'none.pem'} cannot be used" in refusal(platform(gateway, ca_file=str(tmp_path / "none.pem")).pools)
    assert not gateway.calls


def test_a_gateway_under_another_name_is_not_spoken_to(gateway: Gateway) -> None:
    port = gateway.url.rpartition(":")[2]

    assert "certificate verify failed" in refusal(platform(gateway, gateway=f"https://localhost:{port}").pools).lower()
    assert not gateway.calls


def test_a_gateway_that_is_away_is_unavailable(gateway: Gateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    assert "got no answer" in refusal(platform(gateway, gateway=f"https://127.0.0.1:{port}").pools)


@pytest.mark.parametrize(
    "answer",
    [(502, b"<html>Bad Gateway</html>"), (500, b""), (200, b"<html>Welcome</html>"), (200, b'[{"id": 7}]'), (200, b"null")],
    ids=["a proxy", "nothing", "a page", "another type", "null"],
)
def test_what_is_not_the_gateways_answer_is_not_believed(newer: Gateway, answer: Answer) -> None:
    array = platform(newer)
    made = array.create(request())

    newer.refuse = [answer]
    assert "answer" in refusal(lambda: array.inspect(made.external_id))
    assert array.inspect(made.external_id) == made


# --- a gateway that is busy -----------------------------------------------------------------------------


def waiting(gateway: Gateway, waited: list[float]) -> Platform:
    return PowerFlexPlatform("array", options(gateway, calls_per_s=1000), now=gateway.array.clock, wait=waited.append)


def test_a_busy_gateway_is_asked_again_after_longer_and_longer(newer: Gateway) -> None:
    timed(newer)
    waited: list[float] = []
    array = waiting(newer, waited)
    array.pools()
    waited.clear()

    newer.refuse = [(503, None), failure(164, "The system is busy. Retry later"), failure(212, "in progress")]
    assert array.find("volume") is None
    assert [wait for wait in waited if wait in (0.25, 0.5, 1.0)] == [0.25, 0.5, 1.0]


def test_a_gateway_that_says_when_to_come_again_is_obeyed(newer: Gateway) -> None:
    waited: list[float] = []
    array = waiting(newer, waited)
    array.pools()

    newer.refuse = [(429, None)]
    assert array.find("volume") is None
    assert waited.count(1.0) == 1, "Retry-After was not heeded"


def test_a_gateway_that_stays_busy_is_unavailable(newer: Gateway) -> None:
    array = platform(newer)
    array.pools()

    newer.refuse = [(429, None)] * (TRIES + 1)
    assert "HTTP status 429" in refusal(lambda: array.find("volume"))
    assert newer.refuse == [(429, None)], f"it was not tried {TRIES} times"
    newer.refuse = [failure(164, "The system is busy. Retry later")] * TRIES
    assert "164: The system is busy" in refusal(lambda: array.find("volume"))


def test_calls_keep_to_their_pace(newer: Gateway) -> None:
    timed(newer)
    waited: list[float] = []
    array = PowerFlexPlatform("array", options(newer, calls_per_s=4), now=newer.array.clock, wait=waited.append)

    for _ in range(3):
        array.find("volume")
    calls = sum(newer.calls.values())
    assert len(waited) == calls - 4, "more than one second's calls were made at once"


# --- rights, and the doctor -------------------------------------------------------------------------------


def test_a_user_without_rights_is_told_so_with_the_arrays_code(gateway: Gateway) -> None:
    array = platform(gateway)
    gateway.may_write = False

    said = refusal(lambda: array.create(request()), PlatformError)
    assert "failed to create a volume: the user lacks the right to (168: You do not have permission" in said


def findings(gateway: Gateway, /, **changed: Any) -> dict[str, str]:
    """What the doctor finds wrong, with what to do about it."""
    found = platform(gateway, **changed).check()
    assert all(one.mend for one in found if not one.ok), "a finding does not say how to mend it"
    return {one.subject: f"{one.message}; {one.mend}" for one in found if not one.ok}


def test_the_doctor_finds_nothing_wrong_where_nothing_is(gateway: Gateway) -> None:
    foreign(gateway)
    before = {key: volume.name for key, volume in gateway.array.volumes.items()}

    found = platform(gateway, pools=(POOL,)).check()
    assert [one.ok for one in found] == [True] * 4
    assert f"version {gateway.array.version} lets us in" in found[0].message
    assert {key: volume.name for key, volume in gateway.array.volumes.items()} == before


def test_the_doctor_names_what_stands_in_the_way(gateway: Gateway, tmp_path: Path) -> None:
    gateway.may_write = False
    gateway.array.sdcs["01f7117d00000002"].approved = False
    gateway.array.domains["fa85edfd00000001"].kind = "EC"
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o644)

    wrong = findings(gateway, pools=("domain1/fast", "domain1/none", "domain2/raw"), password_file=str(tmp_path / "password"))
    assert "others may read" in wrong[str(tmp_path / "password")]
    assert "may not change volumes (168" in wrong["polly"]
    assert "there is no such pool; name pools that there are: domain1/fast, domain1/slow, domain2/raw" in wrong["domain1/none"]
    assert "erasure coding" in wrong["domain2/raw"]
    assert "has not approved" in wrong[NODES[1]]
    assert len(wrong) == 5


def test_the_doctor_says_that_a_pool_shows_old_data(gateway: Gateway) -> None:
    assert "no zero padding" in findings(gateway, pools=("domain2/raw",))["domain2/raw"]
    assert findings(gateway, pools=("domain2/raw",), allow_unpadded=True) == {}


def test_the_doctor_says_that_no_node_has_an_sdc(gateway: Gateway) -> None:
    gateway.array.sdcs.clear()

    assert "no node has an SDC; install the SDC" in findings(gateway)[gateway.url]


def test_the_doctor_says_why_there_is_no_login(gateway: Gateway) -> None:
    gateway.closed = True

    (said,) = findings(gateway).values()
    assert "refuses user polly" in said
    assert "check gateway, ca_file, username and the password" in said


def test_tls_is_new_enough(gateway: Gateway) -> None:
    port = int(gateway.url.rpartition(":")[2])
    trust = ssl.create_default_context(cafile=gateway.ca_file)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, trust.wrap_socket(raw, server_hostname="127.0.0.1") as spoken:
        assert spoken.version() in ("TLSv1.2", "TLSv1.3")
    assert platform(gateway).inspect(ExternalId(foreign(gateway).id)).size_mib == 16384
