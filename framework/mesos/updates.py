"""What a status update means for a task and its claims: the writes it makes, as values. Does no I/O.

The scheduler commits the writes of many updates at once and acknowledges after the commit. Updates may come late, twice and out
of order: a task that is over stays over, and one that runs does not go back to starting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from executors.wire import ATTACH, FAILED, RELEASED, Progress, VolumeProgress
from framework.mesos.events import Status
from framework.mesos.instances import Phase, Task, TaskRecord, claim_state
from framework.mesos.verdicts import Standing, Verdict
from storage.inventory import Transaction
from storage.lifecycle import ClaimState, ProofKind, VolumeState, may_follow
from storage.model import Birth, Claim, ClaimId, ExternalId, Proof, Volume, VolumeId

Write = Callable[[Transaction], object]

PHASES = {"TASK_STARTING": Phase.STARTING, "TASK_RUNNING": Phase.RUNNING, "TASK_KILLING": Phase.KILLING}
ORDER = (Phase.LAUNCHED, Phase.STARTING, Phase.RUNNING, Phase.KILLING)
"""In which a task that is heard of goes on, never back."""
UNSEEN = (ProofKind.TASK_GONE, ProofKind.TASK_GONE_BY_OPERATOR)
"""Proofs by which a task is over, though nobody may have seen its executor end."""


@dataclass(slots=True, kw_only=True)
class Effect:
    """What one update does. `writes` go into one transaction; the rest is true after its commit."""

    task: Task
    phase: Phase
    record: TaskRecord
    at: float = 0.0
    """When it was heard."""
    writes: list[Write] = field(default_factory=list)
    claims: dict[ClaimId, Claim] = field(default_factory=dict)
    """Claims with their new state."""
    freed: set[ClaimId] = field(default_factory=set)
    volumes: dict[VolumeId, Volume] = field(default_factory=dict)
    """Volumes of which something was learnt."""
    births: list[ClaimId] = field(default_factory=list)
    """Claims whose birth certificate the update brought, as the ledger has it or is to have it."""
    wishes: list[ClaimId] = field(default_factory=list)
    """Claims whose volume the broker is to attach."""
    settle: dict[ClaimId, Proof] = field(default_factory=dict)
    """Claims whose holder is gone by this proof, but whose volume the platform must first be seen to let go of."""
    identities: Mapping[str, str] = field(default_factory=dict)
    """What the platforms call the task's node, where its executor has said so."""
    stale: bool = False
    """The task is alive and must die: it speaks for a claim that is no longer live, of another filesystem, or of a task that is over."""
    ended: bool = False
    """The task is over; it goes when it has no claim left."""
    failed: bool = False
    """It ended in a way that counts for the back-off."""
    node: str = ""
    """The state that the task's agent is seen to be in, if that is news: UP or GONE."""
    untidy: bool = False
    """An unborn volume was given up; its platform may have something of it."""

    @property
    def over(self) -> bool:
        """Nothing is left of the task."""
        return self.ended and all(claim_id in self.freed for claim_id in self.task.claims)

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
        self.claims[claim.claim_id] = msgspec.structs.replace(claim, state=to, reason=reason, since=self.at)

    def free(self, claim: Claim, proof: Proof, *, quiet_at: float = 0.0) -> None:
        """Ends the claim. An app's volume that was never born goes with it; one that was planned by hand stays planned.

        `quiet_at` is for a holder that nobody has seen end: before it, it may still make the volume.
        """
        self.writes.append(lambda tx: tx.free(claim.claim_id, claim.epoch, proof))
        self.freed.add(claim.claim_id)
        volume = self.volume(claim.volume_id)
        if volume.unborn and volume.owner:
            self.writes.append(lambda tx: tx.unplan(volume.volume_id, keep_until=quiet_at))
            self.untidy = True


def effect_of(task: Task, status: Status, progress: Progress | None, verdict: Verdict, now: float, *, quiet_after_s: float) -> Effect:
    """What a status of `task` does, heard at the instant `now`. Without `progress`: what Mesos alone says.

    `quiet_after_s`: so much later an executor that nobody has seen end makes nothing any more.
    """
    if task.phase is Phase.SETTLING and verdict.standing is not Standing.ENDED:
        return _too_late(task, verdict)
    effect = Effect(task=task, phase=_phase(task, status.state, verdict), record=task.record, at=now, node=_node(task, verdict))
    released: set[ClaimId] = set()
    for volume in progress.volumes if progress else ():
        _learn(effect, volume, released)
    if progress:
        effect.identities = {**task.record.identities, **progress.identities}
    if verdict.standing is Standing.ALIVE:
        _go_on(effect, progress)
    elif verdict.proof:
        effect.ended = True
        effect.failed = status.state != "TASK_KILLED" and not task.record.killing
        _end(effect, verdict.proof, released, quiet_at=now + quiet_after_s if verdict.proof.kind in UNSEEN else 0.0)
    else:
        for claim in list(effect.remaining()):
            effect.advance(claim, ClaimState.STRANDED, f"{status.state}: no proof that the task is gone")
    effect.record = _record(effect, status, verdict, now)
    return effect


def _node(task: Task, verdict: Verdict) -> str:
    if verdict.agent_gone:
        return "GONE"
    return "UP" if verdict.standing is Standing.ALIVE and task.phase is Phase.UNREACHABLE else ""


