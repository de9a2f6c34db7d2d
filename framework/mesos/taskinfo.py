"""Mesos' TaskInfo as records: what all tasks of an app share is JSON already. Knows how it is written, not what goes in."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Raw, Struct, json

from offers.records import Value

Json = dict[str, Any]


class ExecutorInfo(Struct, frozen=True, kw_only=True, gc=False):
    type: Literal["CUSTOM"] = "CUSTOM"
    executor_id: Value
    framework_id: Raw
    name: str
    command: Raw
    shutdown_grace_period: Raw
    resources: tuple[Json, ...]


class TaskInfo(Struct, frozen=True, kw_only=True, gc=False):
    name: str
    task_id: Value
    agent_id: Value
    resources: tuple[Json, ...]
    executor: ExecutorInfo
    data: bytes
    """Travels in base64."""
    kill_policy: Raw
    labels: Raw


class TaskInfos(Struct, frozen=True, gc=False):
    task_infos: list[Raw]
    """TaskInfos, each encoded when it was made."""


class LaunchOperation(Struct, frozen=True, kw_only=True, gc=False):
    """The LAUNCH of an ACCEPT."""

    type: Literal["LAUNCH"] = "LAUNCH"
    launch: TaskInfos


def raw(content: Any) -> Raw:
    """Encoded once, to be written into many messages as it is."""
    return Raw(json.encode(content))


def span(seconds: float) -> Raw:
    """Mesos' DurationInfo."""
    return raw({"nanoseconds": int(seconds * 1e9)})
