"""What a test with root's powers may leave behind on a machine: loop devices, mounts and processes."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What there is now under one folder, and of this process' making."""

    loop_devices: frozenset[str]
    mounts: frozenset[str]
    processes: frozenset[tuple[int, str]]

    def since(self, before: Traces) -> list[str]:
        """One sentence for each thing that was not there before."""
        return [
            *(f"loop device left: {name}" for name in sorted(self.loop_devices - before.loop_devices)),
            *(f"mount left: {target}" for target in sorted(self.mounts - before.mounts)),
            *(f"process left: {pid} {name}" for pid, name in sorted(self.processes - before.processes)),
        ]


def traces(folder: Path, servers: frozenset[int]) -> Traces:
    """Looks now; `servers` are processes of the session, and what they start is theirs."""
    return Traces(
        loop_devices=frozenset(_loop_devices(folder)),
        mounts=frozenset(_mounts(folder)),
        processes=frozenset(_processes(folder, servers)),
    )


def kill_left(now: Traces, before: Traces) -> None:
    """Ends what was left running, so that the next test starts clean."""
    for pid, _ in now.processes - before.processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _loop_devices(folder: Path) -> list[str]:
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            backing = file.read_text().strip()
            if backing.startswith(f"{folder}/"):
                found.append(f"/dev/{file.parts[3]} of {backing}")
    return found


def _mounts(folder: Path) -> list[str]:
    targets = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [target for target in targets if target.startswith(f"{folder}/")]


def _processes(folder: Path, servers: frozenset[int]) -> list[tuple[int, str]]:
    now = Processes.look()
    ours = (now.descendants({os.getpid()}) | now.at_home_in(folder)) - now.descendants(set(servers)) - servers
    return [(pid, now.names[pid]) for pid in ours]
