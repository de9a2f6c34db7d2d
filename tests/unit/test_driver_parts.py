"""The driver's parts that need no master: records, events, addresses, calls."""

from __future__ import annotations

import base64
import json
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from framework.mesos import calls, recordio
from framework.mesos.channel import Call
from framework.mesos.events import Errored, Event, Failed, Message, Offers, Rescinded, Status, Subscribed, Updated, decode, parse_version
from framework.mesos.leader import Address, LeaderWatch, ZooKeeperUri, parse_master, parse_master_info
from framework.mesos.recordio import BadRecord, RecordReader
from storage.errors import Invalid


def record(body: bytes) -> bytes:
    return b"%d\n%b" % (len(body), body)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_records_arrive_whole_however_the_stream_is_cut(piece: int) -> None:
    bodies = [b"{}", b"", b"x" * 500, b"12\n34", b"z"]
    stream = b"".join(map(record, bodies))
    reader = RecordReader()
    found = [it for start in range(0, len(stream), piece) for it in reader.feed(stream[start : start + piece])]
    assert found == bodies


@pytest.mark.parametrize("stream", [b"abc\n{}", b"\n{}", b"-5\n{}", b"12345678901\n", b"123456789012", b"2\n{}garbage", b" 2\n{}"])
def test_a_stream_that_is_no_recordio_is_refused(stream: bytes) -> None:
    with pytest.raises(BadRecord, match="should begin with its length"):
        RecordReader().feed(stream)


class CountingBuffer(bytearray):
    """Counts the bytes that are moved by appending, cutting and slicing."""

    moved = 0

    def __iadd__(self, other: Any) -> CountingBuffer:  # type: ignore[misc]  # narrower than its base
        CountingBuffer.moved += len(other)
        super().__iadd__(other)
        return self

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        CountingBuffer.moved += len(found) if isinstance(found, bytearray) else 1
        return found

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        CountingBuffer.moved += len(self)

    def find(self, *arguments: Any) -> int:
        begin, end = arguments[1:]
        CountingBuffer.moved += max(0, min(end, len(self)) - begin)
        return super().find(*arguments)


def test_defect_16_a_large_event_costs_linear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """pymesos re-slices all that has come with each 4 KiB: 50 GB moved for these 20 MB."""
    monkeypatch.setattr(recordio, "bytearray", CountingBuffer, raising=False)
    CountingBuffer.moved = 0
    body = b"o" * 20_000_000
    stream = record(body) + record(b"{}")
    reader = RecordReader()
    found = [it for start in range(0, len(stream), 4096) for it in reader.feed(stream[start : start + 4096])]
    assert found == [body, b"{}"]
    assert len(stream) <= CountingBuffer.moved < 1.1 * len(stream)


def event(kind: str, **content: Any) -> bytes:
    return json.dumps({"type": kind, kind.lower(): content}).encode()


def value(text: str) -> dict[str, str]:
    return {"value": text}


