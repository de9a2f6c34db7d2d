"""One transaction of the ledger, put together from its parts."""

from __future__ import annotations

from storage.ledger.claiming import Claiming
from storage.ledger.deleting import Deletes
from storage.ledger.leaving import Leaving
from storage.ledger.retention import EventWrites
from storage.ledger.sightings import SightingWrites
from storage.ledger.snapshots import Snapshots
from storage.ledger.surroundings import Surroundings


class Transaction(Claiming, Leaving, Deletes, Snapshots, SightingWrites, Surroundings, EventWrites):
    """What may be written. Every transition is a guarded statement; when a guard does not hold, the verb raises one of
    storage.errors and nothing of the transaction is committed. Only `place` answers with refusals instead."""
