"""Stands in for the agent's helper program `mesos-containerizer launch`.

Waits for the agent's go on the control pipe, runs the container's command as its user with its output in the sandbox,
passes signals on, and leaves the wait status where the agent looks for it. It isolates nothing. Run by Python with -IS.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would cost every container some milliseconds
    from typing import Any, NoReturn

PREFIX = "MESOS_CONTAINERIZER_"
PASSED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def main() -> None:
    flags = {name[len(PREFIX) :].lower(): value for name, value in os.environ.items() if name.startswith(PREFIX)}
    if sys.argv[1:] != ["launch"]:
        sys.exit(f"mesos-containerizer stand-in: no subcommand {sys.argv[1:]}")
    info = json.loads(flags["launch_info"])
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is a child to pass them on to
    if "pipe_read" in flags:
        await_go(int(flags["pipe_read"]), int(flags["pipe_write"]))
    environment = environment_of(info)
    enter_sandbox(info.get("working_directory") or environment.get("MESOS_SANDBOX") or ".")
    child = os.fork()
    if child == 0:
        become(info["command"], info.get("user"), environment)
    status = wait_for(child)
    if "runtime_directory" in flags:
        with open(os.path.join(flags["runtime_directory"], "status"), "w") as file:
            file.write(str(status))


def await_go(read_end: int, write_end: int) -> None:
    os.close(write_end)
    if not os.read(read_end, 1):
        sys.exit("mesos-containerizer stand-in: the agent went away")
    os.close(read_end)


def environment_of(info: dict[str, Any]) -> dict[str, str]:
    environment = {variable["name"]: variable.get("value", "") for variable in info.get("environment", {}).get("variables", [])}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} | environment


def enter_sandbox(sandbox: str) -> None:
    os.makedirs(sandbox, exist_ok=True)
    os.chdir(sandbox)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), fd)


def become(command: dict[str, Any], user: str | None, environment: dict[str, str]) -> NoReturn:
    """Turns the child into the container's command; what stops it is an exit with 127 and a line in the sandbox's stderr."""
    shell = command.get("shell", True)
    program = "/bin/sh" if shell else command["value"]
    arguments = ["sh", "-c", command["value"]] if shell else command.get("arguments") or [command["value"]]
    try:
        if user and os.geteuid() == 0:
            switch_to(pwd.getpwnam(user))
        for number in IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.execvpe(program, arguments, environment)
    except (OSError, KeyError) as error:
        print(f"{program}: {error}", file=sys.stderr, flush=True)
        os._exit(127)


def switch_to(user: pwd.struct_passwd) -> None:
    if user.pw_uid == os.geteuid():
        return
    for name in ("stdout", "stderr"):
        os.chown(name, user.pw_uid, user.pw_gid)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def wait_for(child: int) -> int:
    for number in PASSED_ON:
        signal.signal(number, lambda received, frame: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    _, status = os.waitpid(child, 0)
    return status


main()
