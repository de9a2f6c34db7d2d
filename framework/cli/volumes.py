"""`polly volume`: volumes, and what a person does to them by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from framework.cli.claims import claim_columns, hostnames
from framework.cli.completing import APPS, FOREIGN, PLATFORMS, POOLS, PROFILES, SNAPSHOTS, VOLUMES, ZONES
from framework.cli.events import event_columns
from framework.cli.options import Label, Size, asks, empty, pages_through, reads
from framework.cli.output import Facts, Output
from framework.cli.tables import Column
from framework.cli.words import age, labels, moment, size
from framework.client import BrokerClient
from framework.service import ImportOrder, VolumeOrder
from framework.views import EventFilter, HeldVolume, Source, pages
from storage.filters import ClaimFilter, VolumeFilter
from storage.lifecycle import ClaimState, VolumeState
from storage.model import Claim, Event, NodeId, SnapshotId, Volume
from storage.platforms.base import VolumeReport

NO_VOLUMES = (
    "No volume is there. An app's own are made with it: polly app run FILE; by hand: polly volume create NAME --profile PROFILE --size 1GiB"
)
STORY = 10
MOST_HOLDERS = 2
"""So many nodes that hold a volume are named in a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeStory:
    """A volume with who holds it and what happened to it last."""

    volume: Volume
    claims: tuple[Claim, ...]
    events: tuple[Event, ...]


@click.group()
def volume() -> None:
    """Look at, create, delete, snapshot, expand and import volumes."""


@volume.command("list")
@click.option("--platform", help="Only volumes of this platform.", shell_complete=PLATFORMS)
@click.option("--pool", help="Only volumes of this pool.", shell_complete=POOLS)
@click.option("--profile", help="Only volumes of this profile.", shell_complete=PROFILES)
@click.option("--zone", help="Only volumes of this zone.", shell_complete=ZONES)
@click.option("--state", type=click.Choice([*VolumeState], case_sensitive=False), help="Only volumes in this state.")
@click.option("--owner", metavar="APP", help="Only volumes of this app.", shell_complete=APPS)
@click.option("--role", help="Only volumes of this Mesos role.")
@click.option("--external-id", metavar="ID", help="Only the volume that its platform calls so.")
@click.option("--label", "wanted", type=Label(), multiple=True, help="Only volumes with this label; may be given again.")
@pages_through
@reads
def list_volumes(
    platform: str | None,
    pool: str | None,
    profile: str | None,
    zone: str | None,
    state: str | None,
    owner: str | None,
    role: str | None,
    external_id: str | None,
    wanted: Sequence[tuple[str, str]],
    after: str | None,
    limit: int | None,
    source: Source,
    out: Output,
) -> None:
    """List volumes, the oldest first."""
    only = VolumeFilter(
        platform=platform,
        pool=pool,
        profile=profile,
        zone=zone,
        state=None if state is None else VolumeState(state.upper()),
        owner=owner and f"/{owner.strip('/')}",
        role=role,
        external_id=external_id,
        labels=dict(wanted),
    )
    found = pages(lambda key, many: source.held_volumes(only, after=key, limit=many), after=after, limit=limit)
    out.pages(volume_columns(hostnames(source) if out.for_people else {}), found, empty=empty("volume", NO_VOLUMES))


@volume.command("foreign", short_help="List what a platform has that is not Polly's.")
@click.option("--platform", required=True, help="The platform to look at.", shell_complete=PLATFORMS)
@pages_through
@reads
def list_foreign(platform: str, after: str | None, limit: int | None, source: Source, out: Output) -> None:
    """List what a platform has that is not Polly's, as it was last listed: what can be imported."""
    columns: list[Column[VolumeReport]] = [
        Column("EXTERNAL-ID", lambda seen: seen.external_id),
        Column("NAME", lambda seen: seen.name, rank=1),
        Column("SIZE", lambda seen: size(seen.size_mib), right=True),
        Column("POOL", lambda seen: seen.pool),
        Column("ZONE", lambda seen: seen.zone, rank=3),
        Column("HELD BY", lambda seen: ", ".join(seen.held_by), prose=True),
        Column("LABELS", lambda seen: labels(dict(seen.labels)), rank=4),
    ]
    found = pages(lambda key, many: source.foreign(platform, after=key, limit=many), after=after, limit=limit)
    out.pages(columns, found, empty=f"Nothing is known but Polly's own. The platform is listed by: polly drift --platform {platform}")


