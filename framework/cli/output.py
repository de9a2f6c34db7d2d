"""How answers are printed: tables for people, tab-separated lines in a pipe, JSON and YAML for programs.

Lists are streamed part by part, so that a million volumes are no more work for the memory than a hundred.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import click

from framework.cli.tables import Column, TabbedTable, TerminalTable
from framework.cli.words import clean
from framework.records import plain
from storage.model import Page

T = TypeVar("T")
FORMS: Final = ("table", "json", "yaml")


Facts = Sequence[tuple[str, str]]
"""Names and values of one record."""


class Output:
    def __init__(self, form: str) -> None:
        self.form = form
        self._progress = 0
        """How much of its line on the terminal the last one took."""

    @property
    def for_people(self) -> bool:
        return self.form == "table"

    def say(self, sentence: str) -> None:
        """What was done; programs read the record instead."""
        if self.for_people:
            click.echo(clean(sentence))

    def hint(self, sentence: str) -> None:
        """What to do next: beside the answer, never in it."""
        click.echo(clean(sentence), err=True)

    def progress(self, line: str) -> None:
        """How far something is that people wait for: one line on their terminal, over the one before; an empty one removes it."""
        if not (self.for_people and sys.stderr.isatty()):
            return
        shown = clean(line)[: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r{shown.ljust(self._progress)}" + ("" if shown else "\r"), err=True, nl=False)
        self._progress = len(shown)

    # --- one record -----------------------------------------------------------------------------

    def record(self, record: object, facts: Callable[[], Facts]) -> None:
        if self.form == "json":
            click.echo(_json(plain(record)))
        elif self.form == "yaml":
            click.echo(_yaml(plain(record)), nl=False)
        else:
            self.facts(facts())

    def facts(self, facts: Facts) -> None:
        width = max((len(name) for name, _ in facts), default=0)
        for name, value in facts:
            click.echo(f"{click.style(name.ljust(width), bold=True)}  {clean(value)}".rstrip())

    # --- many records -----------------------------------------------------------------------------

    def table(self, columns: Sequence[Column[T]], parts: Iterable[Sequence[T]], *, empty: str, form: Callable[[T], Any] = plain) -> None:
        """`empty` says what to do next where there is nothing; `form` makes a record plain for programs."""
        printer = {"json": _print_json, "yaml": _print_yaml}.get(self.form)
        if printer:
            printer([form(record) for record in part] for part in parts)
        elif not self._print_table(columns, parts) and empty:
            self.hint(empty)

    def pages(self, columns: Sequence[Column[T]], parts: Iterable[Page[T]], *, empty: str) -> None:
        """A list that comes in pages. Where it was cut short, says how to go on."""
        after: list[str | None] = [None]

        def items() -> Iterator[Sequence[T]]:
            for page in parts:
                after[0] = page.after
                yield page.items

        self.table(columns, items(), empty=empty)
        if after[0] is not None:
            self.hint(f"There is more; go on with: --after {after[0]}")

    def _print_table(self, columns: Sequence[Column[T]], parts: Iterable[Sequence[T]]) -> bool:
        printer = TerminalTable(columns) if sys.stdout.isatty() else TabbedTable(columns)
        any_rows = False
        for part in parts:
            if part:
                printer.print([[clean(column.cell(record)) for column in columns] for record in part], header=not any_rows)
                any_rows = True
        return any_rows


def _print_json(parts: Iterable[Sequence[Any]]) -> None:
    separator = "[\n"
    for part in parts:
        for record in part:
            click.echo(separator + _json(record), nl=False)
            separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def _print_yaml(parts: Iterable[Sequence[Any]]) -> None:
    nothing = True
    for part in parts:
        if part:
            click.echo(_yaml(list(part)), nl=False)
            nothing = False
    if nothing:
        click.echo("[]")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text
