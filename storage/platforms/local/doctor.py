"""What `polly doctor` says of a local platform: whether this machine and its folder can do what the options ask."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from storage.errors import PlatformError
from storage.platforms.base import Finding
from storage.platforms.local import layout, loop
from storage.platforms.local.folders import Folder
from storage.platforms.local.options import LocalOptions
from storage.platforms.local.store import Store

_NETWORKED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.glusterfs", "9p"})
_FLEETING: Final = frozenset({"tmpfs", "ramfs", "overlay"})


def check(options: LocalOptions, store: Store) -> Sequence[Finding]:
    try:
        root = store.opened()
    except PlatformError as error:
        return [Finding(ok=False, subject=options.root, message=str(error), mend=f"mkdir --mode 0700 {options.root}, or mount its disk")]
    with root:
        findings = [_root(root), _filesystem(root), *(_pool(root, pool) for pool in options.pools), _format(options)]
        if len(options.pools) > 1 and options.capacity_mib is None:
            findings.append(_shared_filesystem(root, options.pools))
    return findings


def _root(root: Folder) -> Finding:
    subject = str(root.path)
    if not os.access(f"/proc/self/fd/{root.fd}", os.R_OK | os.W_OK | os.X_OK):
        return Finding(ok=False, subject=subject, message="the folder is not writable", mend="run as its owner, or change the owner")
    if os.fstat(root.fd).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(ok=False, subject=subject, message="others than its owner may write to the folder", mend=f"chmod go-w {subject}")
    return Finding(ok=True, subject=subject, message="the folder is there and writable")


def _filesystem(root: Folder) -> Finding:
    kind, subject = filesystem_type(root.fd), str(root.path)
    if kind in _NETWORKED:
        mend = "use a local disk: locks that cross machines do not die with their holder"
        return Finding(ok=False, subject=subject, message=f"its filesystem is {kind}", mend=mend)
    if kind in _FLEETING:
        return Finding(ok=True, subject=subject, message=f"its filesystem is {kind}: nothing on it outlives this machine or container")
    return Finding(ok=True, subject=subject, message=f"its filesystem is {kind}")


def filesystem_type(fd: int) -> str:
    """The name of the filesystem that an open folder is on, as the kernel's mount table has it; `unknown` if it has not."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text().split()
    wanted = info[info.index("mnt_id:") + 1]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        parts = line.split()
        if parts[0] == wanted:
            return parts[parts.index("-") + 1]
    return "unknown"


def _pool(root: Folder, pool: str) -> Finding:
    folder = root.sub_or_none(pool)
    if folder is None and pool == layout.DEFAULT_POOL:
        return Finding(ok=True, subject=f"pool {pool}", message="its folder is made with its first volume")
    if folder is None:
        return Finding(
            ok=False, subject=f"pool {pool}", message="its folder is not there", mend=f"mkdir {root.path / pool}, or mount its disk"
        )
    with folder:
        return Finding(ok=True, subject=f"pool {pool}", message=f"its folder is there; being made or torn down: {_unfinished(folder)}")


def _unfinished(pool: Folder) -> int:
    new = pool.sub_or_none(layout.NEW)
    if new is None:
        return 0
    with new:
        return len(new.names())


def _format(options: LocalOptions) -> Finding:
    if options.format == "folder":
        message = "volumes are folders: their sizes are counted but not enforced, one volume can fill the disk of all"
        return Finding(ok=True, subject='format = "folder"', message=message)
    if os.geteuid() != 0:
        return Finding(
            ok=False, subject='format = "image"', message="loop devices need root", mend='run agents as root, or use format = "folder"'
        )
    if reason := loop.usable():
        return Finding(ok=False, subject='format = "image"', message=reason, mend="modprobe loop, or give the container the loop devices")
    return Finding(ok=True, subject='format = "image"', message="loop devices can be made")


def _shared_filesystem(root: Folder, pools: Sequence[str]) -> Finding:
    devices = [found.st_dev for pool in pools if (found := root.stat(pool))]
    if len(set(devices)) == len(devices):
        return Finding(ok=True, subject="pools", message="each has a filesystem of its own")
    return Finding(ok=True, subject="pools", message="several lie on one filesystem, and share what there is of it")
