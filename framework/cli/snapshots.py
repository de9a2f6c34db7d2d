"""`polly snapshot`: the snapshots of volumes."""

from __future__ import annotations

import time

import click

from framework.cli.completing import SNAPSHOTS, VOLUMES
from framework.cli.options import asks, empty, pages_through, reads
from framework.cli.output import Output
from framework.cli.tables import Column
from framework.cli.words import age, size
from framework.client import BrokerClient
from framework.views import Source, pages
from storage.model import Snapshot

NO_SNAPSHOTS = "No snapshot is there. Make one with: polly volume snapshot VOLUME"


@click.group()
def snapshot() -> None:
    """Look at and delete snapshots. One is made with `polly volume snapshot`."""


@snapshot.command("list")
@click.option("--volume", metavar="VOLUME", help="Only those of this volume, by id or name.", shell_complete=VOLUMES)
@pages_through
@reads
def list_snapshots(volume: str | None, after: str | None, limit: int | None, source: Source, out: Output) -> None:
    """List snapshots."""
    now = time.time()
    columns: list[Column[Snapshot]] = [
        Column("SNAPSHOT", lambda snapshot: snapshot.snapshot_id),
        Column("NAME", lambda snapshot: snapshot.name),
        Column("VOLUME", lambda snapshot: snapshot.volume_name or snapshot.volume_id),
        Column("PLATFORM", lambda snapshot: snapshot.platform, rank=2),
        Column("SIZE", lambda snapshot: size(snapshot.size_mib), right=True),
        Column("STATE", lambda snapshot: snapshot.state),
        Column("AGE", lambda snapshot: age(snapshot.created_at, now), right=True, rank=1),
    ]
    found = pages(lambda key, many: source.snapshots(volume, after=key, limit=many), after=after, limit=limit)
    out.pages(columns, found, empty=empty("snapshot", NO_SNAPSHOTS))


@snapshot.command("delete")
@click.argument("snapshot_id", metavar="SNAPSHOT", shell_complete=SNAPSHOTS)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks
def delete(snapshot_id: str, yes: bool, broker: BrokerClient, out: Output) -> None:
    """Delete a snapshot. Refused while a volume that begins with it was not mounted yet."""
    if not yes:
        click.confirm(f"Delete snapshot {snapshot_id}?", abort=True, err=True)
    broker.delete_snapshot(snapshot_id)
    out.record({"snapshot_id": snapshot_id, "deleted": True}, lambda: [("deleted", snapshot_id)])
