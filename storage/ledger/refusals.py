"""Why a task could not be placed: asked of the database for one task, after it has refused it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import select

from storage import schema
from storage.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    NoSlot,
    PollyError,
    PoolFull,
    UnknownPool,
    UnknownVolume,
    VolumeInUse,
)
from storage.ledger import rows
from storage.ledger.engine import Session
from storage.ledger.leaving import leaving_before
from storage.ledger.machines import free_beside_others
from storage.ledger.records import ClaimRequest, NewVolume, PlaceRequest
from storage.ledger.rooms import rooms_of
from storage.ledger.writer import LIVE, VOLUMES
from storage.lifecycle import VolumeState
from storage.model import Access, AccessMode, Claim, Volume, VolumeId

READERS = (AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY)


def reason_of(session: Session, request: PlaceRequest) -> PollyError:
    """The first reason that is found, or a Conflict that says that what stood in the way has moved meanwhile."""
    placement = request.placement
    if session.first(select(schema.placements.c.state).where(schema.placements.c.placement_id == placement.placement_id)):
        return AlreadyExists(kind="placement", name=placement.placement_id)
    for reason in _reasons(session, request):
        return reason
    found = "claims that exclude each other, or rows that moved meanwhile"
    return Conflict(what=f"placement {placement.placement_id}", expected="to be placed whole", found=found)


def _reasons(session: Session, request: PlaceRequest) -> Iterator[PollyError]:
    if len({claim.volume_id for claim in request.claims}) < len(request.claims):
        yield Invalid(field="claims", value=len(request.claims), reason="a task has one claim on a volume")
    new = [claim.new for claim in request.claims if claim.new]
    old = [claim for claim in request.claims if claim.new is None]
    found = map(rows.volume, session.find(VOLUMES, sorted({claim.volume_id for claim in old})))
    volumes = {volume.volume_id: volume for volume in found}
    for claim in old:
        if reason := _unclaimable(session, claim, volumes.get(claim.volume_id)):
            yield reason
    for volume_id, claim_id in leaving_before(session, {claim.platform for claim in old}, [request]):
        yield VolumeInUse(volume=volumes[volume_id].name, holder=f"claim {claim_id}, which has ended and is just being detached from there")
    for claim in request.claims:
        mode = claim.new.access_mode if claim.new else volumes[claim.volume_id].access_mode
        if claim.access is Access.RW and mode in READERS:
            yield Invalid(field="access", value="RW", reason=f"volume {claim.volume_id} is {mode}")
    yield from names_taken(session, new)
    yield from no_room(session, new)
    yield from _no_slot(session, request, volumes)


def _unclaimable(session: Session, claim: ClaimRequest, volume: Volume | None) -> PollyError | None:
    if volume is None:
        return UnknownVolume(volume=claim.volume_id)
    live = [rows.claim(row) for row in session.find(LIVE, [volume.volume_id])]
    if live and (excluded := _excluded(claim, volume, live)):
        return VolumeInUse(volume=volume.name, holder=_holder(excluded))
    if volume.epoch != claim.epoch:
        return Conflict(what=f"volume {volume.name}", expected=f"epoch {claim.epoch}", found=f"epoch {volume.epoch}")
    unborn = volume.birth is None and volume.token != ""
    fit = (VolumeState.AVAILABLE, VolumeState.PLANNED) if claim.renew else (VolumeState.AVAILABLE,)
    if unborn is not claim.renew:
        wanted = "one without data, to start over" if claim.renew else "one that was born"
        return Conflict(what=f"volume {volume.name}", expected=wanted, found="a volume never born" if unborn else "one with data")
    if volume.state not in fit:
        found = f"{volume.state}{': ' + volume.reason if volume.reason else ''}"
        return Conflict(what=f"volume {volume.name}", expected=VolumeState.AVAILABLE, found=found)
    return None


def _excluded(claim: ClaimRequest, volume: Volume, live: Sequence[Claim]) -> Claim | None:
    """The live claim beside which this one can't be."""
    if claim.renew or volume.access_mode in (AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY):
        return live[0]
    if volume.access_mode is AccessMode.MULTI_NODE_SINGLE_WRITER and claim.access is Access.RW:
        return next((other for other in live if other.access is Access.RW), None)
    return None


def _holder(claim: Claim) -> str:
    return f"{claim.holder.placement} on node {claim.holder.node} ({claim.state})"


def names_taken(session: Session, volumes: Iterable[NewVolume]) -> Iterator[PollyError]:
    """An AlreadyExists for each new volume whose name or id another one has."""
    table = schema.volumes.c
    for new in volumes:
        if session.first(select(table.number).where((table.name == new.name) | (table.volume_id == new.volume_id))):
            yield AlreadyExists(kind="volume", name=new.name)


def no_room(session: Session, volumes: Iterable[NewVolume]) -> Iterator[PollyError]:
    """An UnknownPool or PoolFull for each pool that can't take the volumes that are to be in it."""
    sizes: Counter[tuple[str, str]] = Counter()
    for new in volumes:
        sizes[new.platform, new.pool] += new.size_mib
    for (platform, pool), size_mib in sizes.items():
        row = session.first(select(schema.pools).where(schema.pools.c.platform == platform, schema.pools.c.name == pool))
        if row is None:
            yield UnknownPool(platform=platform, pool=pool)
        elif not row.online or row.provisioned_mib + size_mib > row.limit_mib:
            free_mib = max(0, row.limit_mib - row.provisioned_mib) if row.online else 0
            yield PoolFull(platform=platform, pool=pool, free_mib=free_mib, size_mib=size_mib)
    for (platform, room), (free_mib, size_mib) in rooms_of(session, sizes).items():
        if size_mib > free_mib:
            yield PoolFull(platform=platform, pool=room, free_mib=max(0, free_mib), size_mib=size_mib)


def _no_slot(session: Session, request: PlaceRequest, volumes: dict[VolumeId, Volume]) -> Iterator[PollyError]:
    scheduler, node, table = request.placement.scheduler, request.placement.node, schema.node_slots.c
    wanted = Counter(claim.new.platform if claim.new else volumes[claim.volume_id].platform for claim in request.claims)
    beside = free_beside_others(session, wanted.keys(), [request])
    mine = select(schema.node_slots).where(table.scheduler == scheduler, table.node_id == node)
    for row in session.all(mine):
        if row.slots is not None and wanted[row.platform]:
            free = beside.get((scheduler, node, row.platform), row.slots - row.used)
            if wanted[row.platform] > free:
                yield NoSlot(node=node, platform=row.platform, slots=row.slots)
