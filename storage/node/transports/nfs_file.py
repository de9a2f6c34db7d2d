"""Volumes that are files on an NFS share, as Cinder's NFS driver keeps them: the share is mounted, the file gets a loop device.

The device is found by the volume's id, which is in the file's name. It stays until `disconnect`, as a cloud's disk does, also if
whoever has brought it is killed; the share is unmounted with the last of its files.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from storage.errors import NodeError, UnsafePath
from storage.node import devices, mountinfo
from storage.node.steps import Machine
from storage.platforms.base import Attachment

PROGRAMS: Final[Mapping[str, str]] = {"mount.nfs": "nfs-common", "losetup": "mount"}
ROOT: Final = Path("/run/polly/shares")
TYPES: Final = frozenset({"nfs", "nfs4"})
BUSY: Final = 32
"""umount(8)'s exit code for all that the kernel refuses."""
SHARE: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9][A-Za-z0-9_.-]*):(/[^\0,]*)")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
OPTIONS: Final = re.compile(r"[A-Za-z0-9_=.,:-]*")


def connect(attachment: Attachment, machine: Machine) -> None:
    """A share that is mounted at its place already is taken as it is. Raises NodeError, UnsafePath."""
    context = attachment.context
    if (kind := context.get("format", "raw")) != "raw":
        reason = f"its file has the format {kind}, as Cinder's NFS driver makes it while there are snapshots; only Nova can bring it"
        raise NodeError(command="losetup", target=context["file"], reason=reason)
    name = _name(context["file"])
    file = _mounted(context, machine) / name
    read_only = ["--read-only"] if attachment.read_only else []
    machine.run(["losetup", "--find", "--show", "--nooverlap", *read_only], str(file))


def disconnect(attachment: Attachment, machine: Machine) -> None:
    """Raises NodeError."""
    for device in _loops(attachment.serial, machine):
        devices.flush(device)
        machine.run(["losetup", "--detach", device])  # which takes no `--`
    where = place(attachment.context["share"])
    found = mountinfo.at(str(where), machine.roots.proc)
    if found is not None and found.filesystem in TYPES:
        machine.run(["umount"], str(where), ok=(0, BUSY))


def _mounted(context: Mapping[str, str], machine: Machine) -> Path:
    share, options = context["share"], context.get("options", "").removeprefix("-o").strip()
    if not SHARE.fullmatch(share) or not OPTIONS.fullmatch(options):
        raise UnsafePath(path=f"{share} {options}".strip(), reason="an NFS share is HOST:/PATH with mount options, words joined by commas")
    where = place(share)
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mountinfo.at(str(where), machine.roots.proc) is None:
        words = ",".join(word for word in (options, "nosuid", "nodev") if word)
        machine.run(["mount", "-t", "nfs", "-o", words], share, str(where))
    return where


def place(share: str) -> Path:
    """A folder for each share, under a name that is none of a path's."""
    return ROOT / hashlib.sha256(share.encode()).hexdigest()[:32]


def _name(file: str) -> str:
    if not NAME.fullmatch(file) or os.path.basename(file) != file:
        raise UnsafePath(path=file, reason="a volume's file has a plain name")
    return file


def _loops(serial: str, machine: Machine) -> list[str]:
    """All loop devices of the volume; a reader may have one beside another's."""
    roots = machine.roots
    blocks = sorted((roots.sys / "block").glob("loop*"))
    return [str(roots.dev / block.name) for block in blocks if devices.matches(serial, block.name, roots)]
