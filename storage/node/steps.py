"""One step of bringing or releasing a volume: allowed by the lease, journalled before and after, timed, told to who asked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from storage.errors import NodeError
from storage.node import commands
from storage.node.commands import Run
from storage.node.devices import Roots
from storage.node.journal import Journal
from storage.node.pace import Deadline, Pace

OnStep = Callable[[str, float], None]
"""Called after each step with its name and the milliseconds that it took."""


def ignore(step: str, took_ms: float) -> None:
    """Tells nobody."""


CAP_SYS_RESOURCE: Final = 24


def has_capability(number: int, status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has a Linux capability in effect."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> number & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The node as it is used: where the kernel's trees are, how time passes, how tools are run, what we may do."""

    roots: Roots = field(default_factory=Roots)
    pace: Pace = field(default_factory=Pace)
    run: Run = commands.run
    may_mount: bool = field(default_factory=lambda: os.geteuid() == 0)
    may_resize: bool = field(default_factory=lambda: has_capability(CAP_SYS_RESOURCE))
    """Whether the kernel lets us grow a mounted ext4; many containers' root may not."""
    device_wait_s: float = 60.0
    """How long an attached device may take to come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps of one claim on one node, with what they took."""

    subject: str
    journal: Journal
    on_step: OnStep
    pace: Pace
    deadline: Deadline | None = None
    """None: undoing and releasing know no lease."""
    took_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, *, durable: bool = False, **facts: Any) -> Iterator[None]:
        """Runs the body as a step. `durable`: its intent must outlive the machine. Raises LeaseExpired before anything is begun.

        Without a journal nothing is begun. What was begun is undone and released all the same: its task may have filled the disk.
        """
        if self.deadline is not None:
            self.deadline.begin(name)
        with self._noted():
            self.journal.intent(name, self.subject, durable=durable, **facts)
        began = self.pace.now()
        try:
            yield
        except BaseException as error:
            with suppress(NodeError):  # the error of the step itself counts
                self.journal.failure(name, self.subject, error)
            raise
        took = (self.pace.now() - began) * 1000
        self.took_ms[name] = round(self.took_ms.get(name, 0.0) + took, 3)
        with self._noted():
            self.journal.result(name, self.subject, took_ms=round(took, 3))
        self.on_step(name, took)

    def _noted(self) -> AbstractContextManager[None]:
        return suppress(NodeError) if self.deadline is None else nullcontext()
