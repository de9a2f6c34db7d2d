"""The parts of the VirtualBox platform that need no VirtualBox: options, names, serials, codes, and what VBoxManage writes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from framework.config import parse_config
from storage.errors import Invalid, NodeError, PlatformError, PlatformUnavailable, Unsupported
from storage.model import Birth
from storage.node import devices, identities
from storage.node.devices import Roots
from storage.node.pace import Pace
from storage.node.steps import Machine
from storage.platforms.base import Room
from storage.platforms.marks import Mark
from storage.platforms.registry import build
from storage.platforms.virtualbox import layout, output
from storage.platforms.virtualbox.failures import (
    FILE_ERROR,
    INVALID_STATE,
    NOT_FOUND,
    NOT_SUPPORTED,
    Fault,
    Stale,
    Unreachable,
    as_error,
    verb,
)
from storage.platforms.virtualbox.host import Controller, Disk, Known, Medium, Plug, Vm
from storage.platforms.virtualbox.layout import Layout
from storage.platforms.virtualbox.manage import ManageHost
from storage.platforms.virtualbox.media import Media
from storage.platforms.virtualbox.nodes import Nodes, spellings
from storage.platforms.virtualbox.options import VirtualBoxOptions, read_parameters
from storage.platforms.virtualbox.patience import Patience
from storage.platforms.virtualbox.pools import Pools
from storage.platforms.virtualbox.records import Record, read_record, write_record
from tests.nodes import as_shown

PAGE = (Path(__file__).parents[2] / "docs/platforms/virtualbox.md").read_text("utf-8")
UUID = "6a72b37b-0d9f-4c5e-8a11-0e5e5db9ba90"


# --- options and names ----------------------------------------------------------------------------------


def test_every_key_is_documented_and_no_other() -> None:
    table = PAGE.partition("| key |")[2].partition("\n\n")[0]
    assert {line.split("|")[1].strip(" `") for line in table.splitlines()[2:]} == {field.name for field in fields(VirtualBoxOptions)}


def test_the_documents_polly_toml_is_one() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(tomllib.loads(block))
    assert config.profiles["vm-disks"].platforms == ("vbox",)
    read_parameters(config.profiles["vm-disks"].parameters)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"root": "relative"}, "root"),
        ({"root": "/srv/../etc"}, "root"),
        ({"pools": ["a/b"]}, "pools"),
        ({"pools": ["same", "same"]}, "pools"),
        ({"capacity_mib": 0}, "capacity_mib"),
        ({"via": "ssh"}, "via"),
        ({"url": "vmhost:18083"}, "url"),
        ({"url": "http://user:secret@vmhost:18083/"}, "url"),
        ({"slots": 31}, "slots"),
        ({"capacity_mib": None}, "capacity_mib"),
        ({"username": "polly"}, "password_file"),
        ({"password_file": "/etc/polly/secret"}, "username"),
        ({"username": "polly", "password_file": "secret"}, "password_file"),
        ({"ca_file": "ca.pem"}, "ca_file"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(wrong: dict[str, object], key: str) -> None:
    given = {key: value for key, value in {"root": "/srv/polly", "capacity_mib": 100, **wrong}.items() if value is not None}
    with pytest.raises(Invalid) as refusal:
        build("vbox", "virtualbox", given)
    assert refusal.value.fields["field"] == f"platforms.vbox.{key}"


@pytest.mark.parametrize("given", [{"format": "vhd"}, {"variant": "split"}, {"type": "ssd"}])
def test_a_wrong_parameter_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=f"parameters.{next(iter(given))}"):
        read_parameters(given)


def test_settings_build_the_same_platform_again() -> None:
    first = build(
        "vbox", "virtualbox", {"root": "/srv/polly", "capacity_mib": 100, "username": "polly", "password_file": "/etc/polly/secret"}
    )
    assert build("vbox", "virtualbox", first.settings()).settings() == first.settings()


@pytest.mark.parametrize("token", ["c0ffee", "with space/and slash", "ümlaut%", "snapshot-x", "a" * 150])
def test_a_files_name_gives_its_token_back(token: str) -> None:
    places = Layout("/srv/polly", ["fast"])
    place = places.place(places.file("fast", layout.volume_stem(token), "vdi"))
    assert place is not None
    assert (place.pool, place.token, layout.is_volume(place), layout.is_snapshot(place)) == ("fast", token, True, False)


def test_a_snapshots_name_gives_its_volume_and_token_back() -> None:
    places = Layout("/srv/polly", ["fast"])
    place = places.place(places.file("fast", layout.snapshot_stem(UUID, "one-two"), "vmdk"))
    assert place is not None
    assert (place.origin, place.token, layout.is_volume(place)) == (UUID, "one-two", False)


@pytest.mark.parametrize("token", ["", "x" * 151, "ü" * 40])
def test_a_token_that_makes_no_file_name_is_refused(token: str) -> None:
    with pytest.raises(Invalid, match="token"):
        layout.volume_stem(token)


def test_only_files_in_a_pools_folder_are_in_it() -> None:
    places = Layout("/srv/polly", ["fast", "slow"])
    assert [places.place(file) is not None for file in ("/srv/polly/fast/a.vdi", "/srv/polly/a.vdi", "/srv/polly/fast/x/a.vdi")] == [
        True,
        False,
        False,
    ]
    lock = places.place(places.lock())
    assert lock is not None
    assert not layout.is_volume(lock)


def test_a_windows_host_has_its_own_paths() -> None:
    places = Layout(r"D:\polly", ["fast"])
    assert places.file("fast", "a", "vdi") == r"D:\polly\fast\a.vdi"
    place = places.place(r"D:\polly\fast\a.vdi")
    assert place is not None
    assert (place.pool, place.stem, place.suffix) == ("fast", "a", "vdi")
    assert places.place(r"d:\Polly\FAST\a.vdi") == place, "Windows does not tell them apart"


def test_a_record_is_read_as_it_was_written() -> None:
    birth = Birth(serial="VB6a72b37b-90bab95d", filesystem="ext4", filesystem_uuid=UUID)
    record = Record(name="/shop/db#0/data", labels={"team": "shop"}, mark=Mark(epoch=3, floor=2), birth=birth, made_at=1.5)
    assert read_record("vbox", "polly/x", write_record(record)) == record
    assert read_record("vbox", "polly/x", "") == Record()


@pytest.mark.parametrize("text", ["{", '{"version": 2}', '{"mark": {"epoch": "x"}}'])
def test_a_record_that_cannot_be_read_is_never_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(PlatformError, match="polly/x"):
        read_record("vbox", "polly/x", text)


# --- what a node sees ---------------------------------------------------------------------------------------


def test_the_serial_is_what_an_ahci_disk_shows() -> None:
    assert layout.serial(UUID) == "VB6a72b37b-90bab95d"


def test_a_node_finds_the_disk_by_its_serial_past_a_stale_link(tmp_path: Path) -> None:
    serial, link = layout.serial(UUID), tmp_path / "dev/disk/by-id" / f"ata-VBOX_HARDDISK_{layout.serial(UUID)}"
    for name, shown in (("sda", "VB00000000-00000000"), ("sdb", serial)):
        device = tmp_path / "sys/block" / name / "device"
        device.mkdir(parents=True)
        (device / "vpd_pg80").write_bytes(b"\0\x80\0\x14" + shown.ljust(20).encode())
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "dev/sda")
    sys = tmp_path / "sys"
    roots = Roots(dev=tmp_path / "dev", sys=sys, is_block=Path.is_file, inquire=as_shown(sys))
    assert devices.find(serial, hint=str(link), roots=roots, pace=Pace(), timeout_s=0) == str(tmp_path / "dev/sdb")


def machine(tmp_path: Path, *, product: str = "VirtualBox", uuid: str = "", macs: Sequence[str] = ()) -> Machine:
    dmi = tmp_path / "class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "product_name").write_text(f"{product}\n")
    if uuid:
        (dmi / "product_uuid").write_text(f"{uuid}\n")
    for number, mac in enumerate(macs):
        card = tmp_path / f"class/net/enp0s{number}"
        (card / "device").mkdir(parents=True)
        (card / "address").write_text(f"{mac}\n")
    (tmp_path / "class/net/lo").mkdir(parents=True)
    (tmp_path / "class/net/lo/address").write_text("00:00:00:00:00:00\n")
    return Machine(roots=Roots(sys=tmp_path))


def test_a_vm_is_known_by_its_firmwares_uuid(tmp_path: Path) -> None:
    assert identities.identify("virtualbox", machine(tmp_path, uuid=UUID.upper(), macs=["08:00:27:00:00:01"]), hostname="h") == UUID


def test_a_vm_whose_uuid_only_root_may_read_is_known_by_its_first_card(tmp_path: Path) -> None:
    here = machine(tmp_path, macs=["08:00:27:00:00:01", "08:00:27:00:00:02"])
    assert identities.identify("virtualbox", here, hostname="h") == "08:00:27:00:00:01"


@pytest.mark.parametrize(("product", "macs"), [("KVM", ["08:00:27:00:00:01"]), ("VirtualBox", [])])
def test_what_is_no_known_vm_is_told_how_to_name_it_by_hand(tmp_path: Path, product: str, macs: list[str]) -> None:
    with pytest.raises(NodeError, match=r"agent\.toml: \[platforms\.NAME\] node ="):
        identities.identify("virtualbox", machine(tmp_path, product=product, macs=macs), hostname="h")


def test_a_uuid_is_looked_for_in_both_byte_orders() -> None:
    assert spellings("7BB3726A-9F0D-5E4C-8A11-0E5E5DB9BA90") == ["7bb3726a-9f0d-5e4c-8a11-0e5e5db9ba90", UUID]
    assert (spellings("08:00:27:AB:00:01"), spellings("Node One")) == (["08:00:27:ab:00:01"], ["Node One"])


# --- codes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (INVALID_STATE, PlatformUnavailable),
        (0x80BB0010, PlatformUnavailable),
        (NOT_SUPPORTED, Unsupported),
        (NOT_FOUND, PlatformError),
        (0x80004005, PlatformError),
        (0x80BBFFFF, PlatformError),
    ],
)
def test_a_code_becomes_a_named_error_and_is_kept(code: int, kind: type[PlatformError]) -> None:
    error = as_error(Fault(code - (1 << 32), f"it is so\nand so (0x{code:08x})"), "vbox", "attach a volume")
    assert type(error) is kind
    assert f"0x{code:08x}: it is so and so" in str(error)
    assert "VBOX_E_FILE_ERROR 0x80bb0004: x" in str(as_error(Fault(FILE_ERROR, "x"), "vbox", "x"))


class Verbs:
    name = "vbox"

    def __init__(self, *outcomes: Exception) -> None:
        self.outcomes = list(outcomes)

    @verb("do it")
    def run(self) -> str:
        if self.outcomes:
            raise self.outcomes.pop(0)
        return "done"


def test_a_verb_whose_session_ended_is_begun_again_once() -> None:
    assert Verbs(Stale("ended")).run() == "done"
    with pytest.raises(PlatformUnavailable, match="ended again"):
        Verbs(Stale("ended"), Stale("ended again")).run()
    silent = Verbs(Unreachable("no answer"), Unreachable("not asked"))
    with pytest.raises(PlatformUnavailable, match="no answer"):
        silent.run()
    assert len(silent.outcomes) == 1, "what may have been done was done again unasked"


def test_a_lock_is_waited_for_within_its_bound() -> None:
    at = [0.0]

    def taken_until(free_at: float) -> str:
        if at[0] < free_at:
            raise Fault(INVALID_STATE, "locked")
        return "taken"

    def wait(seconds: float) -> None:
        at[0] += seconds

    patience = Patience(bound_s=2, now=lambda: at[0], wait=wait, chance=lambda: 0.5)
    assert patience.until_free(lambda: taken_until(1.0)) == "taken"
    with pytest.raises(Fault, match="locked"):
        patience.until_free(lambda: taken_until(10.0))
    assert at[0] == pytest.approx(3.0, abs=0.1)


# --- what VBoxManage writes -------------------------------------------------------------------------------------

MEDIA = """\
UUID:           f8d05aba-ffd2-4793-a3ac-d5d6744c3470
Parent UUID:    base
State:          inaccessible
Access Error:   Could not open the medium '/srv/polly/default/lost.vmdk'.
VD: error VERR_FILE_NOT_FOUND opening image file '/srv/polly/default/lost.vmdk' (VERR_FILE_NOT_FOUND)
Type:           normal (base)
Location:       /srv/polly/default/lost.vmdk
Capacity:       64 MBytes
Size on disk:   0 MBytes

