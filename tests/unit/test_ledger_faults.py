"""What may be done to a ledger by accident: kills, two brokers, many writers at once, a full disk. It is before or after, never between."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from storage.errors import AlreadyExists, AlreadyLed, Conflict, LedgerUnavailable
from storage.inventory import WORTH_A_THREAD, Ledger, Placed, PlaceRequest, Refused, Release, open_ledger
from storage.lifecycle import ClaimState
from storage.model import Access, AccessMode, ClaimId, VolumeId
from storage.schema import claims as claims_table
from tests.ledgers import PROOF, SCHEDULER, assert_sound, bear, fresh, furnish, make, new, old, place, placed, task
from tests.support import eventually


@contextlib.contextmanager
def program(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a Python program beside the test, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it says; fails with what it complains of when it says none."""
    assert process.stdout
    assert process.stderr
    said = process.stdout.readline().strip()
    assert said, process.stderr.read()
    return said


# --- killed ---------------------------------------------------------------------------------------

KILLED = """
import sys
from tests.ledgers import *
from storage.inventory import open_ledger
from storage.lifecycle import ClaimState
ledger = open_ledger(sys.argv[1])
with ledger.begin("broker") as tx:
    tx.place([task(f"t{n}", fresh(f"c{n}", new(f"n{n}", size_mib=1)), old(f"d{n}", f"a{n}", 1)) for n in range(3)])
    tx.flush()
    tx._lines.clear()
    if sys.argv[2] == "before":
        print("now", flush=True)
        sys.stdin.read()
print("now", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_a_commit_it_is_before_or_after(ledger: Ledger, ledger_url: str, moment: str) -> None:
    furnish(ledger)
    for n in range(3):
        make(ledger, f"a{n}", size_mib=10)
    before = ledger.events(newest_first=True).items
    with program(KILLED, ledger_url, moment) as broker:
        assert line(broker) == "now"
        broker.kill()
        broker.wait()
    tasks = [task(f"t{n}", fresh(f"c{n}", new(f"n{n}", size_mib=1)), old(f"d{n}", f"a{n}", 1)) for n in range(3)]
    if moment == "before":
        assert ledger.events(newest_first=True).items == before
        assert ledger.claims().items == []
        assert len([outcome for outcome in place(ledger, *tasks) if hasattr(outcome, "claims")]) == 3
    assert len(ledger.claims().items) == 6
    assert ledger.pools()[0].provisioned_mib == 303
    assert [ledger.volume(f"a{n}").epoch for n in range(3)] == [2, 2, 2]


BUSY = """
import itertools, sys
from tests.ledgers import *
from storage.inventory import open_ledger
ledger = open_ledger(sys.argv[1])
for turn in itertools.count():
    names = [f"{sys.argv[2]}.{turn}.{n}" for n in range(20)]
    claims = [claim for name in names for claim in placed(ledger, task(name, fresh(f"c{name}", new(name, size_mib=1))))]
    for claim in claims:
        bear(ledger, claim, size_mib=2)
    end(ledger, claims)
    with ledger.begin("op") as tx:
        for claim in claims:
            tx.deleting(claim.volume_id)
            tx.deleted(claim.volume_id)
"""


def test_killed_at_any_moment_it_is_sound(ledger: Ledger, ledger_url: str) -> None:
    furnish(ledger, capacity_mib=10_000)
    for kill in range(4):
        last = ledger.events(newest_first=True, limit=1).items[0].seq + 10 + 17 * kill
        with program(BUSY, ledger_url, str(kill)) as broker:
            # a default of a lambda
            eventually(lambda seq=last: ledger.events(newest_first=True, limit=1).items[0].seq > seq, 20, "it writes")  # type: ignore[misc]
            broker.kill()
            broker.wait()
        assert_sound(ledger)
        with ledger.begin("janitor") as tx:
            tx.put_setting("kill", str(kill))


# --- leadership -----------------------------------------------------------------------------------

LEADING = """
import sys
from storage.inventory import open_ledger
with open_ledger(sys.argv[1]).lead("mesos/polly", "first broker"):
    print("leads", flush=True)
    sys.stdin.read()
