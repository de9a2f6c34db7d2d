"""A volume's life through Dell's PyPowerFlex: powerflex_sdk.py PORT USER PASSWORD CA_FILE. Prints what it saw as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from PyPowerFlex import PowerFlexClient
from PyPowerFlex.exceptions import PowerFlexClientException
from PyPowerFlex.objects.common.system import SnapshotDef


def refusal(call: Callable[[], object]) -> str:
    """The words of the refusal that the call must end in."""
    try:
        call()
    except PowerFlexClientException as error:
        return str(getattr(error, "message", error))
    raise AssertionError("it was not refused")


def live(client: Any) -> dict[str, Any]:
    (system,) = client.system.get()
    domain = client.protection_domain.get(filter_fields={"name": "domain1"})[0]
    pool = client.storage_pool.get(filter_fields={"name": "fast", "protectionDomainId": domain["id"]})[0]
    sdcs = [sdc["id"] for sdc in client.sdc.get()]
    volume = client.volume.create(pool["id"], size_in_gb=9, name="sdk-volume", volume_type="ThinProvisioned")
    key = volume["id"]
    taken = refusal(lambda: client.volume.create(pool["id"], size_in_gb=8, name="sdk-volume", volume_type="ThinProvisioned"))
    mapped = client.volume.add_mapped_sdc(key, sdc_id=sdcs[0], allow_multiple_mappings=False)
    elsewhere = refusal(lambda: client.volume.add_mapped_sdc(key, sdc_id=sdcs[1], allow_multiple_mappings=False))
    twice = refusal(lambda: client.volume.add_mapped_sdc(key, sdc_id=sdcs[0], allow_multiple_mappings=True))
    kept = refusal(lambda: client.volume.delete(key, "ONLY_ME"))
    made = client.system.snapshot_volumes(system["id"], [SnapshotDef(key, "sdk-snapshot")], access_mode="ReadOnly")
    snapshot = client.volume.get(entity_id=made["volumeIdList"][0])
    grown = client.volume.extend(key, 24)
    shrunk = refusal(lambda: client.volume.extend(key, 8))
    client.volume.rename(key, "sdk-renamed")
    renamed = client.volume.get(entity_id=key)
    attached = client.sdc.get_mapped_volumes(sdcs[0])
    unmapped = client.volume.remove_mapped_sdc(key, sdc_id=sdcs[0])
    again = refusal(lambda: client.volume.remove_mapped_sdc(key, sdc_id=sdcs[0]))
    statistics = client.storage_pool.get_statistics(pool["id"])
    client.volume.delete(key, "ONLY_ME")
    orphan = client.volume.get(entity_id=snapshot["id"])
    client.volume.delete(snapshot["id"], "ONLY_ME")
    gone = refusal(lambda: client.volume.get(entity_id=key))
    return {
        "version": client.system.api_version(),
        "component": client.system.component_version(),
        "sizes": [volume["sizeInKb"], grown["sizeInKb"]],
        "holders": [[one["sdcId"] for one in said["mappedSdcInfo"] or []] for said in (mapped, unmapped)],
        "attached": [one["id"] for one in attached] == [key],
        "ancestors": [snapshot["ancestorVolumeId"] == key, orphan["ancestorVolumeId"]],
        "names": [volume["name"], snapshot["name"], renamed["name"]],
        "refusals": {"taken": taken, "elsewhere": elsewhere, "twice": twice, "kept": kept, "shrunk": shrunk, "again": again, "gone": gone},
        "statistics": statistics,
        "left": [one["name"] for one in client.storage_pool.get_volumes(pool["id"])],
    }


def main(port: str, user: str, password: str, ca_file: str) -> None:
    client = PowerFlexClient("127.0.0.1", int(port), user, password, verify_certificate=True, certificate_path=ca_file, timeout=30)
    client.initialize()
    print(json.dumps(live(client)))


main(*sys.argv[1:])
