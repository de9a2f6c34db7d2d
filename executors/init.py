"""The task's first process: what the executor starts to hold a task, and whose end is the end of every process of it.

A program of its own, run by path as `python -I -S init.py {namespaced|plain} FD`; standard library only, so that no
memory, descriptor, variable or module of the executor comes near the task. FD is a socket to the executor:

    executor to init    a specification (frame), its descriptors, then bytes: T asks the task to end, K ends all
    init to executor    frames: {"started": pid} or {"refused": step, "reason": words}, then {"ended": wait status}

A frame is its length (4 bytes, network order) and a marshalled value: the same interpreter is at both ends, and json
would cost each task 10 ms of CPU. The socket's end of file, however the executor died, ends all as K does.

namespaced (root): it is pid 1 of a PID namespace, so the kernel kills whatever is left of the task when it ends, a
daemon included. It takes a mount namespace of its own (a copy of the executor's, taken when the task starts) with
/proc mounted fresh. The executor has also asked for its death signal. The task's own process takes one mount namespace
more where volumes lie over paths of the machine.

plain (no root): it is the reaper of every descendant (PR_SET_CHILD_SUBREAPER) and kills them all when it ends by
itself. Limits, which only root can lift: whoever kills init itself with SIGKILL ends the task's own process (its
death signal) but not a daemon of it, and a task that creates processes faster than they are killed is not outrun.
"""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import os
import select
import signal
import sys
from typing import Any, NoReturn

END_TASK = b"T"
END_ALL = b"K"

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_BIND = 0x20, 0x400, 0x800, 0x1000
MS_REC, MS_SLAVE, MS_RELATIME = 0x4000, 0x80000, 0x200000
ST_RELATIME = 0x1000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_LENGTH_BYTES = 4
_HIGHEST_FD = 1 << 20
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Libc:
    """The few system calls that Python has no name for. Each raises OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> None:
        self._checked("unshare", self._libc.unshare(flags))

    def setns(self, fd: int, kind: int) -> None:
        self._checked("setns", self._libc.setns(fd, kind))

    def mount(self, source: str | None, target: str, kind: str | None, flags: int) -> None:
        words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
        self._checked(f"mount {target}", self._libc.mount(*words, ctypes.c_ulong(flags), None))

    def umount(self, target: str, flags: int) -> None:
        self._checked(f"umount {target}", self._libc.umount2(os.fsencode(target), flags))

    def prctl(self, option: int, value: int) -> None:
        arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
        self._checked("prctl", self._libc.prctl(option, *arguments))

    def _checked(self, what: str, result: int) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")


def frame(value: Any) -> bytes:
    """A value as it travels on the socket."""
    data = marshal.dumps(value)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def read_frame(fd: int) -> Any:
    """The next value of the socket; None at its end."""
    size = _exactly(fd, _LENGTH_BYTES)
    data = _exactly(fd, int.from_bytes(size, "big")) if size else b""
    return marshal.loads(data) if data else None  # noqa: S302 (the executor's own socket)


def _exactly(fd: int, size: int) -> bytes:
    """`size` bytes, or none if the socket ends before."""
    data = b""
    while len(data) < size:
        piece = _read(fd, size - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _read(fd: int, size: int) -> bytes:
    """As os.read; an executor that died with words of ours unread ends the socket with a reset, which is an end as well."""
    try:
        return os.read(fd, size)
    except ConnectionResetError:
        return b""


class Init:
    """The state of the one init of this process."""

    def __init__(self, control: int, *, namespaced: bool) -> None:
        self._control = control
        self._namespaced = namespaced
        self._libc = Libc()
        self._task = 0
        self._status: int | None = None
        self._woken, self._waker = os.pipe()

    def run(self) -> None:
        """Returns when the task's own process has ended or all must end; the caller exits then."""
        self._listen_to_signals()
        if not self._namespaced:
            self._libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        specification = read_frame(self._control)
        if specification is None:
            return
        keep = self._descriptors(specification["descriptors"])
        if self._start(specification, keep):
            self._attend()

    def end_all(self) -> None:
        """Nothing of the task is left when this returns, or, in a PID namespace, when this process has ended."""
        if not self._namespaced:
            _kill_descendants()
        if self._status is not None:
            self._say({"ended": self._status})

    def _say(self, value: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the executor is gone: there is nobody to tell
            os.write(self._control, frame(value))

    def _listen_to_signals(self) -> None:
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _FORWARDED:
            signal.signal(number, lambda *_: self._end_task())

    def _descriptors(self, count: int) -> list[int]:
        """Descriptors to be held until nothing of the task is left: the locks of volumes that have no device to hold them.

        In plain mode the task inherits them too, so that a lock outlives even a SIGKILL of this process.
        """
        if not count:
            return []
        import socket  # a third of this program's start, and only volumes without a device need it

        with socket.socket(fileno=os.dup(self._control)) as control:
            _, descriptors, _, _ = socket.recv_fds(control, 1, count)
        return descriptors

    def _start(self, specification: dict[str, Any], keep: list[int]) -> bool:
        try:
            if self._namespaced:
                self._enter_namespace()
            self._task, refusal = _spawn(specification, keep, self._libc, namespaced=self._namespaced)
        except OSError as error:
            refusal = ("prepare the task's namespaces", str(error))
        if refusal:
            self._say({"refused": refusal[0], "reason": refusal[1]})
            return False
        self._say({"started": self._task})
        return True

    def _enter_namespace(self) -> None:
        self._libc.unshare(CLONE_NEWNS)
        self._libc.mount(None, "/", None, MS_REC | MS_SLAVE)
        try:
            self._libc.mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        except OSError as error:  # inside some containers; the task runs, and its ps shows the machine's processes
            print(f"polly-init: {error}; the task sees the /proc of the machine", file=sys.stderr, flush=True)

    def _attend(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while self._status is None:
            ready = {fd for fd, _ in poll.poll()}
            if self._control in ready and self._ordered_to_end():
                return
            if self._woken in ready:
                os.read(self._woken, select.PIPE_BUF)
            self._reap()

    def _ordered_to_end(self) -> bool:
        order = _read(self._control, 1)
        if order == END_TASK:
            self._end_task()
        return order in (b"", END_ALL)

    def _end_task(self) -> None:
        if self._task and self._status is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself; its status is yet to be read
                os.killpg(self._task, signal.SIGTERM)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._task:
                self._status = status


def _spawn(specification: dict[str, Any], keep: list[int], libc: Libc, *, namespaced: bool) -> tuple[int, tuple[str, str] | None]:
    """Starts the task's own process. Returns its pid and, if its program could not be executed, the step and the reason."""
    problem, problem_in_child = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        inherited = [] if namespaced else keep
        _become_task(specification, [*inherited, problem_in_child], libc, 0 if namespaced else parent)
    os.close(problem_in_child)
    words = b""
    while piece := os.read(problem, select.PIPE_BUF):
        words += piece
    os.close(problem)
    if not words:
        return pid, None
    os.waitpid(pid, 0)
    step, reason = marshal.loads(words)  # noqa: S302 (our own fork wrote it)
    return pid, (step, reason)


def _become_task(specification: dict[str, Any], keep: list[int], libc: Libc, parent: int) -> NoReturn:
    """In the forked child: never returns. The last of `keep` closes when the program is executed, and tells why it was not."""
    step = "prepare the task"
    try:
        os.setsid()
        os.umask(0o022)
        _reset_signals()
        close_all_but(keep)
        step = "become the task's user"
        user = specification["user"]
        if user:
            _take_groups(*user)
        step = "mount what the task alone sees"
        _arrange_mounts(specification["binds"], specification["hide"], libc)
        step = "become the task's user"
        if user:
            os.setresuid(user[1], user[1], user[1])
        if parent:
            _die_with(parent, libc)
        step = f"enter {specification['cwd']}"
        os.chdir(specification["cwd"])
        for descriptor in keep[:-1]:
            os.set_inheritable(descriptor, True)
        argv, env = specification["argv"], specification["env"]
        step = f"execute {argv[0]}"
        os.execvpe(argv[0], argv, env)  # noqa: S606 (the task's own program)
    except BaseException as error:
        os.write(keep[-1], marshal.dumps((step, getattr(error, "strerror", None) or str(error))))
    os._exit(127)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):  # the C library keeps some for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(keep: list[int]) -> None:
    """Closes every descriptor above standard error that is not in `keep`."""
    wanted = sorted(keep)
    for low, high in zip([2, *wanted], [*wanted, _HIGHEST_FD], strict=True):
        os.closerange(low + 1, high)


def _take_groups(name: str, uid: int, gid: int) -> None:
    os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)


