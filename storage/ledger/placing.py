"""Placing tasks: every claim of a whole batch in a few statements, all or nothing for each task.

The statements are guarded and the database decides. When it refuses any row of a batch, the batch is undone to a savepoint
and done again in two halves, so the tasks that fit are placed, in their order, and the one that does not is found and asked
for its reason. A batch without a conflict costs one pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from storage import schema
from storage.errors import Conflict, Invalid, LostRace
from storage.ledger import rows
from storage.ledger.bulk import Batch, Lookup, insert
from storage.ledger.leaving import leaving_before
from storage.ledger.machines import free_beside_others, places_of
from storage.ledger.records import ClaimRequest, NewVolume, Placed, PlaceRequest, Refused
from storage.ledger.refusals import reason_of
from storage.ledger.rooms import POOLS, rooms_of
from storage.ledger.writer import EVENTS, Writer
from storage.lifecycle import QUIET_AFTER_LEASES, ClaimState
from storage.model import Claim, Holder

HELD: Final = Lookup("SELECT count(*) FROM (SELECT 1 FROM volumes WHERE volume_id {among} ORDER BY volume_id {lock}) AS held")
SLOTS: Final = Lookup("SELECT used FROM node_slots WHERE scheduler || ' ' || node_id {among} ORDER BY scheduler, node_id, platform {lock}")
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
    "UPDATE volumes SET epoch = volumes.epoch + 1 {from} WHERE volumes.volume_id = :volume_id AND volumes.epoch = :epoch "
    "AND volumes.state = 'AVAILABLE' AND (volumes.birth_uuid IS NOT NULL OR volumes.token = '')",
    ("volume_id", "epoch"),
)
ORPHAN: Final = Batch(
    "INSERT INTO orphans (platform, token, external_id, since, keep_until) SELECT volumes.platform, volumes.token, volumes.external_id, "
    ":since, CASE WHEN volumes.epoch = 0 THEN 0 ELSE :keep_until END FROM {with}volumes WHERE volumes.volume_id = :volume_id",
    ("volume_id", "since", "keep_until"),
)
RENEW: Final = Batch(
    "UPDATE volumes SET epoch = volumes.epoch + 1, token = :claim_id, external_id = NULL, state = 'PLANNED' {from} "
    "WHERE volumes.volume_id = :volume_id AND volumes.epoch = :epoch AND volumes.state IN ('PLANNED', 'AVAILABLE') "
    "AND volumes.birth_uuid IS NULL AND volumes.token <> '' "
    "AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.volume_id = volumes.volume_id)",
    ("volume_id", "epoch", "claim_id"),
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
    "INSERT INTO volume_labels (key, value, number) SELECT :key, :value, volumes.number FROM {with}volumes "
    "WHERE volumes.volume_id = :volume_id",
    ("volume_id", "key", "value"),
)
PLACE: Final = insert(
    "placements",
    ("placement_id", "scheduler", "workload_id", "slot", "node_id", "state", "data", "claims", "created_at", "updated_at"),
    long="data",
)
_SEAT: Final = schema.SEAT.replace("mode", "volumes.access_mode").replace("access =", ":access =").replace("ELSE epoch", "ELSE :epoch")
CLAIM: Final = Batch(
    "INSERT INTO claims (volume_id, seat, claim_id, platform, mode, scheduler, placement_id, node_id, epoch, access, state, lease_until, "
    "reason, since) SELECT volumes.volume_id, {seat}, :claim_id, volumes.platform, volumes.access_mode, :scheduler, :placement_id, "
    ":node_id, :epoch, :access, 'RESERVED', :lease_until, '', :since FROM {with}volumes "
    "WHERE volumes.volume_id = :volume_id AND volumes.platform || '' = :platform".replace("{seat}", _SEAT),
    ("volume_id", "claim_id", "platform", "scheduler", "placement_id", "node_id", "epoch", "access", "lease_until", "since"),
)
"""The platform is joined to nothing so that no index is used for it: PostgreSQL would read all volumes of the platform, rather than the
few of the batch, while it does not know yet how many those are."""


TRIES: Final = 3
"""So often a round's locks are taken in order before it is left for the next offers: each deadlock costs the server a second."""


class Unfit(Exception):
    """A guard of a batch did not hold; which of its tasks is to blame is not known."""


