"""Why instances wait, told of a running broker in slices: no offer and no status waits until a question about ten thousand is answered.

The broker's thread tells what it knows of some instances at a time; the refusals are counted and put into words in the thread that asks.
Between two slices the world goes on, so an answer is of no one moment: what is gone by its turn is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from threading import Lock
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from framework import remedies
from framework.engine import Engine
from framework.mesos.asking import instance_key
from framework.mesos.instances import AppState, Phase, Task, Waiting
from framework.service import Explanation, Hold, RefusalCount, WaitingInstance
from offers.tally import Tally
from storage.errors import UnknownApp
from storage.lifecycle import ClaimState, VolumeState
from storage.model import WorkloadId

ENDING = (Phase.SETTLING, Phase.UNREACHABLE)
PASSING = (Phase.LAUNCHED, Phase.STARTING, Phase.KILLING)
"""Phases of some seconds."""
LATEST = 10
"""Events of a volume among which the one that began its delete is, or it is not worth a search."""
SLICE = 200
"""So many apps, or instances, the broker's thread tells of in one go: some milliseconds."""
T = TypeVar("T")


class _Draft(NamedTuple):
    """An app without the instances that wait, and which ones those are."""

    app: Explanation
    slots: tuple[int, ...]


class _Told(NamedTuple):
    """An instance without what the offers' refusals come to, and where that can be counted."""

    app_id: WorkloadId
    instance: WaitingInstance
    tallies: Mapping[str, Tally]


class Reasons:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counting = Lock()
        """Tallies are counted when they are looked at, by one thread at a time."""

    def of_app(self, app_id: str) -> Explanation:
        """Raises UnknownApp."""
        known = self._engine.look(lambda: WorkloadId(self._engine.scheduler.apps.app(app_id).app.app_id))
        for told in self._of([known]):
            return told
        raise UnknownApp(app=app_id)

    def of_all(self) -> Sequence[Explanation]:
        """Of the apps that are held, or with instances that wait, or take long to start or to end."""
        app_ids = self._engine.look(lambda: sorted(self._engine.context.picture.apps))
        return [why for why in self._of(app_ids) if why.waiting or why.slow or why.held]

    def _of(self, app_ids: Sequence[WorkloadId]) -> list[Explanation]:
        drafts = [draft for some in sliced(app_ids) for draft in self._engine.look(partial(self._drafts, some))]
        waiting: dict[str, list[WaitingInstance]] = defaultdict(list)
        for some in sliced((WorkloadId(app.app_id), slot) for app, slots in drafts for slot in slots):
            for told in self._engine.look(partial(self._tell, some)):
                waiting[told.app_id].append(self._counted(told))
        return [_joined(app, waiting[app.app_id]) for app, _ in drafts]

    def _counted(self, told: _Told) -> WaitingInstance:
        with self._counting:
            tally = told.tallies.get(instance_key(told.app_id, told.instance.slot))
        instance = replace(told.instance, holds=tuple(map(self._dated, told.instance.holds)))
        return replace(instance, offers_refused=tally.offers, refusals=_refusals(tally)) if tally else instance

    def _dated(self, hold: Hold) -> Hold:
        """Since when a volume is deleted says only the event log."""
        if hold.state != VolumeState.DELETING:
            return hold
        events = self._engine.ledger.events(volume_id=hold.volume_id, limit=LATEST, newest_first=True).items
        return replace(hold, since=max((event.at for event in events if event.what == "volume.deleting"), default=0.0))

    # --- in the broker's thread

    def _drafts(self, app_ids: Sequence[WorkloadId]) -> list[_Draft]:
        apps = self._engine.context.picture.apps
        return [self._draft(apps[app_id]) for app_id in app_ids if app_id in apps]

    def _draft(self, state: AppState) -> _Draft:
        ending = [task for task in state.tasks.values() if task.phase in ENDING]
        replaced = {*state.waiting, *(task.slot for task in state.tasks.values() if task.phase not in ENDING)}
        context, now = self._engine.context, self._engine.parts.clock()
        settling = [_settling(state, task, remedies.of_task(context, task, now)) for task in ending if task.slot not in replaced]
        slow = [
            _slow(task, since, remedies.of_task(context, task, now)) for task in state.tasks.values() if (since := slow_since(task, now))
        ]
        running = sum(task.phase is Phase.RUNNING for task in state.tasks.values())
        app = Explanation(
            app_id=state.app.app_id,
            instances=state.instances,
            running=running,
            staging=len(state.tasks) - running - len(ending),
            waiting=tuple(settling),
            slow=tuple(sorted(slow, key=lambda it: it.slot)),
            deleting=state.deleting,
            held=state.held,
        )
        return _Draft(app, tuple(state.waiting))

    def _tell(self, instances: Sequence[tuple[WorkloadId, int]]) -> list[_Told]:
        context = self._engine.context
        now, apps = self._engine.parts.clock(), context.picture.apps
        found = [(apps[app_id], it) for app_id, slot in instances if app_id in apps and (it := apps[app_id].waiting.get(slot))]
        self._engine.scheduler.cycle.wishes_of([(state, it) for state, it in found if it.not_before <= now])
        return [_told(state, it, remedies.of_slot(context, state, it.slot, now)) for state, it in found]


