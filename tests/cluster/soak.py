"""A soak: many instances come and go while brokers, executors, tasks, agents, machines and the master are killed, by a plan.

The plan is made from a seed before anything runs, so a run can be replayed; what a blow hits is chosen by a number of the
plan among what runs at that moment. `print(plan)` shows all of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from storage.lifecycle import ClaimState
from tests.cluster.mesos_cluster import Agent
from tests.cluster.processes import Processes
from tests.cluster.rig import Rig, counter
from tests.support import eventually

AGENTS = 4
"""The last one dies for good half way."""
HEAL_S = 90.0
COUNT = (
    "n=$(($(cat data/starts 2>/dev/null || echo 0) + 1)); echo $n > data/next; sync data/next; mv data/next data/starts; sync data; "
    'echo "start $n"; exec sleep 3600'
)
"""Unlike the rig's, it never leaves an empty file, whenever it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing done at one moment of the plan."""

    at_s: float
    verb: str
    app: str = ""
    number: int = 0
    """Instances, or the index of an agent."""
    pick: float = 0.0
    """Which of those that are there, from 0 to below 1."""

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.verb} {self.app or self.pick or ''} {self.number}"


def make_plan(seed: int, *, seconds: float, instances: int, agents: int = AGENTS) -> list[Step]:
    """Waves of apps whose instances add up to `instances`, and blows all the while; in the order of their moments."""
    rng = random.Random(seed)
    return sorted([*_waves(rng, seconds, instances), *_blows(rng, seconds, last=agents - 1)], key=lambda step: step.at_s)


def _waves(rng: random.Random, seconds: float, instances: int) -> Iterator[Step]:
    sizes: list[int] = []
    while sum(sizes) < instances:
        sizes.append(min(rng.randint(5, 14), instances - sum(sizes)))
    for index, size in enumerate(sizes):
        app, begins = f"/soak/wave{index}", seconds * 0.85 * index / len(sizes)
        first = rng.randint(1, size)
        yield Step(at_s=begins, verb="run", app=app, number=first)
        yield Step(at_s=begins + seconds * 0.04, verb="scale", app=app, number=size)
        if rng.random() < 0.5:
            yield Step(at_s=begins + seconds * 0.08, verb="scale", app=app, number=rng.randint(0, size))
        if index < len(sizes) - 2:
            yield Step(at_s=begins + seconds * rng.uniform(0.12, 0.2), verb="delete", app=app)


BLOWS = {"kill broker": 3, "kill executor": 8, "kill task": 6, "kill agent": 2, "kill machine": 2, "cut agent off": 1, "kill master": 1}


def _blows(rng: random.Random, seconds: float, *, last: int) -> Iterator[Step]:
    """One agent is away at a time, and comes back; the last one does not: it is lost half way."""
    yield Step(at_s=seconds * 0.5, verb="lose machine", number=last)
    at_s, free_at_s = 3.0, 0.0
    while at_s < seconds:
        verb = rng.choices([*BLOWS], [*BLOWS.values()])[0]
        number = rng.randrange(last)
        if "agent" in verb or "machine" in verb:
            if at_s < free_at_s:
                verb = "kill executor"
            else:
                free_at_s = at_s + rng.uniform(2.0, 9.0)
                yield Step(at_s=free_at_s, verb="bring back", number=number)
        yield Step(at_s=at_s, verb=verb, number=number, pick=rng.random())
        at_s += rng.uniform(1.0, 4.0)


