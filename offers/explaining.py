"""Refusals in sentences: why each offer was no place for a waiting task, judged by what is left when all others are served."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from offers.ask import Ask
from offers.feasibility import Given, Shape
from offers.planning import NoPlan
from offers.ranking import volumes_on
from offers.resources import from_milli
from offers.rooms import Agent, Room
from offers.supply import Wanted
from offers.tally import Refusal, Tally


class _Counted(NamedTuple):
    """How often each reason refused tasks of one shape, the most frequent first."""

    offers: int
    counts: dict[Refusal, int]
    first: dict[Refusal, tuple[Room, int]]
    """Where each reason was met first, and which volume it was about."""


class Explainer:
    """Counts tallies after a batch was matched; nothing changes any more. The offers are counted once for all tasks of one shape, and
    each task's tally names its own volumes."""

    def __init__(self, rooms: Sequence[Room], given: Given) -> None:
        self._rooms, self._given = rooms, given
        self._counted: dict[tuple[int, tuple[Refusal, int] | None], _Counted] = {}

    def tally(self, ask: Ask, shape: Shape) -> Tally:
        unfit = self._given.refuses(ask)
        key = (id(shape), unfit)
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = self._count(shape, unfit)
        examples = {refusal: _sentence(refusal, ask, shape, room, index) for refusal, (room, index) in counted.first.items()}
        return Tally(offers=counted.offers, counts=counted.counts, examples=examples)

    def _count(self, shape: Shape, unfit: tuple[Refusal, int] | None) -> _Counted:
        counts: Counter[Refusal] = Counter()
        first: dict[Refusal, tuple[Room, int]] = {}
        for room in self._rooms:
            refusal, index = self._why(shape, room, unfit)
            counts[refusal] += len(room.offers)
            if refusal not in first:
                first[refusal] = (room, index)
        ordered = dict(sorted(counts.items(), key=lambda counted: (-counted[1], counted[0])))
        return _Counted(counts.total(), ordered, first)

    def _why(self, shape: Shape, room: Room, unfit: tuple[Refusal, int] | None) -> tuple[Refusal, int]:
        """The refusal, and which volume it is about if it is about one."""
        if room.role != shape.role:
            return Refusal.ROLE, 0
        if unfit is not None:
            return unfit
        found = volumes_on(shape, room.shelf)
        if isinstance(found, NoPlan):
            return found.refusal, found.volume
        refusal = shape.refuses(room)
        if refusal is None:
            raise RuntimeError("a task that fits is never left waiting")
        return refusal, 0


def _sentence(refusal: Refusal, ask: Ask, shape: Shape, room: Room, index: int) -> str:
    if refusal in _ABOUT_VOLUMES:
        return _ABOUT_VOLUMES[refusal](ask, room, index)
    if refusal in _ABOUT_AMOUNTS:
        return _amounts(_ABOUT_AMOUNTS[refusal], shape, room)
    if refusal is Refusal.ROLE:
        return f"the task is of role {ask.role}, {_offer(room)} is for role {room.role}"
    if refusal is Refusal.PORTS:
        return f"{_ports(shape)} wanted, {room.agent.hostname} offers {_free_ports(room)}"
    return _constraint(shape, room)


def _offer(room: Room) -> str:
    return f"the offer of {room.agent.hostname}"


def _constraint(shape: Shape, room: Room) -> str:
    for rule in (*shape.fixed, *shape.moving):
        constraint, value = rule.constraint, room.agent.field(rule.constraint.field)
        if rule.refuses(value, shape.peers.groups(constraint.field)) is not None:
            asked = " ".join(filter(None, (constraint.field, str(constraint.operator), constraint.value)))
            return f"{asked} is asked for, {room.agent.hostname} has {'no ' + constraint.field if value is None else value}"
    return "a constraint refuses"


_UNITS: Mapping[str, str] = {"cpus": "cpus", "mem": "MiB of memory", "disk": "MiB of disk", "gpus": "gpus"}
_ABOUT_AMOUNTS: Mapping[Refusal, str] = {Refusal.CPUS: "cpus", Refusal.MEM: "mem", Refusal.DISK: "disk", Refusal.GPUS: "gpus"}


def _amounts(name: str, shape: Shape, room: Room) -> str:
    left = room.left(name, shape.accepted)
    held_back = room.left(name, None) - left
    besides = f" and {from_milli(held_back):g} that it may not use" if held_back else ""
    wanted = f"{from_milli(shape.totals[name]):g} {_UNITS[name]} wanted (executor included)"
    return f"{wanted}, {room.agent.hostname} has {from_milli(left):g} left{besides}"


def _ports(shape: Shape) -> str:
    exact = ", ".join(map(str, shape.required_ports))
    return " and ".join(filter(None, (f"port {exact}" if exact else "", f"{shape.any_ports} of any ports" if shape.any_ports else "")))


def _free_ports(room: Room) -> str:
    ranges = [f"{begin}-{end}" for lot in room.lots.ports for begin, end in lot.ranges]
    return ", ".join(ranges) or "none"


