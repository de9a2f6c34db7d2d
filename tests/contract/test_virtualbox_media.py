"""VMs, controllers, media and folders of a real VirtualBox as the platform finds them, and what polly doctor says of them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from storage.errors import (
    Invalid,
    NoSlot,
    PlatformError,
    PlatformUnavailable,
    PoolFull,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
from storage.platforms.base import Platform, Room
from storage.platforms.registry import build
from storage.platforms.virtualbox import VirtualBoxPlatform, layout
from tests.contract.virtualbox_rig import NODES, WAYS, Rig, another_vm, created, request
from tests.contract.virtualbox_rig import platform as platform  # fixtures
from tests.contract.virtualbox_rig import rig as rig
from tests.contract.virtualbox_rig import root as root
from tests.contract.virtualbox_rig import via as via
from tests.peers import certificates
from tests.peers.virtualbox import PASSWORD, USER
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("virtualbox")]


# --- VMs and their controllers ---------------------------------------------------------------------------------------------


def test_a_controller_without_a_free_port_is_no_slot(rig: Rig, root: Path, platform: Platform) -> None:
    with another_vm(rig, "small", ports=1):
        first, second = created(platform, "one"), created(platform, "two")
        assert platform.node_slots("small") == 1
        platform.attach(first, "small", epoch=1)
        assert platform.node_slots("small") == 1
        with pytest.raises(NoSlot, match="small has all 1"):
            platform.attach(second, "small", epoch=1)
        assert platform.inspect(second).epoch == 0
        platform.detach(first, "small")
        platform.attach(second, "small", epoch=1)
        platform.detach(second, "small")


def test_ports_that_hold_something_else_are_no_slots(rig: Rig, root: Path, platform: Platform) -> None:
    with another_vm(rig, "small", ports=3):
        disk = root / "foreign.vdi"
        rig.box.manage("createmedium", "disk", "--filename", str(disk), "--size", "8")
        rig.box.manage("storageattach", "small", "--storagectl", "SATA", "--port", "0", "--type", "hdd", "--medium", str(disk))
        assert platform.node_slots("small") == 2
        platform.attach(created(platform), "small", epoch=1)
        assert platform.node_slots("small") == 2
        rig.box.manage("storageattach", "small", "--storagectl", "SATA", "--port", "0", "--type", "hdd", "--medium", "none")
        rig.box.manage("closemedium", "disk", str(disk), "--delete")
        assert platform.node_slots("small") == 3
    assert platform.node_slots("no-such-vm") is None


def test_a_vm_without_the_controller_is_told_how_to_get_one(rig: Rig, root: Path, via: str) -> None:
    platform = rig.build(root, via, controller="Volumes")
    with pytest.raises(PlatformError, match=r'VBoxManage storagectl .* --name "Volumes" --add sata'):
        platform.attach(created(platform), NODES[0], epoch=1)
    platform.close()


def test_a_node_is_found_by_all_that_it_can_know_of_itself(rig: Rig, platform: Platform) -> None:
    vm = rig.host.find_vm(NODES[0])
    assert vm is not None
    said = rig.box.manage("showvminfo", vm.uuid, "--machinereadable")
    digits = next(line.split('"')[1] for line in said.splitlines() if line.startswith("macaddress1"))
    mac = ":".join(digits[at : at + 2] for at in range(0, 12, 2)).lower()
    swapped = (
        vm.uuid[6:8] + vm.uuid[4:6] + vm.uuid[2:4] + vm.uuid[:2] + f"-{vm.uuid[11:13]}{vm.uuid[9:11]}-{vm.uuid[16:18]}{vm.uuid[14:16]}"
    )
    volume = created(platform)
    for node in (vm.name, vm.uuid, vm.uuid.upper(), swapped + vm.uuid[18:], mac):
        platform.attach(volume, node, epoch=1)
        assert platform.inspect(volume).held_by == (vm.uuid,)
    platform.detach(volume, mac)
    for stranger in ("no-such-vm", "00000000-0000-4000-8000-000000000000", "08:00:27:00:00:00", "--help", "node-a\n", "\0"):
        with pytest.raises(Invalid, match="agent's file names it by hand"):
            platform.attach(volume, stranger, epoch=1)
        platform.detach(volume, stranger)


def test_vms_that_take_anothers_uuid_or_name_are_not_taken_for_it(rig: Rig, platform: Platform) -> None:
    volume, vm = created(platform), rig.host.find_vm(NODES[0])
    assert vm is not None
    assert platform.node_stopped(vm.uuid)
    rig.box.manage("clonevm", vm.uuid, "--name", "copy", "--options", "keephwuuids", "--register")
    try:
        with pytest.raises(Invalid, match=f"copy, {NODES[0]}"):
            platform.node_stopped(vm.uuid)
    finally:
        rig.box.manage("unregistervm", "copy", "--delete")
    with another_vm(rig, "worker", ports=2):
        platform.attach(volume, "worker", epoch=1)
        platform.detach(volume, "worker")
        rig.box.manage("modifyvm", "worker", "--name", "old")
        with another_vm(rig, "worker", ports=2) as new:
            platform.attach(volume, "worker", epoch=1)
            assert platform.inspect(volume).held_by == (new,)
            platform.detach(volume, "worker")
        rig.box.manage("modifyvm", "old", "--name", "worker")


def test_a_vm_that_is_off_is_stopped_and_one_that_sleeps_is_not(rig: Rig, platform: Platform) -> None:
    assert isinstance(platform, VirtualBoxPlatform)
    stopped = platform.node_stopped(NODES[0])
    assert re.search(f"VM {NODES[0]} .* is (powered off|aborted)", stopped or "")  # aborted: a test has killed its locker
    with rig.saved(NODES[0]):
        assert platform.node_stopped(NODES[0]) is None
    assert platform.node_stopped("no-such-vm") is None


def test_a_volume_outlives_the_vm_that_had_it(rig: Rig, platform: Platform, via: str) -> None:
    volume = created(platform)
    with another_vm(rig, f"leaving-{via}", ports=4) as vm:
        platform.attach(volume, vm, epoch=7)
        rig.box.manage("storageattach", vm, "--storagectl", "SATA", "--port", "3", "--device", "0", "--medium", "none")
        rig.box.manage("unregistervm", vm)
        assert (platform.inspect(volume).epoch, platform.inspect(volume).held_by) == (7, ())
        platform.detach(volume, vm)


def test_a_volume_that_was_taken_from_virtualboxs_list_comes_back_with_its_marks(rig: Rig, platform: Platform) -> None:
    """By hand, or with settings of VirtualBox that were lost in part. A medium's own description would be gone."""
    first, second = created(platform, "first"), created(platform, "second")
    assert platform.fence(first, 7)
    for volume in (first, second):
        rig.box.manage("closemedium", "disk", volume)
    assert platform.inspect(first).epoch == 7
    rig.box.manage("closemedium", "disk", first)
    assert sorted(report.external_id for report in platform.volumes().items) == sorted([first, second])


