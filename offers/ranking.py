"""Which of the places that fit is best: least waste of volume, then of cpus, then of memory; ties go to the agent with fewest
tasks of this call, then by name.

Rooms lie on shelves: those of one role whose agents see the same storage and have as many attach slots as matter. A shelf
keeps its rooms in the order of what they have left, so the first that fits is the best of the shelf.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from offers.feasibility import Shape
from offers.planning import NoPlan, Plan, plan
from offers.rooms import Entry, Room
from offers.supply import Supply, Vantage
from offers.tally import Refusal


class Place(NamedTuple):
    """Where a task goes."""

    room: Room
    plan: Plan


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

    def __init__(self, rooms: Iterable[Room], supply: Supply, most: int) -> None:
        self._most = most
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

    def move(self, room: Room) -> None:
        """Puts a room in its new place after something was taken from it or from its agent."""
        shelf = room.shelf
        shelf.remove(room)
        (self.shelf_of(room) if shelf.slots else shelf).put(room)

    def best(self, shape: Shape) -> Place | None:
        """The best place for one task of this shape; None where nothing fits."""
        found: Place | None = None
        least = 0
        for waste, _, shelf, made in sorted(self._offers(shape)):
            if found is not None and waste > least:
                break
            room = first_fit(shape, shelf)
            if room is not None and (found is None or room.entry < found.room.entry):
                found, least = Place(room, made), waste
        return found

    def _offers(self, shape: Shape) -> list[tuple[int, int, Shelf, Plan]]:
        """The shelves where the shape's volumes fit, with the waste that they would make there."""
        made: list[tuple[int, int, Shelf, Plan]] = []
        for shelf in self._by_role.get(shape.role, ()):
            if shelf.entries:
                found = volumes_on(shape, shelf)
                if isinstance(found, Plan):
                    made.append((found.waste_mib, shelf.number, shelf, found))
        return made


def volumes_on(shape: Shape, shelf: Shelf) -> Plan | NoPlan:
    """Where the shape's volumes would go from this shelf's agents."""
    known = shape.plans.get(shelf)
    if known is not None and (shape.steady or known[0] == shelf.vantage.version):
        return known[1]
    found = plan(shape.needs, shelf.vantage, shelf.slots)
    shape.plans[shelf] = (shelf.vantage.version, found)
    return found


def first_fit(shape: Shape, shelf: Shelf) -> Room | None:
    """The first room of the shelf that takes one more task of this shape, storage aside."""
    start: tuple[Any, ...] = shape.floor
    last = shape.resume.get(shelf)
    if last is not None and last[0] == shelf.version:
        # Nothing but the shape's own last task has changed the shelf: all before that room's old place refuse still.
        _, room, start = last
        if room.shelf is shelf and _takes(shape, room):
            return room
    entries, dead, mem = shelf.entries, shape.dead, shape.mem
    for index in range(bisect_left(entries, start), len(entries)):
        entry = entries[index]
        if entry[1] >= mem and entry[4] not in dead and _takes(shape, entry[4]):
            return entry[4]
    return None


def _takes(shape: Shape, room: Room) -> bool:
    refusal = shape.refuses(room)
    if refusal is None:
        return True
    if refusal is not Refusal.GROUP_BY:
        shape.dead.add(room)
    return False


def remember(shape: Shape, room: Room, before: Entry, shelf: Shelf) -> None:
    """Notes where the search of the next task of this shape may go on. `before` and `shelf`: the room's old place."""
    if not shape.returns and room.entry < before:
        shape.resume[shelf] = (shelf.version, room, before)
