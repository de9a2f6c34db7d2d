"""Compute Engine as a platform: one project and some of its zones, a pool for each zone and type of disk.

What is durable is kept by Google: a disk's name is made of its token, its description says whom it is for, its labels hold the marks.
An instance of this class remembers nothing but its connections. It runs on a node or in the broker, and never touches a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage.errors import Invalid, VolumeInUse
from storage.model import AccessMode, Birth, ExternalId, Page, Sizes
from storage.platforms.base import (
    Attachment,
    Capabilities,
    CreateRequest,
    Finding,
    Platform,
    PoolReport,
    SnapshotReport,
    VolumeReport,
)
from storage.platforms.gce import capacity, doctor
from storage.platforms.gce.api import Api
from storage.platforms.gce.attachments import MOST_DISKS, Attachments
from storage.platforms.gce.calls import Pace
from storage.platforms.gce.failures import GONE, IN_USE, Fault, verb
from storage.platforms.gce.kinds import GIB_IN_MIB, TYPES
from storage.platforms.gce.making import Making
from storage.platforms.gce.options import GceOptions
from storage.platforms.gce.records import LEAVING, holders, kind_of, place_of, volume_report
from storage.platforms.gce.snapshots import Snapshots
from storage.platforms.options import write_options


class GcePlatform(Platform):
    Options = GceOptions

    def __init__(self, name: str, options: GceOptions, *, pace: Pace | None = None) -> None:
        self._name, self._options = name, options
        self._api = Api(options, pace=pace or Pace())
        self._attachments = Attachments(name, options, self._api)
        self._snapshots = Snapshots(name, options, self._api, self._attachments)
        self._making = Making(name, options, self._api, self._attachments, self._snapshots)

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        kinds = [TYPES[name] for name in self._options.types]
        modes = {AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY}
        return Capabilities(
            snapshots=True,
            snapshot_attached=True,
            snapshots_outlive=True,
            restores=True,
            clones=True,
            clone_attached=True,
            expand_attached=True,
            expand_detached=True,
            fences=True,
            marks=True,
            access_modes=frozenset(modes | ({AccessMode.MULTI_NODE_READER_ONLY} if all(kind.many_readers for kind in kinds) else set())),
            min_mib=min(kind.least_gib for kind in kinds) * GIB_IN_MIB,
            max_mib=max(kind.most_gib for kind in kinds) * GIB_IN_MIB,
            granularity_mib=GIB_IN_MIB,
            slots_per_node=MOST_DISKS,
            identity="gce",
            parallel=8,
            sees_nodes=True,
            counts_slots=True,
        )

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    @verb("look at its pools")
    def pools(self) -> Sequence[PoolReport]:
        return capacity.pools(self._options, self._api)

    # --- volumes ---

    @verb("list its volumes")
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        """Zone by zone, in the order of names. Disks of other types than this platform's belong to no pool of it."""
        _check_limit(limit)
        zone, _, token = (after or f"{self._options.zones[0]}:").partition(":")
        found: list[VolumeReport] = []
        for number in range(self._zone_number(zone, after), len(self._options.zones)):
            while True:
                disks, token = self._api.disks(self._options.zones[number], page_token=token, most=limit - len(found))
                found += [volume_report(one) for one in disks if kind_of(one) in self._options.types and one.status not in LEAVING]
                if token and len(found) == limit:
                    return Page(items=found, after=f"{self._options.zones[number]}:{token}")
                if not token:
                    break
            if len(found) == limit and number + 1 < len(self._options.zones):
                return Page(items=found, after=f"{self._options.zones[number + 1]}:")
        return Page(items=found)

    def _zone_number(self, zone: str, after: str | None) -> int:
        if zone not in self._options.zones:
            raise Invalid(field="after", value=after, reason="it must be what the part before has said")
        return self._options.zones.index(zone)

    @verb("look at a volume")
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return volume_report(self._attachments.known(external_id))

    @verb("look for a volume")
    def find(self, token: str) -> VolumeReport | None:
        found = self._making.find(token)
        return volume_report(found) if found is not None else None

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        self._making.sizes(parameters, pool)

    def sizes(self, parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        return self._making.sizes(parameters, pool)

    @verb("create a volume")
    def create(self, request: CreateRequest) -> VolumeReport:
        return self._making.create(request)

    @verb("delete a volume")
    def delete(self, external_id: ExternalId) -> None:
        disk = self._attachments.staying(external_id)
        if disk is None:
            return
        if users := holders(disk):
            raise VolumeInUse(volume=external_id, holder=", ".join(users))
        try:
            self._api.delete_disk(place_of(disk))
        except Fault as fault:
            if fault.code in IN_USE:
                raise VolumeInUse(volume=external_id, holder="an instance", reason=str(fault)) from fault
            if fault.code not in GONE:
                raise

    @verb("expand a volume")
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        self._making.expand(self._attachments.ready(external_id), size_mib, self.capabilities.fit(size_mib))
        return volume_report(self._attachments.known(external_id))

    # --- who has them ---

    @verb("attach a volume")
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return self._attachments.attach(external_id, node, epoch=epoch, read_only=read_only)

    @verb("detach a volume")
    def detach(self, external_id: ExternalId, node: str) -> None:
        self._attachments.detach(external_id, node)

    @verb("fence a volume")
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return self._attachments.fence(external_id, epoch)

    @verb("store a birth certificate")
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        self._attachments.record_birth(external_id, birth, epoch=epoch)

    @verb("look at a node")
    def node_stopped(self, node: str) -> str | None:
        """What proves that nothing runs on the node any more; None if nothing does."""
        return self._attachments.node_stopped(node)

    @verb("look at a node")
    def node_slots(self, node: str) -> int | None:
        return self._attachments.slots(node)

    # --- snapshots ---

    @verb("list its snapshots")
    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        _check_limit(limit)
        return self._snapshots.page(after, limit)

    @verb("snapshot a volume")
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        return self._snapshots.make(external_id, token=token, name=name)

    @verb("delete a snapshot")
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        self._snapshots.delete(snapshot)

    # --- the platform itself ---

    def check(self) -> Sequence[Finding]:
        try:
            return doctor.check(self._options, self._api)
        except Fault as error:
            return [Finding(ok=False, subject=f"project {self._options.project}", message=str(error), mend=doctor.SIGN_IN)]

    def close(self) -> None:
        self._api.close()


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise Invalid(field="limit", value=limit, reason="a part has 1 item or more")
