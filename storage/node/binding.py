"""A staged volume's folder shown where its user looks for it, and given to that user.

Run in a process of its own (`main`) for an export whose server may be dead: see storage/node/nfs.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from storage.errors import PollyError
from storage.node import mounts
from storage.node.targets import Target

Owner = tuple[int, int]
"""User id and group id."""


def show(folder: str, target: Target, *, read_only: bool, owner: Owner | None, proc: Path = mounts.PROC) -> None:
    """Binds the folder at `target`; with `owner` its top is that user's, if it may be written. Done already is fine.

    Raises UnsafePath, NodeError.
    """
    mount = mounts.bind(Path(folder), target, read_only=read_only, proc=proc)
    if owner is not None and not mount.read_only:
        _give(folder, owner)


def _give(folder: str, owner: Owner) -> None:
    found = os.stat(folder)
    if (found.st_uid, found.st_gid) != owner:
        os.chown(folder, *owner)


def words(*, read_only: bool, owner: Owner | None) -> list[str]:
    """The words for `main`, but for the paths."""
    return ["ro" if read_only else "rw", ":".join(map(str, owner)) if owner else ""]


def main(said: Sequence[str]) -> None:
    """`ro|rw UID:GID|'' -- FOLDER ROOT PATH` shows the folder at PATH, absolute and under ROOT. Ends the process."""
    mode, owner, _, folder, root, path = said
    user, _, group = owner.partition(":")
    try:
        show(folder, Target.below(Path(root), path), read_only=mode == "ro", owner=(int(user), int(group)) if owner else None)
    except (PollyError, OSError) as error:
        sys.exit(str(error))
