"""What the adapter of Cinder makes of lists, states and quotas, without a Cinder: its answers are given here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from storage.errors import PlatformError, PlatformUnavailable
from storage.platforms.cinder import records
from storage.platforms.cinder.client import Client
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.options import CinderOptions
from storage.platforms.cinder.pooling import ENDLESS_MIB, ByBackend, ByType
from storage.platforms.cinder.records import GIB_MIB
from storage.platforms.cinder.things import Things
from storage.platforms.pacing import TokenBucket

VOLUME = "6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10"


def volume(**changes: Any) -> dict[str, Any]:
    return {"id": VOLUME, "size": 2, "status": "available", "metadata": {}, "attachments": [], "name": "one", **changes}


class Answers(Client):
    """Gives what it is made with, by path, without a cloud; of a list, the next each time, and the last for ever."""

    def __init__(self, **answers: Any) -> None:
        super().__init__("cloud", CinderOptions(), TokenBucket(100, 100), wait=lambda seconds: None, answer_s=1.0)
        self.answers = answers

    def ask(self, method: str, path: str, *, query: Mapping[str, object] | None = None, **more: Any) -> Any:
        found = self.answers[path.partition("?")[0].rpartition("/")[2].replace("-", "_")]
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        return found(**(query or {})) if callable(found) else found

    def project(self, action: str) -> str:
        return "project"


class Listing:
    """Cinder's list of volumes where its operator allows `most` in one answer (osapi_max_limit)."""

    def __init__(self, count: int, most: int, **changes: Any) -> None:
        self.kept = [volume(id=f"{number:08}{VOLUME[8:]}", created_at="2026-11-30", **changes) for number in range(count)]
        self.most = most

    def __call__(self, *, limit: int, sort: str, marker: str = "") -> Any:
        start = next((index for index, one in enumerate(self.kept, 1) if one["id"] == marker), 0)
        part = self.kept[start : start + min(limit, self.most)]
        return {"volumes": part, **({"volumes_links": [{"rel": "next"}]} if len(part) == min(limit, self.most) else {})}


def things(client: Client, noun: str = "volume", wait_s: float = 0.0) -> Things:
    return Things(client, noun, platform="cloud", wait_s=wait_s, every_s=0.001)


@pytest.mark.parametrize(("count", "most"), [(25, 10), (20, 10), (3, 1000), (0, 10)])
def test_a_list_is_whole_however_few_the_operator_allows_in_one_answer(count: int, most: int) -> None:
    listing = Listing(count, most)

    assert [one["id"] for one in things(Answers(detail=listing)).all()] == [one["id"] for one in listing.kept]


def test_a_list_goes_on_after_its_last_one_was_deleted() -> None:
    listing = Listing(25, 10)
    found = things(Answers(detail=[listing, Refusal(400, "no marker"), listing]))
    first, after = found.page(None, 12)
    second, last = found.page(after, 100)

    assert [one["id"] for one in [*first, *second]] == [one["id"] for one in listing.kept]
    assert last is None


def test_where_cinder_moves_a_volume_to_is_not_another_volume() -> None:
    """Administrators see it, and it has the metadata of the one that is moved."""
    listing = Listing(3, 1000, metadata={records.TOKEN: "t"})
    listing.kept[2]["os-vol-mig-status-attr:migstat"] = f"target:{VOLUME}"
    listing.kept[0]["os-vol-mig-status-attr:migstat"] = "migrating"

    assert [one["id"][:8] for one in things(Answers(detail=listing)).all()] == ["00000000", "00000001"]
    found = things(Answers(detail={"volumes": listing.kept})).with_token("t")
    assert [one["id"][:8] for one in found] == ["00000000", "00000001"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("creating", f"openstack volume set --state error {VOLUME}, and it is made anew"),
        ("reserved", f"volume attachment list --volume-id {VOLUME}"),
        ("detaching", "its server may still write to it, so set no state"),
        ("maintenance", "an administrator moves it"),
        ("awaiting-transfer", "openstack volume transfer request list"),
        ("reverting", "in the logs of Cinder's services"),
    ],
)
def test_a_state_that_does_not_end_is_said_with_what_to_do(status: str, words: str) -> None:
    seen = Answers(**{VOLUME.replace("-", "_"): {"volume": volume(status=status, updated_at="yesterday")}})
    with pytest.raises(PlatformUnavailable, match=f"it is {status} since yesterday; ") as late:
        things(seen).rested(VOLUME, action="wait")
    assert words in str(late.value)