def test_a_vms_own_snapshots_leave_volumes_alone(rig: Rig, platform: Platform) -> None:
    volume = created(platform)
    attachment = platform.attach(volume, NODES[0], epoch=1)
    rig.box.manage("snapshot", NODES[0], "take", "before")
    try:
        assert platform.attach(volume, NODES[0], epoch=1) == attachment
        platform.detach(volume, NODES[0])
        assert platform.attach(volume, NODES[1], epoch=2).serial == attachment.serial
        platform.detach(volume, NODES[1])
    finally:
        rig.box.manage("snapshot", NODES[0], "delete", "before")


def test_a_medium_that_a_vm_has_through_its_snapshot_is_held(rig: Rig, root: Path, platform: Platform) -> None:
    """An operator's own: the VM goes on with a differencing medium, which needs all that is in the first."""
    file, vm = str(root / "default/theirs.vdi"), rig.host.find_vm(NODES[1])
    assert vm is not None
    rig.box.manage("createmedium", "disk", "--filename", file, "--size", "8")
    rig.box.manage("storageattach", vm.uuid, "--storagectl", "SATA", "--port", "7", "--type", "hdd", "--medium", file)
    rig.box.manage("snapshot", vm.uuid, "take", "before")
    try:
        (found,) = platform.volumes().items
        assert (found.held_by, platform.inspect(found.external_id)) == ((vm.uuid,), found)
        assert platform.fence(found.external_id, 5) is None
        with pytest.raises(VolumeInUse, match=NODES[1]):
            platform.attach(found.external_id, NODES[0], epoch=1)
        with pytest.raises(PlatformError, match=f"delete the snapshots of VM {NODES[1]} first"):
            platform.attach(found.external_id, NODES[1], epoch=1)
        with pytest.raises(PlatformError, match=f"delete the snapshots of VM {NODES[1]} first"):
            platform.detach(found.external_id, NODES[1])
    finally:
        rig.box.manage("snapshot", vm.uuid, "delete", "before")


@pytest.mark.parametrize("operation", ["IMachine_getAccessible", "IMachine_getNetworkAdapter"])
def test_a_vm_that_goes_while_all_are_looked_at_is_none(rig: Rig, root: Path, operation: str) -> None:
    cut = rig.build(root, "soap", url=rig.wire.url)

    def before(seen: str) -> bool:
        if seen == operation:
            rig.wire.before = lambda other: False
            rig.box.manage("unregistervm", "going")
        return False

    with another_vm(rig, "going", ports=1):
        rig.wire.before = before
        assert cut.node_stopped("08:00:27:00:00:00") is None
    cut.close()
    shutil.rmtree(rig.box.home / "VirtualBox VMs/going")


