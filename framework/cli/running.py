"""`polly broker`, `polly doctor`, `polly config`, `polly completion`: running Polly, and checking the set-up."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any, Final

import click

from framework.cli.options import DEFAULT_BROKER, open_broker
from framework.cli.output import FORMS, Output
from framework.cli.tables import Column
from framework.service import BrokerOptions
from framework.tokens import read_token
from storage.errors import Invalid
from storage.platforms.base import Finding

UNSOUND: Final = 1
"""The exit status of `polly doctor` when something is to be mended."""

FILE = click.Path(dir_okay=False, path_type=Path)


class Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT; an IPv6 address stands in brackets."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, colon, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host, int(port)


@click.command()
@click.option("--master", required=True, envvar="POLLY_MASTER", metavar="HOST:PORT|zk://...", show_envvar=True, help="The Mesos master.")
@click.option("--role", "roles", multiple=True, help="A role to register for; may be given again. As in polly.toml by default.")
@click.option("--principal", default="", help="Who Polly is to Mesos.")
@click.option("--secret-file", type=FILE, help="Holds the principal's secret.")
@click.option(
    "--database",
    required=True,
    envvar="POLLY_DATABASE",
    metavar="URL",
    show_envvar=True,
    help="The ledger: sqlite:///... or postgresql://...",
)
@click.option(
    "--config",
    type=FILE,
    default=Path("polly.toml"),
    envvar="POLLY_CONFIG",
    show_default=True,
    show_envvar=True,
    help="Platforms and profiles.",
)
@click.option(
    "--listen",
    type=Address(),
    default="127.0.0.1:7070",
    show_default=True,
    help="Where the HTTP API answers; not on loopback only with a token.",
)
@click.option("--token-file", type=FILE, envvar="POLLY_TOKEN_FILE", show_envvar=True, help="Holds the token that every request must bear.")
@click.option("--restored", is_flag=True, help="The ledger comes from a backup: learn from the platforms what it misses, then run.")
def broker(
    master: str,
    roles: tuple[str, ...],
    principal: str,
    secret_file: Path | None,
    database: str,
    config: Path,
    listen: tuple[str, int],
    token_file: Path | None,
    restored: bool,
) -> None:
    """Run the broker: Polly's framework on Mesos, and the HTTP API. Ctrl-C ends it; its tasks live on."""
    if bool(principal) != bool(secret_file):
        raise click.UsageError("--principal and --secret-file belong together.")
    gc.disable()  # the broker enables it once it has started: while modules are read there is nothing to find
    from framework.broker import run

    run(
        BrokerOptions(
            master=master,
            roles=roles,
            principal=principal,
            secret_file=secret_file,
            database=database,
            config=config,
            host=listen[0],
            port=listen[1],
            token=read_token(token_file) if token_file else None,
            restored=restored,
        )
    )


@click.command()
@click.option("--config", type=FILE, envvar="POLLY_CONFIG", show_envvar=True, help="Check this polly.toml and its platforms.")
@click.option("--database", envvar="POLLY_DATABASE", metavar="URL", show_envvar=True, help="Check this ledger.")
@click.option(
    "--master", envvar="POLLY_MASTER", metavar="HOST:PORT|zk://...", show_envvar=True, help="Check that this Mesos master is reached."
)
@click.option(
    "--broker",
    envvar="POLLY_BROKER",
    metavar="URL",
    show_envvar=True,
    help=f"Ask this broker; {DEFAULT_BROKER} if nothing else is to be checked.",
)
@click.option("--token-file", type=FILE, envvar="POLLY_TOKEN_FILE", show_envvar=True, help="Holds the token that the broker wants.")
@click.option("-o", "--output", type=click.Choice(FORMS), default="table", show_default=True, help="How to print the answer.")
@click.pass_context
def doctor(
    ctx: click.Context,
    config: Path | None,
    database: str | None,
    master: str | None,
    broker: str | None,
    token_file: Path | None,
    output: str,
) -> None:
    """Check the set-up and say what to mend. Exit status 1 if something is."""
    from framework.doctor import examine

    url = broker or (None if config or database or master else DEFAULT_BROKER)
    client = open_broker(url, token_file) if url else None
    logging.getLogger().addHandler(logging.NullHandler())  # what SDKs log about a failure is in the findings, in a sentence
    try:
        found = list(examine(config=config, database=database, master=master, broker=client))
    finally:
        if client:
            client.close()
    columns: list[Column[Finding]] = [
        Column("STATE", lambda finding: "ok" if finding.ok else "MEND"),
        Column("SUBJECT", lambda finding: finding.subject),
        Column("FOUND", lambda finding: finding.message, prose=True),
        Column("WHAT TO DO", lambda finding: "" if finding.ok else finding.mend, prose=True),
    ]
    Output(output).table(columns, [found], empty="")
    if not all(finding.ok for finding in found):
        ctx.exit(UNSOUND)


@click.group()
def config() -> None:
    """Check the configuration."""


@config.command("check", short_help="Read a polly.toml as the broker would.")
@click.argument("file", type=FILE, default=Path("polly.toml"))
def check(file: Path) -> None:
    """Read FILE as the broker would (polly.toml by default), without connecting to anything."""
    from framework.broker import build_platforms
    from framework.config import load_config

    read = load_config(file)
    for platform in build_platforms(read).values():
        platform.close()
    click.echo(f"{file} is valid: platforms {', '.join(read.platforms) or 'none'}; profiles {', '.join(read.profiles) or 'none'}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete polly's commands and the names of what there is.

    A new shell does so once its file has this line:

    \b
        ~/.bashrc                   eval "$(polly completion bash)"
        ~/.zshrc                    autoload -Uz compinit && compinit && eval "$(polly completion zsh)"
        ~/.config/fish/config.fish  polly completion fish | source
    """
    from click.shell_completion import get_completion_class

    from framework.cli.root import root

    kind = get_completion_class(shell)
    if kind is None:
        raise Invalid(field="SHELL", value=shell, reason="it is none that can complete")
    source = kind(root, {}, "polly", "_POLLY_COMPLETE").source()
    # click's words for fish end a name, and what is said of it, at the first comma in it
    click.echo(source.replace('string split "," ', 'string split -m 1 "," ') if shell == "fish" else source)
