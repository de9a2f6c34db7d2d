"""Proving that a volume is free: what the platform is asked before a claim without a clean release may end.

A claim settles when its holder is gone by a proof (then the platform must let go of the volume), or when the platform itself
can prove that nothing holds it. Whatever fails is asked again; a claim is never given up by time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from framework.workers import Outcome, Workers
from storage.errors import PollyError, UnknownVolume
from storage.lifecycle import ProofKind
from storage.model import Access, AccessMode, Claim, ClaimId, ExternalId, Proof, Volume, VolumeId
from storage.platforms.base import Platform

SHARED: Final = frozenset({AccessMode.MULTI_NODE_READER_ONLY, AccessMode.MULTI_NODE_SINGLE_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER})
"""Several nodes may hold such a volume at once."""
Late = Callable[[], bool]
"""An answer that may be another by the time that it is needed."""
BESIDE_OTHERS: Final = frozenset({AccessMode.MULTI_NODE_SINGLE_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER})
"""A writer of such a volume is not alone on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StillHeld:
    """No proof yet, and why."""

    reason: str


def prove(
    platform: Platform, volume: Volume, claim: Claim, node: str | None, ended: Proof | None, *, shared: Late = lambda: False
) -> Proof | StillHeld:
    """Asks the platform. `ended` is the proof that the holder is gone, None while nobody knows. Safe to repeat.

    `node` is what the platform calls the holder's node, None if that was never learnt. `shared` is asked just before the volume would be
    detached: whether another claim's task goes on using it on the same node, so that it stays attached there. Raises what the
    platform raises, and what `shared` does.
    """
    if volume.unborn or volume.external_id is None:
        return Proof(kind=ProofKind.NEVER_BORN, evidence="no birth certificate was stored, so no task ever used it")
    gone = ended or _node_stopped(platform, node)
    if gone is None:
        return _fenced(platform, volume.external_id, claim, node)
    if shared():
        return Proof(kind=gone.kind, evidence=f"{gone.evidence}; another task on its node goes on using the volume")
    if gone.kind is ProofKind.RELEASED and node is not None:
        platform.detach(volume.external_id, node)  # nothing is left to be proven: the holder itself has let go
        return Proof(kind=gone.kind, evidence=f"{gone.evidence}; detached from {node}")
    seen = _let_go(platform, volume, volume.external_id, claim, node)
    return seen if isinstance(seen, StillHeld) else Proof(kind=gone.kind, evidence=f"{gone.evidence}; {seen}")


def _node_stopped(platform: Platform, node: str | None) -> Proof | None:
    if node is None or not platform.capabilities.sees_nodes:
        return None
    seen = platform.node_stopped(node)
    return Proof(kind=ProofKind.NODE_STOPPED, evidence=seen) if seen else None


def overridden(
    platform: Platform | None, volume: Volume, claim: Claim, node: str | None, word: Proof, *, shared: Late = lambda: False
) -> Proof:
    """A person's word ends the claim, whatever the platform answers. It is asked to take the volume from the holder's node first, as after
    any proof: while it is attached there, nobody else could have it."""
    if platform is None or volume.unborn:
        return word
    try:
        seen = prove(platform, volume, claim, node, word, shared=shared)
    except PollyError as error:
        seen = StillHeld(reason=str(error))
    return Proof(kind=word.kind, evidence=f"{word.evidence}; but {seen.reason}") if isinstance(seen, StillHeld) else seen


def _fenced(platform: Platform, external_id: ExternalId, claim: Claim, node: str | None) -> Proof | StillHeld:
    """Nobody knows whether the holder is gone: only the platform can say that it holds the volume no more."""
    if not platform.capabilities.fences:
        return StillHeld(reason=f"platform {platform.name} cannot tell whether something holds it")
    seen = platform.fence(external_id, claim.epoch + 1)
    if seen:
        return Proof(kind=ProofKind.FENCED, evidence=seen)
    runs = f", and not that {node} is stopped" if node and platform.capabilities.sees_nodes else ""
    return StillHeld(reason=f"{_held(platform).reason}{runs}")


def _let_go(platform: Platform, volume: Volume, external_id: ExternalId, claim: Claim, node: str | None) -> str | StillHeld:
    """Takes the volume from a holder that is gone; returns what was seen then."""
    if node is None:
        found = _only_holder(platform, volume, external_id)
        if isinstance(found, StillHeld):
            return found
        node = found
    if node is not None:
        platform.detach(external_id, node)
    # A fence needs the volume to itself; others may go on, and one that is gone and detached can write nothing.
    if claim.access is Access.RO or volume.access_mode in BESIDE_OTHERS:
        return "detached"
    if platform.capabilities.fences:
        return platform.fence(external_id, claim.epoch + 1) or _held(platform)
    if held_by := _holders(platform, external_id):
        return StillHeld(reason=f"platform {platform.name} says that {', '.join(held_by)} still holds it")
    return "detached"


def _only_holder(platform: Platform, volume: Volume, external_id: ExternalId) -> str | StillHeld | None:
    """Who holds the volume, where only the ended claim can explain it; None if nobody does."""
    held_by = _holders(platform, external_id)
    if len(held_by) < 2 and volume.access_mode not in SHARED:
        return held_by[0] if held_by else None
    if not held_by:
        return None
    names = ", ".join(held_by)
    return StillHeld(reason=f"what platform {platform.name} calls the dead task's node was never learnt, and it is held by {names}")


