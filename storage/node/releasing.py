"""The way back: unmount, prove that nothing uses the device any more, and only then detach. Safe to repeat at any point.

A detach under a mount hangs or loses data, so it is refused as long as the kernel says that somebody uses the device.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from storage.errors import BusyMount, DeviceNotFound, NodeError, PollyError, UnknownVolume, WrongDevice
from storage.model import Access, ExternalId, VolumePlan
from storage.node import devices, mountinfo, mounts
from storage.node.journal import Journal
from storage.node.pace import Pace
from storage.node.steps import Machine, OnStep, Steps, ignore
from storage.node.targets import Target, remove_folder
from storage.platforms.base import Platform


def unstage(
    plan: VolumePlan,
    platform: Platform,
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
    target = Target.below(staging_dir, plan.claim_id)
    with alone(staging_dir, plan.volume_id, timeout_s, machine.pace):
        known = external_id or plan.external_id or _found(platform, plan)
        device = _device(target, platform, known, machine)
        unmount(target, steps, machine, device=device, timeout_s=timeout_s, force=force)
        if known is not None:
            is_shared = plan.access is Access.RO
            detach(known, platform, node_name, device, steps, machine, timeout_s=timeout_s, is_shared=is_shared)
        remove_folder(target)
    return dict(steps.took_ms)


def unmount(target: Target, steps: Steps, machine: Machine, *, device: str, timeout_s: float, force: bool) -> None:
    """Unmounts `device` from `target` if it is mounted there. Raises BusyMount, NodeError for another's mount, UnsafePath."""
    if not os.path.isdir(str(target)):
        return
    number = mounts.device_number(device) if device else None
    with steps.step("unmount", target=str(target)):
        mounts.unmount(target, device=number, timeout_s=timeout_s, force=force, pace=machine.pace, proc=machine.roots.proc)


def detach(
    external_id: ExternalId,
    platform: Platform,
    node: str,
    device: str,
    steps: Steps,
    machine: Machine,
    *,
    timeout_s: float,
    is_shared: bool,
) -> None:
    """Detaches the volume once its device is in nobody's use. One that other readers on this node still use stays attached.

    Raises BusyMount and what the platform raises.
    """
    with steps.step("detach", external_id=external_id, device=device):
        if device and not _let_go(device, machine, timeout_s):
            if is_shared:
                return
            raise BusyMount(target=device, timeout_s=timeout_s, holders="a mount in another namespace or another program")
        platform.detach(external_id, node)


@contextmanager
def alone(staging_dir: Path, name: str, timeout_s: float, pace: Pace) -> Iterator[None]:
    """Keeps a second stage or unstage of the same volume in the same folder waiting. Raises NodeError after `timeout_s`."""
    file = staging_dir / f".{name}.lock"
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not pace.until(lambda: _locked(fd), timeout_s=timeout_s, every_s=0.05):
            raise NodeError(command="flock", target=str(file), reason="another process stages or unstages this volume")
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _found(platform: Platform, plan: VolumePlan) -> ExternalId | None:
    report = platform.find(plan.token)
    return report.external_id if report else None


def _device(target: Target, platform: Platform, external_id: ExternalId | None, machine: Machine) -> str:
    """The device that is mounted at `target`, or that the volume has on this node; empty if there is none."""
    if found := mountinfo.at(str(target), machine.roots.proc):
        return found.source
    if external_id is None or platform.capabilities.device != "block":
        return ""
    try:
        return devices.find(platform.inspect(external_id).serial, roots=machine.roots, pace=machine.pace, timeout_s=0.0)
    except (DeviceNotFound, WrongDevice, UnknownVolume):
        return ""


def _let_go(device: str, machine: Machine, timeout_s: float) -> bool:
    """Whether nothing uses the device, waiting for that. One that is gone, or has become another volume's, counts as let go."""
    name = Path(device).name
    serials = devices.serials(name, machine.roots)

    def is_free() -> bool:
        try:
            return devices.serials(name, machine.roots) != serials or not devices.in_use(device)
        except PollyError:
            return not os.path.exists(device)

    if not machine.pace.until(is_free, timeout_s=timeout_s, every_s=0.1):
        return False
    devices.forget(device, machine.roots)
    return True
