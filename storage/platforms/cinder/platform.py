"""OpenStack's block storage as a platform: volumes of Cinder, brought to servers by Nova or to machines by Cinder's attachments.

Knows no node and no device: what a node must do is in the attachment. All that is kept is kept with the volume, in its
metadata, so any process with the same credentials goes on where another has stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from storage.errors import Conflict, HasSnapshots, Invalid, PlatformError, PoolFull, StaleEpoch, UnknownVolume, Unsupported, VolumeInUse
from storage.model import Birth, ExternalId, Page, Sizes
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.cinder import connections, doctor, failures, records
from storage.platforms.cinder.attaching import Attaching, Way
from storage.platforms.cinder.bare_metal import BareMetal
from storage.platforms.cinder.client import Client
from storage.platforms.cinder.cloning import Cloning
from storage.platforms.cinder.failures import Refusal, verb
from storage.platforms.cinder.making import FAILED, Making
from storage.platforms.cinder.options import BACKENDS, NOVA, CinderOptions
from storage.platforms.cinder.pooling import ByBackend, ByType, Pooling
from storage.platforms.cinder.records import GIB_MIB, Json
from storage.platforms.cinder.things import Things
from storage.platforms.cinder.through_nova import ThroughNova
from storage.platforms.options import write_options
from storage.platforms.pacing import TokenBucket

BURST_S: Final = 2
"""So many seconds' calls may be made at once after a rest."""
ANSWER_S: Final = 120.0
"""How long a call may take: Cinder waits a minute for its own services before it gives up on one."""
NOVA_SLOTS: Final = 25
"""A guest's virtio disks have 26 letters, and the first is its own."""


