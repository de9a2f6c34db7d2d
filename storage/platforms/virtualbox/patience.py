"""Waiting for what another client of VirtualBox has locked: the same call again, after a moment, within a bound."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from storage.platforms.virtualbox.failures import INVALID_STATE, Fault

R = TypeVar("R")
MOMENT_S: Final = 0.05
"""VirtualBox tells nobody that a lock is free; most are held for a hundredth of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    bound_s: float
    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def until_free(self, call: Callable[[], R]) -> R:
        """What the call returns. Raises its Fault if it is not about a lock, or the lock is still there after the bound."""
        end = self.now() + self.bound_s
        while True:
            try:
                return call()
            except Fault as fault:
                if fault.code != INVALID_STATE or self.now() >= end:
                    raise
            self.wait(MOMENT_S * (0.5 + self.chance()))
