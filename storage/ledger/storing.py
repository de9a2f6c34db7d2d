"""Tasks that are placed in one transaction while others are still being chosen: parts of a batch go to the database as they come.

It is one transaction all the same: nothing of it is seen before the last part's commit, and a part that is refused is
done again with all others as storage.ledger.placing says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from storage.ledger.beside import Beside, Errand
from storage.ledger.placing import as_placed
from storage.ledger.records import Placed, PlaceRequest, Refused
from storage.ledger.transaction import Transaction

WORTH_A_THREAD = 16
"""Where so many placements may come they are stored while the caller goes on; fewer take less time than to hand them to a thread."""

Outcomes = list[Placed | Refused]


class Storing:
    """One such transaction: `add` the parts, then ask for the `outcomes`."""

    def __init__(self, begin: Callable[[], AbstractContextManager[Transaction]], beside: Beside, now: float, most: int) -> None:
        """`begin` opens the transaction, of this instant; it is begun at once if `most`, the most that may come, are worth a thread."""
        self._begin, self._now = begin, now
        self._few: list[PlaceRequest] = []
        self._placed: list[Placed] = []
        self._errand: Errand[Sequence[PlaceRequest], Outcomes | None] | None = beside.begin(self._store) if most >= WORTH_A_THREAD else None

    def add(self, requests: Sequence[PlaceRequest]) -> Sequence[Placed]:
        """What becomes of these if nothing is refused."""
        now = self._now
        placed = [as_placed(request, now) for request in requests]
        self._placed += placed
        if self._errand is None:
            self._few += requests
        elif requests:
            self._errand.give(requests)
        return placed

    def outcomes(self) -> Outcomes:
        """Each request's, in their order, committed. Raises what Ledger.begin raises."""
        if not self._placed:
            return []
        if self._errand is None:
            stored = self._store([self._few])
        else:
            errand, self._errand = self._errand, None
            stored = errand.result()
        return [*self._placed] if stored is None else stored

    def abandon(self) -> None:
        """Stores nothing, unless the outcomes were asked for."""
        if self._errand is not None:
            self._errand.abandon()

    def _store(self, parts: Iterable[Sequence[PlaceRequest]]) -> Outcomes | None:
        """None where all were placed."""
        with self._begin() as transaction:
            return transaction.place_parts(parts)
