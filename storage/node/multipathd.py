"""The daemon that puts maps over the paths of a LUN: whether it is here, what it claims, and what is asked of it.

A path that it claims must not be used by itself: its map could not be made any more. A map that queues while it has no path keeps
whoever writes to it, and the unmount too, for ever, unless it is told not to.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from storage.errors import NodeError
from storage.node import commands
from storage.node.commands import Output, Run
from storage.node.pace import Pace

SOCKET: Final = re.compile(r" (?:@/org/kernel/linux/storage/multipathd|/run/multipathd\.socket)$", re.MULTILINE)
PIDS: Final = ("multipathd.pid", "multipathd/multipathd.pid")
DISK: Final = re.compile(r"(?:sd|dasd)[a-z]+|nvme[0-9]+n[0-9]+")
"""What the daemon, and udev for it, look at at all."""
SETTING: Final = re.compile(r'^\s*([a-z_]+)\s+"?([^"\n]*)"?$', re.MULTILINE)
GREEDY: Final = ("off", "no")
"""The values of find_multipaths by which the daemon claims every disk, while `multipath -c` answers as if it were strict."""
TOOL_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipathd:
    """The daemon of this node, and udev, by which it learns of disks. All methods but the first four raise NodeError."""

    run: Run = commands.run
    pace: Pace = field(default_factory=Pace)
    sockets: Path = Path("/proc/net/unix")
    state: Path = Path("/run")
    udev: Path = Path("/run/udev")

    def answers(self) -> bool:
        """Whether the daemon can be asked, or is started by systemd when it is."""
        with suppress(OSError):
            return SOCKET.search(self.sockets.read_text(errors="replace")) is not None
        return False

    def is_here(self) -> bool:
        """Whether it runs, or ran until it was killed: then its file is left, and it is about to be started again."""
        return self.answers() or any((self.state / name).exists() for name in PIDS)

    def sees_udev(self) -> bool:
        """Whether what udev knows can be read here; in a container it may not be, though the daemon's socket is there."""
        return self.udev.is_dir()

    def knows(self, number: str, wwid: str) -> bool:
        """Whether udev is through with the disk `number` (major:minor), under the world-wide name that the kernel shows of it."""
        with suppress(OSError):
            said = (self.udev / "data" / f"b{number}").read_text(errors="replace")
            return not wwid.startswith("naa.") or f"E:ID_SERIAL=3{wwid.removeprefix('naa.')}" in said.splitlines()
        return False

    def claims(self, device: str) -> bool:
        """Whether it has made a map over this path, or is going to."""
        if self._ask(["multipath", "-c", device], ok=(0, 1)).code == 0:
            return True
        if not self.settings("find_multipaths") & {*GREEDY}:
            return False
        return Path(device).name in self._ask(["multipathd", "show", "paths", "raw", "format", "%d"]).out.split()

    def settings(self, name: str) -> set[str]:
        """The values that a setting has, in general and for the kinds of disks that are here."""
        said = self._ask(["multipathd", "show", "config", "local"]).out
        return {found[2].strip() for found in SETTING.finditer(said) if found[1] == name}

    def resize(self, name: str) -> None:
        """Gives the map the size that all its paths have by now."""
        self._ask(["multipathd", "resize", "map", name])

    def give_up(self, name: str) -> None:
        """Has what is written to the map fail while it has no path."""
        if not (self.answers() and self._ask(["multipathd", "disablequeueing", "map", name], ok=(0, 1)).code == 0):
            self._ask(["dmsetup", "message", name, "0", "fail_if_no_path"])

    def remove(self, name: str, *, patience_s: float = 0.0) -> None:
        """Removes the map, which nobody may use any more, and has its queue fail before. Somebody may still look at it, as udev does at
        what was just unmounted, for `patience_s` seconds at the most."""
        self.give_up(name)
        refusals: list[NodeError] = []

        def is_removed() -> bool:
            try:
                self._ask(["multipath", "-f", name])
            except NodeError as error:
                refusals.append(error)
                return False
            return True

        if not self.pace.until(is_removed, timeout_s=patience_s, every_s=0.2):
            raise refusals[-1]

    def _ask(self, command: list[str], *, ok: Collection[int] = (0,)) -> Output:
        try:
            return self.run(command, ok=ok, timeout_s=TOOL_S)
        except NodeError as error:
            raise NodeError(command=command[0], target=" ".join(command[1:]), reason=error.fields["reason"]) from error
