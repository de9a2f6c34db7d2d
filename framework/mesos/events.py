"""What the Mesos master tells a scheduler, as frozen records. Knows no socket and no pymesos.

An OFFERS event may be many megabytes: only its type is looked at here (msgspec checks and skips the rest), and its bytes are handed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

DEFAULT_HEARTBEAT_S: Final = 15.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A task's status as an UPDATE event brings it."""

    task_id: str
    agent_id: str | None = None
    executor_id: str | None = None
    state: str
    """`TASK_RUNNING` and so on."""
    source: str = ""
    reason: str = ""
    message: str = ""
    uuid: str | None = None
    """Base64 as it came; None: the update wants no acknowledgement."""
    data: bytes = b""
    """Decoded: what the executor put in."""
    timestamp: float = 0.0
    """Epoch seconds, by the clock of whoever made the update."""
    healthy: bool | None = None


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """The master has this framework; calls can be made from now on."""

    framework_id: str
    heartbeat_s: float
    master: Mapping[str, Any]
    """The MasterInfo, as JSON."""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """One OFFERS event."""

    data: bytes
    """The whole event, JSON as it came."""


class Rescinded(msgspec.Struct, frozen=True, kw_only=True):
    offer_id: str


class Updated(msgspec.Struct, frozen=True, kw_only=True):
    status: Status


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """An executor ended (`executor_id` says which), or an agent was removed (`executor_id` is None)."""

    agent_id: str
    executor_id: str | None = None
    status: int | None = None
    """The executor's wait status, where known."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes from an executor; Mesos may lose such a message."""

    agent_id: str
    executor_id: str
    data: bytes


class Errored(msgspec.Struct, frozen=True, kw_only=True):
    """The master will not have this framework, for the reason given. The driver has given up: no event follows."""

    message: str


class Disconnected(msgspec.Struct, frozen=True, kw_only=True):
    """There is no subscription. The driver goes on trying; said once for each reason, not for each attempt."""

    reason: str


Event = Subscribed | Offers | Rescinded | Updated | Failed | Message | Errored | Disconnected


class _Id(msgspec.Struct):
    value: str


class _Type(msgspec.Struct):
    type: str


class _Subscription(msgspec.Struct):
    framework_id: _Id
    heartbeat_interval_seconds: float = DEFAULT_HEARTBEAT_S
    master_info: dict[str, Any] = {}


class _TaskStatus(msgspec.Struct):
    task_id: _Id
    state: str
    agent_id: _Id | None = None
    executor_id: _Id | None = None
    source: str = ""
    reason: str = ""
    message: str = ""
    uuid: str | None = None
    data: bytes = b""
    timestamp: float = 0.0
    healthy: bool | None = None


class _Update(msgspec.Struct):
    status: _TaskStatus


class _Rescind(msgspec.Struct):
    offer_id: _Id


class _Failure(msgspec.Struct):
    agent_id: _Id
    executor_id: _Id | None = None
    status: int | None = None


class _Message(msgspec.Struct):
    agent_id: _Id
    executor_id: _Id
    data: bytes


class _Error(msgspec.Struct):
    message: str = ""


class _Event(msgspec.Struct):
    """Every event but OFFERS: what belongs to it stands in the field of its name."""

    type: str
    subscribed: _Subscription | None = None
    update: _Update | None = None
    rescind: _Rescind | None = None
    failure: _Failure | None = None
    message: _Message | None = None
    error: _Error | None = None


NO_NUL = "\ufffd"
"""Stands for a NUL in a message, such as what a program said before it died: PostgreSQL stores none, and the status is to be stored."""
_type = msgspec.json.Decoder(_Type)
_event = msgspec.json.Decoder(_Event)


def decode(record: bytes) -> Event | None:
    """One record of the event stream; None for a heartbeat and for events that Polly has no use for.

    Raises msgspec.DecodeError, or UnicodeDecodeError, for what is no event.
    """
    if _type.decode(record).type == "OFFERS":
        return Offers(data=record)
    return _typed(_event.decode(record))


def _typed(event: _Event) -> Event | None:
    match event:
        case _Event(type="SUBSCRIBED", subscribed=_Subscription() as it):
            return Subscribed(framework_id=it.framework_id.value, heartbeat_s=it.heartbeat_interval_seconds, master=it.master_info)
        case _Event(type="UPDATE", update=_Update() as it):
            return Updated(status=_flat(it.status))
        case _Event(type="RESCIND", rescind=_Rescind() as it):
            return Rescinded(offer_id=it.offer_id.value)
        case _Event(type="FAILURE", failure=_Failure() as it):
            return Failed(agent_id=it.agent_id.value, executor_id=_value(it.executor_id), status=it.status)
        case _Event(type="MESSAGE", message=_Message() as it):
            return Message(agent_id=it.agent_id.value, executor_id=it.executor_id.value, data=it.data)
        case _Event(type="ERROR", error=_Error() as it):
            return Errored(message=it.message)
        case _Event(type="SUBSCRIBED" | "UPDATE" | "RESCIND" | "FAILURE" | "MESSAGE" | "ERROR" as kind):
            raise msgspec.ValidationError(f"{kind} event without its `{kind.lower()}`")
    return None


def _flat(status: _TaskStatus) -> Status:
    return Status(
        task_id=status.task_id.value,
        agent_id=_value(status.agent_id),
        executor_id=_value(status.executor_id),
        state=status.state,
        source=status.source,
        reason=status.reason,
        message=status.message.replace("\0", NO_NUL),
        uuid=status.uuid,
        data=status.data,
        timestamp=status.timestamp,
        healthy=status.healthy,
    )


def _value(wrapped: _Id | None) -> str | None:
    return wrapped.value if wrapped else None


def parse_version(text: str) -> tuple[int, ...]:
    """`1.12.0-rc1` is (1, 12, 0); text without a leading number is ()."""
    found = re.match(r"\d+(?:\.\d+)*", text.strip())
    return tuple(int(part) for part in found[0].split(".")) if found else ()
