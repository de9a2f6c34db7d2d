"""One broker has a volume detached from a machine while a task of another comes to it there: in each order of their steps, forced.

The one: look for others and keep that the volume leaves (in one transaction), detach, end the claim. The newcomer: claim, attach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from typing import Any

import pytest

from framework.mesos.instances import Task
from framework.workers import Outcome
from storage.errors import PlatformUnavailable, VolumeInUse
from storage.inventory import Ledger, Transaction, open_ledger
from storage.lifecycle import ClaimState
from storage.model import AccessMode, ExternalId
from storage.platforms.testing import MemoryPlatform, MemoryStorage
from tests.ledgers import Clock, furnish, make, old, placed, refusal, task
from tests.stage import Stage, from_master, sound, stage_config
from tests.support import eventually
from tests.unit.test_ledger_rooms import somebody_waits
from tests.unit.test_sharing import MACHINE, PAGES, attach, attached, imported_pages, read

Answers = list[tuple[Callable[[Outcome[Any]], None], Outcome[Any]]]


class Between(MemoryPlatform):
    """Lets something happen just before a detach, which then fails if it is told to."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)
    fails = False

    @contextmanager
    def _call(self, verb: str) -> Iterator[MemoryStorage]:
        if verb == "detach":
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()
            if self.fails:
                raise PlatformUnavailable(platform=self.name, action=verb, reason="a test says so")
        with super()._call(verb) as storage:
            yield storage


class Machine:
    """Which `one` and `other` share; a task of `one` that read the pages there is over, and the platform is still to be asked."""

    def __init__(self, one: Stage, other: Stage, platform: Between) -> None:
        self.one, self.other, self.platform = one, other, platform
        self.pages = imported_pages(one)
        known = read(other, "/known", agent="a2")
        other.apps.delete("/known", "joe")
        other.end(known, "TASK_KILLED")
        self.over = read(one, "/web")
        attach(one, self.pages)
        one.hear(from_master(self.over, "TASK_GONE"))
        one.tick()

    def come(self, agent: str = "a1") -> list[Task]:
        """What becomes of a newcomer: it attaches as soon as it may."""
        if "/late" not in self.other.picture.apps:
            self.other.run("/late", agents=[agent], volumes=PAGES)
        else:
            self.other.offer(agent)
        tasks = self.other.tasks("/late")
        if tasks:
            attach(self.other, self.pages)
        return tasks

    @property
    def refusal(self) -> str:
        return self.other.state("/late").waiting[0].blocked


@contextmanager
def sharing(url: str, clock: Clock) -> Iterator[Machine]:
    with ExitStack() as stack:
        mine, others = (stack.enter_context(closing(open_ledger(url, clock=clock))) for _ in range(2))
        platform = Between("disks", storage=MemoryStorage())
        one = Stage(mine, clock, platform=platform)
        config = stage_config(framework={"name": "other", "roles": ["polly"]})
        other = Stage(others, clock, config=config, platform=MemoryPlatform("disks", storage=one.storage), ids=one.numbers)
        for stage in (one, other):
            stage.subscribed()
        yield Machine(one, other, platform)
        sound(mine)


@pytest.fixture
def machine(sqlite_url: str, clock: Clock) -> Iterator[Machine]:
    with sharing(sqlite_url, clock) as made:
        yield made


@pytest.fixture
def on_postgresql(postgresql_url: str, clock: Clock) -> Iterator[Machine]:
    with sharing(postgresql_url, clock) as made:
        yield made


def holds(machine: Machine) -> list[str]:
    return attached(machine.one, ExternalId(machine.pages))


@pytest.mark.parametrize("agent", ["a1", "a2"])
def test_who_comes_after_the_look_and_before_the_detach_waits_for_its_end(machine: Machine, agent: str) -> None:
    """The machine is another agent to the other broker: the platform calls both the same."""
    machine.platform.meanwhile = lambda: machine.come(agent)
    machine.one.work()
    assert holds(machine) == []
    assert machine.refusal.startswith("the ledger refused the claim: Volume pages is in use by claim ")
    assert machine.refusal.endswith(", which has ended and is just being detached from there.")
    assert machine.come(agent)
    assert holds(machine) == [MACHINE]


