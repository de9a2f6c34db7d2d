"""Offers as Mesos writes them, in a line each, for tests and benches; and reading amounts back out of resources."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offers.ask import Ask, VolumeAsk
from offers.records import Offer, decode_offers
from storage.model import Profile, Volume, VolumeId, WorkloadId

Json = dict[str, Any]
Amounts = Counter[tuple[str, str]]
"""By resource name and what it is beside its amount (canonical JSON); scalars in thousandths, ports one by one as `port N`."""


def scalar(name: str, value: float, to: str = "polly", **more: Any) -> Json:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, "allocation_info": {"role": to}, **more}


def ports(*ranges: tuple[int, int], to: str = "polly", **more: Any) -> Json:
    written = [{"begin": begin, "end": end} for begin, end in ranges]
    return {"name": "ports", "type": "RANGES", "ranges": {"range": written}, "allocation_info": {"role": to}, **more}


def reserved(role: str, kind: str = "STATIC", **more: Any) -> list[Json]:
    return [{"type": kind, "role": role, **more}]


def offer_json(
    name: str,
    resources: Sequence[Json],
    *,
    agent: str = "",
    zone: str = "",
    region: str = "r1",
    role: str = "polly",
    attributes: Mapping[str, str] | None = None,
) -> Json:
    agent = agent or f"agent-{name}"
    made: Json = {
        "id": {"value": f"offer-{name}"},
        "framework_id": {"value": "framework"},
        "agent_id": {"value": agent},
        "hostname": f"{agent}.example",
        "url": {"scheme": "http", "address": {"hostname": agent, "ip": "10.0.0.1", "port": 5051}, "path": "/slave(1)"},
        "resources": list(resources),
        "attributes": [{"name": key, "type": "TEXT", "text": {"value": value}} for key, value in (attributes or {}).items()],
        "allocation_info": {"role": role},
    }
    if zone:
        made["domain"] = {"fault_domain": {"region": {"name": region}, "zone": {"name": zone}}}
    return made


def event(offers: Iterable[Json]) -> bytes:
    return json.dumps({"type": "OFFERS", "offers": {"offers": list(offers)}}, separators=(",", ":")).encode()


def decoded(*offers: Json) -> list[Offer]:
    return decode_offers(event(offers))


def simple(name: str, cpus: float = 4, mem: float = 4096, **more: Any) -> Offer:
    """An unreserved offer with some disk and a hundred ports."""
    role = more.get("role", "polly")
    lines = [scalar("cpus", cpus, role), scalar("mem", mem, role), scalar("disk", 10_000, role), ports((31000, 31099), to=role)]
    return decoded(offer_json(name, lines, **more))[0]


def ask(key: str = "/app#0", cpus: float = 1, mem_mib: float = 128, **more: Any) -> Ask:
    workload = WorkloadId(key.partition("#")[0])
    return Ask(**{"key": key, "workload": workload, "role": "polly", "cpus": cpus, "mem_mib": mem_mib, **more})


def new_volume(size_mib: int = 100, profile: Profile | None = None, **more: Any) -> VolumeAsk:
    return VolumeAsk(container_path="data", size_mib=size_mib, profile=profile, **more)


def old_volume(name: str = "old", zone: str = "", read_only: bool = False, **more: Any) -> VolumeAsk:
    made = Volume(**{"volume_id": VolumeId(name), "name": name, "platform": "ebs", "pool": "p", "size_mib": 10, "zone": zone, **more})
    return VolumeAsk(container_path="data", existing=made, read_only=read_only)


def amounts(resources: Iterable[Json]) -> Amounts:
    """Adds up resources, those of different reservations apart."""
    total: Amounts = Counter()
    for resource in resources:
        kind = json.dumps({key: value for key, value in resource.items() if key not in ("scalar", "ranges")}, sort_keys=True)
        if "scalar" in resource:
            total[resource["name"], kind] += int(resource["scalar"]["value"] * 1000 + 0.5)
        for part in resource.get("ranges", {}).get("range", ()):
            total.update({(f"port {port}", kind): 1 for port in range(part["begin"], part["end"] + 1)})
    return total


def named(resources: Iterable[Json], name: str) -> float:
    """How much of one scalar resource there is in all."""
    return float(sum(resource["scalar"]["value"] for resource in resources if resource["name"] == name))