class CinderPlatform(Platform):
    Options = CinderOptions

    def __init__(
        self,
        name: str,
        options: CinderOptions,
        *,
        poll_s: float = 1.0,
        orphan_s: float = 10.0,
        answer_s: float = ANSWER_S,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name, self._options, self._lock = name, options, threading.Lock()
        bucket = TokenBucket(options.calls_per_second, options.calls_per_second * BURST_S, wait=wait)
        self._client = Client(name, options, bucket, wait=wait, answer_s=answer_s)
        self._volumes = Things(self._client, "volume", platform=name, wait_s=options.wait_s, every_s=poll_s)
        self._snapshots = Things(self._client, "snapshot", platform=name, wait_s=options.wait_s, every_s=poll_s)
        self._pooling: Pooling = (
            ByBackend(self._client, name, region=options.region)
            if options.pools == BACKENDS
            else ByType(self._client, name, zone_bound=options.zone_bound, region=options.region)
        )
        self._way: Way = (
            ThroughNova(self._client, self._volumes, platform=name, slots=self.capabilities.slots_per_node)
            if options.attach == NOVA
            else BareMetal(self._client, self._volumes, platform=name, orphan_s=orphan_s)
        )
        self._attaching = Attaching(name, self._volumes, self._way)
        self._cloning = Cloning(self._volumes, self._report, platform=name, in_use=options.clone_in_use)
        self._making = Making(self._client, self._volumes, self._snapshots, self._pooling, self._cloning, platform=name)

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        options, through_nova = self._options, self._options.attach == NOVA
        return Capabilities(
            snapshots=True,
            snapshot_attached=options.snapshot_in_use,
            restores=True,
            clones=True,
            clone_attached=options.clone_in_use,
            expand_attached=options.extend_in_use,
            expand_detached=True,
            fences=True,
            marks=True,
            min_mib=GIB_MIB,
            granularity_mib=GIB_MIB,
            slots_per_node=options.slots_per_node or (NOVA_SLOTS if through_nova else None),
            identity="openstack" if through_nova else "connector",
            transports=() if through_nova else tuple(sorted({transport for transport, _ in connections.TRANSPORTS.values()})),
            parallel=8,
            sees_nodes=through_nova,
        )

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    # --- what is there -------------------------------------------------------------------------------------

    @verb("list pools")
    def pools(self) -> Sequence[PoolReport]:
        return self._pooling.reports(self._volumes.all())

    @verb("list volumes")
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        found, after = self._volumes.page(after, limit)
        return Page(items=[self._report(volume) for volume in found], after=after)

    @verb("look at a volume")
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return self._report(self._volumes.known(external_id))

    @verb("look for a volume")
    def find(self, token: str) -> VolumeReport | None:
        volume = self._making.found(token)
        return self._report(volume) if volume else None

    @verb("list snapshots")
    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        found, after = self._snapshots.page(after, limit)
        return Page(items=[records.snapshot_report(snapshot) for snapshot in found], after=after)

    # --- volumes -------------------------------------------------------------------------------------------

    @verb("look at volume types")
    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        self._pooling.check(parameters)
        if pool is not None:
            self._pooling.place(pool, parameters)

    def sizes(self, parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        self._pooling.check(parameters)
        known = self._pooling.sizes(pool, parameters) if pool is not None else None
        return known or self.capabilities.sizes

    @verb("create a volume")
    def create(self, request: CreateRequest) -> VolumeReport:
        return self._report(self._making.create(request, size_mib=self.fit(request.size_mib, request.parameters, pool=request.pool)))

    @verb("delete a volume")
    def delete(self, external_id: ExternalId) -> None:
        volume = self._volumes.get(external_id)
        if volume is None:
            return
        if holders := records.held_by(volume):
            raise VolumeInUse(volume=external_id, holder=", ".join(holders))
        if left := self._volumes_snapshots(external_id):
            raise HasSnapshots(volume=external_id, snapshots=", ".join(str(one["id"]) for one in left))
        try:
            self._volumes.delete(external_id)
        except Refusal as refusal:
            if refusal.status == 400 and (again := self._volumes.get(external_id)) and (holders := records.held_by(again)):
                raise VolumeInUse(volume=external_id, holder=", ".join(holders)) from refusal
            raise

    @verb("expand a volume")
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        volume = self._at_rest(external_id, "expand")
        wanted, has = self.capabilities.fit(size_mib), records.size_mib(volume)
        if wanted < has:
            raise Invalid(field="size_mib", value=size_mib, reason=f"volume {external_id} has {has} MiB, and volumes do not shrink")
        if wanted == has:
            return self._report(volume)
        if records.held_by(volume) and not self._options.extend_in_use:
            reason = "it is attached, and its block does not say extend_in_use = true"
            raise Unsupported(platform=self.name, action=f"expand volume {external_id}", reason=reason)
        return self._report(self._extended(volume, wanted))

    # --- attachments ---------------------------------------------------------------------------------------

    @verb("attach a volume")
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return self._attaching.attach(external_id, node, epoch=epoch, read_only=read_only)

    @verb("detach a volume")
    def detach(self, external_id: ExternalId, node: str) -> None:
        self._way.release(external_id, node)

    @verb("fence a volume")
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return self._attaching.fence(external_id, epoch)

    @verb("look at a node")
    def node_stopped(self, node: str) -> str | None:
        if isinstance(self._way, ThroughNova):
            return self._way.stopped(node)
        return super().node_stopped(node)

    @verb("record a birth")
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        volume = self._volumes.known(external_id)
        found, kept = records.mark(volume).epoch, records.birth(volume)
        if epoch < found:
            raise StaleEpoch(volume=external_id, epoch=epoch, found=found)
        if kept is not None and kept != birth:
            raise Conflict(what=f"the birth certificate of volume {external_id}", expected=birth, found=kept)
        if kept is None:
            self._intend(external_id, birth)
            self._volumes.mark(external_id, records.born(birth))

    def _intend(self, external_id: ExternalId, birth: Birth) -> None:
        """Raises Conflict where somebody else intends to keep another certificate, or has kept it: of two at once at most one goes on."""
        mine = records.intent(birth)
        self._volumes.mark(external_id, {mine: records.CAME})
        now = self._volumes.known(external_id)
        if others := records.intents(now) - {mine}:
            self._volumes.unmark(external_id, mine)
            found = records.birth(now) or ", ".join(sorted(others))
            raise Conflict(what=f"the birth certificate of volume {external_id}", expected=birth, found=found)

    # --- snapshots -----------------------------------------------------------------------------------------

    @verb("snapshot a volume")
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        for made in self._snapshots.with_token(token)[:1]:
            return self._taken(made["id"])
        volume = self._at_rest(external_id, "snapshot")
        if records.held_by(volume) and not self._options.snapshot_in_use:
            reason = "it is attached, and its block does not say snapshot_in_use = true"
            raise Unsupported(platform=self.name, action=f"snapshot volume {external_id}", reason=reason)
        wanted = {"volume_id": external_id, "name": name, "force": True, "metadata": {records.TOKEN: token}}
        try:
            made = self._client.ask("POST", "/snapshots", action="snapshot a volume", body={"snapshot": wanted})["snapshot"]
        except Refusal as refusal:
            raise self._full(refusal, volume, records.size_mib(volume)) from refusal
        return self._taken(made["id"])

    @verb("delete a snapshot")
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        if self._snapshots.get(snapshot) is not None:
            self._snapshots.delete(snapshot)

    def check(self) -> Sequence[Finding]:
        return doctor.check(self.name, self._options, self._client)

    def close(self) -> None:
        self._client.close()

    # --- parts of the verbs --------------------------------------------------------------------------------

    def _report(self, volume: Json) -> VolumeReport:
        return VolumeReport(
            external_id=ExternalId(volume["id"]),
            pool=self._pooling.pool_of(volume),
            size_mib=records.size_mib(volume),
            serial=str(volume["id"]),
            token=records.token(volume),
            name=volume.get("name") or "",
            epoch=records.mark(volume).epoch,
            birth=records.birth(volume),
            held_by=records.held_by(volume),
            zone=str(volume.get("availability_zone") or "") if self._options.zone_bound else "",
            labels=records.labels(volume),
        )

    def _at_rest(self, external_id: ExternalId, action: str) -> Json:
        """The volume once nothing is being done with it. Raises UnknownVolume, and PlatformError for one that is broken."""
        volume = self._volumes.rested(external_id, action=f"{action} volume {external_id}")
        if volume is None:
            raise UnknownVolume(volume=external_id)
        if volume["status"] in FAILED:
            reason = f"it is {volume['status']}: {self._volumes.why(external_id)}"
            raise PlatformError(platform=self.name, action=f"{action} volume {external_id}", reason=reason)
        return volume

    def _extended(self, volume: Json, wanted_mib: int) -> Json:
        key, action = str(volume["id"]), f"expand volume {volume['id']}"
        body = {"os-extend": {"new_size": records.size_gib(wanted_mib)}}
        try:
            self._client.ask("POST", f"/volumes/{key}/action", action=action, body=body)
        except Refusal as refusal:
            raise self._full(refusal, volume, wanted_mib) from refusal
        seen = self._at_rest(ExternalId(key), "expand")
        if seen["status"] == "error_extending":
            raise PlatformError(platform=self.name, action=action, reason=f"it is error_extending: {self._volumes.why(key)}")
        if records.size_mib(seen) < wanted_mib:
            pool = self._pooling.pool_of(seen)
            raise PoolFull(platform=self.name, pool=pool, free_mib=0, size_mib=wanted_mib, reason=self._volumes.why(key))
        return seen

    def _taken(self, snapshot: str) -> SnapshotReport:
        """The snapshot once it is there. One that Cinder could not make is taken away again."""
        action = "snapshot a volume"
        seen = self._snapshots.until(snapshot, lambda one: one is None or one["status"] != "creating", action=action)
        if seen is not None and seen["status"] in FAILED:
            why = self._snapshots.why(snapshot)
            self._snapshots.delete(snapshot)
            raise PlatformError(platform=self.name, action=action, reason=why)
        if seen is None:
            raise PlatformError(platform=self.name, action=action, reason=f"snapshot {snapshot} was deleted meanwhile")
        return records.snapshot_report(seen)

    def _volumes_snapshots(self, external_id: ExternalId) -> list[Json]:
        return [one for one in self._snapshots.of_volume(external_id) if one["status"] != "deleting"]

    def _full(self, refusal: Refusal, volume: Json, size_mib: int) -> Exception:
        if not refusal.is_quota:
            return refusal
        return failures.pool_full(refusal, platform=self.name, pool=self._pooling.pool_of(volume), size_mib=size_mib)
