"""What people and programs ask of the running broker, answered: framework/service.py's protocol over the broker's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from importlib.metadata import version
from typing import Any

import msgspec

from framework import remedies
from framework.doctor import of_platform, of_profiles, silences, soundness
from framework.engine import Engine
from framework.marathon.model import App
from framework.mesos.asking import instance_key
from framework.mesos.instances import AppState, Phase, Task, Waiting
from framework.mesos.latest import Seen
from framework.service import (
    BrokerInfo,
    DriftOrder,
    DriftReport,
    Explanation,
    ImportOrder,
    OfferView,
    RefusalCount,
    VolumeOrder,
    WaitingInstance,
)
from framework.workers import Outcome
from offers.overlay import overlay_resources, overlays
from offers.tally import Tally
from storage.errors import Conflict, Invalid, PollyError, UnknownClaim
from storage.lifecycle import ClaimState, ProofKind
from storage.model import ClaimId, Proof, Snapshot, SnapshotId, Volume
from storage.platforms.base import Finding

ENDING = (Phase.SETTLING, Phase.UNREACHABLE)
OVERRIDABLE = (ClaimState.STRANDED, ClaimState.RELEASING)


class Desk:
    """Fulfils framework.service.Broker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def info(self) -> BrokerInfo:
        return self._engine.ask(self._info)

    def _info(self) -> BrokerInfo:
        config, driver = self._engine.config.framework, self._engine.driver
        return BrokerInfo(
            version=version("polly-broker"),
            scheduler=self._engine.name,
            framework_name=config.name,
            framework_id=driver.framework_id or "",
            master=driver.master or "",
            connected=driver.connected,
            roles=config.roles,
            hostname=config.hostname,
        )

    # --- apps -----------------------------------------------------------------------------------

    def run_app(self, definition: Mapping[str, Any], actor: str) -> App:
        return self._engine.ask(lambda: self._engine.scheduler.apps.run(definition, actor).app)

    def scale(self, app_id: str, instances: int, actor: str) -> App:
        return self._engine.ask(lambda: self._engine.scheduler.apps.scale(app_id, instances, actor).app)

    def delete_app(self, app_id: str, actor: str) -> None:
        self._engine.ask(lambda: self._engine.scheduler.apps.delete(app_id, actor))

    def explain(self, app_id: str) -> Explanation:
        return self._engine.ask(lambda: self._explain([self._engine.scheduler.apps.app(app_id)])[0])

    def explain_all(self) -> Sequence[Explanation]:
        return self._engine.ask(self._explain_all)

    def _explain_all(self) -> Sequence[Explanation]:
        apps = self._engine.context.picture.apps
        return [why for why in self._explain([apps[app_id] for app_id in sorted(apps)]) if why.waiting]

    def _explain(self, states: Sequence[AppState]) -> list[Explanation]:
        self._engine.scheduler.cycle.wishes(self._engine.parts.clock())
        return [self._explanation(state) for state in states]

    def _explanation(self, state: AppState) -> Explanation:
        ending = [task for task in state.tasks.values() if task.phase in ENDING]
        replaced = {*state.waiting, *(task.slot for task in state.tasks.values() if task.phase not in ENDING)}
        context = self._engine.context
        settling = [_settling(state, task, remedies.of_task(context, task)) for task in ending if task.slot not in replaced]
        waiting = [_waiting(state, it, remedies.of_slot(context, state, it.slot)) for it in state.waiting.values()]
        running = sum(task.phase is Phase.RUNNING for task in state.tasks.values())
        return Explanation(
            app_id=state.app.app_id,
            instances=state.instances,
            running=running,
            staging=len(state.tasks) - running - len(ending),
            waiting=tuple(sorted(settling + waiting, key=lambda it: it.slot)),
            deleting=state.deleting,
        )

    def delayed(self) -> Mapping[str, int]:
        return self._engine.ask(self._delayed)

    def _delayed(self) -> Mapping[str, int]:
        now, apps = self._engine.parts.clock(), self._engine.context.picture.apps
        held = {app_id: sum(it.not_before > now for it in state.waiting.values()) for app_id, state in apps.items()}
        return {app_id: number for app_id, number in held.items() if number}

    # --- offers ---------------------------------------------------------------------------------

    def offers(self) -> Sequence[OfferView]:
        return self._engine.ask(self._offers)

    def _offers(self) -> Sequence[OfferView]:
        cycle = self._engine.scheduler.cycle
        storage = cycle.storage_view()
        wanted = [v.existing for wish in cycle.wishes(self._engine.parts.clock()) for v in wish.ask.volumes if v.existing]
        latest = list(cycle.latest)
        found = overlays([seen.offer for seen in latest], storage, wanted)
        return [_offer_view(seen, overlay_resources(found[seen.offer.agent_id], role=seen.offer.role)) for seen in latest]

    # --- volumes --------------------------------------------------------------------------------

    def create_volume(self, order: VolumeOrder, actor: str) -> Volume:
        return self._engine.ask_later(lambda: self._engine.volumes.create(order, actor))

    def import_volume(self, order: ImportOrder, actor: str) -> Volume:
        return self._engine.ask_later(lambda: self._engine.volumes.adopt(order, actor))

    def delete_volume(self, volume: str, actor: str) -> None:
        self._engine.ask_later(lambda: self._engine.volumes.delete(volume, actor))

    def expand_volume(self, volume: str, size_mib: int, actor: str) -> Volume:
        return self._engine.ask_later(lambda: self._engine.volumes.expand(volume, size_mib, actor))

    def snapshot_volume(self, volume: str, name: str, actor: str) -> Snapshot:
        return self._engine.ask_later(lambda: self._engine.volumes.snapshot(volume, name, actor))

    def delete_snapshot(self, snapshot: SnapshotId, actor: str) -> None:
        self._engine.ask_later(lambda: self._engine.volumes.delete_snapshot(snapshot, actor))

    def release_claim(self, claim: ClaimId, reason: str, actor: str) -> None:
        self._engine.ask_later(lambda: self._release(claim, reason, actor))

    def _release(self, claim_id: ClaimId, reason: str, actor: str) -> Future[None]:
        if not reason.strip():
            raise Invalid(field="because", value=reason, reason="say how you know that the holder is gone; it is kept for ever")
        context = self._engine.context
        task = context.picture.by_claim.get(claim_id)
        if task is None:
            raise UnknownClaim(claim=claim_id)
        claim = task.claims[claim_id]
        if claim.state not in OVERRIDABLE:
            raise Conflict(what=f"claim {claim_id}", expected=" or ".join(OVERRIDABLE), found=claim.state)
        released: Future[None] = Future()

        def done(outcome: Outcome[Proof]) -> None:
            try:
                self._engine.scheduler.statuses.settled(claim, outcome.get(), actor)
            except PollyError as error:
                released.set_exception(error)
                raise
            released.set_result(None)

        volume, word = task.volumes[claim.volume_id], Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence=f"{actor}: {reason}")
        node = context.node_name(task, volume.platform)
        context.settler.override(volume, claim, node, word, done, shared=context.shares_node(claim, node))
        return released

    def look_for_drift(self, order: DriftOrder, actor: str) -> DriftReport:
        return self._engine.ask(lambda: self._engine.drifting.start(order, actor))

    def drift(self) -> DriftReport:
        return self._engine.ask(self._engine.drifting.report)

    # --- the whole ------------------------------------------------------------------------------

    def doctor(self) -> Sequence[Finding]:
        info = self.info()
        found = [
            Finding(
                ok=info.connected,
                subject="mesos",
                message=f"registered with {info.master} as {info.framework_id}" if info.connected else "not registered with a Mesos master",
                mend="" if info.connected else "Check --master, and the broker's log for what the master says.",
            ),
            *soundness(self._engine.ledger.counters()),
            *silences(self._engine.ledger.hearings()),
        ]
        for name, platform in self._engine.platforms.items():
            try:
                found.extend(of_platform(name, platform.check()))
                found.extend(of_profiles(self._engine.config, platform, self._engine.ledger.pools(name)))
            except PollyError as error:
                found.append(Finding(ok=False, subject=f"platform {name}", message=str(error), mend=error.advice))
        return found


