"""Which pending task goes to which offer. A pure function: the same input gives the same result, in whatever order the offers come.

Asks are served in their order, each with the best place that is left (ranking.py), until no waiting ask fits what is left.
Nothing is given that was not offered, no pool is given more than is free, no attach slot and no exclusive volume twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from offers.ask import Ask, Peer, VolumeAsk
from offers.explaining import Explainer
from offers.feasibility import Given, Likeness, Peers, Shape
from offers.matches import ChosenVolume as ChosenVolume
from offers.matches import Match as Match
from offers.ranking import Place, Shelves
from offers.records import Offer
from offers.resources import Json, accepts, carve, take_ports
from offers.rooms import Room, rooms_of
from offers.supply import Option, Stock, Supply
from offers.tally import Tallies, Tally
from offers.view import NO_STORAGE, StorageView
from storage.model import Volume, WorkloadId

PARTS = (100, 200)
"""How many matches are told of at a time, the last again and again: at first few, so that the ledger begins soon, then as many as
keep it busy while the next are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    matches: tuple[Match, ...]
    """In the order in which the tasks were placed."""
    tallies: Mapping[str, Tally]
    """Why each of the others waits, by the ask's key; counted when it is looked at."""
    unused: tuple[str, ...]
    """The offers that no match uses."""


def match(
    asks: Sequence[Ask],
    offers: Sequence[Offer],
    storage: StorageView = NO_STORAGE,
    peers: Mapping[WorkloadId, Sequence[Peer]] | None = None,
    told: Callable[[Sequence[Match]], object] | None = None,
) -> Matching:
    """Places as many of the asks as fit, in their order.

    peers: where the running and placed instances of each workload are, for the workloads whose constraints look at them.
    told: is called with the matches while others are still being made, PARTS at a time; in the end it was told of all, in their order.
    """
    return _Batch(asks, offers, storage, peers or {}, told).run()


class _Batch:
    """The state of one call."""

    def __init__(
        self,
        asks: Sequence[Ask],
        offers: Sequence[Offer],
        storage: StorageView,
        peers: Mapping[WorkloadId, Sequence[Peer]],
        told: Callable[[Sequence[Match]], object] | None,
    ) -> None:
        self._asks, self._known_peers, self._told = asks, peers, told
        self._rooms = rooms_of(offers, storage, asks)
        self._shelves = Shelves(self._rooms, Supply(storage), max((len(ask.volumes) for ask in asks), default=0))
        self._peers: dict[WorkloadId, Peers] = {}
        self._likeness = Likeness()
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._given = Given()
        self._matches: list[Match] = []
        self._untold = 0
        """From which match on nobody was told."""
        self._sizes = iter(PARTS)
        self._part = next(self._sizes)

    def run(self) -> Matching:
        asks, shapes = self._asks, [self._shape(ask) for ask in self._asks]
        turn: Sequence[int] = range(len(asks))
        waiting = set(turn)
        while turn:
            placed = [index for index in turn if self._serve(asks[index], shapes[index])]
            waiting.difference_update(placed)
            # Only GROUP_BY can accept what it has refused, and only after a peer was placed.
            turn = [index for index in turn if index in waiting and shapes[index].returns] if placed else ()
        self._tell()
        return self._result([(asks[index], shapes[index]) for index in sorted(waiting)])

    def _shape(self, ask: Ask) -> Shape:
        key = self._likeness(ask)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(ask, self._peers_of(ask))
        return shape

    def _peers_of(self, ask: Ask) -> Peers:
        if not ask.constraints:
            return NO_PEERS
        found = self._peers.get(ask.workload)
        if found is None:
            found = self._peers[ask.workload] = Peers(self._known_peers.get(ask.workload, ()))
        return found

    def _serve(self, ask: Ask, shape: Shape) -> bool:
        """Places one task if it fits what is left."""
        if shape.has_failed() or (ask.volumes and self._given.refuses(ask) is not None):
            return False
        place = self._shelves.best(shape)
        if place is None:
            shape.failed_at = shape.peers.version
            return False
        self._take(ask, shape, place)
        return True

    def _take(self, ask: Ask, shape: Shape, place: Place) -> None:
        made = _match(ask, shape, place)
        self._matches.append(made)
        self._given.add(ask)
        self._shelves.take(shape, place, made.volumes)
        if ask.workload in self._peers:
            self._peers[ask.workload].add(place.room)
        if len(self._matches) - self._untold == self._part:
            self._tell()
            self._part = next(self._sizes, self._part)

    def _tell(self) -> None:
        matches, self._untold = self._matches[self._untold :], len(self._matches)
        if self._told is not None and matches:
            self._told(matches)

    def _result(self, waiting: Sequence[tuple[Ask, Shape]]) -> Matching:
        explainer = Explainer(self._rooms, self._given)
        by_key = {ask.key: (ask, shape) for ask, shape in waiting}
        # Only a task that names a volume of its own needs a tally of its own.
        alike = {ask.key: ask.key if ask.volumes else id(shape) for ask, shape in waiting}
        used = {offer_id for made in self._matches for offer_id in made.offer_ids}
        unused = [offer.id for room in self._rooms for offer in room.offers if offer.id not in used]
        return Matching(
            matches=tuple(self._matches), tallies=Tallies(alike, lambda key: explainer.tally(*by_key[key])), unused=tuple(unused)
        )


NO_PEERS = Peers()


def _match(ask: Ask, shape: Shape, place: Place) -> Match:
    room = place.room
    task, executor = _take_scalars(room, shape)
    ports: tuple[int, ...] = ()
    if shape.ports_wanted:
        lots = room.lots.ports
        if shape.accepted is not None:
            lots = [lot for lot in lots if accepts(shape.accepted, lot.reserved, room.role)]
        ports, taken = take_ports(lots, shape.ports_wanted, frozenset(shape.required_ports), shape.ports_start)
        task += taken
    return Match(
        ask=ask,
        agent_id=room.agent.agent_id,
        hostname=room.agent.hostname,
        offer_ids=room.offer_ids,
        resources=tuple(task),
        executor_resources=tuple(executor),
        ports=ports,
        volumes=_chosen(ask.volumes, place.plan.chosen) if ask.volumes else (),
    )


def _take_scalars(room: Room, shape: Shape) -> tuple[list[Json], list[Json]]:
    task: list[Json] = []
    executor: list[Json] = []
    scalars, accepted = room.lots.scalars, shape.accepted
    for name, amount, extra in shape.takes:
        lots = scalars[name]
        while not lots[0].left:
            del lots[0]
        first = lots[0]
        if accepted is None and amount > 0 and amount + extra <= first.left:
            task.append(first.take(amount))
            if extra:
                executor.append(first.take(extra))
        else:
            carve(lots, amount, accepted, room.role, task)
            carve(lots, extra, accepted, room.role, executor)
    room.cpus -= shape.cpus
    room.mem -= shape.mem
    return task, executor


def _chosen(asks: Sequence[VolumeAsk], options: Sequence[Option]) -> tuple[ChosenVolume, ...]:
    new = iter(options)
    return tuple(
        [_made(ask.container_path, *next(new)) if ask.existing is None else _held(ask.container_path, ask.existing) for ask in asks]
    )


def _held(path: str, volume: Volume) -> ChosenVolume:
    return ChosenVolume(path, volume, volume.platform, volume.pool, volume.size_mib, volume.region, volume.zone)


def _made(path: str, stock: Stock, size_mib: int) -> ChosenVolume:
    return ChosenVolume(path, None, stock.platform, stock.name, size_mib, stock.pool.region, stock.pool.zone)
