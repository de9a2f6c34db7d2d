"""Block devices: found by what they are, never by the name that somebody asked for, and looked at twice before use.

Links under /dev/disk/by-id can be stale and device names are used again, so a device counts only if sysfs says the
volume's serial of it, or for PowerFlex' devices their driver does, and a SCSI disk says so itself. The roots of /dev and /sys are
passed in; nothing here needs udev.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from storage.errors import DeviceInUse, DeviceNotFound, NodeError, UnsafePath, WrongDevice
from storage.node import google_disks, mapping, multipath, scini, scsi
from storage.node.google_disks import IdentifyNamespace
from storage.node.multipathd import Multipathd
from storage.node.pace import Pace

BLKGETSIZE64: Final = 0x80081272
BLKFLSBUF: Final = 0x1261

PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9]+")
XEN_NAME: Final = re.compile(r"xvd[a-z]{1,2}")
UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What volumes of OpenStack are named by; the file or the target that one is has more in its name."""
SESSION: Final = re.compile(r"session[0-9]+")
VIRTIO_SERIAL: Final = 20
"""Bytes of a serial that a virtio disk can show; the rest is cut off."""
RESCAN_EVERY_S: Final = 10.0
"""How often SCSI hosts are told to look again: nobody tells them of a LUN that was mapped while the way to its array was lost."""


