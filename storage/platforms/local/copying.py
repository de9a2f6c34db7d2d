"""Copies of images and folders: shared extents where the filesystem can, else the data without its holes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from typing import Final

from storage.errors import PlatformError
from storage.platforms.local.folders import Folder

_FICLONE: Final = 0x40049409
_CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
_CHUNK: Final = 64 << 20


def reflink(source: int, target: int) -> bool:
    """Lets the target share the source's extents, as they are at this one moment; False where the filesystem cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    os.fsync(target)
    return True


def can_reflink(folder: Folder) -> bool:
    """Tries it on two files without a name."""
    flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
    try:
        with open(os.open(".", flags, dir_fd=folder.fd), "wb") as source, open(os.open(".", flags, dir_fd=folder.fd), "wb") as target:
            source.write(b"\0" * 4096)
            source.flush()
            return reflink(source.fileno(), target.fileno())
    except OSError:
        return False


def copy_sparse(source: int, target: int) -> None:
    """The data of a file that nobody writes to; its holes stay holes. On disk once this returns."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in _extents(source, size):
        _copy_range(source, target, start, end)
    os.fsync(target)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(source, target, min(_CHUNK, end - start), start, start)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            copied = os.pwrite(target, os.pread(source, min(_CHUNK, end - start), start), start)
        if copied == 0:
            raise OSError(errno.EIO, "the file that was copied became shorter")
        start += copied


def copy_tree(source: Folder, name: str, target: Folder, new_name: str, *, platform: str) -> None:
    """A folder with owners, modes, links, extended attributes and holes, by GNU cp. Raises PlatformError with its words."""
    paths = [f"/proc/self/fd/{source.fd}/{name}", f"/proc/self/fd/{target.fd}/{new_name}"]
    command = ["cp", "--archive", "--no-target-directory", "--reflink=auto", "--sparse=always", "--", *paths]
    done = subprocess.run(
        command, pass_fds=(source.fd, target.fd), capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
    )
    if done.returncode:
        full = "No space left on device" in done.stderr
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise PlatformError(
            platform=platform, action=f"copy {source.path / name}", reason=done.stderr.strip() or f"cp ended with {done.returncode}"
        )
    _sync_filesystem(target)


def _sync_filesystem(folder: Folder) -> None:
    """Everything on the folder's filesystem to disk; a tree has no cheaper way."""
    subprocess.run(["sync", "--file-system", "--", f"/proc/self/fd/{folder.fd}"], pass_fds=(folder.fd,), capture_output=True, check=True)
