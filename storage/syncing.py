"""Taking over what a platform lists into the ledger: part by part, and written only where it changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from storage.inventory import Ledger, written
from storage.platforms.base import Platform

PART: Final = 1000
"""Volumes that a platform is asked for at once; each part is a short transaction of its own."""
ACTOR: Final = "broker"


def sync_volumes(ledger: Ledger, platform: Platform, tell: Callable[[int], None] = lambda listed: None) -> int:
    """Lists the whole platform into the ledger's sightings; the number of volumes that it has. `tell` hears how many were listed so far.

    What the list does not have any more is dropped once the list is whole. Raises what the platform raises; then the parts
    that came are stored, and nothing is dropped.
    """
    before = ledger.fingerprints(platform.name)
    after: str | None = None
    listed = 0
    while True:
        page = platform.volumes(after=after, limit=PART)
        reports = [(report, written(report)) for report in page.items]
        changed = [(report, text) for report, text in reports if before.pop(report.external_id, None) != hash(text)]
        if changed:
            with ledger.begin(ACTOR) as tx:
                tx.sight(platform.name, changed)
        listed += len(page.items)
        tell(listed)
        after = page.after
        if after is None:
            break
    gone = list(before)
    for start in range(0, len(gone), PART):
        with ledger.begin(ACTOR) as tx:
            tx.unsight(platform.name, gone[start : start + PART])
    return listed
