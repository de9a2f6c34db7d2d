"""The PowerFlex adapter keeps the whole contract on the simulated array, in both generations."""

from __future__ import annotations

from typing import ClassVar

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.faulting import Fault, Faults
from tests.contract.powerflex.arena import GRANULE_MIB, NODES, POOL, POOL_ID, platform, renewed
from tests.peers.powerflex_gateway import PASSWORD, Gateway

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]


class PowerFlexContract(PlatformContract):
    pool = POOL
    other_pool = "domain1/slow"
    nodes = NODES
    size_mib = GRANULE_MIB
    other_parameters = ({"provisioning": "thick"},)
    wrong_parameters = ({"provisioning": "thin "}, {"compression": "best"})
    secrets = (PASSWORD,)
    version: ClassVar[str]

    @pytest.fixture
    def storage(self, powerflex_gateways: dict[str, Gateway]) -> Gateway:
        return renewed(powerflex_gateways[self.version])

    def make(self, storage: Gateway) -> Platform:
        return platform(storage)

    def fill(self, arena: Arena) -> int:
        """More than may be promised in the pool: thin volumes may be larger than what there is."""
        return int(arena.storage.array.pools[POOL_ID].limit_kb) // 1024 + GRANULE_MIB

    def write(self, storage: Gateway, attachment: Attachment, data: bytes) -> None:
        volume = storage.array.volumes[attachment.external_id]
        assert "ReadWrite" in volume.mapped.values(), "a volume is written to that no node may write to"
        volume.data = data

    def read(self, storage: Gateway, attachment: Attachment, length: int) -> bytes:
        return storage.array.volumes[attachment.external_id].data[:length]

    def faults(self, storage: Gateway) -> Faults:
        storage.faults = Faults(*Fault, codes={Fault.EXPIRED: "401"})
        return storage.faults

    def things(self, storage: Gateway, platform: Platform) -> list[str]:
        return [f"{volume.id} {volume.name} of {volume.size_kb} KiB at {volume.mapped}" for volume in storage.array.volumes.values()]


class TestPowerFlex3(PowerFlexContract):
    version = "3.6"


class TestPowerFlex4(PowerFlexContract):
    version = "4.5"
