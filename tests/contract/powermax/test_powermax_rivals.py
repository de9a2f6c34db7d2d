"""PowerMax among others: what happens between two calls of a verb, what was left half done, and answers that are not the array's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage.errors import PlatformError, PlatformUnavailable, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.powermax.platform import PowerMaxPlatform
from storage.platforms.powermax.unisphere import NotThere
from tests.contract.powermax.arena import NODES, foreign, platform_on, request
from tests.peers.powermax_unisphere import Unisphere

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powermax")]
HOME = "polly-pool-SRP_1-Optimized-1"


@pytest.fixture
def volume(adapter: PowerMaxPlatform) -> ExternalId:
    return adapter.create(request()).external_id


@pytest.fixture
def other(front: Unisphere) -> Iterator[PowerMaxPlatform]:
    platform = platform_on(front)
    yield platform
    platform.close()


def around_taking(
    monkeypatch: pytest.MonkeyPatch,
    adapter: PowerMaxPlatform,
    *,
    before: Callable[[], Any] | None = None,
    after: Callable[[], Any] | None = None,
) -> None:
    """Something happens right before or after the next volume is taken out of its group."""
    real, left = adapter._volumes.take, [1]

    def take(group: str, device: str, action: str) -> bool:
        is_first = bool(left and left.pop())
        if is_first and before:
            before()
        taken = real(group, device, action)
        if is_first and after:
            after()
        return taken

    monkeypatch.setattr(adapter._volumes, "take", take)


# --- between two calls ----------------------------------------------------------------------------------


def test_a_volume_that_gets_the_number_of_a_deleted_one_is_not_deleted_for_it(
    front: Unisphere, adapter: PowerMaxPlatform, other: PowerMaxPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another broker deletes the same volume, and its number goes to a new one, in the same group."""

    def reuse() -> None:
        other.delete(volume)
        assert other.create(request("t2")).external_id == "00001-polly-t2"

    around_taking(monkeypatch, adapter, before=reuse)
    adapter.delete(volume)
    assert [one.name for one in front.array.volumes.values()] == ["polly-t2"]
    assert front.array.groups_of("00001") == [HOME]


