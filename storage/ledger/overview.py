"""The ledger as a whole: what a broker reads when it starts, and the counts that prove the ledger right."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select, text

from storage import collector, schema
from storage.ledger import rows
from storage.ledger.bulk import lookup
from storage.ledger.reads import Reads, nodes_of
from storage.ledger.records import PoolUse, Restored

PLACED: Final = lookup(rows.PLACEMENT, "FROM placements WHERE placements.scheduler {among}")
MINE: Final = lookup(rows.CLAIM, "FROM claims WHERE claims.scheduler {among}")
HELD: Final = lookup(
    rows.VOLUME, "FROM volumes WHERE volumes.volume_id IN (SELECT claims.volume_id FROM claims WHERE claims.scheduler {among})"
)
SOUND: Final = {
    "held_twice": (
        "SELECT count(*) FROM (SELECT volume_id FROM claims GROUP BY volume_id HAVING count(*) > 1 AND "
        "(sum(CASE WHEN mode IN ('SINGLE_NODE_WRITER', 'SINGLE_NODE_READER_ONLY') THEN 1 ELSE 0 END) > 0 OR "
        "sum(CASE WHEN mode = 'MULTI_NODE_SINGLE_WRITER' AND access = 'RW' THEN 1 ELSE 0 END) > 1)) AS twice"
    ),
    "claims_without_placement": (
        "SELECT count(*) FROM claims WHERE NOT EXISTS (SELECT 1 FROM placements WHERE placements.placement_id = claims.placement_id)"
    ),
    "claims_without_volume": (
        "SELECT count(*) FROM claims LEFT JOIN volumes ON volumes.volume_id = claims.volume_id "
        "WHERE volumes.volume_id IS NULL OR volumes.state = 'DELETING' OR volumes.access_mode <> claims.mode "
        "OR volumes.platform <> claims.platform"
    ),
    "claims_ahead": (
        "SELECT count(*) FROM claims JOIN volumes ON volumes.volume_id = claims.volume_id WHERE claims.epoch > volumes.epoch "
        "OR (claims.seat = 0 AND claims.mode <> 'MULTI_NODE_SINGLE_WRITER' AND claims.epoch <> volumes.epoch)"
    ),
    "placements_without_claims": (
        "SELECT count(*) FROM (SELECT placement_id FROM (SELECT placement_id, claims AS n FROM placements "
        "UNION ALL SELECT placement_id, -1 FROM claims) AS counted GROUP BY placement_id HAVING sum(n) <> 0) AS off"
    ),
    "pool_drift": (
        "SELECT count(*) FROM (SELECT platform, pool FROM (SELECT platform, name AS pool, provisioned_mib AS n FROM pools "
        "UNION ALL SELECT platform, pool, -size_mib FROM volumes) AS counted GROUP BY platform, pool HAVING sum(n) <> 0) AS off"
    ),
    "slot_drift": (
        "SELECT count(*) FROM (SELECT scheduler, node_id, platform FROM (SELECT scheduler, node_id, platform, used AS n FROM node_slots "
        "UNION ALL SELECT scheduler, node_id, platform, -1 FROM claims) AS counted "
        "GROUP BY scheduler, node_id, platform HAVING sum(n) <> 0) AS off"
    ),
}
"""Each counts what must not be: rows that hold a volume twice, belong to nothing, or are not what their sums say."""


class Overview(Reads):
    """Reads of everything at once."""

    def restore(self, scheduler: str) -> Restored:
        """All that this scheduler's broker needs to go on, as of one moment, in five queries."""
        workloads = select(schema.workloads).where(schema.workloads.c.scheduler == scheduler)
        with self._database.reading() as session, collector.at_rest():
            held = {row[1]: rows.volume(row) for row in session.find(HELD, [scheduler])}
            live = [rows.claim(row) for row in session.find(MINE, [scheduler])]
            return Restored(
                workloads=[rows.workload(row) for row in session.all(workloads)],
                placements=[rows.placement(row) for row in session.find(PLACED, [scheduler])],
                claims=[(claim, held[claim.volume_id]) for claim in live],
                nodes=nodes_of(session.all, scheduler),
            )

    def in_use(self) -> list[PoolUse]:
        """What live claims hold of each pool that has any; as fast as there are claims, however many volumes there are."""
        claims, volumes = schema.claims, schema.volumes
        held = select(claims.c.volume_id, func.count().label("live")).group_by(claims.c.volume_id).subquery()
        statement = (
            select(volumes.c.platform, volumes.c.pool, func.sum(held.c.live), func.sum(volumes.c.size_mib))
            .join(held, held.c.volume_id == volumes.c.volume_id)
            .group_by(volumes.c.platform, volumes.c.pool)
            .order_by(volumes.c.platform, volumes.c.pool)
        )
        with self._database.reading() as session:
            found = session.all(statement)
        return [PoolUse(platform=row[0], pool=row[1], claims=int(row[2]), volumes_mib=int(row[3])) for row in found]

    def counters(self) -> dict[str, int]:
        """What must be 0 at every moment, whatever was killed when: see SOUND."""
        with self._database.reading() as session:
            return {name: int(session.all(text(query))[0][0]) for name, query in SOUND.items()}
