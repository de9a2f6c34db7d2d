"""What the platforms have, as they listed it: stored row by row where it changed, and compared with the ledger's volumes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from sqlalchemy import exists, select, text

from storage import schema
from storage.ledger.bulk import Batch, insert
from storage.ledger.engine import Database
from storage.ledger.reads import nowhere_yet
from storage.ledger.writer import Writer
from storage.model import ExternalId, Page
from storage.platforms.base import VolumeReport

TABLE: Final = schema.sightings
PUT: Final = insert(
    "sightings",
    ("platform", "external_id", "token", "report"),
    tail="ON CONFLICT (platform, external_id) DO UPDATE SET token = excluded.token, report = excluded.report",
)
DROP: Final = Batch(
    "DELETE FROM sightings {using} WHERE sightings.platform = :platform AND sightings.external_id = :external_id",
    ("platform", "external_id"),
)

_decode = msgspec.json.Decoder(VolumeReport).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def written(report: VolumeReport) -> str:
    """A report as it is stored."""
    return _encode(report).decode()


class SightingWrites(Writer):
    """The part of a transaction that stores what platforms list."""

    def sight(self, platform: str, reports: Sequence[tuple[VolumeReport, str]]) -> None:
        """Stores these reports, each with what `written` makes of it."""
        self.session.run(PUT, [(platform, report.external_id, report.token, text) for report, text in reports])

    def unsight(self, platform: str, external_ids: Collection[ExternalId]) -> None:
        """The platform does not list these any more."""
        self.session.run(DROP, [(platform, external_id) for external_id in external_ids])


class SightingReads:
    """The part of the ledger that reads what platforms have listed."""

    _database: Database

    def fingerprints(self, platform: str) -> dict[ExternalId, int]:
        """A hash of each stored report, by the platform's id: for this process only."""
        with self._database.reading() as session:
            found = session.all(select(TABLE.c.external_id, TABLE.c.report).where(TABLE.c.platform == platform))
        return {ExternalId(external_id): hash(report) for external_id, report in found}

    def sighted(self, platform: str, external_ids: Collection[ExternalId]) -> dict[ExternalId, VolumeReport]:
        """Those of these that the platform has listed."""
        statement = select(TABLE.c.report).where(TABLE.c.platform == platform, TABLE.c.external_id.in_(sorted(external_ids)))
        with self._database.reading() as session:
            reports = [_decode(row.report) for row in session.all(statement)]
        return {report.external_id: report for report in reports}

    def strays(self, platform: str, limit: int = 1000) -> list[VolumeReport]:
        """Volumes that bear a token and are neither the ledger's nor about to be deleted; `limit` at the most."""
        volumes, orphans = schema.volumes.c, schema.orphans.c
        known = exists().where(volumes.platform == platform, volumes.external_id == TABLE.c.external_id)
        planned = TABLE.c.token.in_(select(volumes.token).where(nowhere_yet(platform)))
        doomed = exists().where(orphans.platform == platform, orphans.token == TABLE.c.token)
        statement = select(TABLE.c.report).where(TABLE.c.platform == platform, text("token <> ''"), ~known, ~planned, ~doomed)
        with self._database.reading() as session:
            return [_decode(row.report) for row in session.all(statement.order_by(TABLE.c.token).limit(limit))]

    def foreign(self, platform: str, *, after: str | None = None, limit: int = 100) -> Page[VolumeReport]:
        """Volumes that the platform has listed and the ledger does not have, by their ids, `limit` at a time."""
        volumes = schema.volumes.c
        known = exists().where(volumes.platform == platform, volumes.external_id == TABLE.c.external_id)
        statement = select(TABLE.c.report).where(TABLE.c.platform == platform, ~known).order_by(TABLE.c.external_id).limit(limit + 1)
        if after is not None:
            statement = statement.where(TABLE.c.external_id > after)
        with self._database.reading() as session:
            reports = [_decode(row.report) for row in session.all(statement)]
        more = len(reports) > limit
        return Page(items=reports[:limit], after=reports[limit - 1].external_id if more else None)
