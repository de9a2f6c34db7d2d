"""Processes that hold local volumes, filesystems to put them on, and platforms' peers that run once for all tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import belongs_to_the_session, leave_out
from tests.servers import Missing

if TYPE_CHECKING:
    from tests.contract.cinder_cloud import Cloud
    from tests.contract.virtualbox_rig import Rig
    from tests.peers.gce.server import Peer as ComputeEngine
    from tests.peers.powerflex_gateway import Gateway
    from tests.peers.powermax_unisphere import Unisphere
    from tests.peers.powerscale_onefs import OneFs
    from tests.peers.xtremio import XmsServer

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    process: subprocess.Popen[str]
    device: str
    child: int

    def die(self) -> None:
        """As by SIGKILL: the process goes, its child stays."""
        self.process.kill()
        self.process.wait(timeout=10)

    def end_child(self) -> None:
        if self.child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)


@pytest.fixture
def hold() -> Iterator[Callable[..., Holder]]:
    """Starts a holder (tests/contract/holder.py), with its arguments, and waits until it holds."""
    holders: list[Holder] = []

    def start(*arguments: object) -> Holder:
        command = [sys.executable, "-m", "tests.contract.holder", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        device, child = process.stdout.readline().split()
        process.stdout.close()
        holders.append(Holder(process=process, device=device, child=int(child)))
        return holders[-1]

    yield start
    for holder in holders:
        holder.end_child()
        holder.die()


@pytest.fixture(scope="session")
def virtualbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A real VirtualBox; imported late, as nothing else here needs SOAP."""
    from tests.contract.virtualbox_rig import started

    yield from started(tmp_path_factory)


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """A filesystem mounted on the folder: `arguments` are mount's."""
    folder.mkdir()
    subprocess.run(["mount", *arguments, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def xfs(folder: Path) -> Iterator[Path]:
    """An XFS, whose files can share extents."""
    image = folder / "xfs.img"
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    try:
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    except FileNotFoundError:
        leave_out("needs mkfs.xfs (Debian: xfsprogs)")
    with mounted(folder / "xfs", "-o", "loop", str(image)) as mount:
        yield mount


@pytest.fixture(scope="session")
def powerflex_gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Gateway]]:
    """Simulated PowerFlex arrays of both generations, by the versions of their gateways."""
    from tests.peers.powerflex_gateway import serving

    folder = tmp_path_factory.mktemp("powerflex")
    with serving(folder, "3.6") as older, serving(folder, "4.5") as newer:
        yield {"3.6": older, "4.5": newer}


@pytest.fixture(scope="session")
def compute_engine() -> Iterator[ComputeEngine]:
    """A Compute Engine on loopback; each test makes a project of its own on it."""
    from tests.peers.gce.server import serving

    with serving() as peer:
        yield peer
        assert peer.violations == [], "an answer was not as the discovery document says"


@pytest.fixture(scope="session")
def powermax(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unisphere]:
    """A simulated PowerMax array behind its Unisphere."""
    from tests.peers.powermax_wire import serving

    with serving(tmp_path_factory.mktemp("powermax")) as front:
        yield front


@pytest.fixture(scope="session")
def xtremio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XmsServer]:
    """Cinder's XMS in memory, behind TLS."""
    from tests.peers.xtremio import XmsServer

    server = XmsServer(tmp_path_factory.mktemp("xms")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def powerscale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneFs]:
    """A simulated PowerScale cluster behind its OneFS."""
    from tests.peers.powerscale_wire import serving

    with serving(tmp_path_factory.mktemp("powerscale")) as front:
        yield front


@pytest.fixture(scope="session")
def cinder() -> Iterator[Cloud]:
    """A real OpenStack for the session, with two servers running; openstacksdk is read only where it is used."""
    from tests.contract.cinder_cloud import Cloud
    from tests.peers.openstack_services import OpenStack

    if os.geteuid() != 0:
        leave_out("needs root, for the bind mount that stands for OpenStack's NFS share")
    try:
        openstack = OpenStack(on_start=belongs_to_the_session)
    except Missing as missing:
        leave_out(f"needs {missing}")
    try:
        with Cloud(openstack.start()) as cloud:
            yield cloud
    finally:
        openstack.stop()
