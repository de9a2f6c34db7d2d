"""What may be read of the ledger. Each read is a transaction of its own and blocks nobody; lists come in parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Select, and_, select, text

from storage import schema
from storage.errors import UnknownSnapshot, UnknownVolume
from storage.filters import ClaimFilter, VolumeFilter
from storage.ledger import rows
from storage.ledger.bulk import lookup
from storage.ledger.engine import Database
from storage.ledger.records import Orphan, Placement, Workload
from storage.ledger.retention import kept_since
from storage.ledger.writer import LIVE
from storage.lifecycle import VolumeState
from storage.model import (
    Claim,
    ClaimId,
    EventPage,
    ExternalId,
    Hearing,
    Node,
    Page,
    PlacementId,
    Pool,
    Profile,
    Snapshot,
    SnapshotId,
    Volume,
    VolumeId,
    WorkloadId,
)
from storage.near import near

NAMED: Final = lookup(rows.VOLUME, "FROM volumes WHERE volumes.name {among}")
PARTIAL: Final = {"owner": "volumes.owner <> ''", "role": "volumes.role <> ''", "state": "volumes.state <> 'AVAILABLE'"}
"""What SQLite must read in a query to use the index that has only such rows."""
ABOUT: Final = 200
"""So many names that begin alike are looked at for the one that was meant."""
LAST: Final = "\U0010ffff"
"""Sorts behind whatever a name goes on with."""
T = TypeVar("T")


def nowhere_yet(platform: str) -> ColumnElement[bool]:
    """Of the platform's volumes those that may be there already without the ledger knowing where: few, and found as fast among many."""
    table = schema.volumes.c
    unmade = table.state.in_((VolumeState.PLANNED.value, VolumeState.FAULTED.value))
    return and_(table.platform == platform, table.external_id.is_(None), unmade, text(PARTIAL["state"]))


