"""What the broker holds in memory: apps, the tasks that are under way, and the instances that wait. Nothing here does I/O.

The ledger is the truth; this is its picture, changed only after a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter

import msgspec

from framework.marathon.model import App, KillSelection
from offers.ask import Peer
from offers.tally import Tally
from storage.lifecycle import ClaimState
from storage.model import Claim, ClaimId, NodeId, PlacementId, Volume, VolumeId, WorkloadId


class Phase(StrEnum):
    """Where a task stands; the names that people and the ledger's placements see."""

    LAUNCHED = "LAUNCHED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    KILLING = "KILLING"
    UNREACHABLE = "UNREACHABLE"
    SETTLING = "SETTLING"
    """The task is over; its volumes are being proven free."""


LIVE = frozenset({Phase.LAUNCHED, Phase.STARTING, Phase.RUNNING})
"""Of a task that does, or is about to do, what it is there for."""


RUNNING, DELETING = "RUNNING", "DELETING"
"""What an app is to be, as the ledger's workload says."""


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the ledger's placement keeps of a task beside its ids: Placement.data, as JSON."""

    hostname: str
    version: str = ""
    region: str = ""
    zone: str = ""
    attributes: Mapping[str, str] = {}
    ports: tuple[int, ...] = ()
    containers: Mapping[str, str] = {}
    """Volume id to containerPath."""
    launched_at: float = 0.0
    started_at: float = 0.0
    unreachable_at: float = 0.0
    killing: bool = False
    """It is to end, whatever is asked for afterwards: it is killed until it has."""
    expunged: bool = False
    """Its agent was away for so long that its app has forgotten it. Its claims have not, so it is here until they end."""
    message: str = ""
    by_broker: tuple[str, ...] = ()
    """Those of its platforms whose volumes the broker attaches and detaches."""
    identities: Mapping[str, str] = {}
    """What its platforms call its node, as its executor has said; where it is missing, the hostname."""
    proof: str = ""
    """The ProofKind by which it is over; empty while it is not. Its claims may still be settling."""
    evidence: str = ""


class Task(msgspec.Struct, kw_only=True, gc=False):
    """One run of one instance: the ledger's placement, its claims, and their volumes."""

    task_id: PlacementId
    app_id: WorkloadId
    slot: int
    agent_id: NodeId
    phase: Phase
    record: TaskRecord
    claims: dict[ClaimId, Claim] = {}
    volumes: dict[VolumeId, Volume] = {}
    failed: bool = False
    """It ended in a way that counts for the back-off; known until the broker is started again."""
    inactive: bool = False
    """Its agent has been away for so long that another may take its slot."""

    @property
    def instance(self) -> str:
        """`/shop/db#0`, as people name it."""
        return f"{self.app_id}#{self.slot}"

    @property
    def counts(self) -> bool:
        """Whether it is still an instance of its app, and not only there until its claims end."""
        return self.phase is not Phase.SETTLING and not self.record.expunged

    def peer(self) -> Peer:
        """How the constraints of its app see it."""
        return Peer(
            hostname=self.record.hostname,
            attributes=self.record.attributes,
            region=self.record.region,
            zone=self.record.zone,
            agent_id=self.agent_id,
        )


@dataclass(slots=True)
class Waiting:
    """An instance without a task, and why."""

    slot: int
    since: float
    not_before: float = 0.0
    """Back-off: no launch before this instant."""
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    """The latest round's refusals, by the ask's key; one is counted when it is looked at."""
    offers_seen: int = 0
    announced: bool = False
    """Offers were revived for it, or none was filtered."""
    blocked: str = ""
    """What stands in the way whatever is offered, in words; empty if only offers are wanting."""
    last_message: str = ""
    """How its last task ended."""

    def block(self, words: str) -> None:
        """What its offers were refused for counts no more, and knows all offers of its round."""
        self.blocked, self.tallies = words, {}


