"""What goes wrong with a real VirtualBox: VMs that ask for one medium, locks of other clients, services that die."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import (
    Invalid,
    PlatformError,
    PlatformUnavailable,
    VolumeInUse,
)
from storage.model import ExternalId
from storage.platforms.base import Platform
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.records import Record, write_record
from tests.contract.virtualbox_rig import NODES, WAYS, Rig, created
from tests.contract.virtualbox_rig import platform as platform  # fixtures
from tests.contract.virtualbox_rig import rig as rig
from tests.contract.virtualbox_rig import root as root
from tests.contract.virtualbox_rig import via as via
from tests.contract.virtualbox_rig import web as web
from tests.peers.virtualbox import PASSWORD
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("virtualbox")]
REPOSITORY = Path(__file__).parents[2]


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
    rig.free_vms()


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


def test_a_virtualbox_that_a_run_under_our_lock_has_started_does_not_keep_it(rig: Rig, root: Path) -> None:
    """VBoxSVC ends some seconds after its last client, and who comes then starts another, which inherits what VBoxManage has open."""
    first, second = rig.build(root, "vboxmanage", lock_wait_s="1"), rig.build(root, "vboxmanage", lock_wait_s="1")
    volume = created(first)
    rig.box.end()
    try:
        assert first.fence(volume, 2)
        assert second.fence(volume, 3)
    finally:
        rig.box.restart()


@pytest.mark.parametrize("ways", [WAYS, WAYS[::-1]], ids=lambda ways: ways[0])
def test_processes_that_use_one_root_in_two_ways_are_not_both_let_in(rig: Rig, root: Path, ways: tuple[str, str]) -> None:
    first, second = (rig.build(root, way) for way in ways)
    volume = created(first)
    with pytest.raises(Invalid, match=f"others use {root} by via = '{ways[0]}'"):
        second.attach(volume, NODES[0], epoch=1)
    first.attach(volume, NODES[0], epoch=1)
    assert second.inspect(volume).epoch == 1


# --- services that die -----------------------------------------------------------------------------------------------


def test_a_changed_password_is_said_and_a_good_one_taken_again(rig: Rig, web: Platform) -> None:
    """No session of the old one is left."""
    volume = created(web)
    rig.box.set_password("another")
    rig.box.stop_serving()
    rig.box.serve()
    try:
        with pytest.raises(PlatformUnavailable, match="does not let"):
            web.inspect(volume)
    finally:
        rig.box.set_password(PASSWORD)
    assert web.inspect(volume).external_id == volume


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


def test_a_virtualbox_that_died_behind_its_web_service_is_said(rig: Rig, web: Platform) -> None:
    """Whoever logs on to such a web service makes it die, too."""
    volume = created(web)
    rig.box.end_svc()
    with pytest.raises(PlatformUnavailable, match=r"E_ABORT 0x80004004.*restart vboxwebsrv"):
        web.inspect(volume)
    rig.box.restart()
    assert web.inspect(volume).external_id == volume


def test_a_thread_that_gives_up_ends_nothing_of_another(rig: Rig, root: Path) -> None:
    """They share a session: had it ended, the web service would keep the VM locked for good."""
    cut = rig.build(root, "soap", url=rig.wire.url, lock_wait_s="1")
    first, second = created(cut, "first"), created(cut, "second")
    refused: list[Exception] = []

    def give_up() -> None:
        try:
            cut.attach(second, NODES[1], epoch=1)
        except PlatformUnavailable as error:
            refused.append(error)

    def before(seen: str) -> bool:
        if seen == "IMachine_attachDevice":
            rig.wire.before = lambda other: False
            other = threading.Thread(target=give_up)
            other.start()
            other.join()
        return False

    rig.wire.before = before
    cut.attach(first, NODES[0], epoch=1)
    assert [error for error in refused if "does not leave its lock" in str(error)]
    assert rig.locked_vms() == []
    cut.close()


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
    eventually(lambda: not rig.locked_vms(), 10, "VirtualBox frees the dead service's locks")
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
    eventually(lambda: not rig.locked_vms(), 10, "VirtualBox frees the dead service's locks")
    with pytest.raises(PlatformError, match="until VBoxSVC has ended"):
        cut.attach(volume, NODES[0], epoch=1)
    rig.box.restart()
    cut.attach(volume, NODES[0], epoch=1)
    assert len(cut.inspect(volume).held_by) == 1
    cut.close()


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
    text = write_record(Record(name="never", part=old.stem))
    rig.box.manage("setextradata", "global", f"{layout.RECORDS}{layout.volume_stem('never')}", text)
    volume = created(platform)
    assert (old.exists(), new.exists()) == (False, True)
    assert rig.records() == [layout.RECORDS + layout.volume_stem("token")]
    assert [report.external_id for report in platform.volumes().items] == [volume]
    assert any("being made" in finding.message for finding in platform.check())


def test_what_a_dead_deleter_left_is_gone_with_the_next_look(rig: Rig, root: Path, platform: Platform, via: str) -> None:
    """Records that nobody was deleting stay: their disk may not be mounted."""
    gone, away = created(platform, "gone"), created(platform, "away")
    keys = {token: layout.RECORDS + layout.volume_stem(token) for token in ("gone", "away")}
    rig.box.manage("setextradata", "global", keys["gone"], write_record(Record(name="gone", deleting=True)))
    platform.close()
    for volume in (gone, away):
        rig.box.manage("closemedium", "disk", volume)
    for token in keys:
        (root / "default" / f"{layout.volume_stem(token)}.vdi").rename(root / token)
    assert list(platform.volumes().items) == []
    assert rig.records() == [keys["away"]]
