"""What proves that a volume is free, and the pace at which platforms are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from framework.settling import Settler, StillHeld, overridden, prove
from framework.workers import Outcome
from storage.errors import PlatformUnavailable, PollyError
from storage.lifecycle import ClaimState, ProofKind
from storage.model import Access, AccessMode, Birth, Claim, ClaimId, ExternalId, Holder, NodeId, PlacementId, Proof, Volume, VolumeId
from storage.platforms.base import Capabilities, CreateRequest
from storage.platforms.testing import ABILITIES, MemoryPlatform

RETRY_S = 5.0
GONE = Proof(kind=ProofKind.TASK_GONE, evidence="TASK_GONE from master")


class Straight:
    """Workers that do each job at once."""

    def submit(
        self, platform: str, key: str, job: Callable[[], Any], done: Callable[[Outcome[Any]], None], *, urgent: bool = False
    ) -> None:
        try:
            outcome = Outcome(job())
        except PollyError as error:
            outcome = Outcome(error=error)
        done(outcome)


class Held:
    """A platform whose volume is held for ever; counts how often it is asked."""

    class capabilities:  # noqa: N801 - stands for the platform's attribute
        fences = True
        sees_nodes = False

    name = "disks"

    def __init__(self) -> None:
        self.asked = 0

    def fence(self, external_id: ExternalId, epoch: int) -> None:
        self.asked += 1

    def detach(self, external_id: ExternalId, node: str) -> None:
        return


CLAIM = Claim(
    claim_id=ClaimId("c1"),
    volume_id=VolumeId("v1"),
    holder=Holder(scheduler="mesos/polly", placement=PlacementId("t1"), node=NodeId("a1")),
    epoch=1,
    access=Access.RW,
    state=ClaimState.STRANDED,
    lease_until=0.0,
)
VOLUME = Volume(
    volume_id=VolumeId("v1"),
    name="v",
    platform="disks",
    pool="default",
    size_mib=16,
    external_id=ExternalId("x1"),
    birth=Birth(serial="s", filesystem="ext4", filesystem_uuid="u"),
)


@pytest.fixture
def held() -> Held:
    return Held()


def run(held: Held, opened: Callable[[Settler, float], None], *, until: int) -> list[object]:
    """Opens the case anew ten times in each second, as the broker's ticks do; returns the answers."""
    now = 0.0
    # stand-ins with the verbs that are called
    settler = Settler({"disks": held}, Straight(), clock=lambda: now, retry_s=RETRY_S)  # type: ignore[arg-type,dict-item]
    answers: list[object] = []
    for tick in range(until * 10):
        now = tick / 10
        opened(settler, now)
        settler.run(now, lambda _, answer: answers.append(answer))
    return answers


def test_a_case_that_is_opened_again_keeps_its_pace(held: Held) -> None:
    answers = run(held, lambda settler, now: settler.open(VOLUME, CLAIM, "node", None, due_at=now), until=12)
    assert held.asked == 3
    assert answers == [StillHeld(reason="platform disks says that something still holds it")] * 3


def test_a_platform_that_goes_on_failing_is_told_of_once_however_it_numbers_its_errors() -> None:
    """Each telling is a commit and a line of the event log, for every claim: an outage of a night would be millions."""

    class Numbered(Held):
        def fence(self, external_id: ExternalId, epoch: int) -> None:
            super().fence(external_id, epoch)
            if self.asked != 4:
                raise PlatformUnavailable(platform=self.name, action="fence", reason=f"HTTP 503 (req-{self.asked})")

    platform = Numbered()
    answers = run(platform, lambda settler, now: settler.open(VOLUME, CLAIM, "node", None, due_at=now), until=32)
    assert platform.asked == 7
    told = [answer.reason for answer in answers if isinstance(answer, StillHeld)]
    assert [reason.partition("(")[2] for reason in told] == ["req-1).", "", "req-5)."]


def test_a_new_proof_is_told_of_though_the_platform_fails_as_before() -> None:
    class Away(Held):
        def detach(self, external_id: ExternalId, node: str) -> None:
            self.fence(external_id, 0)

        def fence(self, external_id: ExternalId, epoch: int) -> None:
            raise PlatformUnavailable(platform=self.name, action="fence", reason="no route")

    answers = run(Away(), lambda it, now: it.open(VOLUME, CLAIM, "node", GONE if now > 6.0 else None, due_at=now), until=12)
    assert len(answers) == 2


