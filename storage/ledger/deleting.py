"""Volumes that are deleted: first the intent, then, once the platform has done it, the row. Many at once: an app may have a thousand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from msgspec.structs import replace
from sqlalchemy import select

from storage import schema
from storage.errors import Conflict, HasSnapshots, PollyError, UnknownVolume
from storage.ledger import rows
from storage.ledger.bulk import Batch
from storage.ledger.heirs import needed_by
from storage.ledger.sightings import DROP
from storage.ledger.volumes import Volumes, in_use
from storage.ledger.writer import LIVE, VOLUMES
from storage.lifecycle import VolumeState
from storage.model import Volume, VolumeId

DOOM: Final = Batch("UPDATE volumes SET state = 'DELETING', reason = '' {from} WHERE volumes.volume_id = :volume_id", ("volume_id",))

REMOVE: Final = Batch(
    "DELETE FROM volumes {using} WHERE volumes.volume_id = :volume_id AND volumes.state = 'DELETING' "
    "AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.volume_id = :volume_id)",
    ("volume_id",),
)


class Deletes(Volumes):
    """The part of a transaction that deletes volumes."""

    def deleting(self, volume_id: VolumeId, *, keep_snapshots: bool = False) -> Volume:
        """As deleting_all says, for one. Raises what that answers with."""
        (outcome,) = self.deleting_all([volume_id], keep_snapshots=keep_snapshots)
        if isinstance(outcome, PollyError):
            self._fail(outcome)
        return outcome

    def deleting_all(self, volume_ids: Collection[VolumeId], *, keep_snapshots: bool = False) -> list[Volume | PollyError]:
        """Stores the intents to delete them, and answers for each in the order of the ids; again is a no-op.

        `keep_snapshots` is for a platform whose snapshots outlive their volume, once they are made. Refusals are UnknownVolume,
        VolumeInUse for a live claim, HasSnapshots, Conflict for a volume that is nowhere yet (unplan is for that), or that a clone is still
        to be made of; they keep none of the others.
        """
        found = {volume.volume_id: volume for volume in map(rows.volume, self.session.find(VOLUMES, sorted(set(volume_ids))))}
        refused = self._refusals(found.values(), keep_snapshots=keep_snapshots)
        doomed = [volume for volume in found.values() if volume.volume_id not in refused and volume.state is not VolumeState.DELETING]
        self._expect(
            self.session.run(DOOM, [(volume.volume_id,) for volume in doomed]), len(doomed), what="volumes", expected="in the ledger"
        )
        for volume in doomed:
            self.note("volume.deleting", volume_id=volume.volume_id, why=volume.name)
            found[volume.volume_id] = replace(volume, state=VolumeState.DELETING, reason="")
        return [refused.get(volume_id) or found.get(volume_id) or UnknownVolume(volume=volume_id) for volume_id in volume_ids]

    def _refusals(self, volumes: Iterable[Volume], *, keep_snapshots: bool) -> dict[VolumeId, PollyError]:
        """Of volumes that are locked: only what was there before can be in the way."""
        volumes = list(volumes)
        live = {claim.volume_id: claim for claim in map(rows.claim, self.session.find(LIVE, [volume.volume_id for volume in volumes]))}
        clones, snapshots = self._clones_of(volumes), self._snapshots_of(volumes, only_unmade=keep_snapshots)
        refused: dict[VolumeId, PollyError] = {}
        for volume in volumes:
            volume_id = volume.volume_id
            if claim := live.get(volume_id):
                refused[volume_id] = in_use(volume, claim)
            elif volume.state is VolumeState.DELETING:
                continue
            elif volume.external_id is None:
                refused[volume_id] = Conflict(what=f"volume {volume_id}", expected="on its platform", found=volume.state)
            elif heir := clones.get(volume_id):
                refused[volume_id] = needed_by(heir, volume)
            elif of_it := snapshots.get(volume_id):
                refused[volume_id] = HasSnapshots(volume=volume.name, snapshots=", ".join(of_it))
        return refused

    def _snapshots_of(self, volumes: Collection[Volume], *, only_unmade: bool) -> dict[VolumeId, list[str]]:
        """The ids of each one's snapshots; of those that outlive the volume, too, each must be made first."""
        table = schema.snapshots.c
        theirs = select(table.volume_id, table.snapshot_id).where(table.volume_id.in_(sorted(volume.volume_id for volume in volumes)))
        found: dict[VolumeId, list[str]] = defaultdict(list)
        for row in self.session.all((theirs.where(table.state == "PENDING") if only_unmade else theirs).order_by(table.snapshot_id)):
            found[row.volume_id].append(row.snapshot_id)
        return found

    def still_there(self, volume_id: VolumeId, reason: str) -> None:
        """Its platform did not delete it, for this reason, and will be asked again. The event log has the first; not DELETING: a no-op."""
        volume = self._volume(volume_id)
        if volume.state is VolumeState.DELETING and volume.reason != reason:
            self._set(volume_id, reason=reason)
            if not volume.reason:
                self.note("volume.not_deleted", volume_id=volume_id, why=reason)

    def deleted(self, volume_id: VolumeId) -> None:
        """As deleted_all says, for one."""
        self.deleted_all([volume_id])

    def deleted_all(self, volume_ids: Collection[VolumeId]) -> None:
        """The platform has deleted them: the rows go, the capacity comes back. Raises UnknownVolume, VolumeInUse, Conflict unless DELETING.

        That they were listed once is forgotten too, or they would be shown as somebody else's until the next list.
        """
        found = {volume.volume_id: volume for volume in map(rows.volume, self.session.find(VOLUMES, sorted(set(volume_ids))))}
        for claim in map(rows.claim, self.session.find(LIVE, sorted(found))):
            self._fail(in_use(found[claim.volume_id], claim))
        for volume_id in volume_ids:
            state = found[volume_id].state if volume_id in found else None
            if state is None:
                self._fail(UnknownVolume(volume=volume_id))
            if state is not VolumeState.DELETING:
                self._fail(Conflict(what=f"volume {volume_id}", expected=VolumeState.DELETING, found=state))
        gone = [found[volume_id] for volume_id in volume_ids]
        self._expect(self.session.run(REMOVE, [(volume.volume_id,) for volume in gone]), len(gone), what="volumes", expected="DELETING")
        self.session.run(DROP, [(volume.platform, volume.external_id) for volume in gone])
        for volume in gone:
            self._account(volume.platform, volume.pool, -volume.size_mib)
            self.note("volume.deleted", volume_id=volume.volume_id, why=f"{volume.external_id} of {volume.platform}, {volume.name}")
