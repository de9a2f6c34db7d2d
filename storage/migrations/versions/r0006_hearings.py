"""When each platform answered last, and since when and why it does not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "hearings",
        sa.Column("platform", KEY, nullable=False),
        sa.Column("heard_at", sa.Double(), nullable=False),
        sa.Column("silent_since", sa.Double(), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("platform", name=op.f("pk_hearings")),
        sqlite_with_rowid=False,
    )
