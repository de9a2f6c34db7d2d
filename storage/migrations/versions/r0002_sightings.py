"""What the platforms have listed, Polly's or not: to compare the ledger with, and to import from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sightings",
        sa.Column("platform", KEY, nullable=False),
        sa.Column("external_id", KEY, nullable=False),
        sa.Column("token", KEY, nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("platform", "external_id", name=op.f("pk_sightings")),
        sqlite_with_rowid=False,
    )
    where = sa.text("token <> ''")
    op.create_index("ix_sightings_token", "sightings", ["platform", "token"], sqlite_where=where, postgresql_where=where)
