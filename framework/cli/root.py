"""The root of the command line: the commands by name, loaded when they are called, and every error as a sentence and an exit status."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from framework.failures import exit_code, lines
from storage.errors import PollyError
from storage.near import near

COMMANDS: Mapping[str, tuple[str, str]] = {
    "broker": ("framework.cli.running:broker", "Run the broker: the framework on Mesos, and the HTTP API."),
    "app": ("framework.cli.apps:app", "Run, look at, scale and kill Marathon apps."),
    "explain": ("framework.cli.apps:explain", "Say why instances of apps wait."),
    "offers": ("framework.cli.offers:offers", "Show the latest offers with Polly's overlay."),
    "inventory": ("framework.cli.inventory:inventory", "Show platforms and pools: capacity, provisioned, free, claimed."),
    "volume": ("framework.cli.volumes:volume", "Look at, create, delete, snapshot, expand and import volumes."),
    "claim": ("framework.cli.claims:claim", "Look at claims, and release one whose holder is gone."),
    "snapshot": ("framework.cli.snapshots:snapshot", "Look at and delete snapshots."),
    "node": ("framework.cli.inventory:node", "Look at nodes, the machines that can hold volumes."),
    "profile": ("framework.cli.inventory:profile", "Look at profiles, the named storage classes."),
    "events": ("framework.cli.events:events", "Show who did what to which volume, when and why."),
    "drift": ("framework.cli.drift:drift", "Compare the ledger with the platforms and this node's mounts."),
    "doctor": ("framework.cli.running:doctor", "Check the set-up and say what to mend."),
    "config": ("framework.cli.running:config", "Check the configuration."),
    "completion": ("framework.cli.running:completion", "Make a shell complete polly's commands."),
}
"""Where each command is, and what the list of all says of it: that list loads none of them."""
INTERRUPTED = 130
UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to a file without a name fails with, which standard output is: its disk is full, or its terminal gone."""


class Root(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            meant = near(args[0], COMMANDS)
            raise click.UsageError(error.message + (f" Did you mean {meant!r}?" if meant else ""), ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Runs a command and ends the process; nothing but its exit status and a sentence on stderr tells of an error."""
        extra |= {"standalone_mode": False, "color": None if _is_colourful(os.environ) else False}
        _fill_standard_streams()
        try:
            found = super().main(args, *rest, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            sys.exit(1)
        except OSError as error:
            if error.errno not in UNWRITABLE or error.filename is not None:
                sys.exit(_tell(error))
            _forget_stdout()
            click.echo(f"polly: The answer cannot be written to standard output: {error.strerror}.", err=True)
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
        _tell_usage(error)
        return 2
    if isinstance(error, PollyError):
        for line in lines(error):
            click.echo(line, err=True)
        return exit_code(error)
    logging.getLogger(__name__).debug("internal error", exc_info=error)
    if os.environ.get("POLLY_DEBUG"):
        raise error
    click.echo(f"polly: internal error: {type(error).__name__}: {error}", err=True)
    click.echo("This is a defect of Polly. POLLY_DEBUG=1 shows where it happened.", err=True)
    return 1


def _tell_usage(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    sentence = error.format_message()
    click.echo(f"polly: {sentence if sentence[-1:] in '.?)' else sentence + '.'}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"What it takes is shown by: {error.ctx.command_path} --help", err=True)


def _is_colourful(environment: Mapping[str, str]) -> bool:
    """Whether a terminal is to be sent what makes it print bold."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _fill_standard_streams() -> None:
    """Closed ones become /dev/null, so that no file or socket gets the number of one and is written to as that."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - as long-lived as the process


def _forget_stdout() -> None:
    """Whoever read the output is gone; the interpreter must not try to flush it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from framework.build import is_compiled

        click.echo(f"polly, version {version('polly-broker')}, {'compiled' if is_compiled() else 'plain Python'}")
        context.exit()


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version, help="Show the version and exit.")
def root() -> None:
    """Persistent volumes from any storage platform, for Apache Mesos.

    Start a broker with `polly broker`, then an app with `polly app run FILE`. `polly COMMAND --help` says more.
    """


def main() -> NoReturn:
    """The console script."""
    root.main(prog_name="polly")
