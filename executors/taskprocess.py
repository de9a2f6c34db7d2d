"""The executor's end of the task's init: started early, told what to run once the volumes are there, watched to its end.

Knows how to start executors/init.py so that it dies with this process, and nothing of volumes or Mesos.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from msgspec import Struct

from executors import init

CLONE_NEWPID = 0x20000000


class Program(Struct, frozen=True, kw_only=True):
    """What the task runs, and as whom."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    user: tuple[str, int, int] | None = None
    """Name, uid and gid to change to, with all the user's groups; None: stay."""
    binds: tuple[tuple[str, str, bool], ...] = ()
    """Folders that the task alone sees over paths of the machine: the folder, the path, whether it is read-only there."""
    hide: tuple[str, ...] = ()
    """Mounts of the executor that the task has no use for."""


class TaskStarted(Struct, frozen=True, kw_only=True):
    """The task's program has been executed."""


class TaskRefused(Struct, frozen=True, kw_only=True):
    """The task's program could not be executed."""

    step: str
    reason: str


class TaskEnded(Struct, frozen=True, kw_only=True):
    """No process of the task is left, as far as init's mode can see to that."""

    status: int | None
    """The wait status of the task's own process; None if init was ended before it, by us or by somebody else."""


TaskEvent = TaskStarted | TaskRefused | TaskEnded


class TaskProcess:
    """One init and, later, the task below it. To be made in the thread that lives longest, while there is no other.

    The kernel sends init's death signal when the *thread* that forked it ends.
    """

    def __init__(self, *, namespaced: bool) -> None:
        """Starts init. Raises OSError; PermissionError where a PID namespace is not allowed."""
        ours, theirs = socket.socketpair()
        with theirs:
            if namespaced:
                with _pid_namespace_for_children():
                    pid = _fork_init(theirs.fileno(), namespaced=True)
            else:
                pid = _fork_init(theirs.fileno(), namespaced=False)
        self.namespaced = namespaced
        self.pid = pid
        self._socket = ours
        self._pidfd = os.pidfd_open(pid)
        self._told = False

    def start(self, program: Program, inbox: Callable[[TaskEvent], None], *, descriptors: Sequence[int] = ()) -> None:
        """Runs the program; what becomes of it comes to `inbox`, from a thread of its own. `descriptors` stay open below it."""
        specification = {
            "argv": list(program.argv),
            "env": program.env,
            "cwd": program.cwd,
            "user": program.user,
            "binds": list(program.binds),
            "hide": list(program.hide),
            "descriptors": len(descriptors),
        }
        self._told = True
        threading.Thread(target=self._watch, args=(inbox,), name="task", daemon=True).start()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # init is gone; the watcher says so
            self._socket.sendall(init.frame(specification))
            if descriptors:
                socket.send_fds(self._socket, [b"\0"], list(descriptors))

    def end_task(self) -> None:
        """SIGTERM to the task's process group."""
        self._order(init.END_TASK)

    def end_all(self) -> None:
        """SIGKILL to everything. TaskEnded comes when it is done."""
        if self.namespaced:
            self._kill_init()
        self._order(init.END_ALL)

    def discard(self) -> None:
        """Ends init, and with it all that it holds; one that was never told to start anything is gone when this returns."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._told:
            self._kill_init()
            self._reap()

    def _kill_init(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _order(self, order: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(order)

    def _watch(self, inbox: Callable[[TaskEvent], None]) -> None:
        status: int | None = None
        for said in self._frames():
            if "started" in said:
                inbox(TaskStarted())
            elif "refused" in said:
                inbox(TaskRefused(step=said["refused"], reason=said["reason"]))
            else:
                status = said["ended"]
        self._reap()
        inbox(TaskEnded(status=status))

    def _frames(self) -> Iterator[dict[str, Any]]:
        while (said := init.read_frame(self._socket.fileno())) is not None:
            yield said

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _fork_init(control: int, *, namespaced: bool) -> int:
    pid = os.fork()
    if pid == 0:
        _become_init(control, namespaced=namespaced)
    return pid


def _become_init(control: int, *, namespaced: bool) -> NoReturn:
    """In the forked child: never returns. init gets no variable of ours: a task that is root could read them there."""
    try:
        if namespaced:
            init.Libc().prctl(init.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        init.close_all_but([control])
        os.set_inheritable(control, True)
        mode = "namespaced" if namespaced else "plain"
        # an argument list, and no shell is wanted
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-X", "utf8", init.__file__, mode, str(control)], {})  # noqa: S606
    except BaseException as error:
        os.write(2, f"polly-executor: init cannot be started: {error}\n".encode())
    os._exit(127)


@contextlib.contextmanager
def _pid_namespace_for_children() -> Iterator[None]:
    """The first process that is forked here is pid 1 of a new PID namespace; later ones, and threads, are in the old one again."""
    libc = init.Libc()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.unshare(CLONE_NEWPID)
        try:
            yield
        finally:
            libc.setns(own, CLONE_NEWPID)
    finally:
        os.close(own)
