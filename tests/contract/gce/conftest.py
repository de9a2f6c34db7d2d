"""An empty project of Compute Engine for each test, and an adapter on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.model import ExternalId
from storage.platforms.base import CreateRequest
from storage.platforms.gce import GcePlatform
from tests.peers.gce.cloud import POOL, Cloud, cloud_on
from tests.peers.gce.server import Peer


@pytest.fixture
def cloud(compute_engine: Peer, tmp_path: Path) -> Cloud:
    return cloud_on(compute_engine, tmp_path)


@pytest.fixture
def platform(cloud: Cloud) -> Iterator[GcePlatform]:
    platform = cloud.platform()
    yield platform
    platform.close()


@pytest.fixture
def volume(platform: GcePlatform) -> ExternalId:
    return platform.create(CreateRequest(pool=POOL, size_mib=10240, token="claim-1")).external_id
