"""Disks of Compute Engine that are there: listed in pages, adopted, deleted, grown and copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import (
    Conflict,
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownSnapshot,
    UnknownVolume,
    VolumeInUse,
)
from storage.model import ExternalId
from storage.platforms.gce import GcePlatform
from storage.platforms.gce.names import Place, place, place_of_link, snapshot_name
from tests.peers.gce import disks
from tests.peers.gce.cloud import FAR_ZONE, NODE, OTHER_ZONE, POOL, ZONE, Cloud, add, cloud_on, create
from tests.peers.gce.errors import ApiError, OperationError
from tests.peers.gce.server import Peer
from tests.peers.gce.world import HOSTS

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

GIB = 1024


# --- lists and foreign disks -----------------------------------------------------------------------------------


def test_pages_go_on_from_zone_to_zone_and_leave_out_what_is_in_no_pool(cloud: Cloud, platform: GcePlatform) -> None:
    for zone in (ZONE, OTHER_ZONE, FAR_ZONE):
        for number in range(3):
            add(cloud, zone, f"disk-{number}")
        add(cloud, zone, "ssd", "pd-ssd")
    wanted = [f"{zone}/disk-{number}" for zone in (ZONE, OTHER_ZONE) for number in range(3)]

    for limit in (1, 2, 3, 4, 100):
        seen: list[str] = []
        after: str | None = None
        while True:
            page = platform.volumes(after=after, limit=limit)
            assert len(page.items) <= limit
            seen += [one.external_id for one in page.items if not one.external_id.endswith("-boot")]
            if (after := page.after) is None:
                break
        assert seen == wanted


def test_more_than_google_gives_at_a_time_is_one_part(cloud: Cloud, platform: GcePlatform) -> None:
    for number in range(601):
        disks.add(cloud.world, OTHER_ZONE, {"name": f"disk-{number}", "type": "pd-balanced", "sizeGb": "10"})

    page = platform.volumes(limit=1000)
    assert (len(page.items), page.after) == (601 + 3, None)
    assert cloud.world.calls == ["disks.list", "disks.list", "disks.list"]


@pytest.mark.parametrize("after", ["", "asia-east1-a:", "nonsense", f"{ZONE}:nonsense"])
def test_a_place_to_go_on_from_that_no_part_has_said_is_refused(platform: GcePlatform, after: str) -> None:
    if after == "":
        assert platform.volumes(after=after).items
        return
    with pytest.raises((Invalid, PlatformError), match=r"after|pageToken"):
        platform.volumes(after=after)


def test_a_disk_that_polly_did_not_make_can_be_adopted(cloud: Cloud, platform: GcePlatform) -> None:
    add(cloud, ZONE, "by-hand", description="the old shop", labels={"team": "shop"})
    volume = ExternalId(f"{ZONE}/by-hand")

    found = platform.inspect(volume)
    assert (found.token, found.name, found.serial, found.labels, found.pool) == ("", "by-hand", "by-hand", {"team": "shop"}, POOL)
    assert platform.attach(volume, NODE, epoch=1).device == "/dev/disk/by-id/google-by-hand"
    assert platform.inspect(volume).labels == {"team": "shop"}


def test_a_disk_outside_of_the_zones_is_unknown(cloud: Cloud, platform: GcePlatform) -> None:
    add(cloud, FAR_ZONE, "far")
    with pytest.raises(UnknownVolume):
        platform.inspect(ExternalId(f"{FAR_ZONE}/far"))


@pytest.mark.parametrize("host", [*HOSTS, "projects/p", "", "https://www.googleapis.com/compute/v1/projects/p"])
def test_links_are_read_in_all_their_forms(host: str) -> None:
    assert place_of_link(f"{host}/zones/{ZONE}/instances/one") == Place(ZONE, "one")
    assert place_of_link(f"{host}/global/snapshots/one") is None


@pytest.mark.parametrize("text", ["", "/", "one", "a/b/c", "A/b", "a/B", "a/", "/b", "a/b\n", "-a/b"])
def test_what_is_no_place_is_none(text: str) -> None:
    assert place(text) is None


# --- deleting and growing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("resourceInUseByAnotherResource", VolumeInUse),
        ("notFound", None),
        ("forbidden", PlatformError),
        ("resourceNotReady", PlatformUnavailable),
    ],
)
def test_refusals_of_a_delete_have_names(cloud: Cloud, platform: GcePlatform, reason: str, error: type[PollyError] | None) -> None:
    made = create(platform)
    cloud.world.faults.refusals = [("disks.delete", ApiError(400, reason, "Google's words"))] * 4

    if error is None:
        platform.delete(made.external_id)
        return
    with pytest.raises(error) as refused:
        platform.delete(made.external_id)
    assert (refused.type, "Google's words" in refused.value.fields["reason"]) == (error, True)


def test_a_quota_without_room_lets_no_disk_grow(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform)
    cloud.world.limits_gb["SSD_TOTAL_GB"] = 15

    with pytest.raises(PoolFull, match="has 5120 MiB free, 20480 MiB were asked for"):
        platform.expand(made.external_id, 20 * GIB)
    assert platform.inspect(made.external_id).size_mib == 10 * GIB


def test_another_who_has_grown_it_so_far_has_done_it(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform)
    cloud.world.faults.refusals = [("disks.resize", ApiError(400, "invalid", "New disk size must be larger"))] * 2
    with pytest.raises(PlatformError, match="must be larger"):
        platform.expand(made.external_id, 20 * GIB)

    original = platform._api.resize_disk
    platform._api.resize_disk = lambda *told: (original(*told), original(*told))[0]  # type: ignore[method-assign]  # as two processes do
    cloud.world.faults.refusals = []
    assert platform.expand(made.external_id, 20 * GIB).size_mib == 20 * GIB


# --- snapshots -----------------------------------------------------------------------------------------------------


def test_a_snapshot_that_is_still_uploading_is_waited_for(compute_engine: Peer, tmp_path: Path) -> None:
    cloud = cloud_on(compute_engine, tmp_path, operation_s=0.05)
    platform = cloud.platform()
    made = create(platform)
    snapshot = platform.snapshot(made.external_id, token="snap", name="before")
    cloud.world.snapshots[snapshot.external_id]["status"] = "UPLOADING"
    slow = cloud.platform(timeout_s=1)

    with pytest.raises(PlatformUnavailable, match="is UPLOADING after 1 s"):
        slow.snapshot(made.external_id, token="snap")
    with pytest.raises(PlatformUnavailable, match="is UPLOADING after 1 s"):
        create(slow, "copy", snapshot=snapshot.external_id)
    cloud.world.snapshots[snapshot.external_id]["status"] = "READY"
    assert platform.snapshot(made.external_id, token="snap") == snapshot
    assert cloud.world.calls.count("disks.createSnapshot") == 1
    assert snapshot.created_at > 1_700_000_000


def test_a_disk_that_is_copied_too_often_slows_no_other_call_down(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform)
    cloud.world.faults.failures = [("createSnapshot", OperationError("RESOURCE_OPERATION_RATE_EXCEEDED", "Operation rate exceeded"))]
    with pytest.raises(PlatformUnavailable, match="RESOURCE_OPERATION_RATE_EXCEEDED"):
        platform.snapshot(made.external_id, token="snap")
    assert platform._api._calls.bucket._rate == 100_000
    assert platform.snapshot(made.external_id, token="snap").volume == made.external_id


def test_a_snapshot_that_failed_is_said_and_is_no_source(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform)
    snapshot = platform.snapshot(made.external_id, token="snap").external_id
    cloud.world.snapshots[snapshot]["status"] = "FAILED"

    with pytest.raises(PlatformError, match="the snapshot is FAILED"):
        platform.snapshot(made.external_id, token="snap")
    with pytest.raises(UnknownSnapshot):
        create(platform, "copy", snapshot=snapshot)


def test_a_snapshot_of_that_name_which_another_made_is_not_taken(cloud: Cloud, platform: GcePlatform) -> None:
    made = create(platform)
    cloud.platform().snapshot(made.external_id, token="snap")
    cloud.world.snapshots[snapshot_name("snap")]["description"] = "by hand"

    with pytest.raises(Conflict, match="wanted token snap, found token none"):
        platform.snapshot(made.external_id, token="snap")


def test_snapshots_of_other_zones_are_not_listed(cloud: Cloud, platform: GcePlatform) -> None:
    far = cloud.platform(zones=(FAR_ZONE,))
    far.snapshot(create(far, pool=f"{FAR_ZONE}.pd-balanced").external_id, token="far")
    near = platform.snapshot(create(platform, "near").external_id, token="near")

    assert list(platform.snapshots().items) == [near]


def test_a_disk_that_goes_while_it_is_copied_is_unknown(cloud: Cloud, platform: GcePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create(platform)
    original = platform._api.create_snapshot
    monkeypatch.setattr(platform._api, "create_snapshot", lambda *a, **b: (cloud.world.disks.pop(made.external_id), original(*a, **b)))
    with pytest.raises(UnknownVolume):
        platform.snapshot(made.external_id, token="snap")
    assert cloud.world.snapshots == {}


def test_a_part_of_nothing_is_refused(platform: GcePlatform) -> None:
    for call in (platform.volumes, platform.snapshots):
        with pytest.raises(Invalid, match="a part has 1 item or more"):
            call(limit=0)
