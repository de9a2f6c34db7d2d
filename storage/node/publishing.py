"""A staged volume is shown where its user looks for it: bound at a path, or linked there where nothing may be mounted."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from storage.errors import NodeError, UnsafePath
from storage.node import binding, mountinfo, mounts, nfs
from storage.node.binding import Owner
from storage.node.mountinfo import Mount
from storage.node.staged import Staged
from storage.node.steps import Machine
from storage.node.targets import Target, remove_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where a volume's user finds it."""

    path: str
    is_link: bool = False
    """A symbolic link to the platform's folder: without root nothing can be bound, and nothing keeps the user inside."""
    mount: Mount | None = None
    """What is mounted there; None for a link."""


def publish(
    staged: Staged,
    root: Path,
    target: str | os.PathLike[str],
    *,
    read_only: bool = False,
    owner: Owner | None = None,
    machine: Machine | None = None,
) -> Published:
    """Shows the volume at `target` under `root`; missing folders on the way are made. Published there already is fine.

    `owner` (user id, group id) gets those folders, and the volume's top folder if it may be written. Without root a
    folder is linked, and cannot be published read-only. Raises UnsafePath, NodeError, also where an export's server does not answer.
    """
    machine = machine or Machine()
    place = Target.below(root, target)
    with place.parent(create_for=owner or (os.geteuid(), os.getegid())):
        pass
    if machine.may_mount:
        if nfs.is_export(staged.path, machine):
            nfs.show(staged.path, place, read_only=read_only, owner=owner, machine=machine)
        else:
            binding.show(staged.path, place, read_only=read_only, owner=owner, proc=machine.roots.proc)
        return Published(path=str(place), mount=mountinfo.at(str(place), machine.roots.proc))
    if read_only or not staged.is_folder:
        raise NodeError(command="bind", target=str(place), reason="without root a volume can only be a folder that may be written")
    _link(staged.path, place)
    return Published(path=str(place), is_link=True)


def unpublish(
    root: Path,
    target: str | os.PathLike[str],
    *,
    mount: Mount | None = None,
    timeout_s: float = 10.0,
    force: bool = False,
    machine: Machine | None = None,
) -> None:
    """Takes a published volume away from `target`, and the empty folder there. Unpublished already is fine.

    With `mount`, as `publish` gave it, it is also found where its user has moved it to. Raises BusyMount, naming who uses it,
    UnsafePath, NodeError.
    """
    machine = machine or Machine()
    place = (mounts.moved(mount, machine.roots.proc) if mount else None) or Target.below(root, target)
    # The mount is asked for first: whoever looks at an export's mount hangs with its server.
    if mounts.unmount(place, timeout_s=timeout_s, force=force, pace=machine.pace, proc=machine.roots.proc):
        remove_folder(place)
    elif os.path.islink(str(place)):
        with place.parent() as parent:
            os.unlink(place.name, dir_fd=parent)


def _link(folder: str, place: Target) -> None:
    with place.parent() as parent:
        try:
            os.symlink(folder, place.name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise NodeError(command="symlink", target=str(place), reason=os.strerror(error.errno or 0)) from error
            if _read_link(place.name, parent) != folder:
                raise UnsafePath(path=str(place), reason="something else is there") from error


def _read_link(name: str, parent: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None
