"""The ledger's tables: what the database itself refuses, whatever program writes to it.

Knows no query and no transition; those are in storage/ledger. Two things here carry the safety of the data:

* `claims.seat`. Its CHECK derives it from the volume's access mode, and (volume, seat) is the primary key: a claim
  that excludes others sits on seat 0, a sharing one on the seat of its epoch. Two exclusive claims on one volume
  are one key twice, which no database takes.
* `claims.volume_id` refers to the volume, so a volume with a live claim can't be deleted from under it.

Indexes end in `volumes.number`, which SQLite appends by itself, so every filter pages in the order of creation
without a sort. Key columns compare by bytes on every database (collation C).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from storage.lifecycle import ClaimState, VolumeState
from storage.model import Access, AccessMode

REVISION: Final = "0009"
"""The newest migration; a ledger at this revision needs no Alembic to be opened."""
VERSION_TABLE: Final = "ledger_version"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Key = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is looked up, compared and ordered by its bytes."""
Serial = BigInteger().with_variant(Integer(), "sqlite")
"""An integer that the database counts up; on SQLite the row's own number."""

SEAT: Final = (
    "CASE WHEN mode = 'SINGLE_NODE_WRITER' OR mode = 'SINGLE_NODE_READER_ONLY' "
    "OR (mode = 'MULTI_NODE_SINGLE_WRITER' AND access = 'RW') THEN 0 ELSE epoch END"
)
"""Where a claim sits: see the module's docstring. storage.ledger.placing.seat says the same in Python."""


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    """Written without IN, for which SQLite builds an index anew with each row; so are the other constraints here."""
    return CheckConstraint(" OR ".join(f"{column} = '{value}'" for value in values), name=column)


