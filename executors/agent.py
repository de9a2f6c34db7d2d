"""What the agent tells an executor: its surroundings at the start (environment variables), and then events.

Plain records; no network, no thread. The driver makes the events, the executor's one loop takes them from its inbox.

In executors/ a record is a Struct and not a dataclass: to define one costs a tenth of the time, and an executor is
started, and defines them all, for each task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from storage.errors import Invalid

UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "secs": 1.0, "mins": 60.0, "hrs": 3600.0, "days": 86400.0, "weeks": 604800.0}
"""Seconds in each unit of a Mesos duration."""

FALSE: Final = frozenset({"", "0", "false"})


class Surroundings(Struct, frozen=True, kw_only=True):
    """The variables that a Mesos agent sets for an executor."""

    agent: str
    """HOST:PORT of the agent's API."""
    framework_id: str
    executor_id: str
    sandbox: str
    agent_id: str = ""
    checkpoint: bool = False
    """The agent may die and come back while the executor goes on."""
    recovery_timeout_s: float = 900.0
    """How long a checkpointing executor waits for its agent."""
    backoff_max_s: float = 2.0
    """The longest pause between two attempts to subscribe."""
    shutdown_grace_s: float = 5.0
    """Between the agent's SHUTDOWN and its SIGKILL."""
    token: str | None = None
    """Says to the agent who we are; a secret."""


def read_surroundings(env: Mapping[str, str]) -> Surroundings:
    """Raises Invalid, naming the variable that is missing or malformed."""
    return Surroundings(
        agent=_wanted(env, "MESOS_AGENT_ENDPOINT"),
        framework_id=_wanted(env, "MESOS_FRAMEWORK_ID"),
        executor_id=_wanted(env, "MESOS_EXECUTOR_ID"),
        sandbox=_wanted(env, "MESOS_SANDBOX"),
        agent_id=env.get("MESOS_SLAVE_ID", ""),
        checkpoint=env.get("MESOS_CHECKPOINT", "").lower() not in FALSE,
        recovery_timeout_s=_seconds(env, "MESOS_RECOVERY_TIMEOUT", 900.0),
        backoff_max_s=_seconds(env, "MESOS_SUBSCRIPTION_BACKOFF_MAX", 2.0),
        shutdown_grace_s=_seconds(env, "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", 5.0),
        token=env.get("MESOS_EXECUTOR_AUTHENTICATION_TOKEN"),
    )


def _wanted(env: Mapping[str, str], name: str) -> str:
    if value := env.get(name):
        return value
    raise Invalid(field=name, value="", reason="a Mesos agent sets this variable; polly-executor is started by agents only")


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    words = env.get(name, "").strip()
    if not words:
        return default
    for unit, factor in UNITS.items():
        number = words.removesuffix(unit)
        if number != words and _is_number(number):
            return float(number) * factor
    raise Invalid(field=name, value=words, reason=f"a duration is a number and one of {', '.join(UNITS)}")


def _is_number(words: str) -> bool:
    return words.replace(".", "", 1).isdecimal()


# --- events -----------------------------------------------------------------------------------------------


class Subscribed(Struct, frozen=True, kw_only=True):
    """The agent listens to us, for the first time or again."""

    hostname: str
    capabilities: frozenset[str]
    """What the framework understands, such as TASK_KILLING_STATE."""


class LaunchAsked(Struct, frozen=True, kw_only=True):
    task_id: str
    data: bytes
    """The broker's wire.Launch, as it came."""
    received_at: float
    """On the driver's clock."""


class KillAsked(Struct, frozen=True, kw_only=True):
    task_id: str
    grace_s: float | None
    """The kill policy's grace period; None where the agent gave none."""


class MessageCame(Struct, frozen=True, kw_only=True):
    data: bytes


class ShutdownAsked(Struct, frozen=True, kw_only=True):
    """The agent wants this executor to end, or will never be heard again."""

    reason: str


AgentEvent = Subscribed | LaunchAsked | KillAsked | MessageCame | ShutdownAsked
