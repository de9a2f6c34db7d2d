"""A cluster that never was: a master, agents and executors as the broker sees them, on a platform in memory.

It keeps the promises of Mesos and of Polly's executor and no other: an update is sent until it is acknowledged, an executor that is
dead holds no volume and one whose lease is over begins nothing, a task does not write before its receipt came. All else may
happen in any order that a test chooses.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from executors.wire import ATTACH, BROKER, FAILED, RELEASED, Delivery, Failure, Launch, Progress, VolumeProgress, decode_launch, encode
from framework.mesos.calls import Acceptance
from framework.mesos.events import Failed, Status, Updated
from storage.errors import PollyError
from storage.model import ExternalId
from storage.platforms.testing import MemoryPlatform
from tests.stage import Told, birth_of, bring, infos_of

TERMINAL = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED"})
_uuids = itertools.count(1)


@dataclass(slots=True, kw_only=True)
class Run:
    """One task on its agent, with its executor."""

    task_id: str
    agent: str
    launch: Launch
    volumes: list[VolumeProgress] = field(default_factory=list)
    state: str = "TASK_STAGING"
    unacknowledged: list[Status] = field(default_factory=list)
    confirmed: set[str] = field(default_factory=set)
    delivered: dict[str, Delivery] = field(default_factory=dict)
    killed: bool = False
    begun_at: float = 0.0
    """When its executor got it."""

    @property
    def by_broker(self) -> bool:
        """The broker attaches what it has."""
        return any(said.attach_by == BROKER for said in self.launch.platforms.values())

    @property
    def node(self) -> str:
        """What the platform calls its node."""
        return f"i-{self.agent}" if self.by_broker else self.launch.node

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    @property
    def runs(self) -> bool:
        return self.state == "TASK_RUNNING"


class Cluster:
    """`driver` is what the broker speaks to; it outlives the broker."""

    def __init__(self, platform: MemoryPlatform, clock: Callable[[], float]) -> None:
        self.platform, self.clock = platform, clock
        self.driver = Told()
        self.driver.on_accept = self._accepted
        self.runs: dict[str, Run] = {}
        self.cut_off: set[str] = set()
        self.answers: list[Updated | Failed] = []
        """What the master says by itself; lost with the connection."""
        self.loses_next = ""
        """What becomes of the next ACCEPT: '', 'refused', 'doubt kept' or 'doubt lost'."""
        self.written: dict[str, str] = {}
        """Volume name to the external id on which a task has written."""
        self.wrongs: list[str] = []

    # --- the master

    def _accepted(self, acceptance: Acceptance) -> None:
        fate, self.loses_next = self.loses_next, ""
        if fate in ("refused", "doubt lost"):
            return
        for info in infos_of(acceptance):
            self._launch(info)

    def _launch(self, info: dict[str, Any]) -> None:
        task_id, launch = info["task_id"]["value"], decode_launch(base64.b64decode(info["data"]))
        if task_id in self.runs:
            self.wrongs.append(f"{task_id} is launched twice")
        self.runs[task_id] = Run(task_id=task_id, agent=info["agent_id"]["value"], launch=launch, begun_at=self.clock())

    def hear_calls(self) -> None:
        """Takes what the broker has said since the last time."""
        driver = self.driver
        for run in self.runs.values():
            run.unacknowledged = [it for it in run.unacknowledged if it.uuid not in driver.acknowledged]
            if run.agent not in self.cut_off:
                run.confirmed.update(driver.receipts)
                run.delivered.update((it.claim_id, it) for it in driver.deliveries)
        for task_id in driver.kills:
            if (doomed := self.runs.get(task_id)) and doomed.agent not in self.cut_off:
                doomed.killed = True
        for asked in driver.reconciled:
            self.answers.extend(self._answer(task_id) for task_id in asked or [it.task_id for it in self.runs.values() if not it.is_over])
        driver.acknowledged.clear()
        driver.receipts.clear()
        driver.deliveries.clear()
        driver.kills.clear()
        driver.reconciled.clear()

    def _answer(self, task_id: str) -> Updated:
        """The master's word of a task: the state of its oldest update that is not acknowledged, else its own."""
        run = self.runs.get(task_id)
        if run is None or not self._counts(run):
            state = "TASK_GONE"
        elif run.agent in self.cut_off:
            state = "TASK_UNREACHABLE"
        else:
            state = run.unacknowledged[0].state if run.unacknowledged else run.state
        return _masters(task_id, run.agent if run else None, state, reason="REASON_RECONCILIATION")

    def cut(self, agent: str) -> None:
        self.cut_off.add(agent)
        for run in self.runs.values():
            if run.agent == agent and self._counts(run):
                self.answers.append(_masters(run.task_id, agent, "TASK_UNREACHABLE"))
        self.answers.append(Failed(agent_id=agent))

    def lose(self, agent: str) -> None:
        """The agent is gone for good, with all that ran on it; an operator says so."""
        for run in list(self.runs.values()):
            if run.agent == agent:
                self._detach_all(run)
                if self._counts(run):
                    self.answers.append(_masters(run.task_id, agent, "TASK_GONE_BY_OPERATOR"))
                del self.runs[run.task_id]
        self.cut_off.discard(agent)
        self.answers.append(Failed(agent_id=agent))

    def _counts(self, run: Run) -> bool:
        """Whether the master has the task among its agent's: until its last update is acknowledged, if it ever heard of that."""
        return not run.is_over or bool(run.unacknowledged)

    def deliverable(self) -> list[Status]:
        """The oldest update of each task that is not acknowledged, where its agent can be reached."""
        return [run.unacknowledged[0] for run in self.runs.values() if run.unacknowledged and run.agent not in self.cut_off]

    # --- the executors

    def step(self, run: Run) -> None:
        """The executor does the next thing that it has to do."""
        if run.is_over:
            return
        if run.killed:
            self.end(run, "TASK_KILLED")
        elif run.state == "TASK_STAGING" and self.clock() >= run.begun_at + run.launch.lease_s:
            self.end(run, "TASK_FAILED")
        elif run.state == "TASK_STAGING":
            self._bring(run)
        elif run.state == "TASK_STARTING":
            self._begin(run)

    def _wish(self, run: Run) -> None:
        """Says where it is and what it wants."""
        wanted = [(plan.claim_id, plan.epoch) for plan in run.launch.volumes]
        run.volumes = [VolumeProgress(claim_id=claim, epoch=epoch, step="ATTACHING", wants=ATTACH) for claim, epoch in wanted]
        self._send(run, "TASK_STARTING", "attaching")

    def _take_deliveries(self, run: Run) -> None:
        before = list(run.volumes)
        for number, (plan, volume) in enumerate(zip(run.launch.volumes, before, strict=True)):
            delivery = run.delivered.get(volume.claim_id)
            if not volume.wants or delivery is None:
                continue
            if delivery.error:
                run.volumes[number] = msgspec.structs.replace(volume, step=FAILED, held=False, wants="", error=delivery.error)
                self._release(run)
                self._send(run, "TASK_FAILED", delivery.error.message)
                return
            external = delivery.external_id
            birth = None if plan.birth or external is None else birth_of(external)
            run.volumes[number] = msgspec.structs.replace(volume, wants="", external_id=external, size_mib=delivery.size_mib, birth=birth)
        if run.volumes != before or not run.unacknowledged:
            self._send(run, "TASK_STARTING", "waiting for deliveries, or for receipts")

    def _bring(self, run: Run) -> None:
        if run.by_broker:
            self._wish(run)
            return
        for plan in run.launch.volumes:
            try:
                external = bring(self.platform, plan, run.launch.node)
            except PollyError as error:
                said = Failure(code=error.code, message=str(error))
                run.volumes.append(VolumeProgress(claim_id=plan.claim_id, epoch=plan.epoch, step=FAILED, held=False, error=said))
                self._release(run)
                self._send(run, "TASK_FAILED", str(error))
                return
            birth = None if plan.birth else birth_of(external)
            run.volumes.append(
                VolumeProgress(
                    claim_id=plan.claim_id,
                    epoch=plan.epoch,
                    step="ATTACHING",
                    external_id=external,
                    size_mib=self.platform.inspect(external).size_mib,
                    birth=birth,
                )
            )
        self._send(run, "TASK_STARTING", "attaching")

    def _begin(self, run: Run) -> None:
        if any(volume.wants for volume in run.volumes):
            self._take_deliveries(run)
            return
        new = {volume.claim_id for volume in run.volumes if volume.birth}
        if not new <= run.confirmed:
            if not run.unacknowledged:
                self._send(run, "TASK_STARTING", "waiting for the receipt")
            return
        for plan, volume in zip(run.launch.volumes, run.volumes, strict=True):
            self._write(run, plan.name, volume.external_id)
        run.volumes = [_at(volume, "MOUNTED") for volume in run.volumes]
        self._send(run, "TASK_RUNNING", "running")

    def _write(self, run: Run, name: str, external: ExternalId | None) -> None:
        if external is None or external not in self.platform.storage.volumes:
            self.wrongs.append(f"{run.task_id} was to write on {name}, which is not there")
            return
        before = self.written.setdefault(name, external)
        if before != external:
            self.wrongs.append(f"{name} was on {before} and is on {external}: its data is lost")
        if run.node not in self.platform.storage.volumes[external].attached:
            self.wrongs.append(f"{run.task_id} writes on {name}, which is not attached to {run.node}")
        others = [it.task_id for it in self.runs.values() if it.runs and any(v.external_id == external for v in it.volumes)]
        if others:
            self.wrongs.append(f"{run.task_id} writes on {name}, and so does {others}")

    def end(self, run: Run, state: str) -> None:
        """The task ends and its executor lets go of everything."""
        self._release(run)
        self._send(run, state, "ended")

    def crash(self, run: Run) -> None:
        """The executor is killed: the kernel lets go of everything, and the agent says that it has ended."""
        if run.is_over:
            return
        self._detach_all(run)
        run.volumes = []
        self._send(run, "TASK_FAILED", "the executor was killed", source="SOURCE_AGENT")

    def _release(self, run: Run) -> None:
        self._detach_all(run)
        run.volumes = [volume if volume.step == FAILED else _at(volume, RELEASED) for volume in run.volumes]

    def _detach_all(self, run: Run) -> None:
        """What the kernel does, whatever the platform's own interface is doing. What the broker attached stays attached."""
        if run.by_broker:
            return
        held = self.platform.storage.volumes
        for volume in () if run.is_over else run.volumes:
            if volume.external_id and volume.step != FAILED and volume.external_id in held:
                found = held[volume.external_id]
                left = {node: how for node, how in found.attached.items() if node != run.launch.node}
                held[volume.external_id] = msgspec.structs.replace(found, attached=left)

    def _send(self, run: Run, state: str, message: str, *, source: str = "SOURCE_EXECUTOR") -> None:
        run.state = state
        run.unacknowledged.append(
            Status(
                task_id=run.task_id,
                agent_id=run.agent,
                executor_id=run.task_id,
                state=state,
                source=source,
                message=message,
                uuid=f"update-{next(_uuids)}",
                data=encode(Progress(volumes=tuple(run.volumes), identities=self._names(run))) if run.volumes else b"",
            )
        )

    def _names(self, run: Run) -> dict[str, str]:
        return dict.fromkeys(run.launch.platforms, run.node) if run.by_broker else {}


def _masters(task_id: str, agent: str | None, state: str, *, reason: str = "") -> Updated:
    return Updated(status=Status(task_id=task_id, agent_id=agent, state=state, source="SOURCE_MASTER", reason=reason))


def _at(volume: VolumeProgress, step: str) -> VolumeProgress:
    return msgspec.structs.replace(volume, step=step)
