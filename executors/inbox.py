"""All that comes to the executor, in one queue, and what it amounts to so far. Its one reader is the main thread.

Whoever has something to say (the driver's thread, the task's watcher, a signal handler) only puts it here and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from queue import Empty, SimpleQueue

from msgspec import Struct
from msgspec.structs import replace

from executors.agent import AgentEvent, KillAsked, LaunchAsked, MessageCame, ShutdownAsked, Subscribed
from executors.taskprocess import TaskEnded, TaskEvent, TaskRefused, TaskStarted
from executors.wire import Delivery, decode_receipt
from storage.errors import Invalid
from storage.model import ClaimId

Event = AgentEvent | TaskEvent

logger = logging.getLogger(__name__)


class Stop(Struct, frozen=True, kw_only=True):
    """The task must end: somebody asked for it, or nobody is left who could."""

    reason: str
    grace_s: float | None
    """None: the launch's own grace period."""
    limit_s: float = inf
    """No grace period may be longer: the agent's patience."""


class Inbox:
    """`refuse` is told of each launch after the first: an executor has one task. `shutdown_grace_s` bounds a shutdown's grace period."""

    def __init__(
        self, queue: SimpleQueue[Event], *, clock: Callable[[], float], shutdown_grace_s: float, refuse: Callable[[LaunchAsked], None]
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._shutdown_grace_s = shutdown_grace_s
        self._refuse = refuse
        self.subscribed: Subscribed | None = None
        self.launch: LaunchAsked | None = None
        self.stop: Stop | None = None
        self.births: set[ClaimId] = set()
        """Claims whose birth certificates the broker has stored."""
        self.deliveries: dict[ClaimId, Delivery] = {}
        """What the broker has attached, or could not."""
        self.started = False
        self.refused: TaskRefused | None = None
        self.ended: TaskEnded | None = None

    def put(self, event: Event) -> None:
        """From any thread, and from a signal handler."""
        self._queue.put(event)

    def wait(self, condition: Callable[[], object], until: float | None = None) -> bool:
        """Takes what comes until `condition` holds, or the clock says `until`. Whether it holds."""
        while not condition():
            left = None if until is None else max(0.0, until - self._clock())
            try:
                event = self._queue.get(timeout=left) if left != 0.0 else self._queue.get_nowait()
            except Empty:
                if left == 0.0:
                    return False
            else:
                self._take(event)
        return True

    def look(self) -> None:
        """Takes what has come, without waiting."""
        self.wait(lambda: False, self._clock())

    def _take(self, event: Event) -> None:
        match event:
            case Subscribed():
                self.subscribed = event
            case LaunchAsked():
                if self.launch is None:
                    self.launch = event
                else:
                    self._refuse(event)
            case KillAsked() if self.launch and event.task_id != self.launch.task_id:
                logger.warning("task %s is to be killed, which was refused", event.task_id)
            case KillAsked():
                logger.info("the task is to be killed")
                limit_s = self.stop.limit_s if self.stop else inf
                self.stop = Stop(reason="killed on request", grace_s=event.grace_s, limit_s=limit_s)
            case ShutdownAsked():
                logger.info("the executor is to end: %s", event.reason)
                asked = self.stop or Stop(reason=event.reason, grace_s=None)
                self.stop = replace(asked, limit_s=self._shutdown_grace_s)
            case MessageCame():
                self._take_message(event.data)
            case TaskStarted():
                self.started = True
            case TaskRefused():
                self.refused = event
            case TaskEnded():
                self.ended = event

    def _take_message(self, data: bytes) -> None:
        try:
            receipt = decode_receipt(data)
        except Invalid as error:
            logger.warning("a message of the broker is passed over: %s", error)
            return
        self.births.update(receipt.births)
        self.deliveries.update((delivery.claim_id, delivery) for delivery in receipt.deliveries)
