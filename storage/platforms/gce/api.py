"""The calls of Compute Engine that are used, each paced and repeated as it may be. Answers are Google's messages.

Knows no token, no mark and no volume. Only methods without Google's own waiting are used: that asks another address than ours.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from storage.platforms.gce.calls import Calls, Pace, Watch
from storage.platforms.gce.failures import GONE, STRANGE, Fault
from storage.platforms.gce.names import Place, last, place_of_link
from storage.platforms.gce.options import GceOptions
from storage.platforms.gce.sdk import Clients, messages
from storage.platforms.pacing import TokenBucket

MOST_PER_PAGE: Final = 500
NAMES_PER_CALL: Final = 50
CALL_S: Final = 30.0
"""How long one call may take on the wire."""
KIND: Final = "compute#"
"""How Google says of each answer what it is."""
T = TypeVar("T")


def request_id() -> str:
    return str(uuid.uuid4())


class Api:
    def __init__(self, options: GceOptions, *, pace: Pace, ids: Callable[[], str] = request_id) -> None:
        self._project, self._zones, self._ids = options.project, options.zones, ids
        self._clients = Clients(options)
        bucket = TokenBucket(options.calls_per_s, 2 * options.calls_per_s, now=pace.now, wait=pace.wait, chance=pace.chance)
        self._calls = Calls(bucket=bucket, timeout_s=options.timeout_s, pace=pace)
        self._watch = Watch(self._named, timeout_s=options.timeout_s, every_s=pace.look_every_s)

    def close(self) -> None:
        self._clients.close()

    def _call(self, service: str, method: str, request: str, **fields: Any) -> Any:
        """One call. Credentials are looked for inside, because looking for them may fail as a call does."""

        def send() -> Any:
            message = getattr(messages(), request)(project=self._project, **fields)
            answer = getattr(self._clients[service], method)(message, retry=None, timeout=CALL_S)
            if not answer.kind.startswith(KIND):
                raise Fault(STRANGE, f"an object of kind {answer.kind or '(none)'}")
            return answer

        return self._calls(send)

    def _change(self, zone: str, service: str, method: str, request: str, **fields: Any) -> None:
        """A call that changes something, and the wait for its operation: HTTP says 200 also to what fails later."""
        where = {"zone": zone} if zone else {}
        self._watch.done(self._call(service, f"{method}_unary", request, request_id=self._ids(), **where, **fields), zone)

    def _or_none(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Fault as fault:
            if fault.code in GONE:
                return None
            raise

    # --- disks ---

    def disk(self, place: Place) -> Any:
        """None if there is no such disk."""
        return self._or_none(lambda: self._call("disks", "get", "GetDiskRequest", zone=place.zone, disk=place.name))

    def settled_disk(self, place: Place, states: frozenset[str]) -> Any:
        return self._watch.settled("disks", place.zone, place.name, states)

    def disks(self, zone: str, *, page_token: str, most: int) -> tuple[list[Any], str]:
        """A part of a zone's disks in the order of their names, and what to ask the next part with (empty: that was all)."""
        return self._page("disks", "ListDisksRequest", zone=zone, max_results=min(most, MOST_PER_PAGE), **_after(page_token))

    def all_disks(self, filter: str) -> Iterator[Any]:  # noqa: A002  # Google's word
        """The disks of all zones that a filter lets through.

        Raises Fault where Google cannot look into a zone of ours: what is there would be taken for missing.
        """
        token = ""
        while True:
            page = self._call("disks", "aggregated_list", "AggregatedListDisksRequest", filter=filter, **_after(token))
            first = next(iter(page.pages))
            for name, scope in first.items.items():
                if last(name) in self._zones and scope.warning.code not in ("", "NO_RESULTS_ON_PAGE"):
                    raise Fault("BACKEND_ERROR", f"{scope.warning.code}: disks in {name} are not told: {scope.warning.message}")
                yield from scope.disks
            token = first.next_page_token
            if not token:
                return

    def disks_named(self, zone: str, names: Sequence[str]) -> list[Any]:
        """Those disks of a zone that there are: one call for as many names as its address holds."""
        parts = [names[start : start + NAMES_PER_CALL] for start in range(0, len(names), NAMES_PER_CALL)]
        return [disk for part in parts for disk in self._named("disks", zone, part).values()]

    def insert_disk(self, zone: str, **fields: Any) -> None:
        kind = f"projects/{self._project}/zones/{zone}/diskTypes/{fields.pop('kind')}"
        self._change(zone, "disks", "insert", "InsertDiskRequest", disk_resource=messages().Disk(type_=kind, **fields))

    def delete_disk(self, place: Place) -> None:
        self._change(place.zone, "disks", "delete", "DeleteDiskRequest", disk=place.name)

    def resize_disk(self, place: Place, size_gib: int) -> None:
        wanted = messages().DisksResizeRequest(size_gb=size_gib)
        self._change(place.zone, "disks", "resize", "ResizeDiskRequest", disk=place.name, disks_resize_request_resource=wanted)

    def set_labels(self, place: Place, labels: Mapping[str, str], fingerprint: str) -> None:
        """Raises Fault with CONDITION_NOT_MET if the labels are no longer those of the fingerprint."""
        wanted = messages().ZoneSetLabelsRequest(labels=dict(labels), label_fingerprint=fingerprint)
        self._change(
            place.zone, "disks", "set_labels", "SetLabelsDiskRequest", resource=place.name, zone_set_labels_request_resource=wanted
        )

    # --- instances ---

    def instance(self, place: Place) -> Any:
        return self._or_none(lambda: self._call("instances", "get", "GetInstanceRequest", zone=place.zone, instance=place.name))

    def machine_type(self, zone: str, name: str) -> Any:
        """None where the zone has none of that name."""
        return self._or_none(lambda: self._call("machine_types", "get", "GetMachineTypeRequest", zone=zone, machine_type=name))

    def attach(self, node: Place, disk: Place, *, device_name: str, read_only: bool) -> None:
        """Never by force. The disk stays when the instance is deleted."""
        source = f"projects/{self._project}/zones/{disk.zone}/disks/{disk.name}"
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        wanted = messages().AttachedDisk(source=source, device_name=device_name, mode=mode, auto_delete=False)
        self._change(node.zone, "instances", "attach_disk", "AttachDiskInstanceRequest", instance=node.name, attached_disk_resource=wanted)

    def detach(self, node: Place, device_name: str) -> None:
        self._change(node.zone, "instances", "detach_disk", "DetachDiskInstanceRequest", instance=node.name, device_name=device_name)

    def await_attaches(self, zone: str, concerns: Callable[[Place], bool]) -> None:
        """Waits until no disk is on its way to an instance that `concerns` picks. Raises Fault if one stays on its way."""
        under_way = "(operationType = attachDisk) AND (status != DONE)"
        for operation in self._all("zone_operations", "ListZoneOperationsRequest", zone=zone, filter=under_way):
            node = place_of_link(operation.target_link)
            if node is not None and concerns(node):
                self._watch.ended(operation, zone)

    # --- snapshots ---

    def snapshot(self, name: str) -> Any:
        return self._or_none(lambda: self._call("snapshots", "get", "GetSnapshotRequest", snapshot=name))

    def settled_snapshot(self, name: str, states: frozenset[str]) -> Any:
        return self._watch.settled("snapshots", "", name, states)

    def snapshots(self, *, page_token: str, most: int) -> tuple[list[Any], str]:
        return self._page("snapshots", "ListSnapshotsRequest", max_results=min(most, MOST_PER_PAGE), **_after(page_token))

    def create_snapshot(self, disk: Place, **fields: Any) -> None:
        wanted = messages().Snapshot(**fields)
        self._change(disk.zone, "disks", "create_snapshot", "CreateSnapshotDiskRequest", disk=disk.name, snapshot_resource=wanted)

    def delete_snapshot(self, name: str) -> None:
        self._change("", "snapshots", "delete", "DeleteSnapshotRequest", snapshot=name)

    # --- surroundings ---

    def zone(self, name: str) -> Any:
        return self._or_none(lambda: self._call("zones", "get", "GetZoneRequest", zone=name))

    def disk_type(self, zone: str, name: str) -> Any:
        return self._or_none(lambda: self._call("disk_types", "get", "GetDiskTypeRequest", zone=zone, disk_type=name))

    def quotas(self, region: str) -> dict[str, tuple[int, int]]:
        """Each quota of a region: its limit and what is used."""
        found = self._call("regions", "get", "GetRegionRequest", region=region)
        return {last(quota.metric): (int(quota.limit), int(quota.usage)) for quota in found.quotas}

    # --- lists ---

    def _page(self, service: str, request: str, **fields: Any) -> tuple[list[Any], str]:
        page = next(iter(self._call(service, "list", request, **fields).pages))
        return list(page.items), page.next_page_token

    def _all(self, service: str, request: str, **fields: Any) -> Iterator[Any]:
        """Part by part: what a filter lets through may begin behind parts that are short, or empty."""
        token = ""
        while True:
            found, token = self._page(service, request, **fields, **_after(token))
            yield from found
            if not token:
                return

    def _named(self, kind: str, zone: str, names: Sequence[str]) -> dict[str, Any]:
        """What there is under these names: one look, however many wait."""
        if len(names) == 1:
            found = self._one(kind, zone, names[0])
            return {} if found is None else {names[0]: found}
        where = {"zone": zone} if zone else {}
        service, request = {
            "operations": ("zone_operations", "ListZoneOperationsRequest")
            if zone
            else ("global_operations", "ListGlobalOperationsRequest"),
            "disks": ("disks", "ListDisksRequest"),
            "snapshots": ("snapshots", "ListSnapshotsRequest"),
        }[kind]
        wanted = " OR ".join(f"(name = {name})" for name in names)
        return {one.name: one for one in self._all(service, request, filter=wanted, **where)}

    def _one(self, kind: str, zone: str, name: str) -> Any:
        if kind == "disks":
            return self.disk(Place(zone, name))
        if kind == "snapshots":
            return self.snapshot(name)
        if zone:
            return self._or_none(lambda: self._call("zone_operations", "get", "GetZoneOperationRequest", zone=zone, operation=name))
        return self._or_none(lambda: self._call("global_operations", "get", "GetGlobalOperationRequest", operation=name))


def _after(page_token: str) -> dict[str, str]:
    return {"page_token": page_token} if page_token else {}