def _holders(platform: Platform, external_id: ExternalId) -> tuple[str, ...]:
    try:
        return platform.inspect(external_id).held_by
    except UnknownVolume:
        return ()


def _held(platform: Platform) -> StillHeld:
    return StillHeld(reason=f"platform {platform.name} says that something still holds it")


@dataclass(slots=True, eq=False)
class _Case:
    volume: Volume
    claim: Claim
    node: str | None
    ended: Proof | None
    due_at: float
    running: bool = False
    failure: str = ""
    """The code of the error that the platform's last answer was, once it was told."""


class Settler:
    """The cases under way. All methods are the broker thread's."""

    def __init__(self, platforms: Mapping[str, Platform], workers: Workers, *, clock: Callable[[], float], retry_s: float) -> None:
        self._platforms, self._workers, self._clock, self._retry_s = platforms, workers, clock, retry_s
        self._cases: dict[ClaimId, _Case] = {}
        self._asked: list[_Case] = []
        """Those whose answer is still to come, also where nobody waits for it any more: what a platform was asked to do it may yet do."""

    def open(self, volume: Volume, claim: Claim, node: str | None, ended: Proof | None, *, due_at: float = 0.0) -> None:
        """Begins to settle a claim. A case that is open keeps its pace, unless a proof comes that it did not have."""
        case = self._cases.get(claim.claim_id)
        if case is None:
            self._cases[claim.claim_id] = _Case(volume, claim, node, ended, due_at)
            return
        case.volume, case.claim, case.node = volume, claim, node or case.node
        if ended is not None and case.ended is None:
            case.ended, case.due_at, case.failure = ended, min(case.due_at, due_at), ""

    def drop(self, claim_id: ClaimId) -> None:
        """The holder was heard alive, or the claim has ended otherwise."""
        self._cases.pop(claim_id, None)

    def next_at(self) -> float | None:
        return min((case.due_at for case in self._cases.values() if not case.running), default=None)

    @property
    def is_asking(self) -> bool:
        """Whether any answer is still to come."""
        return bool(self._asked)

    def asked(self, volume_id: VolumeId) -> list[tuple[Claim, str | None]]:
        """The claims on a volume that a platform is just asked about, each with what it calls the holder's node."""
        return [(case.claim, case.node) for case in self._asked if case.claim.volume_id == volume_id]

    def override(
        self, volume: Volume, claim: Claim, node: str | None, word: Proof, done: Callable[[Outcome[Proof]], None], *, shared: Late
    ) -> None:
        """Has the volume taken from a holder that is gone by a person's word; `done` hears of the proof that came of it. For `shared` see
        `run`."""

        def job() -> Proof:
            return overridden(self._platforms.get(volume.platform), volume, claim, node, word, shared=shared)

        def finished(outcome: Outcome[Proof]) -> None:
            self._asked.remove(case)
            done(outcome)

        case = _Case(volume, claim, node, word, due_at=0.0, running=True)
        self._asked.append(case)
        self._workers.submit(volume.platform, f"volume {volume.volume_id}", job, finished, urgent=True)

    def run(
        self,
        now: float,
        done: Callable[[Claim, Proof | StillHeld], None],
        shared: Callable[[Claim, str | None], Late] = lambda _claim, _node: lambda: False,
    ) -> None:
        """Asks about each case that is due; `done` hears of each answer whose case is still open, but of failures of one kind in a row
        only once: their words may differ each time.

        `shared` says whether another task goes on using a claim's volume on the same node, which its platform calls so: what it returns is
        asked by a worker, just before the platform is asked to detach it.
        """
        due = [case for case in self._cases.values() if not case.running and case.due_at <= now]
        for case in due:
            case.running = True
            self._ask(case, done, shared(case.claim, case.node))

    def _ask(self, case: _Case, done: Callable[[Claim, Proof | StillHeld], None], shared: Late) -> None:
        volume, claim, node, ended = case.volume, case.claim, case.node, case.ended

        def job() -> Proof | StillHeld:
            platform = self._platforms.get(volume.platform)
            if platform is None:
                return StillHeld(reason=f"platform {volume.platform} is not in polly.toml")
            return prove(platform, volume, claim, node, ended, shared=shared)

        def finished(outcome: Outcome[Proof | StillHeld]) -> None:
            self._asked.remove(case)
            if self._cases.get(claim.claim_id) is not case:
                return
            case.running, case.due_at = False, self._clock() + self._retry_s
            if (case.volume.birth, case.volume.external_id, case.ended) != (volume.birth, volume.external_id, ended):
                case.due_at = self._clock()  # the volume has been born meanwhile, or the holder is proven to be gone
                return
            failure = outcome.error.code if outcome.error else ""
            if not failure or failure != case.failure:
                done(case.claim, _answer(outcome))
            case.failure = failure

        self._asked.append(case)
        self._workers.submit(volume.platform, f"volume {volume.volume_id}", job, finished, urgent=True)


def _answer(outcome: Outcome[Proof | StillHeld]) -> Proof | StillHeld:
    try:
        return outcome.get()
    except PollyError as error:
        return StillHeld(reason=str(error))