def _too_late(task: Task, verdict: Verdict) -> Effect:
    """Its end is proven: nothing that comes after brings it back, and whatever still lives of it is to be killed."""
    return Effect(task=task, phase=Phase.SETTLING, record=task.record, stale=verdict.standing is Standing.ALIVE)


def _phase(task: Task, state: str, verdict: Verdict) -> Phase:
    if verdict.standing is Standing.ENDED:
        return Phase.SETTLING
    if verdict.standing is not Standing.ALIVE:
        return Phase.UNREACHABLE
    said = PHASES.get(state, Phase.LAUNCHED)
    return said if task.phase is Phase.UNREACHABLE else max(task.phase, said, key=ORDER.index)


def _record(effect: Effect, status: Status, verdict: Verdict, now: float) -> TaskRecord:
    record, phase = effect.task.record, effect.phase
    changes: dict[str, object] = {"message": status.message, "identities": effect.identities or record.identities}
    if phase is Phase.RUNNING and not record.started_at:
        changes["started_at"] = now
    if phase is Phase.UNREACHABLE and effect.task.phase is not Phase.UNREACHABLE:
        changes["unreachable_at"] = now
    if verdict.proof:
        changes["message"] = f"{status.state}{': ' + status.message if status.message else ''}"
        changes["proof"], changes["evidence"] = verdict.proof.kind.value, verdict.proof.evidence
    return msgspec.structs.replace(record, **changes)


def _learn(effect: Effect, said: VolumeProgress, released: set[ClaimId]) -> None:
    claim = effect.claim(said.claim_id)
    if claim is None or claim.epoch != said.epoch:
        effect.stale = True
        return
    volume = _identified(effect, effect.volume(claim.volume_id), claim, said)
    if volume is not effect.volume(claim.volume_id):
        effect.volumes[volume.volume_id] = volume
    if said.step == RELEASED or (said.step == FAILED and not said.held):
        released.add(claim.claim_id)
    elif said.step != FAILED:
        effect.advance(claim, ClaimState(said.step))
        if said.wants == ATTACH and volume.platform in effect.task.record.by_broker:
            effect.wishes.append(claim.claim_id)


def _identified(effect: Effect, volume: Volume, claim: Claim, said: VolumeProgress) -> Volume:
    """The volume with what its executor says of its identity; what the ledger knows already must agree."""
    if said.external_id and volume.external_id is None:
        effect.writes.append(_created(volume, said.external_id, said.size_mib or volume.size_mib))
        volume = made(volume, said.external_id, said.size_mib)
    if said.birth and volume.birth is None:
        effect.writes.append(_born(volume.volume_id, claim.epoch, said.birth))
        volume = msgspec.structs.replace(volume, birth=said.birth)
    if said.birth == volume.birth and said.birth:
        effect.births.append(claim.claim_id)
    if (said.birth or volume.birth) != volume.birth or (said.external_id or volume.external_id) != volume.external_id:
        effect.stale = True
    return volume


def _go_on(effect: Effect, progress: Progress | None) -> None:
    """A task that is heard alive takes its stranded claims back, and one that runs has mounted; what it says itself goes before."""
    told = {volume.claim_id for volume in progress.volumes} if progress else set()
    for claim in list(effect.remaining()):
        is_behind = claim.state in (ClaimState.RESERVED, ClaimState.STRANDED) or effect.phase is Phase.RUNNING
        if is_behind and claim.claim_id not in told and effect.phase is not Phase.LAUNCHED:
            effect.advance(claim, claim_state(effect.phase))


def _end(effect: Effect, proof: Proof, released: set[ClaimId], *, quiet_at: float) -> None:
    for claim in list(effect.remaining()):
        never_ran = proof.kind is ProofKind.LAUNCH_RULED_OUT and claim.state is ClaimState.RESERVED
        # Of a claim that was never heard of, the broker has attached nothing.
        by_broker = effect.volume(claim.volume_id).platform in effect.task.record.by_broker and claim.state is not ClaimState.RESERVED
        if by_broker:
            let_go = Proof(kind=ProofKind.RELEASED, evidence=f"unmounted by its executor; {proof.evidence}")
            effect.advance(claim, ClaimState.RELEASING, proof.evidence)
            effect.settle[claim.claim_id] = let_go if claim.claim_id in released else proof
        elif claim.claim_id in released:
            effect.free(claim, Proof(kind=ProofKind.RELEASED, evidence=f"unmounted and detached by its executor; {proof.evidence}"))
        elif never_ran:
            effect.free(claim, proof)
        elif effect.volume(claim.volume_id).unborn:
            effect.free(claim, Proof(kind=ProofKind.NEVER_BORN, evidence=proof.evidence), quiet_at=quiet_at)
        else:
            effect.advance(claim, ClaimState.RELEASING, proof.evidence)
            effect.settle[claim.claim_id] = proof


def _created(volume: Volume, external_id: ExternalId, size_mib: int) -> Write:
    return lambda tx: tx.created(volume.volume_id, token=volume.token, external_id=external_id, size_mib=size_mib)


def _born(volume_id: VolumeId, epoch: int, birth: Birth) -> Write:
    return lambda tx: tx.born(volume_id, epoch=epoch, birth=birth)


def made(volume: Volume, external_id: ExternalId, size_mib: int | None) -> Volume:
    """The volume once its platform holds it."""
    return msgspec.structs.replace(volume, external_id=external_id, state=VolumeState.AVAILABLE, size_mib=size_mib or volume.size_mib)
