"""What people ask to have done to volumes: create, delete, snapshot, expand, import.

Each verb stores its intent, calls the platform in a worker, and stores the result. An intent is given up only when the platform
surely did nothing of it; what a death of the broker or a platform's failure leaves half done is taken up by framework/janitor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from framework.config import Config
from framework.service import ImportOrder, VolumeOrder
from framework.workers import Outcome, Workers
from storage.errors import (
    Conflict,
    HasSnapshots,
    Invalid,
    PollyError,
    PoolFull,
    StaleEpoch,
    UnknownPlatform,
    UnknownSnapshot,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
from storage.filters import VolumeFilter
from storage.inventory import Ledger, NewVolume
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Pool, Profile, Snapshot, SnapshotId, Volume, VolumeId
from storage.platforms.base import Platform, SnapshotReport, VolumeReport

T = TypeVar("T")
Undo = Callable[[PollyError], None]

REFUSALS = (Conflict, HasSnapshots, Invalid, PoolFull, StaleEpoch, UnknownSnapshot, UnknownVolume, Unsupported, VolumeInUse)
"""With these a platform says that it did nothing. After any other error nobody knows, and the intent stands."""
MOST_MIB = 2**43
"""8 EiB."""


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
        self._under_way: dict[str, Future[Any]] = {}
        """What platforms are doing to volumes and snapshots whose intent is stored, by their ids."""

    def platform(self, name: str) -> Platform:
        """Raises UnknownPlatform."""
        try:
            return self._platforms[name]
        except KeyError:
            raise UnknownPlatform(platform=name) from None

    def is_under_way(self, volume_or_snapshot: str) -> bool:
        """Whether the platform is at work on the stored intent."""
        return volume_or_snapshot in self._under_way

    # --- create ---------------------------------------------------------------------------------

    def create(self, order: VolumeOrder, actor: str) -> Future[Volume]:
        """Takes capacity for a volume, empty or from a snapshot. It is made by its first claim, on the node."""
        profile, name = self._config.profile(order.profile), _checked_name(order.name)
        source = self._cloneable(order.snapshot) if order.snapshot is not None else None
        size_mib = _checked_size(order.size_mib or (source.size_mib if source else None), profile)
        if source and size_mib < source.size_mib:
            raise Invalid(field="size", value=f"{size_mib} MiB", reason=f"snapshot {source.snapshot_id} has {source.size_mib} MiB")
        pool = self._roomiest(profile, size_mib, source)
        with self._ledger.begin(actor) as tx:
            volume = tx.plan(self._new(name, profile, pool, size_mib, source), token=self._ids())
        self._changed([volume])
        return fulfilled(volume)

    def _cloneable(self, snapshot_id: SnapshotId) -> Snapshot:
        snapshot = self._ledger.snapshot(snapshot_id)
        clones = self.platform(snapshot.platform).capabilities.clones
        if not clones or snapshot.external_id is None or snapshot.state != "READY":
            reason = f"snapshot {snapshot.snapshot_id} is {snapshot.state}" if clones else "the platform has no clones"
            raise Unsupported(platform=snapshot.platform, action="make a volume from a snapshot", reason=reason)
        return snapshot

    def _new(self, name: str, profile: Profile, pool: Pool, size_mib: int, source: Snapshot | None) -> NewVolume:
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
            snapshot=source.external_id if source else None,
        )

    def _roomiest(self, profile: Profile, size_mib: int, source: Snapshot | None) -> Pool:
        pools = [pool for pool in self._ledger.pools(source.platform if source else None) if profile.qualifies(pool)]
        if not pools:
            where = f" on {source.platform}, where the snapshot is" if source else ""
            raise Invalid(field="profile", value=profile.name, reason=f"no pool{where} qualifies for it; see: polly inventory")
        best = max(pools, key=lambda pool: (pool.free_mib, pool.platform, pool.name))
        if best.free_mib < size_mib:
            raise PoolFull(pool=best.name, platform=best.platform, free_mib=best.free_mib, size_mib=size_mib)
        return best

    # --- delete ---------------------------------------------------------------------------------

    def delete(self, name: str, actor: str, *, keep_snapshots: bool = False, insist: bool = False) -> Future[None]:
        """Raises VolumeInUse while it is claimed, HasSnapshots unless they are kept, UnknownPlatform; for `insist` see go_on_deleting."""
        volume = self._ledger.volume(name)
        if volume.external_id is not None:
            self.platform(volume.platform)
        with self._ledger.begin(actor) as tx:
            if volume.external_id is None:
                tx.unplan(volume.volume_id)
            else:
                tx.deleting(volume.volume_id, keep_snapshots=keep_snapshots)
        self._changed([volume])
        if volume.external_id is None:
            return fulfilled(None)
        return self.go_on_deleting(volume, volume.external_id, actor, insist=insist)

    def go_on_deleting(self, volume: Volume, external_id: ExternalId, actor: str, *, insist: bool) -> Future[None]:
        """The platform's part of a delete whose intent is stored. A refusal gives the volume back.

        `insist`: that something still holds it is no refusal, for nothing that Polly knows does; it is to be tried again.
        """
        platform = self.platform(volume.platform)

        def job() -> None:
            try:
                platform.delete(external_id)
            except UnknownVolume:
                return

        def store(_: None) -> None:
            with self._ledger.begin(actor) as tx:
                tx.deleted(volume.volume_id)
            self._changed([volume])

        def undo(error: PollyError) -> None:
            if not (insist and isinstance(error, VolumeInUse)):
                with self._ledger.begin(actor) as tx:
                    tx.mend(volume.volume_id)
                self._changed([volume])

        return self._run_once(volume.volume_id, volume, job, store, undo)

    # --- snapshots ------------------------------------------------------------------------------

    def snapshot(self, name: str, label: str, actor: str) -> Future[Snapshot]:
        volume = self._ledger.volume(name)
        platform = self.platform(volume.platform)
        if not platform.capabilities.snapshots or volume.external_id is None or volume.unborn:
            reason = "the volume was never used, so there is nothing on it" if platform.capabilities.snapshots else "it has no snapshots"
            raise Unsupported(platform=volume.platform, action=f"make a snapshot of {volume.name}", reason=reason)
        if volume.state is not VolumeState.AVAILABLE:
            raise Conflict(what=f"volume {volume.name}", expected=VolumeState.AVAILABLE, found=volume.state)
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

        def job() -> SnapshotReport:
            if external is None:
                raise UnknownVolume(volume=volume.name)
            return platform.snapshot(external, token=planned.token, name=planned.name)

        def store(made: SnapshotReport) -> Snapshot:
            with self._ledger.begin(actor) as tx:
                tx.snapshot_made(planned.snapshot_id, made.external_id, made.size_mib, made.created_at)
            return self._ledger.snapshot(planned.snapshot_id)

        def undo(_: PollyError) -> None:
            with self._ledger.begin(actor) as tx:
                tx.snapshot_deleted(planned.snapshot_id)

        return self._run_once(planned.snapshot_id, volume, job, store, undo)

    def delete_snapshot(self, snapshot_id: SnapshotId, actor: str) -> Future[None]:
        """Raises Conflict for one that is being made, or that a volume which is not made yet starts from."""
        snapshot = self._ledger.snapshot(snapshot_id)
        self.platform(snapshot.platform)
        if snapshot.state == "PENDING":
            raise Conflict(what=f"snapshot {snapshot_id}", expected="READY", found="PENDING: the platform is still to make it")
        if heir := self._heir(snapshot):
            raise Conflict(what=f"snapshot {snapshot_id}", expected="needed by nothing", found=f"volume {heir.name}, which starts from it")
        with self._ledger.begin(actor) as tx:
            tx.snapshot_deleting(snapshot.snapshot_id)
        return self.go_on_deleting_snapshot(snapshot, actor)

    def _heir(self, snapshot: Snapshot) -> Volume | None:
        """A volume that is planned to start from it."""
        after: str | None = None
        while True:
            page = self._ledger.volumes(VolumeFilter(platform=snapshot.platform, state=VolumeState.PLANNED), after=after, limit=1000)
            if found := next((volume for volume in page.items if volume.snapshot == snapshot.external_id), None):
                return found
            after = page.after
            if after is None:
                return None

    def go_on_deleting_snapshot(self, snapshot: Snapshot, actor: str) -> Future[None]:
        """The platform's part of a snapshot's delete whose intent is stored; a failure leaves the intent."""
        platform, external = self.platform(snapshot.platform), snapshot.external_id

        def job() -> None:
            if external is not None:
                platform.delete_snapshot(external)

        def store(_: None) -> None:
            with self._ledger.begin(actor) as tx:
                tx.snapshot_deleted(snapshot.snapshot_id)

        return self._run_once(snapshot.snapshot_id, snapshot, job, store)

    # --- expand, import -------------------------------------------------------------------------

    def expand(self, name: str, size_mib: int, actor: str) -> Future[Volume]:
        """Capacity is taken first; the same call again goes on where the platform failed. The filesystem grows with the next mount."""
        volume = self._ledger.volume(name)
        platform, external = self.platform(volume.platform), volume.external_id
        if not 0 < size_mib <= MOST_MIB:
            raise Invalid(field="size", value=size_mib, reason="give the size in MiB, more than 0")
        if external is not None:
            self._make_sure_it_grows(volume, platform)
        wanted = platform.capabilities.fit(size_mib)
        with self._ledger.begin(actor) as tx:
            grown = tx.resize(volume.volume_id, wanted)
        self._changed([grown])
        if external is None:
            return fulfilled(grown)
        return self._run(volume.platform, f"volume {volume.volume_id}", lambda: platform.expand(external, wanted), lambda _: grown)

    def _make_sure_it_grows(self, volume: Volume, platform: Platform) -> None:
        is_claimed = bool(self._ledger.claims_on([volume.volume_id]))
        able = platform.capabilities.expand_attached if is_claimed else platform.capabilities.expand_detached
        if not able:
            reason = "its volumes keep their size while they are in use" if is_claimed else "its volumes keep their size"
            raise Unsupported(platform=volume.platform, action=f"expand volume {volume.name}", reason=reason)

    def adopt(self, order: ImportOrder, actor: str) -> Future[Volume]:
        """Takes over a volume that Polly did not make. Its filesystem is looked at, never made."""
        platform, profile = self.platform(order.platform), self._config.profile(order.profile)
        _checked_name(order.name)

        def store(report: VolumeReport) -> Volume:
            self._make_sure_it_stays(order.platform, report)
            pool = next((pool for pool in self._ledger.pools(order.platform) if pool.name == report.pool), None)
            with self._ledger.begin(actor) as tx:
                volume = tx.adopt(_imported(report, order, profile, VolumeId(self._ids()), pool, self._clock()))
            self._changed([volume])
            return volume

        key = f"import {order.platform} {order.external_id}"
        return self._run(order.platform, key, lambda: platform.inspect(ExternalId(order.external_id)), store)

    def _make_sure_it_stays(self, platform: str, report: VolumeReport) -> None:
        """What an unborn claim left behind is about to be deleted."""
        doomed = any(orphan.token == report.token for orphan in self._ledger.orphans() if orphan.platform == platform)
        if report.token and doomed:
            raise Conflict(what=f"volume {report.external_id}", expected="nobody's", found="Polly's own, never born and to be deleted")

    # --- how a platform is called ---------------------------------------------------------------

    def _run_once(
        self, subject: str, on: Volume | Snapshot, job: Callable[[], Any], store: Callable[[Any], T], undo: Undo | None = None
    ) -> Future[T]:
        """One call at a time for one stored intent: who asks again meanwhile waits for the same answer."""
        if under_way := self._under_way.get(subject):
            return under_way
        future = self._under_way[subject] = self._run(on.platform, f"volume {on.volume_id}", job, store, undo)
        future.add_done_callback(lambda _: self._under_way.pop(subject, None))
        return future

    def _run(self, platform: str, key: str, job: Callable[[], Any], store: Callable[[Any], T], undo: Undo | None = None) -> Future[T]:
        """Calls the platform in a worker, then stores the result; after a refusal undoes the intent and hands on the error."""
        future: Future[T] = Future()

        def done(outcome: Outcome[Any]) -> None:
            try:
                if undo is not None and isinstance(outcome.error, REFUSALS):
                    undo(outcome.error)
                value = store(outcome.get())
            except PollyError as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        self._workers.submit(platform, key, job, done)
        return future


def fulfilled(value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future


def _checked_name(name: str) -> str:
    if not name or len(name) > 255 or not name.isprintable():
        raise Invalid(field="name", value=name, reason="a name has 1 to 255 printable characters")
    return name


def _checked_size(size_mib: int | None, profile: Profile) -> int:
    if size_mib is None or not 0 < size_mib <= MOST_MIB:
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