"""


def test_only_one_leads_and_its_death_lets_the_next(ledger: Ledger, ledger_url: str) -> None:
    with program(LEADING, ledger_url) as broker:
        assert line(broker) == "leads"
        with pytest.raises(AlreadyLed, match=r"\(first broker\).*mesos/polly"), ledger.lead(SCHEDULER, "second broker"):
            pytest.fail("two lead")
        with ledger.lead("mesos/other", "second broker"):
            pass
        broker.kill()
        broker.wait()

        def takes_over() -> bool:
            with contextlib.suppress(AlreadyLed), ledger.lead(SCHEDULER, "second broker"):
                return True
            return False

        assert eventually(takes_over, 10, "the second broker leads")


def test_a_leader_writes_and_gives_up_in_the_end(ledger: Ledger, ledger_url: str) -> None:
    other = open_ledger(ledger_url)
    with ledger.lead(SCHEDULER, "one"):
        furnish(ledger)
        with pytest.raises(AlreadyLed), other.lead(SCHEDULER, "two"):
            pytest.fail("two lead")
        furnish(other)
    with other.lead(SCHEDULER, "two"):
        furnish(other)
    furnish(ledger)
    other.close()


def test_a_leader_that_lost_its_lock_cannot_write(ledger: Ledger, ledger_url: str) -> None:
    """Its lock file was deleted, or its session cut: the next leader's term shuts it out."""
    other = open_ledger(ledger_url)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ledger.lead(SCHEDULER, "one"))
        if ledger._database.path:
            for path in ledger._database.path.parent.glob("*.leader"):
                path.unlink()
        else:
            with other._database.writing() as session:
                cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                session.execute(text(cut))

        def takes_over() -> contextlib.AbstractContextManager[None]:
            led = other.lead(SCHEDULER, "two")
            try:
                stack.enter_context(led)
            except AlreadyLed as error:
                raise AssertionError from error
            return led

        eventually(takes_over, 10, "the second leads")
        with pytest.raises(AlreadyLed, match="two"), ledger.begin("one") as tx:
            tx.put_setting("who", "one")
        with other.begin("two") as tx:
            tx.put_setting("who", "two")
        assert ledger.setting("who") == "two"
        with contextlib.suppress(LedgerUnavailable):
            stack.close()
    other.close()


# --- many at once ---------------------------------------------------------------------------------

RACING = """
import sys
from tests.ledgers import *
from storage.inventory import Placed, open_ledger
ledger, me, tasks = open_ledger(sys.argv[1]), sys.argv[2], []
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[3] == "batch":
    wanted = [task(f"{me}.t{n}", old(f"{me}.c{n}", f"a{n}", 1)) for n in range(50)]
    won = [n for n, outcome in enumerate(place(ledger, *wanted)) if isinstance(outcome, Placed)]
else:
    won = [n for n in range(50) if isinstance(place(ledger, task(f"{me}.t{n}", old(f"{me}.c{n}", f"a{n}", 1)))[0], Placed)]
print("won", *won, flush=True)
"""


@pytest.mark.parametrize("how", ["batch", "single"])
def test_of_many_that_claim_the_same_volumes_each_is_won_once(ledger: Ledger, ledger_url: str, how: str) -> None:
    furnish(ledger)
    claims = placed(ledger, task("maker", *(fresh(f"m{n}", new(f"a{n}", size_mib=1)) for n in range(50))))
    for claim in claims:
        bear(ledger, claim, size_mib=1)
    with ledger.begin("test") as tx:
        tx.free_many([Release(claim_id=claim.claim_id, epoch=1, proof=PROOF) for claim in claims])
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(program(RACING, ledger_url, f"racer{n}", how)) for n in range(4)]
        assert [line(racer) for racer in racers] == ["ready"] * 4
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = Counter(n for racer in racers for n in line(racer).split()[1:])
    assert won == {str(n): 1 for n in range(50)}
    assert len(ledger.claims().items) == 50
    assert {ledger.volume(f"a{n}").epoch for n in range(50)} == {2}


CROWDING = """
import sys
from tests.ledgers import *
from storage.inventory import Placed, open_ledger
ledger, me = open_ledger(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
names = [f"{me}.{n}" for n in range(40)]
tasks = [task(name, fresh(f"c{name}", new(name, size_mib=10)), node=f"node{n % 2 + 1}") for n, name in enumerate(names)]
outcomes = place(ledger, *tasks)
print("won", sum(isinstance(outcome, Placed) for outcome in outcomes), flush=True)
"""


def test_many_at_once_never_take_more_than_there_is(ledger: Ledger, ledger_url: str) -> None:
    furnish(ledger, capacity_mib=333, slots=20)
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(program(CROWDING, ledger_url, f"racer{n}")) for n in range(3)]
        assert [line(racer) for racer in racers] == ["ready"] * 3
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert sum(int(line(racer).split()[1]) for racer in racers) == 33
    assert ledger.pools()[0].provisioned_mib == 330
    assert max(node.used["local"] for node in ledger.nodes()) <= 20


