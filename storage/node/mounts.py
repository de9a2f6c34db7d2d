"""Mounting, binding and unmounting, each read back from the kernel.

Doing the same again is fine; meeting another mount than one's own is an error, never a reason to unmount it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from storage.errors import BusyMount, DamagedFilesystem, NodeError
from storage.node import mountinfo, syscalls
from storage.node.holders import holders, is_under
from storage.node.mountinfo import Mount
from storage.node.options import MOUNT_FLAGS, MOUNT_SHOWN, MountOptions
from storage.node.pace import Pace
from storage.node.targets import FOLDER, Target, empty_folder

PROC: Final = Path("/proc")
BROKEN: Final = frozenset({errno.EUCLEAN, errno.EBADMSG, errno.EIO})
"""What mount(2) says of a filesystem whose structure is not whole."""
UNREPLAYED: Final = "its journal was not replayed; it must be mounted for writing once"


# --- mounting --------------------------------------------------------------------------------------------


def mount_device(
    device: str, filesystem: str, target: Target, options: MountOptions, *, read_only: bool = False, proc: Path = PROC
) -> Mount:
    """Mounts a filesystem, nosuid and nodev. Mounted there already from this device with these options is fine.

    Raises UnsafePath, DamagedFilesystem, NodeError.
    """
    options = options.read_only() if read_only else options
    number = device_number(device)
    if found := mountinfo.at(str(target), proc):
        return _same(found, number, "/", options.shown, read_only)
    with empty_folder(target) as place:
        try:
            syscalls.mount(device, place, filesystem, options.flags, options.data)
        except OSError as error:
            raise _mount_failed(device, filesystem, target, read_only, error) from error
    return _read_back(target, number, "/", options.shown, read_only, proc)


def bind(source: Path, target: Target, *, read_only: bool = False, proc: Path = PROC) -> Mount:
    """Shows the folder `source`, or what it is a link to, at `target` too: nosuid, nodev, else with the options of its own mount.

    Bound there already is fine. Raises UnsafePath, NodeError.
    """
    mounts = mountinfo.read(proc)
    real = os.path.realpath(source)
    over = max((mount for mount in mounts if is_under(real, mount.target)), key=lambda mount: len(mount.target))
    root = os.path.normpath(os.path.join(over.root, os.path.relpath(real, over.target)))
    kept = over.options & MOUNT_SHOWN
    options = MountOptions(flags=MountOptions().flags | sum(MOUNT_FLAGS[word] for word in kept), shown=kept | {"nosuid", "nodev"})
    read_only = read_only or over.read_only
    if found := mountinfo.top(str(target), mounts):
        return _same(found, over.device, root, options.shown, read_only)
    _bind(Path(real), target, options.read_only() if read_only else options)
    return _read_back(target, over.device, root, options.shown, read_only, proc)


def _bind(source: Path, target: Target, options: MountOptions) -> None:
    with ExitStack() as undo:
        try:
            with _opened(source) as folder, empty_folder(target) as place:
                syscalls.mount(folder, place, "", syscalls.MS_BIND)
            undo.callback(detach_quietly, target)
            # The first call binds with the source's options; only a remount of the bind can set others.
            with target.parent() as parent:
                place = f"/proc/self/fd/{parent}/{target.name}"
                syscalls.mount("none", place, "", syscalls.MS_BIND | syscalls.MS_REMOUNT | options.flags)
        except OSError as error:
            raise NodeError(command="mount --bind", target=str(target), reason=os.strerror(error.errno or 0)) from error
        undo.pop_all()


def device_number(device: str) -> str:
    """major:minor of a block device. Raises NodeError."""
    try:
        number = os.stat(device).st_rdev
    except OSError as error:
        raise NodeError(command="stat", target=device, reason=os.strerror(error.errno or 0)) from error
    return f"{os.major(number)}:{os.minor(number)}"


@contextmanager
def _opened(folder: Path) -> Iterator[str]:
    fd = os.open(folder, FOLDER)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _same(found: Mount, number: str, root: str, shown: frozenset[str], read_only: bool) -> Mount:
    """`found`, if it is what was to be mounted. Raises NodeError."""
    if (found.device, found.root, found.read_only) != (number, root, read_only) or not shown <= found.options:
        wanted = f"device {number}, root {root}, {'ro' if read_only else 'rw'},{','.join(sorted(shown))}"
        is_there = f"device {found.device}, root {found.root}, {','.join(sorted(found.options))}"
        raise NodeError(command="mount", target=found.target, reason=f"something else is mounted there: {is_there}; wanted was {wanted}")
    return found


def _read_back(target: Target, number: str, root: str, shown: frozenset[str], read_only: bool, proc: Path) -> Mount:
    found = mountinfo.at(str(target), proc)
    if found is None:
        raise NodeError(command="mount", target=str(target), reason="the kernel took it but does not show it")
    return _same(found, number, root, shown, read_only)


def _mount_failed(device: str, filesystem: str, target: Target, read_only: bool, error: OSError) -> NodeError:
    reason = f"{os.strerror(error.errno or 0)} (the kernel's log says more)"
    if error.errno in BROKEN:
        return DamagedFilesystem(device=device, reason=f"the kernel does not mount it: {reason}")
    if error.errno == errno.EROFS and read_only:
        return DamagedFilesystem(device=device, reason=UNREPLAYED)
    return NodeError(command=f"mount -t {filesystem}", target=str(target), reason=reason)


def detach_quietly(target: Target) -> None:
    """Takes a mount out of sight without asking what is mounted. None there is fine."""
    with suppress(OSError), target.parent() as parent:
        syscalls.umount(f"/proc/self/fd/{parent}/{target.name}", syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)


# --- unmounting --------------------------------------------------------------------------------------------


def unmount(
    target: Target, *, device: str | None = None, timeout_s: float = 10.0, force: bool = False, pace: Pace, proc: Path = PROC
) -> bool:
    """Unmounts what is at `target`, waits while it is busy, reads back. Whether there was a mount. The folder stays.

    `device` (major:minor) is what must be mounted there: anything else is not ours and stays (NodeError). With `force`
    a mount that is busy to the end is taken out of sight (lazily), which does not mean that nothing uses it any more.
    Raises BusyMount, naming who uses it; UnsafePath.
    """
    found = mountinfo.at(str(target), proc)
    if found is None:
        return False
    if device is not None and found.device != device:
        raise NodeError(command="umount", target=str(target), reason=f"device {found.device} is mounted there, not ours ({device})")
    if not pace.until(lambda: _try_umount(target, 0), timeout_s=timeout_s, every_s=0.1):
        if not force:
            raise BusyMount(target=str(target), timeout_s=timeout_s, holders=", ".join(holders(str(target), proc)) or "something unseen")
        _try_umount(target, syscalls.MNT_DETACH)
    if left := mountinfo.at(str(target), proc):
        raise NodeError(command="umount", target=str(target), reason=f"device {left.device} is still mounted there")
    return True


def moved(mount: Mount, proc: Path = PROC) -> Target | None:
    """Where a mount of this process is seen now: whoever renames a folder above a mount takes it along. None if it is gone."""
    now = next((found for found in mountinfo.read(proc) if found.mount_id == mount.mount_id), None)
    is_same = now is not None and (now.device, now.root) == (mount.device, mount.root)
    return Target.below(Path("/"), now.target) if now and is_same else None


def _try_umount(target: Target, flags: int) -> bool:
    """False: it is busy. Raises NodeError."""
    with target.parent() as parent:
        try:
            # Through the parent: a descriptor of the mounted folder itself would keep it busy.
            syscalls.umount(f"/proc/self/fd/{parent}/{target.name}", flags | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise NodeError(command="umount", target=str(target), reason=os.strerror(error.errno or 0)) from error
    return True
