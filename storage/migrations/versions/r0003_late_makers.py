"""How long an orphan stays although nothing of it is found: whoever was told to make it may still be about to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("orphans", sa.Column("keep_until", sa.Double(), nullable=False, server_default=sa.text("0")))
