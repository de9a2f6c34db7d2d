"""What a node runs so that volumes of Cinder come up: files on NFS shares, and iSCSI targets of one volume each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.errors import NodeError, UnsafePath
from storage.model import ExternalId
from storage.node import devices
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.steps import Machine
from storage.node.transports import iscsi_target, nfs_file, transport_of
from storage.platforms.base import Attachment

VOLUME = "6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10"
OTHER = "00000000-3f5e-4d4c-9d7c-0f6a3c1b2a10"
TARGET = f"iqn.2010-10.org.openstack:volume-{VOLUME}"


class Ran:
    """A machine that notes what is run on it, in a made-up /sys, /dev and /proc."""

    def __init__(self, root: Path, *, mounts: str = "") -> None:
        self.commands: list[str] = []
        self.codes: dict[str, int] = {}
        for name in ("dev", "sys/block", "proc/thread-self"):
            (root / name).mkdir(parents=True)
        (root / "proc/thread-self/mountinfo").write_text(mounts)
        self.root = root
        self.machine = Machine(
            roots=Roots(dev=root / "dev", sys=root / "sys", proc=root / "proc", is_block=Path.exists), run=self.run, may_mount=True
        )

    def run(self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        self.commands.append(" ".join([*command, *paths]))
        code = next((code for part, code in self.codes.items() if part in self.commands[-1]), 0)
        if code not in ok:
            raise NodeError(command=command[0], target="", reason=f"exit code {code}")
        return Output(code=code, out="", err="")

    def disk(self, name: str, session: str, target: str) -> None:
        """A SCSI disk of an iSCSI session, as sysfs shows it."""
        device = self.root / f"sys/devices/platform/host3/{session}/target3:0:0/3:0:0:1"
        block = device / "block" / name
        block.mkdir(parents=True)
        (block / "device").symlink_to(device)
        (self.root / "sys/block" / name).symlink_to(block)
        (self.root / "dev" / name).touch()
        shown = self.root / "sys/class/iscsi_session" / session
        shown.mkdir(parents=True)
        (shown / "targetname").write_text(f"{target}\n")


def attachment(transport: str, *, read_only: bool = False, **context: str) -> Attachment:
    return Attachment(external_id=ExternalId(VOLUME), device="?", serial=VOLUME, read_only=read_only, transport=transport, context=context)


def on_share(*, read_only: bool = False, **changes: Any) -> Attachment:
    context: dict[str, Any] = {"share": "nas-1:/vols", "file": f"volume-{VOLUME}", "format": "raw", "options": "-o vers=4.2"}
    return attachment("nfs_file", read_only=read_only, **(context | changes))


def on_target(**changes: Any) -> Attachment:
    context: dict[str, Any] = {"portal": "10.0.0.1:3260", "target": TARGET, "lun": "1"}
    return attachment("iscsi_target", **(context | changes))


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    monkeypatch.setattr(nfs_file, "ROOT", tmp_path / "shares")
    return Ran(tmp_path)


@pytest.mark.parametrize("name", ["nfs_file", "iscsi_target"])
def test_a_transport_is_found_by_the_name_in_the_attachment(name: str) -> None:
    assert transport_of(attachment(name)) in (nfs_file, iscsi_target)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_share_is_mounted_where_it_belongs_and_its_file_gets_a_device(ran: Ran, tmp_path: Path, read_only: bool) -> None:
    nfs_file.connect(on_share(read_only=read_only), ran.machine)

    (place,) = (tmp_path / "shares").iterdir()
    flag = " --read-only" if read_only else ""
    assert ran.commands == [
        f"mount -t nfs -o vers=4.2,nosuid,nodev nas-1:/vols {place}",
        f"losetup --find --show --nooverlap{flag} {place}/volume-{VOLUME}",
    ]


def test_a_share_that_is_mounted_is_not_mounted_again_and_goes_with_its_last_file(ran: Ran, tmp_path: Path) -> None:
    nfs_file.connect(on_share(), ran.machine)
    (place,) = (tmp_path / "shares").iterdir()
    (tmp_path / "proc/thread-self/mountinfo").write_text(f"36 35 0:50 / {place} rw,nosuid - nfs4 nas-1:/vols rw\n")
    ran.commands.clear()
    ran.codes["umount"] = nfs_file.BUSY

    nfs_file.connect(on_share(), ran.machine)
    nfs_file.disconnect(on_share(), ran.machine)

    assert ran.commands == [f"losetup --find --show --nooverlap {place}/volume-{VOLUME}", f"umount {place}"]


def test_a_file_with_layers_is_refused_with_the_reason(ran: Ran) -> None:
    with pytest.raises(NodeError, match="format qcow2, as Cinder's NFS driver makes it while there are snapshots"):
        nfs_file.connect(on_share(format="qcow2"), ran.machine)
    assert not ran.commands


@pytest.mark.parametrize(
    "changes",
    [{"file": "../etc/passwd"}, {"file": "-o"}, {"file": ""}, {"share": "/etc"}, {"share": "-o:/x"}, {"options": "vers=4 --bind"}],
)
def test_paths_and_options_that_lead_elsewhere_are_refused(ran: Ran, changes: dict[str, Any]) -> None:
    with pytest.raises(UnsafePath):
        nfs_file.connect(on_share(**changes), ran.machine)
    assert not [command for command in ran.commands if command.startswith("losetup")]


def test_a_target_is_logged_into_and_out_of_for_good(ran: Ran) -> None:
    node = f"iscsiadm --mode node --targetname {TARGET} --portal 10.0.0.1:3260"
    ran.codes = {"--login": iscsi_target.IS_THERE, "--logout": iscsi_target.NOTHING, "--op delete": iscsi_target.NOTHING}

    iscsi_target.connect(on_target(), ran.machine)
    iscsi_target.disconnect(on_target(), ran.machine)

    steps = ["--op new", "--op update --name node.startup --value manual", "--login", "--rescan", "--logout", "--op delete"]
    assert ran.commands == [f"{node} {step}" for step in steps]


def test_a_login_that_fails_is_said(ran: Ran) -> None:
    ran.codes["--login"] = 24

    with pytest.raises(NodeError, match="exit code 24"):
        iscsi_target.connect(on_target(), ran.machine)


@pytest.mark.parametrize("changes", [{"portal": "10.0.0.1"}, {"portal": "--op:1"}, {"target": "--logout"}, {"target": "iqn.x;reboot"}])
def test_a_target_that_is_none_is_refused(ran: Ran, changes: dict[str, str]) -> None:
    for step in (iscsi_target.connect, iscsi_target.disconnect):
        with pytest.raises(UnsafePath):
            step(on_target(**changes), ran.machine)
    assert not ran.commands


def test_a_disk_is_known_by_the_volume_that_its_target_is_named_by(ran: Ran) -> None:
    ran.disk("sda", "session1", f"iqn.2010-10.org.openstack:volume-{OTHER}")
    ran.disk("sdb", "session12", TARGET)

    assert devices.find(VOLUME, roots=ran.machine.roots, pace=ran.machine.pace, timeout_s=0.0) == str(ran.root / "dev/sdb")
    assert not devices.matches(VOLUME, "sda", ran.machine.roots)


def test_a_loop_device_is_known_by_the_volume_that_its_file_is_named_by(ran: Ran) -> None:
    for number, name in enumerate((f"volume-{OTHER}", f"volume-{VOLUME}", f"volume-{OTHER}.{VOLUME}")):
        (ran.root / f"sys/block/loop{number}/loop").mkdir(parents=True)
        (ran.root / f"sys/block/loop{number}/loop/backing_file").write_text(f"/run/share/{name}\n")
        (ran.root / f"dev/loop{number}").touch()

    assert [name for name in ("loop0", "loop1", "loop2") if devices.matches(VOLUME, name, ran.machine.roots)] == ["loop1"]
