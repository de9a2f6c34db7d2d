"""Drives an XMS with Cinder's own XtremIO driver, from its set-up to an attached volume and back; says what it did, a line each.

Run by the Python that has Cinder: `_xms_cinder.py HOST:PORT CA USER PASSWORD-FILE`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

from cinder import exception, objects

objects.register_all()
from cinder.volume.drivers.dell_emc import xtremio  # noqa: E402  # it needs the objects above

SETTINGS: dict[str, Any] = {
    "xtremio_cluster_name": "brick1",
    "xtremio_array_busy_retry_count": 3,
    "xtremio_array_busy_retry_interval": 1,
    "xtremio_volumes_per_glance_cache": 100,
    "xtremio_clean_unused_ig": False,
    "xtremio_ports": [],
    "max_over_subscription_ratio": 20.0,
    "driver_ssl_cert_verify": True,
}


def driver(address: str, ca_file: str, user: str, password: str) -> Any:
    settings = {**SETTINGS, "san_ip": address, "san_login": user, "san_password": password, "driver_ssl_cert_path": ca_file}
    configuration = mock.Mock(**settings)
    configuration.safe_get = lambda key: getattr(configuration, key)
    return xtremio.XtremIOISCSIDriver(configuration=configuration)


class Named(dict[str, Any]):
    """What Cinder's driver reads of a volume or a snapshot, as attributes and as keys."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


def main(address: str, ca_file: str, user: str, password_file: str) -> None:
    found = driver(address, ca_file, user, Path(password_file).read_text().strip())
    found.check_for_setup_error()
    print("set up with", type(found.client).__name__)
    volume = Named(id="cinder-volume", name_id="cinder-volume", size=1, provider_location=None)
    found.create_volume(volume)
    try:
        found.create_volume(volume)
    except exception.VolumeBackendAPIException as error:
        print("refused a second one:", "already exists" in str(error))
    found.extend_volume(volume, 2)
    print("extended to", found.client.req("volumes", name="cinder-volume")["content"]["vol-size"])
    snapshot = Named(id="cinder-snapshot", volume_id="cinder-volume", volume_size=2)
    found.create_snapshot(snapshot)
    copy = Named(id="cinder-copy", name_id="cinder-copy", size=3)
    found.create_volume_from_snapshot(copy, snapshot)
    print("copied to", found.client.req("volumes", name="cinder-copy")["content"]["vol-size"])
    found.client.req("initiator-groups", "POST", {"ig-name": "cinder-host"})
    initiator = {"initiator-name": "cinder-host", "ig-id": "cinder-host", "port-address": "iqn.2026-11.test:cinder"}
    found.client.req("initiators", "POST", initiator)
    print("initiator of group", found.client.get_initiator("iqn.2026-11.test:cinder")["ig-id"][1])
    mapping = found.create_lun_map(copy, "cinder-host")
    print("mapped as LUN", mapping["lun"], "in", mapping["ig-name"])
    print("mapped again as LUN", found.create_lun_map(copy, "cinder-host")["lun"])
    found.client.req("lun-maps", "DELETE", name=found.client.find_lunmap("cinder-host", "cinder-copy")["name"])
    for gone in (copy, volume):
        found.delete_volume(gone)
    found.delete_snapshot(snapshot)
    found.delete_volume(volume)
    print("left", [row["name"] for row in found.client.req("volumes")["volumes"]])


main(*sys.argv[1:])