def test_a_proof_that_comes_later_is_tried_at_once(held: Held) -> None:
    def opened(settler: Settler, now: float) -> None:
        settler.open(VOLUME, CLAIM, "node", GONE if now >= 1.0 else None, due_at=now)

    run(held, opened, until=4)
    assert held.asked == 2


# --- what is a proof


class Shop:
    """A platform in memory with one born volume."""

    def __init__(self, **abilities: Any) -> None:
        able: Capabilities = msgspec.structs.replace(ABILITIES, **{"fences": False, "sees_nodes": False, **abilities})
        self.platform = MemoryPlatform("disks", capabilities=able)
        made = self.platform.create(CreateRequest(pool="default", size_mib=16, token="t"))
        self.volume = msgspec.structs.replace(VOLUME, external_id=made.external_id)
        self.read_only = False

    def attach(self, *nodes: str) -> None:
        for number, node in enumerate(nodes, 1):
            assert self.volume.external_id
            self.platform.attach(self.volume.external_id, node, epoch=number, read_only=len(nodes) > 1)

    def held_by(self) -> tuple[str, ...]:
        assert self.volume.external_id
        return self.platform.inspect(self.volume.external_id).held_by

    def prove(self, node: str | None, ended: Proof | None = GONE, **more: Any) -> Proof | StillHeld:
        claim = msgspec.structs.replace(CLAIM, access=more.pop("access", Access.RW))
        volume = msgspec.structs.replace(self.volume, access_mode=more.pop("mode", AccessMode.SINGLE_NODE_WRITER))
        return prove(self.platform, volume, claim, node, ended, **more)


def test_a_holder_that_is_gone_is_detached_by_the_name_that_the_platform_has_for_its_node() -> None:
    shop = Shop()
    shop.attach("i-1")
    assert shop.prove("i-1") == Proof(kind=ProofKind.TASK_GONE, evidence="TASK_GONE from master; detached")
    assert shop.held_by() == ()


@pytest.mark.parametrize("fences", [False, True])
def test_a_name_that_is_wrong_frees_nothing(fences: bool) -> None:
    shop = Shop(fences=fences)
    shop.attach("i-1")
    answer = shop.prove("agent-1.example")
    assert isinstance(answer, StillHeld)
    assert "still holds it" in answer.reason
    assert shop.held_by() == ("i-1",)


def test_without_a_name_the_one_holder_must_be_the_dead_one() -> None:
    shop = Shop()
    shop.attach("i-1")
    assert isinstance(shop.prove(None), Proof)
    assert shop.held_by() == ()
    assert isinstance(shop.prove(None), Proof)


@pytest.mark.parametrize(
    "mode", [AccessMode.MULTI_NODE_READER_ONLY, AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER]
)
def test_without_a_name_nobody_is_taken_from_a_volume_that_several_may_hold(mode: AccessMode) -> None:
    shop = Shop()
    shop.attach("i-1", "i-2")
    answer = shop.prove(None, mode=mode, access=Access.RO)
    assert answer == StillHeld(reason="what platform disks calls the dead task's node was never learnt, and it is held by i-1, i-2")
    assert shop.held_by() == ("i-1", "i-2")


def test_two_holders_of_a_volume_for_one_are_left_for_a_person() -> None:
    shop = Shop()
    shop.attach("i-1", "i-2")
    assert isinstance(shop.prove(None), StillHeld)
    assert shop.held_by() == ("i-1", "i-2")


def test_a_volume_that_another_task_uses_on_the_same_node_stays_attached() -> None:
    shop = Shop()
    shop.attach("i-1")
    answer = shop.prove("i-1", mode=AccessMode.MULTI_NODE_MULTI_WRITER, shared=lambda: True)
    assert isinstance(answer, Proof)
    assert "goes on using" in answer.evidence
    assert shop.held_by() == ("i-1",)


def test_a_node_that_is_stopped_is_a_proof_and_its_volume_is_detached() -> None:
    shop = Shop(sees_nodes=True)
    shop.attach("i-1")
    assert isinstance(shop.prove("i-1", None), StillHeld)
    shop.platform.storage.stopped.add("i-1")
    assert shop.prove("i-1", None) == Proof(kind=ProofKind.NODE_STOPPED, evidence="node i-1 is stopped; detached")
    assert shop.held_by() == ()


