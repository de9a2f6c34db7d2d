"""PowerMax: clones that are cut off, and the snapshots that they are copied from."""

from __future__ import annotations

import pytest

from storage.errors import PoolFull, VolumeInUse
from storage.platforms.powermax.platform import PowerMaxPlatform
from tests.contract.powermax.arena import SIZE_MIB, request
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
