"""What the broker does by itself to volumes and pools: reclaim those of deleted apps, go on with stored intents, delete what unborn
claims left behind, and keep the pools' capacity up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from framework.config import Config
from framework.volumes import Volumes
from framework.workers import Outcome, Workers
from storage.errors import PollyError
from storage.filters import VolumeFilter
from storage.inventory import Ledger, Orphan
from storage.lifecycle import VolumeState
from storage.model import ReclaimPolicy, Volume
from storage.platforms.base import Platform, PoolReport

logger = logging.getLogger(__name__)

ACTOR = "broker"


class Janitor:
    """The broker thread's own. Nothing here raises PollyError: what fails is logged, and tried again by `resume`."""

    def __init__(self, config: Config, ledger: Ledger, platforms: dict[str, Platform], volumes: Volumes, workers: Workers) -> None:
        self._config, self._ledger, self._platforms, self._volumes, self._workers = config, ledger, platforms, volumes, workers
        self._busy: set[str] = set()

    def reclaim(self, owner: str) -> None:
        """What becomes of the volumes of an app that is deleted: as the reclaim policy of each one's profile says."""
        for volume in list(self._all(VolumeFilter(owner=owner))):
            profile = self._config.profiles.get(volume.profile)
            policy = profile.reclaim if profile else ReclaimPolicy.RETAIN
            if policy is ReclaimPolicy.SNAPSHOT_THEN_DELETE and volume.birth is not None:
                self._snapshot_then_delete(volume)
            elif policy is not ReclaimPolicy.RETAIN or volume.birth is None:
                self._try(volume.name, lambda volume=volume: self._volumes.delete(volume.volume_id, ACTOR))  # type: ignore[misc]

    def _snapshot_then_delete(self, volume: Volume) -> None:
        def delete(snapshot: Future[Any]) -> None:
            if snapshot.exception() is None:
                self._try(volume.name, lambda: self._volumes.delete(volume.volume_id, ACTOR, keep_snapshots=True))

        label = f"before {volume.owner} was deleted"
        if future := self._try(volume.name, lambda: self._volumes.snapshot(volume.volume_id, label, ACTOR)):
            future.add_done_callback(delete)

    def resume(self) -> bool:
        """Goes on with every stored intent. Returns whether there was one."""
        doomed, orphans = list(self._all(VolumeFilter(state=VolumeState.DELETING))), self._ledger.orphans()
        for volume in doomed:
            if volume.external_id and f"delete {volume.volume_id}" not in self._busy:
                self._go_on_deleting(volume)
        for orphan in orphans:
            if orphan.token not in self._busy and orphan.platform in self._platforms:
                self._discard(orphan)
        return bool(doomed or orphans)

    def _go_on_deleting(self, volume: Volume) -> None:
        key, external = f"delete {volume.volume_id}", volume.external_id
        if external is None:
            return
        self._busy.add(key)
        future = self._try(volume.name, lambda: self._volumes.go_on_deleting(volume, external, ACTOR))
        if future is None:
            self._busy.discard(key)
        else:
            future.add_done_callback(lambda _: self._busy.discard(key))

    def _discard(self, orphan: Orphan) -> None:
        """Deletes what a token made that no birth certificate was ever stored of: no task ever used it."""
        platform = self._platforms[orphan.platform]
        self._busy.add(orphan.token)

        def job() -> None:
            if found := platform.find(orphan.token):
                platform.delete(found.external_id)

        def done(outcome: Outcome[None]) -> None:
            self._busy.discard(orphan.token)
            if outcome.error is None:
                with self._ledger.begin(ACTOR) as tx:
                    tx.drop_orphan(orphan.platform, orphan.token)
            else:
                logger.warning("what token %s made on %s cannot be deleted yet: %s", orphan.token, orphan.platform, outcome.error)

        self._workers.submit(f"orphan {orphan.token}", job, done)

    def sync_pools(self) -> None:
        """Asks every platform for its pools' capacity, in workers."""
        for name, platform in self._platforms.items():
            if f"pools {name}" not in self._busy:
                self._busy.add(f"pools {name}")
                self._workers.submit(f"pools {name}", platform.pools, self._synced(name))

    def _synced(self, name: str) -> Callable[[Outcome[Sequence[PoolReport]]], None]:
        def done(outcome: Outcome[Sequence[PoolReport]]) -> None:
            self._busy.discard(f"pools {name}")
            if outcome.error is not None:
                logger.warning("the pools of platform %s cannot be read: %s", name, outcome.error)
            else:
                self._store_pools(name, outcome.get())

        return done

    def sync_pools_now(self) -> None:
        """Before the first offer: without pools nothing could be placed."""
        for name, platform in self._platforms.items():
            try:
                self._store_pools(name, platform.pools())
            except PollyError as error:
                logger.warning("the pools of platform %s cannot be read yet: %s", name, error)

    def _store_pools(self, name: str, reports: Sequence[PoolReport]) -> None:
        keys = self._config.platforms[name].keys
        pools = [report.name for report in reports]
        with self._ledger.begin(ACTOR) as tx:
            reserves, factors = dict.fromkeys(pools, keys.reserve_mib), dict.fromkeys(pools, keys.overcommit)
            tx.sync_pools(name, reports, reserve_mib=reserves, overcommit=factors)

    def _all(self, wanted: VolumeFilter) -> Iterator[Volume]:
        after: str | None = None
        while True:
            page = self._ledger.volumes(wanted, after=after, limit=1000)
            yield from page.items
            after = page.after
            if after is None:
                return

    def _try(self, name: str, verb: Callable[[], Future[Any]]) -> Future[Any] | None:
        try:
            future = verb()
        except PollyError as error:
            logger.warning("volume %s: %s", name, error)
            return None
        future.add_done_callback(lambda done: _log_failure(name, done))
        return future


def _log_failure(name: str, done: Future[Any]) -> None:
    if (error := done.exception()) is not None:
        logger.warning("volume %s: %s", name, error)
