"""What becomes of snapshots: the intent is stored before the platform is asked, the result after."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select, update

from storage import schema
from storage.errors import AlreadyExists, Conflict, UnknownSnapshot
from storage.ledger import rows
from storage.ledger.heirs import Heirs
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Snapshot, SnapshotId

TABLE = schema.snapshots


class Snapshots(Heirs):
    """The part of a transaction that changes snapshots. Every verb on one that is there raises UnknownSnapshot."""

    def plan_snapshot(self, snapshot: Snapshot) -> None:
        """Stores the intent to make it. Raises UnknownVolume, AlreadyExists, Conflict unless the volume is AVAILABLE."""
        volume = self._volume(snapshot.volume_id)
        if volume.state is not VolumeState.AVAILABLE:
            self._fail(Conflict(what=f"volume {volume.name}", expected=VolumeState.AVAILABLE, found=volume.state))
        if self.session.first(select(TABLE.c.state).where(TABLE.c.snapshot_id == snapshot.snapshot_id)):
            self._fail(AlreadyExists(kind="snapshot", name=snapshot.snapshot_id))
        values = {column.name: getattr(snapshot, column.name) for column in TABLE.c}
        self.session.execute(insert(TABLE).values({**values, "state": "PENDING", "created_at": snapshot.created_at or self.now}))
        self.note("snapshot.planned", volume_id=snapshot.volume_id, why=f"{snapshot.snapshot_id} {snapshot.name}".strip())

    def snapshot_made(self, snapshot_id: SnapshotId, external_id: ExternalId, size_mib: int, created_at: float) -> None:
        """PENDING becomes READY; the same again is a no-op. Raises Conflict otherwise."""
        snapshot = self._snapshot(snapshot_id)
        if (snapshot.state, snapshot.external_id) == ("READY", external_id):
            return
        if snapshot.state != "PENDING":
            self._fail(Conflict(what=f"snapshot {snapshot_id}", expected="PENDING", found=snapshot.state))
        self._change(snapshot_id, state="READY", external_id=external_id, size_mib=size_mib, created_at=created_at or self.now)
        self.note("snapshot.made", volume_id=snapshot.volume_id, why=f"{snapshot_id} is {external_id}")

    def snapshot_deleting(self, snapshot_id: SnapshotId) -> None:
        """Stores the intent to delete it; again is a no-op. Raises Conflict while a volume that begins with it is not born."""
        snapshot = self._snapshot(snapshot_id)
        if snapshot.state != "DELETING":
            self._refuse_beginnings(snapshot)
            self._change(snapshot_id, state="DELETING")
            self.note("snapshot.deleting", volume_id=snapshot.volume_id, why=snapshot_id)

    def snapshot_deleted(self, snapshot_id: SnapshotId) -> None:
        """The platform has it no more, or never had it: the row goes. Raises Conflict for one that is READY."""
        snapshot = self._snapshot(snapshot_id)
        if snapshot.state == "READY":
            self._fail(Conflict(what=f"snapshot {snapshot_id}", expected="DELETING or PENDING", found=snapshot.state))
        self.session.execute(delete(TABLE).where(TABLE.c.snapshot_id == snapshot_id))
        self.note("snapshot.deleted", volume_id=snapshot.volume_id, why=snapshot_id)

    def _snapshot(self, snapshot_id: SnapshotId) -> Snapshot:
        row = self.session.first(select(TABLE).where(TABLE.c.snapshot_id == snapshot_id).with_for_update())
        if row is None:
            self._fail(UnknownSnapshot(snapshot=snapshot_id))
        return rows.snapshot(row)

    def _change(self, snapshot_id: SnapshotId, **values: Any) -> None:
        self.session.execute(update(TABLE).where(TABLE.c.snapshot_id == snapshot_id).values(values))
