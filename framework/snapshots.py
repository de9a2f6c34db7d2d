"""What people ask to have done to snapshots: make one, delete one."""

from __future__ import annotations

from concurrent.futures import Future

from framework.origins import Origins
from framework.turning import InTurn
from storage.errors import Conflict, PollyError, UnknownSnapshot, UnknownVolume, Unsupported
from storage.model import Snapshot, SnapshotId
from storage.platforms.base import SnapshotReport


class Snapshots(Origins):
    """The verbs on snapshots."""

    def snapshot(self, name: str, label: str, actor: str) -> Future[Snapshot]:
        volume = self._ledger.volume(name)
        platform = self.platform(volume.platform)
        if not platform.capabilities.snapshots or volume.external_id is None or volume.unborn:
            reason = "the volume was never used, so there is nothing on it" if platform.capabilities.snapshots else "it has no snapshots"
            raise Unsupported(platform=volume.platform, action=f"make a snapshot of {volume.name}", reason=reason)
        token = self._ids()
        planned = Snapshot(
            snapshot_id=SnapshotId(token),
            volume_id=volume.volume_id,
            platform=volume.platform,
            external_id=None,
            size_mib=volume.size_mib,
            token=token,
            name=label,
            state="PENDING",
            created_at=self._clock(),
        )
        with self._ledger.begin(actor) as tx:
            tx.plan_snapshot(planned)
        return self.go_on_with_snapshot(planned, actor)

    def go_on_with_snapshot(self, planned: Snapshot, actor: str) -> Future[Snapshot]:
        """The platform's part of a snapshot whose intent is stored."""
        platform = self.platform(planned.platform)
        volume = self._ledger.volume(planned.volume_id)
        external = volume.external_id

        def job(turn: InTurn) -> SnapshotReport | None:
            if external is None:
                raise UnknownVolume(volume=volume.name)
            if self._ledger.snapshot(planned.snapshot_id).state != "PENDING":
                return None
            turn.check()
            return platform.snapshot(external, token=planned.token, name=planned.name)

        def store(made: SnapshotReport | None, turn: InTurn) -> Snapshot:
            if made is not None:
                with turn.begin(actor) as tx:
                    tx.snapshot_made(planned.snapshot_id, made.external_id, made.size_mib, made.created_at)
            return self._ledger.snapshot(planned.snapshot_id)

        def undo(_: PollyError, turn: InTurn) -> None:
            with turn.begin(actor) as tx:
                tx.snapshot_deleted(planned.snapshot_id)

        return self._run_once(planned.snapshot_id, volume, job, store, undo)

    def delete_snapshot(self, snapshot_id: SnapshotId, actor: str) -> Future[None]:
        """Raises Conflict for one that is being made, or that a volume begins with which was not mounted yet."""
        snapshot = self._ledger.snapshot(snapshot_id)
        self.platform(snapshot.platform)
        if snapshot.state == "PENDING":
            raise Conflict(what=f"snapshot {snapshot_id}", expected="READY", found="PENDING: the platform is still to make it")
        with self._ledger.begin(actor) as tx:
            tx.snapshot_deleting(snapshot.snapshot_id)
        return self.go_on_deleting_snapshot(snapshot, actor)

    def go_on_deleting_snapshot(self, snapshot: Snapshot, actor: str) -> Future[None]:
        """The platform's part of a snapshot's delete whose intent is stored; a failure leaves the intent."""
        platform, external = self.platform(snapshot.platform), snapshot.external_id

        def job(turn: InTurn) -> bool:
            try:
                self._ledger.snapshot(snapshot.snapshot_id)
            except UnknownSnapshot:
                return False
            if external is not None:
                turn.check()
                platform.delete_snapshot(external)
            return True

        def store(is_there: bool, turn: InTurn) -> None:
            if is_there:
                with turn.begin(actor) as tx:
                    tx.snapshot_deleted(snapshot.snapshot_id)

        return self._run_once(snapshot.snapshot_id, snapshot, job, store)