def test_what_only_people_end_is_not_waited_for() -> None:
    offered = Answers(**{VOLUME.replace("-", "_"): [{"volume": volume(status="awaiting-transfer")}, AssertionError("it is waited for")]})
    with pytest.raises(PlatformUnavailable, match="to another project"):
        things(offered, wait_s=60).rested(VOLUME, action="wait")


def test_a_delete_that_the_backend_was_too_busy_for_may_be_asked_again() -> None:
    busy = Answers(**{VOLUME.replace("-", "_"): [None, {"volume": volume()}], "messages": {"messages": []}})
    with pytest.raises(PlatformUnavailable, match=r"its backend was busy with it.*Cinder does not say why; its log does"):
        things(busy, wait_s=60).delete(VOLUME)


@pytest.mark.parametrize("refused", [None, Refusal(400, "Volume status must be available")])
def test_a_delete_that_failed_is_said_with_what_to_do(refused: Refusal | None) -> None:
    """Cinder refuses to try it again by itself."""
    told = {"event_id": "VOLUME_VOLUME_010_001", "user_message": "delete", "created_at": "today"}
    failed = Answers(**{VOLUME.replace("-", "_"): [refused, {"volume": volume(status="error_deleting")}], "messages": {"messages": [told]}})
    with pytest.raises(PlatformError, match=rf"_010_001: delete \(today\); mend that, and .*openstack volume set --state error {VOLUME}"):
        things(failed, wait_s=60).delete(VOLUME)


def quota(**changes: Any) -> dict[str, Any]:
    found = {"gigabytes": (10, 4), "gigabytes_ssd": (-1, 4), "volumes": (10, 2), "volumes_ssd": (-1, 2), **changes}
    return {"quota_set": {key: {"limit": limit, "in_use": used, "reserved": 0} for key, (limit, used) in found.items()}}


@pytest.mark.parametrize(
    ("changes", "capacity_gib", "free_gib"),
    [
        ({}, 10, 6),
        ({"gigabytes_ssd": (5, 4)}, 5, 1),
        ({"volumes": (2, 2)}, 10, 0),
        ({"volumes_ssd": (2, 2)}, 10, 0),
        ({"volumes": (2, 2), "gigabytes": (-1, 4)}, ENDLESS_MIB >> 10, 0),
    ],
)
def test_a_quota_whose_number_of_volumes_is_used_up_has_no_room(
    changes: dict[str, tuple[int, int]], capacity_gib: int, free_gib: int
) -> None:
    """One of the two volumes that are there is ours."""
    zones = {"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]}
    client = Answers(project=quota(**changes), types={"volume_types": [{"name": "ssd"}]}, os_availability_zone=zones)
    ours = volume(metadata={records.TOKEN: "t"}, volume_type="ssd", availability_zone="nova")
    (pool,) = ByType(client, "cloud", zone_bound=False, region="").reports([ours, volume()])

    ours_mib, room = 2 * GIB_MIB, pool.room
    assert pool.capacity_mib == capacity_gib * GIB_MIB
    free = [pool.capacity_mib - pool.foreign_mib - ours_mib]
    free += [room.capacity_mib - room.foreign_mib - ours_mib] if room else []
    assert min(free) == free_gib * GIB_MIB


@pytest.mark.parametrize(
    ("total", "free", "capacity_mib", "foreign_mib"),
    [
        (10.0, 4.0, 10240, 4096),
        ("infinite", "infinite", ENDLESS_MIB, 0),
        ("unknown", "unknown", ENDLESS_MIB, 0),
        (10.0, "unknown", 10240, 0),
        (None, None, ENDLESS_MIB, 0),
        (0, 0, 1, 0),
        (10, 12, 10240, 0),
    ],
)
def test_capacities_are_numbers_or_none_at_all(total: object, free: object, capacity_mib: int, foreign_mib: int) -> None:
    ours = volume(metadata={records.TOKEN: "t"}, **{"os-vol-host-attr:host": "host@ssd#pool"})
    able = {"volume_backend_name": "ssd", "total_capacity_gb": total, "free_capacity_gb": free}
    client = Answers(get_pools={"pools": [{"name": "host@ssd#pool", "capabilities": able}]})

    (pool,) = ByBackend(client, "cloud", region="").reports([ours, volume()])

    assert (pool.capacity_mib, pool.foreign_mib) == (capacity_mib, foreign_mib)
