"""What becomes of old events: they go a few at a time, what is not over yet stays, and nobody who reads is left to think that it is all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from sqlalchemy import select

from framework.cli.root import root
from framework.cli.words import instant, moment, parse_instant
from framework.engine import Engine
from framework.ids import new_id
from framework.rest.app import create_app
from framework.retention import DAY_S, FIRST_S, LOOK_S, PAUSE_S, PAUSES, Retention
from framework.source import LedgerSource
from framework.views import EventFilter
from storage import schema
from storage.errors import UnknownVolume
from storage.inventory import PART_LINES, Ledger, Pruned, open_ledger
from storage.lifecycle import VolumeState
from storage.model import ExternalId, NodeId, Snapshot, SnapshotId, VolumeId
from tests.ledgers import SCHEDULER, Clock, end, fresh, furnish, make, new, old, placed, task
from tests.stage import Hands, ShakyLedger, stage_config
from tests.unit.engines import Started, parts
from tests.unit.front import NOW, FakeBroker, fill


def all_of(ledger: Ledger) -> list[tuple[str, str | None]]:
    return [(event.what, event.volume_id) for event in ledger.events(limit=1000).items]


def prune(ledger: Ledger, before: float, *, most: int) -> list[int]:
    """How many each part deleted."""
    deleted: list[int] = []
    after: int | None = 0
    while after is not None:
        part = ledger.prune_events(before, after=after, most=most)
        deleted.append(part.deleted)
        after = part.after
    return deleted


def test_old_events_go_in_parts_and_younger_ones_stay(ledger: Ledger, clock: Clock) -> None:
    furnish(ledger)
    make(ledger, "one")
    old = len(all_of(ledger))
    clock.now += 10
    make(ledger, "two")
    young = all_of(ledger)[old:]
    assert ledger.events().kept_since == 0
    deleted = prune(ledger, clock.now, most=3)
    assert (sum(deleted), max(deleted)) == (old, 3)
    assert all_of(ledger) == young
    assert ledger.events().kept_since == clock.now
    assert prune(ledger, clock.now - 5, most=3) == [0]
    assert ledger.events().kept_since == clock.now


def test_a_part_without_anything_to_delete_writes_nothing(ledger: Ledger, clock: Clock) -> None:
    furnish(ledger)
    claims = placed(ledger, task("t", fresh("c", new("held"))))
    clock.now += 10
    prune(ledger, clock.now, most=100)
    with ledger.begin("test"):  # the one who writes to SQLite: another transaction would wait for it, and fail
        assert ledger.prune_events(clock.now).deleted == 0
    end(ledger, claims)


def test_what_tells_of_something_that_goes_on_stays_however_old(ledger: Ledger, clock: Clock) -> None:
    furnish(ledger)
    names = ("free", "faulted", "going", "grows", "copied", "kept")
    for name in names:
        make(ledger, name)
    make(ledger, "used")
    placed(ledger, task("holder", fresh("held", new("held"))))
    placed(ledger, task("user", old("uses", "used", 1)))
    with ledger.begin("test") as tx:
        tx.fault(VolumeId("v-faulted"), "look at it")
        tx.deleting(VolumeId("v-going"))
        tx.resize(VolumeId("v-grows"), 110)
        for name in ("copied", "kept"):
            tx.plan_snapshot(snapshot(name))
        tx.snapshot_made(SnapshotId("s-kept"), ExternalId("x"), 10, 0.0)
    before = all_of(ledger)
    clock.now += 10
    prune(ledger, clock.now, most=4)
    reserved = [("claim.reserved", "v-used")]  # by the claim that is live, not by the one before
    kept = [line for line in before if line[1] in {"v-faulted", "v-going", "v-grows", "v-copied", "v-held"}]
    assert [line for line in all_of(ledger) if line not in reserved] == kept
    assert [event.claim_id for event in ledger.events(volume_id=VolumeId("v-used")).items] == ["uses"]
    with ledger.begin("test") as tx:
        tx.mend(VolumeId("v-faulted"), VolumeState.FAULTED)
        tx.deleted(VolumeId("v-going"))
        tx.grown(VolumeId("v-grows"), 110, asked_mib=110)
        tx.snapshot_made(SnapshotId("s-copied"), ExternalId("y"), 10, 0.0)
    prune(ledger, clock.now, most=4)
    left = [line for line in all_of(ledger) if line[1] not in {"v-held", "v-used"}]
    assert left == [("volume.mended", "v-faulted"), ("volume.deleted", "v-going"), ("snapshot.made", "v-copied")]


def test_of_brokers_that_keep_events_for_longer_and_shorter_the_shorter_counts(ledger: Ledger, clock: Clock) -> None:
    furnish(ledger)
    claims = placed(ledger, task("t", fresh("c", new("held"))))
    clock.now += 10
    shorter = clock.now
    prune(ledger, shorter, most=100)
    end(ledger, claims)
    with ledger.begin("test") as tx:
        tx.unplan(VolumeId("v-held"))
    assert sum(prune(ledger, shorter - 5, most=100)) > 0
    assert ledger.events().kept_since == shorter


def snapshot(name: str) -> Snapshot:
    return Snapshot(
        snapshot_id=SnapshotId(f"s-{name}"),
        volume_id=VolumeId(f"v-{name}"),
        platform="local",
        external_id=None,
        size_mib=10,
        token=f"token-{name}",
        name="",
        state="PENDING",
        created_at=0.0,
    )


def test_events_of_a_time(ledger: Ledger, clock: Clock) -> None:
    for at in (100.0, 200.0, 300.0):
        clock.now = at
        with ledger.begin("test") as tx:
            tx.note("tried")
    times = [[event.at for event in ledger.events(since=since, until=until).items] for since, until in ((200.0, None), (None, 200.0))]
    assert times == [[200.0, 300.0], [100.0]]
    assert [event.at for event in ledger.events(since=100.0, until=300.0, newest_first=True).items] == [200.0, 100.0]


def test_a_node_that_was_forgotten_leaves_nothing_behind(ledger: Ledger) -> None:
    """Its platform may answer how many volumes it holds when it is gone already."""
    furnish(ledger, slots=4)
    with ledger.begin("test") as tx:
        tx.drop_node(SCHEDULER, NodeId("node1"))
        for node in ("node1", "node2"):
            tx.limit_node(SCHEDULER, NodeId(node), {"local": 8})
    with ledger._database.reading() as session:
        left = session.all(select(schema.node_slots.c.node_id, schema.node_slots.c.slots))
    assert left == [("node2", 8)]


# --- the broker's part


def noted(ledger: Ledger, number: int) -> None:
    with ledger.begin("test") as tx:
        for _ in range(number):
            tx.note("tried")


def work(hands: Hands) -> int:
    """Does what was begun; how many jobs that were."""
    answers = hands.work()
    for done, outcome in answers:
        done(outcome)
    return len(answers)


def retention(ledger: Ledger, clock: Clock, hands: Any, keep_days: float | None = 2.0) -> Retention:
    return Retention(keep_days, ledger, hands, clock=clock)


def test_without_the_setting_nothing_is_ever_deleted(ledger: Ledger, clock: Clock) -> None:
    hands = Hands()
    kept = retention(ledger, clock, hands, None)
    kept.tick(clock.now + 1e12)
    assert hands.jobs == []


def test_parts_follow_each_other_with_pauses_and_then_it_looks_again(ledger: Ledger, clock: Clock) -> None:
    noted(ledger, PART_LINES + 1)
    clock.now += DAY_S
    noted(ledger, 1)
    hands = Hands()
    kept = retention(ledger, clock, hands)
    kept.tick(clock.now)
    assert hands.jobs == []  # other things come first when a broker starts
    clock.now += 1.5 * DAY_S
    lines, pauses = [], []
    for took in (0.0, 1.0):
        kept.tick(clock.now)
        kept.tick(clock.now)  # one part at a time
        clock.now += took
        assert work(hands) == 1
        lines.append(len(ledger.events(limit=1000).items))
        pauses.append(kept.due_at - clock.now)
        clock.now = kept.due_at
    assert lines == [2, 1]
    assert pauses == pytest.approx([PAUSE_S, PAUSES * 1.0])
    kept.tick(clock.now)
    work(hands)
    assert kept.due_at == clock.now + LOOK_S
    clock.now += DAY_S
    kept.tick(clock.now)
    work(hands)
    assert all_of(ledger) == []


def test_of_brokers_on_one_ledger_one_deletes_at_a_time(ledger: Ledger, ledger_url: str, clock: Clock) -> None:
    noted(ledger, 1)
    clock.now += 3 * DAY_S
    hands = Hands()
    kept = retention(ledger, clock, hands)
    clock.now += FIRST_S
    with closing(open_ledger(ledger_url, clock=clock)) as other:
        turn = other.take_turn("events")
        assert turn is not None
        kept.tick(clock.now)
        work(hands)
        assert (len(all_of(ledger)), kept.due_at) == (1, clock.now + LOOK_S)
        turn.end()
        clock.now = kept.due_at
        kept.tick(clock.now)
        work(hands)
        assert all_of(ledger) == []
        assert other.take_turn("events") is not None


def test_where_the_ledger_is_away_it_is_tried_again(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    noted(shaky_ledger, 1)
    clock.now += 3 * DAY_S
    hands = Hands()
    kept = retention(shaky_ledger, clock, hands)
    clock.now += FIRST_S
    shaky_ledger.fails_before = 1
    for left in (1, 0):
        kept.tick(clock.now)
        work(hands)
        assert len(all_of(shaky_ledger)) == left
        clock.now = kept.due_at


def test_a_broker_does_as_polly_toml_says(shaky_ledger: ShakyLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(shaky_ledger, 1)
    monkeypatch.setattr("framework.retention.FIRST_S", 0.0)
    pruned, prune_events = threading.Event(), shaky_ledger.prune_events

    def prune_and_tell(before: float, *, after: int) -> Pruned:
        part = prune_events(before, after=after)
        pruned.set()
        return part

    monkeypatch.setattr(shaky_ledger, "prune_events", prune_and_tell)
    engine = Engine(replace(parts(shaky_ledger, Started()), config=stage_config(ledger={"keep_events_days": 1})))
    engine.start("test")
    try:
        assert pruned.wait(10)
    finally:
        engine.stop()
    assert "tried" not in [what for what, _ in all_of(shaky_ledger)]


# --- who reads


@pytest.fixture
def pruned(sqlite_url: str) -> Iterator[Ledger]:
    """A log whose lines of an hour ago are deleted, but for those of a task that runs."""
    with closing(open_ledger(sqlite_url, clock=lambda: NOW)) as ledger:
        fill(ledger)
        ledger.prune_events(NOW + 1)
        with ledger.begin("test", now=NOW + 2) as tx:
            tx.note("tried")
        yield ledger


def polly(sqlite_url: str, *args: str) -> Result:
    return CliRunner().invoke(root, ["events", *args], env={"POLLY_DATABASE": sqlite_url}, prog_name="polly")


@pytest.mark.parametrize(
    ("args", "is_said"),
    [
        ((), True),
        (("--limit", "1"), True),
        (("--newest-first",), True),
        (("--newest-first", "--limit", "1"), False),
        (("--since", instant(NOW + 2)), False),
        (("--until", instant(NOW - 5)), True),
        (("--volume", new_id()), True),
        (("--task", "nobodys"), True),
        (("--after", "1"), False),
    ],
)
def test_who_asks_for_what_is_deleted_is_told(pruned: Ledger, sqlite_url: str, args: tuple[str, ...], is_said: bool) -> None:
    result = polly(sqlite_url, *args, "-o", "json")
    assert result.exit_code == 0, result.output
    assert (f"Of what was before {moment(NOW + 1)} only what is not over yet is kept" in result.stderr) is is_said
    assert isinstance(json.loads(result.stdout), list)


def test_an_empty_list_says_what_it_was_narrowed_by(pruned: Ledger, sqlite_url: str) -> None:
    assert f"No event passes --until {moment(NOW - 5)}." in polly(sqlite_url, "--until", instant(NOW - 5)).stderr


@pytest.mark.parametrize("text", ["yesterday", "30", "2026-13-01", "999999999d", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_is_none_is_refused_with_one_that_is(text: str) -> None:
    assert f"time is '{text}': write it as 2026-11-30" in polly("sqlite:///none", "--since", text).stderr


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-03", datetime(1970, 1, 3).timestamp()),
        ("1970-01-03 18:30", datetime(1970, 1, 3, 18, 30).timestamp()),
        ("1970-01-01T12:00:00+02:00", 10 * 3600.0),
        ("2d", 3 * DAY_S),
        ("12 h", 4.5 * DAY_S),
        ("90min", 5 * DAY_S - 5400),
        ("30s", 5 * DAY_S - 30),
    ],
)
def test_times_are_read_as_people_write_them(text: str, at: float) -> None:
    assert parse_instant(text, 5 * DAY_S) == at


def test_a_name_that_no_volume_ever_had_is_an_error_all_the_same(pruned: Ledger) -> None:
    with pytest.raises(UnknownVolume):
        LedgerSource(pruned).events(EventFilter(volume="/countre#0/data"))


def test_the_api_says_from_when_on_the_log_is_whole(pruned: Ledger) -> None:
    http = TestClient(create_app(FakeBroker(pruned), pruned, token=None), base_url="http://127.0.0.1:7070")
    answer = http.get(f"/v1/events?since={NOW + 2}").json()
    assert ([event["what"] for event in answer["items"]], answer["kept_since"]) == (["tried"], NOW + 1)
    assert http.get(f"/v1/events?since={NOW + 2}&until={NOW + 2}").json()["items"] == []
