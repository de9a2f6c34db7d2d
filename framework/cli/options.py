"""Options that many commands share, and how they become a source to read from, a broker to ask, and an output."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from framework.cli.output import FORMS, Output
from framework.cli.words import moment, parse_instant, parse_size
from framework.client import BrokerClient
from framework.tokens import read_token
from framework.views import Source
from storage.errors import PollyError

Command = Callable[..., None]
DEFAULT_BROKER = "http://127.0.0.1:7070"
NOT_NARROWING = frozenset({"output", "database", "broker", "token_file", "limit", "newest_first"})
"""Options of lists that are no filters."""


class Size(click.ParamType[int]):
    """A size in MiB: 512MiB, 10GiB, 1.5TiB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(value)
        except PollyError as error:
            self.fail(str(error), param, ctx)


class Instant(click.ParamType[float]):
    """A time, as framework.cli.words.parse_instant reads it."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_instant(value, time.time())
        except PollyError as error:
            self.fail(str(error), param, ctx)


class Label(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


_output = click.option("-o", "--output", type=click.Choice(FORMS), default="table", show_default=True, help="How to print the answer.")
_broker = click.option(
    "--broker",
    envvar="POLLY_BROKER",
    default=DEFAULT_BROKER,
    show_default=True,
    metavar="URL",
    show_envvar=True,
    help="The broker's HTTP API.",
)
_database = click.option(
    "--database", envvar="POLLY_DATABASE", metavar="URL", show_envvar=True, help="Read this ledger itself, so that no broker need run."
)
_token = click.option(
    "--token-file",
    envvar="POLLY_TOKEN_FILE",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Holds the token that the broker wants.",
)


def reads(command: Command) -> Command:
    """A command that shows something: called with `source` and `out`, from the ledger or from a broker."""

    @_output
    @_database
    @_broker
    @_token
    @functools.wraps(command)
    def wrapped(*args: Any, output: str, database: str | None, broker: str, token_file: Path | None, **kwargs: Any) -> None:
        with open_source(database, broker, token_file) as source:
            command(*args, source=source, out=Output(output), **kwargs)

    return wrapped


def asks(command: Command) -> Command:
    """A command that only a running broker can answer: called with `broker` and `out`."""

    @_output
    @_broker
    @_token
    @functools.wraps(command)
    def wrapped(*args: Any, output: str, broker: str, token_file: Path | None, **kwargs: Any) -> None:
        with closing(open_broker(broker, token_file)) as client:
            command(*args, broker=client, out=Output(output), **kwargs)

    return wrapped


def pages_through(command: Command) -> Command:
    """A command that lists what may be long: called with `after` and `limit`."""
    after = click.option("--after", metavar="KEY", help="Go on after this; the last part of a list says what to give here.")
    limit = click.option("--limit", type=click.IntRange(1), help="Print at most so many; without it, all.")
    return after(limit(command))


def empty(thing: str, otherwise: str) -> str:
    """What an empty list of things says: by what it was narrowed, or `otherwise`, which says how there come to be some."""
    ctx = click.get_current_context()
    typed = [option for option in ctx.command.params if ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE]
    narrowed = [option for option in typed if option.name not in NOT_NARROWING]
    if not narrowed:
        return otherwise
    words = " ".join(f"{option.opts[0]} {value}" for option in narrowed for value in _each(ctx.params[option.name or ""]))
    return f"No {thing} passes {words}. All that there are: {ctx.command_path}"


def _each(value: Any) -> list[str]:
    if isinstance(value, float):
        return [moment(value)]
    values = value if isinstance(value, tuple) else (value,)
    return ["=".join(it) if isinstance(it, tuple) else str(it) for it in values]


@contextmanager
def open_source(database: str | None, broker: str, token_file: Path | None) -> Iterator[Source]:
    """The ledger where one is named, else the broker."""
    with closing(_ledger_source(database) if database else open_broker(broker, token_file)) as source:
        yield source


def _ledger_source(database: str) -> Source:
    from framework.source import LedgerSource
    from storage.inventory import open_ledger

    return LedgerSource(open_ledger(database, read_only=True))


def open_broker(url: str, token_file: Path | None) -> BrokerClient:
    return BrokerClient(url, read_token(token_file) if token_file else None)
