"""P2: how much CPU it takes to decode, overlay and match an OFFERS event, over json.loads of the same bytes.

A thousand tasks wait, as many as there are offers: the hardest case, for most rounds have fewer.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from offers.ask import Ask, PortAsk, VolumeAsk
from offers.matching import Matching, match
from offers.overlay import overlays
from offers.records import Offer, decode_offers
from offers.view import PlatformView, Reach, StorageView
from storage.lifecycle import VolumeState
from storage.model import Pool, Profile, Volume, VolumeId, WorkloadId
from tests.bench.harness import PAIRS, Result, in_pairs, ratios
from tests.offering import Json, event, offer_json, ports, reserved, scalar

OFFERS = 1_000
TASKS = 1_000
APPS = 20
ZONES = ("z1", "z2", "z3")
FAST = Profile(name="fast", platforms=("ebs",))


def offers_event(count: int = OFFERS, seed: int = 1) -> bytes:
    """Agents of a mid-sized cluster: three sizes, part of each reserved for the role, eight resources and eight attributes."""
    chance = random.Random(seed)
    return event(_offer(number, chance) for number in range(count))


def _offer(number: int, chance: random.Random) -> Json:
    static: Json = {"reservations": reserved("polly")}
    lines = [
        ports((31000, 31500), (31502, 32000)),
        scalar("cpus", chance.choice([4.0, 8.0, 15.5])),
        scalar("mem", chance.choice([8192.0, 16384.0, 31000.0])),
        scalar("disk", 200_000.0),
        scalar("gpus", 0.0),
        scalar("cpus", 2.0, **static),
        scalar("mem", 2048.0, **static),
        scalar("disk", 1024.0, **static),
    ]
    about = {"os": "linux", "kernel": "6.1", "arch": "amd64", "generation": "g5", "team": "web", "floor": "3"}
    attributes = {"rack": f"rack-{number % 40}", "storage": "ssd", **about}
    made = offer_json(
        f"f4362bf1-5f87-44c0-8a40-O{number}",
        lines,
        agent=f"f4362bf1-5f87-44c0-8a40-S{number}",
        zone=ZONES[number % 3],
        attributes=attributes,
    )
    return made | {"hostname": f"agent{number}.example.org"}


def storage_view() -> StorageView:
    pools = [Pool(platform="ebs", name=f"{zone}-{number}", capacity_mib=10_000_000, zone=zone) for zone in ZONES for number in range(3)]
    slots = {(f"f4362bf1-5f87-44c0-8a40-S{number}", "ebs"): 20 for number in range(0, OFFERS, 4)}
    ebs = PlatformView(name="ebs", slots_per_node=25, reach=Reach(field="storage", pattern="ssd|nvme"))
    return StorageView(pools=tuple(pools), platforms={"ebs": ebs}, slots=slots, profiles=(FAST,))


def pending(count: int = TASKS) -> list[Ask]:
    """Tasks of several apps, app by app, with a port and a volume each; half of the apps have their volumes already, in all three zones."""
    each = -(-count // APPS)
    return [_ask(number // each, number % each) for number in range(count)]


def _ask(app: int, number: int) -> Ask:
    name = f"/shop/app{app}#{number}/data"
    old = Volume(
        volume_id=VolumeId(name), name=name, platform="ebs", pool="p", size_mib=1024, zone=ZONES[number % 3], state=VolumeState.AVAILABLE
    )
    volume = VolumeAsk(container_path="data", name=name, size_mib=1024, profile=FAST, existing=old if app % 2 else None)
    return Ask(
        key=f"/shop/app{app}#{number}",
        workload=WorkloadId(f"/shop/app{app}"),
        role="polly",
        cpus=1 + app / 10,
        mem_mib=1024,
        disk_mib=100,
        ports=PortAsk(wanted=(0,)),
        volumes=(volume,),
        executor_cpus=0.1,
        executor_mem_mib=32,
    )


def ours(data: bytes, asks: Sequence[Ask], view: StorageView) -> tuple[Sequence[Offer], Matching]:
    """All that the broker does with an OFFERS event before it asks the ledger."""
    offers = decode_offers(data)
    return offers, match(asks, offers, view)


def cpu_of(work: Callable[[], object]) -> float:
    """Seconds of CPU, the garbage of others not counted."""
    gc.collect()
    before = time.process_time()
    made = work()
    took = time.process_time() - before
    del made
    return took


def bench(tasks: int = TASKS, pairs: int = PAIRS) -> Result:
    """Ratios of ours over json.loads, in CPU seconds, by turns. Raises AssertionError if not every task was placed."""
    data, asks, view = offers_event(), pending(tasks), storage_view()
    placed = len(match(asks, decode_offers(data), view).matches)
    assert placed == tasks, f"{placed} of {tasks} placed: a figure for less than the whole work would mean nothing"
    mine, theirs = in_pairs(partial(cpu_of, partial(ours, data, asks, view)), partial(cpu_of, partial(json.loads, data)), pairs=pairs)
    per_offer = 1e6 / OFFERS
    return Result(
        name="P2",
        ratios=ratios(mine, theirs),
        what=f"CPU to decode, overlay and match {OFFERS} offers with {tasks} waiting tasks, over json.loads of the same bytes",
        details={
            "ours_us_per_offer": min(mine) * per_offer,
            "json_us_per_offer": min(theirs) * per_offer,
            "decode_us_per_offer": min(cpu_of(partial(decode_offers, data)) for _ in range(pairs)) * per_offer,
            "overlays_us_per_offer": min(cpu_of(partial(overlays, decode_offers(data), view)) for _ in range(pairs)) * per_offer,
            "event_bytes_per_offer": len(data) / OFFERS,
        },
    )
