"""Tables for people, as wide as their terminal. A cell is never cut and never folded, so that what it says can be copied: where a table is
too wide, what matters least is left out, and what is long stands on a line of its own below its row.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import click

T = TypeVar("T")
GAP: Final = 2
"""Characters between two columns."""
BESIDE: Final = 40
"""A sentence stands in its row where it has so many characters, which is more than an id has; else below."""


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    title: str
    cell: Callable[[T], str]
    right: bool = False
    rank: int = 0
    """Above 0: left out of a table that is too wide for the terminal, the highest first."""
    prose: bool = False
    """Sentences, which may be broken between words."""


@dataclass(frozen=True, slots=True)
class Layout:
    widths: Mapping[int, int]
    """How wide each column of the row is, by its place among all."""
    below: tuple[int, ...] = ()
    """Those that stand below the row."""


def fitted(columns: Sequence[Column[T]], natural: Sequence[int], room: int) -> Layout:
    """How a table of `room` characters is laid out whose longest cells are of these lengths."""
    prose = [at for at, column in enumerate(columns) if column.prose and not column.rank]
    beside = _dropped(columns, {at: min(width, BESIDE) if at in prose else width for at, width in enumerate(natural)}, room)
    if _taken(beside) <= room:
        for at in prose:
            beside[at] = min(natural[at], beside[at] + room - _taken(beside))
        return Layout(beside)
    row = _dropped(columns, {at: width for at, width in enumerate(natural) if at not in prose}, room)
    below = set(prose)
    while _taken(row) > room and len(row) > 1:
        longest = max(list(row)[1:], key=lambda at: (row[at], at))
        below.add(longest)
        # What made room for it may have room again.
        row = _dropped(columns, {at: width for at, width in enumerate(natural) if at not in below}, room)
    return Layout(row, tuple(sorted(below)))


def _dropped(columns: Sequence[Column[T]], widths: Mapping[int, int], room: int) -> dict[int, int]:
    """Without what matters least, as long as that is too wide."""
    left = dict(widths)
    while _taken(left) > room and any(columns[at].rank for at in left):
        del left[max(left, key=lambda at: (columns[at].rank, at))]
    return left


def _taken(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


class TabbedTable(Generic[T]):
    """For programs: one line for each row, a tab between two columns."""

    def __init__(self, columns: Sequence[Column[T]]) -> None:
        self._titles = [column.title for column in columns]

    def print(self, rows: Iterable[Sequence[str]], *, header: bool) -> None:
        if header:
            click.echo("\t".join(self._titles))
        for row in rows:
            click.echo("\t".join(cell or "-" for cell in row))


class TerminalTable(Generic[T]):
    """The first part decides which columns there are and how wide, so that the parts of a long list stay in line."""

    def __init__(self, columns: Sequence[Column[T]]) -> None:
        self._columns = columns
        self._room = shutil.get_terminal_size().columns
        self._layout = Layout({})

    def print(self, rows: Sequence[Sequence[str]], *, header: bool) -> None:
        if header:
            titles = [column.title for column in self._columns]
            natural = [max(_length(row[at] or "-") for row in [titles, *rows]) for at in range(len(titles))]
            self._layout = fitted(self._columns, natural, self._room)
            click.secho(next(iter(self._lines(titles))), bold=True)
            click.echo("─" * min(self._room, _taken(self._layout.widths)))
        for row in rows:
            for line in (*self._lines(row), *self._below(row)):
                click.echo(line)

    def _lines(self, row: Sequence[str]) -> Iterable[str]:
        cells = {at: self._cell(at, row[at] or "-") for at in self._layout.widths}
        for number in range(max(map(len, cells.values()))):
            parts = [self._padded(at, lines[number] if number < len(lines) else "") for at, lines in cells.items()]
            yield (" " * GAP).join(parts).rstrip()

    def _cell(self, at: int, text: str) -> list[str]:
        width = self._layout.widths[at]
        return _broken(text, width) if self._columns[at].prose and _length(text) > width else [text]

    def _padded(self, at: int, text: str) -> str:
        blank = " " * max(0, self._layout.widths[at] - _length(text))
        return blank + text if self._columns[at].right else text + blank

    def _below(self, row: Sequence[str]) -> Iterable[str]:
        """What has no room in the row, each under its name; what is empty is not there."""
        told = [at for at in self._layout.below if row[at]]
        indent = GAP + max((len(self._columns[at].title) for at in told), default=0) + GAP
        for at in told:
            head = " " * GAP + self._columns[at].title
            lines = _broken(row[at], max(BESIDE, self._room - indent)) if self._columns[at].prose else [row[at]]
            for number, line in enumerate(lines):
                yield (head if number == 0 else "").ljust(indent) + line


def _length(text: str) -> int:
    """In a terminal's cells, of which a CJK character takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def _broken(text: str, width: int) -> list[str]:
    """Lines of at most so many cells, broken between words; a word that is longer has a line of its own."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and _length(lines[-1]) + 1 + _length(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