def test_a_node_that_nobody_has_named_cannot_be_seen_to_be_stopped() -> None:
    shop = Shop(sees_nodes=True)
    shop.attach("i-1")
    shop.platform.storage.stopped.add("i-1")
    assert isinstance(shop.prove(None, None), StillHeld)
    assert shop.held_by() == ("i-1",)


def test_a_platform_that_sees_nodes_and_fences_is_asked_for_both() -> None:
    shop = Shop(sees_nodes=True, fences=True)
    answer = shop.prove("i-1", None)
    assert isinstance(answer, Proof)
    assert answer.kind is ProofKind.FENCED
    shop.platform.storage.stopped.add("i-1")
    stopped = shop.prove("i-1", None)
    assert isinstance(stopped, Proof)
    assert stopped.kind is ProofKind.NODE_STOPPED


def test_a_volume_that_the_platform_has_no_more_is_held_by_nobody() -> None:
    shop = Shop()
    assert shop.volume.external_id
    shop.platform.delete(shop.volume.external_id)
    assert isinstance(shop.prove("i-1"), Proof)


# --- a person's word

WORD = Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence="jane: it burnt")


def word_of(shop: Shop, node: str | None) -> Proof:
    return overridden(shop.platform, shop.volume, CLAIM, node, WORD)


def test_a_persons_word_takes_the_volume_from_the_node_so_that_another_can_have_it() -> None:
    shop = Shop(sees_nodes=True, fences=True)
    shop.attach("i-1")
    assert word_of(shop, "i-1").kind is ProofKind.OPERATOR_OVERRIDE
    assert shop.held_by() == ()
    shop.platform.attach(ExternalId(str(shop.volume.external_id)), "i-2", epoch=2)
    assert shop.held_by() == ("i-2",)


def test_a_persons_word_counts_though_the_platform_does_not_let_go() -> None:
    shop = Shop(fences=True)
    shop.attach("i-1")
    said = "jane: it burnt; but platform disks says that something still holds it"
    assert word_of(shop, "agent-1.example") == Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence=said)
    assert shop.held_by() == ("i-1",)


def test_a_persons_word_counts_though_the_platform_is_away_or_no_longer_there() -> None:
    shop = Shop()
    answer = overridden(Away(), shop.volume, CLAIM, "i-1", WORD)  # type: ignore[arg-type]  # stand-ins with the verbs that are called
    assert answer.evidence == "jane: it burnt; but " + str(Away.error)
    assert overridden(None, shop.volume, CLAIM, "i-1", WORD) == WORD


class Away:
    """A platform that nobody can reach."""

    error = PlatformUnavailable(platform="disks", action="detach a volume", reason="connection refused")

    def detach(self, external_id: ExternalId, node: str) -> None:
        raise self.error


def test_a_platform_that_sees_nodes_says_that_the_node_is_not_stopped() -> None:
    shop = Shop(sees_nodes=True, fences=True)
    shop.attach("i-1")
    assert shop.prove("i-1", None) == StillHeld(reason="platform disks says that something still holds it, and not that i-1 is stopped")
    assert shop.prove(None, None) == StillHeld(reason="platform disks says that something still holds it")


@pytest.mark.parametrize(
    "changes",
    [{"access": Access.RO, "mode": AccessMode.MULTI_NODE_READER_ONLY}, {"mode": AccessMode.MULTI_NODE_MULTI_WRITER}],
    ids=["a reader", "a writer beside others"],
)
def test_one_of_several_holders_is_detached_and_the_others_are_not_fenced_off(changes: dict[str, Any]) -> None:
    shop = Shop(fences=True)
    shop.attach("i-1", "i-2")
    assert shop.prove("i-1", **changes) == Proof(kind=ProofKind.TASK_GONE, evidence="TASK_GONE from master; detached")
    assert shop.held_by() == ("i-2",)
    assert shop.platform.inspect(shop.volume.external_id).epoch <= 2  # type: ignore[arg-type]  # it is made


