"""Status updates: many in one commit, acknowledged after it. What each means is framework/mesos/updates.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import msgspec

from executors.wire import Progress, Receipt, decode_progress, encode
from framework.mesos.context import Context, story
from framework.mesos.errors import CallFailed
from framework.mesos.events import Status
from framework.mesos.instances import Phase, Task, TaskRecord
from framework.mesos.tasks import encode_record
from framework.mesos.updates import Effect, effect_of
from framework.mesos.verdicts import ALIVE, Standing, judge
from framework.settling import StillHeld
from storage.errors import Conflict, Invalid, UnknownClaim
from storage.inventory import Placement, Transaction
from storage.lifecycle import ClaimState
from storage.model import Claim, ClaimId, PlacementId, Proof

logger = logging.getLogger(__name__)


class Statuses:
    """Applies updates to the ledger, then to the picture. The broker thread's own."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def apply(self, statuses: Sequence[Status]) -> None:
        """Stores what the updates say, then acknowledges them. What the ledger cannot store is not acknowledged: Mesos sends it again."""
        for group in _one_per_task(statuses):
            births = [(status, birth) for status in group if (birth := _births(_progress(status)))]
            pairs = [(status, self._effect(status)) for status in group]
            try:
                self._commit([(status, effect) for status, effect in pairs if effect])
            except (Conflict, UnknownClaim):
                self._one_by_one([(status, effect) for status, effect in pairs if effect])
            for status, claims in births:
                self._receipt(status, claims)
        self._acknowledge(statuses)

    def _receipt(self, status: Status, births: Sequence[ClaimId]) -> None:
        """Tells the executor which birth certificates the ledger now holds; those of claims that have ended it must not rely on."""
        task = self._context.picture.tasks.get(PlacementId(status.task_id))
        stored = tuple(claim_id for claim_id in births if task and _is_born(task, claim_id))
        if not stored or not status.agent_id:
            return
        try:
            self._context.driver.message(status.agent_id, status.executor_id or status.task_id, encode(Receipt(births=stored)))
        except CallFailed as error:
            logger.info("%s; the executor will ask again", error)

    def settled(self, claim: Claim, answer: Proof | StillHeld) -> None:
        """The platform has said whether the volume of a claim without a clean release is free."""
        task = self._context.picture.by_claim.get(claim.claim_id)
        if task is None:
            return
        current = task.claims[claim.claim_id]
        if isinstance(answer, StillHeld):
            self._note_held(task, current, answer.reason)
            return
        effect = Effect(task=task, phase=task.phase, ended=task.phase is Phase.SETTLING)
        effect.free(current, answer)
        if len(task.claims) == 1:
            effect.ended = True
        name = task.volumes[claim.volume_id].name
        self._commit([(None, effect)])
        story.info("freed    %s epoch %d by proof %s: %s", name, claim.epoch, answer.kind, answer.evidence)

    def _note_held(self, task: Task, claim: Claim, reason: str) -> None:
        if claim.reason == reason:
            return
        with self._context.ledger.begin("broker") as tx:
            changed = tx.advance(claim.claim_id, claim.epoch, claim.state, reason=reason)
        task.claims[claim.claim_id] = changed
        story.warning("held     volume %s is not free yet: %s", task.volumes[claim.volume_id].name, reason)

    def _effect(self, status: Status) -> Effect | None:
        task = self._context.picture.tasks.get(PlacementId(status.task_id))
        if task is None:
            if status.state in ALIVE:
                self._kill_stray(status)
            return None
        verdict = judge(status.state, status.source, reason=status.reason, message=status.message, agent=status.agent_id or "")
        effect = effect_of(task, status.state, _progress(status), verdict)
        if verdict.standing is not Standing.UNKNOWN:
            self._context.reconciler.answered(status.task_id)
        _tell(task, status, _progress(status))
        return effect

    def _kill_stray(self, status: Status) -> None:
        story.warning("stray    task %s is nobody's any more; it is killed", status.task_id)
        try:
            self._context.driver.kill(status.task_id, status.agent_id)
        except CallFailed as error:
            logger.warning("%s", error)

    def _commit(self, pairs: Sequence[tuple[Status | None, Effect]]) -> None:
        if not pairs:
            return
        now = self._context.clock()
        records = [_record(status, effect, now) for status, effect in pairs]
        with self._context.ledger.begin("mesos") as tx:
            for (status, effect), record in zip(pairs, records, strict=True):
                _write(tx, self._context.scheduler, status, effect, record, now)
        for (_, effect), record in zip(pairs, records, strict=True):
            self._remember(effect, record, now)

    def _one_by_one(self, pairs: Sequence[tuple[Status, Effect]]) -> None:
        """What one update says does not fit the ledger: that one is left out, and its task is killed."""
        for status, effect in pairs:
            try:
                self._commit([(status, effect)])
            except (Conflict, UnknownClaim) as error:
                story.warning("stale    %s of task %s: %s; it is killed", status.state, status.task_id, error)
                self._kill_stray(status)

    def _remember(self, effect: Effect, record: TaskRecord, now: float) -> None:
        task, picture = effect.task, self._context.picture
        task.phase, task.record = effect.phase, record
        task.volumes.update(effect.volumes)
        for claim in effect.claims.values():
            if claim.claim_id not in effect.freed:
                picture.put_claim(task, claim)
                if claim.state not in (ClaimState.STRANDED, ClaimState.RELEASING):
                    self._context.settler.drop(claim.claim_id)
        if effect.untidy:
            self._context.tidy_soon()
        for claim_id in effect.freed:
            self._context.settler.drop(claim_id)
            picture.drop_claim(task, claim_id)
        for claim_id, proof in effect.settle.items():
            claim = task.claims[claim_id]
            self._context.settler.open(task.volumes[claim.volume_id], claim, task.record.hostname, proof, due_at=now)
        if effect.ended and not task.claims:
            self._finish(task, now)
        elif effect.stale:
            self._kill_stray(Status(task_id=task.task_id, agent_id=task.agent_id, state="TASK_RUNNING"))

    def _finish(self, task: Task, now: float) -> None:
        context = self._context
        context.picture.drop_task(task)
        context.forget(task.volumes.values())
        context.reconciler.answered(task.task_id)
        state = context.picture.apps.get(task.app_id)
        if state is None:
            return
        state.failures[task.slot] = state.failures.get(task.slot, 0) + 1 if task.failed else 0
        context.wait(state, now, message=task.record.message)

    def _acknowledge(self, statuses: Sequence[Status]) -> None:
        updates = [(s.agent_id, s.task_id, s.uuid) for s in statuses if s.uuid and s.agent_id]
        if not updates:
            return
        try:
            self._context.driver.acknowledge_many(updates)
        except CallFailed as error:
            logger.warning("%s; Mesos will send the updates again", error)


