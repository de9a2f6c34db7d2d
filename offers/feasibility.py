"""Whether one task may go to one room: one small checker for each reason to refuse.

Tasks that ask for the same share a shape, and what was once found out about a shape is not asked again. Everything an agent
can lose while a batch is matched it loses for good, so a room that has refused a shape keeps refusing it; GROUP_BY alone may
change its mind when a peer is placed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from offers.ask import Ask, Constraint, Peer, VolumeAsk
from offers.constraints import Groups, Rule, peer_field, rule
from offers.planning import NoPlan, Plan
from offers.resources import SCALARS, PortLot, accepts, to_milli
from offers.rooms import Entry, Room
from offers.supply import Held, Need, Wanted
from offers.tally import Refusal
from storage.lifecycle import VolumeState
from storage.model import AccessMode, Profile

NO_GROUPS = Groups()


class Peers:
    """Who of one workload is where, counted by each field that a constraint asks for; grows as tasks are placed."""

    __slots__ = ("_groups", "_placed", "_rooms", "version")

    def __init__(self, placed: Iterable[Peer] = ()) -> None:
        self._placed = tuple(placed)
        self._rooms: list[Room] = []
        self._groups: dict[str, Groups] = {}
        self.version = 0
        """One more with each task placed."""

    def groups(self, field: str) -> Groups:
        if field not in self._groups:
            values = [peer_field(peer, field) for peer in self._placed] + [room.agent.field(field) for room in self._rooms]
            self._groups[field] = Groups(values)
        return self._groups[field]

    def add(self, room: Room) -> None:
        self.version += 1
        self._rooms.append(room)
        for field, groups in self._groups.items():
            groups.add(room.agent.field(field))


class Shape:
    """What equal asks have in common, made ready for checking."""

    def __init__(self, ask: Ask, peers: Peers) -> None:
        self.role, self.accepted, self.peers = ask.role, ask.accepted_roles, peers
        self.amounts = {name: to_milli(value) for name, value in zip(SCALARS, (ask.cpus, ask.mem_mib, ask.disk_mib, ask.gpus), strict=True)}
        self.executor = {
            name: to_milli(value)
            for name, value in zip(SCALARS, (ask.executor_cpus, ask.executor_mem_mib, ask.executor_disk_mib, 0), strict=True)
        }
        self.totals = {name: self.amounts[name] + self.executor[name] for name in SCALARS}
        self.cpus, self.mem = self.totals["cpus"], self.totals["mem"]
        self.takes = tuple((name, self.amounts[name], self.executor[name]) for name in SCALARS if self.totals[name])
        self._read_ports(ask)
        self._read_constraints(ask.constraints)
        self._read_volumes(ask)
        self._prepare()

    def _read_ports(self, ask: Ask) -> None:
        self.ports_wanted, self.ports_start = ask.ports.wanted, ask.ports.start
        self.required_ports = tuple(port for port in ask.ports.wanted if port) if ask.ports.required else ()
        self.any_ports = len(ask.ports.wanted) - len(self.required_ports)
        self.takes_any_port = self.accepted is None and not self.required_ports

    def _read_constraints(self, constraints: Sequence[Constraint]) -> None:
        rules = [rule(constraint) for constraint in constraints]
        self.fixed = tuple(one for one in rules if not one.moving)
        self.moving = tuple(one for one in rules if one.moving)
        self.returns = any(one.refusal is Refusal.GROUP_BY for one in rules)
        """Whether a room that refuses now may accept later."""

    def _read_volumes(self, ask: Ask) -> None:
        self.needs = tuple(need_of(volume) for volume in ask.volumes)
        self.steady = not any(isinstance(need, Wanted) for need in self.needs)
        """Whether what is free in the pools does not matter."""

    def _prepare(self) -> None:
        self.floor = (self.cpus,)
        self.checks = tuple(check for check in CHECKS if _matters(check, self))
        shelved = (fits_cpus, fits_mem) if self.accepted is None else ()
        self._unshelved = tuple(check for check in self.checks if check not in shelved)
        """Those that a room's place on its shelf does not answer."""
        self.dead: set[Room] = set()
        """Rooms that have refused for good."""
        self.failed_at = -1
        """The peers' version at which no room was found; -1: not yet."""
        self.last: tuple[int, Any] | None = None
        """For ranking.py: where the last task of the shape went, and how many had been placed then."""
        self.resume: dict[object, tuple[int, Room, Entry]] = {}
        self.places: tuple[int, list[Any]] | None = None
        """For ranking.py: how many shelves there were, and those where the volumes fit."""
        self.plans: dict[object, tuple[int, Plan | NoPlan]] = {}

    def has_failed(self) -> bool:
        """Whether it is known that no room takes one more task of this shape."""
        return self.failed_at >= 0 and (not self.returns or self.failed_at == self.peers.version)

    def takes_room(self, room: Room) -> bool:
        """Whether a room that has the cpus and the memory, and whose storage does fit, takes one more task of the shape."""
        for check in self._unshelved:
            refusal = check(self, room)
            if refusal is not None:
                if refusal is not Refusal.GROUP_BY:
                    self.dead.add(room)
                return False
        return True

    def refuses(self, room: Room) -> Refusal | None:
        """The first reason why this room, whose storage does fit, cannot take one more task of the shape."""
        for check in self.checks:
            refusal = check(self, room)
            if refusal is not None:
                return refusal
        return None


