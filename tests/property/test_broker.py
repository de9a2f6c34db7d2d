"""The whole scheduler under every order of events that hypothesis thinks of: after each step the ledger is sound and no data is lost,
and once everything heals every instance runs. POLLY_MODEL_EXAMPLES=1000 tries that many orders, each time others."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from framework.mesos.calls import Acceptance
from framework.mesos.errors import CallFailed, CallInDoubt, CallRefused
from framework.mesos.events import Status
from framework.mesos.instances import Phase
from storage.lifecycle import ClaimState
from storage.model import VolumeId
from storage.platforms.testing import ABILITIES, MemoryPlatform, MemoryStorage
from tests.ledgers import Clock
from tests.mesos_model import Cluster, Run
from tests.stage import Stage, app, shaky, sound, stage_config, volume_of

AGENTS = ("a1", "a2", "a3")
DB, WEB = "/db", "/web"
PATIENT = {"inactiveAfterSeconds": 10, "expungeAfterSeconds": 60}
ROUNDS = 400


class Broker(RuleBasedStateMachine):
    """`/db` has two volumes for each instance, which stay; `/web` has none, and is replaced before it is forgotten."""

    attach_by = "executor"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.ledger = shaky(f"sqlite:///{Path(self.folder.name)}/ledger.db", self.clock)
        identity = "cloud" if self.attach_by == "broker" else "hostname"
        able = msgspec.structs.replace(ABILITIES, identity=identity)
        self.platform = MemoryPlatform("disks", storage=MemoryStorage(), capabilities=able)
        self.config = stage_config(platforms={"disks": {"kind": "memory", "attach_by": self.attach_by}})
        self.cluster = Cluster(self.platform, self.clock)
        accepted = self.cluster.driver.on_accept
        self.cluster.driver.on_accept = lambda acceptance: self._check_committed(acceptance, accepted)
        self.ids = itertools.count(1)
        self.epochs: dict[VolumeId, int] = {}
        self.heard: list[Status] = []

    @initialize(instances=st.integers(1, 3))
    def begin(self, instances: int) -> None:
        self._start()
        self.stage.apps.run(app(DB, instances=instances, volumes=[volume_of("data"), volume_of("log")]), "test")
        self.stage.apps.run(app(WEB, instances=1, volumes=[], unreachableStrategy=PATIENT), "test")

    def _start(self) -> None:
        self.ledger.fails_before = self.ledger.fails_after = 0
        self.stage = Stage(self.ledger, self.clock, platform=self.platform, ids=self.ids, driver=self.cluster.driver, config=self.config)
        self.stage.subscribed()

    def _check_committed(self, acceptance: Acceptance, accepted: Callable[[Acceptance], None]) -> None:
        before = set(self.cluster.runs)
        accepted(acceptance)
        for task_id in self.cluster.runs.keys() - before:
            run = self.cluster.runs[task_id]
            placement = next(it for it in self.ledger.placements() if it.placement_id == task_id)
            claims = {claim.claim_id for claim in self.ledger.claims().items if claim.holder.placement == placement.placement_id}
            assert claims == {plan.claim_id for plan in run.launch.volumes}

    def _run(self, data: st.DataObject) -> Run:
        return data.draw(st.sampled_from(sorted(self.cluster.runs.values(), key=lambda run: run.task_id)))

    # --- what happens

    @rule(agents=st.sets(st.sampled_from(AGENTS), min_size=1), fate=st.sampled_from(["", "", "", "refused", "doubt kept", "doubt lost"]))
    def offer(self, agents: set[str], fate: str) -> None:
        outcomes: dict[str, CallFailed] = {
            "refused": CallRefused(call="ACCEPT", http_status=403, body="no"),
            "doubt kept": CallInDoubt(call="ACCEPT", reason="no answer"),
            "doubt lost": CallInDoubt(call="ACCEPT", reason="no answer"),
        }
        self.cluster.driver.outcomes = [outcomes[fate]] if fate else []
        self.cluster.loses_next = fate
        self.stage.offer(*sorted(agents - self.cluster.cut_off))
        self.cluster.driver.outcomes, self.cluster.loses_next = [], ""

    @precondition(lambda self: self.cluster.runs)
    @rule(data=st.data(), times=st.integers(1, 3))
    def executor_goes_on(self, data: st.DataObject, times: int) -> None:
        run = self._run(data)
        for _ in range(times):
            self.cluster.hear_calls()
            self.cluster.step(run)

    @precondition(lambda self: self.cluster.runs)
    @rule(data=st.data(), how=st.sampled_from(["crash", "TASK_FINISHED", "TASK_FAILED"]))
    def task_ends(self, data: st.DataObject, how: str) -> None:
        run = self._run(data)
        if how == "crash":
            self.cluster.crash(run)
        elif run.runs:
            self.cluster.end(run, how)

    @rule(data=st.data())
    def update_comes(self, data: st.DataObject) -> None:
        self.cluster.hear_calls()
        if waiting := self.cluster.deliverable():
            status = data.draw(st.sampled_from(waiting))
            self.heard.append(status)
            self.stage.hear(status)

    @rule()
    def all_updates_come(self) -> None:
        self.cluster.hear_calls()
        waiting = self.cluster.deliverable()
        self.heard.extend(waiting)
        self.stage.hear(*waiting)

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def old_update_comes_again(self, data: st.DataObject) -> None:
        self.stage.hear(data.draw(st.sampled_from(self.heard[-12:])))

    @rule(number=st.integers(1, 4))
    def master_answers(self, number: int) -> None:
        self.cluster.hear_calls()
        answers, self.cluster.answers = self.cluster.answers[:number], self.cluster.answers[number:]
        self.stage.scheduler.handle(answers)

    @rule(agent=st.sampled_from(AGENTS))
    def agent_is_cut_off(self, agent: str) -> None:
        self.cluster.cut(agent)

    @rule(agent=st.sampled_from(AGENTS))
    def agent_comes_back(self, agent: str) -> None:
        self.cluster.cut_off.discard(agent)

    @rule(agent=st.sampled_from(AGENTS))
    def agent_is_lost(self, agent: str) -> None:
        self.cluster.lose(agent)

    @rule(later_s=st.sampled_from([0.0, 1.0, 12.0, 70.0]))
    def time_goes_on(self, later_s: float) -> None:
        self.stage.tick(later_s)

    @rule(number=st.integers(1, 3))
    def workers_work(self, number: int) -> None:
        self.stage.work(number)

    @rule()
    def janitor_comes(self) -> None:
        self.stage.scheduler.guarded(self._resume)

    @rule(instances=st.integers(0, 3))
    def scaled(self, instances: int) -> None:
        self.stage.scheduler.guarded(partial(self._scale, instances))

    def _scale(self, instances: int) -> None:
        self.stage.apps.scale(DB, instances, "test")

    def _resume(self) -> None:
        self.stage.janitor.resume()

    @rule(expired=st.booleans())
    def platform_fails(self, expired: bool) -> None:
        self.platform.storage.expired = expired

    @rule(before=st.integers(0, 2), after=st.integers(0, 1))
    def ledger_fails(self, before: int, after: int) -> None:
        self.ledger.fails_before, self.ledger.fails_after = before, after

    @rule(drop_answers=st.booleans())
    def broker_is_killed(self, drop_answers: bool) -> None:
        self.cluster.hear_calls()
        if drop_answers:
            self.cluster.answers.clear()
        self._start()

    @rule(rounds=st.integers(1, 6))
    def all_goes_well_for_a_while(self, rounds: int) -> None:
        for _ in range(rounds):
            self._round()

    @precondition(lambda self: any(run.runs for run in self.cluster.runs.values()))
    @rule(data=st.data(), how=st.sampled_from(["crash", "TASK_FINISHED"]), heard_again=st.booleans(), expired=st.booleans())
    def running_task_ends_and_is_heard_of_late(self, data: st.DataObject, how: str, heard_again: bool, expired: bool) -> None:
        run = data.draw(st.sampled_from([run for run in self.cluster.runs.values() if run.runs]))
        self.platform.storage.expired = expired
        if how == "crash":
            self.cluster.crash(run)
        else:
            self.cluster.end(run, how)
        self.all_updates_come()
        self.all_updates_come()
        if heard_again and self.heard:
            self.stage.hear(data.draw(st.sampled_from([it for it in self.heard if it.task_id == run.task_id] or self.heard)))

    # --- what must be, always

    @invariant()
    def the_ledger_is_sound(self) -> None:
        sound(self.ledger)

    @invariant()
    def nothing_is_lost_or_held_twice(self) -> None:
        assert not self.cluster.wrongs
        stored = self.platform.storage.volumes
        assert not [name for name, external in self.cluster.written.items() if external not in stored]
        known = {volume.name: volume for volume in self.ledger.volumes(limit=1000).items}
        for name, external in self.cluster.written.items():
            assert known[name].external_id == external
            assert known[name].birth is not None

    @invariant()
    def nothing_is_taken_from_the_living(self) -> None:
        stored = self.platform.storage.volumes
        for run in self.cluster.runs.values():
            if run.runs and run.agent not in self.cluster.cut_off:
                assert all(run.node in stored[volume.external_id].attached for volume in run.volumes if volume.external_id)

    @invariant()
    def epochs_only_rise(self) -> None:
        for volume in self.ledger.volumes(limit=1000).items:
            assert volume.epoch >= self.epochs.get(volume.volume_id, 0)
            self.epochs[volume.volume_id] = volume.epoch

    @invariant()
    def a_slot_with_volumes_has_one_task(self) -> None:
        slots = [placement.slot for placement in self.ledger.placements() if placement.workload == DB]
        assert len(slots) == len(set(slots))

    # --- and in the end

    def teardown(self) -> None:
        try:
            if hasattr(self, "stage"):
                self._heal()
        finally:
            self.ledger.close()
            self.folder.cleanup()

    def _heal(self) -> None:
        """Everything answers again: what follows must be as safe as what came before, and end with all that is wanted running."""
        self.platform.storage.expired = False
        self.ledger.fails_before = self.ledger.fails_after = 0
        self.cluster.cut_off.clear()
        self.cluster.driver.outcomes, self.cluster.loses_next = [], ""
        for _ in range(ROUNDS):
            self._round()
            self.the_ledger_is_sound()
            self.nothing_is_lost_or_held_twice()
            if self._is_well():
                self._nothing_has_leaked()
                return
        raise AssertionError(f"not well again: {self._state()}")

    def _nothing_has_leaked(self) -> None:
        """What is attached has a claim, or is to be deleted."""
        claimed = {claim.volume_id for claim in self.ledger.claims(limit=1000).items}
        free = {volume.external_id for volume in self.ledger.volumes(limit=1000).items if volume.volume_id not in claimed}
        assert not [key for key, volume in self.platform.storage.volumes.items() if volume.attached and key in free]

    def _round(self) -> None:
        self.cluster.hear_calls()
        self.heard.extend(self.cluster.deliverable())
        answers, self.cluster.answers = self.cluster.answers, []
        self.stage.scheduler.handle(answers)
        self.stage.hear(*self.cluster.deliverable())
        self.stage.tick(5.0)
        self.stage.work()
        self.janitor_comes()
        self.stage.work()
        self.stage.offer(*sorted(set(AGENTS) - self.cluster.cut_off))
        self.cluster.hear_calls()
        for run in self.cluster.runs.values():
            self.cluster.step(run)

    def _is_well(self) -> bool:
        picture, states = self.stage.picture, self.stage.picture.apps.values()
        wanted = sum(state.instances for state in states)
        phases = [task.phase for task in picture.tasks.values()]
        claims = [claim.state for claim in self.ledger.claims(limit=1000).items]
        return (
            len(phases) == wanted == sum(run.runs for run in self.cluster.runs.values())
            and all(phase is Phase.RUNNING for phase in phases)
            and all(state is ClaimState.MOUNTED for state in claims)
            and not self.ledger.orphans()
            and not self.stage.hands.jobs
            and self.platform.storage.volumes.keys() == {volume.external_id for volume in self.ledger.volumes(limit=1000).items}
        )

    def _state(self) -> object:
        tasks = [(task.task_id[-20:], task.phase, task.record, list(task.claims.values())) for task in self.stage.picture.tasks.values()]
        waiting = [(state.app.app_id, it) for state in self.stage.picture.apps.values() for it in state.waiting.values()]
        return tasks, waiting, self.ledger.orphans(), [(run.task_id[-20:], run.state, run.killed) for run in self.cluster.runs.values()]


class BrokerThatAttaches(Broker):
    """No executor has the platform's credentials, and the platform does not call nodes by their hostnames."""

    attach_by = "broker"


EXAMPLES = int(os.environ.get("POLLY_MODEL_EXAMPLES", "0"))
"""How many orders of events to try, each time others; not given: the same few each time."""
BOUNDS = settings(
    derandomize=not EXAMPLES,
    max_examples=EXAMPLES or 25,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
Broker.TestCase.settings = BrokerThatAttaches.TestCase.settings = BOUNDS
TestBroker, TestBrokerThatAttaches = Broker.TestCase, BrokerThatAttaches.TestCase
