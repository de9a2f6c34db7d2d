"""Volumes that are NFS exports, on a machine whose mount(8) and kernel are made up; their files are real."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.errors import BusyMount, Invalid, NodeError, NotAsBorn, NotBlank, NotFormatted, UnsafePath, Unsupported
from storage.model import Access, AccessMode, Birth, ExternalId, VolumePlan
from storage.node import attached, commands, nfs
from storage.node.births import filesystem_uuid
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.journal import Journal
from storage.node.options import check_nfs
from storage.node.pace import Deadline, Pace
from storage.node.publishing import publish
from storage.node.releasing import unstage
from storage.node.staged import Staged, may_be_held
from storage.node.staging import stage
from storage.node.steps import Machine
from storage.platforms.base import Attachment
from tests.nodes import LoopPlatform, again, plan

HOST = "nas.example.org"


class Exports(LoopPlatform):
    """Each volume is an export of one server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, device="nfs")
        self.detached: list[str] = []

    def folder_of(self, external_id: str) -> Path:
        return self.folder / external_id

    def create(self, request: Any) -> Any:
        self.folder_of(request.token).mkdir(exist_ok=True)
        return self.inspect(ExternalId(request.token))

    def inspect(self, external_id: ExternalId) -> Any:
        self.says_mib = 64
        return super().inspect(external_id)

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return Attachment(external_id=external_id, device=f"{HOST}:{self.folder_of(external_id)}", serial=external_id, read_only=read_only)

    def detach(self, external_id: ExternalId, node: str) -> None:
        self.detached.append(external_id)


