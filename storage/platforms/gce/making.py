"""New disks: what of a request Compute Engine can do, and how one token makes one disk, however often it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from storage.errors import Conflict, Invalid, PoolFull, UnknownPool, UnknownSnapshot, UnknownVolume
from storage.model import ExternalId, Sizes
from storage.platforms import cloning
from storage.platforms.base import CreateRequest, VolumeReport
from storage.platforms.gce import tags
from storage.platforms.gce.api import Api
from storage.platforms.gce.attachments import Attachments
from storage.platforms.gce.failures import FULL, GONE, TAKEN, Fault
from storage.platforms.gce.kinds import GIB_IN_MIB, TYPES, DiskType
from storage.platforms.gce.names import Place, disk_name, pool_name, region_of
from storage.platforms.gce.options import GceOptions
from storage.platforms.gce.records import LEAVING, kind_of, place_of, volume_report
from storage.platforms.gce.snapshots import Snapshots

KMS_KEY: Final = "kmsKeyName"
PARAMETERS: Final = ("type", "provisionedIops", "provisionedThroughput", KMS_KEY)


class Making:
    def __init__(self, name: str, options: GceOptions, api: Api, attachments: Attachments, snapshots: Snapshots) -> None:
        self._name, self._options, self._api = name, options, api
        self._attachments, self._snapshots = attachments, snapshots

    def find(self, token: str) -> Any:
        """The disk that this token made, in whichever zone. None if there is none."""
        for disk in self._api.all_disks(f'name = "{disk_name(token)}"') if token else ():
            if (
                place_of(disk).zone in self._options.zones
                and disk.status not in LEAVING
                and tags.read_story(disk.description).token == token
            ):
                return disk
        return None

    def create(self, request: CreateRequest) -> VolumeReport:
        if (found := self.find(request.token)) is not None:
            return volume_report(self._attachments.ready(place_of(found).external_id))
        zone, kind = self._pool(request.pool)
        size_mib = self.sizes(request.parameters, request.pool).fit(request.size_mib)
        self._insert(request, zone, kind, size_mib)
        try:
            report = volume_report(self._attachments.ready(Place(zone, disk_name(request.token)).external_id))
        except UnknownVolume as error:
            raise Fault("RESOURCE_NOT_READY", f"a disk {disk_name(request.token)} is still being deleted") from error
        if report.token != request.token:
            raise Conflict(
                what=f"the disk {report.external_id}", expected=f"token {request.token}", found=f"token {report.token or 'none'}"
            )
        return report

    def sizes(self, parameters: Mapping[str, str], pool: str | None) -> Sizes:
        """Those of the pool's type; without a pool, of all types that take the parameters. Raises Invalid where none does, UnknownPool."""
        kinds = self._kinds(parameters, pool)
        if len(kinds) == 1:
            return kinds[0].sizes
        least, most = min(kind.least_gib for kind in kinds), max(kind.most_gib for kind in kinds)
        return Sizes(min_mib=least * GIB_IN_MIB, max_mib=most * GIB_IN_MIB, granularity_mib=GIB_IN_MIB)

    def _kinds(self, parameters: Mapping[str, str], pool: str | None) -> Sequence[DiskType]:
        """The types that take the parameters. Where none does, the type that is asked for, or that takes most, says what is wrong."""
        kinds = [TYPES[kind] for kind in self._options.types] if pool is None else [self._pool(pool)[1]]
        refusals: dict[str, Invalid] = {}
        for kind in kinds:
            try:
                _parameters(parameters, kind)
            except Invalid as error:
                refusals[kind.name] = error
        if len(refusals) == len(kinds):
            raise refusals.get(parameters.get("type", ""), next(iter(refusals.values())))
        return [kind for kind in kinds if kind.name not in refusals]

    def _pool(self, name: str) -> tuple[str, DiskType]:
        for zone in self._options.zones:
            for kind in self._options.types:
                if pool_name(zone, kind) == name:
                    return zone, TYPES[kind]
        raise UnknownPool(pool=name, platform=self._name)

    def _insert(self, request: CreateRequest, zone: str, kind: DiskType, size_mib: int) -> None:
        fields = self._fields(request, kind, size_mib)
        try:
            self._api.insert_disk(zone, name=disk_name(request.token), kind=kind.name, size_gb=size_mib // GIB_IN_MIB, **fields)
        except Fault as fault:
            if fault.code in FULL:
                raise self._full(zone, kind, size_mib, fault) from fault
            if request.snapshot is not None and fault.code in GONE:
                raise UnknownSnapshot(snapshot=request.snapshot, reason=str(fault)) from fault
            if request.source is not None and fault.code in GONE:
                raise UnknownVolume(volume=request.source, reason=str(fault)) from fault
            if fault.code not in TAKEN:
                raise

    def _fields(self, request: CreateRequest, kind: DiskType, size_mib: int) -> dict[str, Any]:
        fields = _parameters(request.parameters, kind)
        story = tags.Story(token=request.token, name=request.name, labels=dict(request.labels))
        fields |= {"description": tags.write_story(story), "labels": {**tags.plain(request.labels), tags.OURS: tags.MADE}}
        if request.snapshot is not None:
            fields["source_snapshot"] = self._snapshots.source(request.snapshot, size_mib)
        if request.source is not None:
            fields["source_disk"] = self._source(request, request.source, size_mib)
        return fields

    def _source(self, request: CreateRequest, source: ExternalId, size_mib: int) -> str:
        """The disk to clone, which is one of the same type and zone."""
        disk = self._attachments.ready(source)
        cloning.check(request, volume_report(disk), size_mib)
        zone, name = place_of(disk)
        return f"projects/{self._options.project}/zones/{zone}/disks/{name}"

    def _full(self, zone: str, kind: DiskType, size_mib: int, fault: Fault) -> PoolFull:
        """What the quota has left; nothing where it is the zone that has no more disks."""
        free_mib = 0
        if fault.code == "QUOTA_EXCEEDED":
            limit, usage = self._api.quotas(region_of(zone)).get(kind.quota, (0, 0))
            free_mib = max(0, limit - usage) * GIB_IN_MIB
        return PoolFull(pool=pool_name(zone, kind.name), platform=self._name, free_mib=free_mib, size_mib=size_mib, reason=str(fault))

    def expand(self, disk: Any, size_mib: int, wanted_mib: int) -> None:
        """Raises Invalid for less than the disk has, PoolFull."""
        report, kind = volume_report(disk), TYPES.get(kind_of(disk))
        if wanted_mib < report.size_mib:
            reason = f"volume {report.external_id} has {report.size_mib} MiB, and volumes never shrink"
            raise Invalid(field="size_mib", value=size_mib, reason=reason)
        if kind is not None:
            kind.sizes.fit(size_mib)
        if wanted_mib > report.size_mib:
            self._resize(place_of(disk), kind, wanted_mib)

    def _resize(self, place: Place, kind: DiskType | None, size_mib: int) -> None:
        try:
            self._api.resize_disk(place, size_mib // GIB_IN_MIB)
        except Fault as fault:
            if fault.code in FULL and kind is not None:
                raise self._full(place.zone, kind, size_mib, fault) from fault
            # Another process that wanted the same may have done it already.
            if fault.passing or volume_report(self._attachments.known(place.external_id)).size_mib < size_mib:
                raise


def _parameters(parameters: Mapping[str, str], kind: DiskType) -> dict[str, Any]:
    """A profile's parameters as a disk's fields. Raises Invalid."""
    for key, value in parameters.items():
        if key not in PARAMETERS:
            raise Invalid(field=f"parameters.{key}", value=value, reason=f"the parameters are {', '.join(PARAMETERS)}")
    if parameters.get("type", kind.name) != kind.name:
        reason = f'the pool has {kind.name} disks; let the profile say pool_labels = {{ type = "{parameters["type"]}" }}'
        raise Invalid(field="parameters.type", value=parameters["type"], reason=reason)
    fields: dict[str, Any] = {}
    for key, field, able in (
        ("provisionedIops", "provisioned_iops", kind.iops),
        ("provisionedThroughput", "provisioned_throughput", kind.throughput),
    ):
        if key in parameters:
            fields[field] = _provisioned(key, parameters[key], kind, able=able)
    if KMS_KEY in parameters:
        fields["disk_encryption_key"] = {"kms_key_name": parameters[KMS_KEY]}
    return fields


def _provisioned(key: str, text: str, kind: DiskType, *, able: bool) -> int:
    if not able:
        raise Invalid(field=f"parameters.{key}", value=text, reason=f"a {kind.name} disk does not have it")
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise Invalid(field=f"parameters.{key}", value=text, reason="it must be a whole number from 1")
    return int(text)
