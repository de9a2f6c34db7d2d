"""What people and programs ask of the running broker, answered: framework/service.py's protocol over the broker's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec

from framework.doctor import of_doubles, of_platform, of_profiles, silences, soundness
from framework.engine import Engine
from framework.marathon.model import App
from framework.marathon.problems import HeldApp
from framework.mesos.instances import AppState, Waiting
from framework.mesos.latest import Seen
from framework.reasons import Reasons, sliced
from framework.service import (
    BrokerInfo,
    DriftOrder,
    DriftReport,
    Explanation,
    ImportOrder,
    OfferView,
    VolumeOrder,
)
from framework.workers import Outcome
from offers.overlay import overlay_resources, overlays
from storage.errors import Conflict, Invalid, PollyError, UnknownClaim
from storage.filters import ClaimFilter
from storage.lifecycle import ClaimState, ProofKind
from storage.model import Claim, ClaimId, Proof, Snapshot, SnapshotId, Volume
from storage.platforms.base import Finding

OVERRIDABLE = (ClaimState.STRANDED, ClaimState.RELEASING)


class Desk:
    """Fulfils framework.service.Broker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reasons = Reasons(engine)

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
            away=driver.away,
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
        return self._reasons.of_app(app_id)

    def explain_all(self) -> Sequence[Explanation]:
        return self._reasons.of_all()

    def delayed(self) -> Mapping[str, int]:
        return self._engine.ask(self._delayed)

    def _delayed(self) -> Mapping[str, int]:
        now, apps = self._engine.parts.clock(), self._engine.context.picture.apps
        held = {app_id: sum(it.not_before > now for it in state.waiting.values()) for app_id, state in apps.items()}
        return {app_id: number for app_id, number in held.items() if number}

    # --- offers ---------------------------------------------------------------------------------

    def offers(self) -> Sequence[OfferView]:
        """The broker's thread says what it knows; what that comes to is worked out here."""
        look, engine = self._engine.look, self._engine
        due = look(lambda: engine.context.picture.due(engine.parts.clock()))
        wanted = [volume for some in sliced(due) for volume in look(partial(self._wanted, some))]
        latest, storage = look(lambda: (engine.scheduler.cycle.latest.copy(), engine.scheduler.cycle.storage_view()))
        seen = list(latest)
        found = overlays([it.offer for it in seen], storage, wanted)
        return [_offer_view(it, overlay_resources(found[it.offer.agent_id], role=it.offer.role)) for it in seen]

    def _wanted(self, due: Sequence[tuple[AppState, Waiting]]) -> list[Volume]:
        wishes = self._engine.scheduler.cycle.wishes_of(due)
        return [volume.existing for wish in wishes for volume in wish.ask.volumes if volume.existing]

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
            raise Invalid(field="because", value=reason, reason="say how you know that the holder is gone; it is kept in the event log")
        context = self._engine.context
        task = context.picture.by_claim.get(claim_id)
        if task is None:
            self._make_sure_it_is_nobody_elses(claim_id)
            raise UnknownClaim(claim=claim_id)
        claim = task.claims[claim_id]
        _make_sure_it_is_in_doubt(claim)
        released: Future[None] = Future()

        def done(outcome: Outcome[Proof]) -> None:
            now = context.picture.by_claim.get(claim_id)
            try:
                if now is not None:  # while the platform was asked the holder may have been heard: then the word is void
                    _make_sure_it_is_in_doubt(now.claims[claim_id])
            except Conflict as error:
                released.set_exception(error)
                return
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

    def _make_sure_it_is_nobody_elses(self, claim_id: ClaimId) -> None:
        """Raises Conflict for a claim of another broker on the ledger, which alone knows its task."""
        for claim in self._engine.ledger.claims(ClaimFilter(claim_id=claim_id)).items:
            if (scheduler := claim.holder.scheduler) != self._engine.name:
                found = f"one of {scheduler}: ask the broker of that framework, or start it again"
                raise Conflict(what=f"claim {claim_id}", expected=f"one of {self._engine.name}", found=found)

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
                message=f"registered with {info.master} as {info.framework_id}"
                if info.connected
                else f"not registered with a master: {info.away}",
                mend="" if info.connected else "Mend that, or the broker's --master; polly doctor --master looks from where it runs.",
            ),
            *soundness(self._engine.ledger.counters()),
            *silences(self._engine.ledger.hearings()),
            *of_doubles(self._engine.config, self._engine.ledger.pools()),
            *self._engine.ask(self._held),
        ]
        for name, platform in self._engine.platforms.items():
            try:
                found.extend(of_platform(name, platform.check()))
                found.extend(of_profiles(self._engine.config, platform, self._engine.ledger.pools(name)))
            except PollyError as error:
                found.append(Finding(ok=False, subject=f"platform {name}", message=str(error), mend=error.advice))
        return found

    def _held(self) -> list[Finding]:
        apps = self._engine.context.picture.apps.items()
        held = {app_id: HeldApp(app=app_id, reason=state.held) for app_id, state in apps if state.held}
        return [Finding(ok=False, subject=f"app {app_id}", message=str(it), mend=it.advice) for app_id, it in held.items()]


def _make_sure_it_is_in_doubt(claim: Claim) -> None:
    """Raises Conflict for a claim whose holder is heard of: no word of a person's is needed for its end, nor would it be true."""
    if claim.state not in OVERRIDABLE:
        found = f"{claim.state}: its holder {claim.holder.placement} is heard of, and its claim ends when it does"
        raise Conflict(what=f"claim {claim.claim_id}", expected=" or ".join(OVERRIDABLE), found=found)


def _offer_view(seen: Seen, resources: Sequence[Mapping[str, Any]]) -> OfferView:
    offer = msgspec.json.decode(msgspec.json.encode(seen.offer))
    return OfferView(offer=offer, overlay=tuple(resources), received_at=seen.at, fate=seen.fate, tasks=seen.tasks)
