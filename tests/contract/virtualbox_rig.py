"""A real VirtualBox as the tests of its platform use it: started once, with two VMs, a web service and a wire to it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zeep

from storage.model import ExternalId
from storage.platforms.base import CreateRequest, Platform
from storage.platforms.options import read_options
from storage.platforms.registry import build
from storage.platforms.virtualbox.layout import RECORDS, Layout
from storage.platforms.virtualbox.manage import ManageHost
from storage.platforms.virtualbox.options import VirtualBoxOptions
from storage.platforms.virtualbox.patience import Patience
from storage.platforms.virtualbox.soap import SoapHost
from storage.platforms.virtualbox.ways import OneWay
from storage.platforms.virtualbox.websession import WebSession
from tests.contract.virtualbox_wire import Wire
from tests.peers import virtualbox as peer
from tests.peers.virtualbox import PASSWORD, USER, VirtualBox
from tests.support import eventually

NODES = ("node-a", "node-b")
CAPACITY_MIB = 4096
TOKEN = "token"
WAYS = ("soap", "vboxmanage")


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
        way = OneWay(str(root), "vboxmanage")
        return ManageHost(str(self.box.program), str(root), timeout_s=60, patience=Patience(bound_s=5), way=way)

    @property
    def soap(self) -> Any:
        """The bare web service; its calls are VirtualBox's own."""
        if self._service is None:
            self._service = zeep.Client(f"{self.box.url}?wsdl").create_service("{http://www.virtualbox.org/}vboxBinding", self.box.url)
        return self._service

    def log_on(self) -> str:
        return str(self.soap.IWebsessionManager_logon(USER, PASSWORD))

    def log_off(self, box: str) -> None:
        with contextlib.suppress(zeep.exceptions.Fault):  # the session has ended
            self.soap.IWebsessionManager_logoff(box)

    def settings(self, root: Path, via: str, **more: str) -> dict[str, str]:
        ways = {
            "soap": {"url": self.box.url, "username": USER, "password_file": str(self.password_file)},
            "vboxmanage": {"via": "vboxmanage", "vboxmanage": str(self.box.program)},
        }
        return {"root": str(root), "capacity_mib": str(CAPACITY_MIB), **ways[via], **more}

    def build(self, root: Path, via: str, **more: str) -> Platform:
        return build("vbox", "virtualbox", self.settings(root, via, **more))

    def soap_host(self, root: Path, *, bound_s: float, **more: str) -> tuple[VirtualBoxOptions, SoapHost]:
        """With less patience than settings can ask for."""
        options = read_options(VirtualBoxOptions, "vbox", self.settings(root, "soap", **more))
        places, way = Layout(options.root, options.pools), OneWay(str(root), "soap")
        patience = Patience(bound_s=bound_s)
        return options, SoapHost(WebSession(options), lock_file=places.lock(), is_kept=places.is_kept, patience=patience, way=way)

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
        _, host = self.soap_host(root, bound_s=5)
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

    def records(self) -> list[str]:
        """The keys of Polly's records among VirtualBox's global extra data."""
        box = self.log_on()
        keys: list[str] = self.soap.IVirtualBox_getExtraDataKeys(box)
        self.log_off(box)
        return [key for key in keys if key.startswith(RECORDS)]

    def locked_vms(self) -> list[str]:
        box = self.log_on()
        states = {node: self.soap.IMachine_getSessionState(self.soap.IVirtualBox_findMachine(box, node)) for node in NODES}
        self.log_off(box)
        return [node for node, state in states.items() if state != "Unlocked"]

    def free_vms(self) -> None:
        """From the locks of web sessions that have ended, which the service keeps."""
        self.box.stop_serving()
        self.box.serve()
        eventually(lambda: not self.locked_vms(), 10, "VirtualBox frees the dead service's locks")

    @contextlib.contextmanager
    def saved(self, node: str) -> Iterator[None]:
        """The VM is not stopped: its memory is in a file, and it would go on from there."""
        self.adopt(node)
        try:
            yield
        finally:
            self.discard(node)

    def adopt(self, node: str) -> None:
        state = self.box.work / f"{node}.sav"
        state.write_bytes(b"not read before the VM is started")
        self.box.manage("adoptstate", node, str(state))

    def discard(self, node: str) -> None:
        if 'VMState="saved"' in self.box.manage("showvminfo", node, "--machinereadable"):
            self.box.manage("discardstate", node)


def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
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
        (work / "password").touch(0o600)
        (work / "password").write_text(f"{PASSWORD}\n")
        yield Rig(box=box, wire=wire.start(), password_file=work / "password")
    finally:
        wire.stop()
        box.stop()


@pytest.fixture
def rig(virtualbox: Rig) -> Rig:
    return virtualbox


@pytest.fixture
def root(rig: Rig) -> Iterator[Path]:
    with rig.folder() as folder:
        yield folder


@pytest.fixture(params=WAYS)
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def platform(rig: Rig, root: Path, via: str) -> Iterator[Platform]:
    made = rig.build(root, via)
    yield made
    made.close()


@pytest.fixture
def web(rig: Rig, root: Path) -> Iterator[Platform]:
    made = rig.build(root, "soap", lock_wait_s="1")
    yield made
    made.close()


def request(token: str = TOKEN, **more: object) -> CreateRequest:
    return CreateRequest(**({"pool": "default", "size_mib": 4, "token": token, "name": token} | more))  # type: ignore[arg-type] # any field


def created(platform: Platform, token: str = TOKEN, **parameters: str) -> ExternalId:
    return platform.create(request(token, parameters=parameters)).external_id


@contextlib.contextmanager
def another_vm(rig: Rig, name: str, *, ports: int) -> Iterator[str]:
    uuid = rig.box.machine(name, ports=ports)
    try:
        yield uuid
    finally:
        if name in rig.box.manage("list", "vms"):
            rig.box.manage("unregistervm", name, "--delete")
