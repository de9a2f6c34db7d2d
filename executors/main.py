"""polly-executor: started by a Mesos agent on a node, once for each task. Joins the parts; the task's life is task.py's.

The order at the start matters. The mount namespace comes before every thread, because the kernel moves only the calling
thread into it; init is forked by the main thread, because it dies with the thread that forked it, and early, because
its Python then starts beside ours. The agent is asked for the task before the rest is imported.

    polly-executor [--config FILE] [--version]
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from executors import init
from executors.taskprocess import TaskProcess

if TYPE_CHECKING:
    from executors.agent import Surroundings
    from executors.driver import ExecutorDriver
    from executors.inbox import Event

USAGE: Final = "usage: polly-executor [--config FILE] [--version]; it is started by a Mesos agent"
CONFIG: Final = "/etc/polly/agent.toml"
TOKEN: Final = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"  # noqa: S105 (the variable's name)
PR_SET_DUMPABLE: Final = 4
RELEASE_S: Final = 3.0
"""Of the agent's grace period at a shutdown, what is kept for the release of the volumes; at most half of it."""
NOT_CHECKPOINTED_S: Final = 10.0
"""How long an executor whose agent does not come back after a restart waits for its last acknowledgement."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one task. The exit status: 0 when its end was reported, 1 when not, 2 for a wrong start."""
    words = sys.argv[1:] if arguments is None else arguments
    if words == ["--version"]:
        print(_version())
        return 0
    if words and (len(words) != 2 or words[0] != "--config"):
        print(USAGE, file=sys.stderr)
        return 2
    gc.disable()  # until all is imported: there is no garbage yet, only much to look through
    _import_from_nowhere_near_the_task()
    from storage.errors import NodeError

    config = words[1] if words else CONFIG
    try:
        process = _start_init()
    except NodeError as error:
        return _serve(None, config, problem=str(error).rstrip("."))
    try:
        return _serve(process, config)
    finally:
        process.discard()


def _version() -> str:
    from importlib.metadata import version

    return version("polly-broker")


def _import_from_nowhere_near_the_task() -> None:
    """Our working folder is the sandbox, where the task's user may put any module: nothing may be imported from there."""
    sandbox = {"", ".", os.getcwd()}
    sys.path[:] = [folder for folder in sys.path if folder not in sandbox]


def _start_init() -> TaskProcess:
    """In namespaces as root; without root in plain mode. Raises NodeError, as where a container's root may make none."""
    from storage.errors import NodeError

    is_root = os.geteuid() == 0
    if is_root:
        from storage.node.namespaces import private_mount_namespace

        private_mount_namespace()
    else:
        _hide_from_the_task()
    try:
        return TaskProcess(namespaced=is_root)
    except OSError as error:
        raise NodeError(command="start", target="the task's init", reason=error.strerror) from error


def _hide_from_the_task() -> None:
    """The task is the same user as we are: without this it could read our variables, a cloud's keys or our token, and our memory."""
    init.Libc().prctl(PR_SET_DUMPABLE, 0)


def _serve(process: TaskProcess | None, config: str, *, problem: str = "") -> int:
    """Without a process the task is refused, because of this problem."""
    from executors.agent import read_surroundings
    from executors.driver import ExecutorDriver
    from storage.errors import Invalid

    _log_to_stderr()
    try:
        surroundings = read_surroundings(os.environ)
    except Invalid as error:
        print(f"polly-executor: {error}\n{USAGE}", file=sys.stderr)
        return 2
    os.environ.pop(TOKEN, None)
    events: SimpleQueue[Event] = SimpleQueue()
    driver = ExecutorDriver(surroundings, events.put, clock=clock)
    driver.start()
    try:
        _run_task(process, driver, events, surroundings, config, problem)
        patience_s = surroundings.recovery_timeout_s if surroundings.checkpoint else NOT_CHECKPOINTED_S
        return 0 if driver.wait_acknowledged(patience_s) else 1
    finally:
        driver.stop()


def _run_task(
    process: TaskProcess | None,
    driver: ExecutorDriver,
    events: SimpleQueue[Event],
    surroundings: Surroundings,
    config: str,
    problem: str,
) -> None:
    from executors.agent import ShutdownAsked
    from executors.inbox import Inbox
    from executors.task import Node, TaskRun, cannot_hold, refuse

    signal.signal(signal.SIGTERM, lambda *_: events.put(ShutdownAsked(reason="the executor was told to end by SIGTERM")))
    gc.freeze()
    gc.enable()
    grace_s = surroundings.shutdown_grace_s - min(RELEASE_S, surroundings.shutdown_grace_s / 2)
    inbox = Inbox(events, clock=clock, shutdown_grace_s=grace_s, refuse=partial(refuse, driver))
    inbox.wait(lambda: inbox.launch or inbox.stop)
    if inbox.launch and process is None:
        cannot_hold(driver, inbox.launch, problem)
    elif inbox.launch and process:
        node = Node(surroundings=surroundings, config=config, environment=dict(os.environ), clock=clock)
        TaskRun(inbox.launch, driver, inbox, process, node).run()


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s polly-executor: %(message)s")


def clock() -> float:
    """Seconds that also pass while the machine sleeps: a lease does not wait for it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    sys.exit(main())
