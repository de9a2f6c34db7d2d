"""The running broker: the one thread in which all decisions are made, what it works with, and how other threads ask it."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from framework.clock import steady_clock
from framework.config import Config
from framework.drifting import Drifting
from framework.failures import BrokerBusy, BrokerUnavailable
from framework.fitting import doubles
from framework.ids import new_id
from framework.janitor import Janitor
from framework.mesos.context import FRAMEWORK_ID, Calls, Context
from framework.mesos.scheduler import Item, Scheduler
from framework.mesos.tasks import scheduler_name
from framework.restoring import catch_up
from framework.retention import Retention
from framework.settling import Settler
from framework.verbs import fulfilled
from framework.volumes import Volumes
from framework.workers import Workers
from storage.errors import AlreadyLed, LedgerUnavailable, PollyError
from storage.inventory import Ledger
from storage.platforms.base import Platform

logger = logging.getLogger(__name__)
T = TypeVar("T")

BATCH = 4096
"""Events handled in one go, at most."""
IDLE_S = 5.0
TICK_S = 0.1
"""How often `tick` looks around while events keep coming."""
RESUME_S = 15.0
RESUME_SOON_S = 1.0
"""While something is left to tidy up."""
ANSWER_S = 30.0
SWITCH_S = 0.0005
"""How long the thread that has Python may keep it while another wants it. The ledger's waits for it between two statements, of which
it runs some forty in a large round: with Python's 5 ms the database would be idle for most of the time."""


@dataclass(frozen=True, slots=True)
class Look:
    """A call that changes nothing."""

    step: Callable[[], None]

    def __call__(self) -> None:
        self.step()


class Loop:
    """The broker's thread: takes events and calls off one queue, in order; everything else only puts them there."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked: set[Future[Any]] = set()
        self._closed = threading.Event()
        """The thread is over: nothing that is posted is handled any more."""
        self.failed: BaseException | None = None
        self.ended = threading.Event()

    def post(self, item: Item) -> None:
        """From any thread; never blocks."""
        self._queue.put(item)

    def start(self, handle: Callable[[list[Item]], None], tick: Callable[[float], None], next_at: Callable[[float], float | None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(handle, tick, next_at), name="polly-broker")
        self._thread.start()

    def stop(self) -> None:
        """What is queued already is still handled."""
        self._queue.put(None)
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, handle: Callable[[list[Item]], None], tick: Callable[[float], None], next_at: Callable[[float], float | None]) -> None:
        try:
            ticked, is_owed = float("-inf"), True
            while True:
                due_at = ticked if is_owed else next_at(self._clock())
                items, more = self._take(due_at, ticked)
                handle(items)
                now = self._clock()
                # What events bring about (somebody waits, somebody is to be killed) is done by the tick that follows them.
                is_owed = bool(items) and now - ticked < TICK_S and all(_may_wait(item) for item in items)
                if not is_owed:
                    tick(now)
                    ticked = now
                if not more:
                    return
        except BaseException as error:
            # A fault here is the program's own. The ledger holds every decision: to end and start again is safe, to go on may not be.
            logger.critical("the broker's thread failed; the broker ends, its tasks live on", exc_info=True)
            self.failed = error
        finally:
            self.ended.set()
            self._closed.set()
            for answer in list(self._asked):
                _fail(answer)

    # --- calls from other threads -----------------------------------------------------------------

    def ask(
        self, call: Callable[[], Future[T]], guarded: Callable[[Callable[[], None]], None], *, changes_nothing: bool = False
    ) -> Future[T]:
        """Makes the call in this thread, within `guarded`. The future that is returned is fulfilled with what it comes to, at the latest
        when the loop ends. No tick needs to follow at once what `changes_nothing`."""
        answer: Future[T] = Future()
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)
        step = partial(guarded, lambda: _answer(answer, call))
        self.post(Look(step) if changes_nothing else step)
        if self._closed.is_set():
            _fail(answer)
        return answer

    def _take(self, due_at: float | None, ticked: float) -> tuple[list[Item], bool]:
        now = self._clock()
        wait_s = IDLE_S if due_at is None else min(IDLE_S, max(due_at - now, ticked + TICK_S - now, 0.0))
        items: list[Item] = []
        try:
            item = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            while item is not None:
                items.append(item)
                if len(items) >= BATCH:
                    return items, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return items, True
        return items, False


def _may_wait(item: Item) -> bool:
    """Whether the tick after it may: it is an event, of which more may come, or changes nothing."""
    return isinstance(item, Look) or not callable(item)


def _answer(answer: Future[T], call: Callable[[], Future[T]]) -> None:
    """Raises LedgerUnavailable again, for then the commit is in doubt, and every fault of the program's own."""
    try:
        call().add_done_callback(partial(_hand_on, answer))
    except BaseException as error:
        _fail(answer, error)
        if not isinstance(error, PollyError) or isinstance(error, (LedgerUnavailable, AlreadyLed)):
            raise


def _hand_on(answer: Future[T], done: Future[T]) -> None:
    if (error := done.exception()) is not None:
        _fail(answer, error)
    else:
        with suppress(InvalidStateError):
            answer.set_result(done.result())