# --- what the database itself refuses ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "access", "seat"),
    [
        ("SINGLE_NODE_WRITER", "RW", 0),
        ("SINGLE_NODE_WRITER", "RW", 7),
        ("MULTI_NODE_SINGLE_WRITER", "RW", 0),
        ("MULTI_NODE_SINGLE_WRITER", "RW", 7),
        ("MULTI_NODE_READER_ONLY", "RW", 7),
        ("MULTI_NODE_READER_ONLY", "RO", 0),
    ],
)
def test_a_second_exclusive_claim_is_no_row_that_the_database_takes(ledger: Ledger, mode: str, access: str, seat: int) -> None:
    """Whatever program writes it: the seat is a key, and it is what the mode says."""
    furnish(ledger)
    placed(ledger, task("t1", fresh("c1", new("a", mode=AccessMode(mode)), Access.RO if "READER" in mode else Access.RW)))
    row = {
        "volume_id": "v-a",
        "seat": seat,
        "claim_id": "c2",
        "platform": "local",
        "mode": mode,
        "scheduler": SCHEDULER,
        "placement_id": "t1",
        "node_id": "node1",
        "epoch": 7,
        "access": access,
        "state": "MOUNTED",
        "lease_until": 0.0,
        "reason": "",
        "since": 0.0,
    }
    with pytest.raises(Conflict, match="constraint"), ledger._database.writing() as session:
        session.execute(insert(claims_table).values(row))


def test_a_claimed_volume_cannot_be_deleted_by_anyone(ledger: Ledger) -> None:
    furnish(ledger)
    placed(ledger, task("t1", fresh("c1", new("a"))))
    with pytest.raises(Conflict), ledger._database.writing() as session:
        session.execute(text("DELETE FROM volumes"))


# --- placing with work meanwhile -------------------------------------------------------------------


def claim_ids(ledger: Ledger) -> list[str]:
    return sorted(claim.claim_id for claim in ledger.claims(limit=500).items)


def wanted(first: int = 0, count: int = WORTH_A_THREAD) -> list[PlaceRequest]:
    """Tasks t0, t1, ... with a new volume each."""
    return [task(f"t{it}", fresh(f"c{it}", new(f"n{it}", size_mib=1))) for it in range(first, first + count)]


WRONG_AT_THE_COMMIT = {
    "SQLite": "CREATE TRIGGER wrong AFTER INSERT ON claims BEGIN INSERT INTO children VALUES (new.claim_id); END",
    "PostgreSQL": "ALTER TABLE claims ADD FOREIGN KEY (claim_id) REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED",
}


def stored(ledger: Ledger, *parts: Sequence[PlaceRequest]) -> tuple[list[Placed], list[Placed | Refused]]:
    """What was expected while the parts were given, and what came of it."""
    expected: list[Placed] = []
    with ledger.placing("broker", most=sum(map(len, parts))) as storing:
        for part in parts:
            expected += storing.add(part)
        return expected, storing.outcomes()


@pytest.mark.parametrize("sizes", [[], [1], [WORTH_A_THREAD], [WORTH_A_THREAD, 1], [1, WORTH_A_THREAD, 0, 3 * WORTH_A_THREAD]])
def test_parts_are_placed_as_they_come_and_as_was_told(ledger: Ledger, sizes: list[int]) -> None:
    furnish(ledger)
    firsts = [sum(sizes[:index]) for index in range(len(sizes))]
    expected, outcomes = stored(ledger, *(wanted(first, size) for first, size in zip(firsts, sizes, strict=True)))
    assert outcomes == expected
    assert {claim.volume_id: [claim] for one in expected for claim in one.claims} == ledger.claims_on(
        [VolumeId(f"v-n{it}") for it in range(sum(sizes))]
    )
    told = [event.claim_id for event in ledger.events(limit=500).items if event.what == "claim.reserved"]
    assert told == [f"c{it}" for it in range(sum(sizes))]
    assert_sound(ledger)


@pytest.mark.parametrize("parts", [[0], [0, WORTH_A_THREAD], [0, WORTH_A_THREAD, 2 * WORTH_A_THREAD]])
def test_of_tasks_some_of_which_are_refused_the_others_are_placed_as_was_told(ledger: Ledger, parts: list[int]) -> None:
    furnish(ledger, capacity_mib=WORTH_A_THREAD - 2)
    expected, outcomes = stored(ledger, *(wanted(first) for first in parts))
    fit = WORTH_A_THREAD - 2
    assert outcomes[:fit] == expected[:fit]
    assert {type(outcome) for outcome in outcomes[fit:]} == {Refused}
    assert len(outcomes) == len(expected)
    assert len(claim_ids(ledger)) == fit
    assert_sound(ledger)


