"""How the gateway writes what an array has: the objects of its REST API, with the keys and types of a real one's."""

from __future__ import annotations

from typing import Any

from tests.peers.powerflex_array import SYSTEM, Array, Domain, Pool, Sdc, Volume


def links(kind: str, key: str, *related: str) -> list[dict[str, str]]:
    here = f"/api/instances/{kind}::{key}"
    return [
        {"rel": "self", "href": here},
        *({"rel": f"/api/{kind}/relationship/{one}", "href": f"{here}/relationships/{one}"} for one in related),
    ]


def system(array: Array) -> dict[str, Any]:
    return {
        "id": SYSTEM,
        "name": "array",
        "systemVersionName": f"DellEMC PowerFlex Version: R{array.version.replace('.', '_', 1)}.100",
        "mdmCluster": {"clusterState": "ClusteredNormal", "master": {"versionInfo": f"R{array.version.replace('.', '_', 1)}.100"}},
        "restrictedSdcModeEnabled": False,
        "systemNqn": f"nqn.1988-11.com.dell:powerflex:00:{SYSTEM}",
        "links": links("System", SYSTEM, "Statistics", "ProtectionDomain", "Sdc"),
    }


def domain(one: Domain) -> dict[str, Any]:
    related = links("ProtectionDomain", one.id, "Statistics", "StoragePool")
    return {"id": one.id, "name": one.name, "systemId": SYSTEM, "protectionDomainState": "Active", "genType": one.kind, "links": related}


def pool(one: Pool) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "protectionDomainId": one.domain,
        "mediaType": "SSD",
        "dataLayout": one.layout,
        "zeroPaddingEnabled": one.padded,
        "sparePercentage": 10,
        "links": links("StoragePool", one.id, "Statistics", "Volume"),
    }


def sdc(one: Sdc) -> dict[str, Any]:
    return {
        "id": one.id,
        "systemId": SYSTEM,
        "name": one.name,
        "sdcGuid": one.guid,
        "sdcIp": one.ip,
        "sdcIps": [one.ip],
        "sdcApproved": one.approved,
        "sdcApprovedIps": None,
        "sdcAgentActive": False,
        "sdcType": "AppSdc",
        "hostType": "SdcHost",
        "hostOsFullType": None,
        "osType": "Linux",
        "mdmConnectionState": "Connected",
        "mdmIpAddressesCurrent": False,
        "perfProfile": "HighPerformance",
        "softwareVersionInfo": "R4_5.0.0",
        "installedSoftwareVersionInfo": "R4_5.0.0",
        "versionInfo": "R4_5.0.0",
        "kernelVersion": "5.15.179",
        "kernelBuildNumber": None,
        "peerMdmId": None,
        "sdtId": None,
        "sdrId": None,
        "nqn": None,
        "maxNumPaths": None,
        "maxNumSysPorts": None,
        "socketAllocationFailure": None,
        "memoryAllocationFailure": None,
        "links": links("Sdc", one.id, "Statistics", "Volume"),
    }


def volume(array: Array, one: Volume) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "sizeInKb": one.size_kb,
        "storagePoolId": one.pool,
        "vtreeId": one.vtree,
        "ancestorVolumeId": one.ancestor,
        "consistencyGroupId": None,
        "volumeType": one.kind,
        "volumeClass": "defaultclass",
        "accessModeLimit": one.limit,
        "compressionMethod": one.compression,
        "dataLayout": array.pools[one.pool].layout,
        "creationTime": one.created,
        "mappedSdcInfo": [_mapping(array, one, key) for key in one.mapped] or ([] if array.version >= "4.0" else None),
        "managedBy": "ScaleIO",
        "nsid": int(one.id[8:], 16),
        "originalExpiryTime": 0,
        "secureSnapshotExpTime": 0,
        "retentionLevels": [],
        "snplIdOfSourceVolume": None,
        "snplIdOfAutoSnapshot": None,
        "lockedAutoSnapshot": False,
        "lockedAutoSnapshotMarkedForRemoval": False,
        "autoSnapshotGroupId": None,
        "notGenuineSnapshot": False,
        "timeStampIsAccurate": False,
        "volumeReplicationState": "UnmarkedForReplication",
        "replicationJournalVolume": False,
        "replicationTimeStamp": 0,
        "pairIds": None,
        "useRmcache": False,
        "links": links("Volume", one.id, "Statistics"),
    }


def _mapping(array: Array, one: Volume, key: str) -> dict[str, Any]:
    iops, kbps = one.limits.get(key, (0, 0))
    host = array.sdcs.get(key)
    return {
        "sdcId": key,
        "sdcIp": host.ip if host else None,
        "sdcName": host.name if host else None,
        "accessMode": one.mapped[key],
        "limitIops": iops,
        "limitBwInMbps": kbps // 1024,
        "isDirectBufferMapping": False,
        "nqn": None,
        "hostType": "SdcHost",
    }


def vtree(array: Array, key: str) -> dict[str, Any]:
    tree = array.tree(key)
    base = next((one.id for one in tree if one.ancestor is None), None)
    return {
        "id": key,
        "name": None,
        "baseVolumeId": base,
        "storagePoolId": tree[0].pool,
        "links": links("VTree", key, "Statistics", "Volume"),
    }


def statistics(array: Array, kind: str, key: str) -> dict[str, Any]:
    """What `relationships/Statistics` says; only what clients of volumes look at."""
    if kind == "VTree":
        return {"numOfVolumes": len(array.tree(key)), "netCapacityInUseInKb": 0}
    if kind == "Volume":
        one = array.volume(key)
        return {"numOfMappedSdcs": len(one.mapped), "mappedSdcIds": list(one.mapped), "numOfChildVolumes": 0}
    one_pool = array.pool(key)
    used, promised = array.used_kb(key), array.promised_kb(key)
    return {
        "netCapacityInUseInKb": used,
        "netUnusedCapacityInKb": one_pool.net_kb - used,
        "capacityLimitInKb": 2 * one_pool.net_kb,
        "volumeAllocationLimitInKb": one_pool.limit_kb,
        "capacityAvailableForVolumeAllocationInKb": one_pool.limit_kb - promised,
        "thickCapacityInUseInKb": 2 * used,
        "thinCapacityAllocatedInKb": 2 * (promised - used),
        "snapCapacityInUseInKb": 0,
        "snapshotCapacityInKb": 0,
        "numOfVolumes": sum(one.pool == key for one in array.volumes.values()),
    }