class Reads:
    """The reading half of the ledger."""

    _database: Database

    def _all(self, statement: Any) -> Sequence[Any]:
        with self._database.reading() as session:
            return session.all(statement)

    def setting(self, key: str) -> str | None:
        found = self._all(select(schema.settings.c.value).where(schema.settings.c.key == key))
        return found[0].value if found else None

    def pools(self, platform: str | None = None) -> list[Pool]:
        table, hearings = schema.pools, schema.hearings
        heard = table.outerjoin(hearings, hearings.c.platform == table.c.platform)
        statement = select(table, hearings.c.silent_since, hearings.c.error).select_from(heard).order_by(table.c.platform, table.c.name)
        found = self._all(_with(statement, table, platform=platform))
        rooms: Counter[tuple[str, str]] = Counter()
        for row in found:
            if row.room:
                rooms[row.platform, row.room] += row.provisioned_mib
        return [rows.pool(row, rooms[row.platform, row.room]) for row in found]

    def hearings(self) -> list[Hearing]:
        """Of every platform that was ever asked for its pools."""
        table = schema.hearings
        return [rows.hearing(row) for row in self._all(select(table).order_by(table.c.platform))]

    def profiles(self) -> list[Profile]:
        table = schema.profiles
        return [rows.profile(row.body) for row in self._all(select(table.c.body).order_by(table.c.name))]

    def volume(self, volume_id_or_name: str) -> Volume:
        """By its id, or else by its name. Raises UnknownVolume."""
        table = schema.volumes.c
        for column in (table.volume_id, table.name):
            if found := self._all(select(*rows.VOLUME).where(column == volume_id_or_name)):
                return rows.volume(found[0])
        raise UnknownVolume(volume=volume_id_or_name, near=near(volume_id_or_name, self._names_about(volume_id_or_name)))

    def _names_about(self, name: str) -> list[str]:
        """Some names of volumes that begin alike, with or without an app's slash; no more of them than a few pages."""
        column = schema.volumes.c.name
        found: dict[str, None] = {}
        for start in (name[: 2 * len(name) // 3], name[:1], f"/{name[: len(name) // 2]}"):
            between = (column >= start) & (column < start + LAST)
            found |= dict.fromkeys(row.name for row in self._all(select(column).where(between).order_by(column).limit(ABOUT)))
        return list(found)

    def volumes(self, filter: VolumeFilter = VolumeFilter(), *, after: str | None = None, limit: int = 100) -> Page[Volume]:  # noqa: A002, B008
        """Volumes in the order of their creation, `limit` at a time; as fast with a million of them as with a few."""
        found = self._all(_volumes(filter, after, limit))
        return _page(found, limit, rows.volume, lambda row: row.number)

    def volumes_named(self, names: Collection[str]) -> dict[str, Volume]:
        """Those of these names that are there, by name."""
        with self._database.reading() as session:
            return {volume.name: volume for volume in map(rows.volume, session.find(NAMED, sorted(set(names))))}

    def volume_at(self, platform: str, external_id: ExternalId) -> Volume | None:
        """The volume that is this one of the platform's, if the ledger has it."""
        table = schema.volumes.c
        found = self._all(select(*rows.VOLUME).where(table.platform == platform, table.external_id == external_id))
        return rows.volume(found[0]) if found else None

    def claims(self, filter: ClaimFilter = ClaimFilter(), *, after: str | None = None, limit: int = 100) -> Page[Claim]:  # noqa: A002, B008
        """Live claims in the order of their ids, `limit` at a time."""
        table, f = schema.claims, filter
        statement = _with_name(select(*rows.CLAIM, schema.volumes.c.name), table).order_by(table.c.claim_id).limit(limit + 1)
        statement = _with(statement, table, platform=f.platform, state=f.state, scheduler=f.scheduler)
        statement = _with(statement, table, volume_id=f.volume_id, placement_id=f.placement_id, claim_id=f.claim_id)
        if f.node is not None:
            named = select(schema.nodes.c.node_id).where(schema.nodes.c.hostname == f.node)
            statement = statement.where((table.c.node_id == f.node) | table.c.node_id.in_(named))
        if after is not None:
            statement = statement.where(table.c.claim_id > after)
        return _page(self._all(statement), limit, rows.named_claim, lambda row: row.claim_id)

    def claims_on(self, volume_ids: Collection[VolumeId]) -> dict[VolumeId, list[Claim]]:
        """The live claims on each of these volumes that has any, by epoch."""
        found: dict[VolumeId, list[Claim]] = defaultdict(list)
        with self._database.reading() as session:
            for row in session.find(LIVE, sorted(set(volume_ids))):
                claim = rows.claim(row)
                found[claim.volume_id].append(claim)
        return dict(found)

    def workloads(self, scheduler: str | None = None) -> list[Workload]:
        table = schema.workloads
        statement = select(table).order_by(table.c.scheduler, table.c.workload_id)
        return [rows.workload(row) for row in self._all(_with(statement, table, scheduler=scheduler))]

    def placements(self, scheduler: str | None = None, workload: WorkloadId | None = None) -> list[Placement]:
        table = schema.placements
        statement = select(*rows.PLACEMENT).order_by(table.c.workload_id, table.c.slot, table.c.placement_id)
        return [rows.placement(row) for row in self._all(_with(statement, table, scheduler=scheduler, workload_id=workload))]

    def nodes(self, scheduler: str | None = None) -> list[Node]:
        with self._database.reading() as session:
            return nodes_of(session.all, scheduler)

    def snapshots(
        self, volume_id: VolumeId | None = None, *, external_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> Page[Snapshot]:
        """Snapshots in the order of their ids, `limit` at a time."""
        table = schema.snapshots
        statement = _named_snapshots().order_by(table.c.snapshot_id).limit(limit + 1)
        statement = _with(statement, table, volume_id=volume_id, external_id=external_id)
        if after is not None:
            statement = statement.where(table.c.snapshot_id > after)
        return _page(self._all(statement), limit, rows.named_snapshot, lambda row: row.snapshot_id)

    def unfinished_snapshots(self) -> list[Snapshot]:
        """Those that the platform is still to make or to delete, by their ids."""
        table = schema.snapshots
        return [rows.snapshot(row) for row in self._all(select(table).where(table.c.state != "READY").order_by(table.c.snapshot_id))]

    def snapshot(self, snapshot_id: SnapshotId) -> Snapshot:
        """Raises UnknownSnapshot."""
        found = self._all(_named_snapshots().where(schema.snapshots.c.snapshot_id == snapshot_id))
        if not found:
            raise UnknownSnapshot(snapshot=snapshot_id)
        return rows.named_snapshot(found[0])

    def events(
        self,
        *,
        volume_id: VolumeId | None = None,
        placement_id: PlacementId | None = None,
        claim_id: ClaimId | None = None,
        since: float | None = None,
        until: float | None = None,
        after: int | str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> EventPage:
        """Lines of the event log, `limit` at a time, from the oldest or from the newest on; also of what is gone.

        `since` an instant, that one too, and `until` another, without it: every line is looked at for its instant.
        """
        table = schema.events
        order = table.c.seq.desc() if newest_first else table.c.seq
        statement = _with_name(select(*rows.EVENT, schema.volumes.c.name), table).order_by(order).limit(limit + 1)
        statement = _with(statement, table, volume_id=volume_id, placement_id=placement_id, claim_id=claim_id)
        if since is not None:
            statement = statement.where(table.c.at >= since)
        if until is not None:
            statement = statement.where(table.c.at < until)
        if after is not None:
            statement = statement.where(table.c.seq < int(after) if newest_first else table.c.seq > int(after))
        with self._database.reading() as session:
            found, kept = session.all(statement), kept_since(session)
        page = _page(found, limit, rows.event, lambda row: row.seq)
        return EventPage(items=page.items, after=page.after, kept_since=kept)

    def growing(self) -> list[Volume]:
        """Volumes whose size their platforms have not confirmed yet."""
        table = schema.volumes.c  # not joined: SQLite would read all volumes in their order
        among = select(*rows.VOLUME).where(table.volume_id.in_(select(schema.growths.c.volume_id))).order_by(table.number)
        return [rows.volume(row) for row in self._all(among)]

    def is_growing(self, volume_id: VolumeId) -> bool:
        """Whether its size is still to be confirmed."""
        table = schema.growths.c
        return bool(self._all(select(table.volume_id).where(table.volume_id == volume_id)))

    def orphans(self) -> list[Orphan]:
        """What is to be deleted on the platforms, the oldest first."""
        table = schema.orphans
        return [rows.orphan(row) for row in self._all(select(table).order_by(table.c.since, table.c.platform, table.c.token))]


def _named_snapshots() -> Select[Any]:
    return _with_name(select(schema.snapshots, schema.volumes.c.name.label("volume_name")), schema.snapshots)


def _with_name(statement: Select[Any], table: Any) -> Select[Any]:
    """Joins the name of the volume that a row is about, where that volume is still there."""
    volumes = schema.volumes
    return statement.select_from(table.outerjoin(volumes, volumes.c.volume_id == table.c.volume_id))


def _with(statement: Select[Any], table: Any, **values: str | None) -> Select[Any]:
    """Adds `column = value` for each value that is given."""
    for name, value in values.items():
        if value is not None:
            statement = statement.where(table.c[name] == str(value))
    return statement


def _volumes(f: VolumeFilter, after: str | None, limit: int) -> Select[Any]:
    """Ordered by the number in the index that the filter walks: of a label's where there is one, so that nothing is sorted."""
    table = schema.volumes
    number: Any = table.c.number
    statement = select(*rows.VOLUME)
    for key, value in f.labels.items():
        label = schema.volume_labels.alias()
        number = label.c.number
        statement = statement.join(label, (label.c.key == key) & (label.c.value == value) & (number == table.c.number))
    statement = statement.order_by(number).limit(limit + 1)
    statement = _with(statement, table, platform=f.platform, pool=f.pool, profile=f.profile, zone=f.zone, name=f.name)
    statement = _with(statement, table, state=f.state, owner=f.owner, role=f.role, external_id=f.external_id)
    for name in ("owner", "role"):
        if getattr(f, name):
            statement = statement.where(text(PARTIAL[name]))
    if f.state not in (None, VolumeState.AVAILABLE):
        statement = statement.where(text(PARTIAL["state"]))
    if after is not None:
        statement = statement.where(number > int(after), table.c.number > int(after))
    return statement


def _page(found: Sequence[Any], limit: int, read: Callable[[Any], T], key: Callable[[Any], object]) -> Page[T]:
    """One row more than `limit` was asked for, to know whether there is a next part."""
    more = len(found) > limit
    items = [read(row) for row in found[:limit]]
    return Page(items=items, after=str(key(found[limit - 1])) if more else None)


def nodes_of(read: Callable[[Any], Sequence[Any]], scheduler: str | None) -> list[Node]:
    """Nodes with their slots; `read` runs a query in the transaction that both are read in."""
    nodes, slots = schema.nodes, schema.node_slots
    counted: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in read(_with(select(slots).order_by(slots.c.platform), slots, scheduler=scheduler)):
        counted[row.scheduler, row.node_id].append(row)
    found = read(_with(select(nodes).order_by(nodes.c.scheduler, nodes.c.node_id), nodes, scheduler=scheduler))
    return [rows.node(row, counted[row.scheduler, row.node_id]) for row in found]
