"""`polly inventory`, `polly profile`, `polly node`: what there is to make volumes of, how, and for whom."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import click

from framework.cli.completing import PLATFORMS, ZONES
from framework.cli.options import empty, reads
from framework.cli.output import Output
from framework.cli.tables import Column
from framework.cli.words import age, clean, instant, labels, size
from framework.views import PlatformView, PoolView, Source, platforms
from storage.model import Node, Profile

NO_POOLS = (
    "No pool is known. Platforms are blocks [platforms.NAME] of polly.toml, and a broker reads their pools: polly broker --config FILE"
)
NO_PROFILES = "No profile is known. Profiles are blocks [profiles.NAME] of polly.toml, and a broker stores them as it starts."
NO_NODES = "No node is known. Agents are noted as they are offered or run a task."


@click.command()
@click.option("--platform", help="Only the pools of this platform.", shell_complete=PLATFORMS)
@click.option("--zone", help="Only the pools of this zone.", shell_complete=ZONES)
@reads
def inventory(platform: str | None, zone: str | None, source: Source, out: Output) -> None:
    """Show platforms and pools: capacity, what is provisioned, what is free, what live claims hold."""
    pools = [view for view in source.pools(platform) if zone is None or view.pool.zone == zone]
    heard = [hearing for hearing in source.hearings() if platform in (None, hearing.platform) and (zone is None or hearing.heard_at)]
    found = platforms(pools, heard)
    if not out.for_people:
        out.record({"platforms": found, "pools": pools}, lambda: ())
        return
    if found:
        out.table(_platform_columns(), [found], empty="")
        click.echo()
    out.table(_pool_columns(), [pools], empty=empty("pool", NO_POOLS))
    for sentence in filter(None, (_silence(view, time.time()) for view in found)):
        click.echo(f"\n{sentence}")


def _silence(view: PlatformView, now: float) -> str:
    """A sentence about a platform that does not answer; empty for one that does."""
    hearing = view.hearing
    if not hearing.silent_since:
        return ""
    since, error = f"since {instant(hearing.silent_since)}, for {age(hearing.silent_since, now)}", clean(hearing.error)
    made = "It is asked again." if view.online else "Nothing new is made there until it does."
    return f"Platform {view.name} has not answered {since}: {error} {made}"


def _platform_state(view: PlatformView) -> str:
    if view.online:
        return "online"
    return "silent" if view.hearing.silent_since else "partly offline"


def _platform_columns() -> list[Column[PlatformView]]:
    return [
        Column("PLATFORM", lambda view: view.name),
        Column("POOLS", lambda view: str(view.pools), right=True, rank=2),
        Column("CAPACITY", lambda view: size(view.capacity_mib), right=True),
        Column("PROVISIONED", lambda view: size(view.provisioned_mib), right=True),
        Column("FREE", lambda view: size(view.free_mib), right=True),
        Column("CLAIMED", lambda view: size(view.claimed_mib), right=True, rank=1),
        Column("CLAIMS", lambda view: str(view.claims), right=True, rank=3),
        Column("STATE", _platform_state),
    ]


def _pool_columns() -> list[Column[PoolView]]:
    return [
        Column("POOL", lambda view: f"{view.pool.platform}/{view.pool.name}"),
        Column("ZONE", lambda view: view.pool.zone, rank=1),
        Column("CAPACITY", lambda view: size(view.pool.capacity_mib), right=True),
        Column("FOREIGN", lambda view: size(view.pool.foreign_mib), right=True, rank=6),
        Column("RESERVE", lambda view: size(view.pool.reserve_mib), right=True, rank=5),
        Column("OVERCOMMIT", lambda view: f"{view.pool.overcommit:g}", right=True, rank=7),
        Column("PROVISIONED", lambda view: size(view.pool.provisioned_mib), right=True),
        Column("FREE", lambda view: size(view.free_mib), right=True),
        Column("CLAIMED", lambda view: size(view.claimed_mib), right=True, rank=2),
        Column("CLAIMS", lambda view: str(view.claims), right=True, rank=3),
        Column("STATE", lambda view: view.pool.state),
        Column("ROOM", lambda view: view.pool.room, rank=4),
        Column("LABELS", lambda view: labels(dict(view.pool.labels)), rank=8),
    ]


@click.group()
def profile() -> None:
    """Look at profiles, the named storage classes."""


@profile.command("list")
@reads
def list_profiles(source: Source, out: Output) -> None:
    """List all profiles."""
    columns: list[Column[Profile]] = [
        Column("PROFILE", lambda profile: profile.name),
        Column("PLATFORMS", lambda profile: _any(profile.platforms)),
        Column("POOLS", lambda profile: _any((*profile.pools, *(f"{k}={v}" for k, v in profile.pool_labels.items()))), rank=3),
        Column("FILESYSTEM", lambda profile: profile.filesystem),
        Column("ACCESS", lambda profile: profile.access_mode, rank=1),
        Column("RECLAIM", lambda profile: profile.reclaim),
        Column("SIZES", _sizes, rank=2),
        Column("ROLES", lambda profile: _any(profile.roles), rank=4),
    ]
    out.table(columns, [source.profiles()], empty=NO_PROFILES)


def _any(names: Sequence[str]) -> str:
    return ",".join(names) or "any"


def _sizes(profile: Profile) -> str:
    return f"{size(profile.min_mib)} to {size(profile.max_mib)}" if profile.max_mib else f"from {size(profile.min_mib)}"


@click.group()
def node() -> None:
    """Look at nodes, the machines that can hold volumes."""


@node.command("list")
@click.option("--zone", help="Only nodes of this zone.", shell_complete=ZONES)
@click.option("--state", type=click.Choice(["UP", "UNREACHABLE", "GONE"], case_sensitive=False), help="Only nodes in this state.")
@reads
def list_nodes(zone: str | None, state: str | None, source: Source, out: Output) -> None:
    """List all nodes with the attach slots in use."""
    now = time.time()
    found = [n for n in source.nodes() if (zone is None or n.zone == zone) and (state is None or n.state == state.upper())]
    columns: list[Column[Node]] = [
        Column("HOST", lambda node: node.hostname),
        Column("REGION", lambda node: node.region, rank=4),
        Column("ZONE", lambda node: node.zone),
        Column("STATE", lambda node: node.state),
        Column("CLAIMS", lambda node: _slots(node.used, node.slots)),
        Column("SEEN", lambda node: age(node.seen_at, now), right=True, rank=1),
        Column("NODE", lambda node: node.node_id, rank=2),
        Column("SCHEDULER", lambda node: node.scheduler, rank=3),
    ]
    out.table(columns, [found], empty=empty("node", NO_NODES))


def _slots(used: Mapping[str, int], slots: Mapping[str, int]) -> str:
    """`local 2/16, ebs 1`: claims of each platform, and how many it can hold where that is bounded."""
    names = sorted({*used, *slots})
    return ", ".join(f"{name} {used.get(name, 0)}" + (f"/{slots[name]}" if name in slots else "") for name in names)
