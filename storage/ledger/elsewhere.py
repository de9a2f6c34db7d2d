"""What other schedulers on the ledger use of the machines that a scheduler uses too: attach slots are the machine's."""

from __future__ import annotations

from sqlalchemy import and_, or_, select

from storage import schema
from storage.ledger.engine import Database
from storage.ledger.machines import called
from storage.ledger.records import SlotsUsed
from storage.model import NodeId


class ElsewhereReads:
    """The part of the ledger that reads it."""

    _database: Database

    def slots_elsewhere(self, scheduler: str) -> list[SlotsUsed]:
        """How many attach slots other schedulers use of each node and platform."""
        slots, nodes = schema.node_slots, schema.nodes
        of_node = and_(nodes.c.scheduler == slots.c.scheduler, nodes.c.node_id == slots.c.node_id)
        others = or_(slots.c.scheduler < scheduler, slots.c.scheduler > scheduler)  # so that the key's index is used
        statement = (
            select(slots.c.node_id, slots.c.platform, slots.c.used, nodes.c.identities)
            .select_from(slots.outerjoin(nodes, of_node))
            .where(others, slots.c.used > 0)
        )
        with self._database.reading() as session:
            return [
                SlotsUsed(node=NodeId(row.node_id), platform=row.platform, name=called(row.platform, row.identities), used=row.used)
                for row in session.all(statement)
            ]
