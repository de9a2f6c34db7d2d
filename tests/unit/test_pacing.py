"""Pacing: the bucket's rate, what a refusal does to it, and one look for many waiters."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.platforms.pacing import Poller, TokenBucket


@dataclass
class Time:
    now_s: float = 0.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds

    def wait_on(self, condition: threading.Condition, seconds: float) -> None:
        self.wait(seconds)


def bucket(time: Time, rate: float = 10.0, burst: int = 5, chance: float = 0.0) -> TokenBucket:
    return TokenBucket(rate, burst, now=time.now, wait=time.wait, chance=lambda: chance)


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    time = Time()
    calls = bucket(time)
    for _ in range(25):
        calls.take()
    assert time.now_s == pytest.approx(2.0)
    assert len(time.waits) == 20


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.floats(0, 1))
def test_no_window_has_more_calls_than_rate_and_burst_allow(gaps: list[float], chance: float) -> None:
    time = Time()
    calls, at = bucket(time, chance=chance), []
    for gap in gaps:
        time.now_s += gap
        calls.take()
        at.append(time.now_s)
    for first in range(len(at)):
        for last in range(first, len(at)):
            assert last - first + 1 <= 5 + 10.0 * (at[last] - at[first]) + 1e-6


def test_a_refusal_slows_down_once_and_time_brings_the_rate_back() -> None:
    time = Time()
    calls = bucket(time, rate=10.0, burst=1)
    for _ in range(5):
        calls.throttled()
    calls.take()
    assert time.waits == [pytest.approx(1 / 7)]
    time.now_s += 60
    before = time.now_s
    for _ in range(21):
        calls.take()
    assert time.now_s - before == pytest.approx(2.0)


def test_one_look_serves_all_that_wait() -> None:
    looks: list[Sequence[str]] = []
    all_wait = threading.Barrier(21)

    def look(keys: Sequence[str]) -> dict[str, str]:
        looks.append(keys)
        return dict.fromkeys(keys, "attached")

    poller: Poller[str, str] = Poller(look, every_s=0.2)

    def one(name: str) -> None:
        all_wait.wait()
        assert poller.until(name, lambda seen: seen == "attached", timeout_s=10) == (True, "attached")

    threads = [threading.Thread(target=one, args=(f"vol-{number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    all_wait.wait()
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)
    assert sum(map(len, looks)) == 20
    assert len(looks) <= 3


def test_a_thing_that_is_gone_is_seen_as_none_and_time_runs_out() -> None:
    time = Time()
    poller: Poller[str, str] = Poller(lambda keys: {}, every_s=1.0, now=time.now, wait=time.wait_on)
    assert poller.until("vol-1", lambda seen: seen is None, timeout_s=5) == (True, None)
    assert poller.until("vol-1", lambda seen: seen is not None, timeout_s=5) == (False, None)
    assert time.now_s == pytest.approx(6.0, abs=0.1)


def test_keys_are_looked_for_in_parts_and_a_failure_is_everybodys() -> None:
    time = Time()
    parts: list[int] = []

    def look(keys: Sequence[str]) -> dict[str, str]:
        parts.append(len(keys))
        raise ConnectionError("no way there")

    poller: Poller[str, str] = Poller(look, most=1, now=time.now, wait=time.wait_on)
    with pytest.raises(ConnectionError):
        poller.until("vol-1", lambda seen: True, timeout_s=5)
    assert parts == [1]


# --- learning how long a change takes ------------------------------------------------------------------------


def changes(time: Time, poller: Poller[str, str], took_s: float) -> float:
    """Waits for a change that takes so long; how much longer it was waited for."""
    done_at = time.now_s + took_s
    done, _ = poller.until("vol-1", lambda seen: time.now_s >= done_at, timeout_s=600)
    assert done
    return time.now_s - done_at


def learning(time: Time, looks: list[float]) -> Poller[str, str]:
    def look(keys: Sequence[str]) -> dict[str, str]:
        looks.append(time.now_s)
        return {}

    return Poller(look, every_s=1.0, learns=True, now=time.now, wait=time.wait_on)


def test_a_poller_that_learns_looks_once_and_just_in_time() -> None:
    time, looks = Time(), list[float]()
    poller = learning(time, looks)
    late = [changes(time, poller, 2.0) for _ in range(30)]
    assert sum(late[5:]) / 25 < 0.1
    assert len(looks) < 2 * 30


def test_a_change_that_takes_long_is_not_looked_for_often() -> None:
    time, looks = Time(), list[float]()
    assert changes(time, learning(time, looks), 60.0) <= 1.0
    assert len(looks) < 66


@given(st.floats(0.05, 30))
def test_what_was_learnt_is_never_far_off(took_s: float) -> None:
    time = Time()
    poller = learning(time, [])
    late = [changes(time, poller, took_s) for _ in range(200)]
    assert max(late[150:]) <= max(0.2, took_s / 8)


def test_the_more_wait_the_rarer_the_looks() -> None:
    looks: list[int] = []
    waiting: set[int] = set()
    began: list[float] = []

    def look(keys: Sequence[int]) -> dict[int, str]:
        looks.append(len(keys))
        return dict.fromkeys(keys, "x")

    def now() -> float:
        """Time stands still until all wait."""
        if len(waiting) == 64 and not began:
            began.append(time.monotonic())
        return time.monotonic() - began[0] if began else 0.0

    def wait(condition: threading.Condition, timeout_s: float) -> None:
        waiting.add(threading.get_ident())
        condition.wait(timeout_s)

    poller: Poller[int, str] = Poller(look, every_s=0.05, learns=True, now=now, wait=wait)
    threads = [
        threading.Thread(target=poller.until, args=(number, lambda seen: seen == "x"), kwargs={"timeout_s": 10}) for number in range(64)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)
    assert looks == [64]
