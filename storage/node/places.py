"""The claims' folders in the staging folder: held by the process that mounts there, removed by it or, once it is dead, by another.

A mount in a dead process's namespace is gone with it, and what it was mounted on stays as an empty folder.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from storage.errors import UnsafePath
from storage.node import mountinfo
from storage.node.mounted import mounted
from storage.node.targets import FOLDER, Target, enter, make_folder, remove_folder

LOCKABLE: Final = FOLDER & ~os.O_PATH

_held: dict[str, int] = {}
"""The folders that this process holds; the kernel drops the locks once it is dead, and the task's init with it."""


def hold(target: Target, proc: Path = mountinfo.PROC) -> None:
    """Makes the folder, 0700, if it is missing, and holds it for as long as this process lives. Again is fine.

    Raises UnsafePath, NodeError. One that is mounted on already is not touched: a dead server's export hangs whoever opens it.
    """
    while str(target) not in _held and mountinfo.at(str(target), proc) is None:
        with target.parent() as parent:
            make_folder(parent, target.name, (os.geteuid(), os.getegid()))
            if (fd := _lock(parent, target, fcntl.LOCK_SH)) is not None:  # waits for no more than another's look
                _held[str(target)] = fd


def leave(target: Target) -> None:
    """Removes the folder, if it is empty and not mounted on, and holds it no longer. Gone already is fine."""
    remove_folder(target)
    if (fd := _held.pop(str(target), None)) is not None:
        _let_go(fd)


def remove_left(staging_dir: Path, proc: Path = mountinfo.PROC) -> None:
    """Removes the empty folders that processes which are dead have left.

    Besides the lock the mounts of all processes count: the kernel would take a mount away with its folder.
    """
    busy = {*_held, *(mount.target for mount in mountinfo.read(proc))}
    for target in [target for target in _folders(staging_dir) if str(target) not in busy]:
        with target.parent() as parent:
            if (fd := _lock(parent, target, fcntl.LOCK_EX | fcntl.LOCK_NB)) is None:
                continue
            try:
                if target.name not in {mount.claim_id for mount in mounted(target.root, proc)}:
                    remove_folder(target)
            finally:
                _let_go(fd)


def _folders(staging_dir: Path) -> list[Target]:
    with os.scandir(staging_dir) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False))
    return [Target.below(staging_dir, name) for name in names]


def _lock(parent: int, target: Target, how: int) -> int | None:
    """A locked descriptor of the folder; None where it is not to be had, or is not the one of that name any more. Raises UnsafePath."""
    try:
        fd = enter(parent, target.name, str(target), LOCKABLE)
    except UnsafePath as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        fcntl.flock(fd, how)
        if os.path.samestat(os.fstat(fd), os.stat(target.name, dir_fd=parent, follow_symlinks=False)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    _let_go(fd)
    return None


def _let_go(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)  # closing is not enough while a child that is being started has a copy
    os.close(fd)
