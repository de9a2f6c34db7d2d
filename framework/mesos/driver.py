"""Polly's Mesos scheduler driver, built on pymesos: the one module of framework/ that knows pymesos.

pymesos gives the thread, how it is woken and told of a new master, and the SUBSCRIBE request. Its loop, its event
connection and its calls are replaced, each for defects of theirs: see stream.py, channel.py and caller.py.
Events only go to a sink; nothing that the sink does harms the thread, and nothing but stop(failover=False) sends a TEARDOWN.
"""

from __future__ import annotations

import base64
import logging
import os
import random
import select
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from framework.mesos import calls
from framework.mesos.caller import Caller
from framework.mesos.channel import CallChannel, Session
from framework.mesos.errors import NotConnected
from framework.mesos.events import Disconnected, Errored, Event, Subscribed, decode, parse_version
from framework.mesos.leader import Address, LeaderWatch, ZooKeeperUri, parse_master
from framework.mesos.recordio import BadRecord
from framework.mesos.stream import EventStream, Lost, Redirected, Rejected

if threading.current_thread() is not threading.main_thread() and "pymesos.process" not in sys.modules:
    raise ImportError("framework.mesos.driver must first be imported in the main thread: pymesos sets a signal handler on import")
_interrupt = signal.getsignal(signal.SIGINT)

from pymesos import MesosSchedulerDriver  # noqa: E402  # see above
from pymesos.process import Process  # noqa: E402  # see above

if _interrupt is not None and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, _interrupt)  # pymesos' handler raises what ends its thread; nothing ends ours
logging.getLogger("pymesos").handlers.clear()  # where its words go is the program's to say, not the library's

TICK_S: Final = 0.5
"""The longest that the thread waits without a look at its clock."""
STOP_S: Final = 0.9
REDIRECTS: Final = 3
"""Redirects in a row that are followed at once."""
BACKOFF_S: Final = (0.25, 15.0)
"""The first wait before connecting again, and the longest; jitter takes up to half of it off."""

logger = logging.getLogger(__name__)


