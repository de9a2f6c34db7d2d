"""One project of Compute Engine: its disks, instances, snapshots and quotas, and operations that take their time.

Resources are kept as the API shows them. What an operation does, it does when it is due: every look settles what is due first.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from storage.platforms import faulting
from tests.peers.gce.errors import ApiError, OperationError, not_found

Resource = dict[str, Any]
Finish = Callable[[], None]

HOSTS = ("https://www.googleapis.com/compute/v1", "https://compute.googleapis.com/compute/v1", "https://www.googleapis.com/compute/beta")
"""Google writes links with any of these."""
ZONES = {"europe-west4-a": "europe-west4", "europe-west4-b": "europe-west4", "us-central1-f": "us-central1"}
DISK_TYPES = {
    "pd-standard": ("DISKS_TOTAL_GB", 10, 65536),
    "pd-balanced": ("SSD_TOTAL_GB", 10, 65536),
    "pd-ssd": ("SSD_TOTAL_GB", 10, 65536),
    "pd-extreme": ("SSD_TOTAL_GB", 500, 65536),
    "hyperdisk-balanced": ("HDB_TOTAL_GB", 4, 65536),
    "hyperdisk-throughput": ("HDT_TOTAL_GB", 2048, 32768),
}
"""Type: the quota it counts for, its smallest and its largest size."""
MACHINE_TYPES = {"e2-micro": (16, 2, 16), "n2-standard-4": (128, 4, 128), "c4-standard-4": (128, 4, 16), "n4-custom-8-32768": (128, 8, 16)}
"""Type: how many persistent disks the API says that an instance may have, how many vCPUs it has, and how many disks it really takes; the
boot disk counted."""


@dataclass(slots=True, kw_only=True)
class Faults:
    """What goes wrong next."""

    throttled: int = 0
    """So many calls are refused for their rate."""
    at_call: faulting.Faults = field(default_factory=faulting.Faults)
    refusals: list[tuple[str, ApiError]] = field(default_factory=list)
    """The next call of the method is refused so, and nothing is done."""
    failures: list[tuple[str, OperationError]] = field(default_factory=list)
    """The next operation of this type ends so."""
    denied: set[str] = field(default_factory=set)
    """Permissions that the account does not have."""
    down: set[str] = field(default_factory=set)
    """Zones that are down."""
    unreachable: set[str] = field(default_factory=set)
    """Zones that lists over all zones leave out with a warning."""
    stuck: set[str] = field(default_factory=set)
    """Operations of these types never end."""


@dataclass(slots=True, kw_only=True)
class World:
    project: str
    operation_s: float = 0.0
    """How long an operation takes."""
    now: Callable[[], float] = time.monotonic
    zones: dict[str, str] = field(default_factory=lambda: dict(ZONES))
    limits_gb: dict[str, int] = field(default_factory=lambda: {"SSD_TOTAL_GB": 40960, "DISKS_TOTAL_GB": 4096, "HDB_TOTAL_GB": 1024})
    foreign_gb: int = 0
    """What disks count for SSD_TOTAL_GB that nobody here sees."""
    disks: dict[str, Resource] = field(default_factory=dict)
    """By `zone/name`, as are instances; snapshots by name; operations by `zone/name` or `/name`."""
    instances: dict[str, Resource] = field(default_factory=dict)
    snapshots: dict[str, Resource] = field(default_factory=dict)
    operations: dict[str, Resource] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    """The methods that were called, in order."""
    faults: Faults = field(default_factory=Faults)
    _requests: dict[str, Resource] = field(default_factory=dict)
    _pending: list[tuple[float, Resource, Finish, Finish]] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(4_611_686_018_427_387_905))
    _hosts: Iterator[str] = field(default_factory=lambda: itertools.cycle(HOSTS))

    # --- names ---

    def link(self, *parts: str) -> str:
        return "/".join((next(self._hosts), "projects", self.project, *parts))

    def path(self, *parts: str) -> str:
        return "/".join(("projects", self.project, *parts))

    def identity(self) -> str:
        return str(next(self._ids))

    def stamp(self) -> str:
        return datetime.now(UTC).isoformat(timespec="milliseconds")

    def zone(self, name: str) -> str:
        if name not in self.zones:
            raise not_found(self.path("zones", name))
        return name

    def disk(self, zone: str, name: str) -> Resource:
        found = self.disks.get(f"{self.zone(zone)}/{name}")
        if found is None:
            raise not_found(self.path("zones", zone, "disks", name))
        return found

    def instance(self, zone: str, name: str) -> Resource:
        found = self.instances.get(f"{self.zone(zone)}/{name}")
        if found is None:
            raise not_found(self.path("zones", zone, "instances", name))
        return found

    def snapshot(self, name: str) -> Resource:
        found = self.snapshots.get(name)
        if found is None:
            raise not_found(self.path("global", "snapshots", name))
        return found

    # --- who uses what ---

    def attachments(self, disk: str) -> list[tuple[str, Resource]]:
        """The instances that have the disk `zone/name`, each with its entry."""
        zone, _, name = disk.partition("/")
        ending = f"/zones/{zone}/disks/{name}"
        return [
            (key, entry)
            for key, instance in self.instances.items()
            for entry in instance["disks"]
            if entry.get("source", "").endswith(ending)
        ]

    def users(self, disk: str) -> list[str]:
        return [self.link("zones", *key.replace("/", "/instances/").split("/")) for key, _ in self.attachments(disk)]

    def usage_gb(self, region: str, metric: str) -> int:
        disks = [disk for key, disk in self.disks.items() if self.zones[key.split("/")[0]] == region]
        used = sum(int(disk["sizeGb"]) for disk in disks if DISK_TYPES[disk["type"].rsplit("/", 1)[1]][0] == metric)
        return used + (self.foreign_gb if metric == "SSD_TOTAL_GB" else 0)

    # --- operations ---

    def begin(
        self, kind: str, zone: str, target: Resource, finish: Finish, request_id: str = "", *, undo: Finish = lambda: None
    ) -> Resource:
        """An operation that does `finish` when its time has come, or `undo` if that fails; the same request again is the same operation."""
        name = f"operation-{len(self.operations):013d}-{self.project}"[:63]
        place = ("zones", zone, "operations", name) if zone else ("global", "operations", name)
        made: Resource = {
            "kind": "compute#operation",
            "id": self.identity(),
            "name": name,
            "operationType": kind,
            "targetLink": target["selfLink"],
            "targetId": target["id"],
            "status": "PENDING",
            "progress": 0,
            "user": f"polly@{self.project}.iam.gserviceaccount.com",
            "insertTime": self.stamp(),
            "selfLink": self.link(*place),
        }
        made |= {"zone": self.link("zones", zone)} if zone else {}
        made |= {"clientOperationId": request_id} if request_id else {}
        self.operations[f"{zone}/{name}"] = made
        self._pending.append((self.now() + self.operation_s, made, self._failing(kind, finish), undo))
        if request_id:
            self._requests[request_id] = made
        return dict(made)

    def repeated(self, request_id: str) -> Resource | None:
        return self._requests.get(request_id) if request_id else None

    def _failing(self, kind: str, finish: Finish) -> Finish:
        for number, (wanted, error) in enumerate(self.faults.failures):
            if wanted == kind:
                del self.faults.failures[number]
                return _raising(error)
        return finish

    def settle(self) -> None:
        """Does what is due, in the order in which it was asked for."""
        due = [entry for entry in self._pending if entry[0] <= self.now() and entry[1]["operationType"] not in self.faults.stuck]
        for entry in self._pending:
            entry[1]["status"] = "RUNNING"
        self._pending = [entry for entry in self._pending if entry not in due]
        for _, operation, finish, undo in due:
            try:
                finish()
            except OperationError as error:
                undo()
                operation["error"] = {"errors": [{"code": error.code, "message": error.message}]}
                operation |= {"httpErrorStatusCode": 400, "httpErrorMessage": "BAD REQUEST"}
            operation |= {"status": "DONE", "progress": 100, "endTime": self.stamp()}


def fingerprint(labels: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(repr(sorted(labels.items())).encode()).digest()[:8]).decode()


def _raising(error: OperationError) -> Finish:
    def fail() -> None:
        raise error

    return fail
