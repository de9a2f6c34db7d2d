"""The ledger's rows as records, and the columns to select for each. Written to be fast: a restart reads many thousands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Table

from storage import schema
from storage.ledger.records import Orphan, Placement, Workload
from storage.lifecycle import ClaimState, VolumeState
from storage.model import (
    NOTHING,
    Access,
    AccessMode,
    Birth,
    Claim,
    Event,
    Hearing,
    Holder,
    Node,
    Pool,
    Profile,
    Snapshot,
    Volume,
)

Row = Sequence[Any]


def _columns(table: Table, *names: str) -> tuple[Any, ...]:
    return tuple(table.c[name] for name in names)


VOLUME: Final = _columns(schema.volumes, *(column.name for column in schema.volumes.c))
CLAIM: Final = _columns(
    schema.claims,
    "claim_id",
    "volume_id",
    "scheduler",
    "placement_id",
    "node_id",
    "epoch",
    "access",
    "state",
    "lease_until",
    "reason",
    "since",
)
PLACEMENT: Final = _columns(
    schema.placements, "placement_id", "scheduler", "workload_id", "slot", "node_id", "state", "data", "created_at", "updated_at"
)
EVENT: Final = _columns(schema.events, "seq", "at", "actor", "what", "volume_id", "claim_id", "placement_id", "why")

_ACCESS: Final = {str(value): value for value in Access}
_MODE: Final = {str(value): value for value in AccessMode}
_CLAIM_STATE: Final = {str(value): value for value in ClaimState}
_VOLUME_STATE: Final = {str(value): value for value in VolumeState}
_mapping = msgspec.json.Decoder(dict[str, str]).decode
_profile = msgspec.json.Decoder(Profile).decode


def packed(values: Mapping[str, str]) -> str:
    """A mapping as it is stored."""
    return msgspec.json.encode(dict(values), order="sorted").decode() if values else "{}"


def unpacked(stored: str) -> Mapping[str, str]:
    return NOTHING if stored == "{}" else _mapping(stored)


def volume(row: Row) -> Volume:
    (
        _,
        volume_id,
        name,
        platform,
        pool,
        size_mib,
        profile,
        state,
        external_id,
        token,
        epoch,
        access_mode,
        filesystem,
        birth_serial,
        birth_filesystem,
        birth_uuid,
        owner,
        role,
        region,
        zone,
        labels,
        reason,
        created_at,
        snapshot,
        source,
    ) = row
    known = Volume(
        volume_id=volume_id,
        name=name,
        platform=platform,
        pool=pool,
        size_mib=size_mib,
        profile=profile,
        state=_VOLUME_STATE[state],
        external_id=external_id,
        token=token,
        epoch=epoch,
        access_mode=_MODE[access_mode],
        filesystem=filesystem,
        birth=None if birth_uuid is None else Birth(serial=birth_serial, filesystem=birth_filesystem, filesystem_uuid=birth_uuid),
        owner=owner,
        role=role,
    )
    # In a step of its own: Python makes a dict of more than 15 keywords, which takes three times as long.
    return replace(
        known,
        region=region,
        zone=zone,
        labels=NOTHING if labels == "{}" else _mapping(labels),
        reason=reason,
        created_at=created_at,
        snapshot=snapshot,
        source=source,
    )


def claim(row: Row) -> Claim:
    """Of CLAIM's columns; more may follow them."""
    claim_id, volume_id, scheduler, placement, node, epoch, access, state, lease_until, reason, since = row[:11]
    return Claim(
        claim_id=claim_id,
        volume_id=volume_id,
        holder=Holder(scheduler=scheduler, placement=placement, node=node),
        epoch=epoch,
        access=_ACCESS[access],
        state=_CLAIM_STATE[state],
        lease_until=lease_until,
        reason=reason,
        since=since,
    )


def placement(row: Row) -> Placement:
    placement_id, scheduler, workload, slot, node, state, data, created_at, updated_at = row
    return Placement(
        placement_id=placement_id,
        scheduler=scheduler,
        workload=workload,
        slot=slot,
        node=node,
        state=state,
        data=data,
        created_at=created_at,
        updated_at=updated_at,
    )


def workload(row: Any) -> Workload:
    return Workload(
        scheduler=row.scheduler,
        workload_id=row.workload_id,
        spec=row.spec,
        instances=row.instances,
        version=row.version,
        state=row.state,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def pool(row: Any, room_provisioned_mib: int) -> Pool:
    """Of the pool's columns, with those of its platform's hearing, which may be NULL."""
    return Pool(
        platform=row.platform,
        name=row.name,
        capacity_mib=row.capacity_mib,
        provisioned_mib=row.provisioned_mib,
        foreign_mib=row.foreign_mib,
        reserve_mib=row.reserve_mib,
        overcommit=row.overcommit,
        region=row.region,
        zone=row.zone,
        labels=unpacked(row.labels),
        online=bool(row.online),
        seen_at=row.seen_at,
        silent_since=0.0 if row.online else row.silent_since or 0.0,
        silence="" if row.online else row.error or "",
        room=row.room,
        room_capacity_mib=row.room_capacity_mib,
        room_foreign_mib=row.room_foreign_mib,
        room_provisioned_mib=room_provisioned_mib,
    )


def hearing(row: Any) -> Hearing:
    return Hearing(platform=row.platform, heard_at=row.heard_at, silent_since=row.silent_since, looks=row.looks, error=row.error)


def profile(body: str) -> Profile:
    return _profile(body)


def node(row: Any, slots: Sequence[Any]) -> Node:
    """`slots` are the node's own rows of node_slots."""
    return Node(
        node_id=row.node_id,
        scheduler=row.scheduler,
        hostname=row.hostname,
        region=row.region,
        zone=row.zone,
        state=row.state,
        identities=unpacked(row.identities),
        slots={slot.platform: slot.slots for slot in slots if slot.slots is not None},
        used={slot.platform: slot.used for slot in slots if slot.used},
        seen_at=row.seen_at,
    )


def snapshot(row: Any) -> Snapshot:
    return Snapshot(
        snapshot_id=row.snapshot_id,
        volume_id=row.volume_id,
        platform=row.platform,
        external_id=row.external_id,
        size_mib=row.size_mib,
        token=row.token,
        name=row.name,
        state=row.state,
        created_at=row.created_at,
    )


def named_snapshot(row: Any) -> Snapshot:
    """With `volume_name`, which is None once the volume is gone."""
    return replace(snapshot(row), volume_name=row.volume_name or "")


def named_claim(row: Row) -> Claim:
    """Of CLAIM's columns and the volume's name."""
    return replace(claim(row), volume_name=row[11] or "")


def event(row: Row) -> Event:
    """Of EVENT's columns and the volume's name, which is None once the volume is gone."""
    seq, at, actor, what, volume_id, claim_id, placement_id, why, name = row
    return Event(
        seq=seq,
        at=at,
        actor=actor,
        what=what,
        volume_id=volume_id,
        claim_id=claim_id,
        placement_id=placement_id,
        why=why,
        volume_name=name or "",
    )


def orphan(row: Any) -> Orphan:
    return Orphan(platform=row.platform, token=row.token, external_id=row.external_id, since=row.since, keep_until=row.keep_until)
