"""Compute Engine keeps the contract of all platforms, against the strict peer and with faults made on the wire."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from storage.platforms.base import Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.gce import GceOptions, GcePlatform
from storage.platforms.gce.calls import Pace
from tests.peers.gce.server import Peer, serving
from tests.peers.gce.world import World

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

ZONE, OTHER_ZONE, FAR_ZONE = "europe-west4-a", "europe-west4-b", "us-central1-f"
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
HASTE = Pace(wait=lambda seconds: time.sleep(min(seconds, 0.005)), look_every_s=0.005)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """A project on the peer, and the account that may use it."""

    peer: Peer
    world: World
    account: Path

    def options(self, **more: object) -> GceOptions:
        given = {
            "project": self.world.project,
            "zones": (ZONE, OTHER_ZONE),
            "types": ("pd-balanced", "pd-standard"),
            "credentials_file": str(self.account),
            "endpoint": self.peer.url,
            "calls_per_s": 100_000,
            "timeout_s": 10,
        }
        return GceOptions(**{**given, **more})  # type: ignore[arg-type]  # each key has a type of its own

    def platform(self, **more: object) -> GcePlatform:
        return GcePlatform("cloud", self.options(**more), pace=HASTE)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with serving() as peer:
        yield peer
        assert peer.violations == []


@pytest.fixture
def cloud(peer: Peer, tmp_path: Path) -> Cloud:
    world = peer.project()
    account = tmp_path / "account.json"
    account.write_text(json.dumps(peer.account(world.project)))
    return Cloud(peer=peer, world=world, account=account)


class TestGce(PlatformContract):
    pool = f"{ZONE}.pd-balanced"
    nodes = (f"{ZONE}/node-a", f"{ZONE}/node-b")
    size_mib = 10 * 1024
    many = 1000
    has_data = False
    secrets: ClassVar[tuple[str, ...]] = ("PRIVATE KEY", "ya29.")

    @pytest.fixture
    def storage(self, cloud: Cloud) -> Cloud:
        return cloud

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
