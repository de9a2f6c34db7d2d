"""How an executor ended, in words. Mesos itself says only "Executor terminated", and beside it, in a FAILURE event, the wait status."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import Final

import msgspec

from framework.mesos.events import Failed, Status
from framework.mesos.verdicts import ALIVE

MOST: Final = 10_000
"""Executors that ended, each until the last update of its task is seen."""
NOT_STARTED: Final = {126: "cannot run", 127: "does not find"}
"""What a shell's exit status says of the program."""


def ending(wait_status: int, program: str) -> str:
    """Such as `killed by SIGKILL`; empty for an executor that ended as it should. `program` is what was to be started.

    Mesos sends -1 for an executor that ended while its agent was away.
    """
    wait_status &= 0xFFFF
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        return f"the executor was killed by {signal.Signals(number).name if number in set(signal.Signals) else f'signal {number}'}"
    if not os.WIFEXITED(wait_status):
        return "the executor ended, and its agent does not know how"
    code = os.WEXITSTATUS(wait_status)
    if code in NOT_STARTED:
        return f"the agent {NOT_STARTED[code]} the executor {program}, which [executor] command in polly.toml names"
    return f"the executor ended with exit status {code}" if code else ""


@dataclass(slots=True)
class Endings:
    """Puts how the executor ended into the last update of its task, where Mesos' own words are all that there is."""

    program: str
    _words: dict[str, str] = field(default_factory=dict)

    def note(self, failed: Failed) -> str:
        """Returns the words, empty where there is nothing to say."""
        words = "" if failed.status is None else ending(failed.status, self.program)
        if words and failed.executor_id:
            self._words[failed.executor_id] = words
            while len(self._words) > MOST:
                del self._words[next(iter(self._words))]
        return words

    def told(self, status: Status) -> Status:
        """An executor has the id of its task."""
        if status.state in ALIVE or not (words := self._words.pop(status.task_id, "")) or status.data:
            return status
        return msgspec.structs.replace(status, message="; ".join(filter(None, (status.message, words))))