# --- media --------------------------------------------------------------------------------------------------------------------


def test_a_medium_of_the_operators_own_is_adopted(rig: Rig, root: Path, platform: Platform) -> None:
    rig.box.manage("createmedium", "disk", "--filename", str(root / "default/archive.vmdk"), "--size", "8", "--format", "VMDK")
    rig.box.manage("createmedium", "disk", "--filename", str(root / "elsewhere.vdi"), "--size", "8")
    (found,) = platform.volumes().items
    assert (found.name, found.token, found.size_mib, found.pool, found.serial) == (
        "archive",
        "",
        8,
        "default",
        layout.serial(found.external_id),
    )
    platform.attach(found.external_id, NODES[0], epoch=4)
    platform.detach(found.external_id, NODES[0])
    assert platform.inspect(found.external_id).epoch == 4
    medium = rig.host.look([found.external_id])[found.external_id]
    assert medium.kind == "writethrough"


def test_letters_of_all_languages_are_kept(rig: Rig, platform: Platform) -> None:
    made = platform.create(request(name="/größe#0/データ", labels={"für": "\U0001f600"}))
    assert (made.name, made.labels) == ("/größe#0/データ", {"für": "\U0001f600"})
    assert list(platform.volumes().items) == [made]


def test_a_medium_that_gets_its_name_after_a_look_is_listed_by_it(rig: Rig, root: Path) -> None:
    """References stay the same for a session of the web service, and what was asked of them once is remembered: but not for ever."""
    maker, other = rig.build(root, "soap", url=rig.wire.url), rig.build(root, "soap")
    rig.box.manage("createmedium", "disk", "--filename", str(root / "moved.vdi"), "--size", "4")
    seen: list[int] = []

    def before(operation: str) -> bool:
        if operation == "IMedium_moveTo":
            rig.wire.before = lambda other: False
            seen.append(len(other.volumes().items))
        return False

    rig.wire.before = before
    volume = created(maker)
    assert seen == [0]
    assert [report.external_id for report in other.volumes().items] == [volume]
    rig.box.manage("modifymedium", "disk", str(root / "moved.vdi"), "--move", str(root / "default" / "moved.vdi"))
    assert {report.name for report in other.volumes().items} == {"token", "moved"}
    maker.close()
    other.close()


def test_parameters_make_the_medium(rig: Rig, root: Path, platform: Platform) -> None:
    volume = created(platform, format="vmdk", variant="fixed")
    shown = rig.box.manage("showmediuminfo", "disk", volume)
    assert "VMDK" in shown
    assert "fixed" in shown
    assert platform.find("token") == platform.inspect(volume)


def test_a_fixed_vdi_that_cannot_grow_says_so_with_virtualboxs_code(platform: Platform) -> None:
    volume = created(platform, variant="fixed")
    with pytest.raises(Unsupported, match="VBOX_E_NOT_SUPPORTED 0x80bb0009"):
        platform.expand(volume, 8)
    assert platform.inspect(volume).size_mib == 4


def test_an_attached_volume_is_not_grown(platform: Platform) -> None:
    volume = created(platform)
    platform.attach(volume, NODES[0], epoch=1)
    with pytest.raises(VolumeInUse, match=NODES[0]):
        platform.expand(volume, 8)


def test_a_disk_without_room_is_a_full_pool(rig: Rig, root: Path, platform: Platform) -> None:
    with rig.box.tiny(root / "default", size_mib=8), pytest.raises(PoolFull):
        platform.create(request(size_mib=32, parameters={"variant": "fixed"}))
    assert platform.find("token") is None


def test_pools_share_what_they_hold_together(rig: Rig, root: Path, via: str) -> None:
    (root / "second").mkdir()
    platform = rig.build(root, via, pools="default,second", total_mib="13")
    assert [pool.room for pool in platform.pools()] == [Room(name=str(root), capacity_mib=13)] * 2
    volume = created(platform)
    with pytest.raises(PoolFull):
        platform.create(request("large", pool="second", size_mib=10))
    snapshot = platform.snapshot(volume, token="copy").external_id
    lock_mib = 1 if via == "soap" else 0
    assert {pool.room.foreign_mib for pool in platform.pools() if pool.room} == {4 + lock_mib}
    platform.delete_snapshot(snapshot)
    assert platform.create(request("small", pool="second", size_mib=8)).pool == "second"
    platform.close()


