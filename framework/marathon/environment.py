"""What Marathon puts into the environment of a task: who it is, what it may use, its ports and its app's labels.

The app's own `env` wins over all of it. MESOS_SANDBOX is set by the agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.json import encode

from framework.marathon.model import App

_LONGEST: Final = 512
_LABEL: Final = "MARATHON_APP_LABEL_"


class Environment:
    """The variables of an app's tasks as a JSON object; what all of them share is written once."""

    __slots__ = ("_env", "_foot", "_head", "_host", "_id", "_names", "_ports")

    def __init__(self, app: App) -> None:
        about = {
            "MARATHON_APP_ID": app.app_id,
            "MARATHON_APP_VERSION": app.version or "",
            "MARATHON_APP_RESOURCE_CPUS": str(app.cpus),
            "MARATHON_APP_RESOURCE_MEM": str(app.mem_mib),
            "MARATHON_APP_RESOURCE_DISK": str(app.disk_mib),
            "MARATHON_APP_RESOURCE_GPUS": str(app.gpus),
        }
        self._env = app.env
        self._head = self._members(about | _labels(app.labels))
        self._foot = encode(app.env)[1:]
        self._id, self._host = (b"" if name in app.env else b'"%s":' % name.encode() for name in ("MESOS_TASK_ID", "HOST"))
        self._names = [(port.port, f"PORT_{_variable(port.name)}" if port.name else "") for port in app.ports]
        self._ports: dict[tuple[int, ...], bytes] = {}

    def of_task(self, task_id: bytes, host: bytes, ports: tuple[int, ...]) -> bytes:
        """`task_id` and `host` are JSON; `ports` the host ports that the task got, in the order of the app's port definitions."""
        given = self._ports.get(ports)
        if given is None:
            given = self._ports[ports] = self._members(self._of_ports(ports))
        parts = (self._head, self._id and self._id + task_id, self._host and self._host + host, given)
        return b"{" + b",".join([part for part in parts if part]) + (b"," if self._env else b"") + self._foot

    def _members(self, variables: Mapping[str, str]) -> bytes:
        """Without those that the app's own `env` has."""
        return encode({name: value for name, value in variables.items() if name not in self._env})[1:-1]

    def _of_ports(self, given: Sequence[int]) -> dict[str, str]:
        """PORT, PORT0.., PORTS, and PORT_ with the number asked for (where one was) or given, and with the name."""
        if not given:
            return {}
        texts = [str(number) for number in given]
        found = {"PORT": texts[0], "PORTS": ",".join(texts)}
        for index, text in enumerate(texts):
            found[f"PORT{index}"] = text
        for (asked, _), text in zip(self._names, texts, strict=False):
            found[f"PORT_{asked or text}"] = text
        for (_, name), text in zip(self._names, texts, strict=False):
            if name:
                found[name] = text
        return found


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """A label whose name or value is too long is left out."""
    kept = {_variable(name): value for name, value in labels.items() if len(name) < _LONGEST - len(_LABEL) and len(value) < _LONGEST}
    return {"MARATHON_APP_LABELS": " ".join(kept), **{_LABEL + name: value for name, value in kept.items()}}


def _variable(name: str) -> str:
    """A name as a variable can have it; each run of other characters becomes one underscore."""
    return re.sub(r"[^a-zA-Z0-9_]+", "_", name).upper()
