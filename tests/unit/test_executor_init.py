"""The task's init with real processes: whatever ends the executor, no process of the task survives."""

from __future__ import annotations

import os
import pwd
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors.taskprocess import Program, TaskEnded, TaskEvent, TaskProcess, TaskRefused, TaskStarted
from tests.support import eventually

REPOSITORY = Path(__file__).parents[2]
MODES = [pytest.param(True, id="namespaced", marks=pytest.mark.root), pytest.param(False, id="plain")]
DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
for fd in range(3): os.close(fd)
open("daemon", "w").close()
time.sleep(1000)
"""


class Watched:
    """A task, what was said of it, and which of its processes are alive, told by a variable in their environment."""

    def __init__(self, folder: Path, *, namespaced: bool) -> None:
        self.folder = folder
        self.marker = f"POLLY_TEST_MARKER={uuid.uuid4()}"
        self.events: queue.SimpleQueue[TaskEvent] = queue.SimpleQueue()
        self.process = TaskProcess(namespaced=namespaced)

    def program(self, *argv: str, user: tuple[str, int, int] | None = None, cwd: str = "") -> Program:
        name, _, value = self.marker.partition("=")
        return Program(argv=argv, env={name: value, "PATH": os.defpath}, cwd=cwd or str(self.folder), user=user)

    def start(self, *argv: str, user: tuple[str, int, int] | None = None) -> None:
        self.process.start(self.program(*argv, user=user), self.events.put)
        assert self.next() == TaskStarted()

    def shell(self, line: str, user: tuple[str, int, int] | None = None) -> None:
        self.start("/bin/sh", "-c", line, user=user)

    def next(self, timeout_s: float = 10.0) -> TaskEvent:
        return self.events.get(timeout=timeout_s)

    def ended(self) -> int:
        event = self.next()
        assert isinstance(event, TaskEnded)
        assert event.status is not None
        return event.status

    def output(self, line: str, user: tuple[str, int, int] | None = None) -> str:
        """What a shell line, run as the task, writes to a file."""
        out = self.folder / "out"
        out.touch(mode=0o666)
        out.chmod(0o666)
        self.shell(f"exec >out; {line}", user)
        assert self.ended() == 0
        return out.read_text()

    def alive(self) -> list[int]:
        return alive(self.marker)


def alive(marker: str) -> list[int]:
    """The processes that have this variable; those that are dead and not yet waited for have none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(params=MODES)
def task(request: pytest.FixtureRequest, open_folder: Path) -> Iterator[Watched]:
    yield from _task(open_folder, namespaced=request.param)


@pytest.fixture
def caged(open_folder: Path) -> Iterator[Watched]:
    yield from _task(open_folder, namespaced=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def _task(folder: Path, *, namespaced: bool) -> Iterator[Watched]:
    watched = Watched(folder, namespaced=namespaced)
    yield watched
    watched.process.end_all()
    watched.process.discard()
    eventually(lambda: not watched.alive(), what="the end of every process of the task")


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_status_is_the_tasks_own(task: Watched, code: int) -> None:
    task.shell(f"exit {code}")
    assert os.waitstatus_to_exitcode(task.ended()) == code


def test_a_signal_that_ends_the_task_is_told(task: Watched) -> None:
    task.shell("kill -SEGV $$")
    assert os.waitstatus_to_exitcode(task.ended()) == -signal.SIGSEGV


def test_the_task_has_its_own_environment_and_nothing_of_the_executors(task: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "secret")
    names = {line.partition("=")[0] for line in task.output("env").splitlines()}
    assert names == {"POLLY_TEST_MARKER", "PATH", "PWD"}


def test_init_itself_has_no_variable_of_the_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "secret")
    process = TaskProcess(namespaced=False)
    try:
        eventually(lambda: b"executors/init.py" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), what="init's start")
        assert Path(f"/proc/{process.pid}/environ").read_bytes() == b""
    finally:
        process.discard()


def test_the_task_starts_in_its_folder_with_no_input_and_no_descriptor_of_ours(task: Watched) -> None:
    with open(os.devnull) as ours:
        os.set_inheritable(ours.fileno(), True)
        assert task.output("pwd; readlink /proc/$$/fd/0; ls /proc/$$/fd").split() == [str(task.folder), "/dev/null", "0", "1", "2"]


