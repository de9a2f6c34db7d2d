"""/ifs of a simulated PowerScale cluster: a real folder of this machine, with snapshots of parts of it. Knows no HTTP and no quota.

Paths are absolute as OneFS has them, `/ifs/...`; what a snapshot holds is at `/ifs/.snapshot/NAME/...`, and cannot be changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SNAPSHOTS: Final = "/ifs/.snapshot"
KINDS: Final = {"file": "object", "dir": "container", "link": "symbolic_link"}


class Refused(Exception):
    """OneFS' no: one of its codes, its sentence, and what it is about."""

    STATUS: Final = {
        "AEC_UNAUTHORIZED": 401,
        "AEC_FORBIDDEN": 403,
        "AEC_LIMIT_EXCEEDED": 403,
        "AEC_INVALID_LICENSE": 403,
        "AEC_NOT_FOUND": 404,
        "AEC_METHOD_NOT_ALLOWED": 405,
        "AEC_CONFLICT": 409,
        "AEC_PRE_CONDITION_FAILED": 412,
        "AEC_SYSTEM_INTERNAL_ERROR": 500,
        "AEC_EXCEPTION": 500,
        "AEC_SERVICE_UNAVAILABLE": 503,
    }
    """All others are answered with 400."""

    def __init__(self, code: str, message: str, *, field: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.field = code, message, field

    @property
    def status(self) -> int:
        return self.STATUS.get(self.code, 400)

    @property
    def body(self) -> dict[str, Any]:
        about = {"field": self.field} if self.field else {}
        return {"errors": [{"code": self.code, **about, "message": self.message}]}


@dataclass(kw_only=True)
class Ifs:
    folder: Path
    """Stands for the cluster's root, so that /ifs is `ifs` in it."""

    def __post_init__(self) -> None:
        (self.folder / "ifs").mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        for child in self.folder.iterdir():
            shutil.rmtree(child)
        (self.folder / "ifs").mkdir()

    # --- looking ------------------------------------------------------------------------------------

    def real(self, path: str) -> Path:
        """Where a path of OneFS' is on this machine."""
        parts = [part for part in path.split("/") if part]
        if not path.startswith("/ifs") or parts[:1] != ["ifs"] or ".." in parts or "." in parts or "\0" in path:
            raise Refused("AEC_BAD_REQUEST", f"Invalid path '{path}'", field="path")
        if any(len(part.encode()) > 255 for part in parts):
            raise Refused("AEC_NAMETOOLONG", "Unable to open object -- name too long.")
        return self.folder.joinpath(*([".snapshots", *parts[2:]] if self.is_in_snapshot(path) else parts))

    def is_in_snapshot(self, path: str) -> bool:
        return f"{path}/".startswith(f"{SNAPSHOTS}/")

    def is_folder(self, path: str) -> bool:
        return self.real(path).is_dir() and not self.real(path).is_symlink()

    def known(self, path: str) -> Path:
        found = self.real(path)
        if not os.path.lexists(found):
            raise Refused("AEC_NOT_FOUND", f"Unable to open object '{path.removeprefix('/ifs/')}' in store 'ifs' -- not found.")
        return found

    def children(self, path: str) -> list[dict[str, Any]]:
        folder = self.known(path)
        if not folder.is_dir():
            raise Refused("AEC_FORBIDDEN", f"Unable to list '{path}' -- not a container.")
        return [self.child(one) for one in sorted(folder.iterdir(), key=lambda one: one.name)]

    def child(self, place: Path) -> dict[str, Any]:
        seen = place.lstat()
        kind = "link" if place.is_symlink() else "dir" if place.is_dir() else "file"
        return {
            "name": place.name,
            "type": KINDS[kind],
            "size": seen.st_size,
            "id": seen.st_ino,
            "mode": f"{seen.st_mode & 0o7777:04o}",
            "uid": seen.st_uid,
            "gid": seen.st_gid,
            "last_modified": int(seen.st_mtime),
        }

    def used(self, path: str) -> tuple[int, int]:
        """Bytes and inodes of all that is below."""
        found = list(self._below(self.real(path)))
        return sum(one.lstat().st_size for one in found if not one.is_dir()), len(found)

    def _below(self, place: Path) -> Iterator[Path]:
        if place.is_dir():
            yield place
            for folder, folders, files in os.walk(place):
                yield from (Path(folder) / name for name in (*folders, *files))

    # --- changing -----------------------------------------------------------------------------------

    def _writable(self, path: str) -> Path:
        place = self.real(path)
        if self.is_in_snapshot(path):
            raise Refused("AEC_FORBIDDEN", f"Unable to change '{path}' -- read-only file system.")
        return place

    def make(self, path: str, *, recursive: bool, overwrite: bool = True, mode: str = "") -> None:
        """One that is there gets the mode, unless it is not to be overwritten."""
        place = self._writable(path)
        if place.is_dir() and not overwrite:
            raise Refused("AEC_FORBIDDEN", "Unable to create directory as requested -- container already exists")
        if not recursive and not place.parent.is_dir():
            raise Refused("AEC_BAD_REQUEST", f"A component of path '{path}' does not exist.")
        place.mkdir(parents=recursive, exist_ok=True)
        if mode:
            place.chmod(int(mode, 8))

    def write(self, path: str, data: bytes, *, overwrite: bool) -> None:
        place = self._writable(path)
        if place.exists() and not overwrite:
            raise Refused("AEC_FORBIDDEN", "Unable to put object -- object already exists")
        self.known(os.path.dirname(path))
        place.write_bytes(data)

    def copy(self, source: str, target: str, *, merge: bool) -> None:
        """A folder with all that is in it, or a file."""
        place, found = self._writable(target), self.known(source)
        self.known(os.path.dirname(target))
        if place.exists() and not (merge and place.is_dir()):
            raise Refused("AEC_FORBIDDEN", f"Unable to copy -- '{target}' exists")
        if found.is_dir():
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(found, place, follow_symlinks=False)

    def clone(self, source: str, target: str, *, snapshot: str) -> None:
        """A file only, as it was in the snapshot."""
        self.copy(f"{SNAPSHOTS}/{snapshot}{source.removeprefix('/ifs')}" if snapshot else source, target, merge=False)

    def move(self, source: str, target: str) -> None:
        place, found = self._writable(target), self.known(source)
        self._writable(source)
        self.known(os.path.dirname(target))
        if os.path.lexists(place):
            raise Refused("AEC_FORBIDDEN", f"The destination '/namespace{target}' exists.")
        found.rename(place)

    def remove(self, path: str, *, recursive: bool) -> None:
        place = self._writable(path)
        if not os.path.lexists(place):
            return
        if not place.is_dir() or place.is_symlink():
            place.unlink()
        elif recursive:
            shutil.rmtree(place)
        elif any(place.iterdir()):
            raise Refused("AEC_FORBIDDEN", f"The directory '{path}' is not empty.")
        else:
            place.rmdir()

    def snap(self, name: str, path: str) -> None:
        place = self.folder / ".snapshots" / name / path.removeprefix("/ifs").strip("/")
        place.parent.mkdir(parents=True)
        shutil.copytree(self.known(path), place, symlinks=True)

    def revert(self, name: str, path: str) -> None:
        self.remove(path, recursive=True)
        shutil.copytree(self.known(f"{SNAPSHOTS}/{name}{path.removeprefix('/ifs')}"), self.real(path), symlinks=True)

    def unsnap(self, name: str) -> None:
        shutil.rmtree(self.folder / ".snapshots" / name)
