"""The PowerMax adapter keeps the whole contract on the simulated array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import Arena, PlatformContract
from tests.contract.powermax.arena import NODES, SIZE_MIB, platform_on, renewed
from tests.peers.powermax_unisphere import PASSWORD, Unisphere

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powermax")]

CALLS = {
    "create": ("PUT", "/storagegroup/polly-pool"),
    "attach": ("PUT", "/storagegroup/polly-host"),
    "detach": ("PUT", "/storagegroup/polly-host"),
    "delete": ("DELETE", "/volume/"),
    "expand": ("PUT", "/volume/"),
    "snapshot": ("POST", "/snapshot/"),
    "delete_snapshot": ("DELETE", "/snapshot/"),
}
"""The call that does what a verb is for."""
LOCK = (500, {"message": "A problem occurred modifying the storage group resource: Unable to acquire the Symmetrix device lock"})


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

    @contextmanager
    def losing(self, storage: Unisphere, platform: Platform, verb: str) -> Iterator[Platform]:
        storage.lose = CALLS[verb]
        yield platform
        assert storage.lose is None, f"{verb} did not make its call"

    @contextmanager
    def throttling(self, storage: Unisphere) -> Iterator[None]:
        storage.refuse = [(429, None), (503, None)]
        yield
        assert not storage.refuse

    @contextmanager
    def expiring(self, storage: Unisphere) -> Iterator[None]:
        storage.closed = True
        yield
        storage.closed = False
