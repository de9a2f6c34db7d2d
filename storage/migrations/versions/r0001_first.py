"""The first ledger: every table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MODES = ("SINGLE_NODE_WRITER", "SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER", "MULTI_NODE_MULTI_WRITER")
SEAT = (
    "CASE WHEN mode = 'SINGLE_NODE_WRITER' OR mode = 'SINGLE_NODE_READER_ONLY' "
    "OR (mode = 'MULTI_NODE_SINGLE_WRITER' AND access = 'RW') THEN 0 ELSE epoch END"
)


def upgrade() -> None:
    _events()
    _leaders()
    _node_slots()
    _nodes()
    _orphans()
    _placements()
    _pools()
    _profiles()
    _settings()
    _snapshots()
    _volumes()
    _workloads()
    _claims()
    _volume_labels()


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("seq", SERIAL, sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("volume_id", KEY, nullable=True),
        sa.Column("claim_id", KEY, nullable=True),
        sa.Column("placement_id", KEY, nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
    )
    _some("ix_events_claim", "events", ["claim_id", "seq"], where="claim_id IS NOT NULL")
    _some("ix_events_placement", "events", ["placement_id", "seq"], where="placement_id IS NOT NULL")
    _some("ix_events_volume", "events", ["volume_id", "seq"], where="volume_id IS NOT NULL")


def _leaders() -> None:
    op.create_table(
        "leaders",
        sa.Column("scheduler", KEY, nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("scheduler", name=op.f("pk_leaders")),
    )


def _node_slots() -> None:
    op.create_table(
        "node_slots",
        sa.Column("scheduler", KEY, nullable=False),
        sa.Column("node_id", KEY, nullable=False),
        sa.Column("platform", KEY, nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("used >= 0", name=op.f("ck_node_slots_used")),
        sa.PrimaryKeyConstraint("scheduler", "node_id", "platform", name=op.f("pk_node_slots")),
        sqlite_with_rowid=False,
    )


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("scheduler", KEY, nullable=False),
        sa.Column("node_id", KEY, nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("identities", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.CheckConstraint(_one_of("state", ("UP", "UNREACHABLE", "GONE")), name=op.f("ck_nodes_state")),
        sa.PrimaryKeyConstraint("scheduler", "node_id", name=op.f("pk_nodes")),
    )


def _orphans() -> None:
    op.create_table(
        "orphans",
        sa.Column("platform", KEY, nullable=False),
        sa.Column("token", KEY, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("platform", "token", name=op.f("pk_orphans")),
        sqlite_with_rowid=False,
    )


def _placements() -> None:
    op.create_table(
        "placements",
        sa.Column("placement_id", KEY, nullable=False),
        sa.Column("scheduler", KEY, nullable=False),
        sa.Column("workload_id", KEY, nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("node_id", KEY, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("claims", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.CheckConstraint("claims >= 0", name=op.f("ck_placements_claims")),
        sa.PrimaryKeyConstraint("placement_id", name=op.f("pk_placements")),
        sqlite_with_rowid=False,
    )


def _pools() -> None:
    op.create_table(
        "pools",
        sa.Column("platform", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("capacity_mib", sa.BigInteger(), nullable=False),
        sa.Column("provisioned_mib", sa.BigInteger(), nullable=False),
        sa.Column("foreign_mib", sa.BigInteger(), nullable=False),
        sa.Column("reserve_mib", sa.BigInteger(), nullable=False),
        sa.Column("overcommit", sa.Double(), nullable=False),
        sa.Column("limit_mib", sa.BigInteger(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.CheckConstraint("limit_mib >= 0", name=op.f("ck_pools_limit")),
        sa.CheckConstraint("provisioned_mib >= 0", name=op.f("ck_pools_provisioned")),
        sa.PrimaryKeyConstraint("platform", "name", name=op.f("pk_pools")),
    )


def _profiles() -> None:
    op.create_table(
        "profiles",
        sa.Column("name", KEY, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_profiles")),
    )


def _settings() -> None:
    op.create_table(
        "settings",
        sa.Column("key", KEY, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_settings")),
        sqlite_with_rowid=False,
    )


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("snapshot_id", KEY, nullable=False),
        sa.Column("volume_id", KEY, nullable=False),
        sa.Column("platform", KEY, nullable=False),
        sa.Column("external_id", KEY, nullable=True),
        sa.Column("size_mib", sa.BigInteger(), nullable=False),
        sa.Column("token", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint(_one_of("state", ("PENDING", "READY", "DELETING")), name=op.f("ck_snapshots_state")),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_snapshots")),
    )
    _some("ix_snapshots_external", "snapshots", ["platform", "external_id"], where="external_id IS NOT NULL", unique=True)
    op.create_index("ix_snapshots_volume", "snapshots", ["volume_id", "snapshot_id"])


def _volumes() -> None:
    op.create_table(
        "volumes",
        sa.Column("number", SERIAL, sa.Identity(always=False), nullable=False),
        sa.Column("volume_id", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("platform", KEY, nullable=False),
        sa.Column("pool", KEY, nullable=False),
        sa.Column("size_mib", sa.BigInteger(), nullable=False),
        sa.Column("profile", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("external_id", KEY, nullable=True),
        sa.Column("token", KEY, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("access_mode", sa.Text(), nullable=False),
        sa.Column("filesystem", sa.Text(), nullable=False),
        sa.Column("birth_serial", sa.Text(), nullable=True),
        sa.Column("birth_filesystem", sa.Text(), nullable=True),
        sa.Column("birth_uuid", sa.Text(), nullable=True),
        sa.Column("owner", KEY, nullable=False),
        sa.Column("role", KEY, nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("zone", KEY, nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=True),
        sa.CheckConstraint(_one_of("access_mode", MODES), name=op.f("ck_volumes_access_mode")),
        sa.CheckConstraint("state <> 'AVAILABLE' OR external_id IS NOT NULL", name=op.f("ck_volumes_available_is_somewhere")),
        sa.CheckConstraint("state <> 'PLANNED' OR external_id IS NULL", name=op.f("ck_volumes_planned_is_nowhere")),
        sa.CheckConstraint(_one_of("state", ("PLANNED", "AVAILABLE", "DELETING", "FAULTED")), name=op.f("ck_volumes_state")),
        sa.CheckConstraint(
            "(birth_serial IS NULL) = (birth_uuid IS NULL) AND (birth_filesystem IS NULL) = (birth_uuid IS NULL)",
            name=op.f("ck_volumes_birth_is_whole"),
        ),
        sa.CheckConstraint("epoch >= 0", name=op.f("ck_volumes_epoch")),
        sa.CheckConstraint("size_mib > 0", name=op.f("ck_volumes_size")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_volumes")),
        sa.UniqueConstraint("name", name=op.f("uq_volumes_name")),
        sa.UniqueConstraint("volume_id", name=op.f("uq_volumes_volume_id")),
    )
    _some("ix_volumes_external", "volumes", ["platform", "external_id"], where="external_id IS NOT NULL", unique=True)
    _some("ix_volumes_owner", "volumes", ["owner", "number"], where="owner <> ''")
    op.create_index("ix_volumes_platform", "volumes", ["platform", "number"])
    op.create_index("ix_volumes_pool", "volumes", ["platform", "pool", "number"])
    op.create_index("ix_volumes_profile", "volumes", ["profile", "number"])
    _some("ix_volumes_role", "volumes", ["role", "number"], where="role <> ''")
    _some("ix_volumes_state", "volumes", ["state", "number"], where="state <> 'AVAILABLE'")
    op.create_index("ix_volumes_zone", "volumes", ["zone", "number"])


def _workloads() -> None:
    op.create_table(
        "workloads",
        sa.Column("scheduler", KEY, nullable=False),
        sa.Column("workload_id", KEY, nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("instances", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("scheduler", "workload_id", name=op.f("pk_workloads")),
    )


def _claims() -> None:
    op.create_table(
        "claims",
        sa.Column("volume_id", KEY, nullable=False),
        sa.Column("seat", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("claim_id", KEY, nullable=False),
        sa.Column("platform", KEY, nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("scheduler", KEY, nullable=False),
        sa.Column("placement_id", KEY, nullable=False),
        sa.Column("node_id", KEY, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("access", sa.Text(), nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "access = 'RO' OR (mode <> 'SINGLE_NODE_READER_ONLY' AND mode <> 'MULTI_NODE_READER_ONLY')", name=op.f("ck_claims_readers_read")
        ),
        sa.CheckConstraint(_one_of("access", ("RW", "RO")), name=op.f("ck_claims_access")),
        sa.CheckConstraint(_one_of("mode", MODES), name=op.f("ck_claims_mode")),
        sa.CheckConstraint(f"seat = {SEAT}", name=op.f("ck_claims_seat")),
        sa.CheckConstraint(_one_of("state", ("RESERVED", "ATTACHING", "MOUNTED", "RELEASING", "STRANDED")), name=op.f("ck_claims_state")),
        sa.CheckConstraint("epoch > 0", name=op.f("ck_claims_epoch")),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.volume_id"], name=op.f("fk_claims_volume_id")),
        sa.PrimaryKeyConstraint("volume_id", "seat", name=op.f("pk_claims")),
        sa.UniqueConstraint("claim_id", name=op.f("uq_claims_claim_id")),
        sqlite_with_rowid=False,
    )


def _volume_labels() -> None:
    op.create_table(
        "volume_labels",
        sa.Column("key", KEY, nullable=False),
        sa.Column("value", KEY, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["number"], ["volumes.number"], name=op.f("fk_volume_labels_number"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "value", "number", name=op.f("pk_volume_labels")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_volume_labels_number", "volume_labels", ["number"])


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return " OR ".join(f"{column} = '{value}'" for value in values)


def _some(name: str, table: str, columns: list[str], *, where: str, unique: bool = False) -> None:
    """An index over some of the rows."""
    op.create_index(name, table, columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
