"""What the ledger has of apps and tasks comes into the picture: after a start, and when a commit is in doubt."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from framework.marathon.model import App
from framework.marathon.reading import read_app
from framework.mesos.context import Context, story
from framework.mesos.instances import DELETING, AppState, Phase, Task
from framework.mesos.tasks import decode_record, encode_record
from storage.errors import PollyError
from storage.inventory import Placement, Restored, Workload
from storage.lifecycle import ProofKind
from storage.model import Claim, PlacementId, Proof, Volume


class TakingUp:
    """As of one instant. The ledger is right, whatever the picture says."""

    def __init__(self, context: Context, now: float) -> None:
        self._context, self._now = context, now

    def drop_all_but(self, stored: Collection[PlacementId]) -> None:
        for task in [task for task_id, task in self._context.picture.tasks.items() if task_id not in stored]:
            self._context.drop(task)

    def take_apps(self, workloads: Sequence[Workload]) -> None:
        apps = self._context.picture.apps
        for workload in workloads:
            app, refusal = _read(workload)
            state = apps.setdefault(workload.workload_id, AppState(app, workload.instances, workload.version))
            state.app, state.instances, state.version = app, workload.instances, workload.version
            state.deleting, state.unread = workload.state == DELETING, workload.spec if refusal else ""
            if (held := "" if state.deleting else refusal) and held != state.held:
                story.error("held     app %s, of which nothing is launched or killed: %s", workload.workload_id, held)
            state.held = held

    def take_tasks(self, restored: Restored) -> None:
        """Mesos is asked about those that are new, or not as they were known."""
        claims: dict[str, list[tuple[Claim, Volume]]] = {}
        for claim, volume in restored.claims:
            claims.setdefault(claim.holder.placement, []).append((claim, volume))
        taken = [task for placement in restored.placements if (task := self._take(placement, claims.get(placement.placement_id, [])))]
        new = self._end_those_over(taken)
        self._context.reconciler.ask_about([(task.task_id, task.agent_id) for task in new if task.phase is not Phase.SETTLING], self._now)

    def _take(self, placement: Placement, pairs: Sequence[tuple[Claim, Volume]]) -> Task | None:
        """The task, if it is new or not as it was known."""
        picture, volumes = self._context.picture, {volume.volume_id: volume for _, volume in pairs}
        known = picture.tasks.get(placement.placement_id)
        if known and _is_as_stored(known, placement, pairs):
            known.volumes = volumes
            return None
        if known:
            self._context.drop(known)
        task = Task(
            task_id=placement.placement_id,
            app_id=placement.workload,
            slot=placement.slot,
            agent_id=placement.node,
            phase=Phase(placement.state),
            record=decode_record(placement.data),
            claims={claim.claim_id: claim for claim, _ in pairs},
            volumes=volumes,
        )
        picture.add_task(task)
        if task.app_id not in picture.apps:
            picture.doom(task)
        if task.phase is Phase.SETTLING:
            self._settle_again(task)
        return task

    def _end_those_over(self, tasks: Sequence[Task]) -> list[Task]:
        """The others. Where two claims of a task ended in two commits of which one brought no answer, neither ended the task."""
        over = [task for task in tasks if _is_over(task)]
        if over:
            with self._context.ledger.begin("broker") as tx:
                for task in over:
                    tx.drop_placement(task.task_id)
                    tx.note("task.ended", placement_id=task.task_id, why=f"{task.instance}: {task.record.message}")
        for task in over:
            self._context.drop(task)
        return [task for task in tasks if not _is_over(task)]

    def _settle_again(self, task: Task) -> None:
        kind = ProofKind(task.record.proof) if task.record.proof else ProofKind.TERMINAL_STATUS
        proof = Proof(kind=kind, evidence=task.record.evidence or task.record.message or "its placement is settling")
        for claim in task.claims.values():
            volume = task.volumes[claim.volume_id]
            self._context.settler.open(volume, claim, self._context.node_name(task, volume.platform), proof, due_at=self._now)


def _read(workload: Workload) -> tuple[App, str]:
    """The app, and why its definition cannot be read, if it cannot: a stricter Polly may refuse what an earlier one took.

    What then stands for it asks for nothing and replaces nothing.
    """
    try:
        return read_app(json.loads(workload.spec)), ""
    except PollyError as error:
        return App(app_id=workload.workload_id, instances=workload.instances, unreachable=None), str(error)


def _is_over(task: Task) -> bool:
    """It had to end with its last claim, and has none."""
    return not task.claims and (task.phase is Phase.SETTLING or (task.phase is Phase.UNREACHABLE and bool(task.record.containers)))


def _is_as_stored(task: Task, placement: Placement, pairs: Sequence[tuple[Claim, Volume]]) -> bool:
    stored = {claim.claim_id: claim.state for claim, _ in pairs}
    return (
        task.phase is Phase(placement.state)
        and encode_record(task.record) == placement.data
        and {claim.claim_id: claim.state for claim in task.claims.values()} == stored
    )
