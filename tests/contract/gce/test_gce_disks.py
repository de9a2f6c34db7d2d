"""Disks of Compute Engine as volumes: pools and quotas, types and sizes, names and labels, and what Google refuses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import (
    Conflict,
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownPool,
)
from storage.model import AccessMode, Birth, ExternalId
from storage.platforms.base import Room
from storage.platforms.gce import GcePlatform
from storage.platforms.gce.names import disk_name
from tests.peers.gce.cloud import FAR_ZONE, NODE, OTHER_ZONE, POOL, ZONE, Cloud, add, cloud_on, create
from tests.peers.gce.errors import ApiError, OperationError
from tests.peers.gce.server import Peer

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

GIB = 1024


# --- pools -------------------------------------------------------------------------------------------------


def test_each_zone_has_a_pool_for_each_type(platform: GcePlatform) -> None:
    found = {pool.name: (pool.region, pool.zone, pool.labels["type"], pool.capacity_mib // GIB) for pool in platform.pools()}
    assert found == {
        "europe-west4-a.pd-balanced": ("europe-west4", ZONE, "pd-balanced", 40960),
        "europe-west4-a.pd-standard": ("europe-west4", ZONE, "pd-standard", 4096),
        "europe-west4-b.pd-balanced": ("europe-west4", OTHER_ZONE, "pd-balanced", 40960),
        "europe-west4-b.pd-standard": ("europe-west4", OTHER_ZONE, "pd-standard", 4096),
    }


def test_what_others_use_of_a_quota_is_foreign_and_what_its_pools_have_is_not(cloud: Cloud, platform: GcePlatform) -> None:
    create(platform, "one", size_mib=100 * GIB)
    create(platform, "two", size_mib=30 * GIB, pool=f"{OTHER_ZONE}.pd-balanced")
    add(cloud, ZONE, "by-hand")
    cloud.world.foreign_gb = 7

    pools = [pool for pool in platform.pools() if pool.labels["type"] == "pd-balanced"]
    assert {pool.name: pool.foreign_mib // GIB for pool in pools} == {POOL: 17, f"{OTHER_ZONE}.pd-balanced": 17}
    room = Room(name="europe-west4 SSD_TOTAL_GB", capacity_mib=40960 * GIB, foreign_mib=17 * GIB)
    assert [pool.room for pool in pools] == [room, room]
    assert {pool.room.name for pool in platform.pools() if pool.room} == {room.name, "europe-west4 DISKS_TOTAL_GB"}
    (alone,) = cloud.platform(zones=(ZONE,), types=("pd-ssd",)).pools()
    assert alone.foreign_mib == (100 + 30 + 10 + 7) * GIB, "what no pool of the platform holds is another's"


def test_a_disk_that_was_taken_over_is_not_anothers_any_more(cloud: Cloud, platform: GcePlatform) -> None:
    """The ledger counts it; both would count it twice."""
    add(cloud, ZONE, "by-hand")
    disk, birth = ExternalId(f"{ZONE}/by-hand"), Birth(serial="by-hand", filesystem="xfs", filesystem_uuid="6b1f0d0e")
    assert {pool.foreign_mib for pool in platform.pools() if pool.name == POOL} == {10 * GIB}
    platform.attach(disk, NODE, epoch=1)
    platform.record_birth(disk, birth, epoch=1)
    assert {pool.foreign_mib for pool in platform.pools() if pool.name == POOL} == {0}


def test_the_operators_word_on_capacity_wins_over_the_quota(cloud: Cloud) -> None:
    (pool,) = cloud.platform(zones=(ZONE,), types=("hyperdisk-throughput",), capacity_mib=5000).pools()
    assert (pool.capacity_mib, pool.foreign_mib) == (5000, 0)
    assert "regions.get" not in cloud.world.calls


def test_a_pool_whose_quota_nobody_tells_is_left_out(cloud: Cloud) -> None:
    pools = cloud.platform(zones=(ZONE,), types=("pd-ssd", "hyperdisk-throughput")).pools()
    assert [pool.name for pool in pools] == [f"{ZONE}.pd-ssd"]


def test_abilities_follow_the_types(cloud: Cloud) -> None:
    able = cloud.platform(types=("pd-ssd",)).capabilities
    assert (able.min_mib, able.max_mib, AccessMode.MULTI_NODE_READER_ONLY in able.access_modes) == (10 * GIB, 65536 * GIB, True)
    able = cloud.platform(types=("hyperdisk-balanced", "pd-ssd")).capabilities
    assert (able.min_mib, able.granularity_mib, AccessMode.MULTI_NODE_READER_ONLY in able.access_modes) == (4 * GIB, GIB, False)


# --- creating ------------------------------------------------------------------------------------------------


def test_a_disk_is_made_as_it_was_asked(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform, size_mib=10 * GIB + 1, name="/shop/db#0/data", labels={"team": "shop", "Cost Centre": "7", "polly-x": "1"})

    disk = cloud.disk(made.external_id)
    assert (disk["name"], disk["sizeGb"], disk["type"].split("/")[-1]) == (disk_name("claim-1"), "11", "pd-balanced")
    assert disk["labels"] == {"team": "shop", "polly": "volume"}
    assert (made.name, made.labels) == ("/shop/db#0/data", {"team": "shop", "Cost Centre": "7", "polly-x": "1"})
    assert (made.size_mib, made.serial, made.zone) == (11 * GIB, disk["name"], ZONE)


def test_labels_that_no_description_holds_are_refused(cloud: Cloud, platform: GcePlatform) -> None:
    with pytest.raises(Invalid, match=r"labels is .*longer than 2000 characters"):
        create(platform, labels={f"key-{number}": "v" * 60 for number in range(40)})
    assert cloud.world.calls.count("disks.insert") == 0


@pytest.mark.parametrize(
    ("kind", "parameters", "fields"),
    [
        (
            "hyperdisk-balanced",
            {"provisionedIops": "5000", "provisionedThroughput": "200"},
            {"provisionedIops": "5000", "provisionedThroughput": "200"},
        ),
        ("pd-extreme", {"provisionedIops": "20000", "type": "pd-extreme"}, {"provisionedIops": "20000"}),
        (
            "pd-ssd",
            {"kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"},
            {"diskEncryptionKey": {"kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"}},
        ),
    ],
)
def test_a_profiles_parameters_are_the_disks(cloud: Cloud, kind: str, parameters: dict[str, str], fields: dict[str, object]) -> None:
    made = create(cloud.platform(types=(kind,)), pool=f"{ZONE}.{kind}", size_mib=500 * GIB, parameters=parameters)
    assert {key: cloud.disk(made.external_id)[key] for key in fields} == fields


@pytest.mark.parametrize(
    ("kind", "size_mib", "parameters", "words"),
    [
        ("pd-ssd", 10 * GIB, {"iops": "1"}, "parameters.iops is '1': the parameters are type, provisionedIops"),
        ("pd-ssd", 10 * GIB, {"type": "pd-standard"}, r'the pool has pd-ssd disks; .* pool_labels = { type = "pd-standard" }'),
        ("pd-ssd", 10 * GIB, {"provisionedIops": "1"}, "a pd-ssd disk does not have it"),
        ("pd-extreme", 500 * GIB, {"provisionedIops": "many"}, "it must be a whole number from 1"),
        ("pd-extreme", 500 * GIB, {"provisionedIops": "0"}, "it must be a whole number from 1"),
        ("hyperdisk-throughput", 32769 * GIB, {}, "a volume of type hyperdisk-throughput has at most 33554432 MiB"),
    ],
)
def test_what_a_type_cannot_do_is_said_before_google_is_asked(
    cloud: Cloud, kind: str, size_mib: int, parameters: dict[str, str], words: str
) -> None:
    platform = cloud.platform(types=("pd-ssd", "pd-extreme", "hyperdisk-throughput"))
    with pytest.raises(Invalid, match=words):
        create(platform, pool=f"{ZONE}.{kind}", size_mib=size_mib, parameters=parameters)
    assert cloud.world.calls.count("disks.insert") == 0


def test_a_pool_tells_the_sizes_of_its_own_type(cloud: Cloud) -> None:
    platform = cloud.platform(types=("pd-ssd", "pd-extreme", "hyperdisk-throughput"))
    assert [platform.fit(GIB, {}, pool=f"{ZONE}.{kind}") // GIB for kind in ("pd-ssd", "pd-extreme")] == [10, 500]
    assert create(platform, pool=f"{ZONE}.pd-extreme", size_mib=10 * GIB).size_mib == 500 * GIB
    assert (platform.fit(1, {}), platform.fit(1, {"provisionedIops": "20000"})) == (10 * GIB, 500 * GIB)
    with pytest.raises(Invalid, match=r'the pool has pd-ssd disks; .* pool_labels = { type = "pd-extreme" }'):
        platform.sizes({"type": "pd-extreme"}, pool=f"{ZONE}.pd-ssd")
    with pytest.raises(UnknownPool):
        platform.sizes({}, pool=f"{ZONE}.pd-balanced")


@pytest.mark.parametrize(
    ("code", "free_mib"),
    [("QUOTA_EXCEEDED", 40960 * GIB), ("ZONE_RESOURCE_POOL_EXHAUSTED", 0), ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", 0)],
)
def test_a_zone_or_quota_without_room_is_a_full_pool_and_the_token_may_come_again(
    cloud: Cloud, platform: GcePlatform, code: str, free_mib: int
) -> None:
    cloud.world.faults.failures = [("insert", OperationError(code, "Google's words"))]

    with pytest.raises(PoolFull) as refused:
        create(platform)
    assert (refused.value.fields["free_mib"], refused.value.fields["pool"]) == (free_mib, POOL)
    assert refused.value.fields["reason"] == f"{code}: Google's words"
    assert platform.find("claim-1") is None
    assert create(platform).token == "claim-1"


@pytest.mark.parametrize(
    ("refusal", "error", "code"),
    [
        (ApiError(403, "quotaExceeded", "Quota 'SSD_TOTAL_GB' exceeded."), PoolFull, "QUOTA_EXCEEDED"),
        (ApiError(403, "forbidden", "Required 'compute.disks.create' permission"), PlatformError, "FORBIDDEN"),
        (ApiError(403, "accessNotConfigured", "Compute Engine API has not been used"), PlatformError, "ACCESS_NOT_CONFIGURED"),
        (ApiError(400, "invalid", "Invalid value"), PlatformError, "INVALID"),
        (ApiError(401, "authError", "Invalid Credentials"), PlatformUnavailable, "AUTH_ERROR"),
        (ApiError(429, "tooManyRequests", "Slow down"), None, ""),
        (ApiError(503, "backendError", "Backend Error"), None, ""),
        (ApiError(400, "resourceNotReady", "is not ready"), None, ""),
    ],
)
def test_every_refusal_has_a_name_and_keeps_googles_code(
    cloud: Cloud, platform: GcePlatform, refusal: ApiError, error: type[PollyError] | None, code: str
) -> None:
    cloud.world.faults.refusals = [("disks.insert", refusal)] * (3 if refusal.status == 401 else 1)

    if error is None:
        assert create(platform).token == "claim-1"
        return
    with pytest.raises(error) as refused:
        create(platform)
    assert refused.type is error
    assert refused.value.fields["reason"].startswith(code)


def test_servers_that_keep_failing_are_given_up(cloud: Cloud, platform: GcePlatform) -> None:
    cloud.world.faults.refusals = [("disks.insert", ApiError(503, "backendError", "Backend Error"))] * 4

    with pytest.raises(PlatformUnavailable, match="BACKEND_ERROR: Backend Error"):
        create(platform)
    assert cloud.world.faults.refusals == []


def test_a_rate_that_stays_exceeded_is_said_in_the_end(cloud: Cloud) -> None:
    cloud.world.faults.throttled = 1_000_000
    platform = cloud.platform(timeout_s=1)

    with pytest.raises(PlatformUnavailable, match="RATE_LIMIT_EXCEEDED: Quota exceeded for quota metric"):
        platform.inspect(ExternalId(f"{ZONE}/one"))
    assert 1 < 1_000_000 - cloud.world.faults.throttled < 2000


def test_a_disk_of_that_name_which_another_made_is_nobodys_to_take(cloud: Cloud, platform: GcePlatform) -> None:
    add(cloud, ZONE, disk_name("claim-1"))

    with pytest.raises(Conflict, match="wanted token claim-1, found token none"):
        create(platform)
    assert platform.find("claim-1") is None


def test_an_operation_that_does_not_end_is_said_and_gone_on_with(cloud: Cloud) -> None:
    platform = cloud.platform(timeout_s=1)
    cloud.world.faults.stuck = {"insert"}

    for words in (r"operation operation-\d+-polly-\w+ is RUNNING after 1 s", "is CREATING after 1 s"):
        with pytest.raises(PlatformUnavailable, match=words):
            create(platform)
    cloud.world.faults.stuck.clear()
    assert create(platform).token == "claim-1"
    assert cloud.world.calls.count("disks.insert") == 1


def test_a_token_whose_first_disk_is_still_being_deleted_is_asked_again(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform)
    cloud.disk(made.external_id)["status"] = "DELETING"

    with pytest.raises(PlatformUnavailable, match=r"RESOURCE_NOT_READY: a disk polly-\w+ is still being deleted"):
        create(platform)
    del cloud.world.disks[made.external_id]
    assert create(platform) == made


def test_a_disk_whose_making_failed_is_not_used(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform)
    cloud.disk(made.external_id)["status"] = "FAILED"

    for call in (lambda: create(platform), lambda: platform.attach(made.external_id, NODE, epoch=1)):
        with pytest.raises(PlatformError, match="its disk is FAILED"):
            call()


def test_a_disk_is_found_in_whichever_zone_it_is(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform, pool=f"{OTHER_ZONE}.pd-standard")

    assert create(platform).external_id == made.external_id
    assert cloud.platform(zones=(ZONE,)).find("claim-1") is None


def test_a_zone_that_google_cannot_look_into_is_not_taken_for_an_empty_one(cloud: Cloud, platform: GcePlatform) -> None:
    create(platform, pool=f"{OTHER_ZONE}.pd-balanced")
    cloud.world.faults.unreachable = {FAR_ZONE}
    assert create(platform).zone == OTHER_ZONE
    cloud.world.faults.unreachable = {OTHER_ZONE}

    with pytest.raises(PlatformUnavailable, match=f"UNREACHABLE: disks in zones/{OTHER_ZONE} are not told"):
        create(platform)
    assert sum(disk["name"].startswith("polly-") for disk in cloud.world.disks.values()) == 1


def test_many_who_wait_share_one_look(compute_engine: Peer, tmp_path: Path) -> None:
    cloud, creators = cloud_on(compute_engine, tmp_path, operation_s=0.5), 24
    platform, together = cloud.platform(), threading.Barrier(24)

    def make(number: int) -> str:
        together.wait(timeout=30)
        return create(platform, f"claim-{number}").external_id

    with ThreadPoolExecutor(creators) as pool:
        assert len(set(pool.map(make, range(creators)))) == creators
    looks = [call for call in cloud.world.calls if call.startswith("zoneOperations.")]
    assert "zoneOperations.list" in looks
    single = cloud_on(compute_engine, tmp_path, operation_s=0.5)
    create(single.platform())
    alone = sum(call.startswith("zoneOperations.") for call in single.world.calls)
    assert len(looks) < alone * creators / 4
