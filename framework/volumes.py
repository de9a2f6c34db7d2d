"""What is done to volumes apart from claims: create, delete, snapshot, expand, import, and the reclaiming of what nobody needs.

Each verb stores its intent, calls the platform in a worker, and stores the result. What a death of the broker or a platform's
failure leaves half done is taken up again from the stored intent by `resume`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from storage.inventory import Ledger, NewVolume, Orphan, VolumeFilter

from framework.config import Config
from framework.service import ImportOrder, VolumeOrder
from framework.workers import Outcome, Workers
from storage.errors import Invalid, PollyError, PoolFull, UnknownPlatform, UnknownVolume, Unsupported
from storage.lifecycle import VolumeState
from storage.model import AccessMode, ExternalId, Pool, Profile, ReclaimPolicy, Snapshot, SnapshotId, Volume, VolumeId
from storage.platforms.base import CreateRequest, Platform, PoolReport, SnapshotReport, VolumeReport

logger = logging.getLogger(__name__)
T = TypeVar("T")
Reply = Callable[[Outcome[T]], None]


class Volumes:
    """All methods are the broker thread's; replies come there too."""

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
        self._busy: set[str] = set()

    def platform(self, name: str) -> Platform:
        """Raises UnknownPlatform."""
        try:
            return self._platforms[name]
        except KeyError:
            raise UnknownPlatform(platform=name) from None

    def create(self, wanted: VolumeOrder, actor: str, reply: Reply[Volume]) -> None:
        """Takes capacity for a volume. An empty one is made by its first claim, on the node; one from a snapshot is made at once."""
        profile = self._config.profile(wanted.profile)
        if wanted.snapshot is not None:
            self._restore(wanted, profile, self._ledger.snapshot(wanted.snapshot), actor, reply)
            return
        size_mib = _checked_size(wanted.size_mib, profile)
        pool = self._roomiest(profile, size_mib)
        with self._ledger.begin(actor) as tx:
            volume = tx.plan(self._new(wanted.name, profile, pool, size_mib), token=self._ids())
        self._changed([volume])
        reply(Outcome(volume))

    def _new(self, name: str, profile: Profile, pool: Pool, size_mib: int) -> NewVolume:
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
        )

    def _roomiest(self, profile: Profile, size_mib: int) -> Pool:
        pools = [pool for pool in self._ledger.pools() if profile.qualifies(pool)]
        if not pools:
            raise Invalid(field="profile", value=profile.name, reason="no pool qualifies for it; see: polly inventory")
        best = max(pools, key=lambda pool: (pool.free_mib, pool.platform, pool.name))
        if best.free_mib < size_mib:
            raise PoolFull(pool=best.name, platform=best.platform, free_mib=best.free_mib, size_mib=size_mib)
        return best

    def _restore(self, wanted: VolumeOrder, profile: Profile, snapshot: Snapshot, actor: str, reply: Reply[Volume]) -> None:
        source = self._ledger.volume(snapshot.volume_id)
        platform = self.platform(snapshot.platform)
        size_mib = _checked_size(wanted.size_mib or snapshot.size_mib, profile)
        pool = next((p for p in self._ledger.pools(snapshot.platform) if p.name == source.pool), None)
        if not platform.capabilities.clones or pool is None or snapshot.external_id is None:
            raise Unsupported(
                platform=snapshot.platform, action="make a volume from a snapshot", reason="it has no clones, or the pool is gone"
            )
        token, external = self._ids(), snapshot.external_id
        with self._ledger.begin(actor) as tx:
            planned = tx.plan(self._new(wanted.name, profile, pool, size_mib), token=token)
        request = CreateRequest(pool=pool.name, size_mib=size_mib, token=token, name=wanted.name, snapshot=external, labels=profile.labels)

        def done(outcome: Outcome[VolumeReport]) -> None:
            with self._ledger.begin(actor) as tx:
                tx.unplan(planned.volume_id)
                volume = tx.adopt(_adopted(outcome.get(), planned.name, planned, source)) if outcome.error is None else None
                tx.drop_orphan(planned.platform, token) if volume else None
            reply(Outcome(volume) if volume else Outcome(error=outcome.error))

        self._run(f"volume {planned.volume_id}", lambda: platform.create(request), done, reply)

    def delete(self, name: str, actor: str, reply: Reply[None]) -> None:
        volume = self._ledger.volume(name)
        with self._ledger.begin(actor) as tx:
            if volume.external_id is None:
                tx.unplan(volume.volume_id)
            else:
                tx.deleting(volume.volume_id)
        self._changed([volume])
        if volume.external_id is None:
            reply(Outcome(None))
        else:
            self._delete(volume, volume.external_id, actor, reply)

    def _delete(self, volume: Volume, external_id: ExternalId, actor: str, reply: Reply[None]) -> None:
        platform = self.platform(volume.platform)

        def done(outcome: Outcome[None]) -> None:
            with self._ledger.begin(actor) as tx:
                if outcome.error is None or isinstance(outcome.error, UnknownVolume):
                    tx.deleted(volume.volume_id)
                    reply(Outcome(None))
                    return
                tx.mend(volume.volume_id)
            reply(outcome)

        self._run(f"volume {volume.volume_id}", lambda: platform.delete(external_id), done, reply)

    def snapshot(self, name: str, label: str, actor: str, reply: Reply[Snapshot]) -> None:
        volume = self._ledger.volume(name)
        platform = self.platform(volume.platform)
        if not platform.capabilities.snapshots or volume.external_id is None:
            raise Unsupported(platform=volume.platform, action="snapshot", reason="it has no snapshots, or the volume is not made yet")
        snapshot = self._plan_snapshot(volume, label, actor)
        self._snapshot(platform, volume.external_id, snapshot, actor, reply)

    def _plan_snapshot(self, volume: Volume, label: str, actor: str) -> Snapshot:
        token = self._ids()
        snapshot = Snapshot(
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
            tx.plan_snapshot(snapshot)
        return snapshot

    def _snapshot(self, platform: Platform, external: ExternalId, snapshot: Snapshot, actor: str, reply: Reply[Snapshot]) -> None:
        def done(outcome: Outcome[SnapshotReport]) -> None:
            if outcome.error is None:
                made = outcome.get()
                with self._ledger.begin(actor) as tx:
                    tx.snapshot_made(snapshot.snapshot_id, made.external_id, made.size_mib, made.created_at)
                reply(Outcome(self._ledger.snapshot(snapshot.snapshot_id)))
            else:
                with self._ledger.begin(actor) as tx:
                    tx.snapshot_deleted(snapshot.snapshot_id)
                reply(Outcome(error=outcome.error))

        job = f"volume {snapshot.volume_id}"
        self._run(job, lambda: platform.snapshot(external, token=snapshot.token, name=snapshot.name), done, reply)

    def delete_snapshot(self, name: str, actor: str, reply: Reply[None]) -> None:
        snapshot = self._ledger.snapshot(SnapshotId(name))
        platform = self.platform(snapshot.platform)
        with self._ledger.begin(actor) as tx:
            tx.snapshot_deleting(snapshot.snapshot_id)

        def done(outcome: Outcome[None]) -> None:
            if outcome.error is None:
                with self._ledger.begin(actor) as tx:
                    tx.snapshot_deleted(snapshot.snapshot_id)
            reply(outcome)

        external = snapshot.external_id
        self._run(f"volume {snapshot.volume_id}", lambda: platform.delete_snapshot(external) if external else None, done, reply)

    def expand(self, name: str, size_mib: int, actor: str, reply: Reply[Volume]) -> None:
        """Capacity is taken first; the same call again goes on where the platform failed. The filesystem grows with the next mount."""
        volume = self._ledger.volume(name)
        platform, external = self.platform(volume.platform), volume.external_id
        with self._ledger.begin(actor) as tx:
            grown = tx.resize(volume.volume_id, size_mib)
        self._changed([grown])
        if external is None:
            reply(Outcome(grown))
            return

        def done(outcome: Outcome[VolumeReport]) -> None:
            reply(Outcome(grown) if outcome.error is None else Outcome(error=outcome.error))

        self._run(f"volume {volume.volume_id}", lambda: platform.expand(external, size_mib), done, reply)

    def adopt(self, order: ImportOrder, actor: str, reply: Reply[Volume]) -> None:
        """Takes over a volume that Polly did not make. Its filesystem is looked at, never made."""
        where, by = self.platform(order.platform), self._config.profile(order.profile)

        def done(outcome: Outcome[VolumeReport]) -> None:
            report = outcome.get()
            pool = next((p for p in self._ledger.pools(order.platform) if p.name == report.pool), None)
            volume = _imported(report, order, by, VolumeId(self._ids()), pool, self._clock())
            with self._ledger.begin(actor) as tx:
                adopted = tx.adopt(volume)
            self._changed([adopted])
            reply(Outcome(adopted))

        self._run(f"import {order.platform} {order.external_id}", lambda: where.inspect(ExternalId(order.external_id)), done, reply)

    def reclaim(self, owner: str, actor: str) -> None:
        """What becomes of the volumes of an app that is deleted: as the reclaim policy of each one's profile says."""
        for volume in self._owned(owner):
            profile = self._config.profiles.get(volume.profile)
            policy = profile.reclaim if profile else ReclaimPolicy.RETAIN
            if volume.external_id is None or volume.birth is None:
                with self._ledger.begin(actor) as tx:
                    tx.unplan(volume.volume_id)
            elif policy is ReclaimPolicy.DELETE:
                self._try(lambda volume=volume: self.delete(volume.volume_id, actor, _log_failure))  # type: ignore[misc]
            elif policy is ReclaimPolicy.SNAPSHOT_THEN_DELETE:
                self._try(lambda volume=volume: self._snapshot_then_delete(volume, actor))  # type: ignore[misc]

    def _snapshot_then_delete(self, volume: Volume, actor: str) -> None:
        self.snapshot(volume.name, f"before deleting {volume.owner}", actor, _log_failure)

    def _owned(self, owner: str) -> list[Volume]:
        found, after = [], None
        while True:
            page = self._ledger.volumes(VolumeFilter(owner=owner), after=after, limit=1000)
            found.extend(page.items)
            after = page.after
            if after is None:
                return found

    def resume(self) -> None:
        """Goes on with every stored intent: volumes to delete, and what unborn claims have left on the platforms."""
        for volume in self._ledger.volumes(VolumeFilter(state=VolumeState.DELETING), limit=1000).items:
            if volume.external_id and volume.volume_id not in self._busy:
                self._try(lambda v=volume, e=volume.external_id: self._delete(v, e, "broker", _log_failure))  # type: ignore[misc]
        for orphan in self._ledger.orphans():
            if orphan.token not in self._busy and orphan.platform in self._platforms:
                self._discard(orphan)

    def _discard(self, orphan: Orphan) -> None:
        platform = self._platforms[orphan.platform]
        self._busy.add(orphan.token)

        def job() -> None:
            if found := platform.find(orphan.token):
                platform.delete(found.external_id)

        def done(outcome: Outcome[None]) -> None:
            self._busy.discard(orphan.token)
            if outcome.error is None:
                with self._ledger.begin("broker") as tx:
                    tx.drop_orphan(orphan.platform, orphan.token)
            else:
                logger.warning("what the token %s made on %s cannot be deleted yet: %s", orphan.token, orphan.platform, outcome.error)

        self._workers.submit(f"orphan {orphan.token}", job, done)

    def sync_pools(self) -> None:
        """Asks every platform for its pools' capacity, each in its turn."""
        for name, platform in self._platforms.items():
            if name not in self._busy:
                self._busy.add(name)
                self._workers.submit(f"platform {name}", platform.pools, lambda outcome, name=name: self._synced(name, outcome))  # type: ignore[misc]

    def _synced(self, name: str, outcome: Outcome[Sequence[PoolReport]]) -> None:
        self._busy.discard(name)
        if outcome.error is not None:
            logger.warning("the pools of platform %s cannot be read: %s", name, outcome.error)
            return
        self.store_pools(name, outcome.get())

    def store_pools(self, name: str, reports: Sequence[PoolReport]) -> None:
        """What a platform says of its pools, with what polly.toml says of them."""
        keys = self._config.platforms[name].keys
        pools = [report.name for report in reports]
        with self._ledger.begin("broker") as tx:
            tx.sync_pools(
                name, reports, reserve_mib=dict.fromkeys(pools, keys.reserve_mib), overcommit=dict.fromkeys(pools, keys.overcommit)
            )

    def _run(self, key: str, job: Callable[[], T], done: Callable[[Outcome[T]], None], reply: Reply[object]) -> None:
        """Runs a job; an error of its own or of storing its result goes to the one who asked."""
        self._busy.add(key)

        def finished(outcome: Outcome[T]) -> None:
            self._busy.discard(key)
            try:
                done(outcome)
            except PollyError as error:
                reply(Outcome(error=error))

        self._workers.submit(key, job, finished)

    def _try(self, verb: Callable[[], None]) -> None:
        try:
            verb()
        except PollyError as error:
            logger.warning("%s", error)


def _log_failure(outcome: Outcome[object]) -> None:
    if outcome.error is not None:
        logger.warning("%s", outcome.error)


def _checked_size(size_mib: int | None, profile: Profile) -> int:
    if size_mib is None or size_mib <= 0:
        raise Invalid(field="size", value=size_mib, reason="give the size in MiB, more than 0")
    if size_mib < profile.min_mib or (profile.max_mib is not None and size_mib > profile.max_mib):
        top = "no maximum" if profile.max_mib is None else f"{profile.max_mib} MiB"
        raise Invalid(field="size", value=f"{size_mib} MiB", reason=f"profile {profile.name} allows {profile.min_mib} MiB to {top}")
    return size_mib


def _adopted(report: VolumeReport, name: str, planned: Volume, source: Volume) -> Volume:
    return replace(
        planned,
        name=name,
        external_id=report.external_id,
        size_mib=report.size_mib,
        state=VolumeState.AVAILABLE,
        token="",
        filesystem=source.filesystem,
    )


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
        access_mode=AccessMode(profile.access_mode),
        filesystem=profile.filesystem,
        birth=report.birth,
        region=pool.region if pool else "",
        zone=report.zone or (pool.zone if pool else ""),
        labels={**profile.labels, **report.labels},
        created_at=now,
    )
