"""What is mounted, as the kernel says it in /proc/PID/mountinfo. Reads only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.errors import NodeError

PROC: Final = Path("/proc")
TO_ESCAPE: Final = re.compile(r"[ \t\n\\]")
"""What the kernel escapes of a mountpoint; of a source, which is only read, it escapes `#` too."""
ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    mount_id: int
    device: str
    """major:minor of the filesystem's device."""
    root: str
    """Which folder of the filesystem is mounted; `/` unless it is a bind of a part."""
    target: str
    options: frozenset[str]
    """Of this mount: `ro` or `rw`, nosuid, nodev, ..."""
    filesystem: str
    source: str

    @property
    def read_only(self) -> bool:
        return "ro" in self.options


def read(proc: Path = PROC) -> tuple[Mount, ...]:
    """All mounts of the calling thread's namespace, oldest first. Raises NodeError."""
    return _parsed(_text(proc), proc)


def at(target: str, proc: Path = PROC) -> Mount | None:
    """What one sees at `target`: of several mounts on one another, the last. Raises NodeError."""
    # A node may have thousands of mounts; only the lines that can be meant are parsed.
    lines = [line for line in _text(proc).split("\n") if f" {_escape(target)} " in line]
    return top(target, _parsed("\n".join(lines), proc))


def parse(text: str) -> tuple[Mount, ...]:
    """Raises ValueError or IndexError for anything but mountinfo."""
    return tuple(_parse_line(line) for line in text.split("\n") if line)


def top(target: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """What one sees at `target`: of several mounts on one another, the last."""
    return next((mount for mount in reversed(mounts) if mount.target == target), None)


def _text(proc: Path) -> str:
    # A thread can have a namespace of its own; /proc/self would speak of the first thread's.
    file = proc / "thread-self" / "mountinfo"
    try:
        return file.read_text(errors="surrogateescape")
    except OSError as error:
        raise NodeError(command="read", target=str(file), reason=str(error)) from error


def _parsed(text: str, proc: Path) -> tuple[Mount, ...]:
    try:
        return parse(text)
    except (ValueError, IndexError) as error:
        raise NodeError(command="read", target=f"{proc}/thread-self/mountinfo", reason=str(error)) from error


def _parse_line(line: str) -> Mount:
    left, _, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    return Mount(
        mount_id=int(fields[0]),
        device=fields[2],
        root=_unescape(fields[3]),
        target=_unescape(fields[4]),
        options=frozenset(fields[5].split(",")),
        filesystem=rest[0],
        source=_unescape(rest[1]),
    )


def _unescape(word: str) -> str:
    return ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), word)


def _escape(path: str) -> str:
    return TO_ESCAPE.sub(lambda found: f"\\{ord(found[0]):03o}", path)