UUID:           257fe257-c620-44cb-8826-dc97a98f5a48
Parent UUID:    base
State:          locked write
Description:    for the shop
Type:           writethrough (base)
Location:       /srv/polly/default/a b.vdi
Capacity:       2 GBytes
Size on disk:   2 MBytes
Property:       AllocationBlockSize=1048576
In use by VMs:  node 1 (UUID: 52528f61-b668-49c1-b340-7b0c095c20c2) [before (UUID: 11111111-2222-4333-8444-555555555555)]
                node2 (UUID: 91c65a61-1d32-4214-82fb-3838f770f31c)

UUID:           8f7ccc4b-f34a-4214-873c-8881adc2dc02
Parent UUID:    257fe257-c620-44cb-8826-dc97a98f5a48
State:          created
Type:           normal (differencing)
Location:       /srv/vms/Snapshots/{8f7ccc4b}.vdi
Capacity:       64 MBytes
In use by VMs:  node 1 (UUID: 52528f61-b668-49c1-b340-7b0c095c20c2)
"""


def test_a_list_of_media_is_read() -> None:
    lost, used = (listed.medium for listed in output.media(MEDIA))
    assert "VERR_FILE_NOT_FOUND" in lost.fault
    assert lost.location == "/srv/polly/default/lost.vmdk"
    assert (used.location, used.size_mib, used.on_disk_mib, used.kind, used.fault) == (
        "/srv/polly/default/a b.vdi",
        2048,
        2,
        "writethrough",
        "",
    )
    heir = "8f7ccc4b-f34a-4214-873c-8881adc2dc02"
    assert [[(user.vm, user.medium, user.is_sure) for user in listed.users] for listed in output.media(MEDIA)] == [
        [],
        [
            ("52528f61-b668-49c1-b340-7b0c095c20c2", used.uuid, False),
            ("91c65a61-1d32-4214-82fb-3838f770f31c", used.uuid, True),
            ("52528f61-b668-49c1-b340-7b0c095c20c2", heir, True),
        ],
    ]


VM = """\
name="node 1"
UUID="52528f61-b668-49c1-b340-7b0c095c20c2"
hardwareuuid="6a72b37b-0d9f-4c5e-8a11-0e5e5db9ba90"
VMState="aborted-saved"
storagecontrollername0="IDE"
storagecontrollertype0="PIIX4"
storagecontrollerportcount0="2"
storagecontrollername1="SATA-1"
storagecontrollertype1="IntelAhci"
storagecontrollerportcount1="4"
"SATA-1-0-0"="/srv/vms/root.vdi"
"SATA-1-ImageUUID-0-0"="11111111-2222-4333-8444-555555555555"
"SATA-1-1-0"="none"
"SATA-1-3-0"="/srv/polly/default/a.vdi"
"SATA-1-ImageUUID-3-0"="257fe257-c620-44cb-8826-dc97a98f5a48"
macaddress1="080027CDD93D"
"""


def test_a_vms_settings_are_read() -> None:
    said = output.settings(VM)
    vm, (ide, sata) = output.vm(said), output.controllers(said)
    assert (vm.name, vm.state, vm.runs) == ("node 1", "abortedsaved", False)
    media = frozenset({"11111111-2222-4333-8444-555555555555", "257fe257-c620-44cb-8826-dc97a98f5a48"})
    assert (ide.bus, sata) == ("ide", Controller(name="SATA-1", bus="sata", ports=4, taken=frozenset({0, 3}), media=media))
    assert sata.free_port() == 2
    assert output.plug_of(said, "257fe257-c620-44cb-8826-dc97a98f5a48") == Plug(controller="SATA-1", port=3)
    assert output.plug_of(said, UUID) is None
    assert output.hardware(said, cards=False) == {UUID}
    assert output.hardware(said, cards=True) == {"080027cdd93d"}


def test_what_people_write_of_a_vm_is_not_taken_for_its_settings() -> None:
    """VBoxManage escapes quotes and backslashes, and leaves the ends of lines as they are."""
    running = VM.replace("aborted-saved", "running").replace('"node 1"', '"\nVMState=\\"poweroff\\"\nnode \\\\"')
    said = output.settings(running + 'description="It ran:\nVMState=poweroff\n\\"SATA-1-3-0\\"=none\n"\nGuestMemoryBalloon=0\n')
    assert (output.vm(said).state, output.vm(said).name) == ("running", '\nVMState="poweroff"\nnode \\')
    assert output.controllers(said)[1].taken == {0, 3}
    assert said["GuestMemoryBalloon"] == "0"


def test_what_people_write_of_a_medium_is_not_taken_for_its_place() -> None:
    text = MEDIA.replace(
        "for the shop", "UUID: that of the old disk\nUUID: old\nLocation:       /srv/polly/default/b.vdi\nState:          created"
    )
    assert [listed.medium.location for listed in output.media(text)] == ["/srv/polly/default/lost.vmdk", "/srv/polly/default/a b.vdi"]


def test_a_vm_that_was_teleported_away_is_not_stopped() -> None:
    """It runs on, elsewhere."""
    assert Nodes("vbox", OneVm("teleported")).stopped("node1") is None
    assert Nodes("vbox", OneVm("aborted")).stopped("node1")


class OneVm(ManageHost):
    """A VirtualBox with a VM in the state of its choice, which none without a kernel module can be brought to."""

    def __init__(self, state: str) -> None:
        self._vm = Vm(uuid=UUID, name="node1", state=state)

    def find_vm(self, name_or_uuid: str) -> Vm | None:
        return self._vm if name_or_uuid == self._vm.name else None


class Disks(ManageHost):
    """Pools a and b on one disk with others' 100 MiB, and c on another."""

    def __init__(self) -> None:
        files = {"a/polly-volume-1.vdi": 40, "b/polly-volume-2.vdi": 60, "b/polly-snapshot-x.vdi": 30}
        self._media = {
            str(number): Medium(uuid=str(number), location=f"/srv/{file}", size_mib=80, on_disk_mib=mib, kind="")
            for number, (file, mib) in enumerate(files.items())
        }

    def has_folder(self, folder: str) -> bool:
        return True

    def disk(self, folder: str) -> Disk:
        return Disk(name="two" if folder == "/srv/c" else "one", size_mib=1000, free_mib=770)

    def media(self) -> Sequence[Known]:
        return [Known(uuid=medium.uuid, location=medium.location) for medium in self._media.values()]

    def look(self, uuids: Iterable[str]) -> Mapping[str, Medium]:
        return {uuid: self._media[uuid] for uuid in uuids}


