"""Who the task runs as, and the environment and program it gets. Knows no volume."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from executors.agent import Surroundings
from executors.wire import Launch
from storage.errors import Invalid

PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ")
"""All that a task inherits of the executor's environment; the rest may hold the node's secrets, such as a cloud's keys."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class User(Struct, frozen=True, kw_only=True):
    name: str
    uid: int
    gid: int
    home: str
    login_shell: str

    @property
    def owner(self) -> tuple[int, int]:
        return self.uid, self.gid


def find_user(name: str | None) -> User:
    """The task's user; without a name, whom the executor runs as. Raises Invalid: unknown, or not ours to become."""
    ours = os.geteuid()
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(ours)
    except KeyError as error:
        if name:
            raise Invalid(field="user", value=name, reason="this node has no such user") from error
        return User(name=str(ours), uid=ours, gid=os.getegid(), home="/", login_shell="/bin/sh")
    if ours not in (0, entry.pw_uid):
        raise Invalid(field="user", value=name, reason=f"the executor runs as user {ours}, and only root can become another")
    return User(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, home=entry.pw_dir, login_shell=entry.pw_shell or "/bin/sh")


def command_line(launch: Launch) -> tuple[str, ...]:
    """Raises Invalid unless exactly one of cmd and args is given."""
    if launch.cmd is not None and not launch.args:
        return ("/bin/sh", "-c", launch.cmd)
    if launch.args and launch.cmd is None:
        return launch.args
    raise Invalid(field="cmd", value=launch.cmd, reason="a task has either cmd or args")


def task_environment(launch: Launch, task_id: str, user: User, surroundings: Surroundings, inherited: Mapping[str, str]) -> dict[str, str]:
    """Everything that the task finds in its environment. What the app sets wins."""
    return {
        "PATH": DEFAULT_PATH,
        **{name: inherited[name] for name in PASSED_ON if name in inherited},
        "HOME": user.home,
        "USER": user.name,
        "LOGNAME": user.name,
        "SHELL": user.login_shell,
        "MESOS_SANDBOX": surroundings.sandbox,
        "MESOS_FRAMEWORK_ID": surroundings.framework_id,
        "MESOS_AGENT_ID": surroundings.agent_id,
        "MESOS_EXECUTOR_ID": surroundings.executor_id,
        "MESOS_TASK_ID": task_id,
        **launch.env,
    }
