"""What people ask to have done to volumes: create, delete, snapshot, expand, import.

Each verb stores its intent, calls the platform in a worker, and stores the result. What a death of the broker or a platform's
failure leaves half done is taken up again from the stored intent by framework/janitor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from framework.config import Config
from framework.service import ImportOrder, VolumeOrder
from framework.workers import Outcome, Workers
from storage.errors import Invalid, PollyError, PoolFull, UnknownPlatform, UnknownVolume, Unsupported
from storage.inventory import Ledger, NewVolume
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Pool, Profile, Snapshot, SnapshotId, Volume, VolumeId
from storage.platforms.base import CreateRequest, Platform, SnapshotReport, VolumeReport

T = TypeVar("T")


class Volumes:
    """All methods are the broker thread's; the futures that they return are fulfilled there too."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        platforms: Mapping[str, Platform],
        workers: Workers,
        *,
        clock: Callable[[], float],
        ids: Callable[[], str],
        changed: Callable[[Sequence[Volume]], None],
    ) -> None:
        self._config, self._ledger, self._platforms, self._workers = config, ledger, platforms, workers
        self._clock, self._ids, self._changed = clock, ids, changed

    def platform(self, name: str) -> Platform:
        """Raises UnknownPlatform."""
        try:
            return self._platforms[name]
        except KeyError:
            raise UnknownPlatform(platform=name) from None

    # --- create ---------------------------------------------------------------------------------

    def create(self, order: VolumeOrder, actor: str) -> Future[Volume]:
        """Takes capacity for a volume. An empty one is made by its first claim, on the node; one from a snapshot is made at once."""
        profile = self._config.profile(order.profile)
        if order.snapshot is not None:
            return self._restore(order, profile, self._ledger.snapshot(order.snapshot), actor)
        size_mib = _checked_size(order.size_mib, profile)
        pool = self._roomiest(profile, size_mib)
        with self._ledger.begin(actor) as tx:
            volume = tx.plan(self._new(order.name, profile, pool, size_mib), token=self._ids())
        self._changed([volume])
        return fulfilled(volume)

    def _new(self, name: str, profile: Profile, pool: Pool, size_mib: int, snapshot: ExternalId | None = None) -> NewVolume:
        return NewVolume(
            volume_id=VolumeId(self._ids()),
            name=name,
            platform=pool.platform,
            pool=pool.name,
            size_mib=size_mib,
            profile=profile.name,
            access_mode=profile.access_mode,
            filesystem=profile.filesystem,
            region=pool.region,
            zone=pool.zone,
            labels=profile.labels,
            snapshot=snapshot,
        )

    def _roomiest(self, profile: Profile, size_mib: int) -> Pool:
        pools = [pool for pool in self._ledger.pools() if profile.qualifies(pool)]
        if not pools:
            raise Invalid(field="profile", value=profile.name, reason="no pool qualifies for it; see: polly inventory")
        best = max(pools, key=lambda pool: (pool.free_mib, pool.platform, pool.name))
        if best.free_mib < size_mib:
            raise PoolFull(pool=best.name, platform=best.platform, free_mib=best.free_mib, size_mib=size_mib)
        return best

    def _restore(self, order: VolumeOrder, profile: Profile, snapshot: Snapshot, actor: str) -> Future[Volume]:
        platform = self.platform(snapshot.platform)
        pool = self._pool_of(snapshot, profile)
        if not platform.capabilities.clones or snapshot.external_id is None:
            reason = "the platform has no clones" if snapshot.external_id else f"snapshot {snapshot.snapshot_id} is {snapshot.state}"
            raise Unsupported(platform=snapshot.platform, action="make a volume from a snapshot", reason=reason)
        size_mib = _checked_size(order.size_mib or snapshot.size_mib, profile)
        token, external = self._ids(), snapshot.external_id
        with self._ledger.begin(actor) as tx:
            planned = tx.plan(self._new(order.name, profile, pool, size_mib, external), token=token)
        request = CreateRequest(
            pool=pool.name,
            size_mib=size_mib,
            token=token,
            name=order.name,
            snapshot=external,
            parameters=profile.parameters,
            labels=profile.labels,
        )

        def store(report: VolumeReport) -> Volume:
            made = replace(planned, external_id=report.external_id, size_mib=report.size_mib, state=VolumeState.AVAILABLE, token="")
            with self._ledger.begin(actor) as tx:
                tx.unplan(planned.volume_id)
                tx.drop_orphan(planned.platform, token)
                return tx.adopt(made)

        def undo() -> None:
            with self._ledger.begin(actor) as tx:
                tx.unplan(planned.volume_id)

        return self._run(f"volume {planned.volume_id}", lambda: platform.create(request), store, undo)

    def _pool_of(self, snapshot: Snapshot, profile: Profile) -> Pool:
        pools = [pool for pool in self._ledger.pools(snapshot.platform) if profile.qualifies(pool)]
        if not pools:
            raise Invalid(field="profile", value=profile.name, reason=f"none of its pools is on {snapshot.platform}, where the snapshot is")
        return max(pools, key=lambda pool: (pool.free_mib, pool.name))

    # --- delete, snapshot, expand, import -------------------------------------------------------

    def delete(self, name: str, actor: str, *, keep_snapshots: bool = False) -> Future[None]:
        """Raises VolumeInUse while it is claimed, and HasSnapshots unless those are to be kept."""
        volume = self._ledger.volume(name)
        with self._ledger.begin(actor) as tx:
            if volume.external_id is None:
                tx.unplan(volume.volume_id)
            else:
                tx.deleting(volume.volume_id, keep_snapshots=keep_snapshots)
        self._changed([volume])
        return fulfilled(None) if volume.external_id is None else self.go_on_deleting(volume, volume.external_id, actor)

    def go_on_deleting(self, volume: Volume, external_id: ExternalId, actor: str) -> Future[None]:
        """The platform's part of a delete whose intent is stored. A refusal gives the volume back."""
        platform = self.platform(volume.platform)

        def job() -> None:
            try:
                platform.delete(external_id)
            except UnknownVolume:
                return

        def store(_: None) -> None:
            with self._ledger.begin(actor) as tx:
                tx.deleted(volume.volume_id)

        def undo() -> None:
            with self._ledger.begin(actor) as tx:
                tx.mend(volume.volume_id)

        return self._run(f"volume {volume.volume_id}", job, store, undo)

    def snapshot(self, name: str, label: str, actor: str) -> Future[Snapshot]:
        volume = self._ledger.volume(name)
        platform, external = self.platform(volume.platform), volume.external_id
        if not platform.capabilities.snapshots or external is None:
            reason = "the platform has no snapshots" if external else "the volume was never used, so it is not made yet"
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

        def store(made: SnapshotReport) -> Snapshot:
            with self._ledger.begin(actor) as tx:
                tx.snapshot_made(planned.snapshot_id, made.external_id, made.size_mib, made.created_at)
            return self._ledger.snapshot(planned.snapshot_id)

        def undo() -> None:
            with self._ledger.begin(actor) as tx:
                tx.snapshot_deleted(planned.snapshot_id)

        return self._run(f"volume {volume.volume_id}", lambda: platform.snapshot(external, token=token, name=label), store, undo)

    def delete_snapshot(self, snapshot_id: SnapshotId, actor: str) -> Future[None]:
        snapshot = self._ledger.snapshot(snapshot_id)
        platform, external = self.platform(snapshot.platform), snapshot.external_id
        with self._ledger.begin(actor) as tx:
            tx.snapshot_deleting(snapshot.snapshot_id)

        def job() -> None:
            if external is not None:
                platform.delete_snapshot(external)

        def store(_: None) -> None:
            with self._ledger.begin(actor) as tx:
                tx.snapshot_deleted(snapshot.snapshot_id)

        return self._run(f"volume {snapshot.volume_id}", job, store)

    def expand(self, name: str, size_mib: int, actor: str) -> Future[Volume]:
        """Capacity is taken first; the same call again goes on where the platform failed. The filesystem grows with the next mount."""
        volume = self._ledger.volume(name)
        platform, external = self.platform(volume.platform), volume.external_id
        with self._ledger.begin(actor) as tx:
            grown = tx.resize(volume.volume_id, size_mib)
        self._changed([grown])
        if external is None:
            return fulfilled(grown)
        return self._run(f"volume {volume.volume_id}", lambda: platform.expand(external, size_mib), lambda _: grown)

    def adopt(self, order: ImportOrder, actor: str) -> Future[Volume]:
        """Takes over a volume that Polly did not make. Its filesystem is looked at, never made."""
        platform, profile = self.platform(order.platform), self._config.profile(order.profile)

        def store(report: VolumeReport) -> Volume:
            pool = next((pool for pool in self._ledger.pools(order.platform) if pool.name == report.pool), None)
            with self._ledger.begin(actor) as tx:
                volume = tx.adopt(_imported(report, order, profile, VolumeId(self._ids()), pool, self._clock()))
            self._changed([volume])
            return volume

        return self._run(f"import {order.platform} {order.external_id}", lambda: platform.inspect(ExternalId(order.external_id)), store)

    def _run(self, key: str, job: Callable[[], Any], store: Callable[[Any], T], undo: Callable[[], None] | None = None) -> Future[T]:
        """Calls the platform in a worker, then stores the result, or undoes the intent and hands on the error."""
        future: Future[T] = Future()

        def done(outcome: Outcome[Any]) -> None:
            try:
                if outcome.error is not None and undo is not None:
                    undo()
                future.set_result(store(outcome.get()))
            except PollyError as error:
                future.set_exception(error)

        self._workers.submit(key, job, done)
        return future


