"""Which volume another one is to be a clone of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("volumes", sa.Column("source", KEY, nullable=True))
    where = sa.text("source IS NOT NULL")
    op.create_index("ix_volumes_source", "volumes", ["platform", "source"], sqlite_where=where, postgresql_where=where)
