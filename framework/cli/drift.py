"""`polly drift`: where the ledger, the platforms and this node's mounts differ, and what is safe to mend."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from framework.cli.completing import PLATFORMS
from framework.cli.options import asks
from framework.cli.output import Output
from framework.cli.tables import Column
from framework.cli.words import count
from framework.client import BrokerClient
from framework.records import plain
from framework.service import DriftOrder, DriftReport, PlatformDrift
from framework.views import Source, pages
from storage.drift import Drift, Severity, of_mounts
from storage.errors import PollyError, UnknownClaim
from storage.filters import ClaimFilter
from storage.model import Claim, ClaimId, NodeId, Volume

DRIFTED: Final = 1
"""The exit status when something is to be mended, or was not looked at."""
EVERY_S: Final = 0.5
ORDER: Final = {Severity.DANGER: 0, Severity.WARNING: 1, Severity.INFO: 2}
FOLDER: Final = "folder"
"""The filesystem of volumes that are folders already, and so are mounted nowhere."""


@click.command()
@click.option("--platform", help="Look at this platform only.", shell_complete=PLATFORMS)
@click.option("--apply", is_flag=True, help="Mend what is safe. Nothing is ever deleted, detached or unmounted.")
@click.option(
    "--hostname", default=socket.gethostname, help="What Mesos calls this machine, if it is an agent.", show_default="its own name"
)
@click.option("--staging-dir", type=click.Path(path_type=Path), help="Where this agent's volumes are mounted, if not as usual.")
@asks
@click.pass_context
def drift(
    ctx: click.Context, platform: str | None, apply: bool, hostname: str, staging_dir: Path | None, broker: BrokerClient, out: Output
) -> None:
    """Compare the ledger with the platforms, and on an agent also with what is mounted there.

    Exit status 1 if a difference is left that somebody should look at, or if a platform could not be asked. -o json says for each platform
    how far it was compared, with the error of one that was not, whether this machine's mounts were, and the differences.
    """
    broker.look_for_drift(DriftOrder(platform=platform, apply=apply))
    report = _wait(broker, out)
    node = _mounts(broker, hostname, staging_dir)
    found = [it for part in report.platforms for it in part.found] + list(node.found)
    found.sort(key=lambda it: (ORDER[it.severity], it.platform, it.subject))
    if out.for_people:
        out.table(_columns(), [found], empty=_nothing(report))
        for sentence in _unseen(report, node):
            out.hint(sentence)
    else:
        out.record(_document(report, node, found), lambda: ())
    if any(part.error or part.more for part in report.platforms) or any(it.severity is not Severity.INFO and not it.mended for it in found):
        ctx.exit(DRIFTED)


def _document(report: DriftReport, node: _Node, found: Sequence[Drift]) -> dict[str, object]:
    parts = [{name: value for name, value in plain(part).items() if name != "found"} for part in report.platforms]
    return {
        "platforms": parts,
        "node": {"hostname": node.hostname, "compared": not node.why_not, "why_not": node.why_not},
        "differences": plain(found),
    }


def _wait(broker: BrokerClient, out: Output) -> DriftReport:
    """Shows how far the look is until it has ended."""
    try:
        while (report := broker.drift()).running:
            out.progress("; ".join(f"{part.platform}: {_progress(part)}" for part in report.platforms))
            time.sleep(EVERY_S)
    finally:
        out.progress("")
    return report


def _progress(part: PlatformDrift) -> str:
    words = {"LISTING": f"{part.listed} listed", "COMPARING": f"{part.compared} compared", "DONE": "done", "FAILED": "failed"}
    return words.get(part.state, part.state)


def _columns() -> list[Column[Drift]]:
    return [
        Column("SEVERITY", lambda it: it.severity),
        Column("WHAT", lambda it: it.kind),
        Column("SUBJECT", lambda it: f"{it.platform} {it.subject}".strip()),
        Column("LEDGER", lambda it: it.ledger, prose=True),
        Column("FOUND", lambda it: it.found, prose=True),
        Column("WHAT TO DO", _advice, prose=True),
    ]


def _advice(it: Drift) -> str:
    if it.mended:
        return f"Mended: {it.mend}."
    command = f" {it.subject}" if it.volume_id else ""
    advice = it.advice if it.advice.endswith(".") else f"{it.advice}{command}."
    return f"{advice} With --apply: {it.mend}." if it.mend else advice


def _nothing(report: DriftReport) -> str:
    """Empty where nothing was compared."""
    compared = [part for part in report.platforms if not part.error]
    if not compared:
        return ""
    listed = sum(part.listed for part in compared)
    return f"No drift: what {count(len(compared), 'platform')} listed ({count(listed, 'volume')}) is as the ledger says."


def _unseen(report: DriftReport, node: _Node) -> Iterator[str]:
    """What the list of differences does not hold."""
    for part in report.platforms:
        if part.error:
            yield f"{part.platform} could not be compared: {part.error}"
        if part.more:
            yield f"{part.platform} has {count(part.more, 'more difference')}; mend these first, then look again."
    if node.why_not:
        yield node.why_not


# --- this node's mounts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """What came of the look at this machine's mounts."""

    hostname: str
    why_not: str = ""
    """Why they were not compared; empty if they were."""
    found: Sequence[Drift] = ()


def _mounts(source: Source, hostname: str, staging_dir: Path | None) -> _Node:
    nodes = [node for node in source.nodes() if node.hostname == hostname]
    if not nodes:
        return _Node(hostname=hostname, why_not=f"{hostname} is no node of the ledger; on an agent, its mounts are compared too.")
    if os.geteuid() != 0:
        return _Node(hostname=hostname, why_not="Only root sees the mounts of all processes; this node's mounts are not compared.")
    from executors.config import default_staging_dir
    from storage.node.mounted import mounted

    here = mounted((staging_dir or default_staging_dir()).resolve())
    claims = [claim for node in nodes for page in _claims(source, node.node_id) for claim in page]
    live = {mount.claim_id for mount in here if _is_live(source, mount.claim_id)}
    return _Node(hostname=hostname, found=list(of_mounts(hostname, here, live, list(_mounting(source, claims)))))


def _claims(source: Source, node: NodeId) -> Iterator[Sequence[Claim]]:
    only = ClaimFilter(node=node)
    for page in pages(lambda after, many: source.claims(only, after=after, limit=many)):
        yield page.items


def _is_live(source: Source, claim: ClaimId) -> bool:
    try:
        source.claim(claim)
    except PollyError as error:
        if error.code != UnknownClaim.__name__:  # of what a broker reports only the code says which error it is
            raise
        return False
    return True


def _mounting(source: Source, claims: Sequence[Claim]) -> Iterator[tuple[Claim, Volume]]:
    for claim in claims:
        volume = source.volume(claim.volume_id)
        if volume.birth is not None and volume.birth.filesystem != FOLDER:
            yield claim, volume