def test_who_comes_to_another_machine_meanwhile_waits_for_nothing(machine: Machine) -> None:
    came: list[Task] = []
    machine.platform.meanwhile = lambda: came.extend(machine.other.run("/late", agents=["a3"], volumes=PAGES))
    machine.one.work()
    assert len(came) == 1


def test_as_long_as_a_detach_may_be_repeated_nobody_comes(machine: Machine) -> None:
    machine.platform.fails = True
    machine.one.work()
    assert machine.come() == []
    machine.one.tick(6.0)
    machine.platform.fails = False
    machine.one.work()
    assert holds(machine) == []
    assert machine.come()
    assert holds(machine) == [MACHINE]


def test_a_broker_that_died_in_the_detach_keeps_others_and_its_next_life_waiting(machine: Machine) -> None:
    machine.one.hands.work()  # nobody hears of it, and it may be under way for long
    later = machine.one.next_life()
    assert machine.come() == []
    assert later.run("/mine", volumes=PAGES) == []
    later.tick()
    later.work()
    assert machine.come()
    later.offer("a1")
    assert len(later.tasks("/mine")) == 1


def test_who_claims_while_one_looks_is_seen(on_postgresql: Machine, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim is not committed yet, and the look waits for it. A detach would come after the newcomer's attach."""
    machine, other = on_postgresql, on_postgresql.other
    detaching, has_come, begin = Event(), Event(), other.ledger.begin

    def wait() -> None:
        detaching.set()
        has_come.wait(30)

    machine.platform.meanwhile = wait
    looked: list[Future[Answers]] = []
    with ThreadPoolExecutor(1) as threads:

        @contextmanager
        def slowly(actor: str, *, now: float | None = None) -> Iterator[Transaction]:
            with begin(actor, now=now) as transaction:
                yield transaction
                if now is not None and not looked:  # it places
                    looked.append(threads.submit(machine.one.hands.work))
                    eventually(lambda: detaching.is_set() or looked[0].done() or somebody_waits(postgresql_url), what="the look")

        monkeypatch.setattr(other.ledger, "begin", slowly)
        assert machine.come()
        has_come.set()
        machine.one.hand_on(looked[0].result(timeout=60))
    assert holds(machine) == [MACHINE]
    assert len(machine.one.ledger.claims().items) == 1


def test_who_claims_while_one_keeps_that_the_volume_leaves_is_refused(
    on_postgresql: Machine, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is not committed yet, and the claim waits for it."""
    one, begin = on_postgresql.one, on_postgresql.one.ledger.begin
    came: list[Future[list[Task]]] = []
    with ThreadPoolExecutor(1) as threads:

        @contextmanager
        def slowly(actor: str, *, now: float | None = None) -> Iterator[Transaction]:
            with begin(actor, now=now) as transaction:
                yield transaction
                came.append(threads.submit(on_postgresql.come))
                eventually(lambda: came[0].done() or somebody_waits(postgresql_url), what="the claim waits, or has not to")

        with monkeypatch.context() as patched:
            patched.setattr(one.ledger, "begin", slowly)
            answers = one.hands.work()
        assert came[0].result(timeout=60) == []
        one.hand_on(answers)
    assert holds(on_postgresql) == []
    assert on_postgresql.come()


def test_a_volume_whose_holder_is_heard_after_all_leaves_no_more(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "one", mode=AccessMode.MULTI_NODE_MULTI_WRITER)
    (claim,) = placed(ledger, task("t1", old("c1", "one", 1)))
    with ledger.begin("broker") as tx:
        tx.advance(claim.claim_id, claim.epoch, ClaimState.STRANDED)
        tx.leave(claim.claim_id, claim.epoch)
    late = task("t2", old("c2", "one", 2))
    with ledger.begin("broker") as tx:
        tx.advance(claim.claim_id, claim.epoch, ClaimState.STRANDED, reason="it is not heard")
    assert isinstance(refusal(ledger, late), VolumeInUse)
    with ledger.begin("mesos") as tx:
        tx.advance(claim.claim_id, claim.epoch, ClaimState.MOUNTED)
    placed(ledger, late)
