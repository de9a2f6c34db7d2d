"""A volume's life through the client of Cinder's PowerFlex driver: powerflex_cinder.py PORT USER PASSWORD CA_FILE.

Prints what it saw as JSON, beside the answers that Cinder's own tests keep, so that the two can be compared.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from cinder import exception, objects  # noqa: E402 - it warns of eventlet while it is read

objects.register_all()
from cinder.volume.drivers.dell_emc.powerflex import driver, rest_client  # noqa: E402 - the driver stands on registered objects

SIZE_GIB = 8
ID = "6c9e5f3a-1d2b-4c3d-8e4f-5a6b7c8d9e0f"
SNAPSHOT_ID = "7d0f604b-2e3c-4d4e-9f50-6b7c8d9e0f1a"
OTHER_ID = "8e10715c-3f4d-4e5f-a061-7c8d9e0f1a2b"


class Configuration:
    """What the client asks of Cinder's configuration."""

    powerflex_round_volume_capacity = True
    powerflex_allow_non_padded_volumes = False

    def __init__(self, port: str, user: str, password: str, ca_file: str) -> None:
        self._options = {
            "san_ip": "127.0.0.1",
            "powerflex_rest_server_port": port,
            "san_login": user,
            "san_password": password,
            "driver_ssl_cert_verify": True,
            "driver_ssl_cert_path": ca_file,
        }

    def safe_get(self, name: str) -> Any:
        return self._options.get(name)


class Driver(driver.PowerFlexDriver):  # type: ignore[misc]  # Cinder is not there where types are checked
    """The driver as far as it computes a pool's statistics, without Cinder's service around it."""

    def __init__(self, client: Any) -> None:
        self.statisticProperties, self._client = None, client

    def _get_client(self, secondary: bool = False) -> Any:
        return self._client


def fixtures() -> dict[str, Any]:
    folder = Path(driver.__file__).parents[4] / "tests/unit/volume/drivers/dell_emc/powerflex/mockup"
    names = ("query_sdc_instances_response", "query_sdc_by_id_response", "query_sdc_volumes_response")
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


def live(client: Any) -> dict[str, Any]:
    kind = client.init_powerflex_gen_type("domain1")
    guid = client.execute_powerflex_get_request("/types/Sdc/instances")[1][0]["sdcGuid"]
    sdc = client.query_sdc_id_by_guid(guid.lower())
    key = client.create_volume("domain1", "fast", ID, SIZE_GIB, "ThinProvisioned", "None")
    client.map_volume(key, sdc)
    client.set_sdc_limits(key, sdc, bandwidth_limit="10240", iops_limit="5000")
    _, volumes = client.execute_powerflex_get_request(f"/instances/Sdc::{sdc}/relationships/Volume")
    snapshot = client.snapshot_volume(key, SNAPSHOT_ID)
    copy = client.snapshot_volume(snapshot, OTHER_ID, from_source=True)
    client.extend_volume(key, 3 * SIZE_GIB)
    tree = client.query_volume(copy)["vtreeId"]
    number = client.query_vtree_statistics(tree)["numOfVolumes"]
    base = client.query_vtree(tree, key)["baseVolumeId"]
    client.rename_volume({"provider_id": copy}, key)
    mapped = client.query_sdc_volumes(sdc)
    limited = client.query_volume(key)["mappedSdcInfo"][0]
    client.unmap_volume(key, sdc)
    unmapped = client.query_sdc_volumes(sdc)
    for one in (snapshot, key, copy, copy):
        client.remove_volume(one)
    return {
        "kind": kind,
        "version": client.query_rest_api_version(),
        "sdcs": client.execute_powerflex_get_request("/types/Sdc/instances")[1],
        "sdc": client.query_sdc_by_id(sdc),
        "volumes": volumes,
        "tree": [number, base == key],
        "mapped": [mapped == [key], unmapped],
        "limits": [limited["limitIops"], limited["limitBwInMbps"]],
        "safe": [client.is_volume_creation_safe("domain1", "fast"), client.is_volume_creation_safe("domain2", "raw")],
        "stats": list(Driver(client)._query_pool_stats("domain1", "fast")),
        "too_many": too_many(client),
        "fixtures": fixtures(),
    }


def too_many(client: Any) -> int:
    """How many snapshots the client can make of one volume before it says that there are too many; all are removed again."""
    key = client.create_volume("domain1", "fast", ID, SIZE_GIB, "ThinProvisioned", "None")
    made: list[str] = []
    try:
        while len(made) < 200:
            made.append(client.snapshot_volume(key, f"{len(made):032x}"))
    except exception.SnapshotLimitReached:
        return len(made)
    finally:
        for one in (*made, key):
            client.remove_volume(one)
    raise AssertionError("the array never said that there are too many snapshots")


def main(*arguments: str) -> None:
    client = rest_client.RestClient(Configuration(*arguments))
    client.do_setup()
    print(json.dumps(live(client)), flush=True)
    os._exit(0)  # its thread that renews the login never ends


main(*sys.argv[1:])
