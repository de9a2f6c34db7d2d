"""Status updates: many in one commit, acknowledged after it. What each means is framework/mesos/updates.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from executors.wire import Progress, Receipt, decode_progress, encode
from framework.mesos.context import Context, story
from framework.mesos.deliveries import Deliveries
from framework.mesos.errors import CallFailed
from framework.mesos.events import Status
from framework.mesos.instances import Phase, Task, TaskRecord
from framework.mesos.slots import ask_slots
from framework.mesos.tasks import encode_record
from framework.mesos.updates import Effect, effect_of
from framework.mesos.verdicts import ALIVE, RECONCILIATION, Standing, Verdict, judge
from framework.settling import StillHeld
from storage.errors import AlreadyLed, Invalid, LedgerUnavailable, PollyError, PoolFull
from storage.inventory import Placement, Transaction
from storage.lifecycle import ClaimState, ProofKind
from storage.model import Claim, ClaimId, PlacementId, Proof

logger = logging.getLogger(__name__)

VIABLE_S = 60.0
"""A task that ran so long was no failed start: the back-off of its instance begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """A status of a task that is known, and what it does."""

    status: Status
    verdict: Verdict
    effect: Effect


class Statuses:
    """Applies updates to the ledger, then to the picture. The broker thread's own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deliveries = Deliveries(context, confirm=self._receipt, kill=self._kill_stray)

    def apply(self, statuses: Sequence[Status]) -> None:
        """Stores what the updates say, then acknowledges them. What the ledger cannot store is not acknowledged: Mesos sends it again."""
        try:
            for group in _one_per_task(statuses):
                self._store([heard for status in group if (heard := self._hear(status))])
        except LedgerUnavailable:
            self._ask_again(statuses)
            raise
        self._acknowledge(statuses)

    def _ask_again(self, statuses: Sequence[Status]) -> None:
        """What wants no acknowledgement Mesos would not send again."""
        unkept = [(s.task_id, s.agent_id or "") for s in statuses if not s.uuid and s.task_id in self._context.picture.tasks]
        self._context.reconciler.ask_about(unkept, self._context.clock())

    def _hear(self, status: Status) -> _Heard | None:
        task = self._context.picture.tasks.get(PlacementId(status.task_id))
        if task is None:
            if status.state in ALIVE:
                self._kill_stray(status.task_id, status.agent_id)
            return None
        verdict = judge(status.state, status.source, reason=status.reason, message=status.message, agent=status.agent_id or "")
        progress = _progress(status)
        _tell(task, status, progress)
        self._note_full_pools(task, progress)
        return _Heard(status=status, verdict=verdict, effect=self._effect_of(task, status, progress, verdict))

    def _effect_of(self, task: Task, status: Status, progress: Progress | None, verdict: Verdict) -> Effect:
        quiet_after_s = self._context.config.claims.quiet_after_s
        return effect_of(task, status, progress, verdict, self._context.clock(), quiet_after_s=quiet_after_s)

    def _note_full_pools(self, task: Task, progress: Progress | None) -> None:
        """The platform knows first that a pool is full: whoever waits is to go elsewhere."""
        for said in progress.volumes if progress else ():
            claim = task.claims.get(said.claim_id)
            if claim and said.error and said.error.code == PoolFull.__name__:
                volume = task.volumes[claim.volume_id]
                self._context.full.refused(volume.platform, volume.pool, volume.size_mib, self._context.clock())

    def _store(self, heard: Sequence[_Heard]) -> None:
        try:
            self._commit([it.effect for it in heard])
        except (LedgerUnavailable, AlreadyLed):
            raise
        except PollyError:
            self._store_one_by_one(heard)
        else:
            for it in heard:
                self._after(it)

    def _store_one_by_one(self, heard: Sequence[_Heard]) -> None:
        """What one update says does not fit the ledger: of that one only Mesos' own word counts, and its task is killed."""
        for it in heard:
            try:
                self._commit([it.effect])
                self._after(it)
            except (LedgerUnavailable, AlreadyLed):
                raise
            except PollyError as error:
                self._store_without_data(it, error)

    def _store_without_data(self, heard: _Heard, refused: PollyError) -> None:
        status, task = heard.status, heard.effect.task
        story.warning("stale    %s of task %s: %s", status.state, status.task_id, refused)
        if heard.verdict.standing is Standing.ALIVE:
            self._kill_stray(status.task_id, status.agent_id)
        try:
            self._commit([self._effect_of(task, status, None, heard.verdict)])
        except (LedgerUnavailable, AlreadyLed):
            raise
        except PollyError:
            self._context.in_doubt = True
            self._context.reconciler.ask_about([(task.task_id, task.agent_id)], self._context.clock())

    def _after(self, heard: _Heard) -> None:
        """What is owed once the update is stored: the answer to a question, the receipt of a birth, the death of a stray."""
        status, effect = heard.status, heard.effect
        self._close_question(status, heard.verdict.standing)
        if effect.stale and heard.verdict.standing is Standing.ALIVE:
            self._kill_stray(status.task_id, status.agent_id)
        elif heard.verdict.standing is Standing.ALIVE:
            self._deliveries.fulfil(status, effect.task, effect.wishes)
            self._deliveries.confirm(status, effect.task, effect.births)

    def _close_question(self, status: Status, standing: Standing) -> None:
        """Whether a task that nobody could reach lives is still to be asked."""
        is_answer = standing is Standing.ALIVE and status.reason == RECONCILIATION
        if is_answer or standing is Standing.ENDED:
            self._context.reconciler.answered(status.task_id)
        elif standing is Standing.ALIVE:
            self._context.reconciler.heard(status.task_id)

    def _receipt(self, status: Status, births: Sequence[ClaimId]) -> None:
        """Tells the executor which birth certificates the ledger now holds."""
        if not status.agent_id:
            return
        try:
            self._context.driver.message(status.agent_id, status.executor_id or status.task_id, encode(Receipt(births=tuple(births))))
        except CallFailed as error:
            logger.info("%s; the executor will ask again", error)

    def _kill_stray(self, task_id: str, agent_id: str | None) -> None:
        story.warning("stray    task %s is nobody's any more; it is killed", task_id)
        try:
            self._context.driver.kill(task_id, agent_id)
        except CallFailed as error:
            logger.warning("%s", error)

    # --- the settler's answers --------------------------------------------------------------------

    def settled(self, claim: Claim, answer: Proof | StillHeld, actor: str = "broker") -> None:
        """A platform that was asked, or an operator, has said whether the volume of a claim without a clean release is free."""
        task = self._context.picture.by_claim.get(claim.claim_id)
        if task is None or not _is_still_asked(task, task.claims[claim.claim_id], answer):
            return
        current = task.claims[claim.claim_id]
        if isinstance(answer, StillHeld):
            self._note_held(task, current, answer.reason)
            return
        name = task.volumes[claim.volume_id].name
        quiet_at = self._context.clock() + self._context.config.claims.quiet_after_s
        self._commit([_freed(task, current, answer, quiet_at)], actor)
        story.info("freed    %s epoch %d by proof %s: %s", name, claim.epoch, answer.kind, answer.evidence)

    def _note_held(self, task: Task, claim: Claim, reason: str) -> None:
        if claim.reason == reason:
            return
        with self._context.ledger.begin("broker") as tx:
            changed = tx.advance(claim.claim_id, claim.epoch, claim.state, reason=reason)
        self._context.picture.put_claim(task, changed)
        story.warning("held     volume %s is not free yet: %s", task.volumes[claim.volume_id].name, reason)

    # --- commits ----------------------------------------------------------------------------------

    def _commit(self, effects: Sequence[Effect], actor: str = "mesos") -> None:
        if not effects:
            return
        now = self._context.clock()
        names = self._context.news_of_nodes((effect.task.agent_id, effect.identities) for effect in effects)
        with self._context.ledger.begin(actor) as tx:
            for node_id, identities in names.items():
                tx.name_node(self._context.scheduler, node_id, identities)
            for effect in effects:
                _write(tx, self._context.scheduler, effect, now)
            for node, state in dict.fromkeys((effect.task.agent_id, effect.node) for effect in effects if effect.node):
                tx.node_state(self._context.scheduler, node, state)
        for node_id, identities in names.items():
            self._context.node_names.setdefault(node_id, {}).update(identities)
        ask_slots(self._context, names)
        for effect in effects:
            self._remember(effect, now)

    def _remember(self, effect: Effect, now: float) -> None:
        task, context = effect.task, self._context
        was_away = task.phase is Phase.UNREACHABLE
        context.picture.put_phase(task, effect.phase)
        task.record, task.failed = effect.record, effect.failed or task.failed
        task.volumes.update(effect.volumes)
        context.forget(effect.volumes.values())
        for claim in effect.claims.values():
            if claim.claim_id not in effect.freed:
                context.picture.put_claim(task, claim)
        for claim_id in effect.freed:
            context.forget([task.volumes[task.claims[claim_id].volume_id]])
            context.settler.drop(claim_id)
            context.picture.drop_claim(task, claim_id)
        if effect.untidy:
            context.tidy_soon()
        self._follow_settling(effect, now)
        if effect.ended and not task.claims:
            self._finish(task, now)
        elif effect.record.killing:
            context.picture.doom(task)
        if was_away and task.phase is not Phase.UNREACHABLE:
            context.came_back(task, now)

    def _follow_settling(self, effect: Effect, now: float) -> None:
        task, settler = effect.task, self._context.settler
        if task.phase not in (Phase.UNREACHABLE, Phase.SETTLING):
            for claim_id in task.claims:
                settler.drop(claim_id)
        for claim_id, proof in effect.settle.items():
            claim = task.claims[claim_id]
            volume = task.volumes[claim.volume_id]
            settler.open(volume, claim, self._context.node_name(task, volume.platform), proof, due_at=now)

    def _finish(self, task: Task, now: float) -> None:
        self._context.drop(task)
        state = self._context.picture.apps.get(task.app_id)
        if state is None:
            return
        if task.record.started_at and now - task.record.started_at >= VIABLE_S:
            state.failures.pop(task.slot, None)
        if task.failed:
            state.failures[task.slot] = state.failures.get(task.slot, 0) + 1
        self._context.wait(state, now, message=task.record.message)
        if waiting := state.waiting.get(task.slot):
            waiting.announced = False  # what stood in its way is gone: offers are wanted at once

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