def test_a_volume_that_several_may_hold_and_nobody_does_is_free() -> None:
    shop = Shop()
    answer = shop.prove(None, mode=AccessMode.MULTI_NODE_READER_ONLY)
    assert answer == Proof(kind=ProofKind.TASK_GONE, evidence="TASK_GONE from master; detached")


# --- answers on their way


class Later:
    """Workers whose jobs are done when a test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Outcome[Any]], None]]] = []

    def submit(
        self, platform: str, key: str, job: Callable[[], Any], done: Callable[[Outcome[Any]], None], *, urgent: bool = False
    ) -> None:
        self.jobs.append((job, done))

    def work(self) -> None:
        taken, self.jobs = self.jobs, []
        for job, done in taken:
            done(Outcome(job()))


class Case:
    """A settler with one case that is being asked about, at the instant 0."""

    def __init__(self, platforms: dict[str, object]) -> None:
        self.now, self.later, self.answers = 0.0, Later(), list[object]()
        # stand-ins with the verbs that are called
        self.settler = Settler(platforms, self.later, clock=lambda: self.now, retry_s=RETRY_S)  # type: ignore[arg-type]
        self.settler.open(VOLUME, CLAIM, "node", None)
        self.ask()

    def ask(self) -> None:
        self.settler.run(self.now, lambda _, answer: self.answers.append(answer))


def test_a_platform_that_is_not_configured_any_more_proves_nothing() -> None:
    case = Case({})
    case.later.work()
    assert case.answers == [StillHeld(reason="platform disks is not in polly.toml")]


def test_what_a_platform_is_asked_to_do_is_known_until_it_has_answered(held: Held) -> None:
    """Also where nobody waits for the answer any more: a task that now came to the same node could lose its volume by it."""
    case, answers = Case({"disks": held}), list[Outcome[Proof]]()
    case.settler.drop(CLAIM.claim_id)
    case.settler.override(VOLUME, CLAIM, "n2", GONE, answers.append, shared=lambda: False)
    assert case.settler.asked(CLAIM.volume_id) == [(CLAIM, "node"), (CLAIM, "n2")]
    assert case.settler.asked(VolumeId("another")) == []
    assert case.settler.is_asking
    case.later.work()
    assert (case.settler.is_asking, len(answers)) == (False, 1)


def test_a_nodes_name_that_was_learnt_once_stays(held: Held) -> None:
    case = Case({"disks": held})
    case.settler.open(VOLUME, CLAIM, None, GONE)
    case.later.work()
    case.ask()
    assert case.settler.asked(CLAIM.volume_id) == [(CLAIM, "node")]


def test_a_holder_that_let_go_itself_is_only_detached() -> None:
    shop = Shop(fences=True)
    shop.attach("n1")
    found = shop.prove("n1", Proof(kind=ProofKind.RELEASED, evidence="unmounted by its executor"))
    assert found == Proof(kind=ProofKind.RELEASED, evidence="unmounted by its executor; detached from n1")
    assert shop.held_by() == ()


def test_an_answer_about_a_case_that_was_dropped_meanwhile_is_passed_over(held: Held) -> None:
    case = Case({"disks": held})
    case.settler.drop(CLAIM.claim_id)
    case.settler.open(VOLUME, CLAIM, "node", None, due_at=100.0)
    case.later.work()
    assert (case.answers, case.settler.next_at()) == ([], 100.0)


def test_an_answer_about_a_volume_that_was_born_meanwhile_is_asked_for_anew(held: Held) -> None:
    unborn = msgspec.structs.replace(VOLUME, birth=None, token="t")
    case = Case({"disks": held})
    case.settler.drop(CLAIM.claim_id)
    case.settler.open(unborn, CLAIM, "node", None)
    case.later.jobs.clear()
    case.ask()
    case.settler.open(VOLUME, CLAIM, "node", None)
    case.later.work()
    assert (case.answers, held.asked, case.settler.next_at()) == ([], 0, 0.0)
    case.ask()
    case.later.work()
    assert (len(case.answers), held.asked, case.settler.next_at()) == (1, 1, RETRY_S)


def test_an_answer_to_whether_the_holder_is_gone_is_asked_for_anew_once_that_is_proven(held: Held) -> None:
    case = Case({"disks": held})
    case.settler.open(VOLUME, CLAIM, "node", GONE)
    case.later.work()
    assert (case.answers, case.settler.next_at()) == ([], 0.0)
