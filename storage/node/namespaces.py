"""A mount namespace of a process' own: what it mounts is seen by nobody else, and goes when its last process goes."""

from __future__ import annotations

import os
from pathlib import Path

from storage.errors import NodeError
from storage.node import syscalls


def private_mount_namespace(proc: Path = Path("/proc")) -> None:
    """Gives this process a mount namespace of its own: its mounts are seen by nobody else, and gone when its last process is.

    Mounts of the machine that come later are still seen here. To be called while the process has one thread only: the
    kernel moves no other. Raises NodeError.
    """
    if len(os.listdir(proc / "self" / "task")) > 1:
        raise NodeError(command="unshare", target="the mount namespace", reason="this process has more than one thread already")
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    except OSError as error:
        raise NodeError(command="unshare", target="the mount namespace", reason=os.strerror(error.errno or 0)) from error
