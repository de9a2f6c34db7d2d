"""What becomes of live claims: they move through lifecycle.TRANSITIONS and end with a proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from storage import schema
from storage.errors import Conflict, Invalid, UnknownClaim
from storage.ledger import rows
from storage.ledger.bulk import Batch, lookup
from storage.ledger.writer import Writer
from storage.lifecycle import FREE, ClaimState, may_follow
from storage.model import Claim, ClaimId, Proof

CLAIMS: Final = lookup((*rows.CLAIM, schema.claims.c.platform), "FROM claims WHERE claims.claim_id {among} ORDER BY claims.claim_id {lock}")
MOVE: Final = Batch(
    "UPDATE claims SET state = :state, reason = :reason, since = :since, "
    "leaving = claims.leaving AND :state <> 'ATTACHING' AND :state <> 'MOUNTED' {from} "
    "WHERE claims.claim_id = :claim_id AND claims.epoch = :epoch AND claims.state = :expected",
    ("claim_id", "epoch", "expected", "state", "reason", "since"),
)
GIVE_SLOTS: Final = Batch(
    "UPDATE node_slots SET used = node_slots.used - :freed {from} WHERE node_slots.scheduler = :scheduler "
    "AND node_slots.node_id = :node_id AND node_slots.platform = :platform",
    ("scheduler", "node_id", "platform", "freed"),
)
END: Final = Batch(
    "DELETE FROM claims {using} WHERE claims.claim_id = :claim_id AND claims.epoch = :epoch AND claims.state = :expected",
    ("claim_id", "epoch", "expected"),
)
COUNT_DOWN: Final = Batch(
    "UPDATE placements SET claims = placements.claims - :freed {from} WHERE placements.placement_id = :placement_id",
    ("placement_id", "freed"),
)


class Advance(Struct, frozen=True, kw_only=True):
    """One claim's move."""

    claim_id: ClaimId
    epoch: int
    to: ClaimState
    reason: str = ""


class Release(Struct, frozen=True, kw_only=True):
    """One claim's end."""

    claim_id: ClaimId
    epoch: int
    proof: Proof


class Claiming(Writer):
    """The part of a transaction that moves and ends claims."""

    def advance(self, claim_id: ClaimId, epoch: int, to: ClaimState, *, reason: str = "") -> Claim:
        """Moves one claim; see advance_many."""
        return self.advance_many([Advance(claim_id=claim_id, epoch=epoch, to=to, reason=reason)])[0]

    def advance_many(self, moves: Sequence[Advance]) -> list[Claim]:
        """Moves claims, in this order, and returns each as it is after its move.

        To the state that a claim has already is a no-op, but for a new reason, which is stored. Raises UnknownClaim, and
        Conflict for another epoch or a move that lifecycle.TRANSITIONS does not have.
        """
        before = {key: claim for key, (claim, _) in self._live([(move.claim_id, move.epoch) for move in moves]).items()}
        now = dict(before)
        answers = []
        for move in moves:
            now[move.claim_id] = self._moved(now[move.claim_id], move)
            answers.append(now[move.claim_id])
        changed = sorted(
            (claim.claim_id, claim.epoch, before[key].state._value_, claim.state._value_, claim.reason, claim.since)
            for key, claim in now.items()
            if claim is not before[key]
        )
        self._expect(self.session.run(MOVE, changed), len(changed), what="a claim", expected="in the state that was read")
        return answers

    def _moved(self, claim: Claim, move: Advance) -> Claim:
        if claim.state is move.to:
            if not move.reason or move.reason == claim.reason:
                return claim
            since = claim.since
        elif may_follow(claim.state, move.to):
            since = self.now
        else:
            self._fail(Conflict(what=f"claim {claim.claim_id}", expected=f"a state before {move.to}", found=claim.state))
        self.note(
            f"claim.{move.to.lower()}",
            volume_id=claim.volume_id,
            claim_id=claim.claim_id,
            placement_id=claim.holder.placement,
            why=move.reason,
        )
        return replace(claim, state=move.to, reason=move.reason, since=since)

    def free(self, claim_id: ClaimId, epoch: int, proof: Proof) -> None:
        """Ends one claim; see free_many."""
        self.free_many([Release(claim_id=claim_id, epoch=epoch, proof=proof)])

    def free_many(self, releases: Sequence[Release]) -> None:
        """Ends claims: their rows go, their nodes' slots come back, and each proof is kept in the event log.

        Raises UnknownClaim (it has ended already), Conflict for another epoch, Invalid for a proof without evidence.
        """
        if len({release.claim_id for release in releases}) != len(releases):
            self._fail(Conflict(what="a batch of ending claims", expected="each claim once", found="one twice"))
        live = self._live([(release.claim_id, release.epoch) for release in releases])
        for release in releases:
            self._log_end(live[release.claim_id][0], release.proof)
        self._give_back(live.values())
        ended = sorted((claim.claim_id, claim.epoch, claim.state._value_) for claim, _ in live.values())
        self._expect(self.session.run(END, ended), len(ended), what="a claim", expected="in the state that was read")

    def _log_end(self, claim: Claim, proof: Proof) -> None:
        if not proof.evidence.strip():
            self._fail(Invalid(field="evidence", value=proof.evidence, reason="a claim ends with what was seen, in words"))
        if not may_follow(claim.state, FREE):
            self._fail(Conflict(what=f"claim {claim.claim_id}", expected="a state that may end", found=claim.state))
        self.note(
            "claim.freed",
            volume_id=claim.volume_id,
            claim_id=claim.claim_id,
            placement_id=claim.holder.placement,
            why=f"{proof.kind}: {proof.evidence}",
        )

    def _give_back(self, claims: Iterable[tuple[Claim, str]]) -> None:
        slots: Counter[tuple[str, str, str]] = Counter()
        placements: Counter[str] = Counter()
        for claim, platform in claims:
            slots[claim.holder.scheduler, claim.holder.node, platform] += 1
            placements[claim.holder.placement] += 1
        given = sorted((*key, freed) for key, freed in slots.items())
        self._expect(self.session.run(GIVE_SLOTS, given), len(given), what="a node's slots", expected="counted")
        counted = sorted(placements.items())
        self._expect(self.session.run(COUNT_DOWN, counted), len(counted), what="a placement", expected="stored with its claims")

    def _live(self, wanted: Sequence[tuple[ClaimId, int]]) -> dict[ClaimId, tuple[Claim, str]]:
        """The live claims of these ids and epochs, each with its volume's platform; locked."""
        found = self.session.find(CLAIMS, sorted({claim_id for claim_id, _ in wanted}))
        live = {row[0]: (rows.claim(row), str(row[-1])) for row in found}
        for claim_id, epoch in wanted:
            if claim_id not in live:
                self._fail(UnknownClaim(claim=claim_id))
            if (found_epoch := live[claim_id][0].epoch) != epoch:
                self._fail(Conflict(what=f"claim {claim_id}", expected=f"epoch {epoch}", found=f"epoch {found_epoch}"))
        return live
