"""What Marathon puts into the environment of a task: who it is, what it may use, its ports and its app's labels.

The app's own `env` wins over all of it. MESOS_SANDBOX is set by the agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from framework.marathon.model import App, Port

_LONGEST: Final = 512
_LABEL: Final = "MARATHON_APP_LABEL_"


def task_environment(app: App, *, task_id: str, host: str, ports: Sequence[int]) -> dict[str, str]:
    """All variables of one task. `ports` are the host ports it got, in the order of the app's port definitions."""
    about = {
        "MARATHON_APP_ID": app.app_id,
        "MARATHON_APP_VERSION": app.version or "",
        "MARATHON_APP_RESOURCE_CPUS": str(app.cpus),
        "MARATHON_APP_RESOURCE_MEM": str(app.mem_mib),
        "MARATHON_APP_RESOURCE_DISK": str(app.disk_mib),
        "MARATHON_APP_RESOURCE_GPUS": str(app.gpus),
        "MESOS_TASK_ID": task_id,
        "HOST": host,
    }
    return {**about, **_labels(app.labels), **_ports(app.ports, ports), **app.env}


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """A label whose name or value is too long is left out."""
    kept = {_variable(name): value for name, value in labels.items() if len(name) < _LONGEST - len(_LABEL) and len(value) < _LONGEST}
    return {"MARATHON_APP_LABELS": " ".join(kept), **{_LABEL + name: value for name, value in kept.items()}}


def _ports(defined: Sequence[Port], given: Sequence[int]) -> dict[str, str]:
    """PORT, PORT0.., PORTS, and PORT_ with the number asked for (where one was) or given, and with the name."""
    if not given:
        return {}
    found = {"PORT": str(given[0]), "PORTS": ",".join(map(str, given))}
    for index, number in enumerate(given):
        found[f"PORT{index}"] = str(number)
    for port, number in zip(defined, given, strict=False):
        found[f"PORT_{port.port or number}"] = str(number)
    for port, number in zip(defined, given, strict=False):
        if port.name:
            found[f"PORT_{_variable(port.name)}"] = str(number)
    return found


def _variable(name: str) -> str:
    """A name as a variable can have it; each run of other characters becomes one underscore."""
    return re.sub(r"[^a-zA-Z0-9_]+", "_", name).upper()