STATUS = {
    "task_id": value("t1"),
    "agent_id": value("a1"),
    "executor_id": value("e1"),
    "state": "TASK_RUNNING",
    "source": "SOURCE_EXECUTOR",
    "reason": "REASON_RECONCILIATION",
    "message": "hello",
    "uuid": "YWJj",
    "data": base64.b64encode(b"\x00data").decode(),
    "timestamp": 12.5,
    "healthy": True,
    "container_status": {"network_infos": []},
}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            event("SUBSCRIBED", framework_id=value("f1"), heartbeat_interval_seconds=3, master_info={"version": "1.11.0"}),
            Subscribed(framework_id="f1", heartbeat_s=3.0, master={"version": "1.11.0"}),
        ),
        (event("SUBSCRIBED", framework_id=value("f1")), Subscribed(framework_id="f1", heartbeat_s=15.0, master={})),
        (event("RESCIND", offer_id=value("o1")), Rescinded(offer_id="o1")),
        (
            event("UPDATE", status=STATUS),
            Updated(
                status=Status(
                    task_id="t1",
                    agent_id="a1",
                    executor_id="e1",
                    state="TASK_RUNNING",
                    source="SOURCE_EXECUTOR",
                    reason="REASON_RECONCILIATION",
                    message="hello",
                    uuid="YWJj",
                    data=b"\x00data",
                    timestamp=12.5,
                    healthy=True,
                )
            ),
        ),
        (event("UPDATE", status={"task_id": value("t"), "state": "TASK_LOST"}), Updated(status=Status(task_id="t", state="TASK_LOST"))),
        (
            event("UPDATE", status={"task_id": value("t"), "state": "TASK_FAILED", "message": "it said a\0b"}),
            Updated(status=Status(task_id="t", state="TASK_FAILED", message="it said a\ufffdb")),
        ),
        (event("FAILURE", agent_id=value("a1")), Failed(agent_id="a1")),
        (event("FAILURE", agent_id=value("a"), executor_id=value("e"), status=9), Failed(agent_id="a", executor_id="e", status=9)),
        (event("MESSAGE", agent_id=value("a"), executor_id=value("e"), data="aGk="), Message(agent_id="a", executor_id="e", data=b"hi")),
        (event("ERROR", message="Framework has been removed"), Errored(message="Framework has been removed")),
        (b'{"type":"HEARTBEAT"}', None),
        (event("INVERSE_OFFERS", inverse_offers=[]), None),
        (event("UPDATE_OPERATION_STATUS", status={}), None),
        (event("SOMETHING_OF_A_LATER_MESOS", a=1), None),
    ],
)
def test_events_are_typed(data: bytes, expected: Event | None) -> None:
    assert decode(data) == expected


def test_defect_17_offers_are_handed_on_as_the_bytes_that_came() -> None:
    data = event("OFFERS", offers=[{"id": value("o1"), "resources": [{"name": "cpus"}]}])
    found = decode(data)
    assert isinstance(found, Offers)
    assert found.data is data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"type":1}',
        b'{"offers":{}}',
        event("UPDATE"),
        b'{"type":"UPDATE"}',
        b"\xff\xfe",
        b'{"type":"OFFERS","offers":{]}',
    ],
)
def test_what_is_no_event_is_an_error(data: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode(data)


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.11.0", (1, 11, 0)), ("1.12.0-rc1", (1, 12, 0)), ("1.9", (1, 9)), ("", ()), ("unknown", ()), (" 1.8.1+x", (1, 8, 1))],
)
def test_defect_6_versions_of_any_form_are_read(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("text", "expected", "netloc"),
    [
        ("master", Address(host="master"), "master:5050"),
        ("master:80", Address(host="master", port=80), "master:80"),
        ("10.0.0.1:5051", Address(host="10.0.0.1", port=5051), "10.0.0.1:5051"),
        ("[::1]:5050", Address(host="::1", port=5050), "[::1]:5050"),
        ("[fe80::2]", Address(host="fe80::2"), "[fe80::2]:5050"),
        ("::1", Address(host="::1"), "[::1]:5050"),
        ("http://master:5050/", Address(host="master"), "master:5050"),
        ("https://master:443", Address(host="master", port=443, tls=True), "master:443"),
        ("https://[::1]:5050", Address(host="::1", tls=True), "[::1]:5050"),
    ],
)
def test_defect_15_addresses_of_masters(text: str, expected: Address, netloc: str) -> None:
    assert parse_master(text) == expected
    assert expected.netloc == netloc


def test_zookeeper_uris() -> None:
    assert parse_master("zk://h1:2181,h2:2182/mesos/prod/") == ZooKeeperUri(hosts="h1:2181,h2:2182", path="/mesos/prod")
    assert parse_master("zk://u:p%40ss@h1:2181/mesos") == ZooKeeperUri(hosts="h1:2181", path="/mesos", credentials="u:p@ss")


def test_a_zookeeper_password_is_not_shown() -> None:
    uri = parse_master("zk://user:hidden@h1:2181/mesos")
    assert "hidden" not in f"{uri} {uri!r}"
    with pytest.raises(Invalid) as caught:
        parse_master("zk://hidden@h1:2181/mesos")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":5050",
        "master:port",
        "master:99999999",
        "ftp://master",
        "zk://h1:2181",
        "zk://h1:2181/",
        "zk:///mesos",
        "u:p@master:5050",
        "[::1",
    ],
)
def test_addresses_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="master"):
        parse_master(text)


