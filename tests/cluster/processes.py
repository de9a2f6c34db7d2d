"""The processes of this machine, as /proc shows them: who started whom, and who lives in which folder."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """One look at all processes; those that have ended but wait for their parent (zombies) are not among them."""

    parents: dict[int, int]
    sessions: dict[int, int]
    names: dict[int, str]

    @classmethod
    def look(cls) -> Processes:
        parents, sessions, names = {}, {}, {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
                state, parent, _, session = rest.split()[:4]
                if state not in "ZX":
                    pid = int(entry.name)
                    parents[pid], sessions[pid], names[pid] = int(parent), int(session), name
        return cls(parents=parents, sessions=sessions, names=names)

    def descendants(self, roots: set[int]) -> set[int]:
        """All that the roots and their descendants started and that still have them for ancestors; not the roots."""
        children = defaultdict(set)
        for pid, parent in self.parents.items():
            children[parent].add(pid)
        found: set[int] = set()
        level = roots
        while level:
            level = {child for pid in level for child in children[pid]} - found - roots
            found |= level
        return found

    def in_sessions_of(self, some: set[int]) -> set[int]:
        """All in the sessions that processes of `some` lead; a session outlives its leader's children."""
        led = {pid for pid in some if self.sessions[pid] == pid}
        return {pid for pid, session in self.sessions.items() if session in led}

    def in_namespaces_of(self, some: set[int]) -> set[int]:
        """All in the PID namespaces of `some`, except the one that this process lives in."""
        kinds = {pid: kind for pid in self.parents if (kind := _namespace(pid))}
        theirs = {kinds[pid] for pid in some if pid in kinds} - {_namespace(os.getpid())}
        return {pid for pid, kind in kinds.items() if kind in theirs}

    def at_home_in(self, folder: Path) -> set[int]:
        """All that work in the folder, or were told by MESOS_SANDBOX that it is theirs; not this process."""
        marker = f"MESOS_SANDBOX={folder}/".encode()
        return {pid for pid in self.parents if pid != os.getpid() and _lives_in(pid, f"{folder}/", marker)}


def kill_all(find: Callable[[], set[int]], timeout_s: float = 10.0) -> set[int]:
    """Ends all that `find` finds at once: stops them first, so that none acts on another's death, then SIGKILL.

    Returns whom it killed. Raises TimeoutError if some are there still.
    """
    deadline = time.monotonic() + timeout_s
    killed: set[int] = set()
    while found := _freeze(find):
        _signal(found, signal.SIGKILL)
        killed |= found
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that SIGKILL does not end: {sorted(found)}")
    return killed


def _freeze(find: Callable[[], set[int]]) -> set[int]:
    frozen: set[int] = set()
    while fresh := find() - frozen:
        _signal(fresh, signal.SIGSTOP)
        frozen |= fresh
    return frozen


def _signal(pids: set[int], how: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


def _lives_in(pid: int, folder: str, marker: bytes) -> bool:
    with contextlib.suppress(OSError):
        if f"{os.readlink(f'/proc/{pid}/cwd')}/".startswith(folder):
            return True
    with contextlib.suppress(OSError):
        return marker in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def _namespace(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return None