def test_a_volume_that_a_node_gets_while_it_is_deleted_stays_where_it_was(
    front: Unisphere, adapter: PowerMaxPlatform, other: PowerMaxPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    around_taking(monkeypatch, adapter, after=lambda: other.attach(volume, NODES[0], epoch=1))
    with pytest.raises(VolumeInUse, match="aaaaaaaaaaaa"):
        adapter.delete(volume)
    assert HOME in front.array.groups_of("00001")
    assert adapter.inspect(volume).held_by == (NODES[0],)


def test_a_group_that_goes_while_a_volume_comes_is_no_volume_that_is_lost(
    adapter: PowerMaxPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter._volumes, "make_group", lambda *_, **__: None)
    with pytest.raises(NotThere, match="Cannot find storage group"):
        adapter.attach(volume, NODES[0], epoch=1)


def test_a_volume_is_taken_from_a_host_that_was_renamed_meanwhile(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    adapter.attach(volume, NODES[0], epoch=1)
    front.array.hosts["prod-7"] = front.array.hosts.pop(next(iter(front.array.hosts)))
    next(iter(front.array.views.values())).host = "prod-7"
    assert adapter.inspect(volume).held_by == (f"prod-7,{NODES[0]}",)
    adapter.detach(volume, NODES[0])
    assert adapter.inspect(volume).held_by == ()
    adapter.attach(volume, NODES[0], epoch=2)
    assert adapter.inspect(volume).held_by == (f"prod-7,{NODES[0]}",)


# --- what was left --------------------------------------------------------------------------------------


def test_what_a_maker_that_gave_up_has_left_is_found_and_deleted(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    foreign(front, "pollynew-t1", group=HOME)
    left = adapter.find("t1")
    assert left is not None
    assert (left.token, adapter.volumes().items) == ("t1", [])
    with pytest.raises(UnknownVolume):
        adapter.attach(left.external_id, NODES[0], epoch=1)
    adapter.delete(left.external_id)
    assert (adapter.find("t1"), front.array.volumes) == (None, {})


@pytest.mark.parametrize("died", ["_await", "_is_first"])
def test_what_a_copier_that_gave_up_has_left_is_found_and_deleted(
    front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, died: str
) -> None:
    snapshot = adapter.snapshot(volume, token="s1").external_id

    def dies(*_: object) -> None:
        raise PlatformUnavailable(platform="max", action="copy", reason="killed")

    with monkeypatch.context() as patch:
        patch.setattr(adapter._copies, died, dies)
        with pytest.raises(PlatformUnavailable, match="killed"):
            adapter.create(request("t2", snapshot=snapshot))
    left = adapter.find("t2")
    assert left is not None
    assert [one.external_id for one in adapter.volumes().items] == [volume]
    for verb in (adapter.inspect, lambda key: adapter.attach(key, NODES[0], epoch=1)):
        with pytest.raises(UnknownVolume):
            verb(left.external_id)
    adapter.delete(left.external_id)
    assert (adapter.find("t2"), list(front.array.volumes), list(front.array.groups)) == (None, ["00001"], [HOME])
    assert [one.links for one in front.array.snapshots.values()] == [{}]


# --- answers that are not the array's -------------------------------------------------------------------


def test_nothing_is_gone_because_unisphere_does_not_know_the_array(front: Unisphere, volume: ExternalId) -> None:
    elsewhere = platform_on(front, array="000000000001")
    looks: tuple[Callable[[ExternalId], object], ...] = (elsewhere.delete, elsewhere.inspect, lambda key: elsewhere.detach(key, NODES[0]))
    for look in looks:
        with pytest.raises(PlatformUnavailable, match="does not know array 000000000001"):
            look(volume)


def test_a_snapshot_that_another_has_deleted_meanwhile_is_gone(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    """Unisphere says that it failed."""
    adapter.snapshot(volume, token="s1")
    (taken,) = adapter._copies.of("00001")
    front.refuse = [(500, {"message": "A problem occurred deleting the snapshot generation resources: No snapshot was found"})]
    adapter._copies.end(taken)
    assert front.refuse == []


def test_an_array_that_finds_no_list_where_nothing_is_on_it_is_as_good(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    front.says_nothing_is_missing = True
    assert (adapter.volumes().items, adapter.find("t1")) == ([], None)
    volume = adapter.create(request()).external_id
    adapter.attach(volume, NODES[0], epoch=1)
    adapter.detach(volume, NODES[0])
    clone = adapter.create(request("t2", source=volume)).external_id
    snapshot = adapter.snapshot(volume, token="s1").external_id
    copy = adapter.create(request("t3", snapshot=snapshot)).external_id
    adapter.delete_snapshot(snapshot)
    for one in (volume, clone, copy):
        adapter.delete(one)
    assert adapter.volumes().items == []


def verbs(adapter: PowerMaxPlatform, volume: ExternalId, snapshot: ExternalId) -> Iterator[Callable[[], object]]:
    yield from (adapter.pools, adapter.volumes, adapter.snapshots, lambda: adapter.inspect(volume), lambda: adapter.find("t1"))
    yield lambda: adapter.create(request("t3"))
    yield lambda: adapter.create(request("t3", snapshot=snapshot))
    yield lambda: adapter.attach(volume, NODES[0], epoch=1)
    yield lambda: adapter.detach(volume, NODES[0])
    yield lambda: adapter.expand(volume, 4096)
    yield lambda: adapter.snapshot(volume, token="s3")
    yield lambda: adapter.delete_snapshot(snapshot)
    yield lambda: adapter.delete(volume)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>a proxy</html>"),
        (200, []),
        (200, {}),
        (200, {"resultList": None, "volumeId": None, "snapshotSrcs": [{}], "srpId": ["SRP_1"]}),
        (200, {"resultList": {"result": [{}]}, "count": "many", "maxPageSize": 1, "volumeId": "00001", "volume_identifier": "polly-t1"}),
        (302, None),
        (404, b"<html>the server is starting</html>"),
        (404, None),
        (500, None),
        (502, b"<html>a proxy</html>"),
    ],
)
def test_an_answer_that_is_not_the_arrays_is_an_error_with_a_name(
    front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId, answer: tuple[int, Any]
) -> None:
    snapshot = adapter.snapshot(volume, token="s1").external_id
    for verb in verbs(adapter, volume, snapshot):
        front.refuse = [answer] * 30
        with pytest.raises(PlatformError):
            verb()
        front.refuse = []
    assert (list(front.array.volumes), len(front.array.snapshots), front.array.groups_of("00001")) == (["00001"], 1, [HOME])
