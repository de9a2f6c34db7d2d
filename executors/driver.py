"""The executor's side of the agent's API: pymesos' executor driver, with what it does wrong or leaves out put right.

The only module of executors/ that knows pymesos. What differs from pymesos:
* An update is kept until the agent has acknowledged it, and goes with every SUBSCRIBE until then; so does a task that no
  acknowledged update has spoken of.
* Events only go into the inbox. None can end the IO thread, and that thread's own end is an event too.
* The agent may go away: for its recovery timeout while it is checkpointing (as the value of MESOS_CHECKPOINT says, not
  its presence), otherwise not at all. When that is over, and when the agent refuses us, ShutdownAsked comes.
* A launch sent twice is one launch; a kill brings its kill policy; every call has headers of its own and a timeout of
  seconds; the stream is read record by record, each byte once; the agent's address may be IPv6.

pymesos takes SIGINT for itself when it is imported, which only the main thread may do; the handler is put back here.
Importing all of pymesos is fine: what it needs for ZooKeeper is only imported by what uses it.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import select
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from random import random
from typing import Any

from msgspec import Struct

from executors.agent import AgentEvent, KillAsked, LaunchAsked, MessageCame, ShutdownAsked, Subscribed, Surroundings

_sigint = signal.getsignal(signal.SIGINT)
from pymesos.executor import MesosExecutorDriver  # noqa: E402  # see above

signal.signal(signal.SIGINT, _sigint)
logging.getLogger("pymesos").handlers.clear()  # it gives itself one; the program decides where logs go

logger = logging.getLogger(__name__)

PATH = "/api/v1/executor"
CALL_TIMEOUT_S = 5.0
FIRST_CONTACT_S = 60.0
"""How long the agent that has just started us may take to answer for the first time."""
LONGEST_PAUSE_S = 0.5
"""Between attempts to subscribe. An agent that came back gives its executors 2 s unless told otherwise."""
LONGEST_RECORD = 1 << 30
REFUSALS = 3
"""An agent that has refused us so often means it."""
NOT_READY = frozenset({404, 503})
"""What an agent answers that is still starting."""


class _Kept(Struct, kw_only=True):
    """An update that the agent has not acknowledged."""

    status: dict[str, Any]
    delivered: bool = False
    """Over the present subscription, by a call or with the SUBSCRIBE."""


class _Refused(Exception):
    """The agent answers, and does not want us."""


class ExecutorDriver(MesosExecutorDriver):  # type: ignore[misc]  # pymesos has no types
    """One executor's connection to its agent.

    `inbox` takes the events, from the IO thread, and must return at once. `clock` is monotonic, `now` is seconds since the
    epoch, `jitter` gives numbers from 0 to 1.
    """

    _conn: HTTPConnection | None
    _wakeup_fds: tuple[int, int] | None

    def __init__(
        self,
        surroundings: Surroundings,
        inbox: Callable[[AgentEvent], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random,
    ) -> None:
        super().__init__(executor=None, http_timeout=CALL_TIMEOUT_S)
        self._surroundings = surroundings
        self.checkpoint = surroundings.checkpoint
        self._inbox = inbox
        self._clock, self._now, self._jitter = clock, now, jitter
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._kept: dict[bytes, _Kept] = {}
        self._carried: frozenset[bytes] = frozenset()
        self._subscribed = False
        self._ended = False
        self._launched: set[str] = set()
        self._stream: socket.socket | None = None

    # --- what the executor asks for

    def update(self, task_id: str, state: str, *, message: str = "", data: bytes = b"") -> None:
        """Reports a task's state: now if the agent is there, otherwise as soon as it is back. Never raises for the network."""
        identity = uuid.uuid4().bytes
        status = {
            "task_id": {"value": task_id},
            "state": state,
            "message": message,
            "data": _base64(data),
            "uuid": _base64(identity),
            "timestamp": self._now(),
            "source": "SOURCE_EXECUTOR",
            "executor_id": self.executor_id,
        }
        with self._changed:
            self._kept[identity] = _Kept(status=status)
        self._deliver()

    def wait_acknowledged(self, timeout_s: float) -> bool:
        """Whether the agent has acknowledged (stored) every update, now or within `timeout_s` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._kept or self._ended, timeout_s)
            return not self._kept

    def stop(self) -> None:
        """Ends the IO thread; what is not acknowledged is lost."""
        super().stop()
        self._break()

    # --- calls

    def _deliver(self) -> None:
        """Sends what the agent does not have, in order. A call that fails breaks the subscription; the next one carries everything."""
        with self._sending:
            for kept in self._undelivered():
                if not self._call({"type": "UPDATE", "update": {"status": kept.status}}):
                    self._break()
                    return
                kept.delivered = True

    def _undelivered(self) -> list[_Kept]:
        with self._changed:
            return [kept for kept in self._kept.values() if not kept.delivered] if self._subscribed else []

    def _call(self, body: dict[str, Any]) -> bool:
        body |= {"executor_id": self.executor_id, "framework_id": self.framework_id}
        for attempt in (1, 2):  # the first may fail because the agent has closed the idle connection
            try:
                self._send(body, path=PATH, headers=self._headers())
            except (OSError, HTTPException, RuntimeError) as error:
                logger.warning("call %s, attempt %d: %s", body["type"], attempt, error)
                self._forget_connection()
            else:
                return True
        return False

    def _get_conn(self) -> HTTPConnection:
        if self._conn is None:
            self._conn = self._new_connection()
        return self._conn

    def _forget_connection(self) -> None:
        with self._lock:
            connection, self._conn = self._conn, None
        if connection is not None:
            connection.close()

    def _new_connection(self) -> HTTPConnection:
        host, _, port = self._surroundings.agent.rpartition(":")
        return HTTPConnection(host.strip("[]"), int(port), timeout=CALL_TIMEOUT_S)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._surroundings.token:
            headers["Authorization"] = f"Bearer {self._surroundings.token}"
        return headers

    # --- the subscription

    def _run(self) -> None:
        try:
            self._stay_subscribed()
        except Exception as error:
            logger.exception("the driver failed")
            self._inbox(ShutdownAsked(reason=f"the executor's driver failed: {error}"))
        finally:
            self._end()

    def _stay_subscribed(self) -> None:
        away_since, patience_s, refusals = self._clock(), FIRST_CONTACT_S, 0
        while not self.aborted:
            try:
                self._listen()
            except _Refused as error:
                refusals += 1
                logger.error("%s", error)
            except (OSError, HTTPException, ValueError) as error:
                logger.warning("subscription to the agent: %s", error or type(error).__name__)
            if self._unsubscribe():
                away_since, refusals = self._clock(), 0
                patience_s = self._surroundings.recovery_timeout_s if self.checkpoint else 0.0
            if self.aborted:
                return
            if refusals >= REFUSALS or self._clock() - away_since >= patience_s:
                self._inbox(
                    ShutdownAsked(reason="the agent refuses this executor" if refusals else "the agent went away and did not come back")
                )
                return
            self._pause()

    def _listen(self) -> None:
        """Subscribes, and hands on events until the stream ends. Raises _Refused, OSError, HTTPException, ValueError."""
        connection = self._new_connection()
        try:
            connection.connect()
            self._stream = stream = connection.sock
            connection.request("POST", PATH, self.gen_request(), self._headers())
            answer = connection.getresponse()
            if answer.status in NOT_READY:
                raise ConnectionError(f"the agent is not ready: {answer.status} {_words(answer)}")
            if answer.status != 200:
                raise _Refused(f"the agent refuses this executor: {answer.status} {_words(answer)}")
            for record in _records(answer):
                self.process_event(json.loads(record))
                if self._subscribed:
                    stream.settimeout(None)
        finally:
            connection.close()

    def gen_request(self) -> bytes:
        """The SUBSCRIBE, with everything that the agent may not know of."""
        with self._changed:
            self._carried = frozenset(self._kept)
            updates = [{"status": kept.status} for kept in self._kept.values()]
        call = {
            "type": "SUBSCRIBE",
            "framework_id": self.framework_id,
            "executor_id": self.executor_id,
            "subscribe": {"unacknowledged_tasks": list(self.tasks.values()), "unacknowledged_updates": updates},
        }
        return json.dumps(call).encode()

    def _unsubscribe(self) -> bool:
        """Whether there was a subscription until now."""
        with self._changed:
            was, self._subscribed, self._stream = self._subscribed, False, None
            for kept in self._kept.values():
                kept.delivered = False
        self._forget_connection()
        return was

    def _break(self) -> None:
        if stream := self._stream:
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                logger.debug("the stream was closed already")

    def _pause(self) -> None:
        longest = min(self._surroundings.backoff_max_s, LONGEST_PAUSE_S)
        assert self._wakeup_fds  # noqa: S101 (pymesos opens them before this thread starts)
        woken = self._wakeup_fds[0]
        if select.select([woken], [], [], longest * (0.1 + 0.9 * self._jitter()))[0]:
            os.read(woken, select.PIPE_BUF)

    def _end(self) -> None:
        self._unsubscribe()
        with self._lock:
            fds, self._wakeup_fds, self._started = self._wakeup_fds, None, False
        for fd in fds or ():
            os.close(fd)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # --- events

    def process_event(self, event: dict[str, Any]) -> None:
        try:
            super().process_event(event)
        except Exception:
            logger.exception("an event of the agent is passed over: %.200s", event)

    def on_subscribed(self, info: dict[str, Any]) -> None:
        if info["executor_info"]["executor_id"] != self.executor_id or info["framework_info"]["id"] != self.framework_id:
            raise ValueError("the agent takes us for another executor")
        with self._changed:
            for identity in self._carried & self._kept.keys():
                self._kept[identity].delivered = True
            self._subscribed = True
        capabilities = info["framework_info"].get("capabilities", ())
        self._inbox(
            Subscribed(
                hostname=info["agent_info"].get("hostname", ""), capabilities=frozenset(capability["type"] for capability in capabilities)
            )
        )
        self._deliver()

    def on_launch(self, event: dict[str, Any]) -> None:
        received_at = self._clock()
        task = event["task"]
        task_id = task["task_id"]["value"]
        if task_id in self._launched:
            logger.warning("task %s was launched already; nothing is done", task_id)
            return
        data = base64.b64decode(task.get("data", ""))
        self._launched.add(task_id)
        self.tasks[task_id] = task
        self._inbox(LaunchAsked(task_id=task_id, data=data, received_at=received_at))

    def on_launch_group(self, event: dict[str, Any]) -> None:
        for task in event["task_group"]["tasks"]:
            self.on_launch({"task": task})

    def on_kill(self, event: dict[str, Any]) -> None:
        grace = event.get("kill_policy", {}).get("grace_period", {}).get("nanoseconds")
        self._inbox(KillAsked(task_id=event["task_id"]["value"], grace_s=None if grace is None else int(grace) / 1e9))

    def on_acknowledged(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._kept.pop(base64.b64decode(event["uuid"]), None)
            self.tasks.pop(event["task_id"]["value"], None)
            self._changed.notify_all()

    def on_message(self, event: dict[str, Any]) -> None:
        self._inbox(MessageCame(data=base64.b64decode(event["data"])))

    def on_error(self, event: dict[str, Any]) -> None:
        self._inbox(ShutdownAsked(reason=f"the agent reports an error: {event['message']}"))

    def on_shutdown(self) -> None:
        self._inbox(ShutdownAsked(reason="the agent shuts this executor down"))


def _records(answer: HTTPResponse) -> Iterator[bytes]:
    """RecordIO: a length in digits, a newline, so many bytes. Raises ValueError where the stream is anything else."""
    while head := answer.readline(16):
        length = int(head)
        if length > LONGEST_RECORD:
            raise ValueError(f"a record of {length} bytes")
        yield answer.read(length)


def _words(answer: HTTPResponse) -> str:
    return answer.read(400).decode(errors="replace")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
