"""Resource arithmetic as Mesos has it: scalars in thousandths, ranges with both ends, reservations that stay what they are.

Only plain resources are ever used: whatever is revocable, shared, a persistent volume, a disk with a source, a resource
provider's own, or reserved with labels (which some framework put there to find it again) is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from offers.records import UNRESERVED, Offer, Reservation, Resource

Json = dict[str, Any]

SCALARS = ("cpus", "mem", "disk", "gpus")
PORTS = "ports"


def to_milli(value: float) -> int:
    """Mesos' fixed point: thousandths, halves rounded up. Amounts are never negative."""
    return int(value * 1000 + 0.5)


def from_milli(milli: int) -> float:
    return milli / 1000


def reserved_for(resource: Resource) -> str:
    """The role of the newest reservation, in either form; `*` for none."""
    if resource.reservations:
        return resource.reservations[-1].role or UNRESERVED
    return resource.role or UNRESERVED


def is_plain(resource: Resource) -> bool:
    if resource.revocable is not None or resource.shared is not None or resource.provider_id is not None:
        return False
    if resource.disk is not None and not resource.disk.keys().isdisjoint(("source", "persistence", "volume")):
        return False
    newest = resource.reservations[-1] if resource.reservations else resource.reservation
    return newest is None or newest.labels is None


def serves(reserved: str, role: str) -> bool:
    """Whether a reservation for `reserved` may be used by `role`: none at all, the role's own, or an ancestor's."""
    return reserved in (UNRESERVED, role) or role.startswith(reserved + "/")


def accepts(accepted: frozenset[str] | None, reserved: str, role: str) -> bool:
    """Marathon's acceptedResourceRoles, for a resource that serves `role`."""
    if accepted is None or reserved in accepted:
        return True
    return reserved != UNRESERVED and role in accepted


def usable(resource: Resource, role: str) -> bool:
    """Whether a task of `role` may be given this resource at all."""
    allocated, reservations = resource.allocation_info, resource.reservations
    if allocated is not None and allocated.role != role:
        return False
    if not reservations and resource.role is None:
        return is_plain(resource)
    reserved = (reservations[-1].role if reservations else resource.role) or UNRESERVED
    return serves(reserved, role) and is_plain(resource)


def stamp(resource: Resource) -> Json:
    """The resource as Mesos wants it back, without its amount."""
    made: Json = {"name": resource.name, "type": resource.type}
    if resource.allocation_info is not None:
        made["allocation_info"] = {"role": resource.allocation_info.role}
    if resource.reservations:
        made["reservations"] = list(map(_reservation, resource.reservations))
    if resource.role is not None:
        made["role"] = resource.role
    if resource.reservation is not None:
        made["reservation"] = _reservation(resource.reservation)
    return made


def _reservation(reservation: Reservation) -> Json:
    """As it came. One with labels is never used, so it is never written."""
    fields = (("type", reservation.type), ("role", reservation.role), ("principal", reservation.principal))
    return {name: value for name, value in fields if value}


def amount(resource: Resource) -> int:
    scalar = resource.scalar
    return int(scalar.value * 1000 + 0.5) if scalar is not None else 0  # to_milli, without the call


class Lot:
    """What is left of one scalar resource under one reservation, in thousandths."""

    __slots__ = ("_stamp", "_written", "kind", "left", "reserved")

    def __init__(self, kind: Resource) -> None:
        self.kind, self.reserved, self.left = kind, reserved_for(kind), amount(kind)
        self._stamp: Json | None = None
        self._written: dict[int, Json] = {}
        """The amounts given so far as Mesos writes them: tasks that get the same share one record."""

    def add(self, resource: Resource) -> None:
        self.left += amount(resource)

    def take(self, milli: int) -> Json:
        """The resource of this amount. Nobody changes it, for others may have the same."""
        self.left -= milli
        written = self._written.get(milli)
        if written is None:
            if self._stamp is None:
                self._stamp = stamp(self.kind)
            written = self._written[milli] = {**self._stamp, "scalar": {"value": milli / 1000}}
        return written


