"""Where a mount may go: a real folder below a configured root, reached folder by folder without following a link.

What is done to a target is done through the descriptor that the walk ended with, so nobody can put a link in its
place in between.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from storage.errors import NodeError, UnsafePath

FOLDER: Final = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place below a root. The root is the operator's word and may be a link; below it no link is followed."""

    root: Path
    parts: tuple[str, ...] = field(default=())

    @classmethod
    def below(cls, root: Path, path: str | os.PathLike[str]) -> Target:
        """`path` is relative to `root`, or absolute and under it. Raises UnsafePath."""
        text = os.fspath(path)
        real = Path(os.path.realpath(root))
        if os.path.isabs(text):
            home = next((str(home) for home in (root, real) if text.startswith(f"{str(home).rstrip('/')}/")), None)
            if home is None:
                raise UnsafePath(path=text, reason=f"it is not under {root}")
            text = text.removeprefix(home)
        parts = tuple(part for part in text.split("/") if part not in ("", "."))
        if not parts or ".." in parts or "\0" in text:
            raise UnsafePath(path=text, reason=f"it must name a folder under {root}, without '..'")
        return cls(root=real, parts=parts)

    def __str__(self) -> str:
        return str(self.root.joinpath(*self.parts))

    @contextmanager
    def parent(self, *, create_for: tuple[int, int] | None = None) -> Iterator[int]:
        """A descriptor of the folder that it is in. With `create_for`, missing folders are made, 0700, and given to that user and group.

        Raises UnsafePath.
        """
        fd = os.open(self.root, FOLDER)
        try:
            for part in self.parts[:-1]:
                if create_for is not None:
                    make_folder(fd, part, create_for)
                inner = enter(fd, part, str(self))
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    @property
    def name(self) -> str:
        return self.parts[-1]


def make_folder(parent: int, name: str, owner: tuple[int, int]) -> bool:
    """Whether it was missing; then it is made, 0700."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    if owner != (os.geteuid(), os.getegid()):
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    return True


@contextmanager
def empty_folder(target: Target) -> Iterator[str]:
    """A path that is the very folder at `target` whatever happens to its name; made, 0700, if it is missing."""
    with target.parent() as parent:
        make_folder(parent, target.name, (os.geteuid(), os.getegid()))
        fd = enter(parent, target.name, str(target))
        try:
            if _names_in(fd):
                raise UnsafePath(path=str(target), reason="it is not empty, and a mount would hide what is in it")
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)


def remove_folder(target: Target) -> None:
    """Removes an empty target; one that is missing, not empty or mounted on stays as it is.

    Only for a target that is mounted on in no other namespace either: the kernel takes such a mount away with the folder.
    """
    with suppress(FileNotFoundError, UnsafePath), target.parent() as parent:
        try:
            os.rmdir(target.name, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.ENOTDIR):
                raise NodeError(command="rmdir", target=str(target), reason=os.strerror(error.errno or 0)) from error


def enter(parent: int, name: str, path: str, flags: int = FOLDER) -> int:
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        reasons = {errno.ENOTDIR: f"{name} in it is a link or no folder", errno.ELOOP: f"{name} in it is a link"}
        raise UnsafePath(path=path, reason=reasons.get(error.errno or 0, f"{name} in it: {error.strerror}")) from error


def _names_in(folder: int) -> list[str]:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