def test_pools_on_one_disk_share_its_room(rig: Rig, root: Path) -> None:
    (root / "second").mkdir()
    settings = rig.settings(root, "vboxmanage", pools="default,second")
    del settings["capacity_mib"]
    rooms = [pool.room for pool in build("vbox", "virtualbox", settings).pools()]
    device, size_mib = os.stat(root).st_dev, rig.host.disk(str(root))
    assert size_mib
    assert {(room.name, room.capacity_mib) for room in rooms if room} == {(f"disk {device >> 8}:{device & 255}", size_mib.size_mib)}


def test_a_volume_whose_file_is_gone_is_an_error_and_can_be_deleted(rig: Rig, root: Path, platform: Platform) -> None:
    volume = created(platform)
    platform.attach(volume, NODES[0], epoch=1)
    os.unlink(root / "default" / f"{layout.volume_stem('token')}.vdi")
    with pytest.raises(PlatformError, match="VERR_FILE_NOT_FOUND"):
        platform.inspect(volume)
    with pytest.raises(VolumeInUse, match=NODES[0]):
        platform.delete(volume)
    platform.detach(volume, NODES[0])
    platform.delete(volume)
    with pytest.raises(UnknownVolume):
        platform.inspect(volume)


# --- doctor and credentials --------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_named_and_never_shown(rig: Rig, root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong horse")
    platform = rig.build(root, "soap", password_file=str(secret))
    with pytest.raises(PlatformUnavailable, match=f"does not let '{USER}' in") as refusal:
        platform.volumes()
    (finding,) = platform.check()
    assert (finding.ok, "password_file" in finding.mend) == (False, True)
    assert "wrong horse" not in f"{refusal.value}{finding.message}"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    assert list(platform.volumes().items) == []
    assert [finding.mend for finding in platform.check() if not finding.ok] == [f"chmod 600 {secret}"]
    secret.write_text("\n")
    platform.close()
    with pytest.raises(PlatformUnavailable, match="is empty"):
        platform.volumes()
    secret.unlink()
    with pytest.raises(PlatformUnavailable, match="cannot be read: No such file"):
        platform.volumes()


def test_an_https_service_is_known_by_its_certificate_whatever_the_environment_says(
    rig: Rig, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (authority, certificate), (other, _) = certificates.written(rig.box.work), certificates.written(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1/")
    rig.box.stop_serving()
    rig.box.serve("--ssl", "--keyfile", str(certificate))
    try:
        url = rig.box.url.replace("http:", "https:")
        known, wrong, absent = (rig.build(root, "soap", url=url, ca_file=str(file)) for file in (authority, other, tmp_path / "none"))
        assert list(known.volumes().items) == []
        for one, words in ((wrong, "certificate verify failed"), (absent, "none")):
            with pytest.raises(PlatformUnavailable, match=words):
                one.volumes()
    finally:
        rig.box.stop_serving()
        rig.box.serve()


def test_a_missing_program_or_service_is_found(rig: Rig, root: Path) -> None:
    absent = rig.build(root, "vboxmanage", vboxmanage="/nonexistent/VBoxManage")
    silent = rig.build(root, "soap", url="http://127.0.0.1:1/")
    for one, word in ((absent, "install VirtualBox"), (silent, "start vboxwebsrv")):
        with pytest.raises(PlatformUnavailable):
            one.pools()
        assert [(finding.ok, word in finding.mend) for finding in one.check()] == [(False, True)]
    assert [finding.message for finding in silent.check()] == ["[Errno 111] Connection refused"]


def test_a_missing_folder_is_no_pool_and_is_found(rig: Rig, root: Path, via: str) -> None:
    platform = rig.build(root, via, pools="default,unmounted")
    assert [pool.name for pool in platform.pools()] == ["default"]
    assert [finding.subject for finding in platform.check() if not finding.ok] == [str(root / "unmounted")]
    platform.close()


def test_a_thousand_volumes_are_listed_in_parts(rig: Rig, root: Path) -> None:
    box, media = rig.log_on(), []
    for number in range(1000):
        file = str(root / "default" / f"{layout.volume_stem(f'many-{number}')}.vdi")
        medium = rig.soap.IVirtualBox_createMedium(box, "VDI", file, "ReadWrite", "HardDisk")
        rig.soap.IProgress_waitForCompletion(rig.soap.IMedium_createBaseStorage(medium, 1 << 20, ["Standard"]), -1)
        media.append(medium)
    wanted = {f"many-{number}" for number in range(1000)}
    for way in WAYS:
        lister, after, seen = rig.build(root, way), None, []
        while page := lister.volumes(after=after, limit=300):
            seen += [report.token for report in page.items]
            if (after := page.after) is None:
                break
        assert (len(seen), set(seen)) == (1000, wanted)
        lister.close()
    for medium in media:
        rig.soap.IMedium_deleteStorage(medium)
    eventually(lambda: not list((root / "default").iterdir()), 60, "VirtualBox deletes them all")
    rig.soap.IWebsessionManager_logoff(box)