def fulfilled(value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future


def _checked_size(size_mib: int | None, profile: Profile) -> int:
    if size_mib is None or size_mib <= 0:
        raise Invalid(field="size", value=size_mib, reason="give the size in MiB, more than 0")
    if size_mib < profile.min_mib or (profile.max_mib is not None and size_mib > profile.max_mib):
        top = "no maximum" if profile.max_mib is None else f"{profile.max_mib} MiB"
        raise Invalid(field="size", value=f"{size_mib} MiB", reason=f"profile {profile.name} allows {profile.min_mib} MiB to {top}")
    return size_mib


def _imported(report: VolumeReport, order: ImportOrder, profile: Profile, volume_id: VolumeId, pool: Pool | None, now: float) -> Volume:
    return Volume(
        volume_id=volume_id,
        name=order.name,
        platform=order.platform,
        pool=report.pool,
        size_mib=report.size_mib,
        profile=profile.name,
        state=VolumeState.AVAILABLE,
        external_id=report.external_id,
        epoch=report.epoch,
        access_mode=profile.access_mode,
        filesystem=profile.filesystem,
        birth=report.birth,
        region=pool.region if pool else "",
        zone=report.zone or (pool.zone if pool else ""),
        labels={**profile.labels, **report.labels},
        created_at=now,
    )
