"""What a new volume may begin with instead of nothing: a snapshot, or another volume that it is to be a clone of."""

from __future__ import annotations

from contextlib import suppress

from msgspec import Struct

from framework.service import VolumeOrder
from framework.verbs import Verbs
from storage.errors import Conflict, Invalid, UnknownVolume, Unsupported
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Pool, Profile, SnapshotId, Volume


class Origin(Struct, frozen=True, kw_only=True):
    what: str
    """In words: `snapshot 01J...`, `volume ledger`."""
    platform: str
    size_mib: int
    pool: str | None = None
    """The only pool where the new volume can be; None: each of the platform's."""
    snapshot: ExternalId | None = None
    source: ExternalId | None = None

    def has(self, pool: Pool) -> bool:
        """Whether a volume that begins with it can be in this pool."""
        return pool.platform == self.platform and self.pool in (None, pool.name)


class Origins(Verbs):
    """Finds what a volume is to begin with."""

    def origin_of(self, order: VolumeOrder, profile: Profile) -> Origin | None:
        """None for an empty volume. Raises UnknownSnapshot, UnknownVolume, Unsupported, Conflict, Invalid for what does not go together."""
        if order.snapshot is not None and order.source is not None:
            raise Invalid(field="source", value=order.source, reason=f"give this volume or the snapshot {order.snapshot}, not both")
        if order.snapshot is not None:
            return self._restored(order.snapshot, profile)
        return None if order.source is None else self._cloned(order.source, profile)

    def _restored(self, snapshot_id: SnapshotId, profile: Profile) -> Origin:
        snapshot = self._ledger.snapshot(snapshot_id)
        able = self.platform(snapshot.platform).capabilities.restores
        if not able or snapshot.external_id is None or snapshot.state != "READY":
            reason = f"snapshot {snapshot.snapshot_id} is {snapshot.state}" if able else "it makes no volumes from snapshots"
            raise Unsupported(platform=snapshot.platform, action="make a volume from a snapshot", reason=reason)
        what = f"snapshot {snapshot.snapshot_id}"
        with suppress(UnknownVolume):  # nobody knows any more what was on it
            self._refuse_other_filesystem(self._ledger.volume(snapshot.volume_id), what, profile)
        return Origin(what=what, platform=snapshot.platform, size_mib=snapshot.size_mib, snapshot=snapshot.external_id)

    def _cloned(self, name: str, profile: Profile) -> Origin:
        volume = self._ledger.volume(name)
        self._make_sure_it_clones(volume)
        what = f"volume {volume.name}"
        self._refuse_other_filesystem(volume, what, profile)
        return Origin(
            what=what,
            platform=volume.platform,
            size_mib=volume.size_mib,
            pool=volume.pool,
            source=volume.external_id,
        )

    def _refuse_other_filesystem(self, volume: Volume, what: str, profile: Profile) -> None:
        """A copy has the filesystem that was copied: by a profile of another it would never be mounted."""
        if self.platform(volume.platform).capabilities.device == "block" and volume.filesystem != profile.filesystem:
            reason = f"it makes {profile.filesystem}, {what} has {volume.filesystem}, and a copy of it will; name a profile of that"
            raise Invalid(field="profile", value=profile.name, reason=reason)

    def _make_sure_it_clones(self, volume: Volume) -> None:
        able = self.platform(volume.platform).capabilities
        instead = (
            f"; polly volume snapshot {volume.name} and polly volume create --snapshot can" if able.snapshots and able.restores else ""
        )
        reason = "" if able.clones else f"it does not clone volumes{instead}"
        if able.clones and (volume.external_id is None or volume.unborn):
            reason = "the volume was never used, so there is nothing on it"
        if reason:
            raise Unsupported(platform=volume.platform, action=f"clone volume {volume.name}", reason=reason)
        if volume.state is not VolumeState.AVAILABLE:
            raise Conflict(what=f"volume {volume.name}", expected=VolumeState.AVAILABLE, found=volume.state)