def test_of_a_disk_that_pools_share_their_volumes_are_nobody_elses() -> None:
    options = VirtualBoxOptions(root="/srv", pools=("a", "b", "c"), via="vboxmanage")
    a, b, c = Pools(Media("vbox", Disks(), Layout("/srv", options.pools)), options).reports()
    assert a.room == b.room == Room(name="one", capacity_mib=1000, foreign_mib=130), "their snapshots and others' files"
    assert (a.foreign_mib, c.room, c.foreign_mib) == (130, None, 230)


def test_a_full_controller_has_no_port() -> None:
    assert Controller(name="SATA", bus="sata", ports=2, taken=frozenset({0, 1})).free_port() is None


def test_extra_data_are_read() -> None:
    assert (output.value('Value: {"epoch":1}\n'), output.value("No value set!\n")) == ('{"epoch":1}', "")
    assert output.values("Key: polly-way/srv/my disks/soap, Value: soap\n") == {"polly-way/srv/my disks/soap": "soap"}
    assert output.values('Key: polly/a%40b, Value: {"name":"x, Value: y"}\nKey: GUI/Other, Value: 1\n') == {
        "polly/a%40b": '{"name":"x, Value: y"}',
        "GUI/Other": "1",
    }


REFUSED = """\
0%...10%...
VBoxManage: error: Could not find a registered machine named 'zzz'
VBoxManage: error: Details: code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap, interface IVirtualBox
VBoxManage: error: Context: "FindMachine(...)" at line 3248 of file VBoxManageInfo.cpp
"""


def test_a_refusal_keeps_virtualboxs_code_and_words() -> None:
    refused = output.refusal(REFUSED)
    assert isinstance(refused, Fault)
    assert refused.words == "VBOX_E_OBJECT_NOT_FOUND 0x80bb0001: Could not find a registered machine named 'zzz'"
    aborted = output.refusal("VBoxManage: error: Code NS_ERROR_ABORT (0x80004004) - Operation aborted\n")
    assert isinstance(aborted, Fault)
    assert aborted.code == 0x80004004
    assert "Unknown option" in str(output.refusal("VBoxManage: error: Unknown option: --x\n"))
    assert isinstance(output.refusal("VBoxManage: error: Failed to create the VirtualBox object!\n"), Unreachable)
