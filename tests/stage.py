"""A broker without its thread, without Mesos and without disks: everything happens when a test says so, and nothing by itself.

The ledger is a real one, the platform is in memory, the driver keeps what it is told, the workers' jobs wait until they are run.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from executors.wire import Delivery, Launch, Progress, VolumeProgress, decode_launch, decode_receipt, encode
from framework.config import Config, parse_config
from framework.drifting import Drifting
from framework.janitor import Janitor
from framework.mesos.calls import Acceptance
from framework.mesos.context import Context
from framework.mesos.errors import CallFailed, NotConnected
from framework.mesos.events import Offers, Status, Subscribed, Updated
from framework.mesos.instances import AppState, Task
from framework.mesos.scheduler import Scheduler
from framework.mesos.tasks import scheduler_name
from framework.settling import Settler
from framework.volumes import Volumes
from framework.workers import Outcome
from storage.errors import LedgerUnavailable, PollyError
from storage.inventory import Ledger, Transaction
from storage.ledger.engine import Database
from storage.ledger.migrate import prepare
from storage.model import Birth, ExternalId, VolumePlan
from storage.platforms.base import CreateRequest
from storage.platforms.testing import MemoryPlatform, MemoryStorage
from tests.ledgers import Clock
from tests.offering import event, offer_json, ports, scalar

FRAMEWORK = "framework-1"


class ShakyLedger(Ledger):
    """A ledger whose next commit fails when a test says so."""

    fails_before = 0
    """So many of the next transactions fail, and nothing of them is stored."""
    fails_after = 0
    """So many of the next transactions are stored, and fail all the same."""

    @contextmanager
    def begin(self, actor: str, *, now: float | None = None) -> Iterator[Transaction]:
        if self.fails_before > 0:
            self.fails_before -= 1
            raise LedgerUnavailable(url=self.url, reason="the disk is full")
        with super().begin(actor, now=now) as transaction:
            yield transaction
        if self.fails_after > 0:
            self.fails_after -= 1
            raise LedgerUnavailable(url=self.url, reason="the connection was lost while it was committed")


def shaky(url: str, clock: Callable[[], float]) -> ShakyLedger:
    database = Database(url, read_only=False)
    prepare(database)
    return ShakyLedger(database, clock)


@dataclass(slots=True)
class Hands:
    """Workers whose jobs wait until `run`."""

    jobs: list[tuple[str, Callable[[], Any], Callable[[Outcome[Any]], None]]] = field(default_factory=list)

    def submit(
        self, platform: str, key: str, job: Callable[[], Any], done: Callable[[Outcome[Any]], None], *, urgent: bool = False
    ) -> None:
        self.jobs.append((key, job, done))

    def work(self, number: int | None = None) -> list[tuple[Callable[[Outcome[Any]], None], Outcome[Any]]]:
        """Does the first jobs (all, if no number is given), and returns their answers without handing them on."""
        taken, self.jobs = self.jobs[:number], self.jobs[len(self.jobs[:number]) :]
        return [(done, _outcome(job)) for _, job, done in taken]


def _outcome(job: Callable[[], Any]) -> Outcome[Any]:
    try:
        return Outcome(job())
    except PollyError as error:
        return Outcome(error=error)


@dataclass(slots=True)
class Told:
    """A driver that keeps what it is told; fulfils framework.mesos.context.Calls."""

    framework_id: str | None = FRAMEWORK
    connected: bool = True
    away: str = ""
    master: str | None = "127.0.0.1:5050"
    accepts: list[Acceptance] = field(default_factory=list)
    outcomes: list[CallFailed | None] = field(default_factory=list)
    """What becomes of the next ACCEPTs; None, or nothing at all: the master takes it."""
    declined: list[tuple[tuple[str, ...], float]] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    reconciled: list[list[str]] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)
    """Claims, as they were confirmed."""
    deliveries: list[Delivery] = field(default_factory=list)
    """What executors were told of their wishes."""
    demand: list[str] = field(default_factory=list)
    on_accept: Callable[[Acceptance], None] = lambda _: None

    def _reach(self, call: str) -> None:
        if not self.connected:
            raise NotConnected(call=call, reason="a test has cut it off")

    def accept_many(self, acceptances: Sequence[Acceptance], *, refuse_s: float) -> list[CallFailed | None]:
        for acceptance in acceptances:
            self.on_accept(acceptance)
        self.accepts.extend(acceptances)
        return [self.outcomes.pop(0) if self.outcomes else None for _ in acceptances]

    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None:
        self._reach("DECLINE")
        self.declined.append((tuple(offer_ids), refuse_s))

    def revive(self, roles: Sequence[str] = ()) -> None:
        self._reach("REVIVE")
        self.demand.append("revive")

    def suppress(self, roles: Sequence[str] = ()) -> None:
        self._reach("SUPPRESS")
        self.demand.append("suppress")

    def acknowledge_many(self, updates: Sequence[tuple[str, str, str]]) -> None:
        self._reach("ACKNOWLEDGE")
        self.acknowledged.extend(uuid for _, _, uuid in updates)

    def reconcile(self, tasks: Sequence[tuple[str, str | None]]) -> None:
        self._reach("RECONCILE")
        self.reconciled.append([task_id for task_id, _ in tasks])

    def message(self, agent_id: str, executor_id: str, data: bytes) -> None:
        self._reach("MESSAGE")
        receipt = decode_receipt(data)
        self.receipts.extend(receipt.births)
        self.deliveries.extend(receipt.deliveries)

    def kill(self, task_id: str, agent_id: str | None, grace_s: float | None = None) -> None:
        self._reach("KILL")
        self.kills.append(task_id)

    def launched(self) -> list[Launch]:
        """What every task of every ACCEPT so far brought to its executor."""
        return [decode_launch(base64.b64decode(info["data"])) for info in self.task_infos()]

    def task_infos(self) -> list[dict[str, Any]]:
        return [info for acceptance in self.accepts for info in infos_of(acceptance)]


def infos_of(acceptance: Acceptance) -> list[dict[str, Any]]:
    """The TaskInfos of an ACCEPT as the master reads them."""
    operations = msgspec.json.decode(msgspec.json.encode(acceptance.operations))
    return [info for operation in operations for info in operation["launch"]["task_infos"]]


def stage_config(**blocks: Any) -> Config:
    """One platform `disks` in memory; profiles `fast`, whose volumes stay, and `brief`, whose volumes go with their app."""
    defaults: dict[str, Any] = {
        "framework": {"name": "stage", "roles": ["polly"]},
        "claims": {"lease_s": 60.0, "fence_retry_s": 5.0},
        "platforms": {"disks": {"kind": "memory"}},
        "profiles": {
            "fast": {"platforms": ["disks"], "reclaim": "retain"},
            "brief": {"platforms": ["disks"], "reclaim": "delete"},
            "last": {"platforms": ["disks"], "reclaim": "snapshot-then-delete"},
        },
    }
    return parse_config(defaults | blocks)


class Stage:
    """One life of a broker. A second one on the same ledger and storage is its next life."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        storage: MemoryStorage | None = None,
        ids: Iterator[int] | None = None,
        driver: Told | None = None,
        config: Config | None = None,
        platform: MemoryPlatform | None = None,
    ) -> None:
        self.ledger, self.clock, self.config = ledger, clock, config or stage_config()
        self.storage = storage or (platform.storage if platform else MemoryStorage())
        self.platform = platform or MemoryPlatform("disks", storage=self.storage)
        self.numbers = ids or itertools.count(1)
        self.driver, self.hands = driver or Told(), Hands()
        self.gave_up: list[str] = []
        self.tidied = 0
        self._assemble()
        with ledger.begin("test") as tx:
            tx.put_profiles(list(self.config.profiles.values()))
        self.context.learn_node_names()
        self.apps.take_up(ledger.restore(self.context.scheduler), clock())
        self.janitor.sync_pools_now()

    def _assemble(self) -> None:
        platforms: Any = {"disks": self.platform}
        hands: Any = self.hands
        self.context = Context(
            config=self.config,
            ledger=self.ledger,
            platforms=platforms,
            kinds={"disks": "memory"},
            driver=self.driver,
            workers=hands,
            settler=Settler(platforms, hands, clock=self.clock, retry_s=self.config.claims.fence_retry_s),
            clock=self.clock,
            ids=self.new_id,
            tidy_soon=self._tidy_soon,
        )
        self.volumes = Volumes(self.config, self.ledger, platforms, hands, clock=self.clock, ids=self.new_id, changed=self.context.forget)
        self.janitor = Janitor(self.config, self.ledger, platforms, self.volumes, hands, clock=self.clock, full=self.context.full)
        self.drifting = Drifting(
            self.ledger, platforms, hands, clock=self.clock, store_pools=self.janitor.store_pools, changed=self.context.forget
        )
        self.scheduler = Scheduler(self.context, reclaim=self.janitor.reclaim, gave_up=self.gave_up.append)

    def new_id(self) -> str:
        return f"00000000-0000-4000-8000-{next(self.numbers):012d}"

    def _tidy_soon(self) -> None:
        self.tidied += 1

    @property
    def apps(self) -> Any:
        return self.scheduler.apps

    @property
    def picture(self) -> Any:
        return self.context.picture

    # --- what comes from outside

    def subscribed(self) -> None:
        self.scheduler.handle([Subscribed(framework_id=FRAMEWORK, heartbeat_s=15.0, master={})])

    def offer(self, *agents: str, cpus: float = 8.0) -> None:
        """One event with an offer of each agent."""
        self.scheduler.handle([Offers(data=offers_event(*agents, number=next(self.numbers), cpus=cpus))])

    def hear(self, *statuses: Status) -> None:
        self.scheduler.handle([Updated(status=status) for status in statuses])

    def tick(self, later_s: float = 0.0) -> None:
        self.clock.now += later_s
        self.scheduler.tick(self.clock())

    def work(self, number: int | None = None) -> None:
        """Does what waits for the workers and hands the answers to the broker, as its loop does."""
        self.hand_on(self.hands.work(number))

    def hand_on(self, answers: Sequence[tuple[Callable[[Outcome[Any]], None], Outcome[Any]]]) -> None:
        for done, outcome in answers:
            self.scheduler.handle([_answer(done, outcome)])
        self.scheduler.guarded(self.volumes.store_deleted)

    def next_life(self, config: Config | None = None) -> Stage:
        """A new broker after the death of this one."""
        later = Stage(self.ledger, self.clock, platform=self.platform, ids=self.numbers, config=config or self.config)
        later.subscribed()
        return later

    # --- short ways

    def run(self, app_id: str = "/db", *, agents: Sequence[str] = ("a1",), **more: Any) -> list[Task]:
        """An app that is placed at once; its tasks, by slot."""
        self.apps.run(app(app_id, **more), "test")
        self.tick()
        self.offer(*agents)
        return self.tasks(app_id)

    def tasks(self, app_id: str = "/db") -> list[Task]:
        return sorted(self.state(app_id).tasks.values(), key=lambda task: task.slot)

    def state(self, app_id: str = "/db") -> AppState:
        state: AppState = self.apps.app(app_id)
        return state

    def plans(self, task: Task) -> tuple[VolumePlan, ...]:
        """What the task's executor was told of its volumes."""
        infos = self.driver.task_infos()
        found = next(launch for info, launch in zip(infos, self.driver.launched(), strict=True) if info["task_id"]["value"] == task.task_id)
        return found.volumes

    def make(self, plan: VolumePlan, node: str = "a1.example") -> VolumeProgress:
        """The executor's part: the volume is made, attached and formatted."""
        external = bring(self.platform, plan, node)
        return VolumeProgress(
            claim_id=plan.claim_id,
            epoch=plan.epoch,
            step="ATTACHING",
            external_id=external,
            size_mib=plan.size_mib,
            birth=birth_of(external),
        )

    def start(self, task: Task) -> None:
        """From the launch to RUNNING, with every volume of it born and mounted."""
        made = [self.make(plan, task.record.hostname) for plan in self.plans(task)]
        self.hear(status(task, "TASK_STARTING", *made))
        self.hear(status(task, "TASK_RUNNING", *[step(one, "MOUNTED") for one in made]))

    def end(self, task: Task, state: str = "TASK_FINISHED") -> None:
        """The executor lets go of every volume and says so."""
        said = []
        for claim in task.claims.values():
            external = task.volumes[claim.volume_id].external_id
            if external:
                self.platform.detach(external, task.record.hostname)
            said.append(VolumeProgress(claim_id=claim.claim_id, epoch=claim.epoch, step="RELEASED", held=False))
        self.hear(status(task, state, *said))