class _Subscription(MesosSchedulerDriver):  # type: ignore[misc]  # pymesos has no types
    """Subscribes, and subscribes again, until stopped or rejected. All that is no override runs in pymesos' thread."""

    def __init__(self, owner: Driver, framework: Mapping[str, Any], credential: str | None) -> None:
        super().__init__(None, dict(framework), "", implicit_acknowledgements=False, failover=True)
        self._owner = owner
        self._basic_credential = credential
        self._clock = owner.clock
        self._stream: EventStream | None = None
        self._home: Address | None = None
        self._redirect: Address | None = None
        self._hops = 0
        self._failures = 0
        self._retry_at = 0.0
        self._why_none = "no master is known yet"
        self._said: str | None = None

    @property
    def framework(self) -> dict[str, Any]:
        """As it was given, with the id that the master gave: no capability is added or taken away."""
        return dict(self._framework)

    def start(self) -> None:
        Process.start(self)  # without pymesos' detector, which blocks and gives up

    def stop(self) -> None:
        Process.stop(self)
        thread = self._io_thread
        if thread and thread is not threading.current_thread():
            thread.join(STOP_S)

    def lead(self, address: Address | None, why_none: str = "") -> None:
        """Names the leading master; called from any thread."""
        self._why_none = why_none
        self.change_master(address)

    def change_master(self, new_master: Address | None) -> None:
        Process.change_master(self, new_master)  # without pymesos' question for the version, which blocks

    def on_event(self, record: bytes) -> None:
        try:
            event = decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.error("An event of %d bytes from the master was left out, for it can't be read: %s", len(record), error)
            return
        match event:
            case Errored():
                raise Rejected(event.message)
            case Subscribed():
                self._join(event)
            case _ if event:
                self._owner.emit(event)

    def _join(self, event: Subscribed) -> None:
        if (stream := self._stream) is None:
            return
        self.framework_id = event.framework_id
        stream.expect_heartbeats(event.heartbeat_s)
        self._failures = self._hops = 0
        self._said = None
        session = Session(
            address=stream.address,
            stream_id=stream.stream_id,
            framework_id=event.framework_id,
            authorization=self._basic_credential,
        )
        self._owner.joined(session, event)

    def _run(self) -> None:
        """Replaces pymesos' loop, whose every exception ends in a TEARDOWN and an interrupt of the main thread."""
        try:
            while self._started:
                self._turn()
        except Rejected as rejection:
            self._close_stream()
            self._owner.rejected(str(rejection))
        finally:
            self._close_stream()
            with self._lock:
                ends: tuple[int, ...] = self._wakeup_fds
                self._wakeup_fds: Any = None
            for end in ends:
                os.close(end)

    def _turn(self) -> None:
        try:
            self._dial_if_due()
            woken, ready = self._wait()
            if woken:
                self._follow()
            elif ready and self._stream:
                self._stream.advance()
            elif self._stream and self._clock() >= self._stream.expires_at:
                raise Lost(f"nothing was heard of the master for {self._stream.patience_s:g} s")
        except Rejected:
            raise
        except Redirected as redirection:
            self._hop(redirection.address)
        except OSError as error:
            self._drop(error.strerror or str(error))
        except (Lost, BadRecord) as error:
            self._drop(str(error))
        except Exception as error:
            logger.exception("The Mesos driver starts over")
            self._drop(f"{type(error).__name__}: {error}")

    def _dial_if_due(self) -> None:
        self._master = self._redirect or self._home
        if self._master and not self._stream and self._clock() >= self._retry_at:
            self._stream = EventStream(
                self._master,
                self.gen_request(),
                self.process_event,
                clock=self._owner.clock,
                connect_s=self._owner.call_timeout_s,
                attempt=self._failures,
                tls=self._owner.tls,
            )

    def _wait(self) -> tuple[bool, bool]:
        """Whether the thread was woken on purpose, and whether the stream can go on."""
        wake = self._wakeup_fds[0]
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if self._stream:
            poll.register(self._stream, self._stream.interest)
        due = self._stream.expires_at if self._stream else self._retry_at if self._master else self._clock() + TICK_S
        wait_s = min(TICK_S, max(0.0, due - self._clock()))
        ready = {descriptor for descriptor, _ in poll.poll(wait_s * 1000)}
        return wake in ready, bool(ready - {wake})

    def _follow(self) -> None:
        os.read(self._wakeup_fds[0], 4096)
        with self._lock:
            home = self._new_master
        if home is None and self._started:
            self._drop(self._why_none)
        elif home != self._home and self._stream and self._stream.address != home:
            self._drop(f"{home} leads now")
        if home != self._home:
            self._home, self._redirect, self._failures, self._retry_at = home, None, 0, self._clock()

    def _hop(self, address: Address) -> None:
        self._hops += 1
        if self._hops > REDIRECTS:
            self._drop(f"the masters redirect in a circle, at last to {address}")
            return
        logger.info("Redirected to the master at %s", address)
        self._close_stream()
        self._redirect = address

    def _drop(self, reason: str) -> None:
        """Closes what there is, and says so once for each reason. A redirect is forgotten: who redirected is asked again."""
        first, longest = BACKOFF_S
        told = f"{self._master}: {reason}" if self._master else reason
        self._close_stream()
        self._redirect, self._hops = None, 0
        self._retry_at = self._clock() + min(longest, first * 2 ** min(self._failures, 10)) * self._owner.rng.uniform(0.5, 1.0)
        self._failures += 1
        if told != self._said:
            self._said = told
            self._owner.left(told)

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream:
            stream.close()


