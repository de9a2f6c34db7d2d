"""The room that several pools of a platform share, such as a project's quota: no two of them may promise the same of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("pools", sa.Column("room", sa.Text(), nullable=False, server_default=""))
    for name in ("room_capacity_mib", "room_foreign_mib", "room_limit_mib"):
        op.add_column("pools", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
