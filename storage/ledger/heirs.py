"""What is still to be copied stays as it is: a volume that a clone is to be made of, a snapshot that a volume is to begin with.

Both are needed until the heir is born, not only until it is made: an heir that was made and not born is made once more by its next claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, select

from storage import schema
from storage.errors import Conflict
from storage.ledger.writer import Writer
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Snapshot, Volume, VolumeId

VOLUMES: Final = schema.volumes.c
SNAPSHOTS: Final = schema.snapshots.c
UNBORN: Final = and_(VOLUMES.birth_uuid.is_(None), VOLUMES.token != "")


class Heirs(Writer):
    """The part of a transaction that knows what begins with what."""

    def _hold_source(self, platform: str, source: ExternalId) -> None:
        """A volume that is there now stays until its clone is born. Raises Conflict where it is not AVAILABLE."""
        where = and_(VOLUMES.platform == platform, VOLUMES.external_id == source)
        self._hold(VOLUMES.state, where, f"volume {source} of {platform}", VolumeState.AVAILABLE)

    def _hold_snapshot(self, platform: str, snapshot: ExternalId) -> None:
        """A snapshot that is there now stays until what begins with it is born. Raises Conflict where it is not READY."""
        where = and_(SNAPSHOTS.platform == platform, SNAPSHOTS.external_id == snapshot)
        self._hold(SNAPSHOTS.state, where, f"snapshot {snapshot} of {platform}", "READY")

    def _hold(self, state: Any, where: ColumnElement[bool], what: str, expected: str) -> None:
        found = self.session.first(select(state).where(where).with_for_update())
        if found is None or found.state != expected:
            self._fail(Conflict(what=what, expected=expected, found=found.state if found else "none"))

    def _refuse_clones(self, volume: Volume) -> None:
        """Raises Conflict while a clone is still to be made of the volume: it needs it as it was when the clone was planned."""
        for heir in self._clones_of([volume]).values():
            self._fail(needed_by(heir, volume))

    def _clones_of(self, volumes: Sequence[Volume]) -> dict[VolumeId, str]:
        """The name of a clone that is still to be made of the volume, for each of which there is one."""
        found: dict[VolumeId, str] = {}
        for platform in sorted({volume.platform for volume in volumes}):
            theirs = {volume.external_id: volume.volume_id for volume in volumes if volume.platform == platform and volume.external_id}
            of_them = (VOLUMES.platform == platform, VOLUMES.source.in_(sorted(theirs)), UNBORN)
            found |= {theirs[row.source]: row.name for row in self.session.all(select(VOLUMES.source, VOLUMES.name).where(*of_them))}
        return found

    def _refuse_beginnings(self, snapshot: Snapshot) -> None:
        """Raises Conflict while a volume is still to begin with the snapshot."""
        if snapshot.external_id is None:
            return
        of_it = (VOLUMES.platform == snapshot.platform, VOLUMES.snapshot == snapshot.external_id, UNBORN)
        if row := self.session.first(select(VOLUMES.name).where(*of_it).limit(1)):
            found = f"volume {row.name}, which was not mounted yet"
            expected = "no volume that is still to begin with it"
            self._fail(Conflict(what=f"snapshot {snapshot.snapshot_id}", expected=expected, found=found))


def needed_by(heir: str, volume: Volume) -> Conflict:
    found = f"volume {heir}, which was not mounted yet"
    return Conflict(what=f"volume {volume.name}", expected="no clone that is still to be made of it", found=found)
