"""The broker's thread: what is asked of it is answered, whatever happens; what is due wakes it; what is not its fault does not end it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import pytest

from framework.clock import steady_clock
from framework.engine import Engine, Loop
from framework.failures import BrokerUnavailable
from framework.janitor import HUNG_S, SYNC_POOLS_S
from framework.mesos.events import Disconnected, Offers, Subscribed
from framework.mesos.scheduler import Item
from storage.errors import AlreadyLed, LedgerUnavailable, UnknownApp
from storage.platforms.base import PoolReport
from storage.platforms.testing import MemoryPlatform
from tests.ledgers import Clock
from tests.stage import FRAMEWORK, ShakyLedger, app, offers_event
from tests.support import eventually
from tests.unit.engines import Started, parts


@pytest.fixture
def driver() -> Started:
    return Started()


@pytest.fixture
def engine(shaky_ledger: ShakyLedger, driver: Started) -> Iterator[Engine]:
    made = Engine(parts(shaky_ledger, driver))
    made.start(who="test")
    yield made
    made.stop()


def test_what_is_asked_is_done_in_the_brokers_thread(engine: Engine) -> None:
    assert engine.ask(lambda: threading.current_thread().name) == "polly-broker"
    with pytest.raises(UnknownApp):
        engine.ask(lambda: engine.scheduler.apps.app("/none"))
    assert not engine.loop.ended.is_set()


def test_events_are_followed_by_what_they_bring_about_at_once(engine: Engine, driver: Started) -> None:
    engine.loop.post(Subscribed(framework_id=FRAMEWORK, heartbeat_s=15.0, master={}))
    engine.ask(lambda: engine.scheduler.apps.run(app(), "test"))
    engine.loop.post(Offers(data=offers_event("a1")))
    eventually(lambda: "suppress" in driver.demand, 2.0, "offers are suppressed once nothing waits")


def test_a_ledger_that_cannot_store_ends_nothing(engine: Engine, shaky_ledger: ShakyLedger) -> None:
    shaky_ledger.fails_before = 1
    with pytest.raises(LedgerUnavailable):
        engine.ask(lambda: engine.scheduler.apps.run(app(), "test"))
    assert engine.ask(lambda: engine.scheduler.apps.run(app(), "test")).instances == 1


def test_a_ledger_that_cannot_be_read_ends_nothing(engine: Engine, shaky_ledger: ShakyLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def away() -> None:
        asked.set()
        raise LedgerUnavailable(url="here", reason="the server is away")

    monkeypatch.setattr(shaky_ledger, "orphans", away)
    engine.ask(engine.tidy_soon)
    assert asked.wait(10)
    assert engine.ask(lambda: 1) == 1


def test_a_platform_that_hangs_while_the_ledger_is_away_ends_nothing(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    asked, over = threading.Semaphore(0), threading.Event()

    class Hanging(MemoryPlatform):
        def pools(self) -> Sequence[PoolReport]:
            asked.release()
            over.wait(30)
            return super().pools()

    engine = Engine(replace(parts(shaky_ledger, Started(), Hanging("disks")), clock=clock))
    over.set()
    engine.start(who="test")
    assert asked.acquire(timeout=10)
    over.clear()
    try:
        engine.ask(partial(setattr, clock, "now", clock.now + SYNC_POOLS_S))
        assert asked.acquire(timeout=10)
        shaky_ledger.fails_before = 1
        engine.ask(partial(setattr, clock, "now", clock.now + HUNG_S))
        eventually(lambda: not shaky_ledger.fails_before, 5.0, "the look in vain was to be stored")
        assert engine.ask(lambda: 1) == 1
    finally:
        over.set()
        engine.stop()


def test_a_broker_that_leads_no_more_ends(engine: Engine) -> None:
    def lost() -> None:
        raise AlreadyLed(scheduler="mesos/stage", holder="another")

    with pytest.raises(AlreadyLed):
        engine.ask(lost)
    assert engine.loop.ended.wait(10)
    assert isinstance(engine.loop.failed, AlreadyLed)


def test_who_asks_a_broker_that_ends_is_told(engine: Engine) -> None:
    never: Future[None] = Future()
    asked: list[BaseException | None] = []

    def ask() -> None:
        try:
            engine.ask_later(lambda: never)
        except BrokerUnavailable as error:
            asked.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    engine.ask(lambda: None)
    engine.loop.stop()
    waiting.join(10)
    assert len(asked) == 1
    with pytest.raises(BrokerUnavailable):
        engine.ask(lambda: None)


def test_a_driver_that_cannot_start_leaves_no_thread_and_no_leadership(shaky_ledger: ShakyLedger) -> None:
    class Broken(Started):
        def start(self) -> None:
            raise OSError("no such host")

    with pytest.raises(OSError, match="no such host"):
        Engine(parts(shaky_ledger, Broken())).start(who="first")
    assert not [thread for thread in threading.enumerate() if thread.name == "polly-broker"]
    second = Engine(parts(shaky_ledger, Started()))
    second.start(who="second")
    second.stop()


def test_a_second_broker_on_the_same_ledger_is_refused(engine: Engine, shaky_ledger: ShakyLedger) -> None:
    with pytest.raises(AlreadyLed):
        Engine(parts(shaky_ledger, Started())).start(who="second")
    assert engine.ask(lambda: 1) == 1


def test_a_connection_that_is_gone_does_not_keep_the_thread_awake(engine: Engine, driver: Started) -> None:
    driver.connected = False
    engine.loop.post(Disconnected(reason="cut"))
    due_at = engine.ask(lambda: engine.scheduler.next_at(engine.parts.clock()))
    assert due_at is None or due_at > engine.parts.clock()


def test_the_steady_clock_is_not_moved_by_the_wall_clock() -> None:
    wall, elapsed = [1_000_000.0], [50.0]
    clock = steady_clock(lambda: wall[0], lambda: elapsed[0])
    assert clock() == 1_000_000.0
    wall[0] -= 86_400
    elapsed[0] += 5
    assert clock() == 1_000_005.0


def test_a_loop_handles_what_was_queued_before_its_end() -> None:
    loop, seen, ticks = Loop(clock=steady_clock()), list[int](), list[float]()

    def handle(items: list[Item]) -> None:
        for item in items:
            if callable(item):
                item()

    loop.post(lambda: seen.append(1))
    loop.start(handle, ticks.append, lambda _: None)
    loop.stop()
    assert seen == [1]
    assert ticks
