"""A polly-executor that does itself harm at a named step, once: `python -m tests.cluster.dying_executor HARM WHEN:STEP FLAG`.

HARM is `kill` (SIGKILL), `stop` (SIGSTOP, until a test lets it go on) or `stall:SECONDS` (held up, as by a machine that swaps). WHEN is
`before` or `after`. STEP is a step of storage/node/steps.py: create, attach, probe, mkfs, birth, fsck, mount, unmount, detach. Whoever
makes the file FLAG is the one that is harmed; every later executor runs unharmed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from executors.main import main


def harm(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    threading.Event().wait(float(how.removeprefix("stall:")))


def arm(how: str, point: str, flag: str) -> None:
    from storage.node.steps import Steps

    when, _, wanted = point.partition(":")
    original = Steps.step

    def chosen(name: str, now: str) -> bool:
        if (name, now) != (wanted, when):
            return False
        with contextlib.suppress(FileExistsError):
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return True
        return False

    @contextlib.contextmanager
    def step(self: Steps, name: str, **facts: Any) -> Iterator[None]:
        if chosen(name, "before"):
            harm(how)
        with original(self, name, **facts):
            yield
        if chosen(name, "after"):
            harm(how)

    Steps.step = step  # type: ignore[method-assign]  # for this test


if __name__ == "__main__":
    arm(*sys.argv[1:4])
    sys.exit(main([]))
