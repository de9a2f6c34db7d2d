"""What matching sees of the storage: pools with their free capacity, who reaches which platform, and the attach slots left.

A picture of one moment, taken from the ledger's index by whoever calls; nothing here changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.model import AccessMode, Pool, Profile


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
    min_mib: int = 1
    max_mib: int | None = None
    granularity_mib: int = 1
    slots_per_node: int | None = None
    """How many more volumes an agent can hold where StorageView.slots does not know better; None: no limit."""
    access_modes: frozenset[AccessMode] | None = None
    """None: all."""
    vendor: str = "polly"
    """Shown as `disk.source.vendor`."""

    def suits(self, profile: Profile, pool: Pool) -> bool:
        """Whether a volume of the profile can be made in this pool of the platform, size and place aside."""
        return profile.qualifies(pool) and (self.access_modes is None or profile.access_mode in self.access_modes)

    def rounded_mib(self, size_mib: int) -> int:
        """The size that the platform makes of a wish for `size_mib`."""
        size_mib = max(size_mib, self.min_mib, 1)
        return -(-size_mib // self.granularity_mib) * self.granularity_mib


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