# --- volumes -----------------------------------------------------------------------------------------


def _named(ask: Ask, index: int) -> str:
    volume = ask.volumes[index]
    return f"volume {volume.existing.name if volume.existing is not None else volume.name or volume.container_path}"


def _place(region: str, zone: str) -> str:
    return "/".join(filter(None, (region, zone))) or "no zone"


def _here(agent: Agent) -> str:
    return f"{agent.hostname} is in {_place(agent.region, agent.zone)}"


def _zone(ask: Ask, room: Room, index: int) -> str:
    existing = ask.volumes[index].existing
    if existing is not None:
        return f"{_named(ask, index)} is in {_place(existing.region, existing.zone)}, {_here(room.agent)}"
    return f"no pool for {_named(ask, index)} is where {_here(room.agent)}"


def _platform(ask: Ask, room: Room, index: int) -> str:
    existing = ask.volumes[index].existing
    what = f"platform {existing.platform} of {_named(ask, index)}" if existing is not None else f"any platform for {_named(ask, index)}"
    return f"{room.agent.hostname} does not reach {what}"


def _pool_full(ask: Ask, room: Room, index: int) -> str:
    volume = ask.volumes[index]
    options = room.shelf.vantage.options(Wanted(volume.size_mib, volume.profile, volume.platforms))
    if isinstance(options, Refusal):
        return f"no pool has room for {_named(ask, index)}"
    stock, size = max(options, key=lambda option: option[0].free_mib)
    return (
        f"{_named(ask, index)} needs {size} MiB, the emptiest pool in reach, {stock.platform}/{stock.name}, has {stock.free_mib} MiB free"
    )


def _pool_offline(ask: Ask, room: Room, index: int) -> str:
    volume = ask.volumes[index]
    wanted, vantage = Wanted(volume.size_mib, volume.profile, volume.platforms), room.agent.vantage
    pools = [stock.pool for stock in vantage.pools if wanted.qualifies(stock)]
    silent = {pool.platform: pool for pool in pools if pool.silent_since}
    gone = [f"{pool.platform}/{pool.name}" for pool in pools if not (pool.online or pool.silent_since)]
    said = [f"platform {name} has not answered since {_instant(pool.silent_since)}: {pool.silence}" for name, pool in silent.items()]
    said += [f"pool {', '.join(gone)} is not reported by its platform any more"] if gone else []
    return f"{_named(ask, index)} cannot be made: {'; '.join(said)}"


def _instant(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _slots(ask: Ask, room: Room, index: int) -> str:
    full = ", ".join(platform for platform, left in room.agent.slots.items() if left <= 0) or "its platforms"
    return f"{room.agent.hostname} has too few attach slots left for {_named(ask, index)} on {full}"


def _no_pool(ask: Ask, room: Room, index: int) -> str:
    volume = ask.volumes[index]
    by = f"profile {volume.profile.name}" if volume.profile is not None else "its platform"
    return f"no pool qualifies by {by} for {_named(ask, index)}"


def _volume_size(ask: Ask, room: Room, index: int) -> str:
    volume = ask.volumes[index]
    wanted, what = Wanted(volume.size_mib, volume.profile, volume.platforms), f"{volume.size_mib} MiB for {_named(ask, index)}"
    made = [(wanted.rounded_on(stock), f"{stock.platform}/{stock.name}") for stock in room.agent.vantage.pools if wanted.qualifies(stock)]
    size_mib, pool = min(made, default=(0, ""))
    if size_mib > volume.size_mib:
        return f"{what} would be {size_mib} MiB in {pool}, and that is more than profile and platform allow"
    return f"{what} is more than profile and platform allow"


def _state(ask: Ask, room: Room, index: int) -> str:
    existing = ask.volumes[index].existing
    return f"{_named(ask, index)} is {existing.state if existing is not None else 'gone'}"


def _access(ask: Ask, room: Room, index: int) -> str:
    existing = ask.volumes[index].existing
    return f"{_named(ask, index)} is {existing.access_mode if existing is not None else 'read only'}, the task wants to write"


_ABOUT_VOLUMES: Mapping[Refusal, Callable[[Ask, Room, int], str]] = {
    Refusal.VOLUME_IN_USE: lambda ask, room, index: f"{_named(ask, index)} was given to another task just now",
    Refusal.VOLUME_STATE: _state,
    Refusal.VOLUME_ACCESS: _access,
    Refusal.VOLUME_ROLE: lambda ask, room, index: f"{_named(ask, index)} is not for role {ask.role}",
    Refusal.VOLUME_SIZE: _volume_size,
    Refusal.PLATFORM: _platform,
    Refusal.ZONE: _zone,
    Refusal.NO_POOL: _no_pool,
    Refusal.POOL_OFFLINE: _pool_offline,
    Refusal.POOL_FULL: _pool_full,
    Refusal.SLOTS: _slots,
}