class Nas:
    """A node and its file server: what mount(8), umount(8) and the kernel say, as nfs-utils 2.6 and Linux 6 do."""

    def __init__(self, folder: Path) -> None:
        self.platform = Exports(folder / "exports")
        self.staging = folder / "staging"
        self.journal = Journal(folder / "journal", clock=lambda: 1.0)
        self.proc = folder / "proc"
        (self.proc / "thread-self").mkdir(parents=True)
        self.mounted: dict[str, tuple[str, str]] = {}
        self.commands: list[list[str]] = []
        self.busy: set[str] = set()
        self.dead = False
        self.refuses = ""
        self.stays = ""
        """What umount(8) says of mounts that it does not take away."""
        self.now = 0.0
        self._show()

    def machine(self) -> Machine:
        return Machine(roots=Roots(proc=self.proc), pace=Pace(now=lambda: self.now, wait=self._wait), run=self.run, may_mount=True)

    def _wait(self, seconds: float) -> None:
        self.now += seconds

    def _show(self) -> None:
        """As the kernel writes it: nfs_show_path says `/` whatever part of the server's filesystem is mounted."""
        lines = [
            f"{510 + number} 29 0:{53 + number} / {target} {options} shared:200 - nfs4 {source} {options[:2]},vers=4.1,hard,proto=tcp"
            for number, (target, (source, options)) in enumerate(self.mounted.items())
        ]
        (self.proc / "thread-self" / "mountinfo").write_text(
            "29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n" + "".join(f"{it}\n" for it in lines)
        )

    def run(self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        self.commands.append([*command, *paths])
        if self.dead:
            raise NodeError(command=command[0], target=paths[0], reason=f"it did not end within {timeout_s} s and was killed")
        if command[0] == "mount":
            return self._mount(command, *paths)
        if command[0] == "umount":
            return self._umount(command, paths[0], ok)
        return commands.run(command, self.mounted[paths[0]][0].partition(":")[2], *paths[1:], ok=ok, timeout_s=timeout_s)

    def _mount(self, command: Sequence[str], source: str, target: str) -> Output:
        assert list(command[:4]) == ["mount", "-t", "nfs", "-o"]
        if self.refuses:
            raise NodeError(command="mount", target=source, reason=f"exit code 32: mount.nfs: {self.refuses}")
        words = command[4].split(",")
        shown = [word for word in words if word in ("nosuid", "nodev", "noexec", "noatime")]
        self.mounted[target] = (source, ",".join(["ro" if "ro" in words else "rw", *shown, "relatime"]))
        self._show()
        return Output(code=0, out="", err="")

    def _umount(self, command: Sequence[str], target: str, ok: Collection[int]) -> Output:
        if target in self.busy and "--lazy" not in command:
            assert 32 in ok
            return Output(code=32, out="", err=f"umount: {target}: target is busy.")
        if self.stays:
            return Output(code=32, out="", err=f"umount: {target}: {self.stays}")
        del self.mounted[target]
        self._show()
        return Output(code=0, out="", err="")

    def stage(self, plan: VolumePlan, **more: Any) -> Staged:
        more = {"on_birth": lambda staged: None, "machine": self.machine(), **more}
        return stage(
            plan,
            self.platform,
            "node",
            staging_dir=self.staging,
            deadline=Deadline.of(600.0, pace=self.machine().pace),
            journal=self.journal,
            **more,
        )

    def unstage(self, staged: Staged, **more: Any) -> None:
        more = {"machine": self.machine(), "external_id": staged.external_id, "timeout_s": 5.0, **more}
        unstage(staged.plan, self.platform, "node", staging_dir=self.staging, journal=self.journal, **more)


@pytest.fixture
def nas(tmp_path: Path) -> Nas:
    return Nas(tmp_path)


def test_a_new_export_is_mounted_marked_and_known_again(nas: Nas) -> None:
    first = nas.stage(plan(mount_options=("vers=4.1,noatime",)))

    options = "nosuid,nodev,retry=0,hard,vers=4.1,noatime,rw"
    assert nas.commands[0] == ["mount", "-t", "nfs", "-o", options, f"{HOST}:{nas.platform.folder / 'claim-1'}", first.path]
    assert first.birth == Birth(serial="claim-1", filesystem="folder", filesystem_uuid=filesystem_uuid(plan()))
    assert (first.formatted, first.is_folder, first.path) == (True, False, str(nas.staging.resolve() / "claim-1"))
    marker = nas.platform.folder / "claim-1" / ".polly-volume"
    assert marker.read_text().strip() == first.birth.filesystem_uuid

    nas.unstage(first)
    assert (nas.mounted, nas.platform.detached) == ({}, ["claim-1"])
    assert not Path(first.path).exists()

    later = nas.stage(again(first.birth))
    assert (later.birth, later.formatted) == (first.birth, False)


def test_staging_twice_mounts_once(nas: Nas) -> None:
    first = nas.stage(plan())
    assert nas.stage(plan()).birth == first.birth
    assert [words[0] for words in nas.commands].count("mount") == 1


def test_a_reader_mounts_read_only_and_marks_nothing(nas: Nas) -> None:
    born = nas.stage(plan(access_mode=AccessMode.MULTI_NODE_MULTI_WRITER))
    reader = nas.stage(again(born.birth, access=Access.RO))
    assert nas.mounted[reader.path][1].startswith("ro,")
    nas.platform.folder_of("claim-9").mkdir()
    unmarked = plan("claim-9", token="other", external_id=ExternalId("claim-9"), volume_id="vol-9", access=Access.RO, filesystem="folder")
    with pytest.raises(NotFormatted):
        nas.stage(unmarked)


@pytest.mark.parametrize(
    ("prepare", "error"), [(".polly-volume", NotAsBorn), ("data", NotBlank), (".snapshot", None), (".polly-volume.new", None)]
)
def test_what_is_on_an_export_is_judged(nas: Nas, prepare: str, error: type[Exception] | None) -> None:
    folder = nas.platform.folder_of("claim-1")
    folder.mkdir()
    (folder / prepare).write_text("00000000-0000-4000-8000-000000000000\n")
    known = Birth(serial="claim-1", filesystem="folder", filesystem_uuid=filesystem_uuid(plan())) if error is NotAsBorn else None
    wanted = plan(birth=known, external_id=ExternalId("claim-1") if known else None)
    if error is None:
        assert nas.stage(wanted).formatted
        return
    with pytest.raises(error) as caught:
        nas.stage(wanted)
    assert not may_be_held(caught.value)
    assert (nas.mounted, nas.platform.detached) == ({}, ["claim-1"])


def test_many_writers_may_have_one_export(nas: Nas) -> None:
    modes = {"access_mode": AccessMode.MULTI_NODE_MULTI_WRITER}
    first = nas.stage(plan(**modes))
    second = nas.stage(again(first.birth, **modes))
    nas.unstage(first)
    assert nas.platform.detached == []
    assert list(nas.mounted) == [second.path]
    nas.unstage(second)
    assert nas.platform.detached == ["claim-1"]


def test_a_refused_mount_is_undone(nas: Nas) -> None:
    nas.refuses = f"access denied by server while mounting {HOST}:/ifs/x"
    with pytest.raises(NodeError, match="access denied by server") as caught:
        nas.stage(plan())
    assert not may_be_held(caught.value)
    assert nas.platform.detached == ["claim-1"]
    assert attached.of(nas.staging, plan().claim_id) is None


def test_a_server_that_dies_on_the_way_leaves_the_volume_held(nas: Nas) -> None:
    def dies(staged: Staged) -> None:
        nas.dead = True

    staged = nas.stage(plan(), on_birth=dies)
    with pytest.raises(NodeError, match=r"umount failed on .*: it did not end within 5.0 s and was killed") as caught:
        nas.unstage(staged)
    assert may_be_held(caught.value)
    assert nas.platform.detached == []


def test_a_server_that_is_silent_when_its_export_is_published_is_given_up(nas: Nas, tmp_path: Path) -> None:
    """Nobody here looks at what is mounted: there is only a link without an end where it is."""
    staged = nas.stage(plan())
    shutil.rmtree(staged.path)
    Path(staged.path).symlink_to(staged.path)
    nas.dead, sandbox = True, tmp_path / "sandbox"
    sandbox.mkdir()
    with pytest.raises(NodeError, match=rf"failed on {staged.path}: it did not end within 30.0 s and was killed"):
        publish(staged, sandbox, "data", read_only=True, owner=(os.geteuid(), os.getegid()), machine=nas.machine())
    sent = [*nfs.CHILD, "storage.node.binding", "ro", f"{os.geteuid()}:{os.getegid()}", staged.path, str(sandbox), str(sandbox / "data")]
    assert nas.commands[-1] == sent


def test_an_export_is_not_published_over_what_is_there(nas: Nas, tmp_path: Path) -> None:
    staged = nas.stage(plan())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").touch()
    asked = len(nas.commands)
    with pytest.raises(UnsafePath, match="not empty"):
        publish(staged, tmp_path, "data", machine=nas.machine())
    assert len(nas.commands) == asked


def test_a_busy_export_is_waited_for_and_then_said(nas: Nas) -> None:
    staged = nas.stage(plan())
    nas.busy.add(staged.path)
    with pytest.raises(BusyMount):
        nas.unstage(staged)
    assert nas.now >= 5.0
    nas.unstage(staged, force=True)
    assert (nas.mounted, nas.platform.detached) == ({}, ["claim-1"])


def test_another_mount_in_its_place_is_an_error_and_stays(nas: Nas) -> None:
    nas.staging.mkdir()
    target = str(nas.staging.resolve() / "claim-1")
    nas.mounted[target] = (f"{HOST}:/else", "rw,nosuid,nodev")
    nas._show()
    with pytest.raises(NodeError, match="something else is mounted there"):
        nas.stage(plan())


def test_without_root_no_export_is_mounted(nas: Nas) -> None:
    with pytest.raises(Unsupported, match="needs root"):
        nas.stage(plan(), machine=Machine(may_mount=False))
    assert nas.commands == []


@pytest.mark.parametrize("source", ["nas", "nas:ifs", "-o:/x", "nas:/a,ro", ":/x"])
def test_an_export_that_is_no_export_is_refused(nas: Nas, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        nas.platform, "attach", lambda *_, **__: Attachment(external_id=ExternalId("claim-1"), device=source, serial="claim-1")
    )
    with pytest.raises(Invalid, match="HOST:/PATH"):
        nas.stage(plan())
    assert nas.commands == []


@pytest.mark.parametrize("source", ["nas:/", "10.0.0.5:/ifs/a", "[fe80::1%eth0]:/ifs/a b", "nas.example.org:/ifs/data"])
def test_an_export_may_be_named_in_each_way(source: str) -> None:
    assert nfs.SOURCE.fullmatch(source)


# --- options


def test_options_for_nfs_are_firm_unless_asked() -> None:
    assert check_nfs(()) == ("nosuid", "nodev", "retry=0", "hard")
    assert check_nfs(("soft,timeo=50", "rw")) == ("nosuid", "nodev", "retry=0", "soft", "timeo=50")
    assert check_nfs(["sec=krb5p", "nconnect=4", "noexec"])[3:] == ("hard", "sec=krb5p", "nconnect=4", "noexec")


@pytest.mark.parametrize(
    "word", ["suid", "dev", "addr=10.0.0.1", "mountport=1", "bg", "vers", "vers=4.1;x", "fsc=tag", "remount", "clientaddr=1.2.3.4"]
)
def test_what_a_profile_may_not_say_of_an_nfs_mount(word: str) -> None:
    with pytest.raises(Invalid, match="mount_options"):
        check_nfs([word])


# --- in a process of its own, for real


def test_a_folder_is_looked_at_and_marked_by_another_process(tmp_path: Path) -> None:
    uuid, machine = filesystem_uuid(plan()), Machine()
    assert nfs.look(str(tmp_path), machine).is_blank
    nfs.mark(str(tmp_path), uuid, machine, may_write=True)
    assert (nfs.look(str(tmp_path), machine).type, nfs.look(str(tmp_path), machine).uuid) == ("folder", uuid)
    with pytest.raises(NodeError, match="look failed on"):
        nfs.look(str(tmp_path / "missing"), machine)


def test_what_umount_refuses_for_another_reason_than_use_is_said_at_once(nas: Nas) -> None:
    staged = nas.stage(plan())
    nas.stays = "must be superuser to unmount."
    with pytest.raises(NodeError, match="must be superuser") as caught:
        nas.unstage(staged)
    assert (nas.now, may_be_held(caught.value), nas.platform.detached) == (0.0, True, [])
    nas.stays = ""
    nas.unstage(staged)
    assert nas.platform.detached == ["claim-1"]