def volume_columns(hostnames: Mapping[NodeId, str]) -> list[Column[HeldVolume]]:
    now = time.time()
    return [
        Column("NAME", lambda volume: volume.name),
        Column("SIZE", lambda volume: size(volume.size_mib), right=True),
        Column("STATE", lambda volume: volume.state),
        Column("HELD BY", lambda volume: _held_by(volume, hostnames)),
        Column("POOL", lambda volume: f"{volume.platform}/{volume.pool}", rank=1),
        Column("PROFILE", lambda volume: volume.profile, rank=2),
        Column("EPOCH", lambda volume: str(volume.epoch), right=True, rank=5),
        Column("ZONE", lambda volume: volume.zone, rank=4),
        Column("OWNER", lambda volume: volume.owner, rank=6),
        Column("AGE", lambda volume: age(volume.created_at, now), right=True, rank=3),
        Column("VOLUME", lambda volume: volume.volume_id, rank=7),
    ]


def _held_by(volume: HeldVolume, hostnames: Mapping[NodeId, str]) -> str:
    """`agent1`, or `agent1 (STRANDED)` where the volume is not just mounted there; of many the first."""
    claims = [(hostnames.get(claim.holder.node) or claim.holder.node, claim.state) for claim in volume.claims]
    named = [host if state is ClaimState.MOUNTED else f"{host} ({state})" for host, state in claims[:MOST_HOLDERS]]
    return ", ".join(named) + (f" and {len(claims) - MOST_HOLDERS} more" if len(claims) > MOST_HOLDERS else "")


@volume.command("show", short_help="Show one volume, who holds it and what happened to it.")
@click.argument("name", metavar="VOLUME", shell_complete=VOLUMES)
@reads
def show(name: str, source: Source, out: Output) -> None:
    """Show one volume, by its id or name: who holds it and what happened to it last."""
    found = source.volume(name)
    story = VolumeStory(
        volume=found,
        claims=tuple(source.claims(ClaimFilter(volume_id=found.volume_id)).items),
        events=tuple(source.events(EventFilter(volume=found.volume_id), limit=STORY, newest_first=True).items),
    )
    out.record(story, lambda: volume_facts(found, _origin(source, found)))
    if not out.for_people:
        return
    click.echo()
    out.table(claim_columns(hostnames(source), of_one_volume=True), [story.claims], empty="No claim is on it: it is free.")
    if story.events:
        click.echo(f"\nThe latest of its events, the newest first; all with: polly events --volume {found.volume_id}")
        out.table(event_columns(of_one_volume=True), [story.events], empty="")


def _origin(source: Source, volume: Volume) -> str:
    """What a copy is one of, in Polly's names as long as that is there."""
    if volume.snapshot is not None:
        for snapshot in source.snapshots(external_id=volume.snapshot).items:
            if snapshot.platform == volume.platform:
                return f"snapshot {snapshot.snapshot_id}" + (f" ({snapshot.name})" if snapshot.name else "")
        return f"snapshot {volume.snapshot}, as the platform calls it"
    if volume.source is not None:
        for original in source.volumes(VolumeFilter(platform=volume.platform, external_id=volume.source)).items:
            return f"volume {original.name}"
        return f"volume {volume.source}, as the platform calls it"
    return ""


def volume_facts(volume: Volume, origin: str) -> Facts:
    """`origin` is what it is a copy of."""
    return [
        ("volume", volume.volume_id),
        ("name", volume.name),
        ("state", f"{volume.state}: {volume.reason}" if volume.reason else volume.state),
        ("size", size(volume.size_mib) + (f" ({volume.size_mib} MiB)" if volume.size_mib >= 1024 else "")),
        ("pool", f"{volume.platform}/{volume.pool}"),
        ("profile", volume.profile or "-"),
        ("filesystem", f"{volume.filesystem}, {_born(volume)}"),
        ("on the platform", volume.external_id or "not made yet"),
        *([("copy of", origin)] if origin else []),
        ("access", volume.access_mode),
        ("epoch", str(volume.epoch)),
        ("owner", volume.owner or "-"),
        ("role", volume.role or "-"),
        ("zone", " ".join(filter(None, (volume.region, volume.zone))) or "-"),
        ("labels", labels(dict(volume.labels)) or "-"),
        ("created", moment(volume.created_at)),
    ]


