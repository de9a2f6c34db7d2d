"""Which pending task goes to which offer. A pure function: the same input gives the same result, in whatever order the offers come.

Asks are served in their order, each with the best place that is left (ranking.py), until no waiting ask fits what is left.
Nothing is given that was not offered, no pool is given more than is free, no attach slot and no exclusive volume twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from offers.ask import Ask, Peer, VolumeAsk
from offers.explaining import Explainer
from offers.feasibility import Given, Likeness, Peers, Shape
from offers.ranking import Place, Shelves, remember
from offers.records import Offer
from offers.resources import Json, accepts, carve, take_ports
from offers.rooms import Room, rooms_of
from offers.supply import Option, Stock, Supply
from offers.tally import Tallies, Tally
from offers.view import NO_STORAGE, StorageView
from storage.model import Volume, WorkloadId


class ChosenVolume(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Where one volume of a task comes from."""

    container_path: str
    existing: Volume | None
    """None: to be made in `pool`."""
    platform: str
    pool: str
    size_mib: int


class Match(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One task and its place."""

    ask: Ask
    agent_id: str
    hostname: str
    offer_ids: tuple[str, ...]
    """All offers of this agent and role: matches with the same offers belong in one ACCEPT."""
    resources: tuple[Json, ...]
    """For TaskInfo.resources, as Mesos writes them, reservations kept."""
    executor_resources: tuple[Json, ...]
    ports: tuple[int, ...]
    """One for each port wanted, in order."""
    volumes: tuple[ChosenVolume, ...]
    """One for each volume asked for, in order."""


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
) -> Matching:
    """Places as many of the asks as fit, in their order.

    peers: where the running and placed instances of each workload are, for the workloads whose constraints look at them.
    """
    return _Batch(asks, offers, storage, peers or {}).run()


class _Batch:
    """The state of one call."""

    def __init__(
        self, asks: Sequence[Ask], offers: Sequence[Offer], storage: StorageView, peers: Mapping[WorkloadId, Sequence[Peer]]
    ) -> None:
        self._asks, self._known_peers = asks, peers
        self._rooms = rooms_of(offers, storage, asks)
        self._shelves = Shelves(self._rooms, Supply(storage), max((len(ask.volumes) for ask in asks), default=0))
        self._peers: dict[WorkloadId, Peers] = {}
        self._likeness = Likeness()
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._given = Given()
        self._matches: list[Match] = []

    def run(self) -> Matching:
        asks, shapes = self._asks, [self._shape(ask) for ask in self._asks]
        turn: Sequence[int] = range(len(asks))
        waiting = set(turn)
        while turn:
            placed = [index for index in turn if self._serve(asks[index], shapes[index])]
            waiting.difference_update(placed)
            # Only GROUP_BY can accept what it has refused, and only after a peer was placed.
            turn = [index for index in turn if index in waiting and shapes[index].returns] if placed else ()
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
        room, agent = place.room, place.room.agent
        shelf, before = room.shelf, room.entry
        self._matches.append(_match(ask, shape, place))
        self._given.add(ask)
        for option in place.plan.chosen:
            option[0].take(option[1])
        for volume in self._matches[-1].volumes if agent.slots else ():
            if volume.platform in agent.slots:
                agent.slots[volume.platform] -= 1
        agent.taken += 1
        for one in agent.rooms:
            self._shelves.move(one)
        remember(shape, room, before, shelf)
        if ask.workload in self._peers:
            self._peers[ask.workload].add(room)

    def _result(self, waiting: Sequence[tuple[Ask, Shape]]) -> Matching:
        explainer = Explainer(self._rooms, self._given)
        by_key = {ask.key: (ask, shape) for ask, shape in waiting}
        # Only a task that names a volume of its own needs a tally of its own.
        alike = {ask.key: ask.key if ask.volumes else id(shape) for ask, shape in waiting}
        unused = [offer.id for room in self._rooms if not room.used for offer in room.offers]
        return Matching(
            matches=tuple(self._matches), tallies=Tallies(alike, lambda key: explainer.tally(*by_key[key])), unused=tuple(unused)
        )


NO_PEERS = Peers()


def _match(ask: Ask, shape: Shape, place: Place) -> Match:
    room = place.room
    room.used = True
    task, executor = _take_scalars(room, shape)
    ports: tuple[int, ...] = ()
    if shape.ports_wanted:
        lots = [lot for lot in room.lots.ports if accepts(shape.accepted, lot.reserved, room.role)]
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
    for name, amount, extra in shape.takes:
        lots = room.lots.scalars[name]
        carve(lots, amount, shape.accepted, room.role, task)
        if extra:
            carve(lots, extra, shape.accepted, room.role, executor)
    room.cpus -= shape.cpus
    room.mem -= shape.mem
    return task, executor


def _chosen(asks: Sequence[VolumeAsk], options: Sequence[Option]) -> tuple[ChosenVolume, ...]:
    new = iter(options)
    return tuple(
        [_held(ask.container_path, ask.existing) if ask.existing is not None else _made(ask.container_path, *next(new)) for ask in asks]
    )


def _held(path: str, volume: Volume) -> ChosenVolume:
    return ChosenVolume(container_path=path, existing=volume, platform=volume.platform, pool=volume.pool, size_mib=volume.size_mib)


def _made(path: str, stock: Stock, size_mib: int) -> ChosenVolume:
    return ChosenVolume(container_path=path, existing=None, platform=stock.platform, pool=stock.name, size_mib=size_mib)