def _one_per_task(statuses: Sequence[Status]) -> Iterator[list[Status]]:
    """Groups in order such that no task is in a group twice: an effect is computed on the state that its predecessor left."""
    group: list[Status] = []
    seen: set[str] = set()
    for status in statuses:
        if status.task_id in seen:
            yield group
            group, seen = [], set()
        group.append(status)
        seen.add(status.task_id)
    if group:
        yield group


def _births(progress: Progress | None) -> tuple[ClaimId, ...]:
    return tuple(volume.claim_id for volume in progress.volumes if volume.birth) if progress else ()


def _is_born(task: Task, claim_id: ClaimId) -> bool:
    claim = task.claims.get(claim_id)
    return claim is not None and task.volumes[claim.volume_id].birth is not None


def _progress(status: Status) -> Progress | None:
    if not status.data:
        return None
    try:
        return decode_progress(status.data)
    except Invalid as error:
        logger.warning("task %s: %s", status.task_id, error)
        return None


def _record(status: Status | None, effect: Effect, now: float) -> TaskRecord:
    task, record = effect.task, effect.task.record
    if status is None:
        return record
    changes: dict[str, object] = {"message": status.message}
    if effect.phase is Phase.RUNNING and not record.started_at:
        changes["started_at"] = now
    if effect.phase is Phase.UNREACHABLE and task.phase is not Phase.UNREACHABLE:
        changes["unreachable_at"] = now
    if effect.ended:
        task.failed = status.state not in ("TASK_FINISHED", "TASK_KILLED")
        changes["message"] = f"{status.state}{': ' + status.message if status.message else ''}"
    return msgspec.structs.replace(record, **changes)


def _write(tx: Transaction, scheduler: str, status: Status | None, effect: Effect, record: TaskRecord, now: float) -> None:
    task = effect.task
    for write in effect.writes:
        write(tx)
    if effect.ended and all(claim_id in effect.freed for claim_id in task.claims):
        tx.drop_placement(task.task_id)
        if status is not None:
            tx.note("task.ended", placement_id=task.task_id, why=record.message)
    elif status is not None and (effect.phase is not task.phase or record != task.record):
        tx.put_placement(placement_of(scheduler, task, effect.phase, record, now))


def placement_of(scheduler: str, task: Task, phase: Phase, record: TaskRecord, now: float) -> Placement:
    return Placement(
        placement_id=task.task_id,
        scheduler=scheduler,
        workload=task.app_id,
        slot=task.slot,
        node=task.agent_id,
        state=phase,
        data=encode_record(record),
        created_at=record.launched_at,
        updated_at=now,
    )


def _tell(task: Task, status: Status, progress: Progress | None) -> None:
    words = status.state.removeprefix("TASK_").lower()
    for volume in progress.volumes if progress else ():
        claim = task.claims.get(volume.claim_id)
        name = task.volumes[claim.volume_id].name if claim else volume.claim_id
        took = ", ".join(f"{step} {spent:.0f} ms" for step, spent in volume.took_ms.items())
        what = f"{volume.step}{' on ' + volume.device if volume.device else ''}{' (' + took + ')' if took else ''}"
        error = f": {volume.error.message}" if volume.error else ""
        story.info("volume   %s epoch %d %s%s", name, volume.epoch, what, error)
    story.info("%-8s %s on %s%s", words, task.task_id, task.record.hostname, f": {status.message}" if status.message else "")
