"""What other schedulers on the ledger have on the machines that a scheduler uses too: attachments and attach slots are the machine's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, or_, select

from storage import schema
from storage.ledger import rows
from storage.ledger.engine import Database
from storage.ledger.records import Neighbour, SlotsUsed
from storage.model import NodeId, VolumeId


class ElsewhereReads:
    """The part of the ledger that reads them."""

    _database: Database

    def neighbours_on(self, volume_id: VolumeId, scheduler: str) -> list[Neighbour]:
        """The live claims of other schedulers on the volume."""
        claims, placements, nodes = schema.claims, schema.placements, schema.nodes
        of_node = and_(nodes.c.scheduler == claims.c.scheduler, nodes.c.node_id == claims.c.node_id)
        joined = claims.join(placements, placements.c.placement_id == claims.c.placement_id).outerjoin(nodes, of_node)
        statement = (
            select(claims.c.node_id, claims.c.platform, placements.c.state, nodes.c.hostname, nodes.c.identities)
            .select_from(joined)
            .where(claims.c.volume_id == volume_id, claims.c.scheduler != scheduler)
        )
        with self._database.reading() as session:
            return [
                Neighbour(node=NodeId(row.node_id), hostname=row.hostname or "", name=_name(row), state=row.state)
                for row in session.all(statement)
            ]

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
                SlotsUsed(node=NodeId(row.node_id), platform=row.platform, name=_name(row), used=row.used) for row in session.all(statement)
            ]


def _name(row: Any) -> str:
    return rows.unpacked(row.identities).get(row.platform, "") if row.identities else ""
