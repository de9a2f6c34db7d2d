"""How the event log is kept from growing for ever: old lines go, a few at a time, and what stays is said.

Nothing is decided by the log. It is there for people, so what tells of something that is not over yet stays, however old it is: the lines
of live claims, and those of volumes that are unmade, FAULTED or being deleted, that grow, or of which a snapshot is to be made or deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select

from storage import schema
from storage.ledger.engine import Session
from storage.ledger.surroundings import PUT_SETTING
from storage.ledger.writer import Writer
from storage.lifecycle import VolumeState

KEPT_SINCE: Final = "events kept since"
"""The setting that says from when on the log is whole, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some lines of the log, one after the other."""

    last: int
    """The number of the last one."""
    old: int
    """How many are older than what is to be kept."""
    doomed: int
    """How many of those nothing needs any more."""


def part_of(session: Session, *, before: float, after: int, most: int) -> Part:
    """The `most` lines after that number, seen with what was written before that instant as old."""
    table = schema.events.c
    columns = select(table.seq, table.at, table.volume_id, table.claim_id)
    lines: Any = columns.where(table.seq > after).order_by(table.seq).limit(most).subquery()
    old = lines.c.at < before
    counts = (func.count().filter(old), func.count().filter(and_(old, ~_is_needed(lines.c))))
    row = session.first(select(func.max(lines.c.seq), *counts).select_from(lines))
    return Part(last=row[0] or after, old=row[1], doomed=row[2])


def kept_since(session: Session) -> float:
    """From when on the log is whole; 0: nothing of it was ever deleted."""
    row = session.first(select(schema.settings.c.value).where(schema.settings.c.key == KEPT_SINCE))
    return float(row.value) if row else 0.0


class EventWrites(Writer):
    """The part of a transaction that deletes old lines of the log."""

    def drop_events(self, *, before: float, after: int, last: int) -> int:
        """Deletes the lines from `after`, which stays, to `last` that are older and not needed, and notes that; how many there were."""
        table = schema.events.c
        between = and_(table.seq > after, table.seq <= last, table.at < before)
        deleted = self.session.execute(delete(schema.events).where(between, ~_is_needed(table)))
        if deleted and kept_since(self.session) < before:
            self.session.run(PUT_SETTING, [(KEPT_SINCE, repr(before))])
        return deleted


def _is_needed(line: Any) -> ColumnElement[bool]:
    claims, volumes, growths, snapshots = schema.claims.c, schema.volumes.c, schema.growths.c, schema.snapshots.c
    return or_(
        exists().where(claims.claim_id == line.claim_id),
        exists().where(volumes.volume_id == line.volume_id, volumes.state != VolumeState.AVAILABLE.value),
        exists().where(growths.volume_id == line.volume_id),
        exists().where(snapshots.volume_id == line.volume_id, snapshots.state != "READY"),
    )
