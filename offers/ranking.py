"""Which of the places that fit is best: least waste of volume, then of cpus, then of memory; ties go to the agent with fewest
tasks of this call, then by name.

Rooms lie on shelves: those of one role whose agents see the same storage and have as many attach slots as matter. A shelf
keeps its rooms in the order of what they have left, so the first that fits is the best of the shelf.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offers.feasibility import Shape
from offers.matches import ChosenVolume
from offers.planning import NoPlan, Plan, plan
from offers.rooms import Agent, Entry, Room
from offers.supply import Supply, Vantage


class Place:
    """Where a task goes."""

    __slots__ = ("plan", "room")

    def __init__(self, room: Room, plan: Plan) -> None:
        self.room, self.plan = room, plan


class Shelf:
    """Rooms that differ, for a volume, in nothing."""

    __slots__ = ("entries", "number", "slots", "vantage", "version")

    def __init__(self, number: int, vantage: Vantage, slots: Mapping[str, int]) -> None:
        self.number, self.vantage, self.slots = number, vantage, slots
        self.entries: list[Entry] = []
        self.version = 0
        """One more with every change."""

    def put(self, room: Room) -> None:
        room.shelf = self
        self.version += 1
        insort(self.entries, room.new_entry())

    def remove(self, room: Room) -> None:
        self.version += 1
        del self.entries[bisect_left(self.entries, room.entry)]


class Shelves:
    """All rooms of one call. `most`: how many volumes a task wants at most, so how many free slots are worth telling apart."""

    def __init__(self, rooms: Sequence[Room], supply: Supply, most: int) -> None:
        """`rooms` by their numbers."""
        self._rooms = rooms
        self._most = most
        self._changes = 0
        self._shelves: dict[tuple[str, Vantage, tuple[tuple[str, int], ...]], Shelf] = {}
        self._by_role: dict[str, list[Shelf]] = {}
        for room in rooms:
            room.agent.vantage = supply.vantage(room.agent)
            self.shelf_of(room).entries.append(room.new_entry())
        for shelf in self._shelves.values():
            shelf.entries.sort()

    def shelf_of(self, room: Room) -> Shelf:
        """The shelf that the room belongs on now."""
        vantage, most = room.agent.vantage, self._most
        slots = tuple([(name, left if left < most else most) for name, left in room.agent.slots.items()]) if room.agent.slots else ()
        key = (room.role, vantage, slots)
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = Shelf(len(self._shelves), vantage, dict(slots))
            self._by_role.setdefault(room.role, []).append(shelf)
        room.shelf = shelf
        return shelf

    def take(self, shape: Shape, place: Place, volumes: Iterable[ChosenVolume]) -> None:
        """Puts everything where it belongs once a task has been placed and the room has given what it takes."""
        room, agent = place.room, place.room.agent
        shelf, before = room.shelf, room.entry
        for stock, size_mib in place.plan.chosen:
            stock.take(size_mib)
        moves = bool(agent.slots) and self._take_slots(agent, volumes)
        agent.taken += 1
        for number in agent.rooms:
            one = self._rooms[number]
            one.shelf.remove(one)
            (self.shelf_of(one) if moves else one.shelf).put(one)
        self._changes += 1
        if not shape.returns and room.entry < before:
            shape.resume[shelf] = (shelf.version, room, before)
            shape.last = None if moves else (self._changes, place)

    def _take_slots(self, agent: Agent, volumes: Iterable[ChosenVolume]) -> bool:
        """Counts the volumes that an agent is given; says whether it belongs on another shelf now."""
        moves = False
        for volume in volumes:
            left = agent.slots.get(volume.platform)
            if left is not None:
                agent.slots[volume.platform] = left - 1
                moves = moves or left <= self._most
        return moves

    def best(self, shape: Shape) -> Place | None:
        """The best place for one task of this shape; None where nothing fits."""
        found = self._again(shape)
        if found is not None:
            return found
        least = 0
        for waste, _, shelf, made in self._offers(shape):
            if found is not None and waste > least:
                break
            room = first_fit(shape, shelf, self._rooms)
            if room is not None and (found is None or room.entry < found.room.entry):
                found, least = Place(room, made), waste
        return found

    def _again(self, shape: Shape) -> Place | None:
        """The place of the task before, if that was of this shape and there is room for one more.

        Nothing can be better: of what had least to waste there is still less, and all else is as it was.
        """
        if shape.last is None or shape.last[0] != self._changes:
            return None
        place: Place = shape.last[1]
        room, plan = place.room, place.plan
        if room.cpus < shape.cpus or room.mem < shape.mem or not shape.takes_room(room):
            return None
        if not shape.steady:
            if len(plan.chosen) > 1:
                return None
            stock, size_mib = plan.chosen[0]
            if stock.free_mib < size_mib:
                return None
        return place

    def _offers(self, shape: Shape) -> list[tuple[int, int, Shelf, Plan]]:
        """The shelves where the shape's volumes fit, with the waste that they would make there, the least first."""
        known = shape.places
        if known is not None and shape.steady and known[0] == len(self._shelves):
            return known[1]
        made: list[tuple[int, int, Shelf, Plan]] = []
        for shelf in self._by_role.get(shape.role, ()):
            found = volumes_on(shape, shelf)
            if isinstance(found, Plan):
                made.append((found.waste_mib, shelf.number, shelf, found))
        made.sort()
        shape.places = (len(self._shelves), made)
        return made


def volumes_on(shape: Shape, shelf: Shelf) -> Plan | NoPlan:
    """Where the shape's volumes would go from this shelf's agents."""
    known = shape.plans.get(shelf)
    if known is not None and (shape.steady or known[0] == shelf.vantage.version):
        return known[1]
    found = plan(shape.needs, shelf.vantage, shelf.slots)
    shape.plans[shelf] = (shelf.vantage.version, found)
    return found


def first_fit(shape: Shape, shelf: Shelf, rooms: Sequence[Room]) -> Room | None:
    """The first room of the shelf that takes one more task of this shape, storage aside. `rooms` by their numbers."""
    start: tuple[Any, ...] = shape.floor
    last = shape.resume.get(shelf)
    if last is not None and last[0] == shelf.version:
        # Nothing but the shape's own last task has changed the shelf: all before that room's old place refuse still.
        _, room, start = last
        if room.shelf is shelf and room.cpus >= shape.cpus and room.mem >= shape.mem and shape.takes_room(room):
            return room
    entries, dead, mem = shelf.entries, shape.dead, shape.mem
    for index in range(bisect_left(entries, start), len(entries)):
        entry = entries[index]
        if entry[1] >= mem:
            room = rooms[entry[3]]
            if room not in dead and shape.takes_room(room):
                return room
    return None
