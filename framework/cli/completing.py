"""What a shell is offered beside words of commands: the names of what there is, from the ledger or from a broker.

Whoever presses a key waits: what is not there in time is not offered, and nothing is ever said about it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from storage.filters import ClaimFilter, VolumeFilter
from storage.lifecycle import ClaimState

if TYPE_CHECKING:
    from framework.views import Source

DEADLINE_S: Final = 2.0
PAGE: Final = 1000
"""Of lists that may be long only so many are read."""
MOST: Final = 200
"""So many are offered."""

Names = Callable[["Source", click.Context, str], Iterable[tuple[str, str]]]
"""Names and what is said of each, given what is typed of it so far."""
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offering(names: Names) -> Completer:
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found: list[CompletionItem] = []
        reading = threading.Thread(target=_read, args=(names, ctx, incomplete, found), daemon=True)
        reading.start()
        reading.join(DEADLINE_S)
        return list(found)

    return complete


def _read(names: Names, ctx: click.Context, incomplete: str, found: list[CompletionItem]) -> None:
    from framework.cli.options import DEFAULT_BROKER, open_source

    database = ctx.params.get("database") or os.environ.get("POLLY_DATABASE")
    broker, token = ctx.params.get("broker") or DEFAULT_BROKER, ctx.params.get("token_file")
    with suppress(Exception), open_source(database, broker, token) as source:
        matching = ((name, says) for name, says in names(source, ctx, incomplete) if name.startswith(incomplete))
        found.extend([CompletionItem(name, help=says or None) for name, says in islice(matching, MOST)])


def _apps(source: Source, _: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """An app may be named without its first slash."""
    for app in source.apps():
        yield app.app_id if incomplete[:1] in ("", "/") else app.app_id[1:], app.state


def _volumes(source: Source, _: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """By name, and by id where there is no name or an id is begun. `/app#` asks for that app's only."""
    app, number, _rest = incomplete.partition("#")
    for volume in source.volumes(VolumeFilter(owner=app if number else None), limit=PAGE).items:
        says = f"{volume.state}, {volume.platform}/{volume.pool}"
        if volume.name:
            yield volume.name, says
        if incomplete or not volume.name:
            yield volume.volume_id, volume.name or says


def _claims(source: Source, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    only = ClaimFilter(state=ClaimState.STRANDED if ctx.info_name == "release" else None)
    for claim in source.claims(only, limit=PAGE).items:
        yield claim.claim_id, f"{claim.state}, volume {claim.volume_name or claim.volume_id}"


def _snapshots(source: Source, _: click.Context, __: str) -> Iterator[tuple[str, str]]:
    for snapshot in source.snapshots(limit=PAGE).items:
        yield snapshot.snapshot_id, " of ".join(filter(None, (snapshot.name, snapshot.volume_name)))


def _nodes(source: Source, _: click.Context, __: str) -> Iterator[tuple[str, str]]:
    for node in source.nodes():
        yield node.hostname, node.state
        yield node.node_id, f"{node.hostname}, {node.state}"


def _foreign(source: Source, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    for report in source.foreign(ctx.params["platform"], limit=PAGE).items:
        yield report.external_id, report.name


def _pools(source: Source, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    for view in source.pools(ctx.params.get("platform")):
        yield view.pool.name, view.pool.platform


def _platforms(source: Source, _: click.Context, __: str) -> Iterator[tuple[str, str]]:
    yield from dict.fromkeys((view.pool.platform, "") for view in source.pools())


def _profiles(source: Source, _: click.Context, __: str) -> Iterator[tuple[str, str]]:
    for profile in source.profiles():
        yield profile.name, f"{profile.filesystem}, {profile.reclaim}"


def _zones(source: Source, _: click.Context, __: str) -> Iterator[tuple[str, str]]:
    zones = {view.pool.zone for view in source.pools()} | {node.zone for node in source.nodes()}
    yield from ((zone, "") for zone in sorted(zones) if zone)


APPS = _offering(_apps)
VOLUMES = _offering(_volumes)
CLAIMS = _offering(_claims)
SNAPSHOTS = _offering(_snapshots)
NODES = _offering(_nodes)
FOREIGN = _offering(_foreign)
POOLS = _offering(_pools)
PLATFORMS = _offering(_platforms)
PROFILES = _offering(_profiles)
ZONES = _offering(_zones)
