"""Snapshots of local volumes, new volumes from them, and clones.

A snapshot or a clone is a copy in its own right. Where the filesystem shares extents it is taken in one moment, of a volume in use too,
and is then what a crash at that moment would have left. Elsewhere it is copied piece by piece, which is only sound while
nobody writes: the volume's lock is shared for that time, and of a volume in use for writing it is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from storage.errors import Invalid, UnknownSnapshot, UnknownVolume, Unsupported
from storage.model import ExternalId, Page
from storage.platforms.base import SnapshotReport
from storage.platforms.local import layout
from storage.platforms.local.failures import filling
from storage.platforms.local.folders import Folder, locked
from storage.platforms.local.layout import Spot, car_name
from storage.platforms.local.records import Known, Records
from storage.platforms.local.sidecar import SnapshotCar, encode_car, read_car
from storage.platforms.local.store import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    records: Records
    clock: Callable[[], float]

    def take(self, external_id: ExternalId, token: str, name: str) -> SnapshotReport:
        """Raises UnknownVolume, Unsupported where it is in use and cannot be copied so, PoolFull."""
        spot = layout.snapshot_spot(layout.snapshot_id(external_id, token))
        if spot is None:
            raise UnknownVolume(volume=external_id)
        with self.records.known(external_id) as known:
            pool, size_mib = known.pool, self.records.size_mib(known)
            if made := self._existing(known.root, spot):
                return made
        car = SnapshotCar(volume=external_id, token=token, name=name, size_mib=size_mib, created_at=self.clock())
        store = self.records.store
        with store.opened() as root, filling(self.records.platform, pool, size_mib), store.staging(root, pool) as stage:
            self._copy(external_id, stage, spot.stem, verb="snapshot")
            stage.write(car_name(spot.stem), encode_car(car))
            return self._publish(external_id, stage, spot)

    def clone(self, source: ExternalId, stage: Folder, stem: str, size_mib: int) -> None:
        """Puts a copy on the stage as the data of a new volume. Raises as `take` does."""
        self._copy(source, stage, stem, verb="clone")
        self.records.format.grow(stage, stem, size_mib)

    def _copy(self, external_id: ExternalId, stage: Folder, stem: str, *, verb: str) -> None:
        form = self.records.format
        with contextlib.ExitStack() as quiet:
            with self.records.known(external_id) as known:
                if form.instant(known.folder, known.stem, stage, stem):
                    return
                quiet.enter_context(self._nobody_writes(known, verb))
                folder = quiet.enter_context(Folder(os.dup(known.folder.fd), known.folder.path))
            form.copy(folder, external_id, stage, stem)

    @contextlib.contextmanager
    def _nobody_writes(self, known: Known, verb: str) -> Iterator[None]:
        lock = self.records.format.lock(known.folder, known.stem, read_only=True)
        try:
            if not locked(lock, fcntl.LOCK_SH):
                raise self._in_use(known, verb)
            yield
            fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            os.close(lock)

    def _in_use(self, known: Known, verb: str) -> Unsupported:
        who = ", ".join(self.records.holders(known))
        reason = f"{who} uses it, and the filesystem of {known.folder.path} cannot copy it in one moment (btrfs and xfs can)"
        return Unsupported(platform=self.records.platform, action=f"{verb} volume {known.stem} now", reason=reason)

    def _publish(self, external_id: ExternalId, stage: Folder, spot: Spot) -> SnapshotReport:
        with self.records.known(external_id) as known:
            if made := self._existing(known.root, spot):
                return made
            stage.move(car_name(spot.stem), known.folder, car_name(spot.stem))
            suffix = self.records.format.suffix
            stage.move(spot.stem + suffix, known.folder, spot.stem + suffix)
            known.folder.sync()
            found = Found(spot=spot, pool=known.pool, folder=known.folder)
            return self._report(found)

    def _existing(self, root: Folder, spot: Spot) -> SnapshotReport | None:
        with self.records.store.find(root, spot) as found:
            return self._report(found) if found else None

    def _car(self, found: Found) -> SnapshotCar:
        car = read_car(SnapshotCar, found.folder, car_name(found.spot.stem), platform=self.records.platform)
        if car is None:
            raise UnknownSnapshot(snapshot=found.spot.stem)
        return car

    def _report(self, found: Found) -> SnapshotReport:
        car = self._car(found)
        return SnapshotReport(
            external_id=ExternalId(found.spot.stem),
            volume=ExternalId(car.volume),
            size_mib=car.size_mib,
            token=car.token,
            created_at=car.created_at,
        )

    def page(self, after: str | None, limit: int) -> Page[SnapshotReport]:
        store = self.records.store
        with store.opened() as root:
            spots, last = store.page(root, after, limit, wanted=layout.snapshot_spot)
            reports = [self._existing(root, spot) for spot in spots]
        return Page(items=[report for report in reports if report], after=last)

    def delete(self, snapshot: ExternalId) -> None:
        spot = layout.snapshot_spot(snapshot)
        if spot is None:
            return
        store = self.records.store
        with store.guard(spot.shard) as root, store.find(root, spot) as found:
            if found is not None:
                found.folder.remove(spot.stem + self.records.format.suffix)
                for name in self.records.beside(spot.stem):
                    found.folder.remove(name)
                found.folder.sync()
                return
        self.records.clear(spot)

    def restore(self, snapshot: ExternalId, stage: Folder, stem: str, size_mib: int) -> None:
        """Puts a copy on the stage as the data of a new volume. Raises UnknownSnapshot, and Invalid for a volume smaller than that."""
        store = self.records.store
        with store.opened() as root, store.find(root, layout.snapshot_spot(snapshot)) as found:
            if found is None:
                raise UnknownSnapshot(snapshot=snapshot)
            car = self._car(found)
            if size_mib < car.size_mib:
                reason = f"snapshot {snapshot} has {car.size_mib} MiB, a volume from it has at least that"
                raise Invalid(field="size_mib", value=size_mib, reason=reason)
            form = self.records.format
            if not form.instant(found.folder, found.spot.stem, stage, stem):
                form.copy(found.folder, found.spot.stem, stage, stem)
        form.grow(stage, stem, size_mib)
