"""What each method of the API does to a project, and what it refuses. The words of the refusals are as near to Google's as is known."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.peers.gce import attaching, disks
from tests.peers.gce.discovery import Call
from tests.peers.gce.errors import ApiError, invalid, not_found
from tests.peers.gce.filters import Filter
from tests.peers.gce.world import DISK_TYPES, MACHINE_TYPES, Resource, World

Verb = Callable[[World, Call], Resource]
MOST = 500
"""How many resources one page has at most."""


def _page(call: Call, items: Mapping[str, Resource]) -> tuple[list[tuple[str, Resource]], str]:
    """The part of the resources that was asked for, in the order of their keys, and the token of the next part."""
    limit = int(call.query.get("maxResults", MOST))
    if limit > MOST:
        raise invalid("maxResults", limit, f"Must be less than or equal to {MOST}")
    after = _position(call.query.get("pageToken", ""))
    matches = Filter(call.query["filter"]) if call.query.get("filter") else lambda _: True
    found = sorted((key, item) for key, item in items.items() if key > after and matches(item))
    part = found[:limit]
    return part, base64.urlsafe_b64encode(part[-1][0].encode()).decode() if len(found) > limit and part else ""


def _position(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise invalid("pageToken", token, "The token is not one of ours.") from None


def _listed(world: World, call: Call, kind: str, items: Mapping[str, Resource]) -> Resource:
    part, token = _page(call, items)
    answer: Resource = {"kind": kind, "id": world.path("listed"), "selfLink": world.link("listed"), "items": [item for _, item in part]}
    return answer | ({"nextPageToken": token} if token else {})


def _aggregated(world: World, call: Call, kind: str, field: str, items: Mapping[str, Resource]) -> Resource:
    part, token = _page(call, items)
    empty = {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope on this page."}
    scopes: dict[str, Resource] = {f"zones/{zone}": {"warning": empty} for zone in world.zones}
    hidden = {"code": "UNREACHABLE", "message": "The scope cannot be reached."}
    scopes |= {f"zones/{zone}": {"warning": hidden} for zone in world.faults.unreachable}
    for key, item in part:
        if key.split("/")[0] in world.faults.unreachable:
            continue
        scopes[f"zones/{key.split('/')[0]}"].pop("warning", None)
        scopes[f"zones/{key.split('/')[0]}"].setdefault(field, []).append(item)
    answer: Resource = {"kind": kind, "id": world.path("aggregated"), "selfLink": world.link("aggregated"), "items": scopes}
    return answer | ({"nextPageToken": token} if token else {})


def _in(zone: str, items: Mapping[str, Resource]) -> dict[str, Resource]:
    return {key: item for key, item in items.items() if key.split("/")[0] == zone}


def list_disks(world: World, call: Call) -> Resource:
    answer = _listed(world, call, "compute#diskList", _in(world.zone(call.path["zone"]), world.disks))
    return answer | {"items": [disks.shown(world, disk) for disk in answer["items"]]}


def aggregate_disks(world: World, call: Call) -> Resource:
    answer = _aggregated(world, call, "compute#diskAggregatedList", "disks", world.disks)
    for scope in answer["items"].values():
        scope |= {"disks": [disks.shown(world, disk) for disk in scope["disks"]]} if "disks" in scope else {}
    return answer


def list_instances(world: World, call: Call) -> Resource:
    return _listed(world, call, "compute#instanceList", _in(world.zone(call.path["zone"]), world.instances))


def aggregate_instances(world: World, call: Call) -> Resource:
    return _aggregated(world, call, "compute#instanceAggregatedList", "instances", world.instances)


def list_snapshots(world: World, call: Call) -> Resource:
    return _listed(world, call, "compute#snapshotList", world.snapshots)


def list_zone_operations(world: World, call: Call) -> Resource:
    return _listed(world, call, "compute#operationList", _in(world.zone(call.path["zone"]), world.operations))


def list_global_operations(world: World, call: Call) -> Resource:
    return _listed(world, call, "compute#operationList", _in("", world.operations))


def get_operation(world: World, call: Call) -> Resource:
    zone = call.path.get("zone", "")
    found = world.operations.get(f"{zone}/{call.path['operation']}")
    if found is None:
        raise not_found(world.path(*(("zones", zone) if zone else ("global",)), "operations", call.path["operation"]))
    return found


def get_zone(world: World, call: Call) -> Resource:
    name = world.zone(call.path["zone"])
    region = world.link("regions", world.zones[name])
    return {
        "kind": "compute#zone",
        "id": "1",
        "name": name,
        "status": "DOWN" if name in world.faults.down else "UP",
        "region": region,
        "selfLink": world.link("zones", name),
    }


def list_zones(world: World, call: Call) -> Resource:
    return _listed(world, call, "compute#zoneList", {name: get_zone(world, _with(call, zone=name)) for name in world.zones})


def get_region(world: World, call: Call) -> Resource:
    name = call.path["region"]
    if name not in world.zones.values():
        raise not_found(world.path("regions", name))
    quotas = [{"metric": key, "limit": float(gb), "usage": float(world.usage_gb(name, key))} for key, gb in world.limits_gb.items()]
    zones = [world.link("zones", zone) for zone, region in world.zones.items() if region == name]
    link = world.link("regions", name)
    return {"kind": "compute#region", "id": "2", "name": name, "status": "UP", "zones": zones, "quotas": quotas, "selfLink": link}


def get_disk_type(world: World, call: Call) -> Resource:
    zone, name = world.zone(call.path["zone"]), call.path["diskType"]
    if name not in DISK_TYPES:
        raise not_found(world.path("zones", zone, "diskTypes", name))
    _, least, most = DISK_TYPES[name]
    link = world.link("zones", zone, "diskTypes", name)
    return {"kind": "compute#diskType", "id": "3", "name": name, "validDiskSize": f"{least}GB-{most}GB", "zone": zone, "selfLink": link}


def get_machine_type(world: World, call: Call) -> Resource:
    zone, name = world.zone(call.path["zone"]), call.path["machineType"]
    if name not in MACHINE_TYPES:
        raise not_found(world.path("zones", zone, "machineTypes", name))
    link = world.link("zones", zone, "machineTypes", name)
    most, cpus, _ = MACHINE_TYPES[name]
    told = {"name": name, "guestCpus": cpus, "maximumPersistentDisks": most}
    return {"kind": "compute#machineType", "id": "4", **told, "zone": zone, "selfLink": link}


def _with(call: Call, **path: str) -> Call:
    return Call(method=call.method, path={**call.path, **path}, query=call.query, body=call.body, response=call.response)


VERBS: Mapping[str, Verb] = {
    "disks.insert": disks.insert,
    "disks.get": disks.get,
    "disks.list": list_disks,
    "disks.aggregatedList": aggregate_disks,
    "disks.delete": disks.delete,
    "disks.resize": disks.resize,
    "disks.setLabels": disks.set_labels,
    "disks.createSnapshot": disks.create_snapshot,
    "snapshots.get": disks.get_snapshot,
    "snapshots.list": list_snapshots,
    "snapshots.delete": disks.delete_snapshot,
    "instances.insert": attaching.insert,
    "instances.get": attaching.get,
    "instances.list": list_instances,
    "instances.aggregatedList": aggregate_instances,
    "instances.delete": attaching.delete,
    "instances.stop": attaching.stop,
    "instances.start": attaching.start,
    "instances.suspend": attaching.suspend,
    "instances.attachDisk": attaching.attach,
    "instances.detachDisk": attaching.detach,
    "zoneOperations.get": get_operation,
    "zoneOperations.list": list_zone_operations,
    "zoneOperations.wait": get_operation,
    "globalOperations.get": get_operation,
    "globalOperations.list": list_global_operations,
    "globalOperations.wait": get_operation,
    "zones.get": get_zone,
    "zones.list": list_zones,
    "regions.get": get_region,
    "diskTypes.get": get_disk_type,
    "machineTypes.get": get_machine_type,
}


def permission(method: str) -> str:
    """What the caller must be allowed: `compute.disks.create` for `disks.insert`."""
    resource, _, verb = method.partition(".")
    verb = {"insert": "create", "aggregatedList": "list", "wait": "get"}.get(verb, verb)
    return f"compute.{resource}.{verb}"


def run(world: World, call: Call) -> Resource:
    """Does one call. Raises ApiError."""
    world.settle()
    if (wanted := permission(call.method)) in world.faults.denied:
        raise ApiError(403, "forbidden", f"Required '{wanted}' permission for '{world.path()}'")
    for number, (method, error) in enumerate(world.faults.refusals):
        if method == call.method:
            del world.faults.refusals[number]
            raise error
    request_id = call.query.get("requestId", "")
    if request_id and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id):
        raise invalid("requestId", request_id, "Must be a UUID.")
    return world.repeated(request_id) or VERBS[call.method](world, call)


def wait(world: World, call: Call) -> bool:
    """Whether a call waits for an operation that is not done yet."""
    world.settle()
    operation: Any = world.operations.get(f"{call.path.get('zone', '')}/{call.path.get('operation', '')}")
    return call.method.endswith("Operations.wait") and operation is not None and operation["status"] != "DONE"
