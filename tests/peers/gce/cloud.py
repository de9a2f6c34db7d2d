"""A project on the peer as a test has it: the adapter's options for it, and adapters that do not wait long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storage.platforms.base import CreateRequest, VolumeReport
from storage.platforms.gce import GceOptions, GcePlatform
from storage.platforms.gce.calls import Pace
from tests.peers.gce import disks
from tests.peers.gce.server import Peer
from tests.peers.gce.world import Resource, World

ZONE, OTHER_ZONE, FAR_ZONE = "europe-west4-a", "europe-west4-b", "us-central1-f"
POOL = f"{ZONE}.pd-balanced"
NODE, ELSEWHERE = f"{ZONE}/node-a", f"{ZONE}/node-b"
GIB = 1024
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

    def disk(self, external_id: str) -> Resource:
        """As Google keeps it."""
        return self.world.disks[external_id]

    def entries(self, node: str) -> list[Resource]:
        """The disks of an instance beside the one it boots from."""
        found: list[Resource] = self.world.instances[node]["disks"][1:]
        return found


def during(monkeypatch: pytest.MonkeyPatch, platform: GcePlatform, call: str, what: Callable[[], object], *, after: bool = False) -> None:
    """Lets something happen right before or after the platform's next call of the API."""
    original = getattr(platform._api, call)

    def run(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        if not after:
            what()
        answer = original(*arguments, **options)
        if after:
            what()
        return answer

    monkeypatch.setattr(platform._api, call, run)


def cloud_on(peer: Peer, folder: Path, **settings: object) -> Cloud:
    """A new project, with an account whose key is in the folder."""
    world = peer.project(**settings)
    account = folder / f"{world.project}.json"
    account.write_text(json.dumps(peer.account(world.project)))
    return Cloud(peer=peer, world=world, account=account)


def create(platform: GcePlatform, claim: str = "claim-1", *, pool: str = POOL, size_mib: int = 10 * GIB, **more: object) -> VolumeReport:
    return platform.create(CreateRequest(pool=pool, size_mib=size_mib, token=claim, **more))  # type: ignore[arg-type]  # as they come


def add(cloud: Cloud, zone: str, name: str, kind: str = "pd-balanced", **more: object) -> None:
    """A disk that Polly did not make."""
    disks.add(cloud.world, zone, {"name": name, "type": kind, "sizeGb": "10", **more})
    cloud.world.settle()
