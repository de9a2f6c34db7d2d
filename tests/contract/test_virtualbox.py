"""The VirtualBox platform keeps the contract on a real VirtualBox, through its web service and its command line."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import zeep

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.options import read_options
from storage.platforms.registry import build
from storage.platforms.virtualbox.manage import ManageHost
from storage.platforms.virtualbox.options import VirtualBoxOptions
from storage.platforms.virtualbox.patience import Patience
from storage.platforms.virtualbox.soap import SoapHost
from storage.platforms.virtualbox.websession import WebSession
from tests.contract.virtualbox_wire import Wire
from tests.peers import virtualbox as peer
from tests.peers.virtualbox import PASSWORD, USER, VirtualBox

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("virtualbox")]

NODES = ("node-a", "node-b")
CAPACITY_MIB = 4096
LOST_AT = {
    "create": "IMedium_moveTo",
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


@dataclass(kw_only=True)
class Rig:
    """A VirtualBox with its web service, a wire to it, and a client of our own."""

    box: VirtualBox
    wire: Wire
    password_file: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)
    _service: Any = None

    @property
    def host(self) -> ManageHost:
        return self.host_of(self.box.disks)

    def host_of(self, root: Path) -> ManageHost:
        return ManageHost(str(self.box.program), str(root), timeout_s=60, patience=Patience(bound_s=5))

    @property
    def soap(self) -> Any:
        """The bare web service; its calls are VirtualBox's own."""
        if self._service is None:
            self._service = zeep.Client(f"{self.box.url}?wsdl").create_service("{http://www.virtualbox.org/}vboxBinding", self.box.url)
        return self._service

    def log_on(self) -> str:
        return str(self.soap.IWebsessionManager_logon(USER, PASSWORD))

    def settings(self, root: Path, via: str, **more: str) -> dict[str, str]:
        ways = {
            "soap": {"url": self.box.url, "username": USER, "password_file": str(self.password_file)},
            "vboxmanage": {"via": "vboxmanage", "vboxmanage": str(self.box.program)},
        }
        return {"root": str(root), "capacity_mib": str(CAPACITY_MIB), **ways[via], **more}

    def build(self, root: Path, via: str, **more: str) -> Platform:
        return build("vbox", "virtualbox", self.settings(root, via, **more))

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A root with an empty pool; its media and their attachments are gone afterwards."""
        root = self.box.disks / f"root{next(self.numbers)}"
        (root / "default").mkdir(parents=True)
        try:
            yield root
        finally:
            self.tidy(root)

    def tidy(self, root: Path) -> None:
        options = read_options(VirtualBoxOptions, "vbox", self.settings(root, "soap"))
        host = SoapHost(WebSession(options), lock_file=str(root / "lock.vdi"), patience=Patience(bound_s=5))
        media = [known.uuid for known in host.media() if known.location.startswith(f"{root}/")]
        for medium in host.look(media).values():
            for machine in medium.machines:
                vm = host.find_vm(machine)
                assert vm is not None
                with host.edit(vm) as editing:
                    if plug := editing.plug_of(medium.uuid):
                        editing.unplug(medium.uuid, plug)
            host.delete(medium.uuid)
        for key in host.record_keys():
            if key.startswith("polly/"):
                host.write_record(key, "")
        host.close()

    @contextlib.contextmanager
    def saved(self, node: str) -> Iterator[None]:
        """The VM is not stopped: its memory is in a file, and it would go on from there."""
        state = self.box.work / f"{node}.sav"
        state.write_bytes(b"not read before the VM is started")
        self.box.manage("adoptstate", node, str(state))
        try:
            yield
        finally:
            self.discard(node)

    def discard(self, node: str) -> None:
        if 'VMState="saved"' in self.box.manage("showvminfo", node, "--machinereadable"):
            self.box.manage("discardstate", node)


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    work = tmp_path_factory.mktemp("virtualbox")
    try:
        box = VirtualBox(work)
    except peer.Unavailable as error:
        if peer.left_out():
            pytest.skip(f"no VirtualBox, as told: {error}")
        raise
    wire = Wire(box.port)
    try:
        box.start()
        for node in NODES:
            box.machine(node)
        box.serve()
        (work / "password").write_text(f"{PASSWORD}\n")
        yield Rig(box=box, wire=wire.start(), password_file=work / "password")
    finally:
        wire.stop()
        box.stop()


class Rules(PlatformContract):
    nodes = NODES
    secrets = (PASSWORD,)
    via: ClassVar[str]
    rig: Rig

    @pytest.fixture
    def storage(self, rig: Rig) -> Iterator[Path]:
        self.rig = rig
        with rig.folder() as root:
            yield root

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
