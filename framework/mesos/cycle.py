"""The offer cycle: OFFERS, decode, match, claim (commit), ACCEPT or DECLINE with a reasoned filter. No offer is hoarded."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from framework.config import PlatformKeys
from framework.fitting import sizes_in
from framework.mesos.asking import Demand, Need, obstacle
from framework.mesos.calls import Acceptance
from framework.mesos.context import Context
from framework.mesos.errors import CallFailed, CallInDoubt
from framework.mesos.instances import AppState, Task, Waiting
from framework.mesos.latest import LatestOffers
from framework.mesos.launches import Launch, Round, Wish
from framework.mesos.slots import ask_slots
from framework.mesos.taskinfo import LaunchOperation, TaskInfos
from framework.mesos.telling import tell_round
from offers.matching import match
from offers.records import Malformed, Offer, decode_sound_offers
from offers.view import PlatformView, Reach, StorageView
from storage.errors import Invalid, PollyError
from storage.inventory import Storing
from storage.lifecycle import ProofKind
from storage.model import Claim, Node, NodeId, Proof, Volume, VolumeId
from storage.platforms.base import Platform

logger = logging.getLogger(__name__)

Holders = Mapping[VolumeId, Sequence[tuple[str, Claim]]]
"""Who holds a volume, in words, and by which claim."""
IDLE_REFUSE_S = 3600.0
"""Nothing waits: reviving takes this filter back."""
BUSY_REFUSE_S = 5.0
"""Something waits that this offer did not fit."""
NODE_SEEN_S = 60.0
TELL_AGAIN_S = 600.0
"""How often the log says that an agent's offers are malformed: they come again and again."""


