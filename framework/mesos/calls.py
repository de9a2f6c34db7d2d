"""The scheduler calls that Polly makes, encoded. Pure: what goes in is what Mesos reads, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from framework.mesos.channel import Call
from framework.mesos.taskinfo import LaunchOperation

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Operations on offers of one agent."""

    offer_ids: Sequence[str]
    operations: Sequence[Json | LaunchOperation]


def encode_accept(framework_id: str, offer_ids: Sequence[str], operations: Sequence[Json | LaunchOperation], *, refuse_s: float) -> bytes:
    """An ACCEPT; what the operations leave of the offers is refused for `refuse_s` seconds."""
    accept = {"offer_ids": _values(offer_ids), "operations": operations, "filters": {"refuse_seconds": refuse_s}}
    return _encode("ACCEPT", framework_id, accept=accept)


def accept(framework_id: str, acceptance: Acceptance, *, refuse_s: float) -> Call:
    return Call(name="ACCEPT", body=encode_accept(framework_id, acceptance.offer_ids, acceptance.operations, refuse_s=refuse_s))


def decline(framework_id: str, offer_ids: Sequence[str], *, refuse_s: float) -> Call:
    return _call("DECLINE", framework_id, decline={"offer_ids": _values(offer_ids), "filters": {"refuse_seconds": refuse_s}})


def revive(framework_id: str, roles: Sequence[str]) -> Call:
    return _call("REVIVE", framework_id, **({"revive": {"roles": list(roles)}} if roles else {}))


def suppress(framework_id: str, roles: Sequence[str]) -> Call:
    return _call("SUPPRESS", framework_id, **({"suppress": {"roles": list(roles)}} if roles else {}))


def acknowledge(framework_id: str, agent_id: str, task_id: str, uuid: str) -> Call:
    """`uuid` in base64, as the update brought it."""
    return _call("ACKNOWLEDGE", framework_id, acknowledge={"agent_id": _id(agent_id), "task_id": _id(task_id), "uuid": uuid})


def message(framework_id: str, agent_id: str, executor_id: str, data: bytes) -> Call:
    return _call("MESSAGE", framework_id, message={"agent_id": _id(agent_id), "executor_id": _id(executor_id), "data": data})


def reconcile(framework_id: str, tasks: Sequence[tuple[str, str | None]]) -> Call:
    """(task id, agent id) pairs; none at all asks for every task that the master knows of."""
    asked = [{"task_id": _id(task_id)} | _agent(agent_id) for task_id, agent_id in tasks]
    return _call("RECONCILE", framework_id, reconcile={"tasks": asked})


def kill(framework_id: str, task_id: str, agent_id: str | None, grace_s: float | None) -> Call:
    policy = {} if grace_s is None else {"kill_policy": {"grace_period": {"nanoseconds": round(grace_s * 1e9)}}}
    return _call("KILL", framework_id, kill={"task_id": _id(task_id)} | _agent(agent_id) | policy)


def shutdown(framework_id: str, executor_id: str, agent_id: str) -> Call:
    return _call("SHUTDOWN", framework_id, shutdown={"executor_id": _id(executor_id), "agent_id": _id(agent_id)})


def teardown(framework_id: str) -> Call:
    return _call("TEARDOWN", framework_id)


def _call(name: str, framework_id: str, **content: Json) -> Call:
    return Call(name=name, body=_encode(name, framework_id, **content))


def _encode(name: str, framework_id: str, **content: Json) -> bytes:
    return msgspec.json.encode({"type": name, "framework_id": _id(framework_id)} | content)


def _id(value: str) -> dict[str, str]:
    return {"value": value}


def _values(ids: Sequence[str]) -> list[dict[str, str]]:
    return [{"value": value} for value in ids]


def _agent(agent_id: str | None) -> dict[str, dict[str, str]]:
    return {"agent_id": _id(agent_id)} if agent_id else {}
