"""A PowerScale cluster where nothing was ever done for each test, and two adapters on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.platforms.powerscale.platform import PowerScalePlatform
from tests.contract.powerscale.arena import platform_on, renewed
from tests.peers.powerscale_onefs import OneFs


@pytest.fixture
def front(powerscale: OneFs) -> OneFs:
    return renewed(powerscale)


@pytest.fixture
def platform(front: OneFs) -> Iterator[PowerScalePlatform]:
    platform = platform_on(front)
    yield platform
    platform.close()


@pytest.fixture
def other(front: OneFs) -> Iterator[PowerScalePlatform]:
    platform = platform_on(front)
    yield platform
    platform.close()
