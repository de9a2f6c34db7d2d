"""The PowerFlex adapter on the simulated array, in both generations: the whole contract, and what is this platform's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.powerflex.options import PowerFlexOptions
from storage.platforms.powerflex.platform import PowerFlexPlatform
from tests.peers.powerflex_array import small_array
from tests.peers.powerflex_gateway import PASSWORD, USER, Gateway, serving

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]

POOL = "domain1/fast"
NODES = ("028888FA-502A-4FAC-A888-1FA3B2563581", "028888FA-502A-4FAC-A888-1FA3B2563582")
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


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Gateway]]:
    folder = tmp_path_factory.mktemp("powerflex")
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o600)
    with serving(folder, "3.6") as older, serving(folder, "4.5") as newer:
        yield {"3.6": older, "4.5": newer}


def renewed(gateway: Gateway) -> Gateway:
    """The same gateway before an array where nothing was ever done."""
    gateway.array = small_array(gateway.array.version)
    gateway.sessions.clear()
    gateway.calls.clear()
    return gateway


def options(gateway: Gateway, **changed: Any) -> PowerFlexOptions:
    password_file = str(Path(gateway.ca_file).parent / "password")
    return PowerFlexOptions(
        **{"gateway": gateway.url, "username": USER, "password_file": password_file, "ca_file": gateway.ca_file, **changed}
    )


def platform(gateway: Gateway, **changed: Any) -> PowerFlexPlatform:
    """Waits take no time: how long they are is tested elsewhere."""
    return PowerFlexPlatform("array", options(gateway, **changed), now=gateway.array.clock, wait=lambda _: None)


class PowerFlexContract(PlatformContract):
    pool = POOL
    nodes = NODES
    size_mib = 8192
    secrets = (PASSWORD,)
    version: ClassVar[str]

    @pytest.fixture
    def storage(self, gateways: dict[str, Gateway]) -> Gateway:
        return renewed(gateways[self.version])

    def make(self, storage: Gateway) -> Platform:
        return platform(storage)

    def fill(self, arena: Arena) -> int:
        """More than may be promised in the pool: thin volumes may be larger than what there is."""
        return int(arena.storage.array.pools["6c6dc54500000000"].limit_kb) // 1024 + 8192

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
