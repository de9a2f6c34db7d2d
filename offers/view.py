"""What matching sees of the storage: pools with their free capacity, who reaches which platform, and the attach slots left.

A picture of one moment, taken from the ledger's index by whoever calls; nothing here changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from storage.model import AccessMode, Pool, Profile, Sizes

SizesIn = Callable[[Mapping[str, str], str], Sizes | None]
"""Which sizes a volume with these parameters can have in the pool of this name; None: it cannot be there."""


def any_size(parameters: Mapping[str, str], pool: str) -> Sizes | None:
    return Sizes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The agents that reach a platform: those whose `field` (an attribute's name, or as in a constraint) matches the whole pattern."""

    field: str
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformView:
    """What of a platform's settings and abilities decides a placement."""

    name: str
    reach: Reach | None = None
    """None: every agent reaches it."""
    sizes_in: SizesIn = any_size
    slots_per_node: int | None = None
    """How many more volumes an agent can hold where StorageView.slots does not know better; None: no limit."""
    access_modes: frozenset[AccessMode] | None = None
    """None: all."""
    vendor: str = "polly"
    """Shown as `disk.source.vendor`."""

    def suits(self, profile: Profile, pool: Pool) -> bool:
        """Whether a volume of the profile may be in this pool of the platform, size, parameters and place aside."""
        return profile.qualifies(pool) and (self.access_modes is None or profile.access_mode in self.access_modes)

    def sizes(self, profile: Profile | None, pool: Pool) -> Sizes | None:
        """Which sizes a volume with the profile's parameters can have in this pool; None: it cannot be there."""
        return self.sizes_in(profile.parameters if profile is not None else {}, pool.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageView:
    pools: tuple[Pool, ...] = ()
    platforms: Mapping[str, PlatformView] = field(default_factory=dict)
    """By name; a platform that is missing is reached by all and has no limits."""
    slots: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How many more volumes fit, by (agent id, platform)."""
    profiles: tuple[Profile, ...] = ()
    """What the overlay shows pools for."""

    def platform(self, name: str) -> PlatformView:
        return self.platforms.get(name) or PlatformView(name=name)


NO_STORAGE = StorageView()