def _answer(done: Callable[[Outcome[Any]], None], outcome: Outcome[Any]) -> Callable[[], None]:
    return lambda: done(outcome)


def bring(platform: MemoryPlatform, plan: VolumePlan, node: str) -> ExternalId:
    """Makes or finds a volume and attaches it, as an executor does. Raises what the platform raises."""
    external = plan.external_id
    if external is None:
        request = CreateRequest(
            pool=plan.pool, size_mib=plan.size_mib, token=plan.token, name=plan.name, snapshot=plan.snapshot, source=plan.source
        )
        external = platform.create(request).external_id
    platform.attach(external, node, epoch=plan.epoch, read_only=plan.access == "RO")
    return external


def birth_of(external: ExternalId) -> Birth:
    return Birth(serial=external, filesystem="ext4", filesystem_uuid=f"uuid of {external}")


def step(said: VolumeProgress, name: str, **changes: Any) -> VolumeProgress:
    return msgspec.structs.replace(said, step=name, **changes)


_uuids = itertools.count(1)


def status(task: Task, state: str, *volumes: VolumeProgress, source: str = "SOURCE_EXECUTOR", uuid: bool = True, **more: Any) -> Status:
    """A status of the task, as its driver hands it on."""
    return Status(
        task_id=task.task_id,
        agent_id=task.agent_id,
        executor_id=task.task_id,
        state=state,
        source=source,
        uuid=f"uuid{next(_uuids)}" if uuid else None,
        data=encode(Progress(volumes=volumes)) if volumes else b"",
        **more,
    )


