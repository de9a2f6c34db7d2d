"""A volume's life through the REST client of Cinder's PowerMax driver: powermax_cinder.py PORT USER PASSWORD CA_FILE.

Prints what it saw as JSON, beside the answers that Cinder's own tests keep, so that the two can be compared.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

from cinder import exception  # noqa: E402 - it warns of eventlet while it is read
from cinder.tests.unit.volume.drivers.dell_emc.powermax.powermax_data import PowerMaxData  # noqa: E402 - as above
from cinder.volume.drivers.dell_emc.powermax import rest  # noqa: E402 - as above

EXTRA = {"interval": 0, "retries": 50}
GROUP, HOST, VIEW, PORTS = "OS-SG", "OS-HostX-I-IG", "OS-MV", "polly-iscsi"
INITIATOR = "iqn.1993-08.org.debian:01:222"


def refusal(call: Any) -> str:
    """The words of the refusal that the call must end in."""
    try:
        call()
    except exception.VolumeBackendAPIException as error:
        return str(error)
    raise AssertionError("it was not refused")


class Client(rest.PowerMaxRest):  # type: ignore[misc]  # Cinder is not there where types are checked
    """The client without its patience: it repeats what was refused, seconds later."""

    delete_resource = rest.PowerMaxRest.delete_resource.__wrapped__
    remove_vol_from_sg = rest.PowerMaxRest.remove_vol_from_sg.__wrapped__


def live(client: Any) -> dict[str, Any]:
    (array,) = client.get_arrays_list()
    client.set_residuals(array)
    client.create_storage_group(array, GROUP, "SRP_1", "Diamond", "NONE", EXTRA)
    made = client.create_volume_from_sg(array, "OS-volume", GROUP, "1", EXTRA)["device_id"]
    target = client.create_volume_from_sg(array, "OS-target", GROUP, "2", EXTRA)["device_id"]
    client.extend_volume(array, made, "2", EXTRA)
    client.create_initiator_group(array, HOST, [INITIATOR], EXTRA)
    client.create_masking_view(array, VIEW, GROUP, PORTS, HOST, EXTRA)
    shown = answers(client, array, made)
    kept = refusal(lambda: client.delete_volume(array, made))
    snapped = snapshots(client, array, made, target)
    left_alone = refusal(lambda: client.remove_vol_from_sg(array, GROUP, [made, target], EXTRA))
    client.delete_masking_view(array, VIEW)
    for device in (made, target):
        client.remove_vol_from_sg(array, GROUP, device, EXTRA)
        client.delete_volume(array, device)
    client.delete_initiator_group(array, HOST)
    client.delete_storage_group(array, GROUP)
    return {
        "version": client.u4p_version,
        "found": client.find_volume_device_id(array, "OS-volume"),
        "levels": client.get_slo_list(array, True, "PowerMax_2500"),
        "refusals": {"kept": kept, "last": left_alone},
        "snapshots": snapped,
        **shown,
    }


def answers(client: Any, array: str, device: str) -> dict[str, Any]:
    """What the array shows of a volume that a host has, and the same as Cinder's tests keep it."""
    kept = PowerMaxData()
    client.create_volume_snap(array, "OS-listed", device, EXTRA)
    listed = client.get_private_volume_list(array)
    client.delete_volume_snap(array, "OS-listed", device, client.get_snap_id(array, device, "OS-listed"))
    return {
        "size_gib": client.get_size_of_device_on_array(array, device),
        "lun": client.find_mv_connections_for_vol(array, VIEW, device),
        "portal": client.get_iscsi_ip_address_and_iqn(array, "OR-1C:1"),
        "owner": client.get_initiator_group_from_initiator(array, INITIATOR),
        "listed": [one["volumeHeader"]["volumeId"] for one in listed],
        "shapes": {
            "volume": [kept.volume_details[0], client.get_volume(array, device)],
            "private volume": [kept.priv_vol_func_response_single[0], listed[0]],
            "storage group": [kept.sg_details[0], client.get_storage_group(array, GROUP)],
            "masked group": [{"maskingview": []}, client.get_storage_group(array, GROUP)],
            "host": [kept.initiator_group_iscsi, client.get_initiator_group(array, HOST)],
            "initiator": [kept.initiator_list[1], client.get_initiator(array, INITIATOR)],
            "port group": [kept.portgroup[1], client.get_portgroup(array, PORTS)],
            "port": [kept.port_list[1], client.get_port(array, "OR-1C:1")],
            "srp": [kept.srp_details, client.get_srp_by_name(array, "SRP_1")],
            "array": [kept.powermax_model_100, client.get_array_detail(array)],
            "masking view": [
                {key: value for key, value in kept.maskingview[1].items() if key != "maskingViewConnection"},
                client.get_masking_view(array, VIEW),
            ],
        },
    }


def snapshots(client: Any, array: str, device: str, target: str) -> dict[str, Any]:
    client.create_volume_snap(array, "OS-snap", device, EXTRA)
    key = client.get_snap_id(array, device, "OS-snap")
    client.modify_volume_snap(array, device, target, "OS-snap", EXTRA, snap_id=key, link=True, copy=True)
    client.is_sync_complete(array, device, target, "OS-snap", EXTRA, key)
    info = client.get_volume_snap_info(array, device)
    sources, of_target = client.find_snap_vx_sessions(array, target)
    source = client.is_vol_in_rep_session(array, device)
    linked = client.get_snap_linked_device_list(array, device, "OS-snap", key, state="Copied")
    refused = refusal(lambda: client.delete_volume_snap(array, "OS-snap", device, key))
    client.modify_volume_snap(array, device, target, "OS-snap", EXTRA, snap_id=key, unlink=True)
    client.modify_volume_snap(array, device, None, "OS-snap", EXTRA, snap_id=key, restore=True)
    client.modify_volume_snap(array, device, None, "OS-snap", EXTRA, snap_id=key, rename=True, new_snap_name="OS-renamed")
    names = [one["snapshotName"] for one in client.get_volume_snapshot_list(array, device)]
    client.delete_volume_snap(array, "OS-renamed", device, key)
    return {
        "licensed": client.is_snapvx_licensed(array),
        "source": source[:2],
        "target": [sources, of_target.get("source_vol_id") == device, of_target.get("snap_name"), of_target.get("snapid") == key],
        "linked": [one["targetDevice"] == target for one in linked],
        "refused": refused,
        "names": names,
        "left": client.get_volume_snapshot_list(array, device),
        "shape": [PowerMaxData.volume_snap_vx, info],
    }


def main(port: str, user: str, password: str, ca_file: str) -> None:
    client = Client()
    login = {"RestServerIp": "127.0.0.1", "RestServerPort": port, "RestUserName": user, "RestPassword": password, "SSLVerify": ca_file}
    client.set_rest_credentials(login)
    if not client.validate_unisphere_version():
        raise AssertionError("the version is not accepted")
    print(json.dumps(live(client)), flush=True)


main(*sys.argv[1:])