def _born(volume: Volume) -> str:
    if volume.birth is not None:
        return f"UUID {volume.birth.filesystem_uuid}"
    is_imported = volume.external_id is not None and not volume.token
    return "as it was imported; it is looked at with its first mount" if is_imported else "not made yet"


# --- what a person does -------------------------------------------------------------------------------


@volume.command("create")
@click.argument("name")
@click.option("--profile", required=True, help="How it is made.", shell_complete=PROFILES)
@click.option("--size", "size_mib", type=Size(), help="Such as 10GiB; a number alone is MiB. Needed without --snapshot or --from-volume.")
@click.option("--snapshot", help="Begin with what this snapshot holds.", shell_complete=SNAPSHOTS)
@click.option(
    "--from-volume",
    "source",
    metavar="VOLUME",
    shell_complete=VOLUMES,
    help="Be a clone of this volume, by its id or name, as it is when the clone is made.",
)
@asks
def create(
    name: str, profile: str, size_mib: int | None, snapshot: str | None, source: str | None, broker: BrokerClient, out: Output
) -> None:
    """Create a volume that apps can name.

    Its capacity is taken at once; the platform makes it when it is first claimed. A clone then holds what its source holds at that
    moment, and the source can be neither deleted nor expanded before. For what a volume holds now, make a snapshot, and the volume from it.
    """
    if size_mib is None and snapshot is None and source is None:
        raise click.UsageError("Give --size, --snapshot or --from-volume.")
    if snapshot is not None and source is not None:
        raise click.UsageError("Give --snapshot or --from-volume, not both.")
    order = VolumeOrder(
        name=name, profile=profile, size_mib=size_mib, snapshot=None if snapshot is None else SnapshotId(snapshot), source=source
    )
    made = broker.create_volume(order)
    rounded = size_mib is not None and size_mib < made.size_mib
    note = [("asked for", f"{size(size_mib or 0)}, its platform makes more")] if rounded else []
    out.record(made, lambda: [*volume_facts(made, _origin(broker, made)), *note])


@volume.command("import")
@click.argument("external_id", metavar="EXTERNAL-ID", shell_complete=FOREIGN)
@click.option("--platform", required=True, help="The platform that has it.", shell_complete=PLATFORMS)
@click.option("--name", required=True, help="What to call it here.")
@click.option("--profile", required=True, help="How it is mounted and who may use it.", shell_complete=PROFILES)
@asks
def adopt(external_id: str, platform: str, name: str, profile: str, broker: BrokerClient, out: Output) -> None:
    """Take over a volume that the platform has and Polly did not make. It is never formatted."""
    made = broker.import_volume(ImportOrder(platform=platform, external_id=external_id, name=name, profile=profile))
    out.record(made, lambda: volume_facts(made, _origin(broker, made)))


@volume.command("delete")
@click.argument("name", metavar="VOLUME", shell_complete=VOLUMES)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks
def delete(name: str, yes: bool, broker: BrokerClient, out: Output) -> None:
    """Delete a volume and the data on it. Refused while it is claimed or has snapshots."""
    found = broker.volume(name)
    if not yes:
        click.confirm(f"Delete {found.name} ({size(found.size_mib)} on {found.platform}/{found.pool}) and its data?", abort=True, err=True)
    broker.delete_volume(found.volume_id)
    out.record({"volume_id": found.volume_id, "deleted": True}, lambda: [("deleted", f"{found.name} ({found.volume_id})")])


@volume.command("snapshot")
@click.argument("name", metavar="VOLUME", shell_complete=VOLUMES)
@click.option("--name", "label", default="", help="What to call the snapshot.")
@asks
def snapshot(name: str, label: str, broker: BrokerClient, out: Output) -> None:
    """Make a snapshot of a volume."""
    made = broker.snapshot_volume(name, label)
    of = made.volume_name or made.volume_id
    out.record(made, lambda: [("snapshot", made.snapshot_id), ("of", of), ("state", made.state), ("size", size(made.size_mib))])


@volume.command("expand")
@click.argument("name", metavar="VOLUME", shell_complete=VOLUMES)
@click.option("--size", "size_mib", type=Size(), required=True, help="The new size, such as 20GiB.")
@asks
def expand(name: str, size_mib: int, broker: BrokerClient, out: Output) -> None:
    """Make a volume larger. Its filesystem grows with its next mount."""
    grown = broker.expand_volume(name, size_mib)
    out.record(grown, lambda: volume_facts(grown, _origin(broker, grown)))
