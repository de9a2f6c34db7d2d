"""`polly claim`: who may use which volume."""

from __future__ import annotations

import time
from collections.abc import Mapping

import click

from framework.cli.completing import CLAIMS, NODES, PLATFORMS, VOLUMES
from framework.cli.options import asks, empty, pages_through, reads
from framework.cli.output import Facts, Output
from framework.cli.tables import Column
from framework.cli.words import age, moment
from framework.client import BrokerClient
from framework.views import Source, pages
from storage.filters import ClaimFilter
from storage.lifecycle import ClaimState
from storage.model import Claim, NodeId

NO_CLAIMS = "No live claim is there. A claim comes with a task that uses a volume; polly events tells of those that ended."


@click.group()
def claim() -> None:
    """Look at claims, and release one whose holder is gone."""


@claim.command("list")
@click.option("--platform", help="Only claims on volumes of this platform.", shell_complete=PLATFORMS)
@click.option("--state", type=click.Choice([*ClaimState], case_sensitive=False), help="Only claims in this state.")
@click.option("--node", metavar="NODE", help="Only claims of this node, by id or hostname.", shell_complete=NODES)
@click.option("--volume", metavar="VOLUME", help="Only claims on this volume, by id or name.", shell_complete=VOLUMES)
@pages_through
@reads
def list_claims(
    platform: str | None,
    state: str | None,
    node: str | None,
    volume: str | None,
    after: str | None,
    limit: int | None,
    source: Source,
    out: Output,
) -> None:
    """List the live claims."""
    only = ClaimFilter(
        platform=platform,
        state=None if state is None else ClaimState(state.upper()),
        node=node,
        volume_id=None if volume is None else source.volume(volume).volume_id,
    )
    found = pages(lambda key, many: source.claims(only, after=key, limit=many), after=after, limit=limit)
    out.pages(claim_columns(hostnames(source) if out.for_people else {}), found, empty=empty("live claim", NO_CLAIMS))


def claim_columns(hostnames: Mapping[NodeId, str], *, of_one_volume: bool = False) -> list[Column[Claim]]:
    """`hostnames` are of the nodes that are known; a claim on another has the node's id."""
    now = time.time()
    volume: Column[Claim] = Column("VOLUME", lambda claim: claim.volume_name or claim.volume_id)
    return [
        Column("CLAIM", lambda claim: claim.claim_id),
        *(() if of_one_volume else (volume,)),
        Column("STATE", lambda claim: claim.state),
        Column("FOR", lambda claim: age(claim.since, now), right=True, rank=1),
        Column("EPOCH", lambda claim: str(claim.epoch), right=True, rank=2),
        Column("ACCESS", lambda claim: claim.access, rank=3),
        Column("NODE", lambda claim: hostnames.get(claim.holder.node) or claim.holder.node),
        Column("WHY", lambda claim: claim.reason, prose=True),
        Column("TASK", lambda claim: claim.holder.placement, rank=4),
    ]


def hostnames(source: Source) -> dict[NodeId, str]:
    return {node.node_id: node.hostname for node in source.nodes()}


@claim.command("show")
@click.argument("claim_id", metavar="CLAIM", shell_complete=CLAIMS)
@reads
def show(claim_id: str, source: Source, out: Output) -> None:
    """Show one live claim."""
    found = source.claim(claim_id)
    out.record(found, lambda: _facts(found, source.volume(found.volume_id).name, hostnames(source).get(found.holder.node, "")))


def _facts(claim: Claim, volume: str, hostname: str) -> Facts:
    return [
        ("claim", claim.claim_id),
        ("volume", f"{volume} ({claim.volume_id})"),
        ("state", f"{claim.state}: {claim.reason}" if claim.reason else claim.state),
        ("since", moment(claim.since)),
        ("epoch", str(claim.epoch)),
        ("access", claim.access),
        ("task", claim.holder.placement),
        ("node", f"{hostname} ({claim.holder.node})" if hostname else claim.holder.node),
        ("scheduler", claim.holder.scheduler),
        ("lease until", moment(claim.lease_until)),
    ]


@claim.command("release", short_help="Say that the holder of a STRANDED claim is gone.")
@click.argument("claim_id", metavar="CLAIM", shell_complete=CLAIMS)
@click.option("--because", required=True, metavar="TEXT", help="How you know that the holder is gone; kept in the event log.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks
def release(claim_id: str, because: str, yes: bool, broker: BrokerClient, out: Output) -> None:
    """Say that the holder of a STRANDED claim is gone, so that its volume goes to somebody else.

    If the holder lives and writes, the volume's data is lost. Polly cannot check what you say.
    """
    found = broker.claim(claim_id)
    volume = broker.volume(found.volume_id).name
    if not yes:
        host = hostnames(broker).get(found.holder.node)
        node = f"{host} (agent {found.holder.node})" if host else f"node {found.holder.node}"
        danger = f"If it still writes, the data of volume {volume} is lost."
        click.confirm(f"Is task {found.holder.placement} on {node} surely gone? {danger}", abort=True, err=True)
    broker.release_claim(claim_id, because)
    out.record({"claim_id": claim_id, "released": True}, lambda: [("released", f"{claim_id}; volume {volume} may be claimed again")])
