"""Waiting on a condition with a deadline: the one place where the tests poll. It knows nothing of what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

INTERVAL_S = 0.02
EMULATED_S = 60.0
"""How long to wait for programs on a processor that is computed, where there is no KVM, and of which a busy machine leaves little."""

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "the condition", *, every_s: float = INTERVAL_S) -> T:
    """Asks until the answer is true, and returns that answer; more rarely where asking costs something.

    An AssertionError or OSError of `condition` counts as "not yet". When `timeout_s` seconds are over, TimeoutError
    names `what` was waited for, with the last answer or the last error as its cause.
    """
    never = threading.Event()
    deadline = time.monotonic() + timeout_s
    while True:
        answer: object = None
        cause: Exception | None = None
        try:
            if found := condition():
                return found
            answer = found
        except (AssertionError, OSError) as error:
            cause = error
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s, last answer {cause or answer!r}") from cause
        never.wait(every_s)