def _key(name: str, **options: Any) -> Column[str]:
    return Column(name, Key, nullable=False, **options)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _mib(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _at(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


def _some(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index over some of the rows."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), info={"where": where})


def complete_for_postgresql() -> None:
    """Says of partial indexes what SQLAlchemy wants said in PostgreSQL's own words; to say it at once would load its whole dialect."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if where := index.info.get("where"):
                index.dialect_kwargs["postgresql_where"] = text(where)


settings = Table("settings", metadata, _key("key", primary_key=True), _text("value"), sqlite_with_rowid=False)

leaders = Table(
    "leaders",
    metadata,
    _key("scheduler", primary_key=True),
    Column("term", BigInteger, nullable=False),
    _text("who"),
    _at("since"),
)
"""Who leads each scheduler. The term goes up with each leader; one with a lower term must not write any more."""

pools = Table(
    "pools",
    metadata,
    _key("platform", primary_key=True),
    _key("name", primary_key=True),
    _mib("capacity_mib"),
    _mib("provisioned_mib"),
    _mib("foreign_mib"),
    _mib("reserve_mib"),
    Column("overcommit", Double, nullable=False),
    _mib("limit_mib"),
    _text("region"),
    _text("zone"),
    _text("labels"),
    Column("online", Boolean, nullable=False),
    _at("seen_at"),
    Column("room", Text, nullable=False, server_default=""),
    Column("room_capacity_mib", BigInteger, nullable=False, server_default="0"),
    Column("room_foreign_mib", BigInteger, nullable=False, server_default="0"),
    Column("room_limit_mib", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("provisioned_mib >= 0", name="provisioned"),
    CheckConstraint("limit_mib >= 0", name="limit"),
)
"""`limit_mib` is Pool.limit_mib as it was when the pool was last seen: what the guarded UPDATE compares with. `room_limit_mib` is the
same of the room that it shares with those pools of its platform that have the same `room`; empty: it shares none."""

hearings = Table(
    "hearings",
    metadata,
    _key("platform", primary_key=True),
    _at("heard_at"),
    _at("silent_since"),
    Column("looks", Integer, nullable=False),
    _text("error"),
    sqlite_with_rowid=False,
)
"""One row for each platform that was ever asked for its pools; storage.model.Hearing says what is in it."""

profiles = Table("profiles", metadata, _key("name", primary_key=True), _text("body"))

volumes = Table(
    "volumes",
    metadata,
    Column("number", Serial, Identity(), primary_key=True),
    _key("volume_id"),
    _key("name"),
    _key("platform"),
    _key("pool"),
    _mib("size_mib"),
    _key("profile"),
    _key("state"),
    Column("external_id", Key),
    _key("token"),
    Column("epoch", BigInteger, nullable=False),
    _text("access_mode"),
    _text("filesystem"),
    Column("birth_serial", Text),
    Column("birth_filesystem", Text),
    Column("birth_uuid", Text),
    _key("owner"),
    _key("role"),
    _text("region"),
    _key("zone"),
    _text("labels"),
    _text("reason"),
    _at("created_at"),
    Column("snapshot", Text),
    Column("source", Key),
    UniqueConstraint("volume_id"),
    UniqueConstraint("name"),
    CheckConstraint("size_mib > 0", name="size"),
    CheckConstraint("epoch >= 0", name="epoch"),
    _one_of("state", VolumeState),
    _one_of("access_mode", AccessMode),
    CheckConstraint("state <> 'AVAILABLE' OR external_id IS NOT NULL", name="available_is_somewhere"),
    CheckConstraint("state <> 'PLANNED' OR external_id IS NULL", name="planned_is_nowhere"),
    CheckConstraint(
        "(birth_serial IS NULL) = (birth_uuid IS NULL) AND (birth_filesystem IS NULL) = (birth_uuid IS NULL)", name="birth_is_whole"
    ),
    _some("ix_volumes_external", "platform", "external_id", where="external_id IS NOT NULL", unique=True),
    Index("ix_volumes_platform", "platform", "number"),
    Index("ix_volumes_pool", "platform", "pool", "number"),
    Index("ix_volumes_profile", "profile", "number"),
    Index("ix_volumes_zone", "zone", "number"),
    _some("ix_volumes_owner", "owner", "number", where="owner <> ''"),
    _some("ix_volumes_role", "role", "number", where="role <> ''"),
    _some("ix_volumes_snapshot", "platform", "snapshot", where="snapshot IS NOT NULL"),
    _some("ix_volumes_source", "platform", "source", where="source IS NOT NULL"),
    _some("ix_volumes_state", "state", "number", where="state <> 'AVAILABLE'"),
)
"""`birth_*` are the birth certificate. An empty token marks a volume that this ledger's brokers did not make."""

volume_labels = Table(
    "volume_labels",
    metadata,
    _key("key", primary_key=True),
    _key("value", primary_key=True),
    Column("number", BigInteger, ForeignKey("volumes.number", ondelete="CASCADE"), primary_key=True),
    Index("ix_volume_labels_number", "number"),
    sqlite_with_rowid=False,
)
"""The labels of volumes once more, to find volumes by them; `volumes.labels` is what is read."""

claims = Table(
    "claims",
    metadata,
    Column("volume_id", Key, ForeignKey("volumes.volume_id"), primary_key=True),
    Column("seat", BigInteger, primary_key=True, autoincrement=False),
    _key("claim_id"),
    _key("platform"),
    _text("mode"),
    _key("scheduler"),
    _key("placement_id"),
    _key("node_id"),
    Column("epoch", BigInteger, nullable=False),
    _text("access"),
    _key("state"),
    _at("lease_until"),
    _text("reason"),
    _at("since"),
    Column("leaving", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("claim_id"),
    CheckConstraint(f"seat = {SEAT}", name="seat"),
    CheckConstraint("epoch > 0", name="epoch"),
    CheckConstraint(
        "access = 'RO' OR (mode <> 'SINGLE_NODE_READER_ONLY' AND mode <> 'MULTI_NODE_READER_ONLY')",
        name="readers_read",
    ),
    _one_of("mode", AccessMode),
    _one_of("access", Access),
    _one_of("state", ClaimState),
    _some("ix_claims_leaving", "platform", where="leaving"),
    sqlite_with_rowid=False,
)
"""Live claims only. `platform` and `mode` are the volume's, which never change. For `leaving` see storage.ledger.leaving."""

orphans = Table(
    "orphans",
    metadata,
    _key("platform", primary_key=True),
    _key("token", primary_key=True),
    Column("external_id", Text),
    _at("since"),
    Column("keep_until", Double, nullable=False, server_default=text("0")),
    sqlite_with_rowid=False,
)
"""What claims that ended before a birth may have left on a platform; until `keep_until` more may come."""

growths = Table(
    "growths",
    metadata,
    Column("volume_id", Key, ForeignKey("volumes.volume_id", ondelete="CASCADE"), primary_key=True),
    sqlite_with_rowid=False,
)
"""Volumes whose size in the ledger their platforms have not confirmed yet."""

snapshots = Table(
    "snapshots",
    metadata,
    _key("snapshot_id", primary_key=True),
    _key("volume_id"),
    _key("platform"),
    Column("external_id", Key),
    _mib("size_mib"),
    _key("token"),
    _text("name"),
    _text("state"),
    _at("created_at"),
    _one_of("state", ("PENDING", "READY", "DELETING")),
    Index("ix_snapshots_volume", "volume_id", "snapshot_id"),
    _some("ix_snapshots_external", "platform", "external_id", where="external_id IS NOT NULL", unique=True),
)
"""A snapshot may outlive its volume, so `volume_id` refers to nothing."""

sightings = Table(
    "sightings",
    metadata,
    _key("platform", primary_key=True),
    _key("external_id", primary_key=True),
    _key("token"),
    _text("report"),
    _some("ix_sightings_token", "platform", "token", where="token <> ''"),
    sqlite_with_rowid=False,
)
"""What the platforms last listed, as storage.platforms.base.VolumeReport in JSON: also volumes that are not Polly's."""

workloads = Table(
    "workloads",
    metadata,
    _key("scheduler", primary_key=True),
    _key("workload_id", primary_key=True),
    _text("spec"),
    Column("instances", BigInteger, nullable=False),
    _text("version"),
    _text("state"),
    _at("created_at"),
    _at("updated_at"),
)

placements = Table(
    "placements",
    metadata,
    _key("placement_id", primary_key=True),
    _key("scheduler"),
    _key("workload_id"),
    Column("slot", BigInteger, nullable=False),
    _key("node_id"),
    _text("state"),
    _text("data"),
    Column("claims", BigInteger, nullable=False),
    _at("created_at"),
    _at("updated_at"),
    CheckConstraint("claims >= 0", name="claims"),
    sqlite_with_rowid=False,
)
"""`claims` counts its live claims: a placement with any can't be dropped."""

nodes = Table(
    "nodes",
    metadata,
    _key("scheduler", primary_key=True),
    _key("node_id", primary_key=True),
    _text("hostname"),
    _text("region"),
    _text("zone"),
    _text("state"),
    _text("identities"),
    _at("seen_at"),
    _one_of("state", ("UP", "UNREACHABLE", "GONE")),
)

node_slots = Table(
    "node_slots",
    metadata,
    _key("scheduler", primary_key=True),
    _key("node_id", primary_key=True),
    _key("platform", primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("slots", BigInteger),
    CheckConstraint("used >= 0", name="used"),
    sqlite_with_rowid=False,
)
"""How many claims a node has on volumes of a platform, and how many it can have: NULL is without limit."""

events = Table(
    "events",
    metadata,
    Column("seq", Serial, Identity(), primary_key=True),
    _at("at"),
    _text("actor"),
    _text("what"),
    Column("volume_id", Key),
    Column("claim_id", Key),
    Column("placement_id", Key),
    _text("why"),
    _some("ix_events_volume", "volume_id", "seq", where="volume_id IS NOT NULL"),
    _some("ix_events_claim", "claim_id", "seq", where="claim_id IS NOT NULL"),
    _some("ix_events_placement", "placement_id", "seq", where="placement_id IS NOT NULL"),
)
"""Nothing in storage/ledger changes a line, and only storage.ledger.retention deletes any. An index over `at` would cost each placing."""
