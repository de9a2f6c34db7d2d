"""Which volumes the processes of this node have mounted, in whatever mount namespace. Needs root to see those of others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage.drift import NodeMount
from storage.model import ClaimId
from storage.node import mountinfo
from storage.node.mountinfo import Mount

PID: Final = re.compile(r"[0-9]+")


def mounted(staging_dir: Path, proc: Path = mountinfo.PROC) -> list[NodeMount]:
    """What is mounted at `staging_dir`/CLAIM, ordered by claim. A process that ends meanwhile is left out."""
    found: dict[str, tuple[Mount, list[int]]] = {}
    for pid, mounts in _tables(proc):
        for mount in mounts:
            parent, _, claim = mount.target.rpartition("/")
            if parent == str(staging_dir):
                found.setdefault(claim, (mount, []))[1].append(pid)
    return [
        NodeMount(claim_id=ClaimId(claim), target=mount.target, source=mount.source, pids=tuple(sorted(set(pids))))
        for claim, (mount, pids) in sorted(found.items())
    ]


def _tables(proc: Path) -> Iterator[tuple[int, tuple[Mount, ...]]]:
    """The mounts of each namespace once for each process in it; a table that many share is parsed once."""
    parsed: dict[str, tuple[Mount, ...]] = {}
    for folder in proc.iterdir():
        if PID.fullmatch(folder.name):
            with suppress(OSError, ValueError, IndexError):
                namespace = (folder / "ns" / "mnt").readlink().name
                if namespace not in parsed:
                    parsed[namespace] = mountinfo.parse((folder / "mountinfo").read_text(errors="surrogateescape"))
                yield int(folder.name), parsed[namespace]
