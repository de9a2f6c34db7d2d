"""The way back: unmount, prove that nothing uses the device any more, and only then detach. Safe to repeat at any point.

A detach under a mount hangs or loses data, so it is refused as long as the kernel says that somebody uses the device.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.errors import BusyMount, DeviceNotFound, NodeError, PollyError, UnknownVolume, WrongDevice
from storage.model import Access, ExternalId, VolumePlan
from storage.node import attached, devices, disks, mountinfo, mounts, nfs, places
from storage.node.attacher import Attacher
from storage.node.journal import Journal
from storage.node.pace import Pace
from storage.node.steps import Machine, OnStep, Steps, ignore
from storage.node.targets import Target
from storage.node.transports import transport_of
from storage.platforms.base import Attachment

UNSTUCK_S: Final = 5.0
"""How long the kernel may take to end a mount on a map that does not queue any more."""


def unstage(
    plan: VolumePlan,
    platform: Attacher,
    node_name: str,
    *,
    staging_dir: Path,
    journal: Journal,
    external_id: ExternalId | None = None,
    on_step: OnStep = ignore,
    machine: Machine | None = None,
    timeout_s: float = 30.0,
    force: bool = False,
) -> Mapping[str, float]:
    """Undoes `stage` of the same plan, also one of a process that is dead. Returns the milliseconds of unmount and detach.

    `external_id` is what `stage` told, if it did. Unstaged already is fine. With `force` a mount that stays busy is taken
    out of sight; the volume is not detached all the same while anything uses it. Raises BusyMount, NodeError and what
    the platform raises; then the node may still hold the volume.
    """
    machine = machine or Machine()
    steps = Steps(subject=plan.claim_id, journal=journal, on_step=on_step, pace=machine.pace)
    release = Release(plan, platform, node_name, staging_dir, steps, machine, timeout_s)
    with alone(staging_dir, plan.volume_id, timeout_s, machine.pace):
        known = external_id or plan.external_id or _found(platform, plan)
        device, seen = release.device(known)
        release.unmount(device, force=force)
        if known is not None:
            release.detach(known, device, seen)
        places.leave(release.target)
    return dict(steps.took_ms)


@dataclass(frozen=True, slots=True)
class Release:
    """One claim's way back, whoever brought it; both parts are safe to repeat."""

    plan: VolumePlan
    platform: Attacher
    node: str
    staging_dir: Path
    steps: Steps
    machine: Machine
    timeout_s: float

    @property
    def target(self) -> Target:
        return Target.below(self.staging_dir, self.plan.claim_id)

    def device(self, external_id: ExternalId | None, attachment: Attachment | None = None) -> tuple[str, tuple[str, ...]]:
        """The device that is mounted at the target, or that the volume has on this node, for another claim too; empty if there is none.

        With its identity, by which it is known again. Raises what the platform raises: a detach without knowing that could take the
        volume from another claim's task.
        """
        found = self._here(external_id, attachment or attached.of(self.staging_dir, self.plan.claim_id))
        return found, _identity(found, self.machine)

    def _here(self, external_id: ExternalId | None, attachment: Attachment | None) -> str:
        if found := mountinfo.at(str(self.target), self.machine.roots.proc):
            return "" if found.filesystem in nfs.TYPES else found.source
        if external_id is None or self.platform.capabilities.device != "block":
            return ""
        try:
            serial = attachment.serial if attachment else self.platform.inspect(external_id).serial
        except UnknownVolume:
            return ""
        return _device_of(serial, self.machine, _name_of(attachment) if attachment else "")

    def unmount(self, device: str, *, force: bool) -> None:
        """Unmounts what `stage` has mounted, if it is mounted. Raises BusyMount, NodeError for another's mount, UnsafePath."""
        target, machine = self.target, self.machine
        found = mountinfo.at(str(target), machine.roots.proc)
        if found is None and not os.path.isdir(str(target)):  # whoever looks at a mounted export hangs with its server
            return
        with self.steps.step("unmount", target=str(target)):
            if found and found.filesystem in nfs.TYPES:
                nfs.unmount(target, timeout_s=self.timeout_s, force=force, machine=machine)
                return
            gone = found is not None and found.source == device and not os.path.exists(device)
            # A disk that vanished under its mount has no node any more; then only the mount itself still says its number.
            number = found.device if found and gone else mounts.device_number(device) if device else None
            with disks.unstuck(device, self.timeout_s / 2, machine.roots):
                mounts.unmount(target, device=number, timeout_s=self.timeout_s, force=force, pace=machine.pace, proc=machine.roots.proc)

    def detach(self, external_id: ExternalId, device: str, seen: tuple[str, ...], attachment: Attachment | None = None) -> None:
        """Disconnects and detaches the volume once its device, which had the identity `seen`, is in nobody's use.

        One that other claims on this node still use stays attached. Raises BusyMount, NodeError and what the platform raises.
        """
        attachment = attachment or attached.of(self.staging_dir, self.plan.claim_id)
        with self.steps.step("detach", external_id=external_id, device=device):
            if not self._is_shared(device, seen):
                if attachment and (transport := transport_of(attachment)):
                    transport.disconnect(attachment, self.machine)
                self.platform.detach(external_id, self.node)
            attached.drop(self.staging_dir, self.plan.claim_id)

    def _is_shared(self, device: str, seen: tuple[str, ...]) -> bool:
        """Whether another claim on this node goes on using the volume. Raises BusyMount where nobody else may."""
        if not device:
            return attached.has_others(self.staging_dir, self.plan)
        if let_go(device, seen, self.machine, self.timeout_s):
            return False
        if self.plan.access is Access.RO:
            return True
        raise BusyMount(target=device, timeout_s=self.timeout_s, holders="a mount in another namespace or another program")


