"""Brokers as forks of a process that has read all their modules: to read them is most of what a broker's start costs.

Each is a process of its own that does what `polly broker` does, from the command line on, and ends as that would. `cold` in
tests/cluster/rig.py starts the command itself. What forks them has one thread, and nothing of Polly's in it has run.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import BinaryIO, Self

MODULES = (
    "framework.broker",
    "framework.cli.running",
    "framework.rest.app",
    "framework.rest.server",
    "storage.platforms.ebs.platform",
    "storage.platforms.local.platform",
    "tests.cluster.dying_broker",
)
"""What brokers import, now or later; what is not here each of them reads for itself."""
LONGEST_JOB = 1 << 17


class WarmBroker:
    """A fork, with what Popen has that a test needs. It is known by a file descriptor: no signal of ours meets another process."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        said, (self._pidfd,), _, _ = socket.recv_fds(status, 20, 1)
        self.pid = int(said)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                said = self._status.recv(20)
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired("a broker", timeout or 0) from error
            self._status.close()
            os.close(self._pidfd)
            self.returncode = int(said)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, sig)


class WarmPython:
    """The process that forks. It ends with the `with` block, or with this process, and then kills what it has forked."""

    def __enter__(self) -> Self:
        self._jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.cluster.warm", str(theirs.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        return self

    def __exit__(self, *exception: object) -> None:
        self._jobs.close()
        self._process.wait()

    def start(self, die_at: str, arguments: Sequence[str], log: BinaryIO) -> WarmBroker:
        """With this process' environment and folder; see `cold`."""
        job = {"die_at": die_at, "arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._jobs, [json.dumps(job).encode()], [log.fileno(), theirs.fileno()])
        return WarmBroker(ours)


def _forks(jobs: socket.socket) -> tuple[bytes, int] | None:
    """Returns in each fork, with its job and its log, and in the process itself when nobody can ask any more."""
    forks: dict[int, tuple[int, socket.socket]] = {}  # by file descriptors: process ids, and who is told of the end
    with jobs, selectors.PollSelector() as selector:
        selector.register(jobs, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in forks:
                    selector.unregister(key.fd)
                    _tell_the_end(key.fd, *forks.pop(key.fd))
                    continue
                job, given, _, _ = socket.recv_fds(jobs, LONGEST_JOB, 2)
                if not job:
                    for pidfd in forks:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return None
                log, status = given[0], socket.socket(fileno=given[1])
                if not (pid := os.fork()):
                    for pidfd, (_, other) in forks.items():
                        os.close(pidfd)
                        other.close()
                    status.close()
                    return job, log
                os.close(log)
                pidfd = os.pidfd_open(pid)
                socket.send_fds(status, [b"%d" % pid], [pidfd])
                forks[pidfd] = pid, status
                selector.register(pidfd, selectors.EVENT_READ)


def _tell_the_end(pidfd: int, pid: int, status: socket.socket) -> None:
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with status, contextlib.suppress(BrokenPipeError):
        status.send(b"%d" % code)


def _become(job: bytes, log: int) -> None:
    told = json.loads(job)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.path[:0] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder and folder not in sys.path]
    sys.argv = ["polly", *told["arguments"]]
    if told["die_at"]:
        from tests.cluster.dying_broker import Trap, arm

        arm(Trap(told["die_at"]))
    from framework.cli import main

    main()


if __name__ == "__main__":
    for name in MODULES:
        import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would have one of these threads only"
    if forked := _forks(socket.socket(fileno=int(sys.argv[1]))):
        _become(*forked)