class Driver(Caller):
    """A scheduler's connection to Mesos: events go to `sink`, calls are methods (see Caller for what they raise).

    The sink is called from one thread of the driver's, in the order of the events; it should only enqueue. What it raises is logged.
    An Errored is the last event: the master will not have this framework, and a person must look. After a Disconnected the
    driver goes on trying. A new subscription wants offers for every role again.

    framework: the FrameworkInfo as JSON, sent as it is; with its `id` to take up a framework again. A `principal` is added to it.
    call_timeout_s: for connecting, and for each answer. tls: for https; the system's authorities by default.
    clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        master: str,
        framework: Mapping[str, Any],
        sink: Callable[[Event], None],
        principal: str | None = None,
        secret: str | None = None,
        call_timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(call_timeout_s=call_timeout_s, tls=tls)
        self.call_timeout_s, self.tls, self.clock = call_timeout_s, tls, clock
        self.rng = rng or random.Random()  # noqa: S311 - jitter
        self._target = parse_master(master)
        self._sink = sink
        self._silent = False
        self._version: tuple[int, ...] = ()
        self._watch: LeaderWatch | None = None
        self._principal = principal
        self._subscription = _Subscription(self, self._with_principal(framework), _basic(principal, secret))

    @property
    def framework_id(self) -> str | None:
        """The id that the master gave, or that was given; None before the first subscription."""
        found: str | None = self._subscription.framework_id
        return found

    @property
    def master(self) -> str | None:
        """`host:port` of the master of the subscription that stands."""
        channel = self._channel
        return channel.session.address.netloc if channel else None

    @property
    def master_version(self) -> tuple[int, ...]:
        """(1, 11, 0), of the last subscription; () before the first."""
        return self._version

    def start(self) -> None:
        """Begins to subscribe, and returns at once."""
        self._away = "there is no subscription yet"
        self._subscription.start()
        if isinstance(self._target, ZooKeeperUri):
            self._watch = LeaderWatch(self._target, self._subscription.lead, tls=self.tls is not None)
            self._watch.start()
        else:
            self._subscription.lead(self._target)

    def stop(self, *, failover: bool = True) -> None:
        """No event comes any more. Returns within a second; the framework and its tasks live on for their failover timeout.

        failover=False ends the framework and kills its tasks: then the master's answer is waited for (call_timeout_s at most),
        and NotConnected, CallRefused or CallInDoubt raised if the master did not take it.
        """
        self._silent = True
        if self._watch:
            self._watch.stop()
        channel = self._channel
        self._session_ended("the driver was stopped")
        try:
            if not failover:
                self._tear_down(channel)
        finally:
            self._subscription.stop()
            self._session_ended("the driver was stopped")  # one may have begun meanwhile

    def joined(self, session: Session, event: Subscribed) -> None:
        """Calls can be made before the sink hears of it."""
        self._version = parse_version(str(event.master.get("version", "")))
        self._session_began(session)
        self.emit(event)

    def left(self, reason: str) -> None:
        self._session_ended(reason)
        self.emit(Disconnected(reason=reason))

    def rejected(self, message: str) -> None:
        self._session_ended(message)
        self.emit(Errored(message=message))

    def emit(self, event: Event) -> None:
        if self._silent:
            return
        try:
            self._sink(event)
        except Exception:
            logger.exception("The sink of the Mesos driver raised; %s is lost", type(event).__name__)

    def _with_principal(self, framework: Mapping[str, Any]) -> dict[str, Any]:
        return ({"principal": self._principal} if self._principal else {}) | dict(framework)

    def _tear_down(self, channel: CallChannel | None) -> None:
        if channel is None:
            raise NotConnected(call="TEARDOWN", reason=self._away)
        fresh = CallChannel(channel.session, timeout_s=self.call_timeout_s, tls=self.tls)
        failure = fresh.send([calls.teardown(channel.session.framework_id)])[0]
        fresh.abort()
        if failure:
            raise failure


def _basic(principal: str | None, secret: str | None) -> str | None:
    """The value of the Authorization header."""
    if principal is None or secret is None:
        return None
    return "Basic " + base64.b64encode(f"{principal}:{secret}".encode()).decode()
