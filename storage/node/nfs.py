"""NFS exports: mounted with mount(8) at a volume's staging folder, and looked at, marked and shown in a process of their own.

A server that is dead hangs whoever asks it for anything, so this process never touches what is on the export: others do, and are
given up after a while. Knows no platform; an export is `HOST:/PATH`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from storage.errors import BusyMount, Invalid, NodeError, NotFormatted
from storage.node import binding, folders, mountinfo, mounts
from storage.node.binding import Owner
from storage.node.mountinfo import Mount
from storage.node.options import MOUNT_SHOWN
from storage.node.probing import Contents
from storage.node.steps import Machine
from storage.node.targets import Target, empty_folder

TYPES: Final = frozenset({"nfs", "nfs4"})
"""As mountinfo calls them."""
MOUNT_S: Final = 60.0
ASK_S: Final = 30.0
"""How long a server may take to show the top of an export."""
BUSY: Final = 32
"""umount(8)'s exit code for all that the kernel refuses."""
SOURCE: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9][A-Za-z0-9_.-]*):(/[^\0,]*)")
CODE: Final = "import importlib, sys; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2]).main(sys.argv[3:])"
CHILD: Final = (sys.executable, "-I", "-S", "-c", CODE, str(Path(__file__).parents[2]))


def mount(source: str, target: Target, options: Sequence[str], *, read_only: bool, machine: Machine) -> bool:
    """Mounts the export. Mounted there already is fine. Whether it was. Raises Invalid, UnsafePath, NodeError."""
    if not SOURCE.fullmatch(source):
        raise Invalid(field="device", value=source, reason="an NFS volume's attachment must say HOST:/PATH")
    if found := mountinfo.at(str(target), machine.roots.proc):
        _make_sure(found, source, options, read_only)
        return True
    words = ",".join([*options, "ro" if read_only else "rw"])
    # Nobody but us may write to the folder's parents, so its path still means the folder that was looked at.
    with empty_folder(target):
        machine.run(["mount", "-t", "nfs", "-o", words], source, str(target), timeout_s=MOUNT_S)
    found = mountinfo.at(str(target), machine.roots.proc)
    if found is None:
        raise NodeError(command="mount", target=str(target), reason="mount(8) succeeded but the kernel does not show it")
    _make_sure(found, source, options, read_only)
    return False


def _make_sure(found: Mount, source: str, options: Sequence[str], read_only: bool) -> None:
    shown = {"nosuid", "nodev"} | MOUNT_SHOWN.intersection(options)
    same = found.filesystem in TYPES and _plain(found.source) == _plain(source)
    if not same or found.read_only != read_only or not shown <= found.options:
        wanted = f"{source} ({'ro' if read_only else 'rw'},{','.join(sorted(shown))})"
        is_there = f"{found.source} ({found.filesystem}; {','.join(sorted(found.options))})"
        raise NodeError(command="mount", target=found.target, reason=f"something else is mounted there: {is_there}; wanted was {wanted}")


def _plain(source: str) -> str:
    host, _, path = source.rpartition(":/")
    return f"{host.lower()}:/{path.strip('/')}"


def look(folder: str, machine: Machine) -> Contents:
    """As folders.look. Raises NodeError, also where the server does not answer."""
    return folders.said(_ask(machine, [folders.__name__, "look"], folder))


def mark(folder: str, uuid: str, machine: Machine, *, may_write: bool) -> None:
    """As folders.mark. Raises NotFormatted, NodeError, also where the server does not answer."""
    if not may_write:
        found = "no such file, and it may only be read"
        raise NotFormatted(device=folder, expected=f"{folders.FOLDER} with a file {folders.MARKER}", found=found)
    _ask(machine, [folders.__name__, "mark"], folder, uuid)


def is_export(folder: str, machine: Machine) -> bool:
    """Whether an export is mounted right there, by what the kernel says without asking its server."""
    found = mountinfo.at(folder, machine.roots.proc)
    return found is not None and found.filesystem in TYPES


def show(folder: str, target: Target, *, read_only: bool, owner: Owner | None, machine: Machine) -> None:
    """As binding.show, and leaves nothing where it fails. Raises UnsafePath, NodeError, also where the server does not answer."""
    was_there = mountinfo.at(str(target), machine.roots.proc) is not None
    if not was_there:
        with empty_folder(target):
            pass
    try:
        words = binding.words(read_only=read_only, owner=owner)
        _ask(machine, [binding.__name__, *words], folder, str(target.root), str(target))
    except NodeError:
        if not was_there:
            mounts.detach_quietly(target)
        raise


def _ask(machine: Machine, words: Sequence[str], *paths: str) -> str:
    """What a process says that may touch the export. It dies with this one: an export that it waits for would stay mounted with it."""
    return machine.run([*CHILD, *words], *paths, timeout_s=ASK_S, writes=True).out


def unmount(target: Target, *, timeout_s: float, force: bool, machine: Machine) -> None:
    """Unmounts what is at `target`, waits while it is busy, reads back. With `force` one that stays is taken out of sight.

    Raises BusyMount, and NodeError where umount(8) hangs on a server that is dead.
    """
    place, proc, run = str(target), machine.roots.proc, machine.run
    seen: list[NodeError] = []

    def is_gone() -> bool:
        seen.clear()
        try:
            ended = run(["umount", "--no-canonicalize"], place, ok=(0, BUSY), timeout_s=timeout_s)
        except NodeError as error:
            seen.append(error)
            return True
        if mountinfo.at(place, proc) is None:
            return True
        if ended.code and "busy" not in ended.last_words:
            seen.append(NodeError(command="umount", target=place, reason=ended.last_words))
            return True
        return False

    in_time = machine.pace.until(is_gone, timeout_s=timeout_s, every_s=0.2)
    if mountinfo.at(place, proc) is None:
        return
    if force:
        run(["umount", "--no-canonicalize", "--force", "--lazy"], place, ok=(0, BUSY), timeout_s=timeout_s)
        if mountinfo.at(place, proc) is None:
            return
    if seen:
        raise seen[0]
    raise BusyMount(target=place, timeout_s=timeout_s, holders="a program of this node" if not in_time else "something unseen")
