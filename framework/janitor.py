"""What the broker does by itself to volumes and pools: reclaim those of deleted apps, go on with stored intents, delete what unborn
claims left behind, and keep the pools' capacity up to date."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar

from framework.config import Config
from framework.deleting import refuse_born
from framework.growing import growth_of
from framework.pools import FullPools
from framework.turning import InTurn
from framework.volumes import Volumes
from framework.workers import Outcome, Workers
from storage.errors import BornElsewhere, LedgerUnavailable, PollyError, VolumeInUse, WorkedOnElsewhere
from storage.filters import VolumeFilter
from storage.inventory import Ledger, Orphan
from storage.lifecycle import VolumeState
from storage.model import Page, ReclaimPolicy, Snapshot, Volume
from storage.platforms.base import Platform, PoolReport, VolumeReport

logger = logging.getLogger(__name__)
T = TypeVar("T")

ACTOR = "broker"
SYNC_POOLS_S = 30.0
PATIENCE: Final = 3
"""So often in a row a platform is asked for its pools in vain before nothing new is made there."""
HUNG_S = 300.0
"""How long a look at pools may take before each `SYNC_POOLS_S` more of it counts as one in vain."""
AT_ONCE: Final = 500
"""So many volumes' intents are stored in one commit."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
"""How long a failed call to a platform waits before it is made again, at first and at most."""


