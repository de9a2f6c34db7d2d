"""Attach slots are a machine's: what every scheduler on the ledger uses of it counts, whichever of their nodes it is to each.

A scheduler's own row of node_slots guards what it uses itself. What others use is looked up once the pools are locked, which who places
takes last: of two brokers that place on one machine in the same moment the second sees what the first has taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from storage.ledger import rows
from storage.ledger.bulk import Lookup
from storage.ledger.engine import Session
from storage.ledger.records import PlaceRequest

Place = tuple[str, str, str]
"""A scheduler, its id of a node, and a platform."""

OF_SEVERAL: Final = Lookup(
    "SELECT node_slots.scheduler, node_slots.node_id, node_slots.platform, node_slots.used, node_slots.slots, nodes.identities "
    "FROM node_slots LEFT JOIN nodes ON nodes.scheduler = node_slots.scheduler AND nodes.node_id = node_slots.node_id "
    "WHERE (SELECT min(scheduler) FROM node_slots) < (SELECT max(scheduler) FROM node_slots) AND node_slots.platform {among} "
    "AND node_slots.platform IN (SELECT platform FROM node_slots WHERE slots IS NOT NULL)"
)
"""The slots of platforms that limit them. A scheduler that has the ledger to itself finds nothing, at the cost of a look at two rows."""


def places_of(requests: Iterable[PlaceRequest]) -> Iterator[Place]:
    """Where their claims are, once for each."""
    return ((request.placement.scheduler, request.placement.node, claim.platform) for request in requests for claim in request.claims)


def free_beside_others(session: Session, platforms: Collection[str], requests: Iterable[PlaceRequest]) -> dict[Place, int]:
    """How many slots of these platforms are left where the requests' claims are, if they have a limit and others use the machine too.

    Less than nothing where more were taken just now. A machine has the same id as an agent of the same Mesos; otherwise the platform's
    name for it tells. The pools of these platforms must be locked.
    """
    if not (slots_used := session.find(OF_SEVERAL, sorted(platforms))):
        return {}
    found, places = [(*row[:5], called(row[2], row[5])) for row in slots_used], set(places_of(requests))
    by_id: dict[tuple[str, str], dict[Place, int]] = defaultdict(dict)
    by_name: dict[tuple[str, str], dict[Place, int]] = defaultdict(dict)
    for scheduler, node, platform, used, _, name in found:
        if used:
            by_id[platform, node][scheduler, node, platform] = used
            if name:
                by_name[platform, name][scheduler, node, platform] = used
    free: dict[Place, int] = {}
    for scheduler, node, platform, used, slots, name in found:
        if slots is not None and (scheduler, node, platform) in places:
            on_it = by_id[platform, node] | by_name[platform, name]
            if others := [number for place, number in on_it.items() if place[0] != scheduler]:
                free[scheduler, node, platform] = slots - used - sum(others)
    return free


def called(platform: str, identities: str | None) -> str:
    """What the platform calls a node of these identities, as they are stored; empty where nobody has said so."""
    return rows.unpacked(identities).get(platform, "") if identities else ""
