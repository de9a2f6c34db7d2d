"""The root of the command line: the commands by name, loaded when they are called, and every error as a sentence and an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import click

from framework.failures import exit_code
from storage.errors import PollyError

COMMANDS: Mapping[str, str] = {
    "broker": "framework.cli.running:broker",
    "app": "framework.cli.apps:app",
    "explain": "framework.cli.apps:explain",
    "offers": "framework.cli.offers:offers",
    "inventory": "framework.cli.inventory:inventory",
    "volume": "framework.cli.volumes:volume",
    "claim": "framework.cli.claims:claim",
    "snapshot": "framework.cli.snapshots:snapshot",
    "node": "framework.cli.inventory:node",
    "profile": "framework.cli.inventory:profile",
    "events": "framework.cli.events:events",
    "doctor": "framework.cli.running:doctor",
    "config": "framework.cli.running:config",
    "completion": "framework.cli.running:completion",
}
INTERRUPTED = 130


class Root(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Runs a command and ends the process; nothing but its exit status and a sentence on stderr tells of an error."""
        extra["standalone_mode"] = False
        try:
            found = super().main(args, *rest, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            sys.exit(1)
        except Exception as error:
            sys.exit(_tell(error))
        except KeyboardInterrupt:
            click.echo("", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(found if isinstance(found, int) else 0)


def _tell(error: Exception) -> int:
    """Prints an error as people read it, and returns the exit status."""
    if isinstance(error, click.Abort):
        click.echo("", err=True)
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, PollyError):
        click.echo(f"polly: {error}", err=True)
        if error.advice:
            click.echo(error.advice, err=True)
        return exit_code(error)
    logging.getLogger(__name__).debug("internal error", exc_info=error)
    if os.environ.get("POLLY_DEBUG"):
        raise error
    click.echo(f"polly: internal error: {type(error).__name__}: {error}", err=True)
    click.echo("This is a defect of Polly. POLLY_DEBUG=1 shows where it happened.", err=True)
    return 1


def _forget_stdout() -> None:
    """Whoever read the output is gone; the interpreter must not try to flush it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version() -> str:
    try:
        return version("polly-broker")
    except PackageNotFoundError:
        return "unknown"


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(_version(), prog_name="polly")
def root() -> None:
    """Persistent volumes from any storage platform, for Apache Mesos.

    Start a broker with `polly broker`, then an app with `polly app run FILE`. `polly COMMAND --help` says more.
    """


def main() -> NoReturn:
    """The console script."""
    root.main(prog_name="polly")