OF_LIBC = 1 << 31 | 1 << 32
"""Signals 32 and 33, which the C library keeps for itself: a program cannot reset them if its parent's parent ignored them."""


def test_no_signal_is_ignored_or_blocked_in_the_task(task: Watched) -> None:
    masks = dict(line.split(":") for line in task.output("grep -E '^Sig(Blk|Ign)' /proc/self/status").splitlines())
    assert {name: int(mask, 16) & ~OF_LIBC for name, mask in masks.items()} == {"SigBlk": 0, "SigIgn": 0}


def test_the_task_leads_a_session_of_its_own(task: Watched) -> None:
    pid, session = task.output("read -r pid _ _ _ _ session _ </proc/$$/stat; echo $pid $session").split()
    assert pid == session


@pytest.mark.root
def test_the_task_becomes_its_user_with_all_its_groups(task: Watched) -> None:
    nobody = pwd.getpwnam("nobody")
    answer = task.output("id -u; id -ru; id -g; id -G", user=("nobody", nobody.pw_uid, nobody.pw_gid))
    assert answer.split() == [str(number) for number in (nobody.pw_uid, nobody.pw_uid, nobody.pw_gid, nobody.pw_gid)]


@pytest.mark.root
def test_the_task_sees_only_its_own_processes_below_pid_1(caged: Watched) -> None:
    caged.output("cat /proc/1/cmdline; echo; ls -d /proc/[0-9]*")
    said = (caged.folder / "out").read_text()
    assert "init.py" in said.splitlines()[0]
    assert len(said.splitlines()) <= 4
    assert Path("/proc/self/cmdline").read_bytes() != b""


