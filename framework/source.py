"""The ledger itself as the source of what is shown: framework/views.py's protocol over its reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from framework.mesos.instances import DELETING, TaskRecord
from framework.mesos.tasks import decode_record
from framework.views import PAGE, AppView, EventFilter, HeldVolume, PoolView, TaskView, with_status
from storage.errors import Invalid, UnknownApp, UnknownClaim, UnknownPlatform, UnknownVolume
from storage.filters import ClaimFilter, VolumeFilter
from storage.inventory import Ledger, Placement, PoolUse, Workload
from storage.model import Claim, ClaimId, EventPage, Hearing, Node, Page, PlacementId, Pool, Profile, Snapshot, Volume, VolumeId
from storage.near import near
from storage.platforms.base import VolumeReport

ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""As framework.ids makes them."""


class LedgerSource:
    """Reads the ledger. `scheduler` narrows apps and nodes to one framework's; None: all that share the ledger."""

    def __init__(self, ledger: Ledger, scheduler: str | None = None) -> None:
        self._ledger, self._scheduler = ledger, scheduler

    def apps(self) -> list[AppView]:
        placements: dict[tuple[str, str], list[Placement]] = {}
        for placement in self._ledger.placements(self._scheduler):
            placements.setdefault((placement.scheduler, placement.workload), []).append(placement)
        workloads = sorted(self._ledger.workloads(self._scheduler), key=lambda workload: workload.workload_id)
        return [_app_view(workload, placements.get((workload.scheduler, workload.workload_id), ())) for workload in workloads]

    def app(self, app_id: str) -> AppView:
        wanted = "/" + app_id.strip("/")
        workloads = self._ledger.workloads(self._scheduler)
        for workload in workloads:
            if workload.workload_id == wanted:
                return _app_view(workload, self._ledger.placements(workload.scheduler, workload.workload_id))
        raise UnknownApp(app=wanted, near=near(wanted, (workload.workload_id for workload in workloads)))

    def pools(self, platform: str | None = None) -> list[PoolView]:
        pools = self._ledger.pools(platform)
        if platform is not None and not pools:
            raise self._unknown_platform(platform)
        held = {(use.platform, use.pool): use for use in self._ledger.in_use()}
        views = (_pool_view(pool, held.get((pool.platform, pool.name))) for pool in pools)
        return sorted(views, key=lambda view: (view.pool.platform, view.pool.name))

    def hearings(self) -> list[Hearing]:
        return self._ledger.hearings()

    def profiles(self) -> list[Profile]:
        return sorted(self._ledger.profiles(), key=lambda profile: profile.name)

    def volume(self, volume: str) -> Volume:
        return self._ledger.volume(volume)

    def volumes(self, only: VolumeFilter, *, after: str | None = None, limit: int = PAGE) -> Page[Volume]:
        return self._ledger.volumes(only, after=_number(after), limit=limit)

    def held_volumes(self, only: VolumeFilter, *, after: str | None = None, limit: int = PAGE) -> Page[HeldVolume]:
        found = self.volumes(only, after=after, limit=limit)
        claims = self._ledger.claims_on([volume.volume_id for volume in found.items])
        held = [HeldVolume(**_fields(volume), claims=tuple(claims.get(volume.volume_id, ()))) for volume in found.items]
        return Page(items=held, after=found.after)

    def foreign(self, platform: str, *, after: str | None = None, limit: int = PAGE) -> Page[VolumeReport]:
        found = self._ledger.foreign(platform, after=after, limit=limit)
        if not found.items and not self._ledger.pools(platform):
            raise self._unknown_platform(platform)
        return found

    def _unknown_platform(self, platform: str) -> UnknownPlatform:
        return UnknownPlatform(platform=platform, near=near(platform, {pool.platform for pool in self._ledger.pools()}))

    def claim(self, claim: str) -> Claim:
        found = self._ledger.claims(ClaimFilter(claim_id=ClaimId(claim)), limit=1).items
        if not found:
            raise UnknownClaim(claim=claim)
        return found[0]

    def claims(self, only: ClaimFilter, *, after: str | None = None, limit: int = PAGE) -> Page[Claim]:
        return self._ledger.claims(only, after=after, limit=limit)

    def snapshots(
        self, volume: str | None = None, *, external_id: str | None = None, after: str | None = None, limit: int = PAGE
    ) -> Page[Snapshot]:
        return self._ledger.snapshots(self._volume_id(volume), external_id=external_id, after=after, limit=limit)

    def nodes(self) -> list[Node]:
        return sorted(self._ledger.nodes(self._scheduler), key=lambda node: (node.hostname, node.node_id))

    def events(self, only: EventFilter, *, after: str | None = None, limit: int = PAGE, newest_first: bool = False) -> EventPage:
        return self._ledger.events(
            volume_id=self._volume_id_of_events(only.volume),
            claim_id=None if only.claim is None else ClaimId(only.claim),
            placement_id=None if only.task is None else PlacementId(only.task),
            since=only.since,
            until=only.until,
            after=_number(after),
            limit=limit,
            newest_first=newest_first,
        )

    def _volume_id(self, volume: str | None) -> VolumeId | None:
        return None if volume is None else self._ledger.volume(volume).volume_id

    def _volume_id_of_events(self, volume: str | None) -> VolumeId | None:
        """The events of a volume outlive it; then only its id leads to them, and to none once they are deleted too."""
        try:
            return self._volume_id(volume)
        except UnknownVolume:
            past = VolumeId(volume or "")
            found = self._ledger.events(volume_id=past, limit=1)
            if not found.items and not (found.kept_since and ID.fullmatch(past)):
                raise
            return past

    def close(self) -> None:
        self._ledger.close()


def _fields(volume: Volume) -> dict[str, Any]:
    return {name: getattr(volume, name) for name in Volume.__struct_fields__}


def _number(after: str | None) -> str | None:
    """Where a list goes on that is in the order of its making. Raises Invalid."""
    if after is not None and not (after.isascii() and after.isdecimal() and len(after) < 19):
        raise Invalid(field="after", value=after, reason="here it is the number that the last part of the list named")
    return after


def _app_view(workload: Workload, placements: Iterable[Placement]) -> AppView:
    records = [(placement, decode_record(placement.data)) for placement in placements]
    # An app has forgotten an expunged task; its claims are among the claims, where people look for what they hold.
    views = (_task_view(placement, record) for placement, record in records if not record.expunged)
    tasks = sorted(views, key=lambda task: (task.slot, task.launched_at))
    view = AppView(
        app_id=workload.workload_id,
        spec=json.loads(workload.spec),
        version=workload.version,
        instances=workload.instances,
        created_at=workload.created_at,
        tasks=tuple(tasks),
    )
    return with_status(view, deleting=workload.state == DELETING)


def _task_view(placement: Placement, record: TaskRecord) -> TaskView:
    return TaskView(
        task_id=placement.placement_id,
        app_id=placement.workload,
        slot=placement.slot,
        state=placement.state,
        node=placement.node,
        hostname=record.hostname,
        region=record.region,
        zone=record.zone,
        ports=record.ports,
        version=record.version,
        launched_at=record.launched_at,
        started_at=record.started_at,
        volumes=record.containers,
        message=record.message,
    )


def _pool_view(pool: Pool, use: PoolUse | None) -> PoolView:
    claimed_mib, claims = (use.volumes_mib, use.claims) if use else (0, 0)
    return PoolView(pool=pool, free_mib=pool.free_mib, claimed_mib=claimed_mib, claims=claims)