def test_a_master_info_as_the_masters_write_it() -> None:
    info = (
        b'{"address":{"hostname":"m1.example","ip":"10.1.2.3","port":5050},"id":"x","ip":50462986,"port":5050,"pid":"master@10.1.2.3:5050"}'
    )
    assert parse_master_info(info, tls=False) == Address(host="10.1.2.3")
    assert parse_master_info(info, tls=True) == Address(host="m1.example", tls=True)
    for written in (b'{"ip": 1}', b"[]", b'{"address": "10.1.2.3:5050"}'):
        with pytest.raises(ValueError, match="no address"):
            parse_master_info(written, tls=False)


def test_a_fault_while_the_leader_is_looked_for_or_told_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = parse_master("zk://127.0.0.1:2181/mesos")
    assert isinstance(uri, ZooKeeperUri)
    told: SimpleQueue[Address | None] = SimpleQueue()
    deaf = [None, Address(host="m1")]

    def tell(leader: Address | None, _: str) -> None:
        told.put(leader)
        if deaf and leader == deaf.pop(0):
            raise OSError("who is told cannot be woken")

    watch = LeaderWatch(uri, tell)
    answers: list[Exception | Address] = [AttributeError("a fault of the library's"), Address(host="m1")]

    def leader() -> Address:
        watch._wake()  # so that nothing is waited for
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(watch, "_client", Mock(start_async=watch._wake))
    monkeypatch.setattr(watch, "_leader", leader)
    watch.start()
    try:
        assert [told.get(timeout=10) for _ in range(3)] == [None, Address(host="m1"), Address(host="m1")]
    finally:
        watch.stop()
        watch._thread.join(10)


def decoded(call: Call) -> Any:
    body = json.loads(call.body)
    assert body.pop("type") == call.name
    assert body.pop("framework_id") == value("f")
    return body


def test_calls_are_what_mesos_reads() -> None:
    operations = [{"type": "LAUNCH", "launch": {"task_infos": []}}]
    accept = json.loads(calls.encode_accept("f", ["o1", "o2"], operations, refuse_s=2.5))
    assert accept == {
        "type": "ACCEPT",
        "framework_id": value("f"),
        "accept": {"offer_ids": [value("o1"), value("o2")], "operations": operations, "filters": {"refuse_seconds": 2.5}},
    }
    assert decoded(calls.decline("f", ["o1"], refuse_s=5)) == {"decline": {"offer_ids": [value("o1")], "filters": {"refuse_seconds": 5}}}
    assert decoded(calls.revive("f", ())) == {}
    assert decoded(calls.revive("f", ["a"])) == {"revive": {"roles": ["a"]}}
    assert decoded(calls.suppress("f", ["a"])) == {"suppress": {"roles": ["a"]}}
    assert decoded(calls.kill("f", "t", None, None)) == {"kill": {"task_id": value("t")}}
    assert decoded(calls.kill("f", "t", "a", 1.5)) == {
        "kill": {"task_id": value("t"), "agent_id": value("a"), "kill_policy": {"grace_period": {"nanoseconds": 1_500_000_000}}}
    }
    assert decoded(calls.message("f", "a", "e", b"hi")) == {"message": {"agent_id": value("a"), "executor_id": value("e"), "data": "aGk="}}
    assert decoded(calls.shutdown("f", "e", "a")) == {"shutdown": {"executor_id": value("e"), "agent_id": value("a")}}
    assert decoded(calls.teardown("f")) == {}


def test_defect_12_a_reconciliation_names_the_agents() -> None:
    assert decoded(calls.reconcile("f", [("t1", "a1"), ("t2", None)])) == {
        "reconcile": {"tasks": [{"task_id": value("t1"), "agent_id": value("a1")}, {"task_id": value("t2")}]}
    }
    assert decoded(calls.reconcile("f", [])) == {"reconcile": {"tasks": []}}
