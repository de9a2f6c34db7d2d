"""What the tests have done in the guest: the node's own code, on the guest's own devices. Its platform stays outside and is asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from storage.model import Birth, ExternalId, VolumePlan
from storage.node import commands, devices, mountinfo, mounts, publishing, releasing, staging
from storage.node.commands import Output
from storage.node.journal import Journal
from storage.node.mountinfo import Mount
from storage.node.pace import Deadline
from storage.node.publishing import Published
from storage.node.staged import Staged
from storage.node.steps import Machine
from storage.platforms.base import Attachment, Capabilities, CreateRequest, VolumeReport
from tests.guest import multipathing
from tests.peers._guest_agent import ask
from tests.support import EMULATED_S, eventually

STATE: Final = Path("/run/polly")
STAGING: Final = STATE / "staging"
NODE: Final = "i-0123456789abcdef0"


class Asking:
    """The platform as a node sees it that has no credentials: each verb is asked of whoever is outside."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.name, self.capabilities = "outside", capabilities

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        report: VolumeReport = ask("inspect", external_id)
        return report

    def find(self, token: str) -> VolumeReport | None:
        report: VolumeReport | None = ask("find", token)
        return report

    def create(self, request: CreateRequest) -> VolumeReport:
        report: VolumeReport = ask("create", request)
        return report

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        attachment: Attachment = ask("attach", external_id, node, epoch=epoch, read_only=read_only)
        return attachment

    def detach(self, external_id: ExternalId, node: str) -> None:
        ask("detach", external_id, node)

    def inheritable(self, external_id: ExternalId) -> int | None:
        return None

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        ask("record_birth", external_id, birth, epoch=epoch)

    def close(self) -> None:
        """Nothing is open."""


def _journal() -> Journal:
    STATE.mkdir(parents=True, exist_ok=True)
    return Journal(STATE / "journal", clock=time.time)