def need_of(volume: VolumeAsk) -> Need:
    if volume.existing is not None:
        return Held(volume.existing.platform, volume.existing.region, volume.existing.zone)
    return Wanted(volume.size_mib, volume.profile, volume.platforms)


class Likeness:
    """Tells which asks are of one shape. Profiles have no hash, so each is known by the first that equals it."""

    def __init__(self) -> None:
        self._profiles: dict[str, list[Profile]] = {}
        self._first: dict[int, int] = {}
        self._last: tuple[Ask, tuple[object, ...] | None, tuple[object, ...]] | None = None
        """The ask before, its volumes' part, and what was told of it: most asks are like the one before."""

    def __call__(self, ask: Ask) -> tuple[object, ...]:
        """Equal for asks of one shape."""
        volumes = tuple([self._volume(volume) for volume in ask.volumes]) if ask.volumes else None
        last = self._last
        if last is not None and last[1] == volumes and _made_of_the_same(ask, last[0]):
            return last[2]
        told = self._tell(ask, volumes)
        self._last = (ask, volumes, told)
        return told

    @staticmethod
    def _tell(ask: Ask, volumes: tuple[object, ...] | None) -> tuple[object, ...]:
        ports = ask.ports
        needs = (ask.role, ask.cpus, ask.mem_mib, ask.disk_mib, ask.gpus, ask.executor_cpus, ask.executor_mem_mib, ask.executor_disk_mib)
        where = (ask.workload, ask.constraints) if ask.constraints else None
        return (needs, ports.wanted, ports.required, ports.start, ask.accepted_roles, where, volumes)

    def _volume(self, volume: VolumeAsk) -> tuple[object, ...]:
        existing = volume.existing
        if existing is not None:
            return (existing.platform, existing.region, existing.zone)
        return (volume.size_mib, volume.profile and self._profile(volume.profile), volume.platforms, None)

    def _profile(self, profile: Profile) -> int:
        known = self._first.get(id(profile))
        if known is None:
            equals = self._profiles.setdefault(profile.name, [])
            same = next((one for one in equals if one == profile), profile)
            if same is profile:
                equals.append(profile)
            known = self._first[id(profile)] = id(same)
        return known


def _made_of_the_same(one: Ask, other: Ask) -> bool:
    """Whether two asks, their volumes aside, are made of the same objects, as those of one app's instances are."""
    return (
        one.ports is other.ports
        and one.workload is other.workload
        and one.role is other.role
        and one.cpus is other.cpus
        and one.mem_mib is other.mem_mib
        and one.disk_mib is other.disk_mib
        and one.gpus is other.gpus
        and one.executor_cpus is other.executor_cpus
        and one.executor_mem_mib is other.executor_mem_mib
        and one.executor_disk_mib is other.executor_disk_mib
        and one.accepted_roles is other.accepted_roles
        and one.constraints is other.constraints
    )


# --- one checker per refusal -------------------------------------------------------------------------


def fits_fixed_constraints(shape: Shape, room: Room) -> Refusal | None:
    return _first_refusal(shape.fixed, room, None)


def fits_peers(shape: Shape, room: Room) -> Refusal | None:
    return _first_refusal(shape.moving, room, shape.peers)


def _first_refusal(rules: Sequence[Rule], room: Room, peers: Peers | None) -> Refusal | None:
    for one in rules:
        field = one.constraint.field
        refusal = one.refuses(room.agent.field(field), peers.groups(field) if peers else NO_GROUPS)
        if refusal is not None:
            return refusal
    return None


def fits_cpus(shape: Shape, room: Room) -> Refusal | None:
    left = room.cpus if shape.accepted is None else room.left("cpus", shape.accepted)
    return None if left >= shape.cpus else Refusal.CPUS


def fits_mem(shape: Shape, room: Room) -> Refusal | None:
    left = room.mem if shape.accepted is None else room.left("mem", shape.accepted)
    return None if left >= shape.mem else Refusal.MEM


