"""Instances, and which disks they have: one writer or any number of readers, and no more disks than their machine type takes."""

from __future__ import annotations

from tests.peers.gce import disks
from tests.peers.gce.discovery import Call
from tests.peers.gce.errors import ApiError, OperationError, in_use, invalid
from tests.peers.gce.world import MACHINE_TYPES, Resource, World


def boot(world: World, zone: str, name: str, machine_type: str = "n2-standard-4") -> None:
    """An instance that runs, with its boot disk."""
    disks.add(
        world, zone, {"name": f"{name}-boot", "type": "hyperdisk-balanced" if _is_new(machine_type) else "pd-standard", "sizeGb": "10"}
    )
    entry: Resource = {"kind": "compute#attachedDisk", "source": world.link("zones", zone, "disks", f"{name}-boot"), "deviceName": "boot"}
    entry |= {"boot": True, "autoDelete": True, "mode": "READ_WRITE", "index": 0, "type": "PERSISTENT", "interface": "SCSI"}
    world.instances[f"{zone}/{name}"] = {
        "kind": "compute#instance",
        "id": world.identity(),
        "name": name,
        "status": "RUNNING",
        "machineType": world.link("zones", zone, "machineTypes", machine_type),
        "zone": world.link("zones", zone),
        "selfLink": world.link("zones", zone, "instances", name),
        "disks": [entry],
    }


def _is_new(machine_type: str) -> bool:
    """Of the fourth generation, which takes no Persistent Disks."""
    return machine_type.startswith(("c4-", "n4-"))


def insert(world: World, call: Call) -> Resource:
    zone, name = world.zone(call.path["zone"]), call.body["name"]
    if f"{zone}/{name}" in world.instances:
        raise ApiError(409, "alreadyExists", f"The resource '{world.path('zones', zone, 'instances', name)}' already exists")
    kind = call.body.get("machineType", "").rsplit("/", 1)[-1]
    if kind not in MACHINE_TYPES:
        raise invalid("resource.machineType", kind, "The referenced machine type cannot be found.")
    boot(world, zone, name, kind)
    return world.begin("insert", zone, world.instance(zone, name), lambda: None, call.query.get("requestId", ""))


def get(world: World, call: Call) -> Resource:
    return world.instance(call.path["zone"], call.path["instance"])


def delete(world: World, call: Call) -> Resource:
    zone, name = call.path["zone"], call.path["instance"]
    found = world.instance(zone, name)

    def finish() -> None:
        for entry in world.instances.pop(f"{zone}/{name}")["disks"]:
            if entry.get("autoDelete"):
                world.disks.pop(f"{zone}/{entry['source'].rsplit('/', 1)[1]}", None)

    return world.begin("delete", zone, found, finish, call.query.get("requestId", ""))


def _becoming(status: str, kind: str, world: World, call: Call) -> Resource:
    zone = call.path["zone"]
    found = world.instance(zone, call.path["instance"])

    def finish() -> None:
        found["status"] = status

    return world.begin(kind, zone, found, finish, call.query.get("requestId", ""))


def stop(world: World, call: Call) -> Resource:
    return _becoming("TERMINATED", "stop", world, call)


def start(world: World, call: Call) -> Resource:
    return _becoming("RUNNING", "start", world, call)


def suspend(world: World, call: Call) -> Resource:
    return _becoming("SUSPENDED", "suspend", world, call)


def attach(world: World, call: Call) -> Resource:
    zone, name, wanted = call.path["zone"], call.path["instance"], call.body
    if call.query.get("forceAttach") == "true":
        raise invalid("forceAttach", "true", "Only regional disks can be attached by force.")
    instance, disk = world.instance(zone, name), _source(world, zone, wanted)
    _room(world, zone, name, instance)
    _suits(world.disk(zone, disk), instance)
    entry = _entry(wanted, instance) | {"source": world.link("zones", zone, "disks", disk)}
    if user := _conflict(world, f"{zone}/{disk}", f"{zone}/{name}", entry["mode"]):
        raise in_use(world.path("zones", zone, "disks", disk), user)

    def finish() -> None:
        if user := _conflict(world, f"{zone}/{disk}", f"{zone}/{name}", entry["mode"]):
            message = f"The disk resource '{world.path('zones', zone, 'disks', disk)}' is already being used by '{user}'"
            raise OperationError("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", message)
        instance["disks"].append(entry)

    return world.begin("attachDisk", zone, instance, finish, call.query.get("requestId", ""))


def _source(world: World, zone: str, wanted: Resource) -> str:
    parts = wanted.get("source", "").split("/")
    if len(parts) < 4 or parts[-4] != "zones" or parts[-2] != "disks":
        raise invalid("resource.source", wanted.get("source"), "The URL is malformed.")
    if parts[-3] != zone:
        raise invalid("resource.source", wanted["source"], f"Disk must be in zone '{zone}'.")
    disk = world.disk(zone, parts[-1])
    if disk["status"] != "READY":
        raise ApiError(400, "resourceNotReady", f"The resource '{disk['selfLink']}' is not ready")
    return str(parts[-1])


def _room(world: World, zone: str, name: str, instance: Resource) -> None:
    _, _, most = MACHINE_TYPES[instance["machineType"].rsplit("/", 1)[1]]
    if len(instance["disks"]) >= most:
        where = world.path("zones", zone, "instances", name)
        raise ApiError(403, "limitExceeded", f"Exceeded limit 'maximum_persistent_disks' on resource '{where}'. Limit: {most}.0")


def _suits(disk: Resource, instance: Resource) -> None:
    kind, machine = disk["type"].rsplit("/", 1)[1], instance["machineType"].rsplit("/", 1)[1]
    if kind.startswith("pd-") and _is_new(machine):
        raise ApiError(400, "invalid", f"{kind} disk type cannot be used by {machine} machine type.")


def _entry(wanted: Resource, instance: Resource) -> Resource:
    index = 1 + max(entry["index"] for entry in instance["disks"])
    device = wanted.get("deviceName") or f"persistent-disk-{index}"
    if any(entry["deviceName"] == device for entry in instance["disks"]):
        raise invalid("resource.deviceName", device, "The device name is already in use.")
    entry = {**wanted, "kind": "compute#attachedDisk", "deviceName": device, "index": index, "mode": wanted.get("mode", "READ_WRITE")}
    return entry | {"boot": False, "autoDelete": wanted.get("autoDelete", False), "type": "PERSISTENT", "interface": "SCSI"}


def _conflict(world: World, disk: str, node: str, mode: str) -> str:
    """Which instance has the disk so that this one cannot get it in this mode; none: empty."""
    for key, other in world.attachments(disk):
        if key == node or "READ_WRITE" in (mode, other["mode"]):
            return world.path("zones", *key.replace("/", "/instances/").split("/"))
    return ""


def detach(world: World, call: Call) -> Resource:
    zone, name, device = call.path["zone"], call.path["instance"], call.query["deviceName"]
    instance = world.instance(zone, name)
    if not any(entry["deviceName"] == device for entry in instance["disks"]):
        raise invalid("deviceName", device, f"No attached disk found with device name '{device}'")

    def finish() -> None:
        instance["disks"] = [entry for entry in instance["disks"] if entry["deviceName"] != device]

    return world.begin("detachDisk", zone, instance, finish, call.query.get("requestId", ""))
