"""What pymesos 0.3.15 gets wrong for a scheduler: one test for each defect, named by its number in the list of what is known of it.

Numbers 6, 12, 16 and 17 are in test_driver_parts.py too; 8, 10 and 11 are the executor's, 14 the operator API's.
"""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framework.mesos.driver import Driver
from framework.mesos.errors import CallInDoubt, CallRefused, NotConnected
from framework.mesos.events import Disconnected, Event, Offers, Subscribed, Updated
from tests.fake_master import HANG, FakeMaster
from tests.support import eventually
from tests.unit.driving import FRAMEWORK, Clock, Heard, connected, driving

UPDATE = {
    "type": "UPDATE",
    "update": {"status": {"task_id": {"value": "t"}, "agent_id": {"value": "a"}, "state": "TASK_RUNNING", "uuid": "YWJj"}},
}


def offers_event(name: str) -> dict[str, Any]:
    return {"type": "OFFERS", "offers": {"offers": [{"id": {"value": name}}]}}


def test_defect_1_an_exception_in_the_sink_neither_tears_down_nor_ends_the_driver(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def sink(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("a bug of the broker")

    with FakeMaster() as master:
        with driving(master.address, sink):
            subscription = master.subscription()
            for name in ("o1", "o2"):
                subscription.send(offers_event(name))
            eventually(lambda: len(heard) == 3, what="all events came")
            assert not subscription.ended.is_set()
        eventually(subscription.ended.is_set, what="the driver went away")
        assert master.kinds() == []
    assert "a bug of the broker" in caplog.text


def test_defect_1_a_failure_within_the_driver_starts_it_over_without_a_teardown(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        monkeypatch.setattr("framework.mesos.driver.decode", lambda _: 1 / 0)
        master.subscription().send(offers_event("o1"))
        assert "ZeroDivisionError" in heard.wait(Disconnected).reason
        monkeypatch.undo()
        heard.wait(Subscribed, 2)
        assert driver.connected
        assert master.kinds() == []


def test_defect_2_nothing_is_acknowledged_unless_asked() -> None:
    operation = {
        "type": "UPDATE_OPERATION_STATUS",
        "update_operation_status": {"status": {"operation_id": {"value": "x"}, "uuid": {"value": "YQ=="}}},
    }
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        master.subscription().send(operation)
        master.subscription().send(UPDATE)
        status = heard.wait(Updated).status
        driver.revive()
        assert master.kinds() == ["REVIVE"]
        driver.acknowledge("a", status.task_id, status.uuid or "")
        assert master.requests[-1].call["acknowledge"] == {"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": "YWJj"}


def test_defect_3_a_hung_call_ends_and_the_next_goes_through() -> None:
    with FakeMaster() as master, driving(master.address, call_timeout_s=0.3) as (driver, heard):
        heard.wait(Subscribed)
        master.answer = lambda _: HANG
        with pytest.raises(CallInDoubt, match=r"no answer within 0\.3 s"):
            driver.kill("t")
        master.answer = lambda _: (202, b"")
        driver.kill("t")
        assert master.kinds() == ["KILL", "KILL"]


def test_defect_4_a_silent_connection_is_given_up_after_three_heartbeats() -> None:
    clock = Clock()
    with FakeMaster(heartbeat_s=10) as master, driving(master.address, clock=clock) as (_, heard):
        first = master.subscription()
        heard.wait(Subscribed)
        clock.now += 29
        first.send(offers_event("o1"))
        heard.wait(Offers)
        clock.now += 29
        assert not first.ended.wait(1.2)
        clock.now += 2
        assert "nothing was heard of the master for 30 s" in heard.wait(Disconnected).reason
        assert first.ended.wait(10)
        clock.now += 1
        heard.wait(Subscribed, 2)


def test_defect_4_a_heartbeat_keeps_the_connection() -> None:
    clock = Clock()
    with FakeMaster(heartbeat_s=10) as master, driving(master.address, clock=clock) as (_, heard):
        heard.wait(Subscribed)
        for number in range(1, 4):
            clock.now += 25
            master.subscription().send({"type": "HEARTBEAT"})
            master.subscription().send(offers_event("after the heartbeat"))
            heard.wait(Offers, number)
        assert master.attempts == 1
        assert heard.of(Disconnected) == []


def test_defect_4_a_master_that_never_answers_is_given_up() -> None:
    clock = Clock()
    with FakeMaster() as master:
        master.greet = False
        with driving(master.address, clock=clock) as (driver, heard):
            master.subscription()
            assert not driver.connected
            clock.now += 46
            assert "nothing was heard" in heard.wait(Disconnected).reason


def test_defect_5_one_drivers_credentials_never_reach_another_master() -> None:
    with FakeMaster() as mine, FakeMaster() as other:
        with driving(mine.address, principal="me", secret="hush") as (driver, _), driving(other.address) as (another, _):
            for it in (driver, another):
                connected(it)
                it.revive()
        assert mine.subscription().request.headers["authorization"] == mine.requests[0].headers["authorization"] == "Basic bWU6aHVzaA=="
        assert "authorization" not in other.subscription().request.headers
        assert "authorization" not in other.requests[0].headers


def test_defect_6_a_release_candidate_is_a_version() -> None:
    with FakeMaster() as master:
        master.version = "1.12.0-rc1"
        with driving(master.address) as (driver, heard):
            heard.wait(Subscribed)
            master.subscription().send(offers_event("o1"))
            heard.wait(Offers)
            assert driver.master_version == (1, 12, 0)


def test_defect_7_the_framework_registers_as_what_it_is() -> None:
    with FakeMaster() as master, driving(master.address):
        assert master.subscription().request.call["subscribe"]["framework_info"] == FRAMEWORK
        assert "framework_id" not in master.subscription().request.call


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)


def test_defect_9_a_first_import_outside_the_main_thread_says_what_to_do() -> None:
    threaded = """
import threading
def load():
    try:
        import framework.mesos.driver
    except ImportError as error:
        print(error)
thread = threading.Thread(target=load); thread.start(); thread.join()
"""
    assert "must first be imported in the main thread" in python(threaded).stdout
    assert python(f"import framework.mesos.driver{threaded}print('fine')").stdout == "fine\n"


def test_defect_9_an_import_leaves_signals_and_logging_as_they_were() -> None:
    done = python(
        "import signal, logging\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "import framework.mesos.driver\n"
        "print(signal.getsignal(signal.SIGINT) is before, logging.getLogger('pymesos').handlers)"
    )
    assert done.stdout == "True []\n", done.stderr


CALLS: list[Callable[[Driver], object]] = [
    lambda driver: driver.accept(["o"], [{"type": "LAUNCH"}], refuse_s=1),
    lambda driver: driver.decline(["o"], refuse_s=1),
    lambda driver: driver.revive(),
    lambda driver: driver.suppress(),
    lambda driver: driver.acknowledge("a", "t", "u"),
    lambda driver: driver.reconcile([("t", "a")]),
    lambda driver: driver.kill("t", "a"),
    lambda driver: driver.message("a", "e", b"hi"),
    lambda driver: driver.shutdown_executor("e", "a"),
]


def test_defect_12_a_reconciliation_reaches_the_master_with_its_agents() -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        driver.reconcile([("t1", "a1")])
        assert master.requests[0].call["reconcile"]["tasks"] == [{"task_id": {"value": "t1"}, "agent_id": {"value": "a1"}}]


@pytest.mark.parametrize("call", CALLS)
def test_defect_13_a_call_without_a_subscription_raises(call: Callable[[Driver], object]) -> None:
    with FakeMaster() as master:
        master.greet = False
        with driving(master.address) as (driver, _):
            master.subscription()
            with pytest.raises(NotConnected, match="there is no subscription yet"):
                call(driver)
        assert master.requests == []


@pytest.mark.parametrize("call", CALLS)
def test_defect_13_a_call_returns_only_when_the_master_took_it(call: Callable[[Driver], object]) -> None:
    with FakeMaster() as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        call(driver)
        assert len(master.requests) == 1
        assert master.requests[0].headers["mesos-stream-id"] == "stream-1"
        assert master.requests[0].call["framework_id"] == {"value": "framework-1"}


def test_defect_13_many_launches_without_a_subscription_are_each_said_to_be_unsent() -> None:
    driver = Driver(master="127.0.0.1:1", framework=FRAMEWORK, sink=lambda _: None)
    outcomes = driver.accept_many([], refuse_s=1)
    assert outcomes == []
    with pytest.raises(NotConnected, match="was not started"):
        driver.revive()


def test_defect_15_ipv6() -> None:
    with FakeMaster(host="::1") as master, driving(master.address) as (driver, heard):
        heard.wait(Subscribed)
        driver.revive()
        assert master.kinds() == ["REVIVE"]
        assert master.requests[0].headers["host"] == master.subscription().request.headers["host"] == driver.master == master.address


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=polly test", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def test_defect_15_tls(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    large = offers_event("o" * 3_000_000)
    with FakeMaster(tls=server) as master:
        trusting = ssl.create_default_context(cafile=str(certificate))
        with driving(f"https://{master.address}", tls=trusting) as (driver, heard):
            heard.wait(Subscribed)
            master.subscription().send(large)
            assert len(heard.wait(Offers).data) > 3_000_000
            for _ in range(3):
                driver.revive()
            assert master.kinds() == ["REVIVE"] * 3
        with driving(f"https://{master.address}", principal="me", secret="hush") as (_, heard):
            assert "certificate verify failed" in heard.wait(Disconnected).reason
            assert master.attempts == 1


def test_defect_15_waiting_to_connect_again_does_not_hold_up_a_stop() -> None:
    with FakeMaster() as master:
        address = master.address
    driver = Driver(master=address, framework=FRAMEWORK, sink=(heard := Heard()), clock=Clock())
    driver.start()
    heard.wait(Disconnected)
    began = time.monotonic()
    driver.stop()
    assert time.monotonic() - began < 1


def test_defect_17_events_are_not_wrapped() -> None:
    with FakeMaster() as master, driving(master.address) as (_, heard):
        heard.wait(Subscribed)
        record = b'{"offers": {"offers":\n []},   "type":"OFFERS"}'
        master.subscription().send_record(record)
        assert heard.wait(Offers).data == record


def test_a_secret_is_in_no_log_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeMaster() as master:
        master.refusals = [(503, {}, b"later"), (307, {"Location": f"//{master.address}/"}, b"")]
        with driving(master.address, principal="me", secret="hush") as (driver, heard):
            heard.wait(Subscribed)
            master.answer = lambda _: (401, b"no")
            with pytest.raises(CallRefused) as caught:
                driver.revive()
            assert driver._channel
            shown = f"{caplog.text} {vars(driver)} {driver._channel.session!r} {caught.value!r}"
    assert "REVIVE" in shown
    assert "hush" not in shown
    assert "bWU6aHVzaA" not in shown
