"""Mesos' TaskInfos on their way into an ACCEPT: JSON already, since what all tasks of an app share is written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Raw, Struct, json


class TaskInfos(Struct, frozen=True, gc=False):
    task_infos: list[Raw]
    """TaskInfos, each encoded when it was made."""


class LaunchOperation(Struct, frozen=True, kw_only=True, gc=False):
    """The LAUNCH of an ACCEPT."""

    type: Literal["LAUNCH"] = "LAUNCH"
    launch: TaskInfos


def members(content: Mapping[str, Any] | Struct) -> bytes:
    """What stands between the braces of a JSON object."""
    return json.encode(content)[1:-1]


def span(seconds: float) -> dict[str, int]:
    """Mesos' DurationInfo."""
    return {"nanoseconds": int(seconds * 1e9)}
