"""Compute Engine keeps the contract of all platforms, against the strict peer and with faults made on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from storage.errors import PlatformUnavailable
from storage.model import ExternalId
from storage.platforms.base import CreateRequest, Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.gce import GcePlatform
from tests.peers.gce.cloud import ELSEWHERE, NODE, POOL, Cloud, cloud_on
from tests.peers.gce.server import Peer
from tests.peers.gce.world import World

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

METHODS = {
    "create": "disks.insert",
    "delete": "disks.delete",
    "expand": "disks.resize",
    "attach": "instances.attachDisk",
    "detach": "instances.detachDisk",
    "fence": "disks.setLabels",
    "record_birth": "disks.setLabels",
    "snapshot": "disks.createSnapshot",
    "delete_snapshot": "snapshots.delete",
}
"""The call whose answer is lost when a verb's is."""


class TestGce(PlatformContract):
    pool = POOL
    nodes = (NODE, ELSEWHERE)
    size_mib = 10 * 1024
    many = 1000
    has_data = False
    secrets: ClassVar[tuple[str, ...]] = ("PRIVATE KEY", "ya29.")

    @pytest.fixture
    def storage(self, compute_engine: Peer, tmp_path: Path) -> Cloud:
        return cloud_on(compute_engine, tmp_path)

    def make(self, storage: Cloud) -> Platform:
        return storage.platform()

    @contextlib.contextmanager
    def losing(self, storage: Cloud, platform: Platform, verb: str) -> Iterator[Platform]:
        faults = storage.world.faults
        faults.losing, faults.lost = METHODS[verb], 0
        yield platform
        assert faults.lost > 1, "the call was not sent again, although its answer was lost"
        faults.losing = ""

    @contextlib.contextmanager
    def _throttled(self, world: World) -> Iterator[None]:
        world.faults.throttled = 7
        yield
        assert world.faults.throttled == 0

    def throttling(self, storage: Cloud) -> AbstractContextManager[object]:
        return self._throttled(storage.world)

    @contextlib.contextmanager
    def _expired(self, world: World) -> Iterator[None]:
        world.faults.expired = True
        yield
        world.faults.expired = False

    def expiring(self, storage: Cloud) -> AbstractContextManager[object]:
        return self._expired(storage.world)

    @contextlib.contextmanager
    def _stopped(self, world: World) -> Iterator[None]:
        world.instances[ELSEWHERE]["status"] = "TERMINATED"
        yield
        world.instances[ELSEWHERE]["status"] = "RUNNING"

    def stopping(self, storage: Cloud) -> AbstractContextManager[object]:
        return self._stopped(storage.world)


class TestGceInItsOwnTime(TestGce):
    """The same where operations take a while, so that everybody meets disks that are not there yet or not yet gone."""

    many = 20

    @pytest.fixture
    def storage(self, compute_engine: Peer, tmp_path: Path) -> Cloud:
        return cloud_on(compute_engine, tmp_path, operation_s=0.02)


VERBS: dict[str, tuple[str, Callable[[GcePlatform, ExternalId], object]]] = {
    "create": ("disks.aggregatedList disks.insert zoneOperations.get disks.get", lambda cloud, volume: cloud.create(request("claim-2"))),
    "attach": (
        "disks.get disks.setLabels instances.attachDisk zoneOperations.get",
        lambda cloud, volume: cloud.attach(volume, ELSEWHERE, epoch=2),
    ),
    "detach": ("disks.get instances.get instances.detachDisk zoneOperations.get", lambda cloud, volume: cloud.detach(volume, NODE)),
    "fence": ("disks.get disks.setLabels zoneOperations.get zoneOperations.list", lambda cloud, volume: cloud.fence(volume, 7)),
    "expand": ("disks.get disks.resize zoneOperations.get", lambda cloud, volume: cloud.expand(volume, 20480)),
    "snapshot": (
        "snapshots.get disks.get disks.createSnapshot zoneOperations.get",
        lambda cloud, volume: cloud.snapshot(volume, token="snap"),
    ),
    "delete": ("disks.get disks.delete zoneOperations.get", lambda cloud, volume: cloud.delete(volume)),
}


def request(token: str) -> CreateRequest:
    return CreateRequest(pool=POOL, size_mib=10240, token=token)


@pytest.mark.parametrize(("verb", "method"), [(verb, method) for verb, (methods, _) in VERBS.items() for method in methods.split()])
def test_an_answer_that_is_lost_of_any_call_leaves_nothing_by_half(compute_engine: Peer, tmp_path: Path, verb: str, method: str) -> None:
    cloud = cloud_on(compute_engine, tmp_path)
    platform, run = cloud.platform(), VERBS[verb][1]
    volume = platform.create(request("claim-1")).external_id
    platform.attach(volume, NODE, epoch=1)
    if verb != "detach":
        platform.detach(volume, NODE)

    cloud.world.faults.losing = method
    with pytest.raises(PlatformUnavailable):
        run(platform, volume)
    cloud.world.faults.losing = ""
    assert cloud.world.faults.lost >= 4
    run(cloud.platform(), volume)

    users = {node: len(cloud.world.instances[node]["disks"]) - 1 for node in (NODE, ELSEWHERE)}
    made = [disk for disk in cloud.world.disks.values() if disk["name"].startswith("polly-")]
    assert users == {NODE: 0, ELSEWHERE: int(verb == "attach")}
    assert len(made) == {"create": 2, "delete": 0}.get(verb, 1)
    assert [disk["sizeGb"] for disk in made if verb == "expand"] in ([], ["20"])
    assert len(cloud.world.snapshots) == int(verb == "snapshot")
