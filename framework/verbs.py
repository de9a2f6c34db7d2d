"""How a platform is asked to do what the ledger intends: in a worker, one call at a time for one intent, its result stored.

An intent is given up only when the platform surely did nothing of it; what a death of the broker or a platform's failure leaves
half done is taken up by framework/janitor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from framework.config import Config
from framework.turning import InTurn
from framework.workers import Outcome, Workers
from storage.errors import (
    BornElsewhere,
    Conflict,
    HasSnapshots,
    Invalid,
    NotOurs,
    PollyError,
    PoolFull,
    StaleEpoch,
    TurnLost,
    UnknownPlatform,
    UnknownSnapshot,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
    WorkedOnElsewhere,
)
from storage.inventory import Ledger
from storage.model import Snapshot, Volume
from storage.near import near
from storage.platforms.base import Platform

T = TypeVar("T")
Job = Callable[[InTurn], Any]
Store = Callable[[Any, InTurn], T | Future[T]]
Undo = Callable[[PollyError, InTurn], None]

REFUSALS = (
    BornElsewhere,
    Conflict,
    HasSnapshots,
    Invalid,
    NotOurs,
    PoolFull,
    StaleEpoch,
    UnknownSnapshot,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
"""With these a platform says that it did nothing. After any other error nobody knows, and the intent stands."""
NOT_ASKED = (TurnLost, WorkedOnElsewhere)
"""With these it is another broker's work: the platform has said nothing to this one."""


class Gone(NamedTuple):
    """What a platform has deleted and the ledger still has."""

    actor: str
    volume: Volume
    turn: InTurn
    stored: Future[None]


class Verbs:
    """All methods are the broker thread's; the futures that they return are fulfilled there too."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        platforms: Mapping[str, Platform],
        workers: Workers,
        *,
        clock: Callable[[], float],
        ids: Callable[[], str],
        changed: Callable[[Sequence[Volume]], None],
    ) -> None:
        self._config, self._ledger, self._platforms, self._workers = config, ledger, platforms, workers
        self._clock, self._ids, self._changed = clock, ids, changed
        self._under_way: dict[str, Future[Any]] = {}
        """What platforms are doing to volumes and snapshots whose intent is stored, by their ids."""
        self._gone: list[Gone] = []

    def platform(self, name: str) -> Platform:
        """Raises UnknownPlatform."""
        try:
            return self._platforms[name]
        except KeyError:
            raise UnknownPlatform(platform=name, near=near(name, self._platforms)) from None

    def is_under_way(self, volume_or_snapshot: str) -> bool:
        """Whether the platform is at work on the stored intent."""
        return volume_or_snapshot in self._under_way

    def _run_once(
        self, subject: str, on: Volume | Snapshot, job: Job, store: Store[T], undo: Undo | None = None, note: Undo | None = None
    ) -> Future[T]:
        """One call at a time for one stored intent: who asks again meanwhile waits for the same answer.

        On a ledger of several brokers each goes on with what it finds there. So `job` runs in this broker's turn at the volume, which
        lasts until the result is stored, and looks first whether the intent still stands.
        """
        if under_way := self._under_way.get(subject):
            return under_way
        future = self._under_way[subject] = self._run(
            on.platform, f"volume {on.volume_id}", job, store, undo, note=note, alone_at=_words(on)
        )
        future.add_done_callback(lambda _: self._under_way.pop(subject, None))
        return future

    def _run(
        self,
        platform: str,
        key: str,
        job: Job,
        store: Store[T],
        undo: Undo | None = None,
        *,
        note: Undo | None = None,
        alone_at: str = "",
    ) -> Future[T]:
        """Calls the platform in a worker, then stores the result; after a refusal undoes the intent and hands on the error.

        `store` gives a future where the result is stored later, together with others. `note` is told of an error of the platform's that
        leaves the intent standing. `alone_at` is what no other broker may be at work on meanwhile, in words.
        """
        future: Future[T] = Future()
        turn = InTurn(self._ledger, key, alone_at)

        def in_our_turn() -> Any:
            turn.take()
            return job(turn)

        def stored(outcome: Outcome[Any]) -> Future[T]:
            try:
                if undo is not None and isinstance(outcome.error, REFUSALS):
                    undo(outcome.error, turn)
                elif note is not None and outcome.error is not None and not isinstance(outcome.error, NOT_ASKED):
                    note(outcome.error, turn)
                value = store(outcome.get(), turn)
            except PollyError as error:
                return failed(error)
            return value if isinstance(value, Future) else fulfilled(value)

        def end(result: Future[T]) -> None:
            turn.end()
            if (error := result.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(result.result())

        def done(outcome: Outcome[Any]) -> None:
            stored(outcome).add_done_callback(end)

        self._workers.submit(platform, key, in_our_turn, done)
        return future


def _words(on: Volume | Snapshot) -> str:
    return f"volume {on.name}" if isinstance(on, Volume) else f"snapshot {on.snapshot_id}, or on its volume"


def fulfilled(value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future


def failed(error: PollyError) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
