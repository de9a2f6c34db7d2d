"""A PowerFlex array where nothing was ever done for each test, and an adapter on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.platforms.base import Platform
from tests.contract.powerflex.arena import platform, renewed
from tests.peers.powerflex_gateway import Gateway


@pytest.fixture(params=["3.6", "4.5"])
def gateway(request: pytest.FixtureRequest, powerflex_gateways: dict[str, Gateway]) -> Gateway:
    """Of both generations."""
    return renewed(powerflex_gateways[request.param])


@pytest.fixture
def array(gateway: Gateway) -> Iterator[Platform]:
    made = platform(gateway)
    yield made
    made.close()