@pytest.mark.root
def test_a_folder_that_is_hidden_is_not_mounted_for_the_task(caged: Watched, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", hidden], check=True)
    try:
        program = caged.program("/bin/sh", "-c", "grep -c hidden /proc/self/mounts >out; true")
        caged.process.start(Program(argv=program.argv, env=program.env, cwd=program.cwd, hide=(str(hidden),)), caged.events.put)
        assert caged.next() == TaskStarted()
        assert caged.ended() == 0
        assert (caged.folder / "out").read_text().strip() == "0"
        assert os.path.ismount(hidden)
    finally:
        subprocess.run(["umount", hidden], check=True)


def test_orphans_are_reaped(task: Watched) -> None:
    states = task.output(
        """(sh -c 'kill -KILL $$' & echo $! >orphan) ; pid=$(cat orphan)
        while [ -e /proc/$pid ]; do :; done; echo reaped"""
    )
    assert states.split() == ["reaped"]


@pytest.mark.parametrize(
    ("argv", "cwd", "step", "reason"),
    [
        (("/nowhere/program",), "", "execute /nowhere/program", "No such file or directory"),
        (("no-such-program",), "", "execute no-such-program", "No such file or directory"),
        (("/etc/passwd",), "", "execute /etc/passwd", "Permission denied"),
        (("/bin/true",), "/nowhere", "enter /nowhere", "No such file or directory"),
    ],
)
def test_a_program_that_cannot_run_is_refused_with_the_reason(
    task: Watched, argv: tuple[str, ...], cwd: str, step: str, reason: str
) -> None:
    task.process.start(task.program(*argv, cwd=cwd), task.events.put)
    assert task.next() == TaskRefused(step=step, reason=reason)
    assert task.next() == TaskEnded(status=None)


def test_the_task_may_end_itself_in_its_grace_period(task: Watched) -> None:
    task.shell("trap 'exit 7' TERM; touch ready; while :; do read -r _ <fifo; done & wait")
    eventually((task.folder / "ready").exists, what="the task's trap")
    task.process.end_task()
    assert os.waitstatus_to_exitcode(task.ended()) == 7


def test_a_task_that_ignores_sigterm_is_ended_by_force(task: Watched) -> None:
    task.shell("trap '' TERM; touch ready; while :; do :; done")
    eventually((task.folder / "ready").exists, what="the task's trap")
    task.process.end_task()
    with pytest.raises(queue.Empty):
        task.next(timeout_s=0.2)
    task.process.end_all()
    assert task.next() == TaskEnded(status=None)
    assert task.alive() == []


def test_a_daemon_ends_with_the_task(task: Watched) -> None:
    task.shell(f"{sys.executable} -IS -c '{DAEMON}'; while [ ! -e daemon ]; do :; done; exit 4")
    assert os.waitstatus_to_exitcode(task.ended()) == 4
    assert task.alive() == []


def test_descriptors_are_held_until_the_last_process_is_gone(task: Watched, tmp_path: Path) -> None:
    import fcntl

    lock = tmp_path / "lock"
    ours = os.open(lock, os.O_CREAT | os.O_RDWR)
    fcntl.flock(ours, fcntl.LOCK_EX)
    task.process.start(task.program("/bin/sh", "-c", "while :; do :; done"), task.events.put, descriptors=[ours])
    assert task.next() == TaskStarted()
    os.close(ours)

    def free() -> bool:
        with open(lock) as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    assert not free()
    task.process.end_all()
    assert task.next() == TaskEnded(status=None)
    assert free()


HARNESS = """
import os, queue, sys
from executors.taskprocess import Program, TaskProcess
process = TaskProcess(namespaced=sys.argv[1] == "True")
events = queue.SimpleQueue()
if len(sys.argv) > 3:
    name, _, value = sys.argv[2].partition("=")
    process.start(Program(argv=tuple(sys.argv[3:]), env={name: value, "PATH": os.defpath}, cwd=os.getcwd()), events.put)
    events.get()
print(process.pid, flush=True)
events.get()
"""


def _harness(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds a task as the executor does; and its init's pid."""
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert harness.stdout
    return harness, int(harness.stdout.readline())


def _runs(pid: int) -> bool:
    """Whether the process is there and not only waiting to be reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("namespaced", MODES)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_nothing_survives_the_executor(namespaced: bool, how: signal.Signals, tmp_path: Path) -> None:
    marker = f"POLLY_TEST_MARKER={uuid.uuid4()}"
    line = f"trap '' TERM HUP; {sys.executable} -IS -c '{DAEMON}'; while :; do :; done"
    harness, init = _harness(tmp_path, str(namespaced), marker, "/bin/sh", "-c", line)
    with harness:
        eventually((tmp_path / "daemon").exists, what="the daemon")
        assert len(alive(marker)) >= 2
        harness.send_signal(how)
    eventually(lambda: not alive(marker), what="the end of every process of the task")
    eventually(lambda: not _runs(init), what="the end of init")


@pytest.mark.parametrize("namespaced", MODES)
def test_an_init_that_still_waits_ends_with_the_executor(namespaced: bool, tmp_path: Path) -> None:
    harness, init = _harness(tmp_path, str(namespaced))
    with harness:
        harness.kill()
    eventually(lambda: not _runs(init), what="the end of init")


@pytest.mark.root
def test_nothing_survives_a_stopped_init_either(tmp_path: Path) -> None:
    """The death signal comes from the kernel: an init that cannot read its socket is no way out."""
    marker = f"POLLY_TEST_MARKER={uuid.uuid4()}"
    harness, init = _harness(tmp_path, "True", marker, "/bin/sh", "-c", "while :; do :; done")
    with harness:
        os.kill(init, signal.SIGSTOP)
        harness.kill()
    eventually(lambda: not alive(marker), what="the end of every process of the task")


@pytest.mark.parametrize("namespaced", MODES)
def test_an_init_that_was_told_nothing_is_not_waited_for(namespaced: bool) -> None:
    """It may hang in whatever its Python is read from."""
    process = TaskProcess(namespaced=namespaced)
    os.kill(process.pid, signal.SIGSTOP)
    ending = threading.Thread(target=process.discard, daemon=True)
    ending.start()
    ending.join(10)
    hung = ending.is_alive()
    if hung:
        os.kill(process.pid, signal.SIGKILL)
    assert not hung


@pytest.mark.root
def test_later_children_of_the_executor_are_in_its_own_pid_namespace(caged: Watched) -> None:
    ours = os.readlink("/proc/self/ns/pid")
    inner = subprocess.run(["readlink", "/proc/self/ns/pid"], check=True, capture_output=True, text=True).stdout.strip()
    assert inner == ours
    assert os.readlink(f"/proc/{caged.process.pid}/ns/pid") != ours