def sweep(staging_dir: Path, machine: Machine) -> None:
    """Disconnects what processes that are dead have left connected on this node, where nothing uses it, and removes their empty folders.

    What fails stays for the next.
    """
    for record in attached.left_behind(staging_dir):
        with suppress(PollyError), alone(staging_dir, record.volume_id, 0.0, machine.pace):
            device = _device_of(record.attachment.serial, machine, _name_of(record.attachment))
            is_stuck = not attached.has_others(staging_dir, record) and disks.unstick(device, machine.roots)
            if device and not let_go(device, _identity(device, machine), machine, UNSTUCK_S if is_stuck else 0.0):
                continue
            if transport := transport_of(record.attachment):
                transport.disconnect(record.attachment, machine)
            attached.drop(staging_dir, record.claim_id)
    if machine.may_mount:
        with suppress(PollyError, OSError):
            places.remove_left(staging_dir, machine.roots.proc)


@contextmanager
def alone(staging_dir: Path, name: str, timeout_s: float, pace: Pace) -> Iterator[None]:
    """Keeps a second stage or unstage of the same volume in the same folder waiting. Raises NodeError after `timeout_s`."""
    file = staging_dir / f".{name}.lock"
    taken: list[int] = []
    if not pace.until(lambda: _take(file, taken), timeout_s=timeout_s, every_s=0.05):
        raise NodeError(command="flock", target=str(file), reason="another process stages or unstages this volume")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # a node sees many volumes, and each would leave a file
        _give_up(taken[0])


def _take(file: Path, taken: list[int]) -> bool:
    """Adds the lock's descriptor to `taken`. A file that its last holder has removed meanwhile is no lock any more."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.lstat(file)):
            taken.append(fd)
            return True
    _give_up(fd)
    return False


def _give_up(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)  # closing is not enough while a child that is being started has a copy
    os.close(fd)


def _found(platform: Attacher, plan: VolumePlan) -> ExternalId | None:
    report = platform.find(plan.token)
    return report.external_id if report else None


def _name_of(attachment: Attachment) -> str:
    """The name that a disk came up under by itself; what a transport brought is found by its serial."""
    return "" if attachment.transport else attachment.device


def _device_of(serial: str, machine: Machine, hint: str) -> str:
    try:
        return devices.find(serial, hint=hint, roots=machine.roots, pace=machine.pace, timeout_s=0.0)
    except (DeviceNotFound, WrongDevice):
        return devices.shown(serial, machine.roots)


def _identity(device: str, machine: Machine) -> tuple[str, ...]:
    return devices.identity(Path(device).name, machine.roots) if device else ()


def let_go(device: str, seen: tuple[str, ...], machine: Machine, timeout_s: float) -> bool:
    """Whether nothing uses the device, which had the identity `seen`, waiting for that; its disk is then gone from the kernel.

    One that is gone, or has become another volume's, counts as let go, and nothing is done with it.
    """

    def is_free() -> bool:
        try:
            return _is_anothers(device, seen, machine) or not disks.has_users(device, machine.roots)
        except PollyError:
            return not os.path.exists(device)

    with disks.unstuck(device, timeout_s / 2, machine.roots):
        if not machine.pace.until(is_free, timeout_s=timeout_s, every_s=0.1):
            return False
        if _identity(device, machine) == seen:
            disks.forget(device, machine.roots)
    return True


def _is_anothers(device: str, seen: tuple[str, ...], machine: Machine) -> bool:
    """A device that says nothing may still be the one that it was."""
    now = _identity(device, machine)
    return bool(now) and now != seen
