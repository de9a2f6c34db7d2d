"""Apps as people ask for them: run, scale, delete; and the killing of tasks that nobody wants any more."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec

from framework.marathon.ids import timestamp
from framework.marathon.model import App
from framework.marathon.reading import read_app
from framework.marathon.rules import check_against, check_instances
from framework.marathon.writing import to_json
from framework.mesos.asking import needs_of
from framework.mesos.context import Context, story
from framework.mesos.errors import CallFailed
from framework.mesos.instances import AppState, Phase, Task
from framework.mesos.statuses import placement_of
from framework.mesos.tasks import decode_record
from framework.mesos.verdicts import proof_kind
from storage.errors import AlreadyExists, Invalid, UnknownApp
from storage.inventory import Restored, Workload
from storage.lifecycle import ClaimState
from storage.model import Claim, Proof, Volume, WorkloadId

logger = logging.getLogger(__name__)

KILL_AGAIN_S = 10.0
RUNNING, DELETING = "RUNNING", "DELETING"


class Apps:
    """The broker thread's own. Every verb is in the ledger before it is in memory."""

    def __init__(self, context: Context, *, reclaim: Callable[[str], None]) -> None:
        self._context, self._reclaim = context, reclaim
        self._kill_at: dict[str, float] = {}

    # --- what people ask for --------------------------------------------------------------------

    def run(self, definition: object, actor: str) -> AppState:
        """Takes up a new app. Raises InvalidApp, NotYet, AlreadyExists, UnknownProfile."""
        now = self._context.clock()
        app = replace(self._checked(read_app(definition)), version=timestamp(now))
        if app.app_id in self._context.picture.apps:
            raise AlreadyExists(kind="App", name=app.app_id)
        state = AppState(app, app.instances, app.version or "")
        self._store(state, actor, "app.created")
        self._context.picture.apps[WorkloadId(app.app_id)] = state
        self._context.wait(state, now)
        story.info("app      %s: %s", app.app_id, "1 instance" if app.instances == 1 else f"{app.instances} instances")
        return state

    def _checked(self, app: App) -> App:
        picture, config = self._context.picture, self._context.config
        check_against(app, (state.app for state in picture.apps.values() if state.app.app_id != app.app_id))
        if app.role is not None and app.role not in config.framework.roles:
            raise Invalid(field="role", value=app.role, reason=f"this broker has the roles {', '.join(config.framework.roles)}")
        for need in needs_of(config, app, 0):
            profile, role = need.profile, app.role or config.framework.roles[0]
            if profile.roles and role not in profile.roles:
                raise Invalid(field="role", value=role, reason=f"profile {profile.name} is for the roles {', '.join(profile.roles)}")
            if need.size_mib is not None and not profile.min_mib <= need.size_mib <= (profile.max_mib or need.size_mib):
                top = f" and {profile.max_mib} MiB at most" if profile.max_mib else ""
                raise Invalid(
                    field=f"size of the volume at {need.container_path}",
                    value=f"{need.size_mib} MiB",
                    reason=f"profile {profile.name} makes volumes of {profile.min_mib} MiB at least{top}",
                )
        return app

    def app(self, app_id: str) -> AppState:
        """Raises UnknownApp."""
        try:
            return self._context.picture.apps[WorkloadId("/" + app_id.strip("/"))]
        except KeyError:
            raise UnknownApp(app=app_id) from None

    def scale(self, app_id: str, instances: int, actor: str) -> AppState:
        """More instances wait for offers; fewer are killed from the highest number down, and keep their volumes."""
        state = self.app(app_id)
        if state.deleting:
            raise Invalid(field="instances", value=instances, reason=f"app {state.app.app_id} is being deleted")
        if instances < 0:
            raise Invalid(field="instances", value=instances, reason="it must be 0 or more")
        app = replace(state.app, instances=instances)
        check_instances(app)
        scaled = AppState(app, instances, state.version, tasks=state.tasks, waiting=state.waiting, failures=state.failures)
        self._store(scaled, actor, "app.scaled")
        state.app, state.instances = app, instances
        self._context.wait(state, self._context.clock())
        return state

    def delete(self, app_id: str, actor: str) -> AppState:
        """Kills its tasks; then its volumes are reclaimed as their profiles say, and the app is gone."""
        state = self.app(app_id)
        doomed = AppState(state.app, 0, state.version, deleting=True)
        self._store(doomed, actor, "app.deleting")
        state.deleting, state.instances = True, 0
        self._context.wait(state, self._context.clock())
        return state

    def _store(self, state: AppState, actor: str, what: str) -> None:
        now = self._context.clock()
        workload = Workload(
            scheduler=self._context.scheduler,
            workload_id=WorkloadId(state.app.app_id),
            spec=json.dumps(to_json(state.app)),
            instances=state.instances,
            version=state.version,
            state=DELETING if state.deleting else RUNNING,
            created_at=now,
            updated_at=now,
        )
        with self._context.ledger.begin(actor) as tx:
            tx.put_workload(workload)
            tx.note(what, why=f"{state.app.app_id}: {state.instances} instances")

    # --- what time brings -----------------------------------------------------------------------

    def tick(self, now: float) -> None:
        for state in list(self._context.picture.apps.values()):
            self._kill([task for task in state.surplus() if task.phase is not Phase.SETTLING], now)
            if state.deleting and not state.tasks:
                self._finish(state)
        self._strand_expired(now)
        self._replace_unreachable(now)

    def next_at(self) -> float | None:
        picture = self._context.picture
        leases = (task.claims[claim_id].lease_until for claim_id, task in picture.reserved.items())
        return min((*leases, *self._kill_at.values()), default=None)

    def _kill(self, tasks: Iterable[Task], now: float) -> None:
        for task in tasks:
            if self._kill_at.get(task.task_id, 0.0) > now or not self._context.driver.connected:
                continue
            self._kill_at[task.task_id] = now + KILL_AGAIN_S
            self._mark_killing(task, now)
            try:
                self._context.driver.kill(task.task_id, task.agent_id)
            except CallFailed as error:
                logger.info("%s", error)
        for task_id in [task_id for task_id in self._kill_at if task_id not in self._context.picture.tasks]:
            del self._kill_at[task_id]

    def _mark_killing(self, task: Task, now: float) -> None:
        if task.record.killing:
            return
        record = msgspec.structs.replace(task.record, killing=True)
        with self._context.ledger.begin("broker") as tx:
            tx.put_placement(placement_of(self._context.scheduler, task, task.phase, record, now))
        task.record = record
        story.info("kill     %s", task.task_id)

    def _finish(self, state: AppState) -> None:
        self._reclaim(state.app.app_id)
        with self._context.ledger.begin("broker") as tx:
            tx.drop_workload(self._context.scheduler, WorkloadId(state.app.app_id))
            tx.note("app.deleted", why=state.app.app_id)
        del self._context.picture.apps[WorkloadId(state.app.app_id)]
        story.info("deleted  %s", state.app.app_id)

    def _strand_expired(self, now: float) -> None:
        """A launch of which nothing was heard within its lease: Mesos is asked, and nothing is freed before it answers."""
        picture = self._context.picture
        reserved = ((task, task.claims[claim_id]) for claim_id, task in picture.reserved.items())
        late = [(task, claim) for task, claim in reserved if claim.lease_until <= now]
        if not late:
            return
        with self._context.ledger.begin("broker") as tx:
            changed = [
                tx.advance(claim.claim_id, claim.epoch, ClaimState.STRANDED, reason="the lease ended and nothing was heard; Mesos is asked")
                for _, claim in late
            ]
        for (task, _), claim in zip(late, changed, strict=True):
            picture.put_claim(task, claim)
        self._context.reconciler.ask_about({(task.task_id, task.agent_id) for task, _ in late}, now)

    def _replace_unreachable(self, now: float) -> None:
        """Where the app's strategy lets an unreachable instance be replaced: without volumes at once, with volumes on proof."""
        for task in list(self._context.picture.tasks.values()):
            state = self._context.picture.apps.get(task.app_id)
            if task.phase is not Phase.UNREACHABLE or state is None:
                continue
            strategy = state.app.unreachable
            if not state.deleting and (strategy is None or now < task.record.unreachable_at + strategy.inactive_after_s):
                continue
            if task.claims:
                for claim in task.claims.values():
                    self._prove(task, claim, task.volumes[claim.volume_id])
            else:
                self._give_up(task, state, now)

    def _prove(self, task: Task, claim: Claim, volume: Volume) -> None:
        if claim.state is ClaimState.STRANDED:
            self._context.settler.open(volume, claim, task.record.hostname, None, due_at=self._context.clock())

    def _give_up(self, task: Task, state: AppState, now: float) -> None:
        with self._context.ledger.begin("broker") as tx:
            tx.drop_placement(task.task_id)
            tx.note("task.expunged", placement_id=task.task_id, why="its agent is unreachable; it is killed if it comes back")
        self._context.picture.drop_task(task)
        self._context.wait(state, now, message="its agent is unreachable")

    # --- after a restart ------------------------------------------------------------------------

    def restore(self, restored: Restored, now: float) -> None:
        """The picture from the ledger. Every task is asked about as soon as Mesos can be asked."""
        for workload in restored.workloads:
            app = read_app(json.loads(workload.spec))
            state = AppState(app, workload.instances, workload.version, deleting=workload.state == DELETING)
            self._context.picture.apps[workload.workload_id] = state
        self.take_up(restored, now)
        for state in self._context.picture.apps.values():
            self._context.wait(state, now)

    def take_up(self, restored: Restored, now: float) -> None:
        """Tasks that the ledger has and the picture has not; every one is asked about."""
        known = self._context.picture.tasks
        claims: dict[str, list[tuple[Claim, Volume]]] = {}
        for claim, volume in restored.claims:
            claims.setdefault(claim.holder.placement, []).append((claim, volume))
        new = [placement for placement in restored.placements if placement.placement_id not in known]
        for placement in new:
            pairs = claims.get(placement.placement_id, [])
            task = Task(
                task_id=placement.placement_id,
                app_id=placement.workload,
                slot=placement.slot,
                agent_id=placement.node,
                phase=Phase(placement.state),
                record=decode_record(placement.data),
                claims={claim.claim_id: claim for claim, _ in pairs},
                volumes={volume.volume_id: volume for _, volume in pairs},
            )
            self._context.picture.add_task(task)
            if task.phase is Phase.SETTLING:
                self._settle_again(task, now)
        self._context.reconciler.ask_about([(placement.placement_id, placement.node) for placement in new], now)

    def _settle_again(self, task: Task, now: float) -> None:
        for claim in task.claims.values():
            proof = Proof(kind=proof_kind(claim.reason.partition(" ")[0]), evidence=claim.reason)
            self._context.settler.open(task.volumes[claim.volume_id], claim, task.record.hostname, proof, due_at=now)