class Janitor:
    """The broker thread's own. What a platform refuses is logged and tried again by `resume`. Raises LedgerUnavailable only."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        platforms: dict[str, Platform],
        volumes: Volumes,
        workers: Workers,
        *,
        clock: Callable[[], float],
        full: FullPools,
    ) -> None:
        self._config, self._ledger, self._platforms, self._volumes, self._workers = config, ledger, platforms, volumes, workers
        self._clock, self._full = clock, full
        self._look_at = dict.fromkeys(platforms, 0.0)
        """When each platform's pools are to be looked at, whatever they refuse."""
        self._begun: dict[str, float] = {}
        """When the looks began that are under way; one that waits for its turn has not."""
        self._busy: set[str] = set()
        self._retry: dict[str, tuple[float, float]] = {}
        """When to go on with what has failed, and how long it waited last; by the ids of volumes and snapshots, and by orphans' tokens."""

    # --- the volumes of an app that is gone -------------------------------------------------------

    def reclaim(self, owner: str) -> bool:
        """What becomes of the volumes of an app that is deleted: as the reclaim policy of each one's profile says.

        Whether all of it is done, or stored as an intent; if not, it is to be called again.
        """
        doomed: dict[bool, list[Volume]] = {False: [], True: []}
        done = [self._reclaim(volume, doomed) for volume in self._volumes_that(VolumeFilter(owner=owner))]
        for keep_snapshots, volumes in doomed.items():
            for start in range(0, len(volumes), AT_ONCE):
                self._delete_all(volumes[start : start + AT_ONCE], keep_snapshots=keep_snapshots)
        return all(done)

    def _delete_all(self, volumes: Sequence[Volume], *, keep_snapshots: bool) -> None:
        for volume, future in zip(volumes, self._volumes.delete_all(volumes, ACTOR, keep_snapshots=keep_snapshots), strict=True):
            future.add_done_callback(partial(self._note_failure, volume.volume_id))

    def _reclaim(self, volume: Volume, doomed: Mapping[bool, list[Volume]]) -> bool:
        """Puts it to the `doomed`, by whether its snapshots are kept, if it is to be deleted and is on its platform."""
        profile = self._config.profiles.get(volume.profile)
        policy = profile.reclaim if profile else ReclaimPolicy.RETAIN
        if volume.state is VolumeState.DELETING or (policy is ReclaimPolicy.RETAIN and not volume.unborn):
            return True
        keep = policy is ReclaimPolicy.SNAPSHOT_THEN_DELETE and not volume.unborn
        if keep:
            snapshots = list(_all_of(partial(self._ledger.snapshots, volume.volume_id)))
            taken = [snapshot for snapshot in snapshots if snapshot.name == _last_label(volume)]
            if not taken:
                return self._take_last_snapshot(volume)
            if taken[0].state != "READY" or any(snapshot.state == "PENDING" for snapshot in snapshots):
                return False
        if volume.external_id is not None and volume.platform in self._platforms:
            doomed[keep].append(volume)
        else:
            self._try(volume.volume_id, lambda: self._volumes.delete(volume.volume_id, ACTOR, insist=True))
        return True

    def _take_last_snapshot(self, volume: Volume) -> bool:
        """False while it is being made; True if it cannot be: then the volume is kept."""
        taken = self._try(volume.volume_id, lambda: self._volumes.snapshot(volume.volume_id, _last_label(volume), ACTOR))
        return taken is None

    # --- stored intents ---------------------------------------------------------------------------

    def resume(self) -> bool:
        """Goes on with every stored intent. Returns whether there was one that does not only wait for a late maker."""
        doomed, orphans = self._volumes_that(VolumeFilter(state=VolumeState.DELETING)), self._ledger.orphans()
        unfinished, growing = self._ledger.unfinished_snapshots(), self._ledger.growing()
        for volume in doomed:
            self._go_on_deleting(volume)
        for volume in growing:
            self._go_on_growing(volume)
        for snapshot in unfinished:
            self._go_on_with(snapshot)
        for orphan in orphans:
            if orphan.platform in self._platforms and orphan.token not in self._busy and self._is_due(orphan.token):
                self._discard(orphan)
        left = {volume.volume_id for volume in doomed} | {it.snapshot_id for it in unfinished} | {orphan.token for orphan in orphans}
        left |= {growth_of(volume) for volume in growing}
        self._retry = {key: retry for key, retry in self._retry.items() if key in left}
        now = self._clock()
        return bool(left - {it.token for it in orphans if it.keep_until > now and not self._is_due(it.token)})

    def _go_on_deleting(self, volume: Volume) -> None:
        external = volume.external_id
        if external and self._is_free(volume.volume_id):
            self._try(volume.volume_id, lambda: self._volumes.go_on_deleting(volume, external, ACTOR, insist=True))

    def _go_on_growing(self, volume: Volume) -> None:
        external, key = volume.external_id, growth_of(volume)
        if external and self._is_free(key):
            self._try(key, lambda: self._volumes.go_on_growing(volume, external, ACTOR))

    def _go_on_with(self, snapshot: Snapshot) -> None:
        if not self._is_free(snapshot.snapshot_id):
            return
        verb = self._volumes.go_on_with_snapshot if snapshot.state == "PENDING" else self._volumes.go_on_deleting_snapshot
        self._try(snapshot.snapshot_id, lambda: verb(snapshot, ACTOR))

    def _is_free(self, key: str) -> bool:
        return not self._volumes.is_under_way(key) and self._is_due(key)

    def _is_due(self, key: str) -> bool:
        return self._retry.get(key, (0.0, 0.0))[0] <= self._clock()

    def _failed(self, key: str) -> None:
        before_s = self._retry.get(key, (0.0, 0.0))[1]
        wait_s = min(LAST_RETRY_S, max(FIRST_RETRY_S, before_s * 2))
        self._retry[key] = (self._clock() + wait_s, wait_s)

    # --- what unborn claims left ------------------------------------------------------------------

    def _discard(self, orphan: Orphan) -> None:
        """Deletes what a token made that no birth certificate was ever stored of: no task ever used it.

        It is forgotten once it was looked for when nobody could make it any more.
        """
        platform, ledger = self._platforms[orphan.platform], self._ledger
        begun_at = self._clock()
        self._busy.add(orphan.token)

        def job() -> None:
            turn = InTurn(ledger, f"orphan {orphan.platform} {orphan.token}", f"orphan {orphan.token}")
            turn.take()
            try:
                found = platform.find(orphan.token)
                if found and ledger.volume_at(orphan.platform, found.external_id) is None:
                    refuse_born(platform, found)
                    turn.check()
                    _delete(platform, found)
            finally:
                turn.end()

        def done(outcome: Outcome[None]) -> None:
            self._busy.discard(orphan.token)
            if isinstance(outcome.error, WorkedOnElsewhere):
                self._failed(orphan.token)
            elif outcome.error is None and begun_at < orphan.keep_until:
                self._retry[orphan.token] = (orphan.keep_until, 0.0)
            elif outcome.error is None or isinstance(outcome.error, BornElsewhere):
                if outcome.error:
                    logger.warning("orphan %s is left alone: %s %s", orphan.token, outcome.error, outcome.error.advice)
                with self._ledger.begin(ACTOR) as tx:
                    tx.drop_orphan(orphan.platform, orphan.token)
            else:
                self._failed(orphan.token)
                logger.warning("what token %s made on %s cannot be deleted yet: %s", orphan.token, orphan.platform, outcome.error)

        self._workers.submit(orphan.platform, f"orphan {orphan.token}", job, done)

    # --- pools ------------------------------------------------------------------------------------

    def look_at_pools(self) -> None:
        """Asks each platform for its pools' capacity, in workers: now and then, and at once when one of them refused a volume."""
        now = self._clock()
        for name, platform in self._platforms.items():
            if self._pools_due_at(name) > now:
                continue
            self._look_at[name] = now + SYNC_POOLS_S
            if f"pools {name}" not in self._busy:
                self._busy.add(f"pools {name}")
                self._workers.submit(name, f"pools {name}", partial(self._look, name, platform), self._looked(name, now))
            elif (lasts_s := now - self._begun.get(name, now)) >= HUNG_S:
                self._unheard(name, f"it was asked for its pools {lasts_s:.0f} s ago and has not answered yet")

    def _look(self, name: str, platform: Platform) -> Sequence[PoolReport]:
        """In a worker."""
        self._begun[name] = self._clock()
        return platform.pools()

    def _unheard(self, name: str, error: str) -> None:
        with self._ledger.begin(ACTOR) as tx:
            is_silent = tx.unheard(name, error, patience=PATIENCE)
        if is_silent:
            logger.warning("platform %s was asked %d times in vain; nothing new is made there until it answers", name, PATIENCE)

    def pools_due_at(self) -> float:
        """When `look_at_pools` will next have something to ask."""
        return min(map(self._pools_due_at, self._platforms), default=math.inf)

    def _pools_due_at(self, name: str) -> float:
        if f"pools {name}" in self._busy:
            return self._look_at[name]
        refused = self._full.look_at(name)
        return self._look_at[name] if refused is None else min(refused, self._look_at[name])

    def _looked(self, name: str, begun_at: float) -> Callable[[Outcome[Sequence[PoolReport]]], None]:
        def done(outcome: Outcome[Sequence[PoolReport]]) -> None:
            self._busy.discard(f"pools {name}")
            self._begun.pop(name, None)
            try:
                self.store_pools(name, outcome.get())
            except PollyError as error:
                self._full.failed(name, self._clock())
                if outcome.error is None:
                    raise
                logger.warning("the pools of platform %s cannot be read: %s", name, error)
                self._unheard(name, str(error))
            else:
                self._full.looked(name, begun_at)

        return done

    def sync_pools_now(self) -> None:
        """Before the first offer: without pools nothing could be placed."""
        for name, platform in self._platforms.items():
            self._look_at[name] = self._clock() + SYNC_POOLS_S
            try:
                self.store_pools(name, platform.pools())
            except LedgerUnavailable:
                raise
            except PollyError as error:
                logger.warning("the pools of platform %s cannot be read yet: %s", name, error)
                self._unheard(name, str(error))

    def store_pools(self, name: str, reports: Sequence[PoolReport]) -> None:
        """Takes over what a platform says of its pools, with what polly.toml says of them."""
        keys = self._config.platforms[name].keys
        pools = [report.name for report in reports]
        with self._ledger.begin(ACTOR) as tx:
            reserves, factors = dict.fromkeys(pools, keys.reserve_mib), dict.fromkeys(pools, keys.overcommit)
            tx.sync_pools(name, reports, reserve_mib=reserves, overcommit=factors)

    # --- reading and trying -----------------------------------------------------------------------

    def _volumes_that(self, wanted: VolumeFilter) -> list[Volume]:
        return list(_all_of(partial(self._ledger.volumes, wanted)))

    def _try(self, key: str, verb: Callable[[], Future[Any]]) -> Future[Any] | None:
        """None if it was refused at once."""
        try:
            future = verb()
        except LedgerUnavailable:
            raise
        except PollyError as error:
            self._failed(key)
            logger.warning("%s: %s", key, error)
            return None
        future.add_done_callback(lambda done: self._note_failure(key, done))
        return future

    def _note_failure(self, key: str, done: Future[Any]) -> None:
        if (error := done.exception()) is not None:
            self._failed(key)
            if not isinstance(error, WorkedOnElsewhere):
                logger.warning("%s: %s", key, error)


def _delete(platform: Platform, unborn: VolumeReport) -> None:
    """No task ever used it, so whoever has it attached is what is left of an executor that died."""
    try:
        platform.delete(unborn.external_id)
    except VolumeInUse:
        for holder in platform.inspect(unborn.external_id).held_by:
            platform.detach(unborn.external_id, holder)
        platform.delete(unborn.external_id)


def _all_of(read: Callable[..., Page[T]]) -> Iterator[T]:
    after: str | None = None
    while True:
        page = read(after=after, limit=1000)
        yield from page.items
        after = page.after
        if after is None:
            return


def _last_label(volume: Volume) -> str:
    """Names the snapshot of what no later claim has changed: the epoch rises with each."""
    return f"before {volume.owner} was deleted, epoch {volume.epoch}"
