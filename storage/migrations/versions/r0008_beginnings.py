"""An index of the volumes that begin with a snapshot: it is kept until they are born."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    where = sa.text("snapshot IS NOT NULL")
    op.create_index("ix_volumes_snapshot", "volumes", ["platform", "snapshot"], sqlite_where=where, postgresql_where=where)
