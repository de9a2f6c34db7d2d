"""The PowerFlex adapter keeps the whole contract on the simulated array, in both generations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import Arena, PlatformContract
from tests.contract.powerflex.arena import GRANULE_MIB, NODES, POOL, POOL_ID, platform, renewed
from tests.peers.powerflex_gateway import PASSWORD, Gateway

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]

BUSY = (500, {"message": "The system is busy. Retry later", "httpStatusCode": 500, "errorCode": 164})
CALLS = {
    "create": "types/Volume/instances",
    "attach": "/addMappedSdc",
    "detach": "/removeMappedSdc",
    "delete": "/removeVolume",
    "expand": "/setVolumeSize",
    "snapshot": "/snapshotVolumes",
    "delete_snapshot": "/removeVolume",
}
"""The call that does what a verb is for."""


class PowerFlexContract(PlatformContract):
    pool = POOL
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

    @contextmanager
    def losing(self, storage: Gateway, platform: Platform, verb: str) -> Iterator[Platform]:
        storage.lose = CALLS[verb]
        yield platform
        assert not storage.lose, f"{verb} did not make its call"

    @contextmanager
    def throttling(self, storage: Gateway) -> Iterator[None]:
        storage.refuse = [(429, None), (503, None), BUSY]
        yield
        assert not storage.refuse

    @contextmanager
    def expiring(self, storage: Gateway) -> Iterator[None]:
        storage.closed = True
        yield
        storage.closed = False


class TestPowerFlex3(PowerFlexContract):
    version = "3.6"


class TestPowerFlex4(PowerFlexContract):
    version = "4.5"
