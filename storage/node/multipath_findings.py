"""What `polly doctor` says of multipathd on a node: whether it would put maps over an array's disks, and what it does without a path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage.errors import NodeError
from storage.node import multipath
from storage.node.devices import Roots
from storage.platforms.base import Finding

SUBJECT: Final = "multipathd"


def multipath_findings(disk: tuple[str, str], roots: Roots) -> Iterator[Finding]:
    """Of an array whose disks give this vendor and product."""
    daemon = roots.multipathd
    if not daemon.is_here():
        yield Finding(ok=True, subject=SUBJECT, message="it does not run here; an agent here would use each volume by one path")
        return
    if not daemon.sees_udev():
        message = f"it runs on this node, but there is no {daemon.udev} here, so nobody can tell which disks it knows"
        mend = f"Mount the node's {daemon.udev} into the executors' container, or start udevd; until then no volume is mounted."
        yield Finding(ok=False, subject=SUBJECT, message=message, mend=mend)
        return
    try:
        yield from _judged(disk, roots)
    except NodeError as error:
        mend = "Start it (systemctl start multipathd), or stop it for good; until then no volume of the array is mounted."
        yield Finding(ok=False, subject=SUBJECT, message=str(error), mend=mend)


def _judged(disk: tuple[str, str], roots: Roots) -> Iterator[Finding]:
    daemon = roots.multipathd
    wrong = []
    if "strict" in daemon.settings("find_multipaths"):
        message = "it makes maps of no disk that it has not had one of before (find_multipaths strict); new volumes would have one path"
        wrong.append(Finding(ok=False, subject=SUBJECT, message=message, mend="Set find_multipaths to yes in /etc/multipath.conf."))
    alone = [name for name in _disks(disk, roots) if not multipath.map_over(name, roots.sys) and not daemon.claims(str(roots.dev / name))]
    if alone:
        message = f"it does not claim {', '.join(alone)}, disks of the array: a volume there has one path"
        mend = "If they have several paths, look for a blacklist in /etc/multipath.conf, and set find_multipaths to yes."
        wrong.append(Finding(ok=False, subject=SUBJECT, message=message, mend=mend))
    if "queue" in daemon.settings("no_path_retry"):
        message = "a map without any path queues for ever (no_path_retry queue): a task that writes then cannot even be killed"
        wrong.append(Finding(ok=False, subject=SUBJECT, message=message, mend="Set no_path_retry to a number in /etc/multipath.conf."))
    if "yes" not in daemon.settings("recheck_wwid"):
        message = "what it queued for a volume that is gone may be written to the next one under its LUN number (recheck_wwid no)"
        wrong.append(Finding(ok=False, subject=SUBJECT, message=message, mend="Set recheck_wwid to yes in /etc/multipath.conf."))
    yield from wrong or [Finding(ok=True, subject=SUBJECT, message="it runs, and puts maps over the array's disks")]


def _disks(disk: tuple[str, str], roots: Roots) -> list[str]:
    """The array's disks that are on the node now."""
    blocks = sorted((roots.sys / "block").glob("sd*"))
    return [block.name for block in blocks if (_word(block, "vendor"), _word(block, "model")) == disk]


def _word(block: Path, name: str) -> str:
    with suppress(OSError):
        return (block / "device" / name).read_text(errors="replace").strip()
    return ""
