"""What the parts of the scheduler share: the ledger, the picture in memory, the platforms, the driver. One per broker."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from executors.wire import BROKER, PlatformSettings
from framework.config import Config
from framework.mesos.asking import Demand
from framework.mesos.calls import Acceptance
from framework.mesos.errors import CallFailed
from framework.mesos.instances import AppState, Phase, Picture, Task, Waiting
from framework.mesos.reconcile import Reconciler
from framework.mesos.tasks import scheduler_name
from framework.pools import FullPools
from framework.settling import SHARED, Settler
from framework.workers import Workers
from storage.inventory import Ledger
from storage.model import Claim, NodeId, Volume
from storage.node.identities import HOSTNAME
from storage.platforms.base import Platform

story = logging.getLogger("polly.story")
"""What happens, in a person's words: one line for each thing that an operator would want to have seen."""


class Calls(Protocol):
    """What the scheduler asks of its driver; framework/mesos/driver.py has it. Each raises CallFailed."""

    @property
    def framework_id(self) -> str | None: ...
    @property
    def connected(self) -> bool: ...
    @property
    def away(self) -> str: ...
    @property
    def master(self) -> str | None: ...
    def accept_many(self, acceptances: Sequence[Acceptance], *, refuse_s: float) -> list[CallFailed | None]: ...
    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None: ...
    def revive(self, roles: Sequence[str] = ()) -> None: ...
    def suppress(self, roles: Sequence[str] = ()) -> None: ...
    def acknowledge_many(self, updates: Sequence[tuple[str, str, str]]) -> None: ...
    def reconcile(self, tasks: Sequence[tuple[str, str | None]]) -> None: ...
    def message(self, agent_id: str, executor_id: str, data: bytes) -> None: ...
    def kill(self, task_id: str, agent_id: str | None, grace_s: float | None = None) -> None: ...


FRAMEWORK_ID = "framework_id"


