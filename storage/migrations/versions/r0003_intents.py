"""Until when an orphan stays although nothing of it is found, and the volumes that their platforms are asked to grow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("orphans", sa.Column("keep_until", sa.Double(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "growths",
        sa.Column("volume_id", KEY, nullable=False),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.volume_id"], name=op.f("fk_growths_volume_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("volume_id", name=op.f("pk_growths")),
        sqlite_with_rowid=False,
    )
