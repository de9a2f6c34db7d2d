"""What stands for a disk that is one path of several: the map over it, believed only if all its paths are the LUN that it names.

Where multipathd claims the path its map is waited for: a path that is mounted by itself keeps the map from being made for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from storage.errors import DeviceInUse, NodeError
from storage.node import multipath, scsi
from storage.node.multipathd import DISK
from storage.node.pace import Pace

if TYPE_CHECKING:
    from storage.node.devices import Roots

EVERY_S: Final = 0.1


def over(name: str, roots: Roots, pace: Pace, timeout_s: float) -> str:
    """The map that stands for disk `name`, or the disk itself where none does and none is going to.

    Without time it is as it is now. Raises DeviceInUse for a path under the map of another volume that is still used, NodeError for
    a map that does not come in time.
    """
    if timeout_s > 0 and not _finished_map(name, roots) and DISK.fullmatch(name) and roots.multipathd.is_here():
        _await(name, roots, pace, pace.now() + timeout_s)
    return _finished_map(name, roots) or name


def has_come_over(device: str, roots: Roots) -> bool:
    """Whether a map that is to be believed stands over `device`, a path that was found without one. Nobody else may use it since."""
    name = Path(device).name
    return not multipath.is_map(name, roots.sys) and bool(true_map(name, roots))


def _finished_map(name: str, roots: Roots) -> str:
    """The true map, once it can be used: its paths are shown as soon as it has a table, its size only when that is live."""
    found = true_map(name, roots)
    return found if found and multipath.is_live(found, roots.sys) else ""


def true_map(name: str, roots: Roots) -> str:
    """The map over disk `name`, if it is to be believed; else nothing."""
    found = multipath.map_over(name, roots.sys)
    return found if found and is_true(found, roots) else ""


def is_true(name: str, roots: Roots) -> bool:
    """Whether all paths of the map have the name that the map has, one of them says so itself, and none says another."""
    paths = multipath.paths_of(name, roots.sys)
    asked = [(roots.sys / "block" / path, roots.dev / path, roots.inquire) for path in paths]
    return (
        all(multipath.is_path_of(path, name, roots.sys) for path in paths)
        and any(scsi.is_itself(*path) for path in asked)
        and not any(scsi.is_anothers(*path) for path in asked)
    )


def _await(name: str, roots: Roots, pace: Pace, end: float) -> None:
    """Waits until the map is there, or it is sure that none will come."""
    daemon, device = roots.multipathd, str(roots.dev / name)

    def comes(check: Callable[[], bool] = lambda: False) -> bool:
        """Whether the map comes in time, or `check` holds."""
        return pace.until(lambda: bool(_finished_map(name, roots)) or check(), timeout_s=max(0.0, end - pace.now()), every_s=EVERY_S)

    if not daemon.sees_udev():
        reason = f"it runs on this node, but there is no {daemon.udev} here; mount the node's into this executor's container"
        raise NodeError(command="multipathd", target=device, reason=reason)
    if not comes(daemon.answers):
        raise NodeError(command="multipathd", target=device, reason="it has died and nothing has started it again; it may claim this disk")
    _tell_udev(name, roots)
    if not comes(lambda: _udev_is_through(name, roots)):
        raise NodeError(command="udev", target=device, reason="it is not through with this disk, so multipathd cannot know it")
    _drop_stale(name, roots)
    if _finished_map(name, roots) or not (true_map(name, roots) or daemon.claims(device)):
        return
    if not comes():
        reason = (
            "it claims this disk but has made no map of it in time; look at `multipath -v3`, or keep it from the array's disks by a "
            "blacklist in multipath.conf"
        )
        raise NodeError(command="multipathd", target=device, reason=reason)


def _udev_is_through(name: str, roots: Roots) -> bool:
    """With all paths: which of them the daemon claims depends on how many it knows."""
    return all(_is_known(path, roots) for path in multipath.siblings(name, roots.sys))


def _is_known(name: str, roots: Roots) -> bool:
    with suppress(OSError):
        number = (roots.sys / "block" / name / "dev").read_text().strip()
        return roots.multipathd.knows(number, multipath.wwid(name, roots.sys))
    return True  # it is gone


def _tell_udev(name: str, roots: Roots) -> None:
    """Of a disk that has become another volume's nobody else tells udev, and by it the daemon."""
    for path in multipath.siblings(name, roots.sys):
        if not _is_known(path, roots):
            with suppress(OSError):
                (roots.sys / "block" / path / "uevent").write_text("change")


def _drop_stale(name: str, roots: Roots) -> None:
    """Removes the map of another volume, which had the LUN before, from over the disk. Raises DeviceInUse if that is still used."""
    stale = multipath.map_over(name, roots.sys)
    if not stale or true_map(name, roots):
        return
    known_as = multipath.name_of(stale, roots.sys)
    try:
        roots.multipathd.remove(known_as)
    except NodeError as error:
        if multipath.map_over(name, roots.sys) == stale and not true_map(name, roots):
            holders = f"{known_as} ({stale}), the map of another volume that had this LUN before and is still in use"
            raise DeviceInUse(device=str(roots.dev / name), holders=holders) from error
