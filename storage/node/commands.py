"""The one way to run a tool of the system: an argument list, a deadline, and the tool's last words when it fails.

Never a shell, never the user's locale, never a path that could be read as an option.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from storage.errors import NodeError

DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""util-linux's way to set PR_SET_PDEATHSIG: Python's own needs a slow fork that is unsafe beside threads."""

TOOLS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the tools are if the environment has no PATH of use."""

LAST_WORDS: Final = 400
"""Characters of a tool's output that an error carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a tool ended, with exit codes as the caller allowed them."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """What it said at the end, errors before output, in one line."""
        return " ".join((self.err.strip() or self.out.strip()).split())[-LAST_WORDS:]


class Run(Protocol):
    """Runs a tool; what the tests put a recorder in place of."""

    def __call__(
        self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False
    ) -> Output:
        """Runs `command` with `--` before `paths`. Raises NodeError for an exit code that is not in `ok`, or after `timeout_s`.

        With `writes` the tool dies with the thread that waits for it, so that none goes on writing for a holder that is gone.
        """


def run(command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
    """Runs a tool to its end; see Run."""
    target = paths[0] if paths else ""
    leash = DIES_WITH_US if writes else ()
    try:
        ended = _spawn([*leash, *command, *(("--", *paths) if paths else ())], timeout_s)
    except FileNotFoundError as error:
        raise NodeError(command=command[0], target=target, reason="this program is not installed") from error
    except OSError as error:
        raise NodeError(command=command[0], target=target, reason=str(error)) from error
    if ended is None:
        raise NodeError(command=command[0], target=target, reason=f"it did not end within {timeout_s} s and was killed")
    if ended.code not in ok:
        raise NodeError(command=command[0], target=target, reason=f"exit code {ended.code}: {ended.last_words or 'it said nothing'}")
    return ended


def _spawn(arguments: Sequence[str], timeout_s: float) -> Output | None:
    """None: it ran out of time and was killed."""
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": _path(os.environ.get("PATH", "")), "LC_ALL": "C"},
        text=True,
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException as error:
        _kill(process)
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise
    return Output(code=process.returncode, out=out, err=err)


def _path(said: str) -> str:
    """Without folders that are relative: an executor's working folder is the sandbox, where the task's user may put any program."""
    return ":".join(folder for folder in said.split(":") if os.path.isabs(folder)) or TOOLS


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    # One that hangs in the kernel cannot be reaped; waiting for it without end would hang us too.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=1.0)
