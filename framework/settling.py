"""Proving that a volume is free: what the platform is asked before a claim without a clean release may end.

A claim settles when its holder is gone by a proof (then the platform must let go of the volume), or when the platform itself
can prove that nothing holds it. Whatever fails is asked again; a claim is never given up by time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from framework.workers import Outcome, Workers
from storage.errors import PollyError
from storage.lifecycle import ProofKind
from storage.model import Access, Claim, ClaimId, Proof, Volume
from storage.platforms.base import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class StillHeld:
    """No proof yet, and why."""

    reason: str


def prove(platform: Platform, volume: Volume, claim: Claim, node: str, ended: Proof | None) -> Proof | StillHeld:
    """Asks the platform. `ended` is the proof that the holder is gone, None while nobody knows. Safe to repeat.

    Raises what the platform raises.
    """
    if volume.unborn or volume.external_id is None:
        return Proof(kind=ProofKind.NEVER_BORN, evidence="no birth certificate was stored, so no task ever used it")
    if ended is None and not platform.capabilities.fences:
        return StillHeld(reason=f"platform {volume.platform} cannot tell whether something holds it")
    if ended is not None:
        platform.detach(volume.external_id, node)
    reader_gone = ended is not None and claim.access is Access.RO
    fenced = platform.capabilities.fences and not reader_gone
    # A fence needs the volume to itself; other readers may go on, and one that is gone can write nothing.
    seen = platform.fence(volume.external_id, claim.epoch + 1) if fenced else "detached"
    if seen is None:
        return StillHeld(reason=f"platform {volume.platform} says that something still holds it")
    if ended is None:
        return Proof(kind=ProofKind.FENCED, evidence=seen)
    return Proof(kind=ended.kind, evidence=f"{ended.evidence}; {seen}")


@dataclass(slots=True)
class _Case:
    volume: Volume
    claim: Claim
    node: str
    ended: Proof | None
    due_at: float
    running: bool = False


class Settler:
    """The cases under way. All methods are the broker thread's."""

    def __init__(self, platforms: Mapping[str, Platform], workers: Workers, *, clock: Callable[[], float], retry_s: float) -> None:
        self._platforms, self._workers, self._clock, self._retry_s = platforms, workers, clock, retry_s
        self._cases: dict[ClaimId, _Case] = {}

    def open(self, volume: Volume, claim: Claim, node: str, ended: Proof | None, *, due_at: float = 0.0) -> None:
        """Begins to settle a claim. A case that is open keeps its pace, unless a proof comes that it did not have."""
        case = self._cases.get(claim.claim_id)
        if case is None:
            self._cases[claim.claim_id] = _Case(volume, claim, node, ended, due_at)
            return
        case.volume, case.claim = volume, claim
        if ended is not None and case.ended is None:
            case.ended, case.due_at = ended, min(case.due_at, due_at)

    def drop(self, claim_id: ClaimId) -> None:
        """The holder was heard alive, or the claim has ended otherwise."""
        self._cases.pop(claim_id, None)

    def next_at(self) -> float | None:
        return min((case.due_at for case in self._cases.values() if not case.running), default=None)

    def run(self, now: float, done: Callable[[Claim, Proof | StillHeld], None]) -> None:
        """Asks about each case that is due; `done` hears of each answer whose case is still open."""
        due = [case for case in self._cases.values() if not case.running and case.due_at <= now]
        for case in due:
            case.running = True
            self._ask(case, done)

    def _ask(self, case: _Case, done: Callable[[Claim, Proof | StillHeld], None]) -> None:
        volume, claim, node, ended = case.volume, case.claim, case.node, case.ended

        def job() -> Proof | StillHeld:
            platform = self._platforms.get(volume.platform)
            if platform is None:
                return StillHeld(reason=f"platform {volume.platform} is not in polly.toml")
            return prove(platform, volume, claim, node, ended)

        def finished(outcome: Outcome[Proof | StillHeld]) -> None:
            if self._cases.get(claim.claim_id) is not case:
                return
            case.running, case.due_at = False, self._clock() + self._retry_s
            if case.volume is not volume and (case.volume.birth, case.volume.external_id) != (volume.birth, volume.external_id):
                case.due_at = self._clock()  # it was asked about a volume that has been born meanwhile
            else:
                done(case.claim, _answer(outcome))

        self._workers.submit(volume.platform, f"volume {volume.volume_id}", job, finished)


def _answer(outcome: Outcome[Proof | StillHeld]) -> Proof | StillHeld:
    try:
        return outcome.get()
    except PollyError as error:
        return StillHeld(reason=str(error))
