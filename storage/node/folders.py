"""Volumes that a platform brings as a folder: known again by a marker file that Polly writes into it, as a device is by its UUID.

Run in a process of its own (`main`) for a folder whose server may be dead: see storage/node/nfs.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from storage.errors import NodeError, NotFormatted
from storage.node.probing import Contents

FOLDER: Final = "folder"
"""The `filesystem` of such a volume's birth certificate."""
MARKER: Final = ".polly-volume"
"""Holds the volume's UUID and a newline."""
UNFINISHED: Final = ".polly-volume.new"
NOT_DATA: Final = frozenset({UNFINISHED, ".snapshot"})
"""What may be in a folder that is blank: an unfinished marker, and a file server's own view of its snapshots."""


def look(folder: str) -> Contents:
    """What is in the folder, in the words for devices: nothing, or a filesystem of type `folder` with the marker's UUID if it has one.

    Raises NodeError if it is no folder, or a link, or its marker is none.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            names = set(os.listdir(fd)) - NOT_DATA
            uuid = _read(fd) if MARKER in names else ""
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise NodeError(command="look", target=folder, reason=str(error)) from error
    return Contents(type=FOLDER, uuid=uuid, is_filesystem=True) if names else Contents()


def mark(folder: str, uuid: str, *, may_write: bool) -> None:
    """Writes the marker, whole or not at all and for good, in place of one that a snapshot brought. Raises NotFormatted, NodeError."""
    if not may_write:
        raise NotFormatted(device=folder, expected=f"{FOLDER} with a file {MARKER}", found="no such file, and it may only be read")
    new, final = Path(folder, UNFINISHED), Path(folder, MARKER)
    try:
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="ascii") as file:
            file.write(f"{uuid}\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(final)
        _sync(folder)
    except OSError as error:
        raise NodeError(command="write", target=str(final), reason=str(error)) from error


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main(words: Sequence[str]) -> None:
    """`look -- FOLDER` prints what `look` finds, in words that `said` reads; `mark -- FOLDER UUID` marks. Ends the process."""
    verb, _, folder, *rest = words
    try:
        if verb == "mark":
            mark(folder, rest[0], may_write=True)
        else:
            found = look(folder)
            print(found.type, found.uuid)
    except NodeError as error:
        sys.exit(str(error))


def said(words: str) -> Contents:
    """What another process that ran `main` has seen."""
    kind, _, uuid = words.strip().partition(" ")
    return Contents(type=FOLDER, uuid=uuid, is_filesystem=True) if kind else Contents()


def _read(folder: int) -> str:
    fd = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with open(fd, encoding="ascii") as file:
        return str(UUID(file.read(64).strip()))
