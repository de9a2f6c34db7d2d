"""Apps as people ask for them: run, scale, delete; and the killing of tasks that nobody wants any more."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from framework.config import check_mount_options
from framework.fitting import check_size, misfits
from framework.marathon.ids import timestamp
from framework.marathon.model import App, UnreachableStrategy
from framework.marathon.problems import HeldApp
from framework.marathon.reading import read_app
from framework.marathon.rules import check_against, check_instances
from framework.marathon.writing import to_json
from framework.mesos.asking import Demand, Need
from framework.mesos.context import Context, story
from framework.mesos.errors import CallFailed
from framework.mesos.instances import DELETING, RUNNING, AppState, Task
from framework.mesos.statuses import placement_of
from framework.mesos.takingup import TakingUp
from storage.errors import AlreadyExists, Invalid, UnknownApp
from storage.inventory import Advance, Restored, Workload
from storage.lifecycle import ClaimState
from storage.model import Claim, Volume, WorkloadId
from storage.near import near

logger = logging.getLogger(__name__)

KILL_AGAIN_S = 10.0
RECLAIM_AGAIN_S = 5.0
MOST_INSTANCES = 100_000
"""Of one app: each waits, or runs, as a record in memory."""
EXPUNGED = "its agent is unreachable; it is killed if it comes back"


class Apps:
    """The broker thread's own. Every verb is in the ledger before it is in memory."""

    def __init__(self, context: Context, *, reclaim: Callable[[str], bool]) -> None:
        """`reclaim` gives up the volumes of an app that is gone; False: not yet done, it is to be called again."""
        self._context, self._reclaim = context, reclaim
        self._reclaim_at: dict[WorkloadId, float] = {}
        self._began_at = context.clock()

    # --- what people ask for --------------------------------------------------------------------

    def run(self, definition: object, actor: str) -> AppState:
        """Takes up a new app. Raises InvalidApp, NotYet, UnknownProfile, AlreadyExists, also for an id that an app of another framework on
        this ledger has: the volumes of both would be the same.
        """
        now = self._context.clock()
        app = replace(self._checked(read_app(definition)), version=timestamp(now))
        if app.instances > MOST_INSTANCES:
            raise Invalid(field="instances", value=app.instances, reason=f"an app has 0 to {MOST_INSTANCES}")
        if app.app_id in self._context.picture.apps:
            raise AlreadyExists(kind="App", name=app.app_id)
        state = AppState(app, app.instances, app.version or "")
        self._store(state, actor, "app.created", new=True)
        self._context.picture.apps[WorkloadId(app.app_id)] = state
        self._context.wait(state, now)
        story.info("app      %s: %s", app.app_id, _instances(app.instances))
        return state

    def _checked(self, app: App) -> App:
        picture, config = self._context.picture, self._context.config
        check_against(app, (state.app for state in picture.apps.values() if state.app.app_id != app.app_id))
        if app.role is not None and app.role not in config.framework.roles:
            raise Invalid(field="role", value=app.role, reason=f"this broker has the roles {', '.join(config.framework.roles)}")
        for need in Demand(config, app).needs(0):
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
            self._check_volume(need)
            self._check_mount_options(need)
        return app

    def _check_mount_options(self, need: Need) -> None:
        """Those that the app itself gives; an executor would refuse them each time."""
        if need.external and need.external.mount_options:
            filesystem = need.external.filesystem or need.profile.filesystem
            profile = replace(need.profile, filesystem=filesystem, mount_options=need.mount_options)
            try:
                check_mount_options(profile, self._context.platforms)
            except Invalid as error:
                raise Invalid(**{**error.fields, "field": f"mountFlags of the volume at {need.container_path}"}) from error

    def _check_volume(self, need: Need) -> None:
        """Raises Invalid for a volume that may have to be made and that no platform can make so."""
        profile, platforms = need.profile, self._context.platforms
        if need.size_mib is None:
            return
        try:
            for problem in misfits([profile], platforms):
                raise problem
            check_size(need.size_mib, profile, platforms, self._context.ledger.pools())
        except Invalid as error:
            field = str(error.fields["field"]).removeprefix(f"profiles.{profile.name}.")
            raise Invalid(**{**error.fields, "field": f"{field} of the volume at {need.container_path}"}) from error

    def app(self, app_id: str) -> AppState:
        """Raises UnknownApp."""
        wanted, apps = "/" + app_id.strip("/"), self._context.picture.apps
        try:
            return apps[WorkloadId(wanted)]
        except KeyError:
            raise UnknownApp(app=app_id, near=near(wanted, apps)) from None

    def scale(self, app_id: str, instances: int, actor: str) -> AppState:
        """More instances wait for offers; fewer are killed from the highest number down, and keep their volumes."""
        state = self.app(app_id)
        if state.deleting:
            raise Invalid(field="instances", value=instances, reason=f"app {state.app.app_id} is being deleted")
        if state.held:
            raise HeldApp(app=state.app.app_id, reason=state.held)
        if not 0 <= instances <= MOST_INSTANCES:
            raise Invalid(field="instances", value=instances, reason=f"an app has 0 to {MOST_INSTANCES}")
        app = replace(state.app, instances=instances)
        check_instances(app)
        scaled = AppState(app, instances, state.version, tasks=state.tasks, waiting=state.waiting, failures=state.failures)
        self._store(scaled, actor, "app.scaled")
        state.app, state.instances = app, instances
        self._settle_number(state, self._context.clock())
        return state

    def delete(self, app_id: str, actor: str) -> AppState:
        """Kills its tasks; then its volumes are reclaimed as their profiles say, and the app is gone."""
        state = self.app(app_id)
        doomed = AppState(state.app, 0, state.version, deleting=True, unread=state.unread)
        self._store(doomed, actor, "app.deleting")
        state.deleting, state.held, state.instances = True, "", 0
        self._settle_number(state, self._context.clock())
        return state

    def _settle_number(self, state: AppState, now: float) -> None:
        """Free slots wait for offers, tasks without a slot are killed; one that has its slot back before that lives on."""
        surplus = {task.task_id for task in state.surplus()}
        for task in state.tasks.values():
            if task.task_id in surplus:
                self._context.picture.doom(task)
            elif not task.record.killing:
                self._context.picture.doomed.pop(task.task_id, None)
        self._context.wait(state, now)

    def _store(self, state: AppState, actor: str, what: str, *, new: bool = False) -> None:
        now = self._context.clock()
        workload = Workload(
            scheduler=self._context.scheduler,
            workload_id=WorkloadId(state.app.app_id),
            spec=state.unread or json.dumps(to_json(state.app)),
            instances=state.instances,
            version=state.version,
            state=DELETING if state.deleting else RUNNING,
            created_at=now,
            updated_at=now,
        )
        with self._context.ledger.begin(actor) as tx:
            tx.put_workload(workload, new=new)
            tx.note(what, why=f"{state.app.app_id}: {_instances(state.instances)}")

    # --- what time brings -----------------------------------------------------------------------

    def tick(self, now: float) -> None:
        self._kill(now)
        for state in [state for state in self._context.picture.apps.values() if state.deleting and not state.tasks]:
            self._finish(state, now)
        self._strand_expired(now)
        self._replace_unreachable(now)

    def next_at(self) -> float | None:
        picture = self._context.picture
        instants = [task.claims[claim_id].lease_until for claim_id, task in picture.reserved.items()]
        if self._context.driver.connected:
            instants.extend(picture.doomed.values())
        instants.extend(self._reclaim_at.values())
        return min(instants, default=None)

    def _kill(self, now: float) -> None:
        """Kills what nobody wants any more, again and again: a kill may be lost on its way."""
        picture, driver = self._context.picture, self._context.driver
        if not driver.connected:
            return
        due = [picture.tasks[task_id] for task_id, kill_at in picture.doomed.items() if kill_at <= now]
        picture.doomed.update((task.task_id, now + KILL_AGAIN_S) for task in due)
        self._mark_killing([task for task in due if not task.record.killing], now)
        for task in due:
            try:
                driver.kill(task.task_id, task.agent_id)
            except CallFailed as error:
                logger.info("%s", error)

    def _mark_killing(self, tasks: Sequence[Task], now: float) -> None:
        if not tasks:
            return
        records = [msgspec.structs.replace(task.record, killing=True) for task in tasks]
        marked = list(zip(tasks, records, strict=True))
        with self._context.ledger.begin("broker") as tx:
            tx.put_placements([placement_of(self._context.scheduler, task, task.phase, record, now) for task, record in marked])
        for task, record in marked:
            task.record = record
            story.info("kill     %s", task.task_id)

    def _finish(self, state: AppState, now: float) -> None:
        app_id = WorkloadId(state.app.app_id)
        if self._reclaim_at.get(app_id, now) > now:
            return
        self._reclaim_at[app_id] = now + RECLAIM_AGAIN_S
        if not self._reclaim(app_id):
            return
        with self._context.ledger.begin("broker") as tx:
            tx.drop_workload(self._context.scheduler, app_id)
            tx.note("app.deleted", why=app_id)
        self._forget(app_id)
        story.info("deleted  %s", app_id)

    def _forget(self, app_id: WorkloadId) -> None:
        self._context.picture.apps.pop(app_id, None)
        self._reclaim_at.pop(app_id, None)
        self._context.named.clear()

    def _strand_expired(self, now: float) -> None:
        """A launch of which nothing was heard within its lease: Mesos is asked, and nothing is freed before it answers."""
        picture = self._context.picture
        reserved = ((task, task.claims[claim_id]) for claim_id, task in picture.reserved.items())
        late = [(task, claim) for task, claim in reserved if claim.lease_until <= now]
        if not late:
            return
        moves = [
            Advance(
                claim_id=claim.claim_id,
                epoch=claim.epoch,
                to=ClaimState.STRANDED,
                reason="the lease ended and nothing was heard; Mesos is asked",
            )
            for _, claim in late
        ]
        with self._context.ledger.begin("broker") as tx:
            changed = tx.advance_many(moves)
        for (task, _), claim in zip(late, changed, strict=True):
            picture.put_claim(task, claim)
        self._context.reconciler.ask_about({(task.task_id, task.agent_id) for task, _ in late}, now)

    def _replace_unreachable(self, now: float) -> None:
        """Lets unreachable instances be replaced and forgotten as their apps' strategies say; those that nobody wants at once.

        Their claims stay what they are until they end by a proof, which is looked for from then on.
        """
        picture = self._context.picture
        for task in list(picture.unreachable.values()):
            state = picture.apps.get(task.app_id)
            unwanted = state is None or state.deleting
            strategy = UnreachableStrategy() if state is None or unwanted else state.app.unreachable
            away_s = now - self._away_since(task, now)
            if strategy is None or away_s < strategy.inactive_after_s:
                continue
            self._replace(task, state, now)
            if away_s >= strategy.expunge_after_s or unwanted:
                self._expunge(task, state, now)

    def _away_since(self, task: Task, now: float) -> float:
        """An instant that is still to come was stored by a life whose clock was ahead of this one's."""
        return self._began_at if task.record.unreachable_at > now else task.record.unreachable_at

    def _replace(self, task: Task, state: AppState | None, now: float) -> None:
        """Another may take its slot, as far as it needs no volume that this one holds."""
        for claim in task.claims.values():
            self._prove(task, claim, task.volumes[claim.volume_id])
        if state and not task.inactive:
            task.inactive = True
            self._context.wait(state, now, message="its agent is unreachable")

    def _expunge(self, task: Task, state: AppState | None, now: float) -> None:
        if not task.claims:
            self._give_up(task, state, now)
        elif not task.record.expunged:
            record = msgspec.structs.replace(task.record, expunged=True, killing=True)
            with self._context.ledger.begin("broker") as tx:
                tx.put_placement(placement_of(self._context.scheduler, task, task.phase, record, now))
                tx.note("task.expunged", placement_id=task.task_id, why=f"{EXPUNGED}; its claims stay until they end by a proof")
            task.record = record
            self._context.picture.doom(task)

    def _prove(self, task: Task, claim: Claim, volume: Volume) -> None:
        if claim.state is ClaimState.STRANDED:
            node = self._context.node_name(task, volume.platform)
            self._context.settler.open(volume, claim, node, None, due_at=self._context.clock())

    def _give_up(self, task: Task, state: AppState | None, now: float) -> None:
        with self._context.ledger.begin("broker") as tx:
            tx.drop_placement(task.task_id)
            tx.note("task.expunged", placement_id=task.task_id, why=EXPUNGED)
        self._context.drop(task)
        if state:
            self._context.wait(state, now, message="its agent is unreachable")

    def take_up(self, restored: Restored, now: float) -> None:
        """Makes the picture what the ledger has: after a start, and when a commit is in doubt. Mesos is asked about what is new in it."""
        taking = TakingUp(self._context, now)
        taking.drop_all_but({placement.placement_id for placement in restored.placements})
        for gone in self._context.picture.apps.keys() - {workload.workload_id for workload in restored.workloads}:
            self._forget(gone)
        taking.take_apps(restored.workloads)
        taking.take_tasks(restored)
        self._context.named.clear()
        for state in self._context.picture.apps.values():
            self._settle_number(state, now)


def _instances(number: int) -> str:
    return "1 instance" if number == 1 else f"{number} instances"
