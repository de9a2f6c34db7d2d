"""A platform that stops answering and comes back: what is made meanwhile, what is left alone, and what people read of it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from framework.cli.root import root
from framework.doctor import examine
from framework.janitor import HUNG_S, PATIENCE, SYNC_POOLS_S
from framework.service import VolumeOrder
from framework.source import LedgerSource
from framework.views import platforms
from offers.matching import match
from offers.tally import Refusal
from offers.view import StorageView
from storage.errors import PlatformUnavailable
from storage.inventory import Ledger
from storage.model import Hearing, Pool
from storage.platforms.base import PoolReport
from tests.ledgers import Clock, bear, end, fresh, furnish, new, old, placed, refusal, task
from tests.offering import ask, new_volume, old_volume, simple
from tests.stage import Stage, volume_of

EXPIRED = "Platform disks cannot be reached to pools: the credentials have expired."


def look(stage: Stage) -> None:
    stage.clock.now = stage.janitor.pools_due_at()
    stage.janitor.look_at_pools()
    stage.work()


@pytest.fixture
def stage(ledger: Ledger, clock: Clock) -> Stage:
    """A broker on both databases."""
    made = Stage(ledger, clock)
    made.subscribed()
    return made


def test_nothing_new_is_made_until_it_answers_and_what_is_there_goes_on(stage: Stage) -> None:
    (before,) = stage.run(volumes=[volume_of()])
    stage.start(before)
    stage.storage.expired = True
    look(stage)
    since = stage.clock.now
    for _ in range(PATIENCE - 2):
        look(stage)
    assert [pool.state for pool in stage.ledger.pools()] == ["online"], "a look in vain or two are no silence"
    look(stage)
    (pool,) = stage.ledger.pools()
    assert (pool.state, pool.silent_since, pool.silence, pool.free_mib) == ("silent", since, EXPIRED, 0)
    assert stage.run("/new", volumes=[volume_of()]) == []
    (waiting,) = stage.state("/new").waiting.values()
    tally = waiting.tallies["/new#0"]
    assert tally.counts == {Refusal.POOL_OFFLINE: 1}
    assert tally.examples[Refusal.POOL_OFFLINE].startswith("volume /new#0/data cannot be made: platform disks has not answered since 1970-")
    assert tally.examples[Refusal.POOL_OFFLINE].endswith(EXPIRED)
    with pytest.raises(PlatformUnavailable, match=r"make a volume in pool default: .*credentials have expired"):
        stage.volumes.create(VolumeOrder(name="by hand", profile="fast", size_mib=16), "test")

    stage.storage.expired = False
    stage.end(before, "TASK_FAILED")
    stage.tick(3600)
    stage.offer("a2")
    (again,) = stage.tasks()
    assert again.record.hostname == "a2.example", "a volume that is there goes where it is wanted, whatever its platform's pools say"
    assert stage.tasks("/new") == []

    look(stage)
    (pool,) = stage.ledger.pools()
    assert (pool.state, pool.silent_since, pool.silence) == ("online", 0.0, "")
    stage.tick(60)
    stage.offer("a1")
    assert len(stage.tasks("/new")) == 1
    said = [event.what for event in stage.ledger.events(limit=100).items]
    assert [what for what in said if what.startswith("platform.")] == ["platform.silent", "platform.heard"]


def test_a_platform_that_answers_nothing_at_all_is_silent_too(stage: Stage) -> None:
    stage.clock.now = stage.janitor.pools_due_at()
    stage.janitor.look_at_pools()
    (job,) = stage.hands.jobs
    stage.clock.now += HUNG_S + SYNC_POOLS_S
    stage.janitor.look_at_pools()
    assert [hearing.looks for hearing in stage.ledger.hearings()] == [0], "what waits for its turn was not asked yet"
    job[1]()
    stage.clock.now += HUNG_S
    for looks in range(1, PATIENCE + 1):
        stage.janitor.look_at_pools()
        assert [hearing.looks for hearing in stage.ledger.hearings()] == [looks]
        stage.clock.now = stage.janitor.pools_due_at()
    assert len(stage.hands.jobs) == 1, "it is not asked again while it is asked"
    assert "it was asked for its pools 360 s ago" in stage.ledger.pools()[0].silence
    stage.work()
    assert [pool.state for pool in stage.ledger.pools()] == ["online"]


def test_the_ledger_counts_looks_in_vain_over_the_lives_of_brokers(ledger: Ledger, clock: Clock) -> None:
    report = PoolReport(name="pool1", capacity_mib=1000)
    with ledger.begin("test") as tx:
        tx.sync_pools("disks", [report])
    clock.now += 10
    for looks, is_silent in ((1, False), (2, True), (3, False)):
        with ledger.begin("test") as tx:
            assert tx.unheard("disks", f"no {looks}", patience=2) is is_silent
            assert tx.unheard("never", "no route", patience=2) is is_silent
        assert [pool.online for pool in ledger.pools()] == [looks < 2]
        clock.now += 10
    first, second = ledger.hearings()
    assert first == Hearing(platform="disks", heard_at=clock.now - 40, silent_since=clock.now - 30, looks=3, error="no 3")
    assert second == Hearing(platform="never", silent_since=clock.now - 30, looks=3, error="no route")
    with ledger.begin("test") as tx:
        tx.sync_pools("disks", [report])
    assert ledger.hearings()[0] == Hearing(platform="disks", heard_at=clock.now)
    assert [pool.state for pool in ledger.pools()] == ["online"]


def test_claims_on_a_silent_platform_are_taken_and_ended_but_no_room(ledger: Ledger) -> None:
    furnish(ledger)
    claims = placed(ledger, task("t1", fresh("c1", new("one"))))
    bear(ledger, claims[0])
    with ledger.begin("test") as tx:
        tx.unheard("local", "away", patience=1)
    end(ledger, claims)
    assert refusal(ledger, task("t2", fresh("c2", new("two")))).code == "PoolFull"
    (claim,) = placed(ledger, task("t3", old("c3", "one", 1)))
    assert claim.epoch == 2


def test_pools_that_are_not_reported_are_told_from_silent_ones() -> None:
    silent = Pool(platform="ebs", name="a", capacity_mib=100, online=False, silent_since=60.0, silence="refused")
    gone = Pool(platform="nfs", name="b", capacity_mib=100, online=False)
    offer = simple("one")
    for pools, words in (
        ((silent,), "platform ebs has not answered since 1970-01-01 00:01:00 UTC: refused"),
        ((gone,), "pool nfs/b is not reported by its platform any more"),
    ):
        made = match([ask(volumes=(new_volume(10),))], [offer], StorageView(pools=pools), {})
        assert made.tallies["/app#0"].examples == {Refusal.POOL_OFFLINE: f"volume data cannot be made: {words}"}
    both = StorageView(pools=(silent, replace(gone, online=True)))
    (chosen,) = match([ask(volumes=(new_volume(10),))], [offer], both, {}).matches
    assert chosen.volumes[0].platform == "nfs"
    assert len(match([ask(volumes=(old_volume(platform="ebs"),))], [offer], StorageView(pools=(silent,)), {}).matches) == 1


def test_people_and_programs_are_told(ledger_url: str, ledger: Ledger, clock: Clock) -> None:
    with ledger.begin("test") as tx:
        tx.sync_pools("disks", [PoolReport(name="pool1", capacity_mib=1000)])
        for name in ("disks", "never"):
            tx.unheard(name, f"{name} is away.", patience=1)
    source = LedgerSource(ledger)
    shown = {view.name: view for view in platforms(source.pools(), source.hearings())}
    assert [(view.pools, view.online, view.hearing.error) for view in shown.values()] == [
        (1, False, "disks is away."),
        (0, False, "never is away."),
    ]
    text = CliRunner().invoke(root, ["inventory", "--database", ledger_url]).stdout
    for name in ("disks", "never"):
        assert f"Platform {name} has not answered since" in text
        assert f"{name} is away. Nothing new is made there until it does." in text
    assert "silent" in text
    wrong = [finding for finding in examine(config=None, database=ledger_url, broker=None) if finding.subject.startswith("platform")]
    assert [(finding.ok, finding.subject) for finding in wrong] == [(False, "platform disks"), (False, "platform never")]
    assert "1 times in vain since 1970-" in wrong[0].message
