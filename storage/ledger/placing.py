"""Placing tasks: every claim of a whole batch in a few statements, all or nothing for each task.

The statements are guarded and the database decides. When it refuses any row of a batch, the batch is undone to a savepoint
and done again in two halves, so the tasks that fit are placed, in their order, and the one that does not is found and asked
for its reason. A batch without a conflict costs one pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from storage.errors import Conflict
from storage.ledger import rows
from storage.ledger.bulk import Batch, Lookup, insert
from storage.ledger.records import ClaimRequest, NewVolume, Placed, PlaceRequest, Refused
from storage.ledger.refusals import reason_of
from storage.ledger.writer import Writer
from storage.lifecycle import QUIET_AFTER_LEASES, ClaimState
from storage.model import Access, AccessMode, Claim, Holder

KNOWN: Final = Lookup("SELECT volume_id, number, platform, access_mode FROM volumes WHERE volume_id {among} ORDER BY volume_id {lock}")
TAKE_ROOM: Final = Batch(
    "UPDATE pools SET provisioned_mib = pools.provisioned_mib + :size_mib {from} WHERE pools.platform = :platform AND pools.name = :pool "
    "AND pools.online AND pools.provisioned_mib + :size_mib <= pools.limit_mib",
    ("platform", "pool", "size_mib"),
)
TAKE_SLOTS: Final = insert(
    "node_slots",
    ("scheduler", "node_id", "platform", "used"),
    tail="ON CONFLICT (scheduler, node_id, platform) DO UPDATE SET used = node_slots.used + excluded.used "
    "WHERE node_slots.slots IS NULL OR node_slots.used + excluded.used <= node_slots.slots",
)
RAISE_EPOCH: Final = Batch(
    "UPDATE volumes SET epoch = volumes.epoch + 1 {from} WHERE volumes.number = :number AND volumes.epoch = :epoch "
    "AND volumes.state = 'AVAILABLE' AND (volumes.birth_uuid IS NOT NULL OR volumes.token = '')",
    ("number", "epoch"),
)
ORPHAN: Final = Batch(
    "INSERT INTO orphans (platform, token, external_id, since, keep_until) SELECT volumes.platform, volumes.token, volumes.external_id, "
    ":since, CASE WHEN volumes.epoch = 0 THEN 0 ELSE :keep_until END FROM volumes{and} WHERE volumes.number = :number",
    ("number", "since", "keep_until"),
)
RENEW: Final = Batch(
    "UPDATE volumes SET epoch = volumes.epoch + 1, token = :claim_id, external_id = NULL, state = 'PLANNED' {from} "
    "WHERE volumes.number = :number AND volumes.epoch = :epoch AND volumes.state IN ('PLANNED', 'AVAILABLE') "
    "AND volumes.birth_uuid IS NULL AND volumes.token <> '' "
    "AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.volume_id = volumes.volume_id)",
    ("number", "epoch", "claim_id"),
)
PLAN: Final = insert(
    "volumes",
    (
        "volume_id",
        "name",
        "platform",
        "pool",
        "size_mib",
        "profile",
        "token",
        "epoch",
        "access_mode",
        "filesystem",
        "owner",
        "role",
        "region",
        "zone",
        "labels",
        "created_at",
        "snapshot",
    ),
    fixed={"state": "'PLANNED'", "reason": "''"},
)
LABEL: Final = Batch(
    "INSERT INTO volume_labels (key, value, number) SELECT :key, :value, volumes.number FROM volumes{and} "
    "WHERE volumes.volume_id = :volume_id",
    ("volume_id", "key", "value"),
)
PLACE: Final = insert(
    "placements",
    ("placement_id", "scheduler", "workload_id", "slot", "node_id", "state", "data", "claims", "created_at", "updated_at"),
)
CLAIM: Final = insert(
    "claims",
    (
        "volume_id",
        "seat",
        "claim_id",
        "platform",
        "mode",
        "scheduler",
        "placement_id",
        "node_id",
        "epoch",
        "access",
        "lease_until",
        "since",
    ),
    fixed={"state": "'RESERVED'", "reason": "''"},
)


class Unfit(Exception):
    """A guard of a batch did not hold; which of its tasks is to blame is not known."""


_SOLE: Final = frozenset({str(AccessMode.SINGLE_NODE_WRITER), str(AccessMode.SINGLE_NODE_READER_ONLY)})
_ONE_WRITER: Final = str(AccessMode.MULTI_NODE_SINGLE_WRITER)


def seat(mode: str, access: Access, epoch: int) -> int:
    """Where a claim sits on its volume: 0 excludes every other claim on 0. The schema's CHECK says the same."""
    if mode in _SOLE:
        return 0
    return 0 if mode == _ONE_WRITER and access is Access.RW else epoch


