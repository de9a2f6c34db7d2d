"""PowerFlex on a node: who it is, devices that only their driver can name, and what is done before and after they are there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage.errors import DeviceNotFound, NodeError, WrongDevice
from storage.model import ExternalId
from storage.node import devices, disks, identities
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.pace import Pace
from storage.node.scini import DRV_CFG, Sdc
from storage.node.steps import Machine
from storage.node.transports import transport_of
from storage.platforms.base import Attachment

GUID = "028888FA-502A-4FAC-A888-1FA3B256358C"
SYSTEM = "14dbbf5617523654"
SERIAL = f"{SYSTEM}-254a2b3c00000001"
OTHER = f"{SYSTEM}-254a2b3c00000002"


@dataclass
class Tool:
    """drv_cfg on a node with these devices."""

    root: Path
    volumes: dict[str, str] = field(default_factory=dict)
    guid: str = GUID
    appears: dict[str, str] = field(default_factory=dict)
    """Devices that a rescan brings."""
    asked: list[Sequence[str]] = field(default_factory=list)

    @property
    def roots(self) -> Roots:
        return Roots(dev=self.root / "dev", sys=self.root / "sys", is_block=Path.is_file, sdc=Sdc(run=self))

    def __call__(
        self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False
    ) -> Output:
        assert command[0] == DRV_CFG
        assert not paths, "drv_cfg knows no --"
        self.asked.append(tuple(command[1:]))
        return Output(code=0, out=self.answer(command[1], command[-1]), err="")

    def answer(self, question: str, last: str) -> str:
        if question == "--query_guid":
            return f"{self.guid}\n"
        if question == "--rescan":
            for name, serial in self.appears.items():
                self.add(name, serial)
            return "Calling kernel module to refresh MDM configuration information\nSuccessfully completed the rescan operation\n"
        return f"{self.volumes[Path(last).name]}\n"

    def add(self, name: str, serial: str) -> None:
        (self.roots.dev / name).touch()
        (self.roots.sys / "block" / name).mkdir(parents=True, exist_ok=True)
        self.volumes[name] = serial


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    (tmp_path / "dev" / "disk" / "by-id").mkdir(parents=True)
    return Tool(tmp_path)


def machine(tool: Tool) -> Machine:
    return Machine(roots=tool.roots, run=tool, pace=Pace(now=lambda: 0.0, wait=lambda _: None))


def find(tool: Tool, serial: str = SERIAL, *, link: str = "") -> str:
    hint = tool.roots.dev / "disk" / "by-id" / f"emc-vol-{serial}"
    if link:
        hint.symlink_to(f"../../{link}")
    pace = Pace(now=lambda: 0.0, wait=lambda _: None)
    return Path(devices.find(serial, hint=str(hint), roots=tool.roots, pace=pace, timeout_s=0.0)).name


def attachment(tool: Tool) -> Attachment:
    device = str(tool.roots.dev / "disk" / "by-id" / f"emc-vol-{SERIAL}")
    return Attachment(external_id=ExternalId(SERIAL[17:]), device=device, serial=SERIAL, transport="scaleio")


# --- who it is ------------------------------------------------------------------------------------


def test_a_node_is_called_by_its_sdcs_guid(tool: Tool) -> None:
    tool.guid = GUID.lower()

    assert identities.identify("scaleio", machine(tool), hostname="agent-1") == GUID
    assert tool.asked == [("--query_guid",)]


def test_a_node_without_an_sdc_says_how_to_name_it(tool: Tool) -> None:
    tool.guid = "Error: the driver is not loaded"

    with pytest.raises(NodeError, match=r'node = "GUID" into /etc/polly/agent.toml') as caught:
        identities.identify("scaleio", machine(tool), hostname="agent-1")
    assert "the driver is not loaded" in str(caught.value)


def test_a_node_where_nothing_is_installed_says_so() -> None:
    with pytest.raises(NodeError, match="this program is not installed; install and start the SDC here"):
        identities.identify("scaleio", Machine(), hostname="agent-1")


# --- its devices ------------------------------------------------------------------------------------


def test_a_device_is_the_volume_that_its_driver_says(tool: Tool) -> None:
    tool.add("scinia", OTHER)
    tool.add("scinib", SERIAL.upper())

    assert find(tool) == "scinib"
    assert find(tool, OTHER) == "scinia"


def test_a_link_is_asked_about_first(tool: Tool) -> None:
    for number in range(9):
        tool.add(f"scini{'abcdefghi'[number]}", f"{SYSTEM}-{number:016x}")
    tool.add("scinij", SERIAL)

    assert find(tool, link="scinij") == "scinij"
    assert tool.asked == [("--query_block_device_id", "--block_device", str(tool.roots.dev / "scinij"))]


def test_a_stale_link_is_passed_over_for_the_right_device(tool: Tool) -> None:
    tool.add("scinia", OTHER)
    tool.add("scinib", SERIAL)

    assert find(tool, link="scinia") == "scinib"


def test_a_stale_link_alone_is_the_wrong_device(tool: Tool) -> None:
    tool.add("scinia", OTHER)

    with pytest.raises(WrongDevice, match=OTHER):
        find(tool, link="scinia")


def test_a_link_that_leads_nowhere_is_no_device(tool: Tool) -> None:
    with pytest.raises(DeviceNotFound):
        find(tool, link="scinix")


def test_a_device_of_another_system_is_another_volume(tool: Tool) -> None:
    tool.add("scinia", f"0000000000000001-{SERIAL[17:]}")

    with pytest.raises(WrongDevice):
        find(tool, link="scinia")


def test_a_driver_that_says_nothing_names_no_device(tool: Tool) -> None:
    tool.add("scinia", "")
    with pytest.raises(DeviceNotFound):
        find(tool)

    tool.volumes["scinia"] = "Failed to open /dev/scini"
    with pytest.raises(WrongDevice):
        find(tool, link="scinia")


def test_the_driver_is_not_asked_about_other_platforms_serials(tool: Tool) -> None:
    tool.add("scinia", SERIAL)

    with pytest.raises(DeviceNotFound):
        find(tool, "vol0123456789abcdef0")
    assert tool.asked == []


# --- coming, growing, going --------------------------------------------------------------------------


def test_connecting_lets_the_sdc_look(tool: Tool) -> None:
    tool.appears = {"scinia": SERIAL}
    transport = transport_of(attachment(tool))
    assert transport

    transport.connect(attachment(tool), machine(tool))

    assert tool.asked == [("--rescan",)]
    assert find(tool) == "scinia"


def test_disconnecting_flushes_the_volumes_device_and_no_other(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(devices, "flush", flushed.append)
    transport = transport_of(attachment(tool))
    assert transport
    tool.add("scinia", OTHER)

    transport.disconnect(attachment(tool), machine(tool))
    assert flushed == []

    tool.add("scinib", SERIAL)
    transport.disconnect(attachment(tool), machine(tool))
    assert [Path(device).name for device in flushed] == ["scinib"]


def test_growth_is_seen_after_a_rescan(tool: Tool) -> None:
    tool.add("scinia", SERIAL)

    disks.rescan_size(str(tool.roots.dev / "scinia"), tool.roots)

    assert tool.asked == [("--rescan",)]
