"""The executor's driver against an agent of our own making. Defects are numbered as in the project's list of pymesos' defects."""

from __future__ import annotations

import base64
import json
import logging
import queue
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from executors.agent import AgentEvent, KillAsked, LaunchAsked, MessageCame, ShutdownAsked, Subscribed, Surroundings, read_surroundings
from executors.driver import ExecutorDriver
from storage.errors import Invalid
from tests.fake_agent import FakeAgent
from tests.support import eventually

Event = TypeVar("Event")


class Driven:
    """A driver, and what came to its inbox."""

    def __init__(self, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
        environment = agent.environment | variables
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        self.events: queue.SimpleQueue[AgentEvent] = queue.SimpleQueue()
        self.driver = ExecutorDriver(read_surroundings(environment | {"MESOS_SANDBOX": "/sandbox"}), self.events.put, jitter=lambda: 0.0)

    def next(self, kind: type[Event]) -> Event:
        event = self.events.get(timeout=10)
        assert isinstance(event, kind), event
        return event

    def start(self) -> Driven:
        self.driver.start()
        return self

    def subscribe(self) -> Driven:
        self.start().next(Subscribed)
        return self

    def quiet(self) -> bool:
        return self.events.empty()


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    with FakeAgent() as agent:
        yield agent


@pytest.fixture
def driven(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driven]:
    yield from _driven(agent, monkeypatch)


def _driven(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[Driven]:
    driven = Driven(agent, monkeypatch, **variables)
    yield driven
    driven.driver.stop()
    agent.stop()
    driven.driver.join()


def uuids(updates: list[dict[str, Any]]) -> list[str]:
    return [update["status"]["uuid"] for update in updates]


# --- the subscription


def test_it_subscribes_and_says_what_the_agent_is(agent: FakeAgent, driven: Driven) -> None:
    driven.start()
    assert driven.next(Subscribed) == Subscribed(hostname="node-1", capabilities=frozenset({"TASK_KILLING_STATE"}))
    call = agent.heard("SUBSCRIBE")[0].body
    assert call["executor_id"] == {"value": "executor-1"}
    assert call["framework_id"] == {"value": "framework-1"}
    assert call["subscribe"] == {"unacknowledged_tasks": [], "unacknowledged_updates": []}


def test_launch_kill_message_and_shutdown_come_to_the_inbox(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    agent.launch("task-1", b"what to run")
    launched = driven.next(LaunchAsked)
    assert (launched.task_id, launched.data) == ("task-1", b"what to run")
    agent.message(b"words")
    assert driven.next(MessageCame) == MessageCame(data=b"words")
    agent.shutdown()
    assert driven.next(ShutdownAsked) == ShutdownAsked(reason="the agent shuts this executor down")


def test_a_group_comes_as_its_tasks(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    tasks = [{"task_id": {"value": name}} for name in ("a", "b")]
    agent.send({"type": "LAUNCH_GROUP", "launch_group": {"task_group": {"tasks": tasks}}})
    assert [driven.next(LaunchAsked).task_id for _ in tasks] == ["a", "b"]


def test_an_error_of_the_agent_ends_the_executor(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    agent.send({"type": "ERROR", "error": {"message": "no good"}})
    assert driven.next(ShutdownAsked).reason == "the agent reports an error: no good"


@pytest.mark.parametrize("status", [503, 404])
def test_an_agent_that_is_not_ready_is_asked_again(agent: FakeAgent, driven: Driven, status: int) -> None:
    agent.subscribe_statuses = [status] * 5
    driven.subscribe()
    assert len(agent.heard("SUBSCRIBE")) == 6


def test_an_agent_that_refuses_three_times_means_it(agent: FakeAgent, driven: Driven) -> None:
    agent.subscribe_statuses = [400] * 3
    driven.start()
    assert driven.next(ShutdownAsked).reason == "the agent refuses this executor"
    assert len(agent.heard("SUBSCRIBE")) == 3


def test_events_in_any_pieces_are_read_whole(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    text = json.dumps({"type": "MESSAGE", "message": {"data": base64.b64encode("grüße".encode()).decode()}}).encode()
    for byte in b"%d\n%b" % (len(text), text):
        agent.send_bytes(bytes([byte]))
    assert driven.next(MessageCame).data == "grüße".encode()


def test_defect_16_a_large_event_is_read_at_once(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    data = bytes(8 << 20)
    agent.message(data)
    assert driven.next(MessageCame).data == data


@pytest.mark.parametrize("junk", [b"x\n", b"99999999999999\n{}", b"3\n{]}"])
def test_a_stream_that_is_no_recordio_is_left_and_taken_up_anew(agent: FakeAgent, driven: Driven, junk: bytes) -> None:
    driven.subscribe()
    agent.send_bytes(junk)
    driven.next(Subscribed)


# --- updates


def test_an_update_is_delivered_and_acknowledged(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    driven.driver.update("task-1", "TASK_RUNNING", message="running", data=b"\0data")
    assert driven.driver.wait_acknowledged(10)
    (status,) = agent.statuses
    assert (status["state"], status["message"], status["source"]) == ("TASK_RUNNING", "running", "SOURCE_EXECUTOR")
    assert base64.b64decode(status["data"]) == b"\0data"
    assert len(base64.b64decode(status["uuid"])) == 16


def test_waiting_for_an_acknowledgement_is_bounded(agent: FakeAgent, driven: Driven) -> None:
    agent.acknowledge = False
    driven.subscribe()
    driven.driver.update("task-1", "TASK_RUNNING")
    assert not driven.driver.wait_acknowledged(0.05)


def test_defect_10_unacknowledged_updates_go_with_every_subscribe_in_order(agent: FakeAgent, driven: Driven) -> None:
    agent.acknowledge = False
    driven.subscribe()
    agent.launch("task-1")
    driven.next(LaunchAsked)
    for state in ("TASK_STARTING", "TASK_RUNNING"):
        driven.driver.update("task-1", state)
    first = agent.statuses
    agent.stop()
    agent.start()
    driven.next(Subscribed)
    again = agent.heard("SUBSCRIBE")[-1].body["subscribe"]
    assert uuids(again["unacknowledged_updates"]) == [status["uuid"] for status in first]
    assert [task["task_id"]["value"] for task in again["unacknowledged_tasks"]] == ["task-1"]
    assert len(agent.statuses) == 2
    for status in first:
        agent.acknowledge_update(status)
    assert driven.driver.wait_acknowledged(10)
    agent.stop()
    agent.start()
    driven.next(Subscribed)
    last = agent.heard("SUBSCRIBE")[-1].body["subscribe"]
    assert last == {"unacknowledged_tasks": [], "unacknowledged_updates": []}


def test_defect_13_an_update_while_the_agent_is_away_is_kept(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    agent.stop()
    driven.driver.update("task-1", "TASK_FINISHED")
    agent.start()
    driven.next(Subscribed)
    carried = agent.heard("SUBSCRIBE")[-1].body["subscribe"]["unacknowledged_updates"]
    called = [status["uuid"] for status in agent.statuses]
    assert len(uuids(carried)) + len(called) == 1


def test_an_update_before_the_first_subscription_is_kept(agent: FakeAgent, driven: Driven) -> None:
    driven.driver.update("task-1", "TASK_STARTING")
    driven.start()
    driven.next(Subscribed)
    assert [update["status"]["state"] for update in agent.heard("SUBSCRIBE")[0].body["subscribe"]["unacknowledged_updates"]] == [
        "TASK_STARTING"
    ]


def test_a_call_that_fails_breaks_the_subscription_and_nothing_is_lost(agent: FakeAgent, driven: Driven) -> None:
    agent.update_statuses = [500, 500]
    agent.acknowledge = False
    driven.subscribe()
    driven.driver.update("task-1", "TASK_RUNNING")
    driven.next(Subscribed)
    carried = agent.heard("SUBSCRIBE")[-1].body["subscribe"]["unacknowledged_updates"]
    assert [update["status"]["state"] for update in carried] == ["TASK_RUNNING"]


def test_a_call_that_fails_once_is_only_repeated(agent: FakeAgent, driven: Driven) -> None:
    agent.update_statuses = [500]
    driven.subscribe()
    driven.driver.update("task-1", "TASK_RUNNING")
    assert driven.driver.wait_acknowledged(10)
    assert len(agent.heard("SUBSCRIBE")) == 1


# --- pymesos' defects


def test_defect_3_calls_and_subscriptions_have_timeouts_of_seconds(
    agent: FakeAgent, driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executors.driver.CALL_TIMEOUT_S", 0.2)
    agent.silent = True
    driven.start()
    eventually(lambda: len(agent.heard("SUBSCRIBE")) >= 2, what="a second try at an agent that says nothing")
    agent.silent = False
    driven.next(Subscribed)


def test_defect_5_no_header_of_one_driver_reaches_another(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Driven(agent, monkeypatch, MESOS_EXECUTOR_AUTHENTICATION_TOKEN="token-1").subscribe()
    secret.driver.update("task-1", "TASK_RUNNING")
    assert secret.driver.wait_acknowledged(10)
    plain = Driven(agent, monkeypatch)
    monkeypatch.delenv("MESOS_EXECUTOR_AUTHENTICATION_TOKEN")
    plain = Driven(agent, monkeypatch).subscribe()
    plain.driver.update("task-2", "TASK_RUNNING")
    assert plain.driver.wait_acknowledged(10)
    said = [(call.kind, call.headers.get("Authorization")) for call in agent.calls]
    assert said == [("SUBSCRIBE", "Bearer token-1"), ("UPDATE", "Bearer token-1"), ("SUBSCRIBE", None), ("UPDATE", None)]
    for driven in (secret, plain):
        driven.driver.stop()
        driven.driver.join()


@pytest.mark.parametrize(("value", "checkpoint"), [("1", True), ("true", True), ("0", False), ("false", False), ("", False)])
def test_defect_8_mesos_checkpoint_is_read_by_its_value(value: str, checkpoint: bool) -> None:
    environment = FakeAgent().environment | {"MESOS_CHECKPOINT": value, "MESOS_SANDBOX": "/sandbox"}
    assert read_surroundings(environment).checkpoint is checkpoint


def test_defect_9_sigint_stays_with_the_program() -> None:
    program = (
        "import signal; before = signal.getsignal(signal.SIGINT); import executors.driver; print(signal.getsignal(signal.SIGINT) is before)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip() == "True"


def test_defect_11_a_launch_sent_twice_is_one_launch(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    agent.launch("task-1")
    agent.launch("task-1")
    agent.launch("task-2")
    assert [driven.next(LaunchAsked).task_id for _ in range(2)] == ["task-1", "task-2"]


def test_defect_11_a_launch_sent_again_after_its_acknowledgement_is_still_one(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    agent.launch("task-1")
    driven.next(LaunchAsked)
    driven.driver.update("task-1", "TASK_RUNNING")
    assert driven.driver.wait_acknowledged(10)
    agent.launch("task-1")
    agent.message(b"after it")
    driven.next(MessageCame)


@pytest.mark.parametrize("grace_s", [None, 0.0, 2.5])
def test_defect_11_a_kill_brings_its_policy(agent: FakeAgent, driven: Driven, grace_s: float | None) -> None:
    driven.subscribe()
    agent.kill("task-1", grace_s)
    assert driven.next(KillAsked) == KillAsked(task_id="task-1", grace_s=grace_s)


def test_defect_15_an_ipv6_address_is_understood(monkeypatch: pytest.MonkeyPatch, agent: FakeAgent) -> None:
    driver = Driven(agent, monkeypatch, MESOS_AGENT_ENDPOINT="[::1]:5051").driver
    connection = driver._new_connection()
    assert (connection.host, connection.port) == ("::1", 5051)


def test_no_event_ends_the_driver(agent: FakeAgent, driven: Driven, caplog: pytest.LogCaptureFixture) -> None:
    driven.subscribe()
    with caplog.at_level(logging.ERROR):
        for event in ({"type": "LAUNCH", "launch": {}}, {"type": "KILL"}, {"type": "NEW_THING", "new_thing": {}}, {}):
            agent.send(event)
        agent.message(b"still there")
        driven.next(MessageCame)
    assert "passed over" in caplog.text


def test_an_inbox_that_raises_does_not_end_the_driver(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []

    def inbox(event: AgentEvent) -> None:
        heard.append(event)
        raise RuntimeError("full")

    driver = ExecutorDriver(Driven(agent, monkeypatch).driver._surroundings, inbox)
    driver.start()
    agent.subscribed()
    agent.message(b"1")
    agent.message(b"2")
    eventually(lambda: len(heard) == 3, what="both messages")
    driver.stop()
    driver.join()


def test_the_end_of_the_io_thread_is_an_event(agent: FakeAgent, driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ExecutorDriver) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ExecutorDriver, "_listen", broken)
    driven.start()
    assert driven.next(ShutdownAsked).reason == "the executor's driver failed: a bug"


# --- the agent goes away


def test_without_checkpoint_the_end_of_the_agent_is_the_end(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    for driven in _driven(agent, monkeypatch, MESOS_CHECKPOINT="0"):
        driven.subscribe()
        agent.stop()
        assert driven.next(ShutdownAsked).reason == "the agent went away and did not come back"


def test_with_checkpoint_the_agent_may_be_away_for_its_recovery_timeout(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    for driven in _driven(agent, monkeypatch, MESOS_RECOVERY_TIMEOUT="200ms"):
        driven.subscribe()
        agent.stop()
        assert driven.next(ShutdownAsked).reason == "the agent went away and did not come back"
        assert driven.driver.aborted


def test_an_agent_that_is_gone_for_good_ends_the_wait_for_acknowledgements(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    for driven in _driven(agent, monkeypatch, MESOS_RECOVERY_TIMEOUT="100ms"):
        driven.subscribe()
        agent.stop()
        driven.driver.update("task-1", "TASK_FINISHED")
        assert not driven.driver.wait_acknowledged(30)


def test_it_stops_while_it_waits_for_the_agent(agent: FakeAgent, driven: Driven) -> None:
    driven.subscribe()
    agent.stop()
    driven.driver.stop()
    driven.driver.join()
    assert driven.driver.aborted


# --- the surroundings


def test_every_variable_of_the_agent_is_read() -> None:
    environment = FakeAgent().environment | {"MESOS_SANDBOX": "/sandbox", "MESOS_EXECUTOR_AUTHENTICATION_TOKEN": "secret"}
    assert read_surroundings(environment | {"MESOS_AGENT_ENDPOINT": "10.0.0.1:5051"}) == Surroundings(
        agent="10.0.0.1:5051",
        framework_id="framework-1",
        executor_id="executor-1",
        sandbox="/sandbox",
        agent_id="agent-1",
        checkpoint=True,
        recovery_timeout_s=900.0,
        backoff_max_s=0.02,
        shutdown_grace_s=5.0,
        token="secret",
    )


@pytest.mark.parametrize(
    ("words", "seconds"), [("5secs", 5), ("1.5mins", 90), ("250ms", 0.25), ("2hrs", 7200), ("1weeks", 604800), ("3ns", 3e-9)]
)
def test_durations_are_read_in_every_unit(words: str, seconds: float) -> None:
    environment = FakeAgent().environment | {"MESOS_SANDBOX": "/sandbox", "MESOS_RECOVERY_TIMEOUT": words}
    assert read_surroundings(environment).recovery_timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("words", ["5", "secs", "five secs", "-1secs", "1.2.3secs"])
def test_a_malformed_duration_is_refused(words: str) -> None:
    environment = FakeAgent().environment | {"MESOS_SANDBOX": "/sandbox", "MESOS_RECOVERY_TIMEOUT": words}
    with pytest.raises(Invalid, match="MESOS_RECOVERY_TIMEOUT"):
        read_surroundings(environment)


@pytest.mark.parametrize("name", ["MESOS_AGENT_ENDPOINT", "MESOS_FRAMEWORK_ID", "MESOS_EXECUTOR_ID", "MESOS_SANDBOX"])
def test_a_missing_variable_is_named(name: str) -> None:
    environment = FakeAgent().environment | {"MESOS_SANDBOX": "/sandbox"}
    del environment[name]
    with pytest.raises(Invalid, match=name):
        read_surroundings(environment)
