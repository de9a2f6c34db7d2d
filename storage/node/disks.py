"""A disk with all its paths: who uses it by any of them, how it grows, and how it goes from the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Final

from storage.errors import DeviceInUse, NodeError
from storage.node import devices, mapping, multipath, scini, scsi
from storage.node.devices import Roots

LOOP_SET_CAPACITY: Final = 0x4C07
LOOKED_AT_S: Final = 5.0
"""How long a map may have somebody who looks at it after it was unmounted."""


# --- who else uses it --------------------------------------------------------------------------------------


def refuse_held(device: str, roots: Roots, *, alone: bool) -> None:
    """Raises DeviceInUse if another block device (dm, md, bcache) is built on this one; `alone`: or its disk is used by another path."""
    name = Path(device).name
    first, *beside = _ways(name, roots)
    if alone and (used := [path for path in beside if _is_used(path, first, roots)]):
        raise DeviceInUse(device=device, holders=f"a mount or another program on {', '.join(used)}, another path to the same disk")
    if held_by := devices.listed(roots.sys / "block" / name / "holders"):
        raise DeviceInUse(device=device, holders=", ".join(held_by))


def has_users(device: str, roots: Roots) -> bool:
    """Whether the disk is in exclusive use by any of its paths: the kernel knows nothing of one user by another. Raises NodeError."""
    first, *beside = _ways(Path(device).name, roots)
    return _in_use(first, roots) or any(_is_used(path, first, roots) for path in beside)


def _is_used(path: str, first: str, roots: Roots) -> bool:
    """Whether another than the map `first` uses the path. One that fails while it is looked at is none."""
    with suppress(NodeError):
        return _in_use(path, roots) and multipath.map_over(path, roots.sys) != first
    return False


def _in_use(name: str, roots: Roots) -> bool:
    """Raises NodeError.

    A disk whose path is lost cannot be opened, so its users are read from sysfs, which shows a filesystem until the last mount of it is
    gone, in whatever namespace. What else may have it open writes nothing any more once the disk is gone from the kernel.
    """
    if scsi.is_cut_off(roots.sys / "block" / name):
        return any((roots.sys / "fs").glob(f"*/{name}")) or bool(devices.listed(roots.sys / "block" / name / "holders"))
    return devices.in_use(str(roots.dev / name))


def _ways(name: str, roots: Roots) -> list[str]:
    """All that leads to the disk, first what is used of it: the device, or the map that stands for it."""
    found = _map_of(name, roots)
    beside = (path for path in _paths(name, roots) if path != name and (roots.dev / path).exists())
    return [found or name, *beside]


def _map_of(name: str, roots: Roots) -> str:
    return name if multipath.is_map(name, roots.sys) else mapping.true_map(name, roots)


def _paths(name: str, roots: Roots) -> list[str]:
    """All paths to the disk, under a map or not; what lies under its map and has become another volume's is none."""
    sys = roots.sys
    if not multipath.is_map(name, sys):
        return multipath.siblings(name, sys)
    return [path for path in devices.listed(sys / "block") if multipath.is_path_of(path, name, sys)]


# --- how it grows --------------------------------------------------------------------------------------------


def rescan_size(device: str, roots: Roots) -> None:
    """Lets the kernel see that the device has grown, by all its paths; safe at any time. Raises NodeError."""
    name = Path(device).name
    if name.startswith(scini.DEVICES):
        roots.sdc.rescan()
    if (roots.sys / "block" / name / "loop").is_dir():
        with devices.shared(device) as fd:
            devices.ioctl(device, fd, LOOP_SET_CAPACITY)
    for path in _paths(name, roots):
        disk = roots.sys / "block" / path / "device"  # of an NVMe disk with several paths it is the subsystem, with the controllers in it
        for verb in (disk / "rescan", disk / "rescan_controller", *sorted(disk.glob("nvme*/rescan_controller"))):
            if verb.exists():
                devices.write(verb, "1")
    if multipath.is_map(name, roots.sys):
        roots.multipathd.resize(multipath.name_of(name, roots.sys))


# --- how it goes -----------------------------------------------------------------------------------------------


def forget(device: str, roots: Roots) -> None:
    """Removes a SCSI disk with its map and all its paths from the kernel, after its unmount and before its unmapping; nothing for other
    kinds.

    A disk that is unmapped first stays as a ghost, which the next one under the same number is taken for. Raises NodeError.
    """
    name = Path(device).name
    found, paths = _map_of(name, roots), _paths(name, roots)
    verbs = [verb for path in paths if (verb := roots.sys / "block" / path / "device" / "delete").exists()]
    if found:
        _remove(found, roots)
    elif verbs and not scsi.is_cut_off(roots.sys / "block" / name):
        devices.flush(device)
    for verb in verbs:
        devices.write(verb, "1")


def _remove(name: str, roots: Roots) -> None:
    if mapping.is_true(name, roots):  # else what is in its buffers has nowhere to go, or would go to another volume
        devices.flush(str(roots.dev / name))
    roots.multipathd.remove(multipath.name_of(name, roots.sys), patience_s=LOOKED_AT_S)


@contextmanager
def unstuck(device: str, after_s: float, roots: Roots) -> Iterator[None]:
    """Meanwhile, once `after_s` seconds are over, a map without a path that works lets fail what it would queue for ever."""
    timer = Timer(after_s, unstick, (device, roots))
    timer.daemon = True
    if after_s > 0 and multipath.is_map(Path(device).name, roots.sys):
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def unstick(device: str, roots: Roots) -> bool:
    """Whether the device is a map without a path that works, which then lets fail what it would queue for ever."""
    name = Path(device).name
    paths = multipath.paths_of(name, roots.sys)
    works = any(scsi.is_itself(roots.sys / "block" / path, roots.dev / path, roots.inquire) for path in paths)
    if works or not multipath.is_map(name, roots.sys):
        return False
    with suppress(NodeError):
        roots.multipathd.give_up(multipath.name_of(name, roots.sys))
    return True
