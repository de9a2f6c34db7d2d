"""Time on the node: waiting with a deadline, and the claim's lease."""

from __future__ import annotations

import pytest

from storage.errors import LeaseExpired
from storage.node.pace import Deadline, Pace


class FakeTime:
    def __init__(self) -> None:
        self.at = 1000.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds

    @property
    def pace(self) -> Pace:
        return Pace(now=lambda: self.at, wait=self.wait)


def test_until_asks_again_until_it_holds() -> None:
    time = FakeTime()
    answers = iter([False, False, True])

    assert time.pace.until(lambda: next(answers), timeout_s=5.0, every_s=0.5)
    assert time.waits == [0.5, 0.5]


def test_until_gives_up_at_its_deadline_and_not_later() -> None:
    time = FakeTime()
    asked: list[float] = []

    def never() -> bool:
        asked.append(time.at)
        return False

    assert not time.pace.until(never, timeout_s=1.2, every_s=0.5)
    assert time.at == pytest.approx(1001.2)
    assert asked[0] == 1000.0
    assert asked[-1] == pytest.approx(1001.2)


def test_a_timeout_of_nothing_asks_once() -> None:
    time = FakeTime()

    assert time.pace.until(lambda: True, timeout_s=0.0)
    assert not time.pace.until(lambda: False, timeout_s=0.0)
    assert time.waits == []


def test_a_lease_ends_a_margin_early() -> None:
    time = FakeTime()
    deadline = Deadline.of(30.0, margin_s=5.0, pace=time.pace)

    time.at += 24.9
    deadline.begin("mount")
    assert deadline.left_s == pytest.approx(0.1)
    time.at += 0.1
    with pytest.raises(LeaseExpired, match=r"lease of 30.0 s ended before mount"):
        deadline.begin("mount")
    assert deadline.left_s == 0.0
