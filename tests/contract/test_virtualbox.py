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
from tests.contract.virtualbox_rig import NODES, Rig
from tests.contract.virtualbox_rig import rig as rig  # a fixture
from tests.peers.virtualbox import PASSWORD

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("virtualbox")]

LOST_AT = {
    "create": "IMedium_moveTo",
    "clone": "IMedium_moveTo",
    "attach": "IMachine_saveSettings",
    "detach": "IMachine_saveSettings",
    "delete": "IMedium_deleteStorage",
    "expand": "IMedium_resize",
    "snapshot": "IMedium_moveTo",
    "delete_snapshot": "IMedium_deleteStorage",
    "fence": "IVirtualBox_setExtraData",
    "record_birth": "IVirtualBox_setExtraData",
}
"""The call of VirtualBox that does what a verb is for: its answer is what gets lost."""


class Rules(PlatformContract):
    nodes = NODES
    other_parameters = ({"format": "vmdk", "variant": "fixed"},)
    wrong_parameters = ({"format": "qcow2"}, {"variant": "thin"})
    secrets = (PASSWORD,)
    via: ClassVar[str]
    rig: Rig

    @pytest.fixture
    def storage(self, rig: Rig, request: pytest.FixtureRequest) -> Iterator[Path]:
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

    @contextlib.contextmanager
    def losing(self, storage: Path, platform: Platform, verb: str) -> Iterator[Platform]:
        cut = self.rig.build(storage, "soap", url=self.rig.wire.url)
        with self.rig.wire.losing(LOST_AT[verb]):
            yield cut
        cut.close()

    def expiring(self, storage: Path) -> AbstractContextManager[object]:
        return self._other_password()

    @contextlib.contextmanager
    def _other_password(self) -> Iterator[None]:
        """The password was changed, and no session of the old one is left."""
        self.rig.box.set_password("another")
        self.rig.box.stop_serving()
        self.rig.box.serve()
        try:
            yield
        finally:
            self.rig.box.set_password(PASSWORD)


@pytest.mark.xdist_group("virtualbox-cli")
class TestCommandLine(Rules):
    """Of a VirtualBox of its own where tests run in parallel: nothing of it waits for the web service's."""

    many = 10
    via = "vboxmanage"
