"""Which claims' volumes are just being taken from their machines: nobody gets one there meanwhile."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("claims", sa.Column("leaving", sa.Boolean, nullable=False, server_default=sa.false()))
    where = sa.text("leaving")
    op.create_index("ix_claims_leaving", "claims", ["platform"], sqlite_where=where, postgresql_where=where)