@dataclass(slots=True)
class OfferCycle:
    context: Context
    latest: LatestOffers = field(default_factory=LatestOffers)
    suppressed: bool = False
    filtered: bool = False
    """Offers were declined since the last revive, so some agents are not offered for a while."""
    _seen: dict[str, float] = field(default_factory=dict)
    _told: dict[str, float] = field(default_factory=dict)
    """When it was last said of an agent that its offers are malformed."""

    def run(self, events: Iterable[bytes], rescinded: frozenset[str]) -> None:
        """One round over all OFFERS events that are at hand."""
        now = self.context.clock()
        offers: list[Offer] = []
        good: list[bytes] = []
        offer_ids: list[str] = []
        for data in events:
            some, malformed = _decoded(data)
            if some:
                good.append(data)
                offers += [offer for offer in some if offer.offer.value not in rescinded]
            offer_ids += self._pass_over(malformed, now)
            some = ()  # so that `offers` alone holds them: the round gives them up as soon as it can
        offer_ids += [offer.offer.value for offer in offers]
        seen = self.latest.note(offers, good, now)
        busy = True  # a ledger that does not answer must not cost a long filter: what waits is not known
        try:
            self.context.keep_id()
            self._record_nodes(offers, now)
            due = self.context.picture.due(now)
            most = len(due) if offers and not self.context.in_doubt else 0
            with self.context.ledger.placing("broker", most=most) as storing:
                wishes = self.wishes_of(due)
                busy = self.context.picture.is_due(now)  # what blocks an instance may go at any moment
                if wishes and most:
                    seen.used = self._place(wishes, offers, now, storing)
        finally:
            self._decline([offer_id for offer_id in dict.fromkeys(offer_ids) if offer_id not in seen.used], busy=busy)

    def _pass_over(self, malformed: Iterable[Malformed], now: float) -> list[str]:
        """Says what is wrong, of each agent now and then. Returns the offers that can be declined."""
        declined = []
        for it in malformed:
            if now - self._told.get(it.agent, float("-inf")) >= TELL_AGAIN_S:
                self._told[it.agent] = now
                logger.error("passed over: %s", it.error)
            if it.offer_id:
                declined.append(it.offer_id)
        return declined

    def forget_agent(self, agent_id: str) -> None:
        self.latest.forget_agent(agent_id)
        self._seen.pop(agent_id, None)

    def wishes_of(self, due: Iterable[tuple[AppState, Waiting]]) -> list[Wish]:
        """Those of these instances, which may be launched now, that only offers are wanting for; on the others it is noted what else is."""
        demands: dict[str, Demand | str] = {}
        wanted: list[tuple[AppState, Waiting, Demand, Sequence[Need]]] = []
        for state, waiting in due:
            app_id = state.app.app_id
            demand = demands.get(app_id)
            if demand is None:
                demand = demands[app_id] = self._demand(state)
            if isinstance(demand, str):
                waiting.block(demand)
            else:
                wanted.append((state, waiting, demand, demand.needs(waiting.slot)))
        named = self.context.resolve([need.name for *_, needs in wanted for need in needs])
        elsewhere = self._held_elsewhere({need.name for *_, needs in wanted for need in needs if need.external}, named)
        wishes = []
        for state, waiting, demand, needs in wanted:
            if words := self._blocked(needs, named, elsewhere):
                waiting.block(words)
            else:
                waiting.blocked = ""
                ask = demand.ask(waiting.slot, state.failures.get(waiting.slot, 0), needs, named)
                wishes.append(Wish(state, waiting, {need.container_path: need for need in needs}, ask))
        return wishes

    def _demand(self, state: AppState) -> Demand | str:
        """Why none, in words, where the app is held or polly.toml has no longer what it needs."""
        if state.held:
            return f"the app is held: {state.held}"
        roles = self.context.config.framework.roles
        try:
            demand = Demand(self.context.config, state.app)
        except PollyError as error:
            return str(error)
        if demand.role not in roles:
            return f"the app's role is {demand.role}, and this broker has the roles {', '.join(roles)}"
        return demand

    def _held_elsewhere(self, names: Collection[str], named: Mapping[str, Volume]) -> Holders:
        """Who holds these volumes by other brokers on the ledger; an app's own volumes are not for apps of others."""
        claims = self.context.ledger.claims_on([named[name].volume_id for name in names if name in named]) if names else {}
        mine = self.context.scheduler
        held = {volume_id: [claim for claim in found if claim.holder.scheduler != mine] for volume_id, found in claims.items()}
        return {
            volume_id: [(f"task {claim.holder.placement} of {claim.holder.scheduler}", claim) for claim in found]
            for volume_id, found in held.items()
        }

    def _blocked(self, needs: Sequence[Need], named: Mapping[str, Volume], elsewhere: Holders) -> str:
        for need in needs:
            volume = named.get(need.name)
            if volume and volume.platform not in self.context.platforms:
                return f"volume {volume.name} is on platform {volume.platform}, which polly.toml does not have"
            holders = self._holders(volume) if volume else []
            others = elsewhere.get(volume.volume_id, ()) if volume else ()
            if words := obstacle(need, volume, [*holders, *others]):
                if not holders:
                    self.context.named.pop(need.name, None)  # it is the volume itself, which another broker may make, mend or claim
                return words
        return ""

    def _holders(self, volume: Volume) -> list[tuple[str, Claim]]:
        holders = self.context.picture.holders(volume.volume_id)
        return [(f"task {task.task_id} on {task.record.hostname}", claim) for task, claim in holders]

    def storage_view(self) -> StorageView:
        """What the platforms have, by the ledger: one query for the few pools, never one for an offer."""
        config, platforms = self.context.config, self.context.platforms
        views = {name: _platform_view(config.platforms[name].keys, it) for name, it in platforms.items()}
        return StorageView(
            pools=tuple(self.context.full.bounded(pool) for pool in self.context.ledger.pools() if pool.platform in platforms),
            platforms=views,
            slots=self._free_slots(views),
            profiles=tuple(config.profiles.values()),
        )

    def _free_slots(self, views: Mapping[str, PlatformView]) -> dict[tuple[str, str], int]:
        limits = slot_limits(views)
        free = dict(self.context.node_slots)
        if limits or free:
            for task, claim in self.context.picture.live_claims():
                key = (task.agent_id, task.volumes[claim.volume_id].platform)
                if key in free or key[1] in limits:
                    free[key] = (free[key] if key in free else limits[key[1]]) - 1
            for place, used in self.context.used_elsewhere():
                if place in free or place[1] in limits:
                    free[place] = (free[place] if place in free else limits[place[1]]) - used
        return free

    def _place(self, wishes: Sequence[Wish], offers: list[Offer], now: float, storing: Storing) -> Mapping[str, tuple[str, ...]]:
        """Returns the offers that were accepted, each with the tasks that were launched on it. Those that are no longer needed go."""
        storage, seen = self.storage_view(), len(offers)
        choosy = {wish.ask.workload for wish in wishes if wish.ask.constraints}
        by_key = {wish.ask.key: wish for wish in wishes}
        found = Round(self.context, by_key, offers, now, storing)
        matching = match([wish.ask for wish in wishes], offers, storage, self.context.picture.peers(choosy), found.claim)
        for key in matching.tallies:
            by_key[key].waiting.tallies = matching.tallies
            by_key[key].waiting.offers_seen += seen
        used = {made.agent_id for made in matching.matches}
        del matching  # it knows all offers
        # Most offers are not used, and each is a hundred records: their memory is given back while the ledger stores.
        others = [offer for offer in offers if offer.agent.value not in used]
        offers[:] = [offer for offer in offers if offer.agent.value in used]
        launches = found.launch(others.clear)
        tell_round(launches, offers, seen, storage)
        return self._accept(launches) if launches else {}

    def _accept(self, launches: Sequence[Launch]) -> Mapping[str, tuple[str, ...]]:
        """One ACCEPT for each agent and role. An offer that was in one is used, whatever came of it."""
        groups: dict[tuple[str, ...], list[Launch]] = defaultdict(list)
        for launch in launches:
            groups[launch.match.offer_ids].append(launch)
        # Of each something must be heard within its lease, with volumes or without.
        until = self.context.clock() + self.context.config.claims.lease_s
        self.context.reconciler.watch([(launch.task.task_id, launch.task.agent_id) for launch in launches], until)
        acceptances = [
            Acceptance(offer_ids=offer_ids, operations=[LaunchOperation(launch=TaskInfos([launch.info for launch in group]))])
            for offer_ids, group in groups.items()
        ]
        outcomes = self.context.driver.accept_many(acceptances, refuse_s=0.0)
        for group, error in zip(groups.values(), outcomes, strict=True):
            if isinstance(error, CallInDoubt):
                logger.warning("%s", error)
                self.context.reconciler.ask_about([(launch.task.task_id, launch.task.agent_id) for launch in group], self.context.clock())
            elif error is not None:
                self._rule_out([launch.task for launch in group], error)
        tasks = {offer_ids: tuple(launch.task.task_id for launch in group) for offer_ids, group in groups.items()}
        return {offer_id: tasks[offer_ids] for offer_ids in groups for offer_id in offer_ids}

    def _rule_out(self, tasks: Sequence[Task], error: CallFailed) -> None:
        """The launch surely did not reach Mesos: its claims end at once."""
        proof = Proof(kind=ProofKind.LAUNCH_RULED_OUT, evidence=str(error))
        with self.context.ledger.begin("broker") as tx:
            for task in tasks:
                for claim in task.claims.values():
                    volume = task.volumes[claim.volume_id]
                    tx.free(claim.claim_id, claim.epoch, proof)
                    if volume.unborn and volume.owner:
                        tx.unplan(volume.volume_id)
                        tx.drop_orphan(volume.platform, volume.token)  # nobody was told of this token
                tx.drop_placement(task.task_id)
        now = self.context.clock()
        for task in tasks:
            self.context.drop(task)
            self.context.wait(self.context.picture.apps[task.app_id], now, message=str(error))

    def _decline(self, offer_ids: Sequence[str], *, busy: bool) -> None:
        if offer_ids:
            self.filtered = True
            try:
                self.context.driver.decline(offer_ids, refuse_s=BUSY_REFUSE_S if busy else IDLE_REFUSE_S)
            except CallFailed as error:
                logger.info("%s", error)

    def _record_nodes(self, offers: Sequence[Offer], now: float) -> None:
        fresh = {offer.agent_id: offer for offer in offers if now - self._seen.get(offer.agent_id, float("-inf")) >= NODE_SEEN_S}
        if not fresh:
            return
        limits = slot_limits(self.storage_view().platforms)
        own: dict[str, dict[str, int]] = defaultdict(dict)
        for (node_id, platform), slots in self.context.node_slots.items():
            own[node_id][platform] = slots
        nodes = [_node(offer, self.context.scheduler, {**limits, **own.get(offer.agent_id, {})}, now) for offer in fresh.values()]
        with self.context.ledger.begin("mesos") as tx:
            tx.put_nodes(nodes)
        self._seen.update(dict.fromkeys(fresh, now))
        names = self.context.node_names
        ask_slots(self.context, {node.node_id: names[node.node_id] for node in nodes if node.node_id in names})

    def keep_demand(self, now: float) -> None:
        """Suppresses offers while nothing waits. Revives them for each instance that begins to wait, so that no filter is in its way."""
        if not self.context.driver.connected:
            return
        due = [waiting for _, waiting in self.context.picture.due(now)]
        fresh = [waiting for waiting in due if not waiting.announced]
        try:
            if fresh and (self.suppressed or self.filtered):
                self.context.driver.revive()
                self.suppressed = self.filtered = False
            elif not due and not self.suppressed:
                self.context.driver.suppress()
                self.suppressed = True
        except CallFailed as error:
            logger.info("%s", error)
            return
        for waiting in fresh:
            waiting.announced = True


def _decoded(data: bytes) -> tuple[Sequence[Offer], Sequence[Malformed]]:
    try:
        return decode_sound_offers(data)
    except Invalid as error:
        logger.error("%s", error)
        return (), ()


def slot_limits(views: Mapping[str, PlatformView]) -> dict[str, int]:
    """How many volumes one agent can hold, by platform, where that is limited."""
    return {name: view.slots_per_node for name, view in views.items() if view.slots_per_node is not None}


def _platform_view(keys: PlatformKeys, platform: Platform) -> PlatformView:
    able = platform.capabilities
    return PlatformView(
        name=platform.name,
        reach=Reach(field=keys.agent_attribute, pattern=keys.agent_pattern) if keys.agent_attribute else None,
        sizes_in=partial(sizes_in, platform),
        slots_per_node=keys.slots_per_node if keys.slots_per_node is not None else able.slots_per_node,
        access_modes=able.access_modes,
    )


def _node(offer: Offer, scheduler: str, slots: Mapping[str, int], now: float) -> Node:
    return Node(
        node_id=NodeId(offer.agent_id),
        scheduler=scheduler,
        hostname=offer.hostname,
        region=offer.region,
        zone=offer.zone,
        slots=slots,
        seen_at=now,
    )
