"""Looking for drift: each platform is listed in a worker, compared with the ledger, and every difference looked at twice.

What is safe is mended on request; nothing here deletes, detaches or unmounts anything. The comparison is storage/drift.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from framework.service import DriftOrder, DriftReport, PlatformDrift
from framework.views import pages
from framework.workers import Outcome, Workers
from storage.drift import VANISHED, Drift, DriftKind, of_pools, of_snapshots, of_stray, of_volume
from storage.errors import Conflict, PollyError, UnknownPlatform, UnknownVolume
from storage.filters import VolumeFilter
from storage.inventory import Ledger
from storage.lifecycle import VolumeState
from storage.model import Claim, ExternalId, Volume, VolumeId
from storage.near import near
from storage.node.identities import HOSTNAME
from storage.platforms.base import Platform, PoolReport, VolumeReport
from storage.syncing import sync_volumes

logger = logging.getLogger(__name__)

MOST = 1000
"""Differences of one platform that are shown; a person mends the first ones first."""


class Drifting:
    """One look at a time. All methods are the broker thread's."""

    def __init__(
        self,
        ledger: Ledger,
        platforms: Mapping[str, Platform],
        workers: Workers,
        *,
        clock: Callable[[], float],
        store_pools: Callable[[str, Sequence[PoolReport]], None],
        changed: Callable[[Sequence[Volume]], None],
    ) -> None:
        self._ledger, self._platforms, self._workers, self._clock = ledger, platforms, workers, clock
        self._store_pools, self._changed = store_pools, changed
        self._report = DriftReport()
        self._looks: dict[str, Look] = {}

    def report(self) -> DriftReport:
        parts = tuple(look.progress for look in self._looks.values())
        return replace(self._report, running=any(part.state not in ("DONE", "FAILED") for part in parts), platforms=parts)

    def start(self, order: DriftOrder, actor: str) -> DriftReport:
        """Begins to look. Raises UnknownPlatform, and Conflict while another look is under way."""
        if order.platform is not None and order.platform not in self._platforms:
            raise UnknownPlatform(platform=order.platform, near=near(order.platform, self._platforms))
        if self.report().running:
            raise Conflict(what="the look for drift", expected="ended", found="under way; wait for its end")
        wanted = sorted(self._platforms) if order.platform is None else [order.platform]
        apply = order.apply
        self._report = DriftReport(started_at=self._clock(), apply=apply)
        self._looks = {name: Look(self._ledger, self._platforms[name]) for name in wanted}
        for look in self._looks.values():
            done = partial(self._looked, look, apply, actor)
            self._workers.submit(look.name, f"drift {look.name}", look.run, done)
        return self.report()

    def _looked(self, look: Look, apply: bool, actor: str, outcome: Outcome[Sequence[Drift]]) -> None:
        if outcome.error is not None:
            look.ended(error=str(outcome.error))
        else:
            found = outcome.get()
            look.ended([self._mended(look, it, actor) for it in found] if apply else found)
        if not self.report().running:
            self._report = replace(self._report, ended_at=self._clock())

    def _mended(self, look: Look, found: Drift, actor: str) -> Drift:
        """The difference, mended if that is safe; one that cannot be mended now stays as it was found."""
        mend = self._mends().get(found.kind)
        if mend is None:
            return found
        try:
            mend(look, found, actor)
        except PollyError as error:
            logger.warning("drift of %s is not mended: %s", found.subject, error)
            return replace(found, advice=f"It could not be mended: {error}")
        return replace(found, mended=True)

    def _mends(self) -> Mapping[DriftKind, Callable[[Look, Drift, str], None]]:
        return {
            DriftKind.VOLUME_GONE: self._fault,
            DriftKind.VOLUME_BACK: self._give_back,
            DriftKind.SIZE_LARGER: self._take_size,
            DriftKind.BIRTH_UNMARKED: self._mark_birth,
            DriftKind.POOL_GONE: self._sync_pools,
            DriftKind.POOL_CHANGED: self._sync_pools,
        }

    def _fault(self, look: Look, found: Drift, actor: str) -> None:
        with self._ledger.begin(actor) as tx:
            tx.fault(_id(found), VANISHED)
        self._tell(found)

    def _give_back(self, look: Look, found: Drift, actor: str) -> None:
        with self._ledger.begin(actor) as tx:
            tx.mend(_id(found), VolumeState.FAULTED)
        self._tell(found)

    def _take_size(self, look: Look, found: Drift, actor: str) -> None:
        with self._ledger.begin(actor) as tx:
            tx.measured(_id(found), look.sizes[_id(found)])
        self._tell(found)

    def _mark_birth(self, look: Look, found: Drift, actor: str) -> None:
        """Done in a worker: the platform may take its time, and what it cannot store now it can with the next look."""
        volume = self._ledger.volume(_id(found))
        birth, external_id = volume.birth, volume.external_id
        if birth is None or external_id is None:
            return
        platform = self._platforms[look.name]
        job = partial(platform.record_birth, external_id, birth, epoch=volume.epoch)
        self._workers.submit(look.name, f"volume {volume.volume_id}", job, partial(_log_failure, found))

    def _sync_pools(self, look: Look, found: Drift, actor: str) -> None:
        self._store_pools(look.name, look.pools)

    def _tell(self, found: Drift) -> None:
        self._changed([self._ledger.volume(_id(found))])


