"""The driver on a master's bad days."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from framework.mesos.calls import Acceptance
from framework.mesos.channel import Call, CallChannel, Session
from framework.mesos.driver import Driver
from framework.mesos.errors import CallFailed, CallInDoubt, CallRefused, NotConnected
from framework.mesos.events import Disconnected, Errored, Offers, Rescinded, Subscribed
from framework.mesos.leader import parse_address
from tests.fake_master import CLOSE, HANG, FakeMaster, Reply, Request
from tests.support import eventually
from tests.unit.driving import FRAMEWORK, Clock, Heard, driving

OFFERS = {"type": "OFFERS", "offers": {"offers": []}}


def rescind(name: str) -> dict[str, object]:
    return {"type": "RESCIND", "rescind": {"offer_id": {"value": name}}}


def kinds(outcomes: list[CallFailed | None]) -> list[str]:
    return [type(outcome).__name__ if outcome else "taken" for outcome in outcomes]


def test_events_come_in_their_order() -> None:
    with FakeMaster() as master, driving(master.address) as (_, heard):
        names = [f"o{number}" for number in range(200)]
        for name in names:
            master.subscription().send(rescind(name))
        heard.wait(Rescinded, 200)
        assert [event.offer_id for event in heard.of(Rescinded)] == names
        assert isinstance(heard.events[0], Subscribed)


def test_a_call_can_be_made_from_the_sink_as_soon_as_it_hears_of_the_subscription() -> None:
    with FakeMaster() as master:
        made: list[Driver] = []
        done = threading.Event()

        def sink(event: object) -> None:
            if isinstance(event, Subscribed):
                made[0].revive()
                done.set()

        driver = Driver(master=master.address, framework=FRAMEWORK, sink=sink)
        made.append(driver)
        driver.start()
        assert done.wait(10)
        driver.stop()
        assert master.kinds() == ["REVIVE"]


def test_after_a_lost_connection_the_framework_takes_up_its_id() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        assert heard.wait(Subscribed).framework_id == "framework-1"
        master.subscription().end()
        assert "closed the connection" in heard.wait(Disconnected).reason
        heard.wait(Subscribed, 2)
        again = master.subscription(2).request.call
        assert again["framework_id"] == again["subscribe"]["framework_info"]["id"] == {"value": "framework-1"}
        assert driver.framework_id == "framework-1"
        driver.revive()
        assert master.requests[-1].headers["mesos-stream-id"] == "stream-2"


def test_an_earlier_lifes_id_is_taken_up() -> None:
    with FakeMaster() as master, driving(master.address, framework=FRAMEWORK | {"id": {"value": "old"}}) as (driver, heard):
        assert heard.wait(Subscribed).framework_id == "old"
        assert master.subscription().request.call["framework_id"] == {"value": "old"}
        assert driver.framework_id == "old"


def test_a_principal_is_named_in_the_framework() -> None:
    with FakeMaster() as master, driving(master.address, principal="me") as (_, heard):
        heard.wait(Subscribed)
        assert master.subscription().request.call["subscribe"]["framework_info"]["principal"] == "me"


def test_a_master_that_is_not_ready_is_asked_again_and_said_once() -> None:
    with FakeMaster() as master:
        master.refusals = [(503, {}, b"recovering")] * 3
        with driving(master.address) as (_, heard):
            heard.wait(Subscribed)
            assert master.attempts == 4
            assert [event.reason for event in heard.of(Disconnected)] == [
                f"{master.address}: the master is not ready (HTTP 503: recovering)"
            ]


@pytest.mark.parametrize("form", ["//{}/api/v1/scheduler", "http://{}/api/v1/scheduler", "{}"])
def test_a_redirect_is_followed_to_the_leader(form: str) -> None:
    with FakeMaster() as follower, FakeMaster() as leader:
        follower.refusals = [(307, {"Location": form.format(leader.address)}, b"")]
        with driving(follower.address) as (driver, heard):
            heard.wait(Subscribed)
            driver.revive()
            assert leader.kinds() == ["REVIVE"]
            assert driver.master == leader.address
            assert heard.of(Disconnected) == []


def test_when_the_leader_dies_the_configured_master_is_asked_again() -> None:
    with FakeMaster() as follower, FakeMaster() as leader:
        follower.refusals = [(307, {"Location": f"//{leader.address}"}, b"")]
        with driving(follower.address) as (driver, heard):
            heard.wait(Subscribed)
            leader.close()
            heard.wait(Subscribed, 2)
            assert driver.master == follower.address


def test_masters_that_redirect_in_a_circle_are_left_to_back_off() -> None:
    clock = Clock()
    with FakeMaster() as master:
        master.refusals = [(307, {"Location": f"//{master.address}"}, b"")] * 50
        with driving(master.address, clock=clock, rng=None) as (_, heard):
            assert "in a circle" in heard.wait(Disconnected).reason
            assert master.attempts == 4


def test_a_redirect_to_nowhere_is_a_reason() -> None:
    with FakeMaster() as master:
        master.refusals = [(307, {}, b"")]
        with driving(master.address) as (_, heard):
            assert "redirects to no readable address" in heard.wait(Disconnected).reason
            heard.wait(Subscribed)


@pytest.mark.parametrize("garbage", [b"what?\n{}", b"\n", b"99999999999\n"])
def test_a_stream_that_lost_its_records_is_taken_up_anew(garbage: bytes) -> None:
    with FakeMaster() as master, driving(master.address) as (_, heard):
        heard.wait(Subscribed)
        master.subscription().send_bytes(garbage)
        assert "should begin with its length" in heard.wait(Disconnected).reason
        heard.wait(Subscribed, 2)


def test_an_event_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with FakeMaster() as master, driving(master.address) as (_, heard):
        for record in (b"", b"{", b'{"type":"UPDATE"}', b"\xff", b'{"type":"OFFERS","offers":'):
            master.subscription().send_record(record)
        master.subscription().send(OFFERS)
        heard.wait(Offers)
        assert master.attempts == 1
    assert caplog.text.count("was left out") == 5


def test_an_answer_that_is_no_http_is_a_reason() -> None:
    with FakeMaster() as master, driving(master.address) as (_, heard):
        heard.wait(Subscribed)
        master.subscription().connection.sendall(b"zz\r\n\r\n")
        assert "is not HTTP" in heard.wait(Disconnected).reason
        heard.wait(Subscribed, 2)


def test_an_answer_of_another_server_is_a_reason() -> None:
    with FakeMaster() as master:
        master.refusals = [(200, {}, b"<html>")]
        with driving(master.address) as (driver, heard):
            assert "no Mesos master" in (reason := heard.wait(Disconnected).reason)
            assert driver.away in ("", reason)
            heard.wait(Subscribed)
            assert driver.away == ""


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "authentication failed"), (403, "authentication or authorization failed"), (400, "does not accept the registration")],
)
def test_a_refused_registration_is_an_error_and_the_end(status: int, words: str) -> None:
    with FakeMaster() as master:
        master.refusals = [(status, {}, b"Because.")] * 5
        with driving(master.address) as (driver, heard):
            message = heard.wait(Errored).message
            assert words in message
            assert f"HTTP {status}: Because." in message
            with pytest.raises(NotConnected, match=words):
                driver.revive()
        assert master.attempts == 1


def test_a_refusal_without_a_length_is_read_to_its_end() -> None:
    with FakeMaster() as master:
        master.refusals = [(401, {"Connection": "close"}, b"Because.")]
        with driving(master.address) as (_, heard):
            assert "HTTP 401: Because." in heard.wait(Errored).message


def test_a_framework_that_was_removed_is_an_error_and_the_end() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        records = [json.dumps(event).encode() for event in ({"type": "ERROR", "error": {"message": "Framework has been removed"}}, OFFERS)]
        master.subscription().send_bytes(b"".join(b"%d\n%b" % (len(record), record) for record in records))
        assert heard.wait(Errored).message == "Framework has been removed"
        assert master.subscription().ended.wait(10)
        assert not driver.connected
        assert heard.events[-1] == Errored(message="Framework has been removed")
        assert master.attempts == 1


def test_a_master_that_cannot_be_reached_is_said_once() -> None:
    with FakeMaster() as gone:
        address = gone.address
    with driving(address) as (driver, heard):
        assert heard.wait(Disconnected).reason == f"{address}: Connection refused"
        eventually(lambda: driver._subscription._failures > 3, what="more attempts")
        assert len(heard.events) == 1


def test_the_wait_before_connecting_again_grows_to_its_bound() -> None:
    with FakeMaster() as gone:
        address = gone.address
    clock = Clock()
    driver = Driver(master=address, framework=FRAMEWORK, sink=Heard(), clock=clock)
    waits: list[float] = []
    driver.start()
    for failures in range(1, 9):
        # a default of a lambda
        eventually(lambda wanted=failures: driver._subscription._failures == wanted, what="an attempt fails")  # type: ignore[misc]
        waits.append(driver._subscription._retry_at - clock.now)
        clock.now = driver._subscription._retry_at
    driver.stop()
    full = [min(15.0, 0.25 * 2**number) for number in range(8)]
    assert all(at_most / 2 <= wait <= at_most for wait, at_most in zip(waits, full, strict=True))
    assert len(set(waits)) == len(waits)


def test_a_stop_ends_a_call_that_hangs_and_tells_no_event_more() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        master.answer = lambda _: HANG
        failures: list[Exception] = []

        def call() -> None:
            with pytest.raises(CallInDoubt, match="the connection was closed") as caught:
                driver.kill("t")
            failures.append(caught.value)

        caller = threading.Thread(target=call)
        caller.start()
        eventually(master.kinds, what="the call is under way")
        began = time.monotonic()
        driver.stop()
        assert time.monotonic() - began < 1
        caller.join(10)
        assert len(failures) == 1
        assert [type(event) for event in heard.events] == [Subscribed]
        with pytest.raises(NotConnected, match="was stopped"):
            driver.kill("t")


def test_a_lost_subscription_ends_a_call_that_hangs() -> None:
    with FakeMaster() as master, driving(master.address, call_timeout_s=60.0) as (driver, heard):
        heard.wait(Subscribed)

        def lose(_: Request) -> Reply | None:
            master.subscription().end()
            return HANG

        master.answer = lose
        with pytest.raises(CallInDoubt, match="the connection was closed"):
            driver.kill("t")
        heard.wait(Disconnected)


@pytest.mark.parametrize("failover", [True, False])
def test_only_a_stop_that_says_so_tears_the_framework_down(failover: bool) -> None:
    with FakeMaster() as master:
        driver = Driver(master=master.address, framework=FRAMEWORK, sink=(heard := Heard()))
        driver.start()
        heard.wait(Subscribed)
        driver.stop(failover=failover)
        assert master.subscription().ended.wait(10)
        assert master.kinds() == ([] if failover else ["TEARDOWN"])


def test_a_teardown_that_did_not_happen_is_said() -> None:
    driver = Driver(master="127.0.0.1:1", framework=FRAMEWORK, sink=Heard())
    driver.start()
    with pytest.raises(NotConnected, match="TEARDOWN"):
        driver.stop(failover=False)


def test_what_a_teardown_brings_about_is_not_told() -> None:
    with FakeMaster() as master:
        driver = Driver(master=master.address, framework=FRAMEWORK, sink=(heard := Heard()))
        driver.start()
        heard.wait(Subscribed)

        def end(_: Request) -> Reply:
            master.subscription().end()
            assert master.subscription().ended.wait(10)
            return (202, b"")

        master.answer = end
        driver.stop(failover=False)
        assert [type(event) for event in heard.events] == [Subscribed]


def test_a_new_leader_is_asked_at_once_whatever_the_wait() -> None:
    with FakeMaster() as gone:
        address = gone.address
    with FakeMaster() as leader, driving(address, clock=Clock(), rng=None) as (driver, heard):
        heard.wait(Disconnected)
        driver._subscription.lead(parse_address(leader.address))
        heard.wait(Subscribed)


def test_a_subscription_makes_the_next_wait_short_again() -> None:
    with FakeMaster() as master:
        master.refusals = [(503, {}, b"")] * 6
        with driving(master.address) as (driver, heard):
            heard.wait(Subscribed)
            assert master.attempts == 7
            assert driver._subscription._failures == 0


def test_a_late_answer_is_not_taken_for_that_of_the_next_call() -> None:
    with FakeMaster() as master, driving(master.address, call_timeout_s=0.3) as (driver, heard):
        heard.wait(Subscribed)
        release = threading.Event()

        def answer(request: Request) -> Reply:
            if request.kind == "REVIVE":
                release.set()
                return (202, b"")
            release.wait(10)
            return (400, b"too late")

        master.answer = answer
        with pytest.raises(CallInDoubt):
            driver.kill("t")
        driver.revive()
        assert release.is_set()


def test_a_refused_call_says_what_the_master_said() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        master.answer = lambda _: (403, b"not yours")
        with pytest.raises(CallRefused, match="KILL with HTTP 403: not yours"):
            driver.kill("t")
        master.answer = lambda _: (200, b"")
        driver.kill("t")


@pytest.mark.parametrize("status", [203, 408, 500, 502, 504, 524])
def test_what_a_gateway_does_not_know_the_end_of_is_in_doubt(status: int) -> None:
    """It may have reached the master all the same: a launch is not ruled out by it."""
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        master.answer = lambda _: (status, b"upstream timed out")
        assert kinds(driver.accept_many(acceptances(1), refuse_s=1)) == ["CallInDoubt"]


@pytest.mark.parametrize(
    ("before", "outcome"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", "taken"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "CallInDoubt"),
    ],
)
def test_what_comes_before_an_answer_is_none(before: bytes, outcome: str) -> None:
    accepted = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        session = Session(address=parse_address(f"127.0.0.1:{server.getsockname()[1]}"), stream_id="s", framework_id="f")
        channel = CallChannel(session, timeout_s=10.0)

        def answer() -> None:
            with server.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(before + accepted)

        threading.Thread(target=answer, daemon=True).start()
        assert kinds(channel.send([Call(name="ACCEPT", body=b"{}")])) == [outcome]
        channel.abort()


def acceptances(number: int) -> list[Acceptance]:
    return [Acceptance(offer_ids=[f"o{index}"], operations=[]) for index in range(number)]


def test_many_calls_share_a_connection_and_each_has_its_own_outcome() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        refused = {"o3", "o200"}

        def answer(request: Request) -> Reply:
            return (400, b"no such offer") if request.call["accept"]["offer_ids"][0]["value"] in refused else (202, b"")

        master.answer = answer
        outcomes = driver.accept_many(acceptances(300), refuse_s=1)
        assert [index for index, outcome in enumerate(outcomes) if outcome] == [3, 200]
        assert isinstance(outcomes[3], CallRefused)
        assert [request.call["accept"]["offer_ids"][0]["value"] for request in master.requests] == [f"o{index}" for index in range(300)]


def test_when_a_connection_breaks_the_unanswered_calls_are_in_doubt_and_none_is_sent_twice() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        master.answer = lambda _: (202, b"") if len(master.requests) <= 5 else CLOSE
        outcomes = driver.accept_many(acceptances(128), refuse_s=1)
        assert kinds(outcomes) == ["taken"] * 5 + ["CallInDoubt"] * 123
        assert len(master.requests) == 6
        master.answer = lambda _: (202, b"")
        assert kinds(driver.accept_many(acceptances(2), refuse_s=1)) == ["taken"] * 2


def test_calls_that_found_no_connection_were_not_sent() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        master._listener.close()
        eventually(lambda: _refuses(master.address), what="nobody listens")
        outcomes = driver.accept_many(acceptances(200), refuse_s=1)
        assert kinds(outcomes) == ["NotConnected"] * 200
        assert master.requests == []


def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_idle_connection_that_the_master_closed_is_replaced_before_a_call_is_made() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        driver.revive()
        calls = next(connection for connection in master._open if connection is not master.subscription().connection)
        calls.shutdown(socket.SHUT_RDWR)
        driver.revive()
        assert master.kinds() == ["REVIVE", "REVIVE"]


def test_acknowledgements_that_failed_are_said_after_all_were_sent() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        master.answer = lambda request: (400, b"bad") if request.call["acknowledge"]["task_id"]["value"] == "t1" else (202, b"")
        with pytest.raises(CallRefused, match="ACKNOWLEDGE"):
            driver.acknowledge_many([("a", f"t{number}", "u") for number in range(5)])
        assert len(master.requests) == 5
        driver.acknowledge_many([])
