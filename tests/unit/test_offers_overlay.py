"""The overlay: what each agent can reach, and how it is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msgspec import structs

from offers.overlay import overlay, overlay_resources, overlays
from offers.view import PlatformView, Reach, StorageView
from storage.lifecycle import VolumeState
from storage.model import Pool, Profile, Sizes, Volume, VolumeId
from tests.offering import simple

FAST = Profile(name="fast", pool_labels={"tier": "ssd"}, max_mib=500)
SLOW = Profile(name="slow")
POOLS = (
    Pool(platform="ebs", name="a", capacity_mib=1000, zone="z1", labels={"tier": "ssd"}),
    Pool(platform="ebs", name="b", capacity_mib=300, zone="z2"),
    Pool(platform="nfs", name="c", capacity_mib=205),
    Pool(platform="nfs", name="off", capacity_mib=205, online=False),
)
VIEW = StorageView(
    pools=POOLS,
    platforms={
        "ebs": PlatformView(name="ebs", reach=Reach(field="disks", pattern="ss."), slots_per_node=2),
        "nfs": PlatformView(name="nfs", sizes_in=lambda *_: Sizes(granularity_mib=10)),
    },
    profiles=(FAST, SLOW),
)
VOLUME = Volume(
    volume_id=VolumeId("v1"),
    name="/db#0/data",
    platform="ebs",
    pool="a",
    size_mib=64,
    zone="z1",
    profile="fast",
    state=VolumeState.AVAILABLE,
)
SSD = {"disks": "ssd"}


def shares(**more: Any) -> list[tuple[str, str, int]]:
    seen = overlay(simple("1", **more), VIEW)
    return [(share.profile.name if share.profile else "", share.pool.name, share.size_mib) for share in seen.shares]


def test_an_agent_sees_the_pools_of_its_zone_and_of_the_platforms_that_it_reaches() -> None:
    assert shares(zone="z1", attributes=SSD) == [("fast", "a", 500), ("slow", "a", 1000), ("slow", "c", 200)]
    assert shares(zone="z2", attributes=SSD) == [("slow", "b", 300), ("slow", "c", 200)]
    assert shares(zone="z1") == [("slow", "c", 200)]


def test_a_platform_without_free_slots_is_not_shown() -> None:
    full = replace(VIEW, slots={("agent-1", "ebs"): 0})
    seen = overlay(simple("1", zone="z1", attributes=SSD), full, [VOLUME])
    assert [share.pool.platform for share in seen.shares] == ["nfs"]
    assert (seen.volumes, seen.slots) == ((), {"ebs": 0})


def test_a_pool_without_room_for_the_smallest_volume_is_not_shown() -> None:
    large = replace(VIEW, profiles=(Profile(name="large", min_mib=2000),))
    assert overlay(simple("1", zone="z1", attributes=SSD), large).shares == ()


def test_wanted_volumes_are_shown_where_they_can_be_brought() -> None:
    broken = structs.replace(VOLUME, volume_id=VolumeId("v2"), state=VolumeState.FAULTED)
    assert overlay(simple("1", zone="z1", attributes=SSD), VIEW, [VOLUME, broken]).volumes == (VOLUME,)
    assert overlay(simple("1", zone="z2", attributes=SSD), VIEW, [VOLUME]).volumes == ()
    assert overlay(simple("1", zone="z1"), VIEW, [VOLUME]).volumes == ()


def test_agents_that_see_the_same_share_one_overlay() -> None:
    offers = [simple(str(n), zone=f"z{n % 2}", attributes=SSD) for n in range(10)]
    made = overlays(offers, VIEW)
    assert len(made) == 10
    assert len({id(one) for one in made.values()}) == 2


def test_disks_are_written_as_mesos_writes_them() -> None:
    view = replace(VIEW, profiles=(FAST,), platforms={"ebs": PlatformView(name="ebs", vendor="aws")})
    pool, volume = overlay_resources(overlay(simple("1", zone="z1"), view, [VOLUME]), "polly")
    common = {"name": "disk", "type": "SCALAR", "allocation_info": {"role": "polly"}, "provider_id": {"value": "ebs"}}
    assert pool == common | {
        "scalar": {"value": 500.0},
        "disk": {
            "source": {
                "type": "RAW",
                "profile": "fast",
                "vendor": "aws",
                "metadata": {"labels": [{"key": "pool", "value": "a"}, {"key": "zone", "value": "z1"}]},
            }
        },
    }
    labels = [{"key": "name", "value": "/db#0/data"}, {"key": "pool", "value": "a"}, {"key": "zone", "value": "z1"}]
    assert volume == common | {
        "scalar": {"value": 64.0},
        "disk": {"source": {"type": "MOUNT", "id": "v1", "profile": "fast", "vendor": "aws", "metadata": {"labels": labels}}},
    }


def test_without_profiles_a_pool_is_shown_plainly_and_a_volume_without_filesystem_is_a_block_disk() -> None:
    seen = overlay(simple("1"), StorageView(pools=POOLS[2:3]), [structs.replace(VOLUME, zone="", filesystem="", profile="")])
    pool, volume = overlay_resources(seen)
    assert pool["disk"]["source"]["type"] == "RAW"
    assert "profile" not in pool["disk"]["source"]
    assert (volume["disk"]["source"]["type"], volume["allocation_info"]) == ("BLOCK", {"role": "*"})
