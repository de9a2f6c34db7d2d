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
from storage.platforms.faulting import Fault, Faults
from tests.peers.gce.cloud import ELSEWHERE, NODE, POOL, ZONE, Cloud, cloud_on
from tests.peers.gce.server import Peer
from tests.peers.gce.world import World

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]


class TestGce(PlatformContract):
    pool = POOL
    other_pool = f"{ZONE}.pd-standard"
    nodes = (NODE, ELSEWHERE)
    size_mib = 10 * 1024
    many = 1000
    has_data = False
    other_parameters = ({"type": "pd-balanced"},)
    wrong_parameters = ({"provisionedIops": "3000"}, {"type": "pd-slow"})
    secrets: ClassVar[tuple[str, ...]] = ("PRIVATE KEY", "ya29.")

    @pytest.fixture
    def storage(self, compute_engine: Peer, tmp_path: Path) -> Cloud:
        return cloud_on(compute_engine, tmp_path)

    def make(self, storage: Cloud) -> Platform:
        return storage.platform()

    @contextlib.contextmanager
    def _stopped(self, world: World) -> Iterator[None]:
        world.instances[ELSEWHERE]["status"] = "TERMINATED"
        yield
        world.instances[ELSEWHERE]["status"] = "RUNNING"

    def stopping(self, storage: Cloud) -> AbstractContextManager[object]:
        return self._stopped(storage.world)


class TestGceInItsOwnTime(TestGce):
    """The same where operations take a while, so that everybody meets disks that are not there yet or not yet gone, faults too."""

    many = 20

    @pytest.fixture
    def storage(self, compute_engine: Peer, tmp_path: Path) -> Cloud:
        return cloud_on(compute_engine, tmp_path, operation_s=0.02)

    def faults(self, storage: Cloud) -> Faults:
        storage.world.faults.at_call = Faults(*Fault, codes={Fault.EXPIRED: "AUTH_ERROR"})
        return storage.world.faults.at_call

    def things(self, storage: Cloud, platform: Platform) -> list[str]:
        world = storage.world
        held = [f"{instance}: {[entry['source'] for entry in found['disks']]}" for instance, found in world.instances.items()]
        return [*world.disks, *world.snapshots, *held]
