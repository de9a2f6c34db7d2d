"""What is left of each agent while one batch of offers is being matched. Mutable, and gone when the match is done.

A room is what one agent offers to one role, all its offers together; an agent's attach slots are shared by its rooms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from offers.ask import Ask
from offers.constraints import offer_field
from offers.records import Offer
from offers.resources import Lots, accepts, amount, usable
from offers.view import StorageView

if TYPE_CHECKING:
    from offers.ranking import Shelf
    from offers.supply import Vantage

Entry = tuple[int, int, int, int]
"""Left cpus and memory in thousandths, tasks placed on the agent in this call, the room's number: the order of preference."""


class Agent:
    """One agent: what it says of itself, its attach slots, its rooms."""

    __slots__ = ("_fields", "agent_id", "hostname", "offer", "region", "rooms", "slots", "taken", "vantage", "zone")

    vantage: Vantage
    """Where supply.py says that it stands."""

    def __init__(self, offer: Offer) -> None:
        self.offer, self.agent_id, self.hostname = offer, offer.agent.value, offer.hostname
        where = offer.domain.fault_domain
        self.region, self.zone = where.region.name, where.zone.name
        self.slots: dict[str, int] = {}
        """How many more volumes fit, for each platform that has a limit here."""
        self.rooms: list[int] = []
        """Their numbers; the rooms themselves would make a cycle, and a thousand of them would wait for the garbage collector."""
        self.taken = 0
        self._fields: dict[str, str | None] = {}

    def field(self, name: str) -> str | None:
        """What it says for a constraint's field; None: nothing."""
        if name not in self._fields:
            self._fields[name] = offer_field(self.offer, name)
        return self._fields[name]

    def count_slots(self, known: Mapping[tuple[str, str], int], defaults: Mapping[str, int | None]) -> None:
        for platform, default in defaults.items():
            left = known.get((self.agent_id, platform), default)
            if left is not None:
                self.slots[platform] = left if left > 0 else 0


class Room:
    """What one agent has left for one role."""

    __slots__ = ("_lots", "_offer_ids", "agent", "cpus", "entry", "mem", "number", "offers", "role", "shelf")

    shelf: Shelf
    """Where ranking.py has put it."""

    def __init__(self, agent: Agent, role: str) -> None:
        self.agent, self.role = agent, role
        self.offers: list[Offer] = []
        self.cpus = self.mem = 0
        """In thousandths, whatever the reservation."""
        self.number = 0
        """Its place among all rooms by hostname, agent and role."""
        self.entry: Entry = (0, 0, 0, 0)
        self._lots: Lots | None = None
        self._offer_ids: tuple[str, ...] = ()

    def add(self, offer: Offer) -> None:
        self.offers.append(offer)
        role = self.role
        for resource in offer.resources:
            name = resource.name
            if name == "cpus":
                if usable(resource, role):
                    self.cpus += amount(resource)
            elif name == "mem" and usable(resource, role):
                self.mem += amount(resource)

    @property
    def lots(self) -> Lots:
        """The same in detail; made at first use, since most rooms of a large batch are never looked into."""
        if self._lots is None:
            if len(self.offers) > 1:
                self.offers.sort(key=offer_id)
            self._lots = Lots(self.offers, self.role)
        return self._lots

    @property
    def offer_ids(self) -> tuple[str, ...]:
        if not self._offer_ids:
            self._offer_ids = tuple(sorted([offer.offer.value for offer in self.offers]))
        return self._offer_ids

    def left(self, name: str, accepted: frozenset[str] | None) -> int:
        """How much of a scalar resource a task may use that accepts these reservations, in thousandths."""
        lots = self.lots.scalars[name]
        if accepted is None:
            return sum([lot.left for lot in lots])
        return sum([lot.left for lot in lots if accepts(accepted, lot.reserved, self.role)])

    def new_entry(self) -> Entry:
        self.entry = (self.cpus, self.mem, self.agent.taken, self.number)
        return self.entry


def offer_id(offer: Offer) -> str:
    return offer.offer.value


def rooms_of(offers: Iterable[Offer], storage: StorageView, asks: Sequence[Ask]) -> list[Room]:
    """One room for each agent and role, in the order of hostname, agent and role. An offer that is given twice counts once."""
    agents: dict[str, Agent] = {}
    rooms: dict[tuple[str, str], Room] = {}
    for offer in {offer.offer.value: offer for offer in offers}.values():
        agent_id, role = offer.agent.value, offer.allocation_info.role
        room = rooms.get((agent_id, role))
        if room is None:
            agent = agents.get(agent_id)
            if agent is None:
                agent = agents[agent_id] = Agent(offer)
            room = rooms[agent_id, role] = Room(agent, role)
        room.add(offer)
    if any(ask.volumes for ask in asks) and (defaults := default_slots(storage)):
        for agent in agents.values():
            agent.count_slots(storage.slots, defaults)
    return _numbered(rooms.values())


def _numbered(rooms: Iterable[Room]) -> list[Room]:
    ordered = sorted([(room.agent.hostname, room.agent.agent_id, room.role, room) for room in rooms], key=_BY_NAME)
    for number, (_, _, _, room) in enumerate(ordered):
        room.number = number
        room.agent.rooms.append(number)
    return [room for _, _, _, room in ordered]


_BY_NAME = itemgetter(0, 1, 2)


def default_slots(storage: StorageView) -> dict[str, int | None]:
    """The platforms on which some agent may run out of attach slots, by name, with the slots of an agent that is not known better."""
    limited = {name for name, platform in storage.platforms.items() if platform.slots_per_node is not None}
    limited.update([platform for _, platform in storage.slots])
    return {name: storage.platform(name).slots_per_node for name in sorted(limited)}
