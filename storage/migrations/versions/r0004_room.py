"""Room in PostgreSQL's pages for the next version of a row: then what changes no key changes no index either.

A claim raises its volume's epoch, a status moves its claim and its placement: columns that no index has. PostgreSQL leaves
the indexes alone where the new version of the row fits on its page. An app's volumes lie side by side and are claimed
together, so each needs room for one more. SQLite changes rows in place.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

FILLED = {"volumes": 50, "claims": 50, "placements": 50}
"""How much of a page inserted rows may fill, in per cent."""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, percent in FILLED.items():
            op.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")