@dataclass(slots=True)
class Soak:
    """Does the plan to a rig whose cluster has the plan's agents and a replicated log."""

    rig: Rig
    plan: Sequence[Step]
    wanted: dict[str, int] = field(default_factory=dict)
    """The apps that are to be there, with their instances."""
    deleted: set[str] = field(default_factory=set)

    def run(self) -> None:
        verbs: dict[str, Callable[[Step], None]] = {
            "run": self._run,
            "scale": self._scale,
            "delete": self._delete,
            "kill broker": lambda _: self._kill_broker(),
            "kill executor": self._kill_executor,
            "kill task": self._kill_task,
            "kill agent": lambda step: self.agents[step.number].kill(),
            "kill machine": lambda step: self.agents[step.number].kill_machine(),
            "lose machine": lambda step: self.lose_machine(step.number),
            "cut agent off": lambda step: _signal(self.agents[step.number], signal.SIGSTOP),
            "bring back": lambda step: self._bring_back(self.agents[step.number]),
            "kill master": lambda _: self._kill_master(),
        }
        self.rig.start_broker()
        begun, never = time.monotonic(), threading.Event()
        for step in self.plan:
            never.wait(max(0.0, begun + step.at_s - time.monotonic()))
            verbs[step.verb](step)
        for agent in self.agents[:-1]:
            self._bring_back(agent)
        self.rig.cluster.wait_agents(len(self.agents) - 1)

    @property
    def agents(self) -> list[Agent]:
        return self.rig.cluster.agents

    # --- apps -----------------------------------------------------------------------------------

    def _run(self, step: Step) -> None:
        self._answered()
        self.rig.run(counter(step.app, instances=step.number, cmd=COUNT))
        self.wanted[step.app] = step.number

    def _scale(self, step: Step) -> None:
        self._answered()
        self.rig.scale(step.app, step.number)
        self.wanted[step.app] = step.number

    def _delete(self, step: Step) -> None:
        self._answered()
        self.rig.delete(step.app)
        del self.wanted[step.app]
        self.deleted.add(step.app)

    def _answered(self) -> None:
        eventually(self.rig.answers, HEAL_S, "the broker answers")

    # --- blows ----------------------------------------------------------------------------------

    def _kill_broker(self) -> None:
        self._answered()
        self.rig.kill_broker()
        self.rig.start_broker(wait=False)

    def lose_machine(self, number: int) -> None:
        """It does not come back."""
        self.agents[number].kill_machine()

    def _kill_executor(self, step: Step) -> None:
        if executors := self._executors():
            _kill({executors[int(step.pick * len(executors))]})

    def _kill_task(self, step: Step) -> None:
        if executors := self._executors():
            now = Processes.look()
            below = now.descendants({executors[int(step.pick * len(executors))]})
            _kill({pid for pid in below if now.names[pid] == "sleep"})

    def _executors(self) -> list[int]:
        return [pid for agent in self.agents for _, pid in sorted(agent.executors().items())]

    def _kill_master(self) -> None:
        self.rig.cluster.master.kill()
        self.rig.cluster.master.start()

    def _bring_back(self, agent: Agent) -> None:
        _signal(agent, signal.SIGCONT)
        agent.start()

    # --- what must be true at the end -----------------------------------------------------------

    def all_is_well(self) -> None:
        """Every instance runs or is gone, as asked; every count is zero; no counter in a volume ever went back."""
        self._answered()
        for app_id, number in self.wanted.items():
            self.rig.running(app_id, number=number, timeout_s=HEAL_S)
        for app_id in self.deleted:
            self.rig.gone(app_id, HEAL_S)
        self.settle()
        eventually(self._is_at_rest, HEAL_S, "the broker has heard of the last blow, and what it hit runs again")
        eventually(lambda: len(self.rig.attached()) == sum(self.wanted.values()), HEAL_S, "what is attached is what is claimed")
        self.no_count_went_back()

    def _is_at_rest(self) -> bool:
        running = {task["id"] for app_id in self.wanted for task in self.rig.tasks(app_id)}
        claims = self.rig.claims()
        mounted = {claim.holder.placement for claim in claims if claim.state is ClaimState.MOUNTED}
        return len(claims) == sum(self.wanted.values()) and mounted == running

    def settle(self) -> None:
        self.rig.settle(HEAL_S)

    def end(self) -> None:
        """All apps go, and nothing is left of them."""
        for app_id in self.wanted:
            self.rig.delete(app_id)
        for app_id in self.wanted:
            self.rig.gone(app_id, HEAL_S)
        self.settle()
        self.rig.nothing_left(HEAL_S)

    def no_count_went_back(self) -> None:
        """Each start of an instance found what the one before it had left in its volume."""
        said = self._said()
        told = 0
        for volume_id, tasks in self._runs().items():
            counts = [said[task] for task in tasks if task in said]
            told += len(counts)
            assert counts == sorted(set(counts)), f"volume {volume_id} lost data: {dict(zip(tasks, counts, strict=False))}"
        assert told >= len(self.wanted)

    def _runs(self) -> dict[str, list[str]]:
        """By volume, the tasks that claimed it, in their order."""
        runs: dict[str, list[str]] = defaultdict(list)
        after: str | None = None
        with self.rig.ledger() as ledger:
            while True:
                page = ledger.events(after=after, limit=1000)
                for event in page.items:
                    if event.what == "claim.reserved" and event.volume_id and event.placement_id:
                        runs[event.volume_id].append(event.placement_id)
                after = page.after
                if after is None:
                    return runs

    def _said(self) -> dict[str, int]:
        """By task, what it has counted to."""
        said: dict[str, int] = {}
        for path in self.rig.cluster.folder.glob("agent*/work/agents/*/work/slaves/*/frameworks/*/executors/*/runs/latest/stdout"):
            with contextlib.suppress(OSError):
                counts = [int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("start ")]
                if counts:
                    said[path.parts[-4]] = counts[-1]
        return said


def _signal(agent: Agent, how: signal.Signals) -> None:
    for pid in agent.pids:
        os.kill(pid, how)


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
