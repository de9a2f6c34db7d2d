"""The VirtualBox platform keeps the contract on a real VirtualBox, through its web service and its command line."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.faulting import Fault, Faults
from storage.platforms.virtualbox import VirtualBoxPlatform
from storage.platforms.virtualbox.layout import PART
from tests.contract.virtualbox_rig import NODES, Rig
from tests.contract.virtualbox_rig import rig as rig  # a fixture
from tests.contract.virtualbox_runs import Runs
from tests.contract.virtualbox_wire import Endings
from tests.peers.virtualbox import PASSWORD

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("virtualbox")]


class Rules(PlatformContract):
    nodes = NODES
    other_parameters = ({"format": "vmdk", "variant": "fixed"},)
    wrong_parameters = ({"format": "qcow2"}, {"variant": "thin"})
    secrets = (PASSWORD,)
    via: ClassVar[str]
    rig: Rig

    def rooted(self, rig: Rig, request: pytest.FixtureRequest) -> Iterator[Path]:
        self.rig = rig
        with rig.folder() as root, contextlib.ExitStack() as awake:
            if "stopped_node" in request.node.name:  # nothing can be started here; a VM that sleeps is not stopped either
                for node in NODES:
                    awake.enter_context(rig.saved(node))
            yield root

    def stopping(self, storage: Path) -> AbstractContextManager[object]:
        return self._stopped()

    @contextlib.contextmanager
    def _stopped(self) -> Iterator[None]:
        self.rig.discard(NODES[1])
        yield
        self.rig.adopt(NODES[1])

    def make(self, storage: Path) -> Platform:
        return self.rig.build(storage, self.via)

    def things(self, storage: Path, platform: Platform) -> list[str]:
        """Files and records. Parts of what a dead process was making are swept after a day, and locks stay."""
        passing = (PART, "polly-lock", "polly.lock")
        files = [str(path) for path in storage.rglob("*") if path.is_file() and not path.name.startswith(passing)]
        return files + self.rig.records()

    def write(self, storage: Path, attachment: Attachment, data: bytes) -> None:
        self._data(attachment, data)

    def read(self, storage: Path, attachment: Attachment, length: int) -> bytes:
        return self._data(attachment, None)[:length]

    def _data(self, attachment: Attachment, data: bytes | None) -> bytes:
        """VirtualBox itself writes and reads a medium's content."""
        soap, box = self.rig.soap, self.rig.log_on()
        medium = soap.IVirtualBox_openMedium(box, attachment.external_id, "HardDisk", "ReadWrite", False)
        opened = soap.IMedium_openForIO(medium, data is not None, "")
        try:
            if data is not None:
                soap.IMediumIO_write(opened, 1 << 20, base64.b64encode(data.ljust(512, b"\0")).decode())
                return data
            return base64.b64decode(soap.IMediumIO_read(opened, 1 << 20, 512))
        finally:
            soap.IMediumIO_close(opened)
            soap.IWebsessionManager_logoff(box)


class TestWebService(Rules):
    many = 20
    via = "soap"
    midway: tuple[Fault, ...]
    """A copy is made by the same calls as a new volume, which tries them all."""
    bound_s: float
    """How long a lock is waited for: not long with faults, as the web service never frees a VM whose locker died."""

    @pytest.fixture
    def storage(self, rig: Rig, request: pytest.FixtureRequest) -> Iterator[Path]:
        name = request.node.name
        self.bound_s = 0.2 if "every_call" in name else 30.0
        edits, copies = name.startswith(("test_attach_with", "test_detach_with")), name.startswith(("test_copy_with", "test_clone_with"))
        self.midway = () if edits else (Fault.DIED, Fault.EXPIRED) if copies else (Fault.DIED,)
        yield from self.rooted(rig, request)
        if edits:
            rig.free_vms()

    def make(self, storage: Path) -> Platform:
        options, host = self.rig.soap_host(storage, bound_s=self.bound_s, url=self.rig.wire.url)
        return VirtualBoxPlatform("vbox", options, host=host)

    def faults(self, storage: Path) -> Faults:
        self.rig.wire.at_call = Endings(self.rig.wire, self.rig.log_off, midway=self.midway)
        return self.rig.wire.at_call


@pytest.mark.xdist_group("virtualbox-cli")
class TestCommandLine(Rules):
    """Of a VirtualBox of its own where tests run in parallel: nothing of it waits for the web service's."""

    many = 10
    via = "vboxmanage"

    runs: Runs

    @pytest.fixture
    def storage(self, rig: Rig, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
        self.runs = Runs(tmp_path, rig.box.program, looks=request.node.name.startswith("test_looks"))
        yield from self.rooted(rig, request)
        self.runs.stop()

    def make(self, storage: Path) -> Platform:
        return self.rig.build(storage, self.via, vboxmanage=str(self.runs.program))

    def faults(self, storage: Path) -> Faults:
        return self.runs
