"""Disks and snapshots: made, grown, labelled, copied and deleted as Compute Engine does it."""

from __future__ import annotations

import re
from typing import Any

from tests.peers.gce.discovery import Call
from tests.peers.gce.errors import ApiError, OperationError, in_use, invalid
from tests.peers.gce.world import DISK_TYPES, Resource, World, fingerprint

LABEL = re.compile(r"[a-z0-9_-]{0,63}")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
PROVISIONED = {
    "provisionedIops": ("pd-extreme", "hyperdisk-balanced"),
    "provisionedThroughput": ("hyperdisk-balanced", "hyperdisk-throughput"),
}


def shown(world: World, disk: Resource) -> Resource:
    """A disk as the API shows it, with its users if it has any."""
    users = world.users(f"{disk['zone'].rsplit('/', 1)[1]}/{disk['name']}")
    return disk | ({"users": users} if users else {})


def get(world: World, call: Call) -> Resource:
    return shown(world, world.disk(call.path["zone"], call.path["disk"]))


def insert(world: World, call: Call) -> Resource:
    zone, wanted = world.zone(call.path["zone"]), call.body
    if f"{zone}/{wanted['name']}" in world.disks:
        path = world.path("zones", zone, "disks", wanted["name"])
        raise ApiError(409, "alreadyExists", f"The resource '{path}' already exists")
    return add(world, zone, wanted, call.query.get("requestId", ""))


def add(world: World, zone: str, wanted: Resource, request_id: str = "") -> Resource:
    kind = _kind(world, zone, wanted.get("type", "pd-standard"))
    made = {**wanted, "type": world.link("zones", zone, "diskTypes", kind), "sizeGb": str(_size_gb(world, zone, wanted, kind))}
    made |= _source(world, zone, wanted)
    made |= {"kind": "compute#disk", "id": world.identity(), "status": "CREATING", "creationTimestamp": world.stamp()}
    made |= {"zone": world.link("zones", zone), "selfLink": world.link("zones", zone, "disks", wanted["name"])}
    made |= {"labelFingerprint": fingerprint(_labels(wanted.get("labels", {}))), "physicalBlockSizeBytes": "4096"}
    key = f"{zone}/{wanted['name']}"
    world.disks[key] = made

    def finish() -> None:
        if over := _over_quota(world, zone, kind, 0):
            raise over
        made["status"] = "READY"

    def undo() -> None:
        world.disks.pop(key, None)

    return world.begin("insert", zone, made, finish, request_id, undo=undo)


def _kind(world: World, zone: str, link: str) -> str:
    kind = link.rsplit("/", 1)[-1]
    if kind not in DISK_TYPES or ("/" in link and f"zones/{zone}/diskTypes/" not in link):
        raise invalid("resource.type", link, "The referenced disk type resource cannot be found.")
    return kind


def _size_gb(world: World, zone: str, wanted: Resource, kind: str) -> int:
    source, origin = _snapshot_of(world, wanted), _disk_of(world, zone, wanted)
    size_gb = int(wanted.get("sizeGb") or (source["diskSizeGb"] if source else origin["sizeGb"] if origin else 500))
    _, least, most = DISK_TYPES[kind]
    if not least <= size_gb <= most:
        raise invalid("resource.sizeGb", size_gb, f"Disk size must be between {least} and {most} GB for {kind}.")
    if source and size_gb < int(source["diskSizeGb"]):
        raise invalid(
            "resource.sizeGb", size_gb, f"Requested disk size cannot be smaller than the snapshot size ({source['diskSizeGb']} GB)"
        )
    if origin and size_gb < int(origin["sizeGb"]):
        raise invalid("resource.sizeGb", size_gb, f"Requested disk size cannot be smaller than the source's ({origin['sizeGb']} GB)")
    if origin and origin["type"].rsplit("/", 1)[1] != kind:
        raise invalid("resource.type", kind, f"A clone has its source's type, {origin['type']}.")
    for field, kinds in PROVISIONED.items():
        if field in wanted and kind not in kinds:
            raise invalid(f"resource.{field}", wanted[field], f"Disk type {kind} does not support it.")
    return size_gb


def _snapshot_of(world: World, wanted: Resource) -> Resource | None:
    if "sourceSnapshot" not in wanted:
        return None
    found = world.snapshot(wanted["sourceSnapshot"].rsplit("/", 1)[-1])
    if found["status"] != "READY":
        raise ApiError(400, "resourceNotReady", f"The resource '{found['selfLink']}' is not ready")
    return found


def _disk_of(world: World, zone: str, wanted: Resource) -> Resource | None:
    """The disk to clone: it is in the zone of its clone."""
    if "sourceDisk" not in wanted:
        return None
    if "sourceSnapshot" in wanted:
        raise invalid("resource.sourceDisk", wanted["sourceDisk"], "A disk has one source.")
    there, _, name = wanted["sourceDisk"].rpartition("/disks/")
    found = world.disk(there.rsplit("/", 1)[-1], name)
    if not there.endswith(f"zones/{zone}"):
        raise invalid("resource.sourceDisk", wanted["sourceDisk"], f"The source disk must be in zone {zone}.")
    _ready(found)
    return found


