"""How fast a platform's API is called: a token bucket that slows down when the API refuses, and looks that many waiters share.

Knows no API. Time and chance are passed in; all is safe to use from many threads.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LEAST: Final = 1 / 16
"""How slow refusals can make a bucket, as a part of its full rate."""
RECOVERY_S: Final = 20.0
"""How long a bucket takes from standing still to its full rate, when nothing is refused."""


class TokenBucket:
    """So many calls a second, and so many at once after a rest."""

    def __init__(
        self,
        rate_per_s: float,
        burst: int,
        *,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._full, self._burst = rate_per_s, burst
        self._now, self._wait, self._chance = now, wait, chance
        self._rate, self._tokens, self._at = rate_per_s, float(burst), now()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Waits until one more call may be made."""
        if (wait_s := self._reserve()) > 0:
            self._wait(wait_s * (1 + self._chance() / 10))

    def throttled(self) -> None:
        """The API has refused a call for its rate: from now on at half the speed, which grows again by itself."""
        with self._lock:
            self._refill()
            self._rate = max(self._rate / 2, self._full * LEAST)
            self._tokens = min(self._tokens, 0.0)

    def _reserve(self) -> float:
        """Takes a token, perhaps one that is yet to come, and says in how many seconds it does."""
        with self._lock:
            self._refill()
            self._tokens -= 1
            return max(0.0, -self._tokens / self._rate)

    def _refill(self) -> None:
        now = self._now()
        passed, self._at = max(0.0, now - self._at), now
        self._tokens = min(float(self._burst), self._tokens + passed * self._rate)
        self._rate = min(self._full, self._rate + self._full * passed / RECOVERY_S)


def _wait_on(condition: threading.Condition, timeout_s: float) -> None:
    condition.wait(timeout_s)


class Poller(Generic[K, V]):
    """Many wait for things to change; one look serves all of them.

    `look` is given the keys that are waited for, `most` at a time, and returns what is there of them; a key that it leaves
    out is gone. What it raises is raised to everybody who waits.
    """

    def __init__(
        self,
        look: Callable[[Sequence[K]], Mapping[K, V]],
        *,
        every_s: float = 1.0,
        most: int = 200,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float], None] = _wait_on,
    ) -> None:
        self._look, self._every_s, self._most = look, every_s, most
        self._now, self._wait = now, wait
        self._changed = threading.Condition()
        self._waiting: dict[K, int] = {}
        self._seen: dict[K, V | Exception | None] = {}
        self._rounds: dict[K, int] = {}
        self._round = 0
        self._looking = False
        self._due_at = float("-inf")

    def until(self, key: K, ready: Callable[[V | None], bool], *, timeout_s: float) -> tuple[bool, V | None]:
        """Waits until `ready` holds of what is seen under `key` (None: it is gone), and returns that it did, and what was seen last."""
        end = self._now() + timeout_s
        with self._changed:
            self._waiting[key] = self._waiting.get(key, 0) + 1
            if len(self._waiting) == 1:
                self._due_at = max(self._due_at, self._now() + self._every_s)
            try:
                return self._await(key, ready, end)
            finally:
                self._leave(key)

    def _await(self, key: K, ready: Callable[[V | None], bool], end: float) -> tuple[bool, V | None]:
        known = self._round
        while True:
            if self._rounds.get(key, 0) > known:
                known = self._rounds[key]
                seen = self._seen[key]
                if isinstance(seen, Exception):
                    raise seen
                if ready(seen) or self._now() >= end:
                    return ready(seen), seen
            due_in, left = self._due_at - self._now(), end - self._now()
            if not self._looking and (due_in <= 0 or left <= 0):
                self._look_once()
            else:
                self._wait(self._changed, max(0.001, min(due_in if due_in > 0 else self._every_s, left if left > 0 else self._every_s)))

    def _look_once(self) -> None:
        """Looks for everybody, with the lock dropped meanwhile."""
        self._looking = True
        keys = list(self._waiting)
        self._changed.release()
        try:
            found = {
                key: answer for start in range(0, len(keys), self._most) for key, answer in self._part(keys[start : start + self._most])
            }
        finally:
            self._changed.acquire()
            self._looking = False
        self._round += 1
        for key in keys:
            if key in self._waiting:
                self._seen[key], self._rounds[key] = found[key], self._round
        self._due_at = self._now() + self._every_s
        self._changed.notify_all()

    def _part(self, keys: Sequence[K]) -> list[tuple[K, V | Exception | None]]:
        try:
            found = self._look(keys)
        except Exception as error:
            return [(key, error) for key in keys]
        return [(key, found.get(key)) for key in keys]

    def _leave(self, key: K) -> None:
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
            self._seen.pop(key, None)
            self._rounds.pop(key, None)