def _fail(answer: Future[Any], error: BaseException | None = None) -> None:
    with suppress(InvalidStateError):
        answer.set_exception(error or BrokerUnavailable(url="this address", reason="it is ending"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a broker is made of; tests put their own in."""

    config: Config
    ledger: Ledger
    make_driver: Callable[[str | None, Callable[[Item], None]], Any]
    """(framework id of an earlier life, where events go) -> framework.mesos.driver.Driver."""
    platforms: Mapping[str, Platform]
    clock: Callable[[], float] = field(default_factory=steady_clock)
    """The ledger's clock too: leases are stored by the one and watched by the other."""
    ids: Callable[[], str] = new_id


class Engine:
    """One running broker. `start` leads the ledger's framework until `stop`."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.config, self.ledger, self.platforms = parts.config, parts.ledger, parts.platforms
        self.name = scheduler_name(parts.config)
        self.loop = Loop(clock=parts.clock)
        self.gave_up = ""
        self._stack = ExitStack()

    def start(self, who: str, *, restored: bool = False) -> None:
        """Raises AlreadyLed where another broker runs this framework on the same ledger, and what a platform raises that cannot be listed
        after the ledger was restored from a backup.
        """
        with ExitStack() as stack:
            stack.enter_context(self.ledger.lead(self.name, who))
            with self.ledger.begin("broker") as tx:
                tx.put_profiles(list(self.config.profiles.values()))
            sys.setswitchinterval(SWITCH_S)
            self.workers = Workers(self.loop.post, parallel=self._parallel)
            stack.callback(self.workers.close)
            self.driver = self.parts.make_driver(self.ledger.setting(f"{self.name} {FRAMEWORK_ID}"), self.loop.post)
            self._assemble(self.driver)
            self.context.learn_node_names()
            if restored:
                self.janitor.sync_pools_now()
                catch_up(self.ledger, self.platforms, self.parts.ids)
            self.scheduler.apps.take_up(self.ledger.restore(self.name), self.parts.clock())
            self.janitor.sync_pools_now()
            for double in doubles(self.config.platforms, self.ledger.pools()) if len(self.platforms) > 1 else ():
                logger.warning("%s, so it is promised twice; make one block of the two", double)
            self.loop.start(self._handle, self._tick, self._next_at)
            stack.callback(self.loop.stop)
            self.driver.start()
            self._stack = stack.pop_all()

    def _parallel(self, platform: str) -> int:
        """As the adapter says; one that polly.toml no longer has can only be asked nothing."""
        adapter = self.platforms.get(platform)
        return max(1, adapter.capabilities.parallel) if adapter else 1

    def _assemble(self, driver: Calls) -> None:
        parts = self.parts
        settler = Settler(self.platforms, self.workers, clock=parts.clock, retry_s=self.config.claims.fence_retry_s)
        self.context = Context(
            config=self.config,
            ledger=self.ledger,
            platforms=self.platforms,
            kinds={name: block.keys.kind for name, block in self.config.platforms.items()},
            driver=driver,
            workers=self.workers,
            settler=settler,
            clock=parts.clock,
            ids=parts.ids,
            tidy_soon=self.tidy_soon,
        )
        self.volumes = Volumes(
            self.config, self.ledger, self.platforms, self.workers, clock=parts.clock, ids=parts.ids, changed=self.context.forget
        )
        self.janitor = Janitor(
            self.config, self.ledger, dict(self.platforms), self.volumes, self.workers, clock=parts.clock, full=self.context.full
        )
        self.drifting = Drifting(
            self.ledger,
            self.platforms,
            self.workers,
            clock=parts.clock,
            store_pools=self.janitor.store_pools,
            changed=self.context.forget,
        )
        self.retention = Retention(self.config.ledger.keep_events_days, self.ledger, self.workers, clock=parts.clock)
        self.scheduler = Scheduler(self.context, reclaim=self.janitor.reclaim, gave_up=self._give_up)
        self._resume_at = 0.0

    def stop(self, *, failover: bool = True) -> None:
        """Ends the broker. Its tasks live on, unless `failover` is False: then Mesos ends the framework and them."""
        try:
            self.driver.stop(failover=failover)
        finally:
            self._stack.close()

    def _give_up(self, reason: str) -> None:
        self.gave_up = reason
        self.loop.ended.set()

    def _handle(self, items: list[Item]) -> None:
        self.scheduler.handle(items)
        self.scheduler.guarded(self.volumes.store_deleted)

    def _tick(self, now: float) -> None:
        self.scheduler.tick(now)
        if now >= self._resume_at:
            self._resume_at = now + RESUME_SOON_S
            self.scheduler.guarded(lambda: self._resume(now))
        self.scheduler.guarded(self.janitor.look_at_pools)
        self.retention.tick(now)

    def _resume(self, now: float) -> None:
        if not self.janitor.resume():
            self._resume_at = now + RESUME_S

    def tidy_soon(self) -> None:
        """Something was left that the janitor is to delete."""
        self._resume_at = 0.0

    def _next_at(self, now: float) -> float | None:
        instants = (self._resume_at, self.janitor.pools_due_at(), self.retention.due_at, self.scheduler.next_at(now))
        return min(instant for instant in instants if instant is not None)

    # --- calls from other threads -----------------------------------------------------------------

    def ask(self, call: Callable[[], T]) -> T:
        """Makes the call in the broker's thread and waits for its value or error."""
        return self.ask_later(lambda: fulfilled(call()))

    def look(self, call: Callable[[], T]) -> T:
        """Like `ask`, for a short call that changes nothing. Many in a row cost the broker no more than what they look at."""
        return self._answered(self.loop.ask(lambda: fulfilled(call()), self.scheduler.guarded, changes_nothing=True))

    def ask_later(self, call: Callable[[], Future[T]]) -> T:
        """Like `ask`, for verbs whose value comes when a platform has answered. Raises BrokerBusy if that takes too long."""
        return self._answered(self.loop.ask(call, self.scheduler.guarded))

    @staticmethod
    def _answered(answer: Future[T]) -> T:
        try:
            return answer.result(timeout=ANSWER_S)
        except FutureTimeout:
            raise BrokerBusy(timeout_s=ANSWER_S) from None
