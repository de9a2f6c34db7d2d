"""Snapshots of whole storage groups, as Dell's SDK makes them on a simulated PowerMax array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.peers.powermax_objects import Snapshot, missing

if TYPE_CHECKING:
    from tests.peers.powermax_unisphere import Call, Unisphere


def group_snapshots(front: Unisphere, call: Call) -> list[Snapshot]:
    array, part = front.array, call.part
    return [
        one
        for one in array.snapshots.values()
        if one.source in array.group(part["group"]).volumes
        and part.get("name", one.name) == one.name
        and int(part.get("snap", one.id)) == one.id
    ]


def snap_group(front: Unisphere, call: Call) -> Any:
    name = str(call.body["snapshotName"])
    made = list(front.array.snap(list(front.array.group(call.part["group"]).volumes), name))
    return {"name": name, "numSourceVolumes": len(made), "snapid": made[0].id}


def group_snapshot_names(front: Unisphere, call: Call) -> Any:
    return {"name": sorted({one.name for one in group_snapshots(front, call)})}


def group_snapshot_ids(front: Unisphere, call: Call) -> Any:
    return {"snapids": sorted({one.id for one in group_snapshots(front, call)}, reverse=True)}


def group_snapshot(front: Unisphere, call: Call) -> Any:
    found = group_snapshots(front, call)
    if not found:
        raise missing("snapshot", call.part["name"])
    linked = any(one.links for one in found)
    said = {"name": found[0].name, "snapid": found[0].id, "isLinked": linked, "state": ["Established"], "numSourceVolumes": len(found)}
    return {**said, "generation": front.array.generation_of(found[0])}


def edit_group_snapshot(front: Unisphere, call: Call) -> Any:
    array, body = front.array, call.body
    found, action = group_snapshots(front, call), body["action"]
    if action in ("Link", "Unlink"):
        targets = list(array.group(body[action.lower()]["storage_group_name"]).volumes)
        for snapshot, target in zip(found, targets, strict=True):
            if action == "Link":
                array.link(snapshot, target, copy=bool(body["link"].get("copy")))
            else:
                array.unlink(snapshot, target)
    elif action == "Rename":
        for snapshot in found:
            array.rename_snapshot(snapshot, body["rename"]["new_snapshot_name"])
    else:
        for snapshot in found:
            array.restore(snapshot)
    return {"name": call.part["name"]}


def end_group_snapshot(front: Unisphere, call: Call) -> None:
    for snapshot in group_snapshots(front, call):
        front.array.terminate(snapshot)