def from_master(task: Task, state: str, **more: Any) -> Status:
    """What the master says by itself: no data, nothing to acknowledge."""
    return status(task, state, source="SOURCE_MASTER", uuid=False, **more)


def offers_event(*agents: str, number: int = 0, cpus: float = 8.0) -> bytes:
    resources = [scalar("cpus", cpus), scalar("mem", 8192), scalar("disk", 20_000), ports((31000, 31999))]
    return event(offer_json(f"{agent}-{number}", resources, agent=agent) for agent in agents)


def volume_of(path: str = "data", size_mib: int = 16, profile: str = "fast") -> dict[str, Any]:
    return {"containerPath": path, "mode": "RW", "persistent": {"size": size_mib, "profileName": profile}}


def external_of(name: str, path: str = "data", mode: str = "RW", **more: Any) -> dict[str, Any]:
    external = {"name": name, "provider": "dvdi", "options": {"dvdi/driver": "fast"}, **more}
    return {"containerPath": path, "mode": mode, "external": external}


def app(app_id: str = "/db", *, instances: int = 1, volumes: Sequence[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """An app with one volume of 16 MiB at `data`, unless its volumes are given."""
    container = [volume_of()] if volumes is None else list(volumes)
    made: dict[str, Any] = {"id": app_id, "cmd": "sleep 100", "cpus": 0.5, "mem": 64, "instances": instances, **more}
    return made | ({"container": {"type": "MESOS", "volumes": container}} if container else {})


def sound(ledger: Ledger) -> None:
    wrong = {name: number for name, number in ledger.counters().items() if number}
    assert not wrong, wrong


SCHEDULER = scheduler_name(stage_config())
