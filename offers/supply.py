"""What is left of the storage while one batch of offers is being matched: pools' free capacity, and who sees which pool.

Agents of one region and zone that reach the same platforms share a vantage, so what they see is worked out once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from offers.rooms import Agent
from offers.tally import Refusal
from offers.view import PlatformView, StorageView
from storage.model import Pool, Profile, Sizes


class Stock:
    """A pool and what is still free of it, in the room that it shares too."""

    __slots__ = ("_sizes", "free_mib", "name", "platform", "pool", "seen_from", "shared", "view")

    def __init__(self, pool: Pool, view: PlatformView) -> None:
        self.pool, self.view = pool, view
        self.platform, self.name = pool.platform, pool.name
        self.free_mib = pool.free_mib
        self.seen_from: list[Vantage] = []
        self.shared: Shared | None = None
        self._sizes: dict[int, Sizes | None] = {}

    def sizes(self, profile: Profile | None) -> Sizes | None:
        """Asked once for each profile; the asks keep them alive."""
        key = id(profile)
        if key not in self._sizes:
            self._sizes[key] = self.view.sizes(profile, self.pool)
        return self._sizes[key]

    def take(self, size_mib: int) -> None:
        self._left(self.free_mib - size_mib)
        if self.shared is not None:
            self.shared.take(size_mib)

    def _left(self, free_mib: int) -> None:
        self.free_mib = free_mib
        for vantage in self.seen_from:
            vantage.version += 1

    def bound(self, free_mib: int) -> None:
        """No more than this is free of it any more."""
        if self.free_mib > free_mib:
            self._left(free_mib)


class Shared:
    """A room that several pools share, and what is still free of it."""

    __slots__ = ("free_mib", "stocks")

    def __init__(self, free_mib: int) -> None:
        self.free_mib = free_mib
        self.stocks: list[Stock] = []

    def take(self, size_mib: int) -> None:
        self.free_mib -= size_mib
        for stock in self.stocks:
            stock.bound(self.free_mib)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A volume that is there already: its agent must see where it is."""

    platform: str
    region: str
    zone: str


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A volume that is to be made."""

    size_mib: int
    profile: Profile | None
    platforms: tuple[str, ...]

    def qualifies(self, stock: Stock) -> bool:
        if self.platforms and stock.platform not in self.platforms:
            return False
        return (self.profile is None or stock.view.suits(self.profile, stock.pool)) and stock.sizes(self.profile) is not None

    def size_on(self, stock: Stock) -> int | None:
        """What the volume would measure there; None where that is larger than the profile or the platform allows."""
        size, sizes = self.rounded_on(stock), stock.sizes(self.profile)
        limits = (sizes.max_mib if sizes else 0, self.profile.max_mib if self.profile else None)
        return size if all(limit is None or size <= limit for limit in limits) else None

    def rounded_on(self, stock: Stock) -> int:
        """What the platform would make of it there, allowed or not."""
        least = max(self.size_mib, self.profile.min_mib if self.profile else 1)
        sizes = stock.sizes(self.profile)
        return sizes.rounded(least) if sizes else least


Need = Held | Wanted
Option = tuple[Stock, int]
"""A pool, and the size that the volume would have in it."""


class Vantage:
    """What all agents see that are in one region and zone and reach the same platforms."""

    __slots__ = ("_options", "_stocks", "barred", "region", "version", "zone")

    def __init__(self, region: str, zone: str, barred: frozenset[str], stocks: tuple[Stock, ...]) -> None:
        self.region, self.zone, self.barred = region, zone, barred
        self._stocks = stocks
        self._options: dict[Wanted, tuple[Option, ...] | Refusal] = {}
        self.version = 0
        """One more whenever less is free in a pool that is in sight."""
        for stock in self.pools:
            stock.seen_from.append(self)

    def refuses(self, platform: str, region: str, zone: str) -> Refusal | None:
        """Why something at this place cannot be brought here; an empty place is everywhere."""
        if platform in self.barred:
            return Refusal.PLATFORM
        same = (not region or region == self.region) and (not zone or zone == self.zone)
        return None if same else Refusal.ZONE

    def refuses_pool(self, pool: Pool) -> Refusal | None:
        return self.refuses(pool.platform, pool.region, pool.zone)

    @property
    def pools(self) -> tuple[Stock, ...]:
        return tuple(stock for stock in self._stocks if self.refuses_pool(stock.pool) is None)

    def options(self, wanted: Wanted) -> tuple[Option, ...] | Refusal:
        """Where the volume could be made were there room enough, by platform and pool; or why nowhere."""
        if wanted not in self._options:
            self._options[wanted] = self._find_options(wanted)
        return self._options[wanted]

    def _find_options(self, wanted: Wanted) -> tuple[Option, ...] | Refusal:
        fitting = [stock for stock in self._stocks if wanted.qualifies(stock)]
        if not fitting:
            return Refusal.NO_POOL
        sized = [(stock, size) for stock in fitting if (size := wanted.size_on(stock)) is not None]
        if not sized:
            return Refusal.VOLUME_SIZE
        refusals = [self.refuses_pool(stock.pool) for stock, _ in sized]
        near = tuple(option for option, refusal in zip(sized, refusals, strict=True) if refusal is None)
        if near:
            return tuple(option for option in near if option[0].pool.online) or Refusal.POOL_OFFLINE
        return Refusal.ZONE if Refusal.ZONE in refusals else Refusal.PLATFORM


class Supply:
    """The pools of one view, and the vantage of each agent."""

    def __init__(self, storage: StorageView) -> None:
        ordered = sorted(storage.pools, key=lambda pool: (pool.platform, pool.name))
        self.stocks = tuple(Stock(pool, storage.platform(pool.platform)) for pool in ordered)
        self._share()
        self._rules = [
            (name, view.reach.field, re.compile(view.reach.pattern)) for name, view in sorted(storage.platforms.items()) if view.reach
        ]
        self._vantages: dict[tuple[str, str, frozenset[str]], Vantage] = {}
        self._by_fields: dict[tuple[str | None, ...], Vantage] = {}

    def _share(self) -> None:
        rooms: dict[tuple[str, str], Shared] = {}
        for stock in self.stocks:
            if stock.pool.room:
                stock.shared = rooms.setdefault((stock.platform, stock.pool.room), Shared(stock.pool.room_free_mib))
                stock.shared.stocks.append(stock)

    def vantage(self, agent: Agent) -> Vantage:
        """The same one for all agents that see the same."""
        fields = (agent.region, agent.zone, *[agent.field(field) for _, field, _ in self._rules])
        found = self._by_fields.get(fields)
        if found is None:
            found = self._by_fields[fields] = self._make(agent)
        return found

    def _make(self, agent: Agent) -> Vantage:
        barred = frozenset(name for name, field, pattern in self._rules if not _matches(pattern, agent.field(field)))
        key = (agent.region, agent.zone, barred)
        if key not in self._vantages:
            self._vantages[key] = Vantage(*key, self.stocks)
        return self._vantages[key]


def _matches(pattern: re.Pattern[str], value: str | None) -> bool:
    return value is not None and pattern.fullmatch(value) is not None
