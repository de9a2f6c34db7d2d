"""A volume's life through Dell's own SDK, PyU4V: powermax_sdk.py PORT USER PASSWORD CA_FILE. Prints what it saw as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from PyU4V import U4VConn
from PyU4V.utils import exception

GROUP, HOST, VIEW, PORTS, TARGETS = "sdk-group", "sdk-host", "sdk-view", "sdk-ports", "sdk-targets"
INITIATOR = "iqn.1993-08.org.debian:01:333"


def refusal(call: Callable[[], object]) -> str:
    """The words of the refusal that the call must end in."""
    try:
        call()
    except (exception.VolumeBackendAPIException, exception.ResourceNotFoundException) as error:
        return str(error)
    raise AssertionError("it was not refused")


def live(client: Any) -> dict[str, Any]:
    provisioning, common = client.provisioning, client.common
    common.wait_for_job("make a group", 202, provisioning.create_empty_storage_group("SRP_1", GROUP, "Diamond", "None", _async=True))
    twice = refusal(lambda: provisioning.create_empty_storage_group("SRP_1", GROUP, "Diamond", "None"))
    made = provisioning.create_volume_from_storage_group_return_id("sdk-volume", GROUP, "1")
    provisioning.add_new_volume_to_storage_group(GROUP, 4, "1", "GB", vol_name="sdk-many")
    provisioning.extend_volume(made, 2)
    provisioning.rename_volume(made, "sdk-renamed")
    provisioning.create_host(HOST, [INITIATOR])
    provisioning.create_new_port_group(PORTS, [{"directorId": "OR-1C", "portId": "1"}], port_group_protocol="iSCSI")
    view = provisioning.create_masking_view_existing_components(PORTS, VIEW, GROUP, host_name=HOST)
    shown = {
        "size_gib": provisioning.get_size_of_device_on_array(made),
        "lun": provisioning.find_host_lun_id_for_volume(VIEW, made),
        "listed": len(provisioning.get_volumes_from_storage_group(GROUP)),
        "same_name": len(provisioning.find_volume_device_id("sdk-many")),
        "portal": client.system.get_iscsi_ip_address_and_iqn("OR-1C:1"),
        "owner": provisioning.get_initiator_group_from_initiator(INITIATOR),
        "view": [view["storageGroupId"], provisioning.get_masking_views_by_initiator_group(HOST)],
        "srp": provisioning.get_srp("SRP_1")["srp_capacity"]["usable_total_tb"],
        "levels": provisioning.get_service_level_list(),
    }
    kept = refusal(lambda: provisioning.delete_volume.__wrapped__(provisioning, made))
    snapped = snapshots(client)
    last = refusal(lambda: provisioning.remove_volume_from_storage_group(GROUP, provisioning.get_volumes_from_storage_group(GROUP)))
    end(provisioning)
    return {
        "version": common.get_uni_version(),
        "snapshots": snapped,
        "refusals": {"twice": twice, "kept": kept, "last": last, "gone": refusal(lambda: provisioning.get_volume(made))},
        "left": provisioning.get_volume_list(),
        **shown,
    }


def snapshots(client: Any) -> dict[str, Any]:
    replication = client.replication
    client.provisioning.create_non_empty_storage_group("SRP_1", TARGETS, "Diamond", "None", 5, "2", "GB")
    replication.create_storage_group_snapshot(GROUP, "sdk-snap")
    replication.create_storage_group_snapshot(GROUP, "sdk-snap")
    keys = replication.get_storage_group_snapshot_snap_id_list(GROUP, "sdk-snap")
    generations = [replication.get_snapshot_snap_id_details(GROUP, "sdk-snap", key)["generation"] for key in keys]
    replication.link_snapshot_by_snap_id(GROUP, TARGETS, "sdk-snap", keys[0])
    linked = replication.get_snapshot_snap_id_details(GROUP, "sdk-snap", keys[0])["isLinked"]
    refused = refusal(lambda: replication.delete_storage_group_snapshot_by_snap_id(GROUP, "sdk-snap", keys[0]))
    replication.unlink_snapshot_by_snap_id(GROUP, TARGETS, "sdk-snap", keys[0])
    replication.rename_snapshot_by_snap_id(GROUP, "sdk-snap", "sdk-named", keys[0])
    names = replication.get_storage_group_snapshot_list(GROUP)
    for name, key in (("sdk-named", keys[0]), ("sdk-snap", keys[1])):
        replication.delete_storage_group_snapshot_by_snap_id(GROUP, name, key)
    return {
        "licensed": replication.is_snapvx_licensed(),
        "generations": generations,
        "linked": linked,
        "refused": refused,
        "names": names,
        "left": replication.get_storage_group_snapshot_list(GROUP),
    }


def end(provisioning: Any) -> None:
    provisioning.delete_masking_view(VIEW)
    provisioning.delete_host(HOST)
    provisioning.delete_port_group(PORTS)
    for group in (GROUP, TARGETS):
        devices = provisioning.get_volumes_from_storage_group(group)
        provisioning.remove_volume_from_storage_group(group, devices)
        for device in devices:
            provisioning.delete_volume(device)
        provisioning.delete_storage_group(group)


def main(port: str, user: str, password: str, ca_file: str) -> None:
    client = U4VConn(
        username=user, password=password, server_ip="127.0.0.1", port=int(port), verify=ca_file, array_id="000220200123", interval=0
    )
    print(json.dumps(live(client)))


main(*sys.argv[1:])