def sliced(items: Iterable[T]) -> Iterator[list[T]]:
    """In parts of SLICE, for one look each."""
    left = iter(items)
    while some := list(islice(left, SLICE)):
        yield some


def _joined(app: Explanation, waiting: Sequence[WaitingInstance]) -> Explanation:
    return replace(app, waiting=tuple(sorted((*app.waiting, *waiting), key=lambda it: it.slot)))


def slow_since(task: Task, now: float) -> float:
    """Since when the task starts or ends, if that is long; else 0."""
    if task.phase not in PASSING:
        return 0.0
    claims = [claim.since for claim in task.claims.values() if claim.state is not ClaimState.MOUNTED]
    since = min(claims, default=0.0) if task.phase is Phase.KILLING else task.record.launched_at
    return since if since and now - since >= remedies.LONG_S else 0.0


def _slow(task: Task, since: float, stuck: remedies.Stuck) -> WaitingInstance:
    return WaitingInstance(
        slot=task.slot,
        since=since,
        phase=task.phase,
        blocked=_reasons(task),
        holds=stuck.holds,
        remedies=stuck.ways,
        last_message=task.record.message,
    )


def _reasons(task: Task) -> str:
    claims = [(task.volumes[claim.volume_id].name, claim) for claim in task.claims.values()]
    return "; ".join(f"volume {name} is {claim.state}" + (f": {claim.reason}" if claim.reason else "") for name, claim in claims)


def _settling(state: AppState, task: Task, stuck: remedies.Stuck) -> WaitingInstance:
    reasons = _reasons(task)
    words = reasons or f"task {task.task_id} is {task.phase} on {task.record.hostname}"
    if reasons and task.phase is Phase.UNREACHABLE and state.app.unreachable is None and not state.held:
        words += '. Its unreachableStrategy is "disabled", so Polly looks for no proof by itself before Mesos says more'
    return WaitingInstance(
        slot=task.slot,
        since=task.record.unreachable_at or min((claim.since for claim in task.claims.values()), default=task.record.launched_at),
        blocked=words,
        holds=stuck.holds,
        remedies=stuck.ways,
        last_message=task.record.message,
    )


def _told(state: AppState, it: Waiting, stuck: remedies.Stuck) -> _Told:
    instance = WaitingInstance(
        slot=it.slot,
        since=it.since,
        offers_seen=it.offers_seen,
        next_try_at=it.not_before,
        failures=state.failures.get(it.slot, 0),
        blocked=it.blocked,
        holds=stuck.holds,
        remedies=stuck.ways,
        last_message=it.last_message,
    )
    return _Told(WorkloadId(state.app.app_id), instance, it.tallies)


def _refusals(tally: Tally) -> tuple[RefusalCount, ...]:
    return tuple(
        RefusalCount(reason=refusal.value, words=refusal.words, count=count, example=tally.examples.get(refusal, ""))
        for refusal, count in tally.counts.items()
    )
