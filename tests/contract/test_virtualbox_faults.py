"""What goes wrong with a real VirtualBox: VMs that ask for one medium, locks of others, services that die, disks that are full."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
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
from storage.model import ExternalId
from storage.platforms.base import CreateRequest, Platform
from storage.platforms.virtualbox import layout
from tests.contract.test_virtualbox import NODES, Rig
from tests.contract.test_virtualbox import rig as rig  # the fixture: one VirtualBox for both modules
from tests.peers.virtualbox import PASSWORD, USER
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("virtualbox")]
TOKEN = "token"
WAYS = ("soap", "vboxmanage")
REPOSITORY = Path(__file__).parents[2]


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


# --- two VMs ask for one medium ---------------------------------------------------------------------------------


@contextlib.contextmanager
def askers(rig: Rig, root: Path, via: str, volume: ExternalId) -> Iterator[list[subprocess.Popen[str]]]:
    settings = json.dumps(rig.settings(root, via, lock_wait_s="30"))
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.virtualbox_asker", settings, volume, node],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for node in NODES
    ]
    try:
        assert [said(process) for process in started] == [volume, volume]
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def test_of_two_processes_that_attach_at_once_one_has_the_medium(rig: Rig, root: Path, platform: Platform, via: str) -> None:
    volume = created(platform)
    with askers(rig, root, via, volume) as processes:
        for _ in range(5):
            for process in processes:
                tell(process, "attach")
            answers = [said(process) for process in processes]
            assert sorted(answers) == ["done", "refused"]
            assert len(platform.inspect(volume).held_by) == 1
            winner = processes[answers.index("done")]
            tell(winner, "detach")
            assert said(winner) == "done"


def test_a_medium_that_somebody_attached_by_hand_is_in_use(rig: Rig, platform: Platform, via: str) -> None:
    """VirtualBox itself would let a second VM have it."""
    volume = created(platform)
    by_hand = ("storageattach", NODES[1], "--storagectl", "SATA", "--port", "7", "--device", "0", "--type", "hdd", "--medium", volume)
    rig.box.manage(*by_hand)
    with pytest.raises(VolumeInUse, match=NODES[1]):
        platform.attach(volume, NODES[0], epoch=1)
    assert platform.fence(volume, 5) is None
    assert platform.inspect(volume).epoch == 0


def test_what_attaches_elsewhere_at_the_same_moment_past_our_lock_is_seen(rig: Rig, root: Path) -> None:
    """Whoever uses VirtualBox by hand takes no lock of ours: after attaching, the adapter looks back."""
    by_hand = ("storageattach", NODES[1], "--storagectl", "SATA", "--port", "7", "--device", "0", "--type", "hdd", "--medium")
    cut = rig.build(root, "soap", url=rig.wire.url)
    volume = created(cut)

    def before(operation: str) -> bool:
        if operation == "IMachine_attachDevice":
            rig.wire.before = lambda seen: False
            rig.box.manage(*by_hand, volume)
        return False

    rig.wire.before = before
    with pytest.raises(VolumeInUse, match=NODES[1]):
        cut.attach(volume, NODES[0], epoch=1)
    vm = rig.host.find_vm(NODES[1])
    assert vm is not None
    assert cut.inspect(volume).held_by == (vm.uuid,)
    cut.close()


# --- locks of other clients ----------------------------------------------------------------------------------------


def vm_lock(rig: Rig, box: str, node: str) -> str:
    session = rig.soap.IWebsessionManager_getSessionObject(box)
    rig.soap.IMachine_lockMachine(rig.soap.IVirtualBox_findMachine(box, node), session, "Write")
    return str(session)


def test_a_vm_that_another_client_has_locked_is_waited_for(rig: Rig, root: Path) -> None:
    platform = rig.build(root, "soap", url=rig.wire.url, lock_wait_s="30")
    volume, box = created(platform), rig.log_on()
    session = vm_lock(rig, box, NODES[0])
    tries: list[str] = []

    def before(operation: str) -> bool:
        if operation == "IMachine_lockMachine":
            tries.append(operation)
            if len(tries) == 3:
                rig.soap.ISession_unlockMachine(session)
        return False

    rig.wire.before = before
    try:
        assert platform.attach(volume, NODES[0], epoch=1).serial == layout.serial(volume)
    finally:
        rig.wire.before = lambda operation: False
        rig.soap.IWebsessionManager_logoff(box)
        platform.close()
    assert len(tries) >= 3


def test_a_vm_whose_locker_died_can_still_be_attached_to(rig: Rig, web: Platform) -> None:
    """The web service keeps a dead client's lock of a VM until it restarts."""
    volume, box = created(web), rig.log_on()
    vm_lock(rig, box, NODES[0])
    rig.soap.IWebsessionManager_logoff(box)
    web.attach(volume, NODES[0], epoch=1)
    assert len(web.inspect(volume).held_by) == 1
    web.detach(volume, NODES[0])
    assert web.inspect(volume).held_by == ()
    rig.box.stop_serving()
    rig.box.serve()


