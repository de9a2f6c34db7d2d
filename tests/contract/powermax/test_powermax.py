"""The PowerMax adapter keeps the whole contract on the simulated array."""

from __future__ import annotations

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.faulting import Fault, Faults
from tests.contract.powermax.arena import NODES, SIZE_MIB, platform_on, renewed
from tests.peers.powermax_unisphere import PASSWORD, Unisphere

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powermax")]


class TestPowerMax(PlatformContract):
    pool = "SRP_1"
    nodes = NODES
    size_mib = SIZE_MIB
    other_parameters = ({"service_level": "Gold"},)
    wrong_parameters = ({"service_level": "Wooden"},)
    secrets = (PASSWORD,)

    @pytest.fixture
    def storage(self, powermax: Unisphere) -> Unisphere:
        return renewed(powermax)

    def make(self, storage: Unisphere) -> Platform:
        return platform_on(storage)

    def fill(self, arena: Arena) -> int:
        """The array is thin: what can be full is what may be subscribed."""
        arena.storage.array.subscribed_limit_tb = arena.storage.array.subscribed_tb()
        return SIZE_MIB

    def write(self, storage: Unisphere, attachment: Attachment, data: bytes) -> None:
        volume = storage.array.volumes[attachment.external_id.partition("-")[0]]
        assert any(volume.id in view.luns for view in storage.array.views.values()), "a volume is written to that no host sees"
        volume.data = data

    def read(self, storage: Unisphere, attachment: Attachment, length: int) -> bytes:
        return storage.array.volumes[attachment.external_id.partition("-")[0]].data[:length]

    def faults(self, storage: Unisphere) -> Faults:
        storage.faults = Faults(*Fault, codes={Fault.EXPIRED: "401"})
        return storage.faults

    def things(self, storage: Unisphere, platform: Platform) -> list[str]:
        array = storage.array
        volumes = [f"{one.id} {one.name} of {one.cylinders} cylinders in {array.groups_of(one.id)}" for one in array.volumes.values()]
        snapshots = [f"{one.id} {one.name} of {one.source} to {one.links}" for one in array.snapshots.values()]
        return [*volumes, *snapshots, *array.groups, *array.views, *array.hosts, *storage.iterators]
