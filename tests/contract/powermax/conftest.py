"""A PowerMax array where nothing was ever done for each test, and an adapter on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.platforms.powermax.platform import PowerMaxPlatform
from tests.contract.powermax.arena import platform_on, renewed
from tests.peers.powermax_unisphere import Unisphere


@pytest.fixture
def front(powermax: Unisphere) -> Unisphere:
    return renewed(powermax)


@pytest.fixture
def adapter(front: Unisphere) -> Iterator[PowerMaxPlatform]:
    platform = platform_on(front)
    yield platform
    platform.close()
