"""A scheduler's calls to Mesos, over whichever session stands: each either was taken by the master, or raises. Knows no pymesos."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from framework.mesos import calls
from framework.mesos.calls import Acceptance
from framework.mesos.channel import Call, CallChannel, Session
from framework.mesos.errors import CallFailed, NotConnected

Encode = Callable[[str], Call]
"""Makes the call for the framework id."""


class Caller:
    """Every method may be called from any thread. Each raises

    * NotConnected: nothing was sent;
    * CallRefused: the master said no;
    * CallInDoubt: it was sent, and no answer came that says what the master did. No call is sent twice by itself.
    """

    def __init__(self, *, call_timeout_s: float, tls: ssl.SSLContext | None) -> None:
        self._call_timeout_s, self._tls = call_timeout_s, tls
        self._channel: CallChannel | None = None
        self._away = "the driver was not started"

    @property
    def connected(self) -> bool:
        """Whether there is a subscription over which calls can be made."""
        return self._channel is not None

    @property
    def away(self) -> str:
        """Why no call can be made; empty while one can."""
        return "" if self.connected else self._away

    def accept(self, offer_ids: Sequence[str], operations: Sequence[Mapping[str, Any]], *, refuse_s: float) -> None:
        """Operations on offers of one agent; what they leave of the offers is not offered again for `refuse_s` seconds."""
        acceptance = Acceptance(offer_ids=offer_ids, operations=operations)
        self._call(lambda framework_id: calls.accept(framework_id, acceptance, refuse_s=refuse_s))

    def accept_many(self, acceptances: Sequence[Acceptance], *, refuse_s: float) -> list[CallFailed | None]:
        """What became of each, in order, None where the master took it. Raises nothing: one agent's failure is not another's."""
        return self._call_many([_accept_encoder(acceptance, refuse_s) for acceptance in acceptances])

    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None:
        """Offers of any agents; they are not offered again for `refuse_s` seconds."""
        self._call(lambda framework_id: calls.decline(framework_id, offer_ids, refuse_s=refuse_s))

    def revive(self, roles: Sequence[str] = ()) -> None:
        """Wants offers again, and forgets all filters; no roles means all of them."""
        self._call(lambda framework_id: calls.revive(framework_id, roles))

    def suppress(self, roles: Sequence[str] = ()) -> None:
        """Wants no offers until revive(). A new subscription wants offers again."""
        self._call(lambda framework_id: calls.suppress(framework_id, roles))

    def acknowledge(self, agent_id: str, task_id: str, uuid: str) -> None:
        """Says that one status update need not be sent again."""
        self.acknowledge_many([(agent_id, task_id, uuid)])

    def acknowledge_many(self, updates: Sequence[tuple[str, str, str]]) -> None:
        """(agent id, task id, uuid) each. Sends all, then raises the first failure; what was not acknowledged comes again."""
        outcomes = self._call_many([_acknowledge_encoder(*update) for update in updates])
        if failure := next(filter(None, outcomes), None):
            raise failure

    def reconcile(self, tasks: Sequence[tuple[str, str | None]]) -> None:
        """Asks for the status of (task id, agent id) pairs; an empty sequence asks for every task the master knows of."""
        self._call(lambda framework_id: calls.reconcile(framework_id, tasks))

    def kill(self, task_id: str, agent_id: str | None = None, grace_s: float | None = None) -> None:
        """Asks the task's executor to end it; `grace_s` seconds overrule the grace period that the task came with."""
        self._call(lambda framework_id: calls.kill(framework_id, task_id, agent_id, grace_s))

    def message(self, agent_id: str, executor_id: str, data: bytes) -> None:
        """Sends bytes to an executor; Mesos may lose them on the way."""
        self._call(lambda framework_id: calls.message(framework_id, agent_id, executor_id, data))

    def shutdown_executor(self, executor_id: str, agent_id: str) -> None:
        """Asks the agent to end the executor, by force if it does not follow."""
        self._call(lambda framework_id: calls.shutdown(framework_id, executor_id, agent_id))

    def _call(self, encode: Encode) -> None:
        if failure := self._call_many([encode])[0]:
            raise failure

    def _call_many(self, encoders: Sequence[Encode]) -> list[CallFailed | None]:
        channel = self._channel
        framework_id = channel.session.framework_id if channel else ""
        encoded = [encode(framework_id) for encode in encoders]
        if channel is None:
            return [NotConnected(call=call.name, reason=self._away) for call in encoded]
        return channel.send(encoded)

    def _session_began(self, session: Session) -> None:
        self._channel = CallChannel(session, timeout_s=self._call_timeout_s, tls=self._tls)

    def _session_ended(self, reason: str) -> None:
        self._away = reason
        channel, self._channel = self._channel, None
        if channel:
            channel.abort()


def _accept_encoder(acceptance: Acceptance, refuse_s: float) -> Encode:
    return lambda framework_id: calls.accept(framework_id, acceptance, refuse_s=refuse_s)


def _acknowledge_encoder(agent_id: str, task_id: str, uuid: str) -> Encode:
    return lambda framework_id: calls.acknowledge(framework_id, agent_id, task_id, uuid)
