"""Claims from birth to end: who may hold what beside whom, and what is kept of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from storage.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    NoSlot,
    PollyError,
    PoolFull,
    UnknownClaim,
    UnknownPool,
    UnknownVolume,
    VolumeInUse,
)
from storage.filters import ClaimFilter
from storage.inventory import Advance, Ledger, Placed, PlaceRequest, Refused, Release
from storage.lifecycle import ClaimState, ProofKind, VolumeState
from storage.model import Access, AccessMode, ClaimId, ExternalId, NodeId, PlacementId, Proof, VolumeId
from tests.ledgers import BIRTH, PROOF, Clock, bear, end, fresh, furnish, make, new, old, place, placed, refusal, task

RW, RO = Access.RW, Access.RO


def test_a_new_volume_is_planned_and_claimed_in_one(ledger: Ledger, clock: Clock) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a", labels={"tier": "gold"}))))
    assert (claim.epoch, claim.state, claim.access, claim.lease_until) == (1, ClaimState.RESERVED, RW, clock.now + 60)
    volume = ledger.volume("a")
    assert (volume.state, volume.token, volume.epoch, volume.external_id) == (VolumeState.PLANNED, "c1", 1, None)
    assert volume.labels == {"tier": "gold"}
    assert ledger.pools()[0].provisioned_mib == 100
    assert ledger.claims().items == [claim]
    assert ledger.nodes()[0].used == {"local": 1}


def test_a_claim_walks_to_its_end_and_leaves_its_story(ledger: Ledger, clock: Clock) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    bear(ledger, claim, size_mib=128)
    clock.now += 5
    with ledger.begin("mesos") as tx:
        moved = tx.advance(claim.claim_id, 1, ClaimState.MOUNTED)
    assert (moved.state, moved.since, moved.lease_until) == (ClaimState.MOUNTED, clock.now, claim.lease_until)
    end(ledger, [claim])
    volume = ledger.volume("a")
    assert (volume.state, volume.birth, volume.size_mib, volume.epoch) == (VolumeState.AVAILABLE, BIRTH, 128, 1)
    assert ledger.pools()[0].provisioned_mib == 128
    assert ledger.claims().items == []
    assert ledger.nodes()[0].used == {}
    story = [(event.actor, event.what) for event in ledger.events(claim_id=claim.claim_id).items]
    assert story == [("broker", "claim.reserved"), ("mesos", "claim.mounted"), ("mesos", "claim.freed")]
    last = ledger.events(volume_id=claim.volume_id, newest_first=True, limit=1).items[0]
    assert last.why == "RELEASED: unmounted and detached"
    assert last.at == clock.now


def test_the_epoch_goes_up_by_one_with_each_claim(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    for epoch in (1, 2, 3):
        (claim,) = placed(ledger, task(f"t{epoch}", old(f"c{epoch}", "a", epoch)))
        assert claim.epoch == epoch + 1
        end(ledger, [claim])
    assert ledger.volume("a").epoch == 4


@pytest.mark.parametrize(
    ("mode", "held", "asked", "fits"),
    [
        (AccessMode.SINGLE_NODE_WRITER, RW, RW, False),
        (AccessMode.SINGLE_NODE_WRITER, RW, RO, False),
        (AccessMode.SINGLE_NODE_READER_ONLY, RO, RO, False),
        (AccessMode.MULTI_NODE_READER_ONLY, RO, RO, True),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, RW, RO, True),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, RO, RW, True),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, RW, RW, False),
        (AccessMode.MULTI_NODE_MULTI_WRITER, RW, RW, True),
        (AccessMode.MULTI_NODE_MULTI_WRITER, RW, RO, True),
    ],
)
def test_the_access_mode_says_which_claims_coexist(ledger: Ledger, mode: AccessMode, held: Access, asked: Access, fits: bool) -> None:
    furnish(ledger)
    make(ledger, "a")
    with ledger.begin("test") as tx:
        other = replace(ledger.volume("a"), volume_id=VolumeId("v-b"), name="b", external_id=ExternalId("x"), token="")
        tx.adopt(replace(other, access_mode=mode, epoch=0))
    placed(ledger, task("t1", old("c1", "b", 0, held)))
    second = task("t2", old("c2", "b", 1, asked), node="node2")
    if fits:
        assert placed(ledger, second)[0].epoch == 2
        assert [claim.epoch for claim in ledger.claims_on([VolumeId("v-b")])[VolumeId("v-b")]] == [1, 2]
    else:
        error = refusal(ledger, second)
        assert isinstance(error, VolumeInUse)
        assert "t1 on node node1 (RESERVED)" in str(error)
        assert ledger.volume("b").epoch == 1


@pytest.mark.parametrize("mode", [AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY])
def test_nobody_writes_to_a_volume_for_readers(ledger: Ledger, mode: AccessMode) -> None:
    furnish(ledger)
    assert isinstance(refusal(ledger, task("t1", fresh("c1", new("a", mode=mode), RW))), Invalid)


def test_a_task_gets_all_its_volumes_or_none(ledger: Ledger) -> None:
    furnish(ledger, capacity_mib=250)
    make(ledger, "a")
    error = refusal(ledger, task("t1", old("c1", "a", 1), fresh("c2", new("b")), fresh("c3", new("c"))))
    assert isinstance(error, PoolFull)
    assert error.fields == {"platform": "local", "pool": "p", "free_mib": 150, "size_mib": 200}
    assert ledger.volume("a").epoch == 1
    assert ledger.claims().items == []
    assert ledger.placements() == []
    assert len(placed(ledger, task("t1", old("c1", "a", 1), fresh("c2", new("b"))))) == 2


def test_of_a_batch_only_the_task_that_does_not_fit_is_refused(ledger: Ledger) -> None:
    furnish(ledger, capacity_mib=300)
    wanted = [task(f"t{n}", fresh(f"c{n}", new(f"a{n}"))) for n in range(3)]
    wanted.insert(1, task("unknown", old("c8", "nothing", 0)))
    wanted.append(task("late", fresh("c9", new("a9"))))
    outcomes = place(ledger, *wanted)
    assert [outcome.placement_id for outcome in outcomes] == ["t0", "unknown", "t1", "t2", "late"]
    assert [type(outcome) for outcome in outcomes] == [Placed, Refused, Placed, Placed, Refused]
    errors = [type(outcome.error) for outcome in outcomes if isinstance(outcome, Refused)]
    assert errors == [UnknownVolume, PoolFull]
    assert {claim.claim_id for claim in ledger.claims().items} == {"c0", "c1", "c2"}
    assert ledger.events(claim_id=ClaimId("c9")).items == []


def test_earlier_tasks_of_a_batch_come_first(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    first, second = place(ledger, task("t1", old("c1", "a", 1)), task("t2", old("c2", "a", 1)))
    assert isinstance(first, Placed)
    assert isinstance(second, Refused)
    assert isinstance(second.error, VolumeInUse)


def test_a_later_task_of_a_batch_makes_no_earlier_ones_epoch_true(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a", mode=AccessMode.MULTI_NODE_MULTI_WRITER)
    first, second = place(ledger, task("t1", old("c1", "a", 2)), task("t2", old("c2", "a", 1)))
    assert isinstance(first, Refused)
    assert isinstance(first.error, Conflict)
    assert isinstance(second, Placed)


def test_a_node_has_no_more_claims_than_slots(ledger: Ledger) -> None:
    furnish(ledger, slots=2)
    outcomes = place(ledger, *(task(f"t{n}", fresh(f"c{n}", new(f"a{n}"))) for n in range(3)))
    assert isinstance(outcomes[2], Refused)
    assert isinstance(outcomes[2].error, NoSlot)
    assert str(outcomes[2].error) == "Node node1 has all 2 attach slots of platform local in use."
    placed(ledger, task("t3", fresh("c3", new("a3")), node="node2"))
    assert isinstance(outcomes[0], Placed)
    end(ledger, outcomes[0].claims)
    placed(ledger, task("t4", fresh("c4", new("a4"))))
    assert [node.used for node in ledger.nodes()] == [{"local": 2}, {"local": 1}]


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        (task("t", old("c", "a", 7)), Conflict, "epoch 1"),
        (task("t", old("c", "a", 1, renew=True)), Conflict, "one with data"),
        (task("t", old("c", "faulty", 1)), Conflict, "FAULTED: it smells"),
        (task("t", fresh("c", new("a"))), AlreadyExists, "volume a"),
        (task("t", fresh("c", new("b", pool="q"))), UnknownPool, "q"),
        (task("t", old("c", "a", 1), old("d", "a", 2)), Invalid, "one claim on a volume"),
        (task("t", old("c", "imported", 1), fresh("d", new("b", size_mib=601))), PoolFull, "601 MiB"),
        (task("t", old("c", "shared", 2, RO), fresh("d", new("b", size_mib=601))), PoolFull, "601 MiB"),
        (task("t", old("c", "a", 1, platform="elsewhere"), fresh("d", new("b", size_mib=600))), Conflict, "moved meanwhile"),
        (task("maker of a"), None, ""),
    ],
)
def test_refusals_have_names(ledger: Ledger, wanted: PlaceRequest, error: type[PollyError] | None, words: str) -> None:
    """The pool has room for 600 MiB; on `shared` there is a writer."""
    furnish(ledger)
    make(ledger, "a")
    make(ledger, "faulty")
    make(ledger, "shared", mode=AccessMode.MULTI_NODE_SINGLE_WRITER)
    with ledger.begin("test") as tx:
        tx.fault(VolumeId("v-faulty"), "it smells")
        tx.adopt(
            replace(
                ledger.volume("a"), volume_id=VolumeId("v-imported"), name="imported", external_id=ExternalId("x"), token="", birth=None
            )
        )
    placed(ledger, task("writer", old("w", "shared", 1), node="node2"))
    (outcome,) = place(ledger, wanted)
    assert (type(outcome.error) if isinstance(outcome, Refused) else None) is error
    assert isinstance(outcome, Placed) or words in str(outcome.error)


def test_a_placement_is_placed_once(ledger: Ledger) -> None:
    furnish(ledger)
    placed(ledger, task("t1", fresh("c1", new("a"))))
    assert isinstance(refusal(ledger, task("t1", fresh("c2", new("b")))), AlreadyExists)


def test_an_unborn_volume_starts_over_under_the_next_claim(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    with ledger.begin("mesos") as tx:
        tx.created(claim.volume_id, token="c1", external_id=ExternalId("half-made"), size_mib=100)
    assert isinstance(refusal(ledger, task("t2", old("c2", "a", 1, renew=True))), VolumeInUse)
    end(ledger, [claim])
    assert isinstance(refusal(ledger, task("t2", old("c2", "a", 1))), Conflict)
    (second,) = placed(ledger, task("t2", old("c2", "a", 1, renew=True)))
    volume = ledger.volume("a")
    assert (volume.state, volume.token, volume.external_id, volume.epoch) == (VolumeState.PLANNED, "c2", None, 2)
    assert [(orphan.token, orphan.external_id) for orphan in ledger.orphans()] == [("c1", "half-made")]
    bear(ledger, second)
    with pytest.raises(Conflict), ledger.begin("mesos") as tx:
        tx.created(claim.volume_id, token="c1", external_id=ExternalId("half-made"), size_mib=100)
    with ledger.begin("janitor") as tx:
        tx.drop_orphan("local", "c1")
        tx.drop_orphan("local", "c1")
    assert ledger.orphans() == []


def test_a_shared_volume_that_is_unborn_has_one_claim(ledger: Ledger) -> None:
    furnish(ledger)
    shared = new("a", mode=AccessMode.MULTI_NODE_MULTI_WRITER)
    placed(ledger, task("t1", fresh("c1", shared)))
    assert isinstance(refusal(ledger, task("t2", old("c2", "a", 1))), Conflict)
    assert isinstance(refusal(ledger, task("t2", old("c2", "a", 1, renew=True))), VolumeInUse)


def test_moves_follow_the_table(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    with ledger.begin("mesos") as tx:
        tx.advance(claim.claim_id, 1, ClaimState.RELEASING, reason="TASK_FINISHED")
    with pytest.raises(Conflict, match="found RELEASING"), ledger.begin("mesos") as tx:
        tx.advance(claim.claim_id, 1, ClaimState.MOUNTED)
    with pytest.raises(Conflict, match="epoch 1"), ledger.begin("mesos") as tx:
        tx.advance(claim.claim_id, 2, ClaimState.STRANDED)
    with pytest.raises(UnknownClaim), ledger.begin("mesos") as tx:
        tx.advance(ClaimId("nobody"), 1, ClaimState.STRANDED)
    assert ledger.claims(ClaimFilter(state=ClaimState.RELEASING)).items[0].reason == "TASK_FINISHED"


def test_the_state_that_a_claim_has_is_no_move(ledger: Ledger, clock: Clock) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    clock.now += 1
    with ledger.begin("mesos") as tx:
        assert tx.advance(claim.claim_id, 1, ClaimState.RESERVED) == claim
        noted = tx.advance(claim.claim_id, 1, ClaimState.RESERVED, reason="still nothing heard")
        for reason in ("", noted.reason):
            assert tx.advance(claim.claim_id, 1, ClaimState.RESERVED, reason=reason) == noted
    assert (noted.reason, noted.since) == ("still nothing heard", claim.since)
    assert len(ledger.events(claim_id=claim.claim_id).items) == 2


def test_a_batch_of_moves_is_one_guarded_statement(ledger: Ledger) -> None:
    furnish(ledger)
    claims = [placed(ledger, task(f"t{n}", fresh(f"c{n}", new(f"a{n}"))))[0] for n in range(3)]
    moves = [Advance(claim_id=claim.claim_id, epoch=1, to=ClaimState.ATTACHING) for claim in claims]
    moves.append(Advance(claim_id=claims[0].claim_id, epoch=1, to=ClaimState.MOUNTED))
    with ledger.begin("mesos") as tx:
        answers = tx.advance_many(moves)
    assert [claim.state for claim in answers] == ["ATTACHING", "ATTACHING", "ATTACHING", "MOUNTED"]
    assert [claim.state for claim in ledger.claims().items] == ["MOUNTED", "ATTACHING", "ATTACHING"]
    with pytest.raises(UnknownClaim), ledger.begin("mesos") as tx:
        tx.free_many([Release(claim_id=ClaimId(name), epoch=1, proof=PROOF) for name in ("c0", "c1", "gone")])
    assert len(ledger.claims().items) == 3
    with ledger.begin("mesos") as tx:
        tx.free_many([Release(claim_id=claim.claim_id, epoch=1, proof=PROOF) for claim in claims])
    assert ledger.claims().items == []


def test_a_claim_ends_once_and_with_evidence(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    with pytest.raises(Invalid, match="evidence"), ledger.begin("polly") as tx:
        tx.free(claim.claim_id, 1, Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence=" "))
    with pytest.raises(Conflict, match="without live claims"), ledger.begin("mesos") as tx:
        tx.drop_placement(PlacementId("t1"))
    end(ledger, [claim])
    with pytest.raises(UnknownClaim), ledger.begin("mesos") as tx:
        tx.free(claim.claim_id, 1, PROOF)


def test_a_refusal_that_is_swallowed_still_rolls_back(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))

    def swallow() -> None:
        with ledger.begin("mesos") as tx:
            tx.advance(claim.claim_id, 1, ClaimState.ATTACHING)
            try:
                tx.free(claim.claim_id, 9, PROOF)
            except Conflict:
                tx.put_setting("swallowed", "yes")

    with pytest.raises(Conflict):
        swallow()
    assert ledger.claims().items == [claim]
    assert ledger.setting("swallowed") is None


def test_claims_are_found_by_what_they_are(ledger: Ledger) -> None:
    furnish(ledger)
    for n in range(5):
        placed(ledger, task(f"t{n}", fresh(f"c{n}", new(f"a{n}")), node=f"node{n % 2 + 1}"))
    assert [claim.claim_id for claim in ledger.claims(ClaimFilter(node=NodeId("node2"))).items] == ["c1", "c3"]
    assert [claim.claim_id for claim in ledger.claims(ClaimFilter(placement_id=PlacementId("t4"))).items] == ["c4"]
    assert ledger.claims(ClaimFilter(scheduler="csi")).items == []
    first = ledger.claims(limit=3)
    assert first.after == "c2"
    assert [claim.claim_id for claim in ledger.claims(after=first.after, limit=3).items] == ["c3", "c4"]
    assert ledger.claims(after=first.after, limit=3).after is None


def test_a_claim_that_names_another_platform_than_its_volumes_takes_no_slot_of_it(ledger: Ledger) -> None:
    furnish(ledger, slots=1)
    make(ledger, "a")
    assert refusal(ledger, task("t1", old("c1", "a", 1, platform="elsewhere"))).code == "Conflict"
    assert placed(ledger, task("t2", old("c2", "a", 1)))[0].epoch == 2


def test_no_task_claims_a_shared_volume_twice_though_each_claim_names_the_epoch_before_it(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a", mode=AccessMode.MULTI_NODE_MULTI_WRITER)
    assert "one claim on a volume" in str(refusal(ledger, task("t1", old("c1", "a", 1), old("c2", "a", 2))))


def test_of_a_batch_no_claim_ends_twice(ledger: Ledger) -> None:
    furnish(ledger)
    (claim,) = placed(ledger, task("t1", fresh("c1", new("a"))))
    ends = [Release(claim_id=claim.claim_id, epoch=1, proof=PROOF)] * 2
    with pytest.raises(Conflict, match="each claim once"), ledger.begin("mesos") as tx:
        tx.free_many(ends)
    assert ledger.claims().items == [claim]