@dataclass(slots=True, kw_only=True)
class Context:
    config: Config
    ledger: Ledger
    platforms: Mapping[str, Platform]
    kinds: Mapping[str, str]
    """Platform name to adapter kind."""
    driver: Calls
    workers: Workers
    settler: Settler
    clock: Callable[[], float]
    ids: Callable[[], str]
    tidy_soon: Callable[[], None]
    """Called when an unborn volume was given up: what may exist of it is to be deleted."""
    picture: Picture = field(default_factory=Picture)
    reconciler: Reconciler = field(default_factory=Reconciler)
    full: FullPools = field(default_factory=FullPools)
    named: dict[str, Volume | None] = field(default_factory=dict)
    """The volumes that waiting instances need, by name; None: looked for, and not there."""
    kept_id: str = ""
    """The framework's id that the ledger has."""
    node_names: dict[NodeId, dict[str, str]] = field(default_factory=dict)
    """What the platforms call the nodes, by platform, as far as executors have said so."""
    node_slots: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many volumes a node can hold of a platform, by its id and the platform, as far as that has said so."""
    slots_asked: dict[tuple[NodeId, str, str], float] = field(default_factory=dict)
    """When a platform was last asked for them, by node, platform and what that calls the node."""
    in_doubt: bool = False
    """The picture may not be what the ledger has: a commit brought no answer, or the ledger refused what should have fitted."""

    @property
    def scheduler(self) -> str:
        return scheduler_name(self.config)

    def keep_id(self) -> None:
        """Stores the framework's id, without which a later life could not speak for the tasks: before any is launched."""
        if (found := self.driver.framework_id) and found != self.kept_id:
            with self.ledger.begin("mesos") as tx:
                tx.put_setting(f"{self.scheduler} {FRAMEWORK_ID}", found)
            self.kept_id = found

    def resolve(self, names: Collection[str]) -> Mapping[str, Volume]:
        """The volumes of these names that exist, from memory or, for those not yet looked for, in one query."""
        if unknown := [name for name in names if name not in self.named]:
            found = self.ledger.volumes_named(unknown)
            self.named.update((name, found.get(name)) for name in unknown)
        return {name: volume for name in names if (volume := self.named[name])}

    def forget(self, volumes: Iterable[Volume]) -> None:
        """The ledger has something newer of these volumes."""
        for volume in volumes:
            self.named.pop(volume.name, None)

    def drop(self, task: Task) -> None:
        """The ledger has the task no more: nothing is asked or proven about it any longer."""
        for claim_id in task.claims:
            self.settler.drop(claim_id)
        self.forget(task.volumes.values())
        self.picture.drop_task(task)
        self.reconciler.answered(task.task_id)

    def wait(self, state: AppState, now: float, *, message: str = "") -> None:
        """Lets the app's free slots wait."""
        for waiting in self.picture.fill(state, now):
            waiting.last_message = message

    def came_back(self, task: Task, now: float) -> None:
        """Its agent is in reach again. If its slot was given to another meanwhile, one of the two goes."""
        if state := self.picture.apps.get(task.app_id):
            for surplus in state.surplus():
                self.picture.doom(surplus)
            self.wait(state, now)

    def forget_needs(self, state: AppState, waiting: Waiting) -> None:
        for need in Demand(self.config, state.app).needs(waiting.slot):
            self.named.pop(need.name, None)

    def learn_node_names(self) -> None:
        """What the ledger has of them, and how many volumes they can hold: after a start."""
        named = [node for node in self.ledger.nodes(self.scheduler) if node.identities]
        self.node_names = {node.node_id: dict(node.identities) for node in named}
        counting = self.counting
        self.node_slots = {
            (node.node_id, platform): slots
            for node in named
            for platform, slots in node.slots.items()
            if platform in counting and platform in node.identities
        }

    def forget_nodes(self, node_ids: Collection[NodeId]) -> None:
        """They are away for good."""
        self.node_names = {node_id: names for node_id, names in self.node_names.items() if node_id not in node_ids}
        self.node_slots = {key: slots for key, slots in self.node_slots.items() if key[0] not in node_ids}
        self.slots_asked = {key: at for key, at in self.slots_asked.items() if key[0] not in node_ids}

    def news_of_nodes(self, said: Iterable[tuple[NodeId, Mapping[str, str]]]) -> dict[NodeId, dict[str, str]]:
        """What of this the ledger does not have yet."""
        news: dict[NodeId, dict[str, str]] = {}
        for node_id, identities in said:
            known = self.node_names.get(node_id, {})
            if new := {platform: name for platform, name in identities.items() if known.get(platform) != name}:
                news.setdefault(node_id, {}).update(new)
        return news

    def node_name(self, task: Task, platform: str) -> str | None:
        """What the platform calls the task's node; None if nobody who could know has said so."""
        said = task.record.identities.get(platform) or self.node_names.get(task.agent_id, {}).get(platform)
        if said:
            return said
        adapter = self.platforms.get(platform)
        return task.record.hostname if adapter is None or adapter.capabilities.identity == HOSTNAME else None

    def shares_node(self, claim: Claim, node: str | None, *, has_ended: bool = False) -> Callable[[], bool]:
        """Whether another task goes on using the claim's volume on its node, which the volume's platform calls `node`.

        A machine may have been another agent before. A task that is over uses nothing any more: what it leaves its own end detaches.
        What other brokers on the ledger have is looked up when the answer is asked for, in whichever thread; if that is nothing, the ledger
        keeps from then on that the claim's volume leaves the node, and gives it to nobody there before the claim has ended; of a claim that
        `has_ended` already it keeps nothing.
        """
        holders = self.picture.holders(claim.volume_id)
        if any(
            it.holder.node == claim.holder.node or (node is not None and self.node_name(task, task.volumes[it.volume_id].platform) == node)
            for task, it in holders
            if task.phase is not Phase.SETTLING and it.claim_id != claim.claim_id
        ):
            return lambda: True
        modes = {task.volumes[claim.volume_id].access_mode for task, _ in holders}
        if modes and modes.isdisjoint(SHARED):
            return self._is_alone
        return lambda: self._shares_with_others(claim, node, leaves=node is not None and not has_ended)

    def check_lead(self) -> None:
        """For a worker, just before a platform is asked to attach or detach: a standby may have done so since the work was begun.

        Raises AlreadyLed where another broker leads now, and LedgerUnavailable.
        """
        with self.ledger.begin("broker"):
            """It looks for itself."""

    def _is_alone(self) -> bool:
        self.check_lead()
        return False

    def _shares_with_others(self, claim: Claim, node: str | None, *, leaves: bool) -> bool:
        """Raises UnknownClaim where the claim has ended meanwhile, LedgerUnavailable, and AlreadyLed where another broker leads now."""
        with self.ledger.begin("broker") as tx:
            others = [it for it in tx.neighbours(claim.volume_id, self.scheduler) if it.state != Phase.SETTLING]
            if any(it.node == claim.holder.node or (node is not None and node in (it.name, it.hostname)) for it in others):
                return True
            if leaves:
                tx.leave(claim.claim_id, claim.epoch)
        return False

    def used_elsewhere(self) -> Iterator[tuple[tuple[str, str], int]]:
        """What other brokers on the ledger use of the attach slots of this one's machines, by the node's id here and the platform.

        A machine has the same id as an agent of the same Mesos; otherwise the platform's name for it tells.
        """
        if not (used := self.ledger.slots_elsewhere(self.scheduler)):
            return
        here: dict[tuple[str, str], set[str]] = defaultdict(set)
        for node_id, names in self.node_names.items():
            for platform, name in names.items():
                here[platform, name].add(node_id)
        for it in used:
            for node in {str(it.node)} | here.get((it.platform, it.name), set()):
                yield (node, it.platform), it.used

    def is_leaving(self, volume: Volume, agent_id: str) -> bool:
        """Whether a platform is just asked to take this volume from the agent's machine, with the answer still to come."""
        name = self.node_names.get(NodeId(agent_id), {}).get(volume.platform)
        return any(
            claim.holder.node == agent_id or (name is not None and node == name) for claim, node in self.settler.asked(volume.volume_id)
        )

    def platform_settings(self) -> Mapping[str, PlatformSettings]:
        return {name: self._settings_of(name, platform) for name, platform in self.platforms.items()}

    def _settings_of(self, name: str, platform: Platform) -> PlatformSettings:
        able = platform.capabilities
        if name in self.by_broker:
            return PlatformSettings(kind=self.kinds[name], identity=able.identity, attach_by=BROKER, device=able.device)
        return PlatformSettings(kind=self.kinds[name], settings=dict(platform.settings()), identity=able.identity)

    @property
    def counting(self) -> frozenset[str]:
        """The platforms that are asked how many volumes each node can hold."""
        blocks = self.config.platforms
        return frozenset(
            name for name, it in self.platforms.items() if it.capabilities.counts_slots and blocks[name].keys.slots_per_node is None
        )

    @property
    def by_broker(self) -> frozenset[str]:
        """The platforms whose volumes the broker attaches, as polly.toml has it now."""
        return frozenset(name for name, block in self.config.platforms.items() if block.keys.attach_by == BROKER)
