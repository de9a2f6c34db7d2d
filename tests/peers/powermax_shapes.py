"""How Unisphere writes what an array has: the objects of its REST API, with the keys and types of a real one's."""

from __future__ import annotations

from typing import Any

from tests.peers.powermax_array import MIB_PER_CYLINDER, Array
from tests.peers.powermax_objects import SERIAL, Link, Port, Snapshot, Volume


def system(array: Array) -> dict[str, Any]:
    return {
        "symmetrixId": SERIAL,
        "model": "PowerMax_2500",
        "ucode": array.microcode,
        "microcode": array.microcode,
        "local": True,
        "device_count": len(array.volumes),
        "default_fba_srp": "SRP_1",
    }


def srp(array: Array) -> dict[str, Any]:
    used = array.subscribed_tb() / 10
    return {
        "srpId": "SRP_1",
        "reserved_cap_percent": 10,
        "emulation": "FBA",
        "srp_capacity": {
            "subscribed_total_tb": round(array.subscribed_tb(), 2),
            "subscribed_allocated_tb": used,
            "usable_total_tb": array.usable_tb,
            "usable_used_tb": used,
            "snapshot_total_tb": 0.0,
            "snapshot_modified_tb": 0.0,
        },
    }


def volume(array: Array, one: Volume) -> dict[str, Any]:
    groups = array.groups_of(one.id)
    size_mib = one.cylinders * MIB_PER_CYLINDER
    named = {"volume_identifier": one.name} if one.name else {}
    return {
        "volumeId": one.id,
        "type": "TDEV",
        "emulation": "FBA",
        "allocated_percent": 1 if one.data else 0,
        "cap_gb": round(size_mib / 1024, 2),
        "cap_mb": float(-(-size_mib // 1)),
        "cap_cyl": one.cylinders,
        "status": "Ready",
        "reserved": False,
        "wwn": one.wwn,
        "effective_wwn": one.wwn,
        "has_effective_wwn": False,
        "num_of_storage_groups": len(groups),
        "snapvx_source": bool(array.snapshots_of(one.id)),
        "snapvx_target": bool(array.links_to(one.id)),
        **named,
        **({"storageGroupId": groups} if groups else {}),
    }


def private_volume(array: Array, one: Volume) -> dict[str, Any]:
    groups = array.groups_of(one.id)
    views = [view for group in groups for view in array.views_of(group=group)]
    size_mib = one.cylinders * MIB_PER_CYLINDER
    sources = [_source(array, snapshot) for snapshot in array.snapshots_of(one.id)]
    targets = [_target(snapshot, one.id) for snapshot in array.links_to(one.id)]
    return {
        "volumeHeader": {
            "volumeId": one.id,
            "formattedName": one.id,
            "nameModifier": one.name,
            "userDefinedIdentifier": one.name or "N/A",
            "capGB": round(size_mib / 1024, 2),
            "capMB": float(-(-size_mib // 1)),
            "configuration": "TDEV",
            "emulationType": "FBA",
            "serviceState": "Normal",
            "status": "Ready",
            "SRP": one.srp,
            "storageGroup": groups,
            "numStorageGroups": len(groups),
            "numSymDevMaskingViews": len(views),
            "wwn": one.wwn,
            "effectiveWWN": one.wwn,
            "hasEffectiveWWN": False,
            "mapped": bool(views),
            "private": False,
            "encapsulated": False,
            "system_resource": False,
            "reservationInfo": {"reserved": False},
        },
        "maskingInfo": {"masked": bool(views)},
        "rdfInfo": {
            "dynamicRDF": False,
            "RDF": False,
            "concurrentRDF": False,
            "getDynamicRDFCapability": "RDF1_Capable",
            "RDFA": False,
        },
        "timeFinderInfo": {
            "mirror": False,
            "cloneSrc": False,
            "cloneTarget": False,
            "snapVXSrc": bool(sources),
            "snapVXTgt": bool(targets),
            **({"snapVXSession": [{"srcSnapshotGenInfo": sources}, *targets]} if sources or targets else {}),
        },
    }


def _source(array: Array, one: Snapshot) -> dict[str, Any]:
    header = {
        "snapshotName": one.name,
        "device": one.source,
        "snapid": one.id,
        "generation": array.generation_of(one),
        "timestamp": int(one.made_at * 1000),
        "timeToLive": 0,
        "expired": False,
        "secured": False,
    }
    return {
        "snapshotHeader": header,
        "lnkSnapshotGenInfo": [{"targetDevice": target, "state": _state(link)} for target, link in one.links.items()],
    }


def _target(one: Snapshot, target: str) -> dict[str, Any]:
    said = {"snapshotName": one.name, "targetDevice": target, "sourceDevice": one.source, "snapid": one.id}
    return {"tgtSrcSnapshotGenInfo": {**said, "state": _state(one.links[target])}}


def _state(link: Link) -> str:
    if not link.is_done:
        return "CopyInProg" if link.copy else "Linked"
    return "Copied" if link.copy else "Linked"


def snapshots(array: Array, key: str) -> dict[str, Any]:
    """What a volume is a source of, and a target of. Links come nearer to their end with each look."""
    sources = [_snapshot(array, one) for one in array.snapshots_of(key)]
    targets = [{"linkSourceName": one.source, "state": _state(one.links[key]), "copy": one.links[key].copy} for one in array.links_to(key)]
    for snapshot in array.snapshots_of(key):
        for link in snapshot.links.values():
            link.looks_left -= 1
    return {"deviceName": key, "snapshotSrcs": sources, "snapshotLnks": targets}


def _snapshot(array: Array, one: Snapshot) -> dict[str, Any]:
    return {
        "snapshotName": one.name,
        "generation": array.generation_of(one),
        "snap_id": one.id,
        "timestamp": int(one.made_at * 1000),
        "state": "Established",
        "expired": False,
        "linkedDevices": [{**_link(link, target), "snap_id": one.id} for target, link in one.links.items()],
    }


def _link(link: Link, target: str) -> dict[str, Any]:
    return {
        "targetDevice": target,
        "state": _state(link),
        "copy": link.copy,
        "defined": link.is_done,
        "linked": True,
        "percentageCopied": 100 if link.is_done and link.copy else 0,
    }


def group(array: Array, name: str) -> dict[str, Any]:
    one = array.group(name)
    views = array.views_of(group=name)
    size_mib = sum(array.volumes[key].cylinders for key in one.volumes if key in array.volumes) * MIB_PER_CYLINDER
    return {
        "storageGroupId": name,
        "type": "Standalone",
        "slo": one.level,
        "service_level": one.level,
        "srp": one.srp if one.srp != "None" else "NONE",
        "workload": "NONE",
        "num_of_vols": len(one.volumes),
        "num_of_child_sgs": 0,
        "num_of_parent_sgs": 0,
        "num_of_masking_views": len(views),
        "num_of_snapshots": 0,
        "cap_gb": round(size_mib / 1024, 2),
        "device_emulation": "FBA",
        **({"maskingview": views} if views else {}),
    }


def host(array: Array, name: str) -> dict[str, Any]:
    initiators, views = array.host(name), array.views_of(host=name)
    return {
        "hostId": name,
        "num_of_initiators": len(initiators),
        "initiator": initiators,
        "num_of_masking_views": len(views),
        "maskingview": views,
        "type": "Fibre" if initiators and not initiators[0].startswith("iqn.") else "iSCSI",
    }


def port_group(array: Array, name: str) -> dict[str, Any]:
    ports, views = array.port_groups[name], array.views_of(ports=name)
    return {
        "portGroupId": name,
        "symmetrixPortKey": [{"directorId": director, "portId": number} for director, number in ports],
        "num_of_ports": len(ports),
        "num_of_masking_views": len(views),
        "maskingview": views,
    }


def port(array: Array, one: Port) -> dict[str, Any]:
    groups = sorted(name for name, ports in array.port_groups.items() if (one.director, one.number) in ports)
    views = [view for group in groups for view in array.views_of(ports=group)]
    said = {
        "symmetrixPortKey": {"directorId": one.director, "portId": one.number},
        "identifier": one.identifier,
        "port_status": "ON",
        "num_of_masking_views": len(views),
        "maskingview": views,
        "portgroup": groups,
    }
    return {"symmetrixPort": {**said, **({"ip_addresses": list(one.addresses)} if one.addresses else {})}}


def initiator(array: Array, name: str) -> dict[str, Any]:
    plain = name.rpartition("iqn.")[1] + name.rpartition("iqn.")[2] if "iqn." in name else name.rpartition(":")[2]
    owner = array.host_of(plain)
    views = array.views_of(host=owner) if owner else []
    said = {"initiatorId": plain, "type": "GigE" if plain.startswith("iqn.") else "Fibre", "logged_in": plain in array.logged_in}
    return {**said, "maskingview": views, **({"host": owner} if owner else {})}


def view(array: Array, name: str) -> dict[str, Any]:
    one = array.view(name)
    return {"maskingViewId": name, "hostId": one.host, "portGroupId": one.ports, "storageGroupId": one.group}


def connections(array: Array, name: str, volume: str) -> dict[str, Any]:
    one = array.view(name)
    rows = [
        {
            "volumeId": key,
            "host_lun_address": f"{lun:04x}",
            "cap_gb": "1.0",
            "initiatorId": initiator,
            "alias": "",
            "dir_port": ":".join(port),
            "logged_in": initiator in array.logged_in,
            "on_fabric": True,
        }
        for key, lun in one.luns.items()
        for initiator in array.hosts[one.host]
        for port in array.port_groups[one.ports]
        if volume in ("", key)
    ]
    return {"maskingViewConnection": rows}
