"""What stands around volumes and claims: pools, profiles, nodes, workloads, placements, settings, orphans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import delete, select, update

from storage import schema
from storage.errors import AlreadyExists, Conflict
from storage.ledger import rows
from storage.ledger.bulk import Batch, Lookup, insert
from storage.ledger.records import Placement, Workload
from storage.ledger.writer import Writer
from storage.model import Hearing, Node, NodeId, PlacementId, Pool, Profile, WorkloadId
from storage.platforms.base import PoolReport


def _upsert(
    table: str, key: Sequence[str], values: Sequence[str], *, kept: Sequence[str] = (), fixed: Mapping[str, str] | None = None
) -> Batch:
    """Inserts rows, or updates `values` of those that are there; `kept` columns are only ever inserted."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in values)
    tail = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    return insert(table, (*key, *values, *kept), fixed=fixed, tail=tail)


PUT_PLACEMENT: Final = _upsert(
    "placements",
    ("placement_id",),
    ("scheduler", "workload_id", "slot", "node_id", "state", "data", "updated_at"),
    kept=("created_at",),
    fixed={"claims": "0"},
)
DROP_PLACEMENT: Final = Batch(
    "DELETE FROM placements {using} WHERE placements.placement_id = :placement_id AND placements.claims = 0", ("placement_id",)
)
LEFT: Final = Lookup("SELECT placement_id, claims FROM placements WHERE placement_id {among}")
PUT_WORKLOAD: Final = _upsert(
    "workloads", ("scheduler", "workload_id"), ("spec", "instances", "version", "state", "updated_at"), kept=("created_at",)
)
PUT_NODE: Final = _upsert("nodes", ("scheduler", "node_id"), ("hostname", "region", "zone", "state", "seen_at"), kept=("identities",))
PUT_SLOTS: Final = _upsert("node_slots", ("scheduler", "node_id", "platform"), ("slots",), fixed={"used": "0"})
NO_LIMIT: Final = Batch(
    "UPDATE node_slots SET slots = NULL {from} WHERE node_slots.scheduler = :scheduler AND node_slots.node_id = :node_id",
    ("scheduler", "node_id"),
)
PUT_HEARING: Final = _upsert("hearings", ("platform",), ("heard_at", "silent_since", "looks", "error"))
PUT_SETTING: Final = _upsert("settings", ("key",), ("value",))
PUT_PROFILE: Final = _upsert("profiles", ("name",), ("body",))


