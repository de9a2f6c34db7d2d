"""What a node was about to do and what came of it: JSON lines that outlive the process, and the machine where that counts.

One process writes one journal. A line is an intent, a result or a failure of a step; an intent without either is
a step that was cut off. A torn last line (the machine died while it was written) is no line.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.errors import NodeError


class Mark(StrEnum):
    INTENT = "intent"
    RESULT = "result"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line."""

    at: float
    """Seconds since the epoch."""
    mark: Mark
    step: str
    """create, attach, device, probe, mkfs, birth, fsck, mount, grow, bind, unbind, unmount, detach."""
    subject: str
    """The claim, or the target of a bind."""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """An append-only file of entries.

    The process may die at any line and the next one reads all that was written. Only entries with `durable` are flushed
    against the machine's death too: that of mkfs, the one step whose beginnings nobody else could tell of afterwards. A
    mount dies with the machine, and of a creation or an attach the platform knows.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float]) -> None:
        """Opens or begins the journal at `path`. `clock` gives seconds since the epoch. Raises NodeError."""
        self.path = Path(path)
        self._clock = clock
        try:
            is_new = not self.path.exists()
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _drop_torn_line(self._fd)
            if is_new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise NodeError(command="journal", target=str(path), reason=str(error)) from error

    def intent(self, step: str, subject: str, *, durable: bool = False, **facts: Any) -> None:
        """`step` is about to begin."""
        self._append(Mark.INTENT, step, subject, facts, durable)

    def result(self, step: str, subject: str, *, durable: bool = False, **facts: Any) -> None:
        """`step` is done."""
        self._append(Mark.RESULT, step, subject, facts, durable)

    def failure(self, step: str, subject: str, error: BaseException) -> None:
        """`step` ended with an error; what it did until then may remain."""
        self._append(Mark.FAILURE, step, subject, {"error": type(error).__name__, "message": str(error)}, False)

    def entries(self) -> tuple[Entry, ...]:
        """All that was written, oldest first. Raises NodeError for a line that no journal writes."""
        return read(self.path)

    def cut_off(self) -> tuple[Entry, ...]:
        """The intents whose step neither ended nor failed: where an earlier process died."""
        return cut_off(self.entries())

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _append(self, mark: Mark, step: str, subject: str, facts: Mapping[str, Any], durable: bool) -> None:
        line = {"at": self._clock(), "mark": mark, "step": step, "subject": subject, **({"facts": dict(facts)} if facts else {})}
        try:
            self._write(json.dumps(line).encode() + b"\n")
            if durable:
                os.fdatasync(self._fd)
        except OSError as error:
            raise NodeError(command="journal", target=str(self.path), reason=str(error)) from error

    def _write(self, line: bytes) -> None:
        """All of the line or nothing: a part of it would spoil the line after it."""
        if (written := os.write(self._fd, line)) < len(line):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read(path: str | os.PathLike[str]) -> tuple[Entry, ...]:
    """The entries of a journal, also of one that another process writes; a torn last line is left out. Raises NodeError."""
    try:
        *lines, _torn = Path(path).read_bytes().split(b"\n")
        return tuple(_entry(json.loads(line)) for line in lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NodeError(command="journal", target=str(path), reason=f"it cannot be read: {error}") from error


def cut_off(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The intents among `entries` that neither a result nor a failure followed."""
    open_steps: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if entry.mark is Mark.INTENT:
            open_steps[entry.step, entry.subject] = entry
        else:
            open_steps.pop((entry.step, entry.subject), None)
    return tuple(open_steps.values())


def _entry(line: Mapping[str, Any]) -> Entry:
    return Entry(at=line["at"], mark=Mark(line["mark"]), step=line["step"], subject=line["subject"], facts=line.get("facts", {}))


def _drop_torn_line(fd: int) -> None:
    size = os.fstat(fd).st_size
    whole = size
    while whole and (block := os.pread(fd, min(4096, whole), max(0, whole - 4096))):
        newline = block.rfind(b"\n")
        if newline >= 0:
            whole = max(0, whole - 4096) + newline + 1
            break
        whole = max(0, whole - 4096)
    if whole < size:
        os.ftruncate(fd, whole)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