class Placing(Writer):
    """The part of a transaction that places tasks."""

    def place(self, requests: Sequence[PlaceRequest]) -> list[Placed | Refused]:
        """Places each task with all its claims, or refuses it alone with the reason; the answers are in the requests' order.

        A refusal is an answer, not an error: the transaction goes on.
        """
        if not requests:
            return []
        with suppress(Unfit, Conflict), self.session.savepoint():
            placed = self._place_all(requests)
            self._log(requests)
            return placed
        return self._place_halves(requests)

    def _place_halves(self, requests: Sequence[PlaceRequest]) -> list[Placed | Refused]:
        if len(requests) == 1:
            return [Refused(placement_id=requests[0].placement.placement_id, error=reason_of(self.session, requests[0]))]
        half = len(requests) // 2
        return self.place(requests[:half]) + self.place(requests[half:])

    def _place_all(self, requests: Sequence[PlaceRequest]) -> list[Placed | Refused]:
        if any(_doubled(request) for request in requests):
            raise Unfit
        held = [claim for request in requests for claim in request.claims if claim.new is None]
        made = [(claim.new, claim.claim_id, 1) for request in requests for claim in request.claims if claim.new is not None]
        known = self._known(held)
        self.take_room([new for new, _, _ in made])
        self._take_slots(requests, known)
        quiet_at = self.now + QUIET_AFTER_LEASES * max((request.lease_s for request in requests), default=0.0)
        self._raise_epochs(held, known, quiet_at)
        self.plan_all(made)
        self.session.run(PLACE, [_placement_row(request) for request in requests])
        claims: list[tuple[Any, ...]] = []
        placed: list[Placed | Refused] = [self._placed(request, known, claims) for request in requests]
        claims.sort()
        self.session.run(CLAIM, claims)
        return placed

    def _known(self, claims: Iterable[ClaimRequest]) -> dict[str, tuple[int, str, str]]:
        """Number, platform and access mode of the volumes that exist, which are locked from here on."""
        wanted = {claim.volume_id for claim in claims}
        found = self.session.find(KNOWN, sorted(wanted))
        if len(found) != len(wanted):
            raise Unfit
        return {row[0]: (row[1], row[2], row[3]) for row in found}

    def take_room(self, volumes: Iterable[NewVolume]) -> None:
        """Takes the volumes' capacity from their pools. Raises Unfit."""
        sizes: Counter[tuple[str, str]] = Counter()
        for new in volumes:
            sizes[new.platform, new.pool] += new.size_mib
        taken = sorted((platform, pool, size_mib) for (platform, pool), size_mib in sizes.items())
        if self.session.run(TAKE_ROOM, taken) != len(taken):
            raise Unfit

    def _take_slots(self, requests: Iterable[PlaceRequest], known: dict[str, tuple[int, str, str]]) -> None:
        needed = Counter(
            (request.placement.scheduler, request.placement.node, claim.new.platform if claim.new else known[claim.volume_id][1])
            for request in requests
            for claim in request.claims
        )
        taken = sorted((*key, used) for key, used in needed.items())
        if self.session.run(TAKE_SLOTS, taken) != len(taken):
            raise Unfit

    def _raise_epochs(self, claims: Iterable[ClaimRequest], known: dict[str, tuple[int, str, str]], quiet_at: float) -> None:
        """From `quiet_at` on nobody makes anything for the claims that were before."""
        held, unborn = [], []
        for claim in claims:
            number = known[claim.volume_id][0]
            if claim.renew:
                unborn.append((number, claim.epoch, claim.claim_id))
            else:
                held.append((number, claim.epoch))
        if unborn:
            self.session.run(ORPHAN, [(number, self.now, quiet_at) for number, _, _ in unborn])
        if self.session.run(RAISE_EPOCH, sorted(held)) != len(held) or self.session.run(RENEW, sorted(unborn)) != len(unborn):
            raise Unfit

    def plan_all(self, volumes: Iterable[tuple[NewVolume, str, int]]) -> None:
        """Inserts planned volumes, each with its token and epoch. Their capacity is the caller's to take first."""
        planned: list[tuple[Any, ...]] = []
        labels: list[tuple[str, str, str]] = []
        for new, token, epoch in volumes:
            planned.append(self._volume_row(new, token, epoch))
            labels.extend((new.volume_id, key, value) for key, value in new.labels.items())
        self.session.run(PLAN, planned)
        self.session.run(LABEL, labels)

    def _volume_row(self, new: NewVolume, token: str, epoch: int) -> tuple[Any, ...]:
        return (
            new.volume_id,
            new.name,
            new.platform,
            new.pool,
            new.size_mib,
            new.profile,
            token,
            epoch,
            new.access_mode._value_,
            new.filesystem,
            new.owner,
            new.role,
            new.region,
            new.zone,
            rows.packed(new.labels),
            self.now,
            new.snapshot,
        )

    def _placed(self, request: PlaceRequest, known: dict[str, tuple[int, str, str]], into: list[tuple[Any, ...]]) -> Placed:
        placement, lease_until = request.placement, self.now + request.lease_s
        scheduler, node, placement_id = placement.scheduler, placement.node, placement.placement_id
        holder = Holder(scheduler=scheduler, placement=placement_id, node=node)
        claims = []
        for asked in request.claims:
            new, volume_id, access, claim_id = asked.new, asked.volume_id, asked.access, asked.claim_id
            _, platform, mode = known[volume_id] if new is None else (0, new.platform, new.access_mode._value_)
            epoch = 1 if new else asked.epoch + 1
            into.append(
                (
                    volume_id,
                    seat(mode, access, epoch),
                    claim_id,
                    platform,
                    mode,
                    scheduler,
                    placement_id,
                    node,
                    epoch,
                    access._value_,
                    lease_until,
                    self.now,
                )
            )
            claims.append(
                Claim(
                    claim_id=claim_id,
                    volume_id=volume_id,
                    holder=holder,
                    epoch=epoch,
                    access=access,
                    state=ClaimState.RESERVED,
                    lease_until=lease_until,
                    since=self.now,
                )
            )
        return Placed(placement_id=placement_id, claims=tuple(claims))

    def _log(self, requests: Iterable[PlaceRequest]) -> None:
        self._lines.extend(
            (self.now, self.actor, "claim.reserved", claim.volume_id, claim.claim_id, request.placement.placement_id, _story(claim))
            for request in requests
            for claim in request.claims
        )


def _doubled(request: PlaceRequest) -> bool:
    """Whether a task asks twice for one volume: of two claims on it neither could be the newest epoch's."""
    claims = request.claims
    return len(claims) > 1 and len({claim.volume_id for claim in claims}) < len(claims)


def _placement_row(request: PlaceRequest) -> tuple[Any, ...]:
    placement = request.placement
    return (
        placement.placement_id,
        placement.scheduler,
        placement.workload,
        placement.slot,
        placement.node,
        placement.state,
        placement.data,
        len(request.claims),
        placement.created_at,
        placement.updated_at,
    )


def _story(claim: ClaimRequest) -> str:
    if claim.new:
        return f"a new volume, {claim.new.size_mib} MiB of pool {claim.new.pool} on {claim.new.platform}"
    return "the volume was never born and starts over" if claim.renew else ""