def _source(world: World, zone: str, wanted: Resource) -> Resource:
    if disk := _disk_of(world, zone, wanted):
        return {"sourceDisk": disk["selfLink"], "sourceDiskId": disk["id"]}
    found = _snapshot_of(world, wanted)
    return {"sourceSnapshot": found["selfLink"], "sourceSnapshotId": found["id"]} if found else {}


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > 64:
        raise invalid("resource.labels", len(labels), "At most 64 labels are allowed.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL.fullmatch(value):
            raise invalid("resource.labels", f"{key}={value}", "Label keys and values are at most 63 of [a-z0-9_-].")
    return labels


def _over_quota(world: World, zone: str, kind: str, more_gb: int) -> OperationError | None:
    metric, region = DISK_TYPES[kind][0], world.zones[zone]
    limit = world.limits_gb.get(metric)
    if limit is None or world.usage_gb(region, metric) + more_gb <= limit:
        return None
    return OperationError("QUOTA_EXCEEDED", f"Quota '{metric}' exceeded.  Limit: {limit}.0 in region {region}.")


def delete(world: World, call: Call) -> Resource:
    zone, name = call.path["zone"], call.path["disk"]
    disk, key = world.disk(zone, name), f"{zone}/{name}"
    if users := world.users(key):
        raise in_use(world.path("zones", zone, "disks", name), users[0])
    _ready(disk)
    disk["status"] = "DELETING"

    def finish() -> None:
        world.disks.pop(key, None)

    return world.begin("delete", zone, disk, finish, call.query.get("requestId", ""))


def _ready(resource: Resource) -> None:
    if resource["status"] != "READY":
        raise ApiError(400, "resourceNotReady", f"The resource '{resource['selfLink']}' is not ready")


def resize(world: World, call: Call) -> Resource:
    zone, name, size_gb = call.path["zone"], call.path["disk"], int(call.body.get("sizeGb", 0))
    disk = world.disk(zone, name)
    _ready(disk)
    kind = disk["type"].rsplit("/", 1)[1]
    if size_gb <= int(disk["sizeGb"]):
        raise invalid("sizeGb", size_gb, f"New disk size must be larger than the current size {disk['sizeGb']} GB.")
    if size_gb > DISK_TYPES[kind][2]:
        raise invalid("sizeGb", size_gb, f"Disk size cannot be larger than {DISK_TYPES[kind][2]} GB.")

    def finish() -> None:
        if over := _over_quota(world, zone, kind, size_gb - int(disk["sizeGb"])):
            raise over
        disk["sizeGb"] = str(size_gb)

    return world.begin("resizeDisk", zone, disk, finish, call.query.get("requestId", ""))


def set_labels(world: World, call: Call) -> Resource:
    zone, body = call.path["zone"], call.body
    disk = world.disk(zone, call.path["resource"])
    _ready(disk)
    if body.get("labelFingerprint") != disk["labelFingerprint"]:
        raise ApiError(412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed")
    labels: dict[str, Any] = _labels(body.get("labels", {}))
    disk |= {"labels": labels, "labelFingerprint": fingerprint(labels)}
    return world.begin("setLabels", zone, disk, lambda: None, call.query.get("requestId", ""))


def create_snapshot(world: World, call: Call) -> Resource:
    zone, body = call.path["zone"], call.body
    disk = world.disk(zone, call.path["disk"])
    _ready(disk)
    if body["name"] in world.snapshots:
        raise ApiError(409, "alreadyExists", f"The resource '{world.path('global', 'snapshots', body['name'])}' already exists")
    made = {**body, "kind": "compute#snapshot", "id": world.identity(), "status": "CREATING", "diskSizeGb": disk["sizeGb"]}
    made |= {"sourceDisk": disk["selfLink"], "sourceDiskId": disk["id"], "creationTimestamp": world.stamp()}
    made |= {"labelFingerprint": fingerprint(_labels(body.get("labels", {}))), "selfLink": world.link("global", "snapshots", body["name"])}
    world.snapshots[body["name"]] = made

    def finish() -> None:
        made["status"] = "READY"

    def undo() -> None:
        world.snapshots.pop(body["name"], None)

    return world.begin("createSnapshot", zone, disk, finish, call.query.get("requestId", ""), undo=undo)


def get_snapshot(world: World, call: Call) -> Resource:
    return world.snapshot(call.path["snapshot"])


def delete_snapshot(world: World, call: Call) -> Resource:
    found = world.snapshot(call.path["snapshot"])
    _ready(found)
    found["status"] = "DELETING"

    def finish() -> None:
        world.snapshots.pop(call.path["snapshot"], None)

    return world.begin("delete", "", found, finish, call.query.get("requestId", ""))