class Surroundings(Writer):
    """The part of a transaction that keeps what claims refer to."""

    def put_workload(self, workload: Workload, *, new: bool = False) -> None:
        """Stores it; the first `created_at` stays.

        Raises AlreadyExists for a `new` one whose id another scheduler's has: volumes are named by it, and reclaimed by it.
        """
        w, table = workload, schema.workloads.c
        if new:
            self.session.alone_in(schema.workloads.name)  # two brokers at once would each see that it is nobody's yet
            elsewhere = select(table.scheduler).where(table.workload_id == w.workload_id, table.scheduler != w.scheduler)
            if row := self.session.first(elsewhere):
                self._fail(AlreadyExists(kind="App", name=f"{w.workload_id} of {row.scheduler}"))
        row = (w.scheduler, w.workload_id, w.spec, w.instances, w.version, w.state, w.updated_at, w.created_at)
        self.session.run(PUT_WORKLOAD, [row])

    def drop_workload(self, scheduler: str, workload_id: WorkloadId) -> None:
        """Gone already is fine. Its volumes stay; what becomes of them is the caller's to decide."""
        table = schema.workloads
        self.session.execute(delete(table).where(table.c.scheduler == scheduler, table.c.workload_id == workload_id))

    def put_placement(self, placement: Placement) -> None:
        self.put_placements([placement])

    def put_placements(self, placements: Sequence[Placement]) -> None:
        """Stores them; the first `created_at` stays, and so do their claims. Of one id twice the last counts."""
        newest = {placement.placement_id: placement for placement in placements}
        self.session.run(
            PUT_PLACEMENT,
            [
                (p.placement_id, p.scheduler, p.workload, p.slot, p.node, p.state, p.data, p.updated_at, p.created_at)
                for _, p in sorted(newest.items())
            ],
        )

    def drop_placement(self, placement_id: PlacementId) -> None:
        self.drop_placements([placement_id])

    def drop_placements(self, placement_ids: Sequence[PlacementId]) -> None:
        """Gone already is fine. Raises Conflict for one that has live claims: they end first, each with its proof."""
        wanted = sorted(set(placement_ids))
        if self.session.run(DROP_PLACEMENT, [(placement_id,) for placement_id in wanted]) == len(wanted):
            return
        for placement_id, claims in self.session.find(LEFT, wanted):
            self._fail(Conflict(what=f"placement {placement_id}", expected="without live claims", found=f"{claims} of them"))

    def put_nodes(self, nodes: Sequence[Node]) -> None:
        """Stores nodes with the slots that they have; how many are used is the ledger's own count and stays.

        A platform that is not in `slots` has no limit. The identities of a node that is there stay: `name_node` tells them.
        """
        newest = {(node.scheduler, node.node_id): node for node in nodes}
        ordered = [newest[key] for key in sorted(newest)]
        self.session.run(
            PUT_NODE,
            [(n.scheduler, n.node_id, n.hostname, n.region, n.zone, n.state, n.seen_at, rows.packed(n.identities)) for n in ordered],
        )
        self.session.run(NO_LIMIT, [(node.scheduler, node.node_id) for node in ordered])
        slots = [(n.scheduler, n.node_id, platform, number) for n in ordered for platform, number in sorted(n.slots.items())]
        self.session.run(PUT_SLOTS, slots)

    def name_node(self, scheduler: str, node_id: NodeId, identities: Mapping[str, str]) -> None:
        """What these platforms call the node; of the others it stays as it was. A node that is not known stays so."""
        table = schema.nodes
        mine = (table.c.scheduler == scheduler, table.c.node_id == node_id)
        if row := self.session.first(select(table.c.identities).where(*mine).with_for_update()):
            named = {**rows.unpacked(row.identities), **identities}
            self.session.execute(update(table).where(*mine).values(identities=rows.packed(named)))

    def limit_node(self, scheduler: str, node_id: NodeId, slots: Mapping[str, int]) -> None:
        """How many volumes of these platforms the node can hold; of the others it stays as it was. A node that is not known stays so."""
        table = schema.nodes.c
        known = select(table.node_id).where(table.scheduler == scheduler, table.node_id == node_id).with_for_update()
        if self.session.first(known):
            self.session.run(PUT_SLOTS, [(scheduler, node_id, platform, number) for platform, number in sorted(slots.items())])

    def node_state(self, scheduler: str, node_id: NodeId, state: str) -> None:
        """UP, UNREACHABLE or GONE. A node that is not known stays so, and one that is GONE too: its id is used no more."""
        table = schema.nodes
        mine = (table.c.scheduler == scheduler, table.c.node_id == node_id, table.c.state.not_in((state, "GONE")))
        if self.session.execute(update(table).where(*mine).values(state=state, seen_at=self.now)):
            self.note(f"node.{state.lower()}", why=f"{node_id} of {scheduler}")

    def drop_node(self, scheduler: str, node_id: NodeId) -> None:
        """Gone already is fine. Raises Conflict while claims are on it."""
        slots, nodes = schema.node_slots, schema.nodes
        mine = (slots.c.scheduler == scheduler, slots.c.node_id == node_id)
        if self.session.first(select(slots.c.used).where(*mine, slots.c.used > 0).with_for_update()):
            self._fail(Conflict(what=f"node {node_id}", expected="without live claims", found="some"))
        self.session.execute(delete(slots).where(*mine))
        if self.session.execute(delete(nodes).where(nodes.c.scheduler == scheduler, nodes.c.node_id == node_id)):
            self.note("node.forgotten", why=f"{node_id} of {scheduler}")

    def sync_pools(
        self,
        platform: str,
        reports: Sequence[PoolReport],
        *,
        reserve_mib: Mapping[str, int] | None = None,
        overcommit: Mapping[str, float] | None = None,
    ) -> None:
        """Takes over what a platform says of its pools; `reserve_mib` and `overcommit` are by the pool's name.

        A pool that is not reported any more goes offline, its volumes stay. The platform was heard.
        """
        table = schema.pools
        stored = self.session.all(select(table).where(table.c.platform == platform).order_by(table.c.name).with_for_update())
        before = {row.name: row for row in stored}
        self._heard(platform, was_silent=not any(row.online for row in stored))
        for report in sorted(reports, key=lambda report: report.name):
            pool = _reported(platform, report, (reserve_mib or {}).get(report.name, 0), (overcommit or {}).get(report.name, 1.0), self.now)
            self._put_pool(pool, before.pop(report.name, None))
        for row in before.values():
            if row.online:
                self.session.execute(update(table).where(table.c.platform == platform, table.c.name == row.name).values(online=False))
                self.note("pool.offline", why=f"{row.name} of {platform} is not reported any more")

    def unheard(self, platform: str, error: str, *, patience: int) -> bool:
        """The platform was asked for its pools in vain. So often in a row, and its pools go offline until it answers again.

        What is there stays: volumes, claims, and what the pools have provisioned. Whether they have gone offline just now.
        """
        table = schema.pools
        # locked in the order in which sync_pools locks them
        self.session.all(select(table.c.name).where(table.c.platform == platform).order_by(table.c.name).with_for_update())
        before = self._hearing(platform)
        looks, since = before.looks + 1, before.silent_since or self.now
        self.session.run(PUT_HEARING, [(platform, before.heard_at, since, looks, error)])
        if looks < patience:
            return False
        self.session.execute(update(table).where(table.c.platform == platform, table.c.online).values(online=False))
        if looks == patience:
            self.note("platform.silent", why=f"{platform} was asked {looks} times in vain: {error}")
        return looks == patience

    def _heard(self, platform: str, *, was_silent: bool) -> None:
        before = self._hearing(platform)
        if before.looks and was_silent:
            self.note("platform.heard", why=f"{platform} answers again, after {before.looks} times in vain")
        self.session.run(PUT_HEARING, [(platform, self.now, 0.0, 0, "")])

    def _hearing(self, platform: str) -> Hearing:
        """As it was before, and locked until the end of the transaction."""
        table = schema.hearings
        row = self.session.first(select(table).where(table.c.platform == platform).with_for_update())
        return rows.hearing(row) if row else Hearing(platform=platform)

    def _put_pool(self, pool: Pool, before: Any) -> None:
        table = schema.pools
        values = {
            "capacity_mib": pool.capacity_mib,
            "foreign_mib": pool.foreign_mib,
            "reserve_mib": pool.reserve_mib,
            "overcommit": pool.overcommit,
            "limit_mib": pool.limit_mib,
            "region": pool.region,
            "zone": pool.zone,
            "labels": rows.packed(pool.labels),
            "online": True,
            "seen_at": pool.seen_at,
            "room": pool.room,
            "room_capacity_mib": pool.room_capacity_mib,
            "room_foreign_mib": pool.room_foreign_mib,
            "room_limit_mib": pool.room_limit_mib,
        }
        if before is None:
            new = {"platform": pool.platform, "name": pool.name, "provisioned_mib": 0}
            self.session.execute(table.insert().values({**new, **values}))
        else:
            self.session.execute(update(table).where(table.c.platform == pool.platform, table.c.name == pool.name).values(values))
        if before is None or not before.online:
            self.note("pool.online", why=f"{pool.name} of {pool.platform}, {pool.capacity_mib} MiB")

    def put_profiles(self, profiles: Sequence[Profile]) -> None:
        """These are the profiles from now on; any other goes."""
        names = [profile.name for profile in profiles]
        self.session.execute(delete(schema.profiles).where(schema.profiles.c.name.not_in(names)))
        self.session.run(PUT_PROFILE, [(profile.name, msgspec.json.encode(profile).decode()) for profile in profiles])

    def put_setting(self, key: str, value: str) -> None:
        self.session.run(PUT_SETTING, [(key, value)])

    def drop_orphan(self, platform: str, token: str) -> None:
        """Nothing of this token is on the platform any more. Gone already is fine."""
        table = schema.orphans
        if self.session.execute(delete(table).where(table.c.platform == platform, table.c.token == token)):
            self.note("orphan.gone", why=f"{token} on {platform}")


def _reported(platform: str, report: PoolReport, reserve_mib: int, overcommit: float, now: float) -> Pool:
    return Pool(
        platform=platform,
        name=report.name,
        capacity_mib=report.capacity_mib,
        foreign_mib=report.foreign_mib,
        reserve_mib=reserve_mib,
        overcommit=overcommit,
        region=report.region,
        zone=report.zone,
        labels=report.labels,
        seen_at=now,
        room=report.room.name if report.room else "",
        room_capacity_mib=report.room.capacity_mib if report.room else 0,
        room_foreign_mib=report.room.foreign_mib if report.room else 0,
    )
