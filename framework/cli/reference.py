"""docs/cli.md, made from the commands themselves: `python -m framework.cli.reference > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from framework.cli.root import root
from framework.failures import EXIT_CODES

VERBATIM = "\b\n"
"""Before lines that a terminal gets as they are; on the page their indent says it."""
_HEAD = """# The command line

This page is made from the commands: `python -m framework.cli.reference > docs/cli.md`.

Commands that show something read a running broker's HTTP API (`--broker`, POLLY_BROKER), or the ledger itself
(`--database`, POLLY_DATABASE), so that they work while no broker runs. What changes something needs the broker.

On a terminal lists are tables in which no id is cut or broken: where a table is too wide, what matters least is left out, and what is
long stands below its row. In a pipe they are lines with all columns, tabs between them, the first line naming them;
`-o json` and `-o yaml` print whole records, with sizes in MiB and instants in seconds since the epoch. Without `--limit` a list is
printed to its end, page by page. Errors are one sentence on standard error, with advice below it where there is any. NO_COLOR, or
TERM=dumb, leaves out what makes letters bold.

bash (4.4 or newer), zsh and fish complete commands, options, and the ids and names of what there is: apps, volumes, claims, nodes,
snapshots, pools, platforms, profiles, zones. How that is switched on is said at [polly completion](#polly-completion). The names come from
the ledger or the broker that the line or the environment names; where neither answers at once, none are offered.

## Exit status

| status | meaning |
|---|---|
"""


def page() -> str:
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    return _HEAD + codes + "".join(_sections(root, click.Context(root, info_name="polly")))


def _sections(group: click.Group, ctx: click.Context) -> Iterator[str]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None:
            yield from _section(command, click.Context(command, info_name=name, parent=ctx))


def _section(command: click.Command, ctx: click.Context) -> Iterator[str]:
    level = "##" if ctx.parent is not None and ctx.parent.parent is None else "###"
    yield f"\n{level} {ctx.command_path}\n\n{inspect.cleandoc(command.help or '').replace(VERBATIM, '')}\n"
    if isinstance(command, click.Group):
        yield from _sections(command, ctx)
        return
    yield f"\n    {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}\n"
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option) and "--help" not in param.opts]
    records = [record for param in options if (record := param.get_help_record(ctx))]
    if records:
        yield "\n| option | |\n|---|---|\n"
        yield from (f"| `{_cell(option)}` | {_cell(text)} |\n" for option, text in records)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(page(), nl=False)
