"""One guest for the session, and a cloud of each test's own around it that leaves nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import belongs_to_the_session, leave_out
from tests.guest import inside, target
from tests.guest.cloud import Cloud
from tests.peers.guest import Guest
from tests.servers import Missing


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    try:
        found = Guest(tmp_path_factory.mktemp("guest"), on_start=belongs_to_the_session)
    except Missing as missing:
        leave_out(f"needs {missing}")
    with found as running:
        yield running


@pytest.fixture
def cloud_of(guest: Guest, tmp_path: Path) -> Iterator[Callable[..., Cloud]]:
    """Makes a cloud with disks of one kind. After the test nothing of it may be mounted, staged or connected in the guest."""
    clouds: list[Cloud] = []

    def make(kind: str, clouds_class: type[Cloud] = Cloud) -> Cloud:
        clouds.append(clouds_class(guest, tmp_path / f"cloud{len(clouds)}", kind=kind))
        return clouds[-1]

    yield make
    left = guest.call(inside.left)
    guest.call(inside.clean_up)
    for serial in guest.call(target.connected):
        guest.call(target.disconnect, serial)
    for name in guest.plugged:
        guest.unplug(name)
    assert left == []


@pytest.fixture
def ebs(cloud_of: Callable[[str], Cloud]) -> Cloud:
    """Disks as EC2 shows its volumes: NVMe, with the volume's id for a serial."""
    return cloud_of("nvme")