def test_a_lock_of_ours_that_does_not_end_is_said(rig: Rig, root: Path, web: Platform) -> None:
    volume, box = created(web), rig.log_on()
    medium = rig.soap.IVirtualBox_openMedium(box, str(root / "default" / layout.LOCK), "HardDisk", "ReadWrite", False)
    rig.soap.IMedium_lockWrite(medium)
    with pytest.raises(PlatformUnavailable, match="VBOX_E_INVALID_OBJECT_STATE 0x80bb0007"):
        web.attach(volume, NODES[0], epoch=1)
    rig.soap.IWebsessionManager_logoff(box)  # as by the service, when a dead client's session has ended
    web.attach(volume, NODES[0], epoch=1)


def test_two_processes_of_the_command_line_share_one_lock(rig: Rig, root: Path) -> None:
    first, second = rig.build(root, "vboxmanage", lock_wait_s="1"), rig.build(root, "vboxmanage", lock_wait_s="1")
    volume = created(first)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with rig.host_of(root).locked():
            entered.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(60)
    with pytest.raises(PlatformUnavailable, match="lock"):
        second.attach(volume, NODES[0], epoch=1)
    leave.set()
    holder.join()
    second.attach(volume, NODES[0], epoch=1)


# --- services that die -----------------------------------------------------------------------------------------------


def test_a_restarted_web_service_is_logged_on_to_again(rig: Rig, web: Platform) -> None:
    volume = created(web)
    web.attach(volume, NODES[0], epoch=1)
    rig.box.stop_serving()
    with pytest.raises(PlatformUnavailable):
        web.inspect(volume)
    rig.box.serve()
    assert web.inspect(volume).epoch == 1
    rig.box.stop_serving()
    rig.box.serve()
    web.detach(volume, NODES[0])
    assert web.inspect(volume).held_by == ()


def test_an_attach_whose_session_another_thread_ended_goes_on_with_a_lock_of_its_own(rig: Rig, root: Path) -> None:
    """Threads of one broker share a session: when it ends, a lock that one of them has ends too."""
    cut = rig.build(root, "soap", url=rig.wire.url)
    volume, locks = created(cut), len([operation for operation in rig.wire.seen if operation == "IMedium_lockWrite"])

    def before(seen: str) -> bool:
        if seen == "IMachine_getState":
            rig.wire.before = lambda other: False
            ended = threading.Thread(target=cut.close)
            ended.start()
            ended.join()
        return False

    rig.wire.before = before
    cut.attach(volume, NODES[0], epoch=1)
    again = len([operation for operation in rig.wire.seen if operation == "IMedium_lockWrite"])
    assert again - locks == 2, "it went on under a lock that had ended"
    assert len(cut.inspect(volume).held_by) == 1
    cut.close()


@pytest.mark.parametrize("operation", ["IMachine_lockMachine", "IMachine_attachDevice", "ISession_unlockMachine"])
def test_a_web_service_that_dies_in_an_attach_leaves_nothing_locked(rig: Rig, root: Path, operation: str) -> None:
    cut = rig.build(root, "soap", url=rig.wire.url, lock_wait_s="5")
    volume = created(cut)

    def before(seen: str) -> bool:
        if seen == operation:
            rig.wire.before = lambda other: False
            rig.box.stop_serving(signal.SIGKILL)
        return False

    rig.wire.before = before
    with contextlib.suppress(PlatformUnavailable):  # when only the unlocking was missing, it is attached
        cut.attach(volume, NODES[0], epoch=1)
    rig.box.serve()
    eventually(lambda: not locked_vms(rig), 10, "VirtualBox frees the dead service's locks")
    cut.attach(volume, NODES[0], epoch=1)
    assert len(cut.inspect(volume).held_by) == 1
    with pytest.raises(VolumeInUse):
        cut.attach(volume, NODES[1], epoch=2)
    cut.close()


def test_what_virtualbox_does_not_take_back_is_said_with_what_to_do(rig: Rig, root: Path) -> None:
    """The web service dies between attaching and saving: VirtualBox then remembers an attachment that the VM does not have."""
    cut = rig.build(root, "soap", url=rig.wire.url)
    volume = created(cut)

    def before(seen: str) -> bool:
        if seen == "IMachine_saveSettings":
            rig.wire.before = lambda other: False
            rig.box.stop_serving(signal.SIGKILL)
        return False

    rig.wire.before = before
    with pytest.raises(PlatformUnavailable):
        cut.attach(volume, NODES[0], epoch=1)
    rig.box.serve()
    eventually(lambda: not locked_vms(rig), 10, "VirtualBox frees the dead service's locks")
    with pytest.raises(PlatformError, match="until VBoxSVC has ended"):
        cut.attach(volume, NODES[0], epoch=1)
    rig.box.restart()
    cut.attach(volume, NODES[0], epoch=1)
    assert len(cut.inspect(volume).held_by) == 1
    cut.close()


