"""Folders held open: every step below a platform's root goes through one, and follows no symbolic link.

A name is one path component, never a path, so nothing that is done here can leave the root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from storage.errors import UnsafePath
from storage.platforms.local.waiting import soon

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """A directory and its path. Use as a context manager; raises OSError as the kernel does."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: Path) -> None:
        self.fd, self.path = fd, path

    @classmethod
    def root(cls, path: Path) -> Folder:
        """The platform's own root, whose path is the operator's word: it may lead through links."""
        return cls(os.open(path, _FOLDER_FLAGS & ~os.O_NOFOLLOW), path)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.fd)

    def sub(self, name: str) -> Folder:
        return Folder(os.open(_component(name), _FOLDER_FLAGS, dir_fd=self.fd), self.path / name)

    def sub_or_none(self, name: str) -> Folder | None:
        with contextlib.suppress(FileNotFoundError):
            return self.sub(name)
        return None

    def made(self, name: str) -> Folder:
        """The sub-folder, made if it is not there; that it is there survives a power cut."""
        if found := self.sub_or_none(name):
            return found
        with contextlib.suppress(FileExistsError):
            os.mkdir(_component(name), FOLDER_MODE, dir_fd=self.fd)
            self.sync()
        return self.sub(name)

    def open(self, name: str, flags: int) -> int:
        """A descriptor; what is made gets mode 0600."""
        return os.open(_component(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE, dir_fd=self.fd)

    def stat(self, name: str) -> os.stat_result | None:
        """What the name itself is, a link included; None if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            return os.stat(_component(name), dir_fd=self.fd, follow_symlinks=False)
        return None

    def names(self) -> list[str]:
        return os.listdir(self.fd)

    def read(self, name: str) -> bytes | None:
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """A whole file, on disk once this returns."""
        with open(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, name: str, content: bytes) -> None:
        """Puts a file in the place of an older one: after a power cut it is the old or the new one, whole. `sync` makes it the new."""
        temporary = temporary_name(name)
        self.write(temporary, content)
        os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def move(self, name: str, target: Folder, new_name: str) -> None:
        os.rename(_component(name), _component(new_name), src_dir_fd=self.fd, dst_dir_fd=target.fd)

    def remove(self, name: str) -> None:
        """A file, or a folder with all that is in it; gone already is fine."""
        found = self.stat(name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=self.fd)
        else:
            os.unlink(name, dir_fd=self.fd)

    def sync(self) -> None:
        os.fsync(self.fd)


def temporary_name(name: str) -> str:
    """What a file is called while it is written to take the place of this one."""
    return f".{name}.new"


def _component(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise UnsafePath(command="open", target=name, path=name, reason="it is not the name of one file")
    return name


@contextlib.contextmanager
def exclusive(fd: int, timeout_s: float) -> Iterator[None]:
    """The flock of `fd`, which this closes. Raises TimeoutError when somebody else keeps it for that long.

    It is dropped in so many words: a process forked meanwhile has the descriptor too, and would keep the lock.
    """
    try:
        if not soon(lambda: locked(fd, fcntl.LOCK_EX), timeout_s):
            raise TimeoutError("another process keeps its lock")
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def locked(fd: int, kind: int) -> bool:
    """Tries to take the flock, LOCK_EX or LOCK_SH, at once."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
