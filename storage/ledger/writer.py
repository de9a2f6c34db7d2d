"""What every writing part of the ledger stands on: one open transaction, its instant, its actor and its lines in the event log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from storage.errors import Conflict, PollyError, UnknownPool, UnknownVolume
from storage.ledger import rows
from storage.ledger.bulk import Batch, insert, lookup
from storage.ledger.engine import Session
from storage.ledger.rooms import POOLS
from storage.model import ClaimId, PlacementId, Volume, VolumeId

EVENTS: Final = insert("events", ("at", "actor", "what", "volume_id", "claim_id", "placement_id", "why"))
VOLUMES: Final = lookup(rows.VOLUME, "FROM volumes WHERE volumes.volume_id {among} ORDER BY volumes.volume_id {lock}")
LIVE: Final = lookup(rows.CLAIM, "FROM claims WHERE claims.volume_id {among} ORDER BY claims.volume_id, claims.epoch")
POOL_BY: Final = Batch(
    "UPDATE pools SET provisioned_mib = pools.provisioned_mib + :grown {from} WHERE pools.platform = :platform AND pools.name = :pool",
    ("platform", "pool", "grown"),
)
"""Accounts what is already a fact on the platform; it may bring the pool over its limit."""


class Writer:
    """One transaction. After any refusal it can only be rolled back, so nothing half done is ever committed."""

    def __init__(self, session: Session, *, actor: str, now: float) -> None:
        self.session = session
        self.actor = actor
        self.now = now
        self._lines: list[tuple[Any, ...]] = []
        self._accounts: Counter[tuple[str, str]] = Counter()

    def note(
        self,
        what: str,
        *,
        volume_id: VolumeId | None = None,
        claim_id: ClaimId | None = None,
        placement_id: PlacementId | None = None,
        why: str = "",
    ) -> None:
        """A line in the event log, written with the transaction."""
        self._lines.append((self.now, self.actor, what, volume_id, claim_id, placement_id, why))

    def flush(self) -> None:
        """Writes the lines, in their order."""
        if not self.session.failed:
            lines, self._lines = self._lines, []
            self.session.run(EVENTS, lines)

    def _fail(self, error: PollyError) -> NoReturn:
        self.session.failed = error
        raise error

    def _expect(self, changed: int, rows_given: int, *, what: str, expected: str) -> None:
        if changed != rows_given:
            self._fail(Conflict(what=what, expected=expected, found="something else"))

    def _volume(self, volume_id: VolumeId) -> Volume:
        """The volume, locked against other writers until the end of the transaction. Raises UnknownVolume."""
        found = self.session.find(VOLUMES, [volume_id])
        if not found:
            self._fail(UnknownVolume(volume=volume_id))
        return rows.volume(found[0])

    def close(self) -> None:
        """The last act of the transaction. Raises UnknownPool.

        Pools come last, and all in one order: two transactions that each have something else to do in between would wait for each other.
        """
        accounts = sorted((*pool, grown_mib) for pool, grown_mib in self._accounts.items() if grown_mib)
        if not self.session.failed and accounts:
            if len(accounts) > 1:
                self.session.lock(POOLS, sorted({platform for platform, *_ in accounts}))
            if self.session.run(POOL_BY, accounts) != len(accounts):
                self._miss(accounts)
        self.flush()

    def _miss(self, accounts: Sequence[tuple[str, str, int]]) -> NoReturn:
        there = {(platform, name) for platform, name, *_ in self.session.find(POOLS, sorted({platform for platform, *_ in accounts}))}
        platform, pool = next((platform, pool) for platform, pool, _ in accounts if (platform, pool) not in there)
        self._fail(UnknownPool(pool=pool, platform=platform))

    def _account(self, platform: str, pool: str, grown_mib: int) -> None:
        """Adds to what a pool has provisioned, or takes away from it, at the transaction's end, without asking for room."""
        self._accounts[platform, pool] += grown_mib
