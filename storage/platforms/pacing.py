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

SLOWER, ONCE_S = 0.7, 0.2
"""What a refusal makes of a bucket's rate, and how often it may."""
LEAST: Final = 1 / 16
"""How slow refusals can make a bucket, as a part of its full rate."""
SOONER: Final = 0.98
"""How much earlier the next first look comes, after one that found everything done."""
NEXT: Final = (0.05, 0.25)
"""After a look that came too early: how much longer to wait for the second, and for each after it, as a part of what was waited already."""
SHORTEST_PAUSE, LONGEST_PAUSE, CROWD = 0.1, 2.0, 56
"""Between two looks of a poller that learns, in pauses of its own: few waiters are looked for often, and CROWD of them once in one."""
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
        self._slowed_at = float("-inf")
        self._lock = threading.Lock()

    def take(self) -> None:
        """Waits until one more call may be made."""
        if (wait_s := self._reserve()) > 0:
            self._wait(wait_s + self._chance() / self._full)

    def throttled(self) -> None:
        """The API has refused a call for its rate: from now on slower, which grows again by itself.

        Calls that were under way together are refused together, and slow it down once.
        """
        with self._lock:
            self._refill()
            self._tokens = min(self._tokens, 0.0)
            if self._at - self._slowed_at >= ONCE_S:
                self._rate, self._slowed_at = max(self._rate * SLOWER, self._full * LEAST), self._at

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


class Usual:
    """How long a change takes, learnt from those that were waited for: the first look at the next one comes just when it has happened."""

    def __init__(self, first_s: float) -> None:
        self._usual_s, self._sooner_after = first_s, 0

    @property
    def look_after_s(self) -> float:
        return self._usual_s

    def happened(self, took_s: float, looks: int, *, seen_by: int) -> None:
        """Seen after so long, with the `looks`-th look. One that was there at the first look may have been there for a while already.

        `seen_by` numbers the look: many that are seen by one make the next come sooner once.
        """
        if looks > 1:
            self._usual_s = took_s
        elif seen_by != self._sooner_after:
            self._usual_s, self._sooner_after = min(took_s, self._usual_s) * SOONER, seen_by


class _Waiter:
    """One thread that waits for one key."""

    __slots__ = ("due_at", "learns", "looks", "since")

    def __init__(self, now: float, look_after_s: float, *, learns: bool) -> None:
        self.since, self.due_at, self.looks, self.learns = now, now + look_after_s, 0, learns


class Poller(Generic[K, V]):
    """Many wait for things to change; one look serves all of them.

    `look` is given the keys that are waited for, `most` at a time, and returns what is there of them; a key that it leaves
    out is gone. What it raises is raised to everybody who waits.

    With `learns` the first look at a key comes when such a change has usually happened, the next ones follow soon, and the
    more keys wait, the rarer the looks: a thousand changes need no more looks than twenty. Who only wants to see what is
    there waits `soon_s` for others to join, or for the look that they wait for.
    """

    def __init__(
        self,
        look: Callable[[Sequence[K]], Mapping[K, V]],
        *,
        every_s: float = 1.0,
        most: int = 200,
        learns: bool = False,
        soon_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float], None] = _wait_on,
    ) -> None:
        self._look, self._every_s, self._most = look, every_s, most
        self._now, self._wait = now, wait
        self._usual, self._soon_s = Usual(every_s) if learns else None, soon_s
        self._changed = threading.Condition()
        self._waiting: dict[K, list[_Waiter]] = {}
        self._seen: dict[K, tuple[int, V | Exception | None]] = {}
        self._round = 0
        self._looking = False
        self._looked_at = float("-inf")

    def until(self, key: K, ready: Callable[[V | None], bool], *, timeout_s: float, soon: bool = False) -> tuple[bool, V | None]:
        """Waits until `ready` holds of what is seen under `key` (None: it is gone), and returns that it did, and what was seen last.

        `soon`: it is no change that is waited for, and nothing is learnt from it.
        """
        with self._changed:
            usual_s = self._usual.look_after_s if self._usual else self._every_s
            waiter = _Waiter(self._now(), self._soon_s if soon else usual_s, learns=not soon)
            self._waiting.setdefault(key, []).append(waiter)
            try:
                return self._await(key, waiter, ready, self._now() + timeout_s)
            finally:
                self._leave(key, waiter)

    def _await(self, key: K, waiter: _Waiter, ready: Callable[[V | None], bool], end: float) -> tuple[bool, V | None]:
        known = self._round + self._looking  # a look that is under way may have begun before what is waited for
        while True:
            made, seen = self._seen.get(key, (0, None))
            if made > known:
                known = made
                if isinstance(seen, Exception):
                    raise seen
                if ready(seen):
                    self._learn(waiter, made)
                    return True, seen
                if self._now() >= end:
                    return False, seen
            due_in = min(self._due_at(), max(end, self._looked_at)) - self._now()
            if self._looking:
                self._wait(self._changed, self._every_s)
            elif due_in <= 0:
                self._look_once()
            else:
                self._wait(self._changed, due_in)

    def _due_at(self) -> float:
        """When the next look is to be: when the first waiter wants one, but not too soon after the last."""
        first = min(waiter.due_at for waiters in self._waiting.values() for waiter in waiters)
        return max(first, self._looked_at + self._pause_s())

    def _pause_s(self) -> float:
        if self._usual is None:
            return self._every_s
        return self._every_s * min(LONGEST_PAUSE, max(SHORTEST_PAUSE, (len(self._waiting) / CROWD) ** 2))

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
            self._looked_at = self._now()
        self._round += 1
        for key in keys:
            if key in self._waiting:
                self._seen[key] = (self._round, found[key])
                for waiter in self._waiting[key]:
                    self._seen_by(waiter)
        self._changed.notify_all()

    def _seen_by(self, waiter: _Waiter) -> None:
        """A look that came early, for others' sake, is none of the waiter's own."""
        if waiter.due_at <= self._looked_at:
            waiter.looks += 1
            waited_s = self._looked_at - waiter.since
            pause_s = min(self._every_s, waited_s * NEXT[min(waiter.looks, len(NEXT)) - 1]) if self._usual else self._every_s
            waiter.due_at = self._looked_at + pause_s

    def _learn(self, waiter: _Waiter, seen_by: int) -> None:
        if self._usual is not None and waiter.learns:
            self._usual.happened(self._now() - waiter.since, max(1, waiter.looks), seen_by=seen_by)

    def _part(self, keys: Sequence[K]) -> list[tuple[K, V | Exception | None]]:
        try:
            found = self._look(keys)
        except Exception as error:
            return [(key, error) for key in keys]
        return [(key, found.get(key)) for key in keys]

    def _leave(self, key: K, waiter: _Waiter) -> None:
        self._waiting[key].remove(waiter)
        if not self._waiting[key]:
            del self._waiting[key]
            self._seen.pop(key, None)
