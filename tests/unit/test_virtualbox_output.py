"""What VBoxManage writes, as the VirtualBox platform reads it, and a VirtualBox in states that a real one cannot be brought to here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from storage.platforms.base import Room
from storage.platforms.virtualbox import output
from storage.platforms.virtualbox.failures import NOT_FOUND, Fault, Unreachable
from storage.platforms.virtualbox.host import Controller, Disk, Known, Medium, Plug, Vm
from storage.platforms.virtualbox.layout import Layout
from storage.platforms.virtualbox.manage import ManageHost
from storage.platforms.virtualbox.media import Media
from storage.platforms.virtualbox.nodes import Nodes
from storage.platforms.virtualbox.options import VirtualBoxOptions
from storage.platforms.virtualbox.pools import Pools

UUID = "6a72b37b-0d9f-4c5e-8a11-0e5e5db9ba90"

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


class Leaving(ManageHost):
    """A VirtualBox whose VMs go while it is asked for its media."""

    def __init__(self) -> None:
        self._sizes = {}

    def _run(self, *arguments: str, endless: bool = False) -> str:
        if arguments[0] == "list":
            return MEDIA
        raise Fault(NOT_FOUND, "Could not find a registered machine")


def test_a_vm_that_goes_while_media_are_listed_has_none() -> None:
    used = "257fe257-c620-44cb-8826-dc97a98f5a48"
    assert Leaving().look([used, UUID])[used].machines == ("91c65a61-1d32-4214-82fb-3838f770f31c", "52528f61-b668-49c1-b340-7b0c095c20c2")


class Disks(ManageHost):
    """Pools a and b on one disk with others' 100 MiB, and c on another."""

    def __init__(self) -> None:
        self._free_mib = 771
        files = {"a/polly-volume-1.vdi": 40, "b/polly-volume-2.vdi": 60, "b/polly-snapshot-x.vdi": 30}
        self._media = {
            str(number): Medium(uuid=str(number), location=f"/srv/{file}", size_mib=80, on_disk_mib=mib, kind="")
            for number, (file, mib) in enumerate(files.items())
        }

    def has_folder(self, folder: str) -> bool:
        return True

    def disk(self, folder: str) -> Disk:
        """Others write at every moment."""
        self._free_mib -= 1
        return Disk(name="two" if folder == "/srv/c" else "one", size_mib=1000, free_mib=self._free_mib)

    def media(self) -> Sequence[Known]:
        return [Known(uuid=medium.uuid, location=medium.location) for medium in self._media.values()]

    def look(self, uuids: Iterable[str]) -> Mapping[str, Medium]:
        return {uuid: self._media[uuid] for uuid in uuids}


def test_of_a_disk_that_pools_share_their_volumes_are_nobody_elses() -> None:
    options = VirtualBoxOptions(root="/srv", pools=("a", "b", "c"), via="vboxmanage")
    a, b, c = Pools(Media("vbox", Disks(), Layout("/srv", options.pools)), options).reports()
    assert a.room == b.room == Room(name="one", capacity_mib=1000, foreign_mib=130), "their snapshots and others' files"
    assert (a.foreign_mib, c.room, c.foreign_mib) == (130, None, 232)


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
