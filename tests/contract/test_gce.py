"""Compute Engine keeps the contract of all platforms, against the strict peer and with faults made on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from storage.platforms.base import Platform
from storage.platforms.contract import PlatformContract
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