def test_a_part_that_the_database_refuses_takes_no_other_with_it(ledger: Ledger) -> None:
    furnish(ledger)
    same_names = [task(f"again{it}", fresh(f"again{it}", new(f"n{it}", size_mib=1))) for it in range(WORTH_A_THREAD)]
    expected, outcomes = stored(ledger, wanted(), same_names, wanted(WORTH_A_THREAD))
    assert [outcomes[:WORTH_A_THREAD], outcomes[-WORTH_A_THREAD:]] == [expected[:WORTH_A_THREAD], expected[-WORTH_A_THREAD:]]
    refused = [outcome.error for outcome in outcomes if isinstance(outcome, Refused)]
    assert [type(error) for error in refused] == [AlreadyExists] * WORTH_A_THREAD
    assert_sound(ledger)


def test_what_an_error_cuts_short_is_done_whole_the_next_time(ledger: Ledger) -> None:
    """Again and again, so that statements come to be prepared just where the server passes them over."""
    furnish(ledger)
    for it in range(8):
        both = [task(f"t{it}", fresh(f"c{it}", new(f"n{it}"))), task(f"again{it}", fresh(f"again{it}", new("n0")))]
        assert [type(outcome) for outcome in place(ledger, *both)] == [Placed, Refused]
    assert claim_ids(ledger) == [f"c{it}" for it in range(8)]
    assert_sound(ledger)


def test_where_many_may_come_and_none_does_nothing_is_stored(ledger: Ledger) -> None:
    furnish(ledger)
    with ledger.placing("broker", most=WORTH_A_THREAD) as storing:
        assert storing.outcomes() == []
    _, outcomes = stored(ledger, wanted())
    assert {type(outcome) for outcome in outcomes} == {Placed}


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_nothing_is_stored_of_what_whoever_was_to_go_on_gave_up(ledger: Ledger, parts: int) -> None:
    furnish(ledger)

    def give_up() -> None:
        with ledger.placing("broker", most=2 * WORTH_A_THREAD) as storing:
            for part in range(parts):
                storing.add(wanted(part * WORTH_A_THREAD))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    assert claim_ids(ledger) == []
    stored(ledger, wanted())
    assert len(claim_ids(ledger)) == WORTH_A_THREAD


def test_a_commit_that_fails_in_a_thread_is_told_and_stores_nothing(ledger: Ledger) -> None:
    furnish(ledger)
    with ledger._database.writing() as session:
        session.execute(text("CREATE TABLE parents (id TEXT PRIMARY KEY)"))
        session.execute(text("CREATE TABLE children (id TEXT REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"))
        session.execute(text(WRONG_AT_THE_COMMIT["SQLite" if session.is_sqlite else "PostgreSQL"]))
    with pytest.raises(Conflict):
        stored(ledger, wanted())
    assert claim_ids(ledger) == []


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "polly-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.root
def test_on_a_full_disk_nothing_is_half_done_and_room_heals_it(small_disk: Path) -> None:
    ledger = open_ledger(f"sqlite:///{small_disk}/ledger.db")
    try:
        furnish(ledger)
        make(ledger, "a")
        ballast = small_disk / "ballast"
        fill(ballast)
        stored = place_until_full(ledger)
        assert_sound(ledger)
        assert len(ledger.claims(limit=10_000).items) == stored
        for _ in range(2):
            with pytest.raises(LedgerUnavailable), ledger.begin("broker") as tx:
                tx.put_setting("big", "x" * 2_000_000)
        assert ledger.setting("big") is None
        ballast.unlink()
        (claim,) = placed(ledger, task("after", old("c-after", "a", 1)))
        with ledger.begin("mesos") as tx:
            tx.advance(ClaimId("c-after"), claim.epoch, ClaimState.MOUNTED)
        assert ledger.claims_on([VolumeId("v-a")])[VolumeId("v-a")][0].state is ClaimState.MOUNTED
        assert_sound(ledger)
    finally:
        ledger.close()


@pytest.mark.root
def test_no_ledger_is_made_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    with pytest.raises(LedgerUnavailable):
        open_ledger(f"sqlite:///{small_disk}/ledger.db")
    (small_disk / "ballast").unlink()
    ledger = open_ledger(f"sqlite:///{small_disk}/ledger.db")
    furnish(ledger)
    ledger.close()


def place_until_full(ledger: Ledger) -> int:
    """How many tasks could be placed."""
    for number in range(10_000):
        try:
            placed(ledger, task(f"t{number}", fresh(f"c{number}", new(f"n{number}", size_mib=1, labels={"x": "y" * 2_000}))))
        except LedgerUnavailable as error:
            assert "full" in str(error)  # noqa: PT017  # one of many errors
            return number
    raise AssertionError("the disk never filled")


def fill(path: Path, leave: int = 96 * 1024) -> None:
    """Takes all room of the filesystem but `leave` bytes."""
    free = os.statvfs(path.parent)
    path.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))
