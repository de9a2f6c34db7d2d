"""`polly events`: who did what to which volume, when and why."""

from __future__ import annotations

import click

from framework.cli.completing import CLAIMS, VOLUMES
from framework.cli.options import Instant, empty, pages_through, reads
from framework.cli.output import Output
from framework.cli.tables import Column
from framework.cli.words import instant, moment
from framework.views import EventFilter, Source, pages
from storage.model import Event, EventPage

NO_EVENTS = "No event is there. The log begins with the first volume, claim or app."


@click.command()
@click.option(
    "--volume",
    metavar="VOLUME",
    help="Only what happened to this volume, by id or name; to one that is gone, by id.",
    shell_complete=VOLUMES,
)
@click.option("--claim", metavar="CLAIM", help="Only what happened to this claim.", shell_complete=CLAIMS)
@click.option("--task", metavar="TASK", help="Only what this task had a part in.")
@click.option(
    "--since", type=Instant(), help="Only from then on: 2026-11-30, '2026-11-30 22:15', or how long ago, such as 45min, 12h or 30d."
)
@click.option("--until", type=Instant(), help="Only before then; written like --since.")
@click.option("--newest-first", is_flag=True, help="Begin with the latest.")
@pages_through
@reads
def events(
    volume: str | None,
    claim: str | None,
    task: str | None,
    since: float | None,
    until: float | None,
    newest_first: bool,
    after: str | None,
    limit: int | None,
    source: Source,
    out: Output,
) -> None:
    """Show the event log, the oldest first.

    Where old events are deleted ([ledger] keep_events_days), -o json with --since and --until writes them out before.
    """
    only = EventFilter(volume=volume, claim=claim, task=task, since=since, until=until)
    last = EventPage(items=())

    def ask(key: str | None, many: int) -> EventPage:
        nonlocal last
        last = source.events(only, after=key, limit=many, newest_first=newest_first)
        return last

    out.pages(event_columns(of_one_volume=volume is not None), pages(ask, after=after, limit=limit), empty=empty("event", NO_EVENTS))
    reaches_back = last.after is None if newest_first else after is None
    if reaches_back and (since or 0.0) < last.kept_since:
        out.hint(
            f"Of what was before {moment(last.kept_since)} only what is not over yet is kept: [ledger] keep_events_days of polly.toml."
        )


def event_columns(*, of_one_volume: bool) -> list[Column[Event]]:
    """What matters first, ids last. An event of a volume that is gone has its id."""
    volume: Column[Event] = Column("VOLUME", lambda event: event.volume_name or event.volume_id or "")
    return [
        Column("AT", lambda event: instant(event.at)),
        Column("WHAT", lambda event: event.what),
        *(() if of_one_volume else (volume,)),
        Column("WHY", lambda event: event.why, prose=True),
        Column("WHO", lambda event: event.actor, rank=1),
        Column("TASK", lambda event: event.placement_id or "", rank=2),
        Column("CLAIM", lambda event: event.claim_id or "", rank=3),
    ]