def _is_still_asked(task: Task, claim: Claim, answer: Proof | StillHeld) -> bool:
    """Whether the answer still fits: while it was on its way the task may have come back, or a birth been stored."""
    if isinstance(answer, Proof) and answer.kind is ProofKind.OPERATOR_OVERRIDE:
        return True
    if task.phase not in (Phase.UNREACHABLE, Phase.SETTLING) or claim.state not in (ClaimState.STRANDED, ClaimState.RELEASING):
        return False
    never_born = isinstance(answer, Proof) and answer.kind is ProofKind.NEVER_BORN
    return not never_born or task.volumes[claim.volume_id].birth is None


def _freed(task: Task, claim: Claim, proof: Proof, quiet_at: float) -> Effect:
    """A claim's end by the platform's proof. A task that has lost one of its volumes can only end, wherever it is.

    If its own end is not proven, it is quiet from `quiet_at` on.
    """
    effect = Effect(task=task, phase=task.phase, record=task.record, ended=task.phase is Phase.SETTLING or len(task.claims) == 1)
    effect.free(claim, proof, quiet_at=0.0 if task.phase is Phase.SETTLING else quiet_at)
    if not effect.ended:
        effect.record = msgspec.structs.replace(task.record, killing=True)
    return effect


def _progress(status: Status) -> Progress | None:
    if not status.data:
        return None
    try:
        return decode_progress(status.data)
    except Invalid as error:
        logger.warning("task %s: %s", status.task_id, error)
        return None