def locked_vms(rig: Rig) -> list[str]:
    box = rig.log_on()
    states = {node: rig.soap.IMachine_getSessionState(rig.soap.IVirtualBox_findMachine(box, node)) for node in NODES}
    rig.soap.IWebsessionManager_logoff(box)
    return [node for node, state in states.items() if state != "Unlocked"]


def test_a_copy_whose_service_dies_is_never_taken_for_a_whole_one(rig: Rig, root: Path) -> None:
    cut = rig.build(root, "soap", url=rig.wire.url)
    volume = created(cut)

    def before(seen: str) -> bool:
        if seen == "IMedium_moveTo":
            rig.wire.before = lambda other: False
            rig.box.stop_serving(signal.SIGKILL)
        return False

    rig.wire.before = before
    with pytest.raises(PlatformUnavailable):
        cut.snapshot(volume, token="copy")
    rig.box.serve()
    assert cut.snapshots().items == []
    made = cut.snapshot(volume, token="copy")
    assert cut.snapshots().items == [made]
    cut.close()


def test_what_dead_makers_left_is_deleted_after_a_day(rig: Rig, root: Path, platform: Platform) -> None:
    old, new = (root / "default" / f"{layout.part_stem(when, 'x')}.vdi" for when in (1.0, 4e9))
    for file in (old, new):
        rig.box.manage("createmedium", "disk", "--filename", str(file), "--size", "1")
    volume = created(platform)
    assert (old.exists(), new.exists()) == (False, True)
    assert [report.external_id for report in platform.volumes().items] == [volume]
    assert any("being made" in finding.message for finding in platform.check())


# --- VMs and their controllers ---------------------------------------------------------------------------------------------


def test_a_controller_without_a_free_port_is_no_slot(rig: Rig, root: Path, platform: Platform) -> None:
    with another_vm(rig, "small", ports=1):
        first, second = created(platform, "one"), created(platform, "two")
        platform.attach(first, "small", epoch=1)
        with pytest.raises(NoSlot, match="small has all 1"):
            platform.attach(second, "small", epoch=1)
        assert platform.inspect(second).epoch == 0
        platform.detach(first, "small")
        platform.attach(second, "small", epoch=1)
        platform.detach(second, "small")


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
    for stranger in ("no-such-vm", "00000000-0000-4000-8000-000000000000", "08:00:27:00:00:00", "--help"):
        with pytest.raises(Invalid, match="agent's file names it by hand"):
            platform.attach(volume, stranger, epoch=1)
        platform.detach(volume, stranger)


def test_a_vm_that_is_off_is_stopped_and_one_that_sleeps_is_not(rig: Rig, platform: Platform) -> None:
    stopped = platform.node_stopped(NODES[0])  # type: ignore[attr-defined] # a verb of its own until the protocol has it
    assert re.search(f"VM {NODES[0]} .* is (powered off|aborted)", stopped or "")  # aborted: a test has killed its locker
    with rig.saved(NODES[0]):
        assert platform.node_stopped(NODES[0]) is None  # type: ignore[attr-defined] # see above
    assert platform.node_stopped("no-such-vm") is None  # type: ignore[attr-defined] # see above


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


def test_a_volume_whose_file_is_gone_is_an_error_and_can_be_deleted(rig: Rig, root: Path, platform: Platform) -> None:
    volume = created(platform)
    os.unlink(root / "default" / f"{layout.volume_stem('token')}.vdi")
    with pytest.raises(PlatformError, match="VERR_FILE_NOT_FOUND"):
        platform.inspect(volume)
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
    assert list(platform.volumes().items) == []
    secret.unlink()
    platform.close()
    with pytest.raises(PlatformUnavailable, match="cannot be read: No such file"):
        platform.volumes()


def test_a_missing_program_or_service_is_found(rig: Rig, root: Path) -> None:
    absent = rig.build(root, "vboxmanage", vboxmanage="/nonexistent/VBoxManage")
    silent = rig.build(root, "soap", url="http://127.0.0.1:1/")
    for platform, word in ((absent, "install VirtualBox"), (silent, "start vboxwebsrv")):
        with pytest.raises(PlatformUnavailable):
            platform.pools()
        assert [(finding.ok, word in finding.mend) for finding in platform.check()] == [(False, True)]


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
    for via in WAYS:
        platform, after, seen = rig.build(root, via), None, []
        while page := platform.volumes(after=after, limit=300):
            seen += [report.token for report in page.items]
            if (after := page.after) is None:
                break
        assert (len(seen), set(seen)) == (1000, wanted)
        platform.close()
    for medium in media:
        rig.soap.IMedium_deleteStorage(medium)
    eventually(lambda: not list((root / "default").iterdir()), 60, "VirtualBox deletes them all")
    rig.soap.IWebsessionManager_logoff(box)
