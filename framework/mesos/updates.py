"""What a status update means for a task and its claims: the writes it makes, as values. Does no I/O.

The scheduler commits the writes of many updates at once and acknowledges after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from executors.wire import FAILED, RELEASED, Progress, VolumeProgress
from framework.mesos.instances import Phase, Task, claim_state
from framework.mesos.verdicts import Standing, Verdict
from storage.inventory import Transaction
from storage.lifecycle import ClaimState, ProofKind, VolumeState, may_follow
from storage.model import Birth, Claim, ClaimId, ExternalId, Proof, Volume, VolumeId

Write = Callable[[Transaction], object]

PHASES = {"TASK_STARTING": Phase.STARTING, "TASK_RUNNING": Phase.RUNNING, "TASK_KILLING": Phase.KILLING}


@dataclass(slots=True, kw_only=True)
class Effect:
    """What one update does. `writes` go into one transaction; the rest is true after its commit."""

    task: Task
    phase: Phase
    writes: list[Write] = field(default_factory=list)
    claims: dict[ClaimId, Claim] = field(default_factory=dict)
    """Claims with their new state."""
    freed: set[ClaimId] = field(default_factory=set)
    volumes: dict[VolumeId, Volume] = field(default_factory=dict)
    """Volumes with what was learnt of them."""
    settle: dict[ClaimId, Proof] = field(default_factory=dict)
    """Claims whose holder is gone by this proof, but whose volume the platform must first be seen to let go of."""
    stale: bool = False
    """The update speaks for a claim that is no longer live: its task must die."""
    ended: bool = False
    untidy: bool = False
    """An unborn volume was given up; its platform may have something of it."""

    def claim(self, claim_id: ClaimId) -> Claim | None:
        return None if claim_id in self.freed else self.claims.get(claim_id, self.task.claims.get(claim_id))

    def volume(self, volume_id: VolumeId) -> Volume:
        return self.volumes.get(volume_id, self.task.volumes[volume_id])

    def remaining(self) -> Iterator[Claim]:
        for claim_id in self.task.claims:
            if claim := self.claim(claim_id):
                yield claim

    def advance(self, claim: Claim, to: ClaimState, reason: str = "") -> None:
        if claim.state == to or not may_follow(claim.state, to):
            return
        self.writes.append(lambda tx: tx.advance(claim.claim_id, claim.epoch, to, reason=reason))
        self.claims[claim.claim_id] = _with_state(claim, to, reason)

    def free(self, claim: Claim, proof: Proof) -> None:
        self.writes.append(lambda tx: tx.free(claim.claim_id, claim.epoch, proof))
        self.freed.add(claim.claim_id)
        volume = self.volume(claim.volume_id)
        if volume.birth is None and volume.owner:
            self.writes.append(lambda tx: tx.unplan(volume.volume_id))
            self.untidy = True


def effect_of(task: Task, state: str, progress: Progress | None, verdict: Verdict) -> Effect:
    """What a status of `task` in Mesos state `state` does."""
    effect = Effect(task=task, phase=_phase(task, state, verdict))
    released: set[ClaimId] = set()
    for volume in progress.volumes if progress else ():
        _learn(effect, volume, released)
    if verdict.standing is Standing.ALIVE:
        _go_on(effect, progress)
    elif verdict.standing is Standing.ENDED and verdict.proof:
        effect.ended = True
        _end(effect, verdict.proof, released)
    elif verdict.standing in (Standing.UNREACHABLE, Standing.UNKNOWN):
        for claim in list(effect.remaining()):
            effect.advance(claim, ClaimState.STRANDED, f"{state}: no proof that the task is gone")
    return effect


def _phase(task: Task, state: str, verdict: Verdict) -> Phase:
    if verdict.standing is Standing.ENDED:
        return Phase.SETTLING
    if verdict.standing in (Standing.UNREACHABLE, Standing.UNKNOWN):
        return Phase.UNREACHABLE
    if task.phase is Phase.UNREACHABLE and state not in PHASES:
        return Phase.LAUNCHED
    return PHASES.get(state, task.phase)


def _learn(effect: Effect, said: VolumeProgress, released: set[ClaimId]) -> None:
    claim = effect.claim(said.claim_id)
    if claim is None or claim.epoch != said.epoch:
        effect.stale = True
        return
    volume = effect.volume(claim.volume_id)
    if said.external_id and volume.external_id is None:
        effect.writes.append(_created(volume, said.external_id, said.size_mib or volume.size_mib))
        volume = _made(volume, said.external_id, said.size_mib)
    if said.birth and volume.birth is None:
        effect.writes.append(_born(volume.volume_id, claim.epoch, said.birth))
        volume = _with_birth(volume, said.birth)
    effect.volumes[volume.volume_id] = volume
    if said.step == RELEASED or (said.step == FAILED and not said.held):
        released.add(claim.claim_id)
    elif said.step != FAILED:
        effect.advance(claim, ClaimState(said.step))


def _go_on(effect: Effect, progress: Progress | None) -> None:
    """A task that is heard alive again takes its stranded claims back; what it says of them itself goes before."""
    told = {volume.claim_id for volume in progress.volumes} if progress else set()
    for claim in list(effect.remaining()):
        if claim.state is ClaimState.STRANDED and claim.claim_id not in told and effect.phase is not Phase.LAUNCHED:
            effect.advance(claim, claim_state(effect.phase))


def _end(effect: Effect, proof: Proof, released: set[ClaimId]) -> None:
    for claim in list(effect.remaining()):
        never_ran = proof.kind is ProofKind.LAUNCH_RULED_OUT and claim.state is ClaimState.RESERVED
        if claim.claim_id in released:
            effect.free(claim, Proof(kind=ProofKind.RELEASED, evidence=f"unmounted and detached by its executor; {proof.evidence}"))
        elif never_ran:
            effect.free(claim, proof)
        elif effect.volume(claim.volume_id).birth is None:
            effect.free(claim, Proof(kind=ProofKind.NEVER_BORN, evidence=proof.evidence))
        else:
            effect.advance(claim, ClaimState.RELEASING, proof.evidence)
            effect.settle[claim.claim_id] = proof


def _created(volume: Volume, external_id: ExternalId, size_mib: int) -> Write:
    return lambda tx: tx.created(volume.volume_id, token=volume.token, external_id=external_id, size_mib=size_mib)


def _born(volume_id: VolumeId, epoch: int, birth: Birth) -> Write:
    return lambda tx: tx.born(volume_id, epoch=epoch, birth=birth)


def _with_state(claim: Claim, state: ClaimState, reason: str) -> Claim:
    return replace(claim, state=state, reason=reason)


def _made(volume: Volume, external_id: ExternalId, size_mib: int | None) -> Volume:
    return replace(volume, external_id=external_id, state=VolumeState.AVAILABLE, size_mib=size_mib or volume.size_mib)


def _with_birth(volume: Volume, birth: Birth) -> Volume:
    return replace(volume, birth=birth)
