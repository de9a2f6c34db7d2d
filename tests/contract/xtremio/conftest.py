"""An XtremIO array where nothing was ever done for each test, and an adapter on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.platforms.xtremio.platform import XtremioPlatform
from tests.contract.xtremio.arena import platform_on
from tests.peers.xtremio import XmsServer


@pytest.fixture
def xms(xtremio_server: XmsServer) -> XmsServer:
    xtremio_server.faults(reset=True)
    return xtremio_server


@pytest.fixture
def xtremio(xms: XmsServer) -> Iterator[XtremioPlatform]:
    platform = platform_on(xms)
    yield platform
    platform.close()


@pytest.fixture
def other(xms: XmsServer) -> Iterator[XtremioPlatform]:
    platform = platform_on(xms)
    yield platform
    platform.close()