def is_block(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISBLK(path.stat().st_mode)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the kernel's trees are, and how to tell a block device."""

    dev: Path = Path("/dev")
    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    is_block: Callable[[Path], bool] = is_block
    sdc: scini.Sdc = field(default_factory=scini.Sdc)
    identify_namespace: IdentifyNamespace = google_disks.identify_namespace
    inquire: scsi.Inquire = scsi.inquire
    multipathd: Multipathd = field(default_factory=Multipathd)


# --- which device ----------------------------------------------------------------------------------------


def find(serial: str, *, hint: str = "", roots: Roots, pace: Pace, timeout_s: float) -> str:
    """The path of the device with this serial, such as /dev/nvme1n1; waits for it until `timeout_s` seconds are over.

    `hint` is where it should be: a device's path or a link to one. A hint that leads to another device is stale and is
    passed over, for a while; links under by-id and then all of sysfs are looked through. A virtual disk of Xen's has no
    serial, so there the hint itself counts. Raises DeviceNotFound, or WrongDevice if the hint led to another device to the
    end, or UnsafePath.
    """
    if not serial:
        raise WrongDevice(device=hint or "?", found="", expected="(none was given)")
    found: list[str] = []
    end = pace.now() + timeout_s

    def came_up() -> bool:
        names = (name for name in _candidates(serial, hint, roots) if matches(serial, name, roots) and _is_itself(name, roots))
        found.extend(islice(names, 1))
        if not found and hint and (name := _named_by_xen(Path(hint), roots)):
            found.append(name)
        return bool(found)

    if came_up():
        return _whole(found[0], roots, pace, timeout_s)
    while pace.now() < end:
        # Where /sys may not be written, the device may still come by itself.
        with suppress(NodeError):
            rescan_hosts(roots)
        _look_again(roots)
        if pace.until(came_up, timeout_s=min(RESCAN_EVERY_S, end - pace.now())):
            return _whole(found[0], roots, pace, max(0.0, end - pace.now()))
    stale = _resolve(Path(hint), roots) if hint else None
    if stale:
        raise WrongDevice(device=str(roots.dev / stale), found=" or ".join(serials(stale, roots)), expected=serial)
    raise DeviceNotFound(serial=serial, timeout_s=timeout_s)


def _is_itself(name: str, roots: Roots) -> bool:
    return scsi.is_itself(roots.sys / "block" / name, roots.dev / name, roots.inquire)


def _look_again(roots: Roots) -> None:
    """What is waited for may have come up as a disk that the kernel takes for another."""
    for name in listed(roots.sys / "block"):
        if PLAIN_NAME.fullmatch(name):
            with suppress(OSError):
                scsi.look_again(roots.sys / "block" / name, roots.dev / name, roots.inquire)


def _whole(name: str, roots: Roots, pace: Pace, timeout_s: float) -> str:
    """The device, or the multipath map that it is a path of."""
    return str(roots.dev / mapping.over(name, roots, pace, timeout_s))


def shown(serial: str, roots: Roots) -> str:
    """What the kernel shows as the volume with this serial, whether it answers or not: its multipath map, or a disk that does not say
    that it is another's. Empty where there is none."""
    names = (name for name in (*multipath.maps(roots.sys), *listed(roots.sys / "block")) if matches(serial, name, roots))
    return next((str(roots.dev / name) for name in names if not _is_anothers(name, roots)), "")


def _is_anothers(name: str, roots: Roots) -> bool:
    return scsi.is_anothers(roots.sys / "block" / name, roots.dev / name, roots.inquire)


def identity(name: str, roots: Roots) -> tuple[str, ...]:
    """By what device `name` is known again under its name: a map by its uuid, whatever its paths lead to by now."""
    uuid = multipath.uuid_of(name, roots.sys)
    return (uuid,) if uuid else serials(name, roots)


def serials(name: str, roots: Roots) -> tuple[str, ...]:
    """All that sysfs offers as the serial of device `name`, such as `nvme1n1`; what a device of PowerFlex or Google says itself."""
    if name.startswith(scini.DEVICES):
        return _told(name, roots)
    if multipath.is_map(name, roots.sys):
        return _of_map(name, roots)
    block = roots.sys / "block" / name
    if backing := _text(block / "loop" / "backing_file"):
        file = Path(backing.removesuffix(" (deleted)"))
        return (str(file), file.name, file.stem, *UUID.findall(file.name)[:1])
    said = [_text(block / place) for place in ("serial", "device/serial", "wwid", "device/wwid")]
    said += [_page_80(block), _of_target(block, roots), google_disks.device_name(block, roots.dev / name, roots.identify_namespace)]
    return tuple(dict.fromkeys(serial for serial in said if serial))


def _of_map(name: str, roots: Roots) -> tuple[str, ...]:
    """What its uuid says, and the first of its paths that is not another volume's by now."""
    own = multipath.wwid_of_map(name, roots.sys)
    paths = (path for path in multipath.paths_of(name, roots.sys) if multipath.is_path_of(path, name, roots.sys))
    return tuple(dict.fromkeys([*filter(None, [own]), *next((serials(path, roots) for path in paths), ())]))


def matches(serial: str, name: str, roots: Roots) -> bool:
    """Whether device `name` is the one with this serial."""
    if name.startswith(scini.DEVICES) and not scini.SERIAL.fullmatch(serial):
        return False  # asking the driver takes a process, for each device
    cut = serial[:VIRTIO_SERIAL] if name.startswith("vd") else serial
    return cut in serials(name, roots)


def _named_by_xen(hint: Path, roots: Roots) -> str | None:
    """The plain name, if the hint is itself a virtual disk of Xen's: its name is all that the hypervisor says of it."""
    block = roots.sys / "block" / hint.name
    theirs = hint.parent == roots.dev and XEN_NAME.fullmatch(hint.name) and _text(block / "device" / "devtype") == "vbd"
    return hint.name if theirs and not hint.is_symlink() and roots.is_block(hint) and not serials(hint.name, roots) else None


def _candidates(serial: str, hint: str, roots: Roots) -> Iterator[str]:
    if hint and (name := _resolve(Path(hint), roots)):
        yield from _disks(name, roots)
    by_id = roots.dev / "disk" / "by-id"
    for link in listed(by_id):
        with suppress(UnsafePath):
            if serial[:VIRTIO_SERIAL] in link and (name := _resolve(by_id / link, roots)):
                yield from _disks(name, roots)
    for name in listed(roots.sys / "block"):
        if PLAIN_NAME.fullmatch(name) and roots.is_block(roots.dev / name):
            yield name


def _disks(name: str, roots: Roots) -> list[str]:
    """Udev's links lead to the map, where there is one."""
    return multipath.paths_of(name, roots.sys) if multipath.is_map(name, roots.sys) else [name]


def _resolve(path: Path, roots: Roots) -> str | None:
    """The plain name of the device or map that `path` leads to; None if it leads nowhere. Raises UnsafePath outside of /dev."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    is_plain = PLAIN_NAME.fullmatch(real.name) or multipath.is_map(real.name, roots.sys)
    if real.parent != roots.dev.resolve() or not is_plain:
        raise UnsafePath(path=str(path), reason=f"it leads to {real}, which is no plain device under {roots.dev}")
    if not roots.is_block(real):
        raise UnsafePath(path=str(path), reason="it is no block device")
    return real.name


def _told(name: str, roots: Roots) -> tuple[str, ...]:
    """A driver that does not answer says nothing of its devices, so that none of them is taken for a volume."""
    with suppress(NodeError):
        if serial := roots.sdc.serial(str(roots.dev / name)):
            return (serial,)
    return ()


def _page_80(block: Path) -> str:
    """The unit serial number as a SCSI disk gives it: four bytes of header, then text."""
    with suppress(OSError):
        return (block / "device" / "vpd_pg80").read_bytes()[4:].decode("ascii", "ignore").strip("\0 \n")
    return ""


def _of_target(block: Path, roots: Roots) -> str:
    """The id of a volume that has an iSCSI target of its own, from the target's name: `iqn.2010-10.org.openstack:volume-UUID`."""
    for part in (block / "device").resolve().parts:
        if SESSION.fullmatch(part):
            return next(iter(UUID.findall(_text(roots.sys / "class" / "iscsi_session" / part / "targetname"))), "")
    return ""


def _text(file: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip("\0 \n")
    return ""


def listed(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(folder))
    return []


# --- who else uses it --------------------------------------------------------------------------------------


@contextmanager
def exclusively(device: str) -> Iterator[int]:
    """A file descriptor for reading that the kernel gives to nobody while a mount, mkfs or other exclusive use goes on.

    Raises DeviceInUse if there is such a use, in any mount namespace; NodeError if the device cannot be opened.
    """
    fd = _open(device, os.O_RDONLY | os.O_EXCL)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def shared(device: str) -> Iterator[int]:
    """A file descriptor for reading beside other users. Raises NodeError."""
    fd = _open(device, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def in_use(device: str) -> bool:
    """Whether the kernel has it in exclusive use: mounted in any namespace, or being written by mkfs. Raises NodeError."""
    try:
        with exclusively(device):
            return False
    except DeviceInUse:
        return True


def _open(device: str, flags: int) -> int:
    try:
        return os.open(device, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceInUse(device=device, holders="a mount or another program on this node") from error
        raise NodeError(command="open", target=device, reason=os.strerror(error.errno or 0)) from error


# --- its size and its buffers --------------------------------------------------------------------------------


def size_bytes(device: str) -> int:
    """The size of the device now, in bytes. Raises NodeError."""
    with shared(device) as fd:
        answer = ioctl(device, fd, BLKGETSIZE64, bytes(8))
    size: int = struct.unpack("=Q", answer)[0]
    return size


def flush(device: str) -> None:
    """Writes and forgets what the kernel has in buffers of the device. Raises NodeError."""
    with shared(device) as fd:
        ioctl(device, fd, BLKFLSBUF)


def rescan_hosts(roots: Roots) -> None:
    """Lets every SCSI host look for new disks; NVMe and virtio come by themselves. Raises NodeError."""
    hosts = roots.sys / "class" / "scsi_host"
    for host in listed(hosts):
        write(hosts / host / "scan", "- - -")


def ioctl(device: str, fd: int, request: int, argument: bytes = b"") -> bytes:
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise NodeError(command=f"ioctl {request:#x}", target=device, reason=os.strerror(error.errno or 0)) from error


def write(file: Path, words: str) -> None:
    try:
        file.write_text(words)
    except OSError as error:
        raise NodeError(command="write", target=str(file), reason=os.strerror(error.errno or 0)) from error