def _settling(state: AppState, task: Task, ways_out: tuple[str, ...]) -> WaitingInstance:
    reasons = [f"volume {task.volumes[claim.volume_id].name} is {claim.state}: {claim.reason}" for claim in task.claims.values()]
    words = "; ".join(reasons) or f"task {task.task_id} is {task.phase} on {task.record.hostname}"
    if reasons and task.phase is Phase.UNREACHABLE and state.app.unreachable is None:
        words += '. Its unreachableStrategy is "disabled", so Polly looks for no proof by itself before Mesos says more'
    return WaitingInstance(
        slot=task.slot,
        since=task.record.unreachable_at or task.record.launched_at,
        blocked=words,
        remedies=ways_out,
        last_message=task.record.message,
    )


def _waiting(state: AppState, it: Waiting, ways_out: tuple[str, ...]) -> WaitingInstance:
    tally = it.tallies.get(instance_key(state.app.app_id, it.slot))
    return WaitingInstance(
        slot=it.slot,
        since=it.since,
        offers_seen=it.offers_seen,
        offers_refused=tally.offers if tally else 0,
        refusals=_refusals(tally) if tally else (),
        next_try_at=it.not_before,
        failures=state.failures.get(it.slot, 0),
        blocked=it.blocked,
        remedies=ways_out,
        last_message=it.last_message,
    )


def _refusals(tally: Tally) -> tuple[RefusalCount, ...]:
    return tuple(
        RefusalCount(reason=refusal.value, words=refusal.words, count=count, example=tally.examples.get(refusal, ""))
        for refusal, count in tally.counts.items()
    )


def _offer_view(seen: Seen, resources: Sequence[Mapping[str, Any]]) -> OfferView:
    offer = msgspec.json.decode(msgspec.json.encode(seen.offer))
    return OfferView(offer=offer, overlay=tuple(resources), received_at=seen.at, fate=seen.fate, tasks=seen.tasks)
