"""PowerMax: clones that are cut off, and the snapshots that they are copied from."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import PoolFull, UnknownVolume, VolumeInUse
from storage.platforms.base import VolumeReport
from storage.platforms.powermax.platform import PowerMaxPlatform
from tests.contract.powermax.arena import SIZE_MIB, platform_on, request
from tests.peers.powermax_unisphere import Unisphere

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powermax")]


def test_what_a_dead_cloner_left_keeps_nobody_from_deleting_the_source(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    source = adapter.create(request())
    snapshot = adapter._clones._snapshot(adapter._get(source.external_id), "t2")
    assert not adapter.snapshots().items
    target = adapter._copies._begin(snapshot, "polly-t2", SIZE_MIB, "SRP_1")
    with pytest.raises(VolumeInUse, match="a clone that is being made of it"):
        adapter.delete(source.external_id)
    clone = adapter.create(request("t2", source=source.external_id))
    assert target
    assert clone.external_id == target.id
    adapter._clones._snapshot(adapter._get(source.external_id), "t3")
    adapter.delete(source.external_id)
    assert not front.array.snapshots


def test_a_clone_that_does_not_fit_leaves_no_snapshot(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    source = adapter.create(request())
    front.array.subscribed_limit_tb = front.array.subscribed_tb()
    with pytest.raises(PoolFull):
        adapter.create(request("t2", source=source.external_id))
    assert not front.array.snapshots
    assert [volume.external_id for volume in adapter.volumes().items] == [source.external_id]


def test_what_a_dead_cloner_left_goes_with_the_next_clone_of_the_source(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    source = adapter.create(request())
    adapter._clones._snapshot(adapter._get(source.external_id), "t2")
    adapter.create(request("t3", source=source.external_id))
    assert not front.array.snapshots


def test_what_a_dead_cloner_left_goes_with_the_volume_that_it_had_begun(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    source = adapter.create(request())
    snapshot = adapter._clones._snapshot(adapter._get(source.external_id), "t2")
    adapter._copies._begin(snapshot, "polly-t2", SIZE_MIB, "SRP_1")
    begun = adapter.find("t2")
    assert begun
    adapter.delete(begun.external_id)
    assert (len(front.array.volumes), front.array.snapshots) == (1, {})


def test_a_cloner_that_was_only_slow_takes_its_snapshot_again(
    front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another clone of the source is made meanwhile, from the first call to the last."""
    source = adapter.create(request()).external_id
    begin = adapter._copies._begin
    others: list[VolumeReport] = []

    def late(*arguments: Any) -> Any:
        if not others:
            others.append(platform_on(front).create(request("t3", source=source)))
            assert not front.array.snapshots, "the snapshot of the slow one was not swept up"
        return begin(*arguments)

    monkeypatch.setattr(adapter._copies, "_begin", late)
    made = adapter.create(request("t2", source=source))
    assert {one.external_id for one in adapter.volumes().items} == {source, made.external_id, others[0].external_id}
    assert not front.array.snapshots


def test_a_clone_whose_source_goes_meanwhile_is_refused_and_leaves_nothing(
    front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = adapter.create(request()).external_id
    begin = adapter._copies._begin

    def late(*arguments: Any) -> Any:
        platform_on(front).delete(source)
        return begin(*arguments)

    monkeypatch.setattr(adapter._copies, "_begin", late)
    with pytest.raises(UnknownVolume):
        adapter.create(request("t2", source=source))
    assert (front.array.volumes, front.array.snapshots) == ({}, {})