@dataclass(slots=True)
class AppState:
    """An app as it runs."""

    app: App
    instances: int
    version: str
    deleting: bool = False
    held: str = ""
    """Why this Polly cannot read the definition, which an earlier one took: nothing of the app is launched, replaced or killed. Empty once
    it is deleted, for which nobody must read it."""
    unread: str = ""
    """Such a definition, as the ledger has it; `app` only stands for it."""
    tasks: dict[PlacementId, Task] = field(default_factory=dict)
    waiting: dict[int, Waiting] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    """Failures in a row, by slot."""

    def delay_s(self, slot: int) -> float:
        """Marathon's back-off: backoffSeconds * backoffFactor ** (failures - 1), at most maxLaunchDelaySeconds."""
        failures = self.failures.get(slot, 0)
        if not failures:
            return 0.0
        backoff = self.app.backoff
        try:
            return min(backoff.seconds * backoff.factor ** (failures - 1), backoff.max_delay_s)
        except OverflowError:
            return backoff.max_delay_s if backoff.seconds else 0.0

    def occupied(self) -> set[int]:
        return {task.slot for task in self.tasks.values() if not (task.inactive or task.record.expunged)}

    def surplus(self) -> list[Task]:
        """Tasks without a place: scaling down or deleting the app takes it, and so does who has it while an agent is away."""
        if self.held:
            return []
        keep = 0 if self.deleting else self.instances
        beyond = [task for task in self.tasks.values() if task.slot >= keep]
        return beyond + [task for task in self._doubles() if task.slot < keep]

    def _doubles(self) -> list[Task]:
        """Of live tasks that share a slot all but one: the oldest stays, or the youngest, as the app's killSelection says."""
        live = [task for task in self.tasks.values() if task.phase in LIVE and not task.record.killing]
        if len(live) == len({task.slot for task in live}):
            return []
        oldest_first = sorted(live, key=lambda task: (task.record.launched_at, task.task_id))
        youngest_goes = self.app.kill_selection is KillSelection.YOUNGEST_FIRST
        stays = {task.slot: task for task in (reversed(oldest_first) if youngest_goes else oldest_first)}
        return [task for task in live if stays[task.slot] is not task]