def _machine(device_wait_s: float, patience_s: float, taken_before: str = "") -> Machine:
    """This machine; a tool may take no longer than `patience_s`, whatever the node would allow it. Before tool `taken_before` is
    begun on a path, multipathd takes that for a map."""

    def run(command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        if command[0] == taken_before:
            multipathing.take(paths[0])
        return commands.run(command, *paths, ok=ok, timeout_s=min(timeout_s, patience_s), writes=writes)

    return Machine(device_wait_s=device_wait_s, run=run)


def stage(
    plan: VolumePlan, capabilities: Capabilities, *, device_wait_s: float = 30.0, patience_s: float = 60.0, taken_before: str = ""
) -> Staged:
    return staging.stage(
        plan,
        Asking(capabilities),
        NODE,
        staging_dir=STAGING,
        deadline=Deadline.of(60.0),
        journal=_journal(),
        on_birth=lambda _: None,  # the caller has it from what is returned; so the platform bears it before the mount
        machine=_machine(device_wait_s, patience_s, taken_before),
    )


def unstage(plan: VolumePlan, capabilities: Capabilities, *, timeout_s: float = 20.0, force: bool = False) -> Mapping[str, float]:
    return releasing.unstage(plan, Asking(capabilities), NODE, staging_dir=STAGING, journal=_journal(), timeout_s=timeout_s, force=force)


def sweep() -> None:
    """What the node's next executor begins with."""
    releasing.sweep(STAGING, Machine())


def publish(staged: Staged, root: Path, path: str, *, patience_s: float = 60.0, **options: Any) -> Published:
    return publishing.publish(staged, root, path, machine=_machine(0.0, patience_s), **options)


# --- what is there --------------------------------------------------------------------------------------------


def device_of(serial: str, timeout_s: float = 20.0) -> str:
    """The device with this serial, as a node finds it."""
    machine = Machine()
    return devices.find(serial, roots=machine.roots, pace=machine.pace, timeout_s=timeout_s)


def mounted(serial: str) -> str:
    """The device with this serial if it is mounted somewhere; else nothing."""
    sources = {mount.source for mount in mountinfo.read()}
    return next((device for name in disks_of(serial) if (device := f"/dev/{name}") in sources), "")


def left() -> list[str]:
    """What is staged or mounted, or kept of a claim."""
    mounts = [mount.target for mount in mountinfo.read() if mount.target.startswith(f"{STAGING}/")]
    return mounts + [name for name in (os.listdir(STAGING) if STAGING.exists() else ()) if not name.endswith(".lock")]


def clean_up() -> None:
    for mount in mountinfo.read():
        if mount.target.startswith(f"{STAGING}/"):
            subprocess.run(["umount", "--lazy", "--force", mount.target], check=False)
    shutil.rmtree(STATE, ignore_errors=True)
    shutil.rmtree("/dev/disk", ignore_errors=True)


def disks_of(serial: str) -> list[str]:
    """All devices with this serial."""
    return [name for name in sorted(os.listdir("/sys/block")) if devices.matches(serial, name, devices.Roots())]


def numbers_of(serial: str, count: int) -> list[str]:
    """major:minor of that many devices with this serial, once they are there."""
    eventually(lambda: len(disks_of(serial)) == count, EMULATED_S, f"{count} devices with serial {serial}")
    return [mounts.device_number(f"/dev/{name}") for name in disks_of(serial)]


def hold(file: str, words: str) -> None:
    """Writes to a file that it keeps open until it is killed or answered."""
    with open(file, "w") as opened:
        opened.write(words)
        opened.flush()
        ask("held")


def write(file: str, words: str, *, sync: bool = False) -> None:
    with open(file, "w") as opened:
        opened.write(words)
        if sync:
            opened.flush()
            os.fsync(opened.fileno())


def read(file: str) -> str:
    return Path(file).read_text()


def is_mounted(folder: str) -> bool:
    return mountinfo.at(folder) is not None


def mount_at(folder: str) -> Mount:
    found = mountinfo.at(folder)
    assert found is not None, f"nothing is mounted at {folder}"
    return found


def exports() -> list[str]:
    """The servers of all exports that any process of the guest has mounted, once each."""
    tables = [Path("/proc/self/mountinfo"), *Path("/proc").glob("[0-9]*/mountinfo")]
    found = set()
    for table in tables:
        with contextlib.suppress(OSError):
            found |= {line.split(" - ")[1].split()[1].partition(":")[0] for line in table.read_text().splitlines() if " - nfs" in line}
    return sorted(found)


def relay(listen: tuple[str, int], onward: tuple[str, int]) -> None:
    """Hands on what comes to one address to another, each connection by a thread for each way, until it is killed or answered."""
    with socket.create_server(listen) as server:
        threading.Thread(target=_take_in, args=(server, onward), daemon=True).start()
        ask("relaying")


def _take_in(server: socket.socket, onward: tuple[str, int]) -> None:
    while True:
        near, _ = server.accept()
        far = socket.create_connection(onward)
        for there, back in ((near, far), (far, near)):
            threading.Thread(target=_hand_on, args=(there, back), daemon=True).start()


def _hand_on(there: socket.socket, back: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while words := there.recv(1 << 16):
            back.sendall(words)
    for end in (there, back):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def program(command: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """Runs a program until this call is killed or answered: then it sees the end of its input."""
    with open(log, "ab") as opened:
        subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE, stdout=opened, stderr=opened)
        ask("started")


def executors() -> dict[str, int]:
    """The process of each executor of Mesos, by its id: the first of those that its agent has started for it."""
    found: dict[str, int] = {}
    for process in sorted(int(place.name) for place in Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{process}")
            words = dict(word.split(b"=", 1) for word in (place / "environ").read_bytes().split(b"\0") if b"=" in word)
            if b"MESOS_EXECUTOR_ID" in words and b"executors.main" in (place / "cmdline").read_bytes().split(b"\0"):
                found.setdefault(words[b"MESOS_EXECUTOR_ID"].decode(), process)
    return found


def link(link: str, device: str) -> None:
    """A link as udev makes it."""
    Path(link).parent.mkdir(parents=True, exist_ok=True)
    Path(link).symlink_to(device)


def size_mib(folder: str) -> int:
    return shutil.disk_usage(folder).total >> 20
