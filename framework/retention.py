"""Keeps the event log from growing for ever: deletes what is older than `[ledger] keep_events_days` of polly.toml, if that is given.

Brokers on one ledger take turns. A part is deleted in a worker, in a short transaction of its own, and before the next one there is
a pause, in which whoever places tasks finds the ledger free.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from framework.workers import Outcome, Workers
from storage.inventory import Ledger, Pruned

logger = logging.getLogger(__name__)

FIRST_S: Final = 60.0
"""How long after its start a broker looks for old events: other things come first then."""
LOOK_S: Final = 3600.0
PAUSE_S: Final = 0.1
PAUSES: Final = 4
"""So many times as long as a part took is the pause after it, and `PAUSE_S` at the least."""
LANE: Final = "the ledger"
"""A lane of the workers of its own: no platform is called so, for names have no blanks."""
DAY_S: Final = 86_400.0


class Retention:
    """The broker thread's own."""

    def __init__(self, keep_days: float | None, ledger: Ledger, workers: Workers, *, clock: Callable[[], float]) -> None:
        self._keep_s = math.inf if keep_days is None else keep_days * DAY_S
        self._ledger, self._workers, self._clock = ledger, workers, clock
        self.due_at = math.inf if keep_days is None else clock() + FIRST_S
        """When `tick` next has something to do."""
        self._before = 0.0
        """What is older goes, in the look that is under way."""
        self._after: int | None = None
        """Where that look goes on; None between two."""
        self._deleted = 0

    def tick(self, now: float) -> None:
        if now < self.due_at:
            return
        self.due_at = math.inf
        if self._after is None:
            self._before, self._after, self._deleted = now - self._keep_s, 0, 0
        before, after = self._before, self._after
        self._workers.submit(LANE, "events", lambda: self._prune(before, after), lambda outcome: self._pruned(now, outcome))

    def _prune(self, before: float, after: int) -> Pruned | None:
        """In a worker. None where another broker is at it."""
        if (turn := self._ledger.take_turn("events")) is None:
            return None
        try:
            return self._ledger.prune_events(before, after=after)
        finally:
            turn.end()

    def _pruned(self, begun_at: float, outcome: Outcome[Pruned | None]) -> None:
        now = self._clock()
        if outcome.error is not None:
            logger.warning("old events cannot be deleted yet: %s", outcome.error)
        part = None if outcome.error else outcome.get()
        self._deleted += part.deleted if part else 0
        self._after = part.after if part else None
        if self._after is not None:
            self.due_at = now + max(PAUSE_S, PAUSES * (now - begun_at))
            return
        self.due_at = now + LOOK_S
        if self._deleted:
            logger.info("deleted %d events that were older than %g days", self._deleted, self._keep_s / DAY_S)