def fits_disk(shape: Shape, room: Room) -> Refusal | None:
    return None if room.left("disk", shape.accepted) >= shape.totals["disk"] else Refusal.DISK


def fits_gpus(shape: Shape, room: Room) -> Refusal | None:
    return None if room.left("gpus", shape.accepted) >= shape.totals["gpus"] else Refusal.GPUS


def fits_ports(shape: Shape, room: Room) -> Refusal | None:
    lots = room.lots.ports
    if shape.takes_any_port and lots and lots[0].left >= len(shape.ports_wanted):
        return None
    if shape.accepted is not None:
        lots = [lot for lot in lots if accepts(shape.accepted, lot.reserved, room.role)]
    if shape.required_ports and not _holds_all(lots, shape.required_ports):
        return Refusal.PORTS
    return None if sum([lot.left for lot in lots]) >= len(shape.ports_wanted) else Refusal.PORTS


def _holds_all(lots: Sequence[PortLot], ports: Sequence[int]) -> bool:
    return len(set(ports)) == len(ports) and all(any(lot.holds(port) for lot in lots) for port in ports)


Check = Callable[[Shape, Room], Refusal | None]

CHECKS: tuple[Check, ...] = (fits_fixed_constraints, fits_cpus, fits_mem, fits_disk, fits_gpus, fits_ports, fits_peers)
"""What no later offer can mend comes first, so that a tally names it."""

_MATTERS: Mapping[Check, Callable[[Shape], object]] = {
    fits_fixed_constraints: lambda shape: shape.fixed,
    fits_disk: lambda shape: shape.totals["disk"],
    fits_gpus: lambda shape: shape.totals["gpus"],
    fits_ports: lambda shape: shape.ports_wanted,
    fits_peers: lambda shape: shape.moving,
}


def _matters(check: Check, shape: Shape) -> bool:
    return check not in _MATTERS or bool(_MATTERS[check](shape))


# --- what refuses an ask whatever the offer ----------------------------------------------------------

_READERS_ONLY = frozenset({AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY})
_SHARED = frozenset({AccessMode.MULTI_NODE_READER_ONLY, AccessMode.MULTI_NODE_SINGLE_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER})
_USABLE = frozenset({VolumeState.PLANNED, VolumeState.AVAILABLE})


def _mark(ask: VolumeAsk) -> str:
    """What tells one volume from another; empty for a new one without a name."""
    return ask.existing.volume_id if ask.existing is not None else ask.name


class Given:
    """Which volumes have been given to tasks in this call, and how."""

    def __init__(self) -> None:
        self._readers: dict[str, int] = {}
        self._writers: dict[str, int] = {}
        self._names: set[str] = set()

    def refuses(self, ask: Ask) -> tuple[Refusal, int] | None:
        """Why a volume of the ask can go to no offer, and which one."""
        for index, volume in enumerate(ask.volumes):
            refusal = self._refuses(volume, ask.role)
            if refusal is not None:
                return refusal, index
            if index and _mark(volume) and any(_mark(other) == _mark(volume) for other in ask.volumes[:index]):
                return Refusal.VOLUME_IN_USE, index
        return None

    def _refuses(self, ask: VolumeAsk, role: str) -> Refusal | None:
        volume = ask.existing
        if volume is None:
            roles = ask.profile.roles if ask.profile is not None else ()
            if roles and role not in roles:
                return Refusal.VOLUME_ROLE
            return Refusal.VOLUME_IN_USE if ask.name and ask.name in self._names else None
        if volume.state not in _USABLE:
            return Refusal.VOLUME_STATE
        if volume.role and volume.role != role:
            return Refusal.VOLUME_ROLE
        if volume.access_mode in _READERS_ONLY and not ask.read_only:
            return Refusal.VOLUME_ACCESS
        return None if self._shares(ask, volume.volume_id, volume.access_mode) else Refusal.VOLUME_IN_USE

    def _shares(self, ask: VolumeAsk, volume_id: str, mode: AccessMode) -> bool:
        writers, readers = self._writers.get(volume_id, 0), self._readers.get(volume_id, 0)
        if mode not in _SHARED:
            return writers + readers == 0
        return ask.read_only or writers == 0 or mode is AccessMode.MULTI_NODE_MULTI_WRITER

    def add(self, ask: Ask) -> None:
        for volume in ask.volumes:
            if volume.existing is not None:
                counted = self._readers if volume.read_only else self._writers
                counted[volume.existing.volume_id] = counted.get(volume.existing.volume_id, 0) + 1
            elif volume.name:
                self._names.add(volume.name)