def as_placed(request: PlaceRequest, now: float) -> Placed:
    """What becomes of a request that is not refused in a transaction of this instant."""
    placement = request.placement
    holder = Holder(scheduler=placement.scheduler, placement=placement.placement_id, node=placement.node)
    lease_until = now + request.lease_s
    claims = [
        Claim(
            claim_id=asked.claim_id,
            volume_id=asked.volume_id,
            holder=holder,
            epoch=1 if asked.new else asked.epoch + 1,
            access=asked.access,
            state=ClaimState.RESERVED,
            lease_until=lease_until,
            since=now,
        )
        for asked in request.claims
    ]
    return Placed(placement_id=placement.placement_id, claims=tuple(claims))


class Placing(Writer):
    """The part of a transaction that places tasks."""

    def place(self, requests: Sequence[PlaceRequest]) -> list[Placed | Refused]:
        """Places each task with all its claims, or refuses it alone with the reason; the answers are in the requests' order.

        A refusal is an answer, not an error: the transaction goes on.
        """
        placed: list[Placed | Refused] | None = self.place_parts([requests] if requests else [])
        return [as_placed(request, self.now) for request in requests] if placed is None else placed

    def place_parts(self, parts: Iterable[Sequence[PlaceRequest]]) -> list[Placed | Refused] | None:
        """Like `place` of all parts together, whose statements run as the parts come. None where nothing was refused.

        Parts lock volumes as they come, so two brokers may wait for each other. Who gives way does all again in order.
        """
        self.flush()  # so that an undone part takes no line of before with it
        parts, begun = iter(parts), list[PlaceRequest]()
        refused = self._try(parts, begun)
        if refused is None:
            return None
        for part in parts:
            begun += part
        self._lock_in_order(begun)
        if isinstance(refused, LostRace):
            refused = self._try([begun], [])
        return None if refused is None else self._in_halves(begun, refused)

    def _try(self, parts: Iterable[Sequence[PlaceRequest]], begun: list[PlaceRequest]) -> Exception | None:
        """Places them all, or none: then it returns why. `begun` is filled with those of the parts that came."""
        made: list[NewVolume] = []
        try:
            with self.session.savepoint():
                with self.session.ahead():
                    for part in parts:
                        begun += part
                        made += self._place_all(part)
                    platforms = {claim.platform for request in begun for claim in request.claims}
                    self._take_room(made, platforms)
                if not self.session.is_as_expected or self._is_in_the_way(platforms, begun):
                    raise Unfit
        except (Unfit, Conflict, Invalid, LostRace) as error:
            return error
        return None

    def _lock_in_order(self, requests: Sequence[PlaceRequest]) -> None:
        """All that others may want too, in the one order. Raises LostRace where others, who do not keep to it yet, win again and again."""
        claims = [claim for request in requests for claim in request.claims]
        volumes = sorted({claim.volume_id for claim in claims if claim.new is None})
        nodes = sorted({f"{request.placement.scheduler} {request.placement.node}" for request in requests})
        platforms = sorted({claim.platform for claim in claims})
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                with self.session.savepoint():
                    self.session.lock(HELD, volumes)
                    self.session.lock(SLOTS, nodes)
                    self.session.lock(POOLS, platforms)
                return
            except LostRace as lost:
                if not tries_left:
                    self._fail(lost)

    def _in_halves(self, requests: Sequence[PlaceRequest], refused: Exception) -> list[Placed | Refused]:
        """What becomes of each, of which some must be refused."""
        if len(requests) == 1:
            error = refused if isinstance(refused, Invalid) else reason_of(self.session, requests[0])
            return [Refused(placement_id=requests[0].placement.placement_id, error=error)]
        half, outcomes = len(requests) // 2, list[Placed | Refused]()
        for some in (requests[:half], requests[half:]):
            again = self._try([some], [])
            if isinstance(again, LostRace):
                self._fail(again)
            outcomes += [as_placed(request, self.now) for request in some] if again is None else self._in_halves(some, again)
        return outcomes

    def _place_all(self, requests: Sequence[PlaceRequest]) -> list[NewVolume]:
        """Returns the volumes that are to be made; their room is still to be taken."""
        if any(_doubled(request) for request in requests):
            raise Unfit
        held = [claim for request in requests for claim in request.claims if claim.new is None]
        made = [(claim.new, claim.claim_id, 1) for request in requests for claim in request.claims if claim.new is not None]
        volumes = sorted({claim.volume_id for claim in held})
        if len(volumes) < len(held) and not _in_order(held):
            raise Unfit
        self.session.lock(HELD, volumes)
        self._take_slots(requests)
        quiet_at = self.now + QUIET_AFTER_LEASES * max((request.lease_s for request in requests), default=0.0)
        self._raise_epochs(held, quiet_at)
        self.plan_all(made)
        self.session.expect(PLACE, [_placement_row(request) for request in requests])
        self.session.expect(CLAIM, sorted([row for request in requests for row in self._claim_rows(request)]))
        self._log(requests)
        return [new for new, _, _ in made]

    def _take_room(self, volumes: Iterable[NewVolume], platforms: Collection[str]) -> None:
        """Takes the volumes' capacity from their pools, as the last act, for which see Writer.close. All pools of these platforms are
        locked, for what else is shared on them too. Raises Unfit.
        """
        sizes: Counter[tuple[str, str]] = Counter()
        for new in volumes:
            sizes[new.platform, new.pool] += new.size_mib
        if not self._fits_rooms(sizes, platforms):
            raise Unfit
        self.session.expect(TAKE_ROOM, _taken(sizes))

    def _is_in_the_way(self, platforms: Collection[str], requests: Sequence[PlaceRequest]) -> bool:
        """Whether other brokers' claims, or what is just being detached, leaves no place for what was placed; asked under all locks."""
        if not platforms:
            return False
        is_crowded = any(free < 0 for free in free_beside_others(self.session, platforms, requests).values())
        return is_crowded or bool(leaving_before(self.session, platforms, requests))

    def take(self, sizes: Mapping[tuple[str, str], int]) -> bool:
        """Takes so many MiB from each pool, by platform and name. Where there is too little, all of it is to be undone."""
        return self._fits_rooms(sizes) and self.session.run(TAKE_ROOM, _taken(sizes)) == len(sizes)

    def _fits_rooms(self, sizes: Mapping[tuple[str, str], int], platforms: Collection[str] = ()) -> bool:
        """Locks the pools of these platforms too."""
        if not sizes and not platforms:
            return True
        return all(size_mib <= free_mib for free_mib, size_mib in rooms_of(self.session, sizes, platforms).values())

    def _take_slots(self, requests: Iterable[PlaceRequest]) -> None:
        self.session.expect(TAKE_SLOTS, sorted((*place, used) for place, used in Counter(places_of(requests)).items()))

    def _raise_epochs(self, claims: Iterable[ClaimRequest], quiet_at: float) -> None:
        """From `quiet_at` on nobody makes anything for the claims that were before."""
        held, unborn = [], []
        for claim in claims:
            if claim.renew:
                unborn.append((claim.volume_id, claim.epoch, claim.claim_id))
            else:
                held.append((claim.volume_id, claim.epoch))
        self.session.expect(ORPHAN, [(volume_id, self.now, quiet_at) for volume_id, _, _ in unborn])
        self.session.expect(RAISE_EPOCH, sorted(held))
        self.session.expect(RENEW, sorted(unborn))

    def plan_all(self, volumes: Iterable[tuple[NewVolume, str, int]]) -> None:
        """Inserts planned volumes, each with its token and epoch. Their capacity is the caller's to take."""
        planned: list[tuple[Any, ...]] = []
        labels: list[tuple[str, str, str]] = []
        for new, token, epoch in volumes:
            planned.append(self._volume_row(new, token, epoch))
            labels.extend((new.volume_id, key, value) for key, value in new.labels.items())
        self.session.expect(PLAN, planned)
        self.session.expect(LABEL, labels)

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

    def _claim_rows(self, request: PlaceRequest) -> list[tuple[Any, ...]]:
        placement, lease_until, now = request.placement, self.now + request.lease_s, self.now
        scheduler, node, placement_id = placement.scheduler, placement.node, placement.placement_id
        return [
            (
                asked.volume_id,
                asked.claim_id,
                asked.platform,
                scheduler,
                placement_id,
                node,
                1 if asked.new else asked.epoch + 1,
                asked.access._value_,
                lease_until,
                now,
            )
            for asked in request.claims
        ]

    def _log(self, requests: Iterable[PlaceRequest]) -> None:
        lines = [
            (self.now, self.actor, "claim.reserved", claim.volume_id, claim.claim_id, request.placement.placement_id, _story(claim))
            for request in requests
            for claim in request.claims
        ]
        self.session.expect(EVENTS, lines)


def _taken(sizes: Mapping[tuple[str, str], int]) -> list[tuple[str, str, int]]:
    return sorted((platform, pool, size_mib) for (platform, pool), size_mib in sizes.items())


def _in_order(claims: Iterable[ClaimRequest]) -> bool:
    """Whether of several claims on one volume the later names the higher epoch. Otherwise the first is refused, as it is alone."""
    known: dict[str, int] = {}
    for claim in claims:
        if known.get(claim.volume_id, claim.epoch) > claim.epoch:
            return False
        known[claim.volume_id] = claim.epoch
    return True


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
        return f"a new volume, {claim.new.sizes} of pool {claim.new.pool} on {claim.new.platform}"
    return "the volume was never born and starts over" if claim.renew else ""