class PortLot:
    """The ports left under one reservation: sorted ranges that neither touch nor overlap."""

    __slots__ = ("_stamp", "kind", "left", "ranges", "reserved")

    def __init__(self, kind: Resource) -> None:
        self.kind, self.reserved, self.left = kind, reserved_for(kind), 0
        self.ranges: list[tuple[int, int]] = []
        self._stamp: Json | None = None
        self.add(kind)

    def add(self, resource: Resource) -> None:
        if resource.ranges is not None:
            self.ranges = merged(self.ranges + [(part.begin, part.end) for part in resource.ranges.range])
            self.left = sum([end - begin + 1 for begin, end in self.ranges])

    def holds(self, port: int) -> bool:
        return any(begin <= port <= end for begin, end in self.ranges)

    def at(self, index: int) -> int:
        """The port that has `index` free ones before it. Raises IndexError past the last."""
        for begin, end in self.ranges:
            if index <= end - begin:
                return begin + index
            index -= end - begin + 1
        raise IndexError(index)

    def take_first(self) -> tuple[int, Json]:
        """The lowest port, also as Mesos writes it."""
        begin, end = self.ranges[0]
        if begin < end:
            self.ranges[0] = (begin + 1, end)
        else:
            del self.ranges[0]
        self.left -= 1
        return begin, self._written([{"begin": begin, "end": begin}])

    def remove(self, port: int) -> None:
        for index, (begin, end) in enumerate(self.ranges):
            if begin <= port <= end:
                self.ranges[index : index + 1] = [part for part in ((begin, port - 1), (port + 1, end)) if part[0] <= part[1]]
                self.left -= 1
                return

    def taken(self, ports: Iterable[int]) -> Json:
        """These ports of the lot as Mesos writes them."""
        return self._written([{"begin": begin, "end": end} for begin, end in merged([(port, port) for port in ports])])

    def _written(self, ranges: list[Json]) -> Json:
        if self._stamp is None:
            self._stamp = stamp(self.kind)
        return {**self._stamp, "ranges": {"range": ranges}}


def merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in as few ranges as can be, sorted."""
    made: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if made and begin <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((begin, end))
    return made


class Lots:
    """All that one agent offers to one role, by name and reservation, the most particular reservation first."""

    __slots__ = ("ports", "scalars")

    def __init__(self, offers: Iterable[Offer], role: str) -> None:
        self.scalars: dict[str, list[Lot]] = {"cpus": [], "mem": [], "disk": [], "gpus": []}
        self.ports: list[PortLot] = []
        for offer in offers:
            for resource in offer.resources:
                name = resource.name
                if name in self.scalars:
                    if usable(resource, role):
                        _add(self.scalars[name], Lot, resource)
                elif name == PORTS and usable(resource, role):
                    _add(self.ports, PortLot, resource)
        for lots in self.scalars.values():
            if len(lots) > 1:
                lots.sort(key=_particular)
        self.ports.sort(key=_particular)


L = TypeVar("L", Lot, PortLot)


def _add(lots: list[L], make: type[L], resource: Resource) -> None:
    """Mesos adds up what differs in nothing but the amount."""
    for lot in lots:
        kind = lot.kind
        if kind.reservations == resource.reservations and kind.role == resource.role and kind.reservation == resource.reservation:
            lot.add(resource)
            return
    lots.append(make(resource))


def _particular(lot: Lot | PortLot) -> tuple[bool, int, str]:
    return (lot.reserved == UNRESERVED, -lot.reserved.count("/"), lot.reserved)


def carve(lots: Iterable[Lot], milli: int, accepted: frozenset[str] | None, role: str, into: list[Json]) -> None:
    """Takes this much out of the lots in their order, as resources. The caller has made sure that they hold it."""
    for lot in lots:
        if milli <= 0:
            return
        if lot.left > 0 and (accepted is None or accepts(accepted, lot.reserved, role)):
            part = milli if milli < lot.left else lot.left
            into.append(lot.take(part))
            milli -= part


def take_ports(lots: Sequence[PortLot], wanted: Sequence[int], exact: frozenset[int], start: int) -> tuple[tuple[int, ...], list[Json]]:
    """Takes one port for each of `wanted`: those in `exact` as they are, the others any. The caller has made sure that there are enough.

    start: which of the free ports is the first choice for any, counted round and round.
    """
    if len(wanted) == 1 and not exact and not start and lots[0].left:
        port, written = lots[0].take_first()
        return (port,), [written]
    start = start % max(1, sum(lot.left for lot in lots))
    given: list[list[int]] = [[] for _ in lots]
    for port in sorted(exact):
        index = next(index for index, lot in enumerate(lots) if lot.holds(port))
        _take_port(lots, index, port, given)
    ports = tuple([port if port in exact else _take_port(lots, *_any_port(lots, start), given) for port in wanted])
    return ports, [lot.taken(taken) for lot, taken in zip(lots, given, strict=True) if taken]


def _take_port(lots: Sequence[PortLot], index: int, port: int, given: list[list[int]]) -> int:
    lots[index].remove(port)
    given[index].append(port)
    return port


def _any_port(lots: Sequence[PortLot], start: int) -> tuple[int, int]:
    """Which lot, and which of its ports."""
    offset = start and start % sum(lot.left for lot in lots)
    for index, lot in enumerate(lots):
        if offset < lot.left:
            return index, lot.at(offset)
        offset -= lot.left
    raise IndexError(start)