class Picture:
    """All apps and tasks, findable by id."""

    def __init__(self) -> None:
        self.apps: dict[WorkloadId, AppState] = {}
        self.tasks: dict[PlacementId, Task] = {}
        self.by_volume: dict[VolumeId, set[ClaimId]] = {}
        self.by_claim: dict[ClaimId, Task] = {}
        self.reserved: dict[ClaimId, Task] = {}
        """Claims of which nothing was heard yet: those that have a lease to watch."""
        self.unreachable: dict[PlacementId, Task] = {}
        """Tasks in that phase."""
        self.doomed: dict[PlacementId, float] = {}
        """Tasks that nobody wants any more, and when each is to be killed (again)."""

    def add_task(self, task: Task) -> None:
        self.tasks[task.task_id] = task
        self.put_phase(task, task.phase)
        if task.record.killing:
            self.doom(task)
        if state := self.apps.get(task.app_id):
            state.tasks[task.task_id] = task
            state.waiting.pop(task.slot, None)
        for claim_id, claim in task.claims.items():
            self.by_claim[claim_id] = task
            holders = self.by_volume.get(claim.volume_id)
            if holders is None:
                self.by_volume[claim.volume_id] = {claim_id}
            else:
                holders.add(claim_id)
            self.put_claim(task, claim)

    def put_phase(self, task: Task, phase: Phase) -> None:
        task.phase = phase
        if phase is Phase.UNREACHABLE:
            self.unreachable[task.task_id] = task
        else:
            self.unreachable.pop(task.task_id, None)
            task.inactive = False
        if phase is Phase.SETTLING:
            self.doomed.pop(task.task_id, None)

    def doom(self, task: Task) -> None:
        """Has it killed, from the next tick on until it is over."""
        if task.phase is not Phase.SETTLING:
            self.doomed.setdefault(task.task_id, 0.0)

    def drop_task(self, task: Task) -> None:
        self.tasks.pop(task.task_id, None)
        self.unreachable.pop(task.task_id, None)
        self.doomed.pop(task.task_id, None)
        for claim_id in list(task.claims):
            self.drop_claim(task, claim_id)
        if state := self.apps.get(task.app_id):
            state.tasks.pop(task.task_id, None)

    def put_claim(self, task: Task, claim: Claim) -> None:
        """A claim of the task in its new state."""
        task.claims[claim.claim_id] = claim
        if claim.state is ClaimState.RESERVED:
            self.reserved[claim.claim_id] = task
        else:
            self.reserved.pop(claim.claim_id, None)

    def drop_claim(self, task: Task, claim_id: ClaimId) -> None:
        self.reserved.pop(claim_id, None)
        self.by_claim.pop(claim_id, None)
        if claim := task.claims.pop(claim_id, None):
            holders = self.by_volume.get(claim.volume_id, set())
            holders.discard(claim_id)
            if not holders:
                self.by_volume.pop(claim.volume_id, None)

    def fill(self, state: AppState, now: float) -> list[Waiting]:
        """Makes every free slot of the app wait, drops those beyond its instances, and returns the new ones."""
        wanted = set() if state.deleting else set(range(state.instances)) - state.occupied()
        for slot in set(state.waiting) - wanted:
            del state.waiting[slot]
        if len(state.failures) > state.instances:
            state.failures = {slot: failures for slot, failures in state.failures.items() if slot < state.instances}
        new = [Waiting(slot, now, not_before=now + state.delay_s(slot)) for slot in sorted(wanted - set(state.waiting))]
        state.waiting.update((waiting.slot, waiting) for waiting in new)
        return new

    def due(self, now: float) -> list[tuple[AppState, Waiting]]:
        """The instances that may be launched now, in the order in which they began to wait."""
        found = [
            (waiting.since, app_id, waiting.slot, state, waiting)
            for app_id, state in self.apps.items()
            for waiting in state.waiting.values()
            if waiting.not_before <= now
        ]
        found.sort(key=_BY_AGE)
        return [(state, waiting) for _, _, _, state, waiting in found]

    def is_due(self, now: float) -> bool:
        """Whether any instance may be launched now."""
        return any(waiting.not_before <= now for state in self.apps.values() for waiting in state.waiting.values())

    def next_due(self, now: float) -> float | None:
        """When the next instance comes out of its back-off."""
        later = (w.not_before for state in self.apps.values() for w in state.waiting.values() if w.not_before > now)
        return min(later, default=None)

    def peers(self, app_ids: Iterable[WorkloadId]) -> Mapping[WorkloadId, list[Peer]]:
        """By app id, what the tasks of these apps occupy, for UNIQUE, CLUSTER, GROUP_BY and MAX_PER.

        A task that is over, or forgotten by its app, is nowhere, however long its claims stay.
        """
        return {app_id: [task.peer() for task in self.apps[app_id].tasks.values() if task.counts] for app_id in app_ids}

    def live_claims(self) -> Iterable[tuple[Task, Claim]]:
        return ((task, claim) for task in self.tasks.values() for claim in task.claims.values())

    def holders(self, volume_id: VolumeId) -> list[tuple[Task, Claim]]:
        found = (self.by_claim[claim_id] for claim_id in self.by_volume.get(volume_id, ()))
        return [(task, claim) for task in found for claim in task.claims.values() if claim.volume_id == volume_id]


_BY_AGE = itemgetter(0, 1, 2)


def claim_state(phase: Phase) -> ClaimState:
    """Where a claim stands whose task is heard alive in this phase."""
    return {Phase.RUNNING: ClaimState.MOUNTED, Phase.KILLING: ClaimState.RELEASING}.get(phase, ClaimState.ATTACHING)