def _arrange_mounts(binds: list[tuple[str, str, bool]], hide: list[str], libc: Libc) -> None:
    """Puts folders over paths of the machine, and takes mounts away, for the task alone.

    A volume may come to lie over /etc or /usr, so this happens after the last thing that is read or loaded as root, in a
    namespace that no process of ours is in, and no set-user-id program that then trusts those files gives any right.
    """
    if not (binds or hide):
        return
    libc.unshare(CLONE_NEWNS)
    for source, target, read_only in binds:
        libc.mount(source, target, None, MS_BIND)
        if read_only:
            libc.mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _flags_of(target))
    for folder in hide:
        libc.umount(folder, MNT_DETACH)
    if binds:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)


def _flags_of(folder: str) -> int:
    """What a remount must repeat in order not to drop it."""
    found = os.statvfs(folder).f_flag
    same = found & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
    return same | (MS_RELATIME if found & ST_RELATIME else 0)


def _die_with(parent: int, libc: Libc) -> None:
    """Asks for SIGKILL at the parent's death; must come after every change of user, which clears it."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_descendants() -> None:
    """Every descendant, however it detached itself: orphans come to the reaper, so the tree below it is all there is."""
    while True:
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # gone already, or a set-user-id program: only root can end it
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_parent_of(name), []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:  # it has just ended
        return 0


def main(mode: str, control: str) -> None:
    init = Init(int(control), namespaced=mode == "namespaced")
    try:
        init.run()
    finally:
        init.end_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