def _id(found: Drift) -> VolumeId:
    if found.volume_id is None:
        raise TypeError(f"{found.kind} is about a volume of the ledger")
    return found.volume_id


def _log_failure(found: Drift, outcome: Outcome[None]) -> None:
    if outcome.error is not None:
        logger.warning("drift of %s is not mended: %s", found.subject, outcome.error)


class Look:
    """One look at one platform. `run` is a worker's; the rest is the broker thread's, which may read `progress` meanwhile."""

    def __init__(self, ledger: Ledger, platform: Platform) -> None:
        self._ledger, self._platform = ledger, platform
        self.name = platform.name
        self.progress = PlatformDrift(platform=platform.name)
        self.sizes: dict[VolumeId, int] = {}
        """What the platform says of volumes that are larger than the ledger has them, MiB."""
        self.pools: Sequence[PoolReport] = ()

    def ended(self, found: Sequence[Drift] = (), *, error: str = "") -> None:
        state, shown = "FAILED" if error else "DONE", tuple(found[:MOST])
        self.progress = replace(self.progress, state=state, error=error, found=shown, more=len(found) - len(shown))

    def run(self) -> Sequence[Drift]:
        """Raises what the platform raises, and LedgerUnavailable."""
        sync_volumes(self._ledger, self._platform, self._listed)
        self.progress = replace(self.progress, state="COMPARING")
        return [it for again in self._volumes() for it in again] + [*self._strays(), *self._snapshots(), *self._pools()]

    def _listed(self, listed: int) -> None:
        self.progress = replace(self.progress, listed=listed)

    # --- volumes ----------------------------------------------------------------------------------

    def _volumes(self) -> Iterator[Sequence[Drift]]:
        nodes, only = self._nodes(), VolumeFilter(platform=self.name)
        for page in pages(lambda after, limit: self._ledger.volumes(only, after=after, limit=limit)):
            there = [volume.external_id for volume in page.items if volume.external_id]
            seen = self._ledger.sighted(self.name, there)
            claims = self._ledger.claims_on([volume.volume_id for volume in page.items])
            for volume in page.items:
                report = seen.get(volume.external_id) if volume.external_id else None
                if any(self._compare(volume, report, claims.get(volume.volume_id, ()), nodes)):
                    yield self._again(volume, nodes)
            self.progress = replace(self.progress, compared=self.progress.compared + len(page.items))

    def _compare(self, volume: Volume, seen: VolumeReport | None, claims: Sequence[Claim], nodes: Mapping[str, str]) -> Iterator[Drift]:
        return of_volume(volume, seen, claims, nodes, marks=self._platform.capabilities.marks)

    def _again(self, volume: Volume, nodes: Mapping[str, str]) -> Sequence[Drift]:
        """What still differs when both sides are asked anew, the platform between two looks into the ledger that say the same."""
        now = self._now(volume)
        if now is None:
            return ()
        seen = self._inspect(ExternalId(volume.external_id or ""))
        if now != self._now(volume):
            return ()
        volume, claims = now
        if seen is not None:
            self.sizes[volume.volume_id] = seen.size_mib
        return list(self._compare(volume, seen, claims, nodes))

    def _now(self, volume: Volume) -> tuple[Volume, Sequence[Claim]] | None:
        try:
            found = self._ledger.volume(volume.volume_id)
        except UnknownVolume:
            return None
        if found.state is VolumeState.DELETING:
            return None
        return found, self._ledger.claims_on([found.volume_id]).get(found.volume_id, [])

    def _inspect(self, external_id: ExternalId) -> VolumeReport | None:
        try:
            return self._platform.inspect(external_id)
        except UnknownVolume:
            return None

    def _nodes(self) -> Mapping[str, str]:
        """The platform's names of nodes, where executors have told them; a hostname is not what a platform calls its holders."""
        if self._platform.capabilities.identity == HOSTNAME:
            return {}
        return {node.node_id: name for node in self._ledger.nodes() if (name := node.identities.get(self.name))}

    def _strays(self) -> Iterator[Drift]:
        """A volume that was made while the list was read may be the ledger's by now, or be gone."""
        for report in self._ledger.strays(self.name, MOST + 1):
            if self._ledger.volume_at(self.name, report.external_id) is None and self._inspect(report.external_id) is not None:
                yield of_stray(self.name, report)

    # --- snapshots and pools ------------------------------------------------------------------------

    def _snapshots(self) -> Iterable[Drift]:
        if not self._platform.capabilities.snapshots:
            return ()
        first = self._snapshot_drift()
        return [it for it in self._snapshot_drift() if it in first] if first else ()

    def _snapshot_drift(self) -> list[Drift]:
        seen = [report for page in pages(lambda after, limit: self._platform.snapshots(after=after, limit=limit)) for report in page.items]
        known = pages(lambda after, limit: self._ledger.snapshots(after=after, limit=limit))
        ours = [it for page in known for it in page.items if it.platform == self.name]
        return list(of_snapshots(self.name, ours, seen))

    def _pools(self) -> list[Drift]:
        self.pools = self._platform.pools()
        return list(of_pools(self.name, self._ledger.pools(self.name), self.pools))
