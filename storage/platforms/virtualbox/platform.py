"""The verbs of a VirtualBox, in order: what each checks, and which part does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from storage.errors import Invalid, UnknownPool, VolumeInUse
from storage.model import Birth, ExternalId, Page
from storage.platforms import cloning
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.options import write_options
from storage.platforms.virtualbox import doctor, layout
from storage.platforms.virtualbox.attaching import Attaching
from storage.platforms.virtualbox.failures import verb
from storage.platforms.virtualbox.host import Host
from storage.platforms.virtualbox.layout import Layout
from storage.platforms.virtualbox.making import Making, Plan
from storage.platforms.virtualbox.manage import ManageHost
from storage.platforms.virtualbox.media import Found, Media
from storage.platforms.virtualbox.nodes import Nodes
from storage.platforms.virtualbox.options import VARIANTS, VirtualBoxOptions, read_parameters, refuse_incomplete
from storage.platforms.virtualbox.patience import Patience
from storage.platforms.virtualbox.pools import Pools
from storage.platforms.virtualbox.records import Record
from storage.platforms.virtualbox.snapshots import Snapshots
from storage.platforms.virtualbox.soap import SoapHost
from storage.platforms.virtualbox.ways import OneWay
from storage.platforms.virtualbox.websession import WebSession

LARGEST_MIB: Final = 2097149
"""VirtualBox's own limit of a medium, just below 2 TiB."""


def _host(options: VirtualBoxOptions) -> Host:
    places, patience = Layout(options.root, options.pools), Patience(bound_s=options.lock_wait_s)
    way = OneWay(places.root, options.via)
    if options.via == "vboxmanage":
        return ManageHost(options.vboxmanage, options.root, timeout_s=options.timeout_s, patience=patience, way=way)
    return SoapHost(WebSession(options), lock_file=places.lock(), is_kept=places.is_kept, patience=patience, way=way)


class VirtualBoxPlatform(Platform):
    Options = VirtualBoxOptions

    def __init__(self, name: str, options: VirtualBoxOptions, *, host: Host | None = None) -> None:
        refuse_incomplete(name, options)
        self._name, self._options = name, options
        self._host = host or _host(options)
        self._media = Media(name, self._host, Layout(options.root, options.pools))
        self._nodes = Nodes(name, self._host)
        self._pools = Pools(self._media, options)
        self._making = Making(self._media, capacity_mib=options.capacity_mib, total_mib=options.total_mib)
        self._snapshots = Snapshots(self._media, self._making)
        self._attaching = Attaching(self._media, self._nodes, controller=options.controller)

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            snapshots=True,
            snapshots_outlive=True,
            restores=True,
            clones=True,
            expand_detached=True,
            fences=True,
            marks=True,
            max_mib=LARGEST_MIB,
            slots_per_node=self._options.slots,
            identity="virtualbox",
            sees_nodes=True,
            counts_slots=True,
        )

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    @verb("look at its pools")
    def pools(self) -> Sequence[PoolReport]:
        return self._pools.reports()

    @verb("list its volumes")
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        page = self._media.page(layout.is_volume, after, limit)
        return Page(items=[self._report(found) for found in page.items], after=page.after)

    @verb("look at a volume")
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return self._report(self._media.known(external_id))

    @verb("look for a volume")
    def find(self, token: str) -> VolumeReport | None:
        found = self._media.find(token) if token else None
        return self._report(found) if found else None

    def _report(self, found: Found) -> VolumeReport:
        return self._media.report(found, zone=self._options.zone)

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        read_parameters(parameters)

    @verb("create a volume")
    def create(self, request: CreateRequest) -> VolumeReport:
        if made := self._media.find(request.token):
            return self._report(made)
        plan, record = self._plan(request)
        return self._report(self._making.make(plan, record, there=lambda: self._media.find(request.token)))

    def _plan(self, request: CreateRequest) -> tuple[Plan, Record]:
        if request.pool not in self._options.pools:
            raise UnknownPool(pool=request.pool, platform=self._name)
        parameters, size_mib = read_parameters(request.parameters), self.capabilities.fit(request.size_mib)
        record = Record(name=request.name, labels=dict(request.labels))
        plan = Plan(
            pool=request.pool,
            stem=layout.volume_stem(request.token),
            suffix=parameters.format,
            size_mib=size_mib,
            variant=VARIANTS[parameters.variant],
        )
        if request.source is not None:
            return self._cloning(plan, request, request.source), record
        return plan if request.snapshot is None else self._restoring(plan, request.snapshot), record

    def _cloning(self, plan: Plan, request: CreateRequest, source: ExternalId) -> Plan:
        """While the copy is made VirtualBox keeps the medium from being written, as it does for a snapshot."""
        origin = self._media.known(source)
        cloning.check(request, self._report(origin), plan.size_mib)
        cloning.refuse_attached(self._report(origin), platform=self._name)
        return replace(plan, origin=origin.uuid, origin_mib=origin.medium.size_mib)

    def _restoring(self, plan: Plan, snapshot: ExternalId) -> Plan:
        origin = self._snapshots.known(snapshot)
        if plan.size_mib < origin.medium.size_mib:
            reason = f"snapshot {snapshot} has {origin.medium.size_mib} MiB, and volumes never shrink"
            raise Invalid(field="size_mib", value=plan.size_mib, reason=reason)
        return replace(plan, origin=origin.uuid, origin_mib=origin.medium.size_mib)

    @verb("delete a volume")
    def delete(self, external_id: ExternalId) -> None:
        self._attaching.delete(external_id)

    @verb("attach a volume")
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        """VirtualBox attaches disks for writing; a reader's is mounted read-only by its node."""
        return self._attaching.attach(external_id, node, epoch=epoch, read_only=read_only)

    @verb("detach a volume")
    def detach(self, external_id: ExternalId, node: str) -> None:
        self._attaching.detach(external_id, node)

    @verb("fence a volume")
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return self._attaching.fence(external_id, epoch)

    @verb("look at a node")
    def node_stopped(self, node: str) -> str | None:
        """A VM whose state was saved is not stopped: it wakes up with its filesystems mounted."""
        return self._nodes.stopped(node)

    @verb("look at a node")
    def node_slots(self, node: str) -> int | None:
        return self._attaching.slots(node)

    @verb("store a birth certificate")
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        self._attaching.record_birth(external_id, birth, epoch=epoch)

    @verb("list its snapshots")
    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        return self._snapshots.page(after, limit)

    @verb("snapshot a volume")
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        return self._snapshots.take(external_id, token, name)

    @verb("delete a snapshot")
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        self._snapshots.delete(snapshot)

    @verb("expand a volume")
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        """Only while no VM has it. A fixed VDI cannot grow at all, which VirtualBox says itself."""
        wanted, found = self.capabilities.fit(size_mib), self._media.known(external_id)
        now_mib = found.medium.size_mib
        if wanted < now_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"volume {external_id} has {now_mib} MiB, and volumes never shrink")
        if wanted > now_mib:
            if found.medium.machines:
                raise VolumeInUse(volume=external_id, holder=f"VM {self._nodes.names(found.medium.machines)}")
            self._making.refuse_full(found.place.pool, wanted - now_mib)
            self._host.resize(external_id, wanted)
        return self.inspect(external_id)

    @verb("check itself")
    def check(self) -> Sequence[Finding]:
        return doctor.check(self._options, self._media)

    def close(self) -> None:
        self._host.close()