def _write(tx: Transaction, scheduler: str, effect: Effect, now: float) -> None:
    task = effect.task
    for write in effect.writes:
        write(tx)
    if effect.over:
        tx.drop_placement(task.task_id)
        tx.note("task.ended", placement_id=task.task_id, why=f"{task.instance}: {effect.record.message}")
    elif effect.phase is not task.phase or effect.record != task.record:
        tx.put_placement(placement_of(scheduler, task, effect.phase, effect.record, now))


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
    if task.phase is Phase.UNREACHABLE and status.state == "TASK_UNREACHABLE":
        return  # Mesos is asked again and again
    words = status.state.removeprefix("TASK_").lower()
    for volume in progress.volumes if progress else ():
        claim = task.claims.get(volume.claim_id)
        name = task.volumes[claim.volume_id].name if claim else volume.claim_id
        took = ", ".join(f"{step} {spent:.0f} ms" for step, spent in volume.took_ms.items())
        what = f"{volume.step}{' on ' + volume.device if volume.device else ''}{' (' + took + ')' if took else ''}"
        error = f": {volume.error.message}" if volume.error else ""
        story.info("volume   %s epoch %d %s%s", name, volume.epoch, what, error)
    story.info("%-8s %s on %s%s", words, task.task_id, task.record.hostname, f": {status.message}" if status.message else "")
