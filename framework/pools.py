"""Pools that have refused what the ledger had room for: what is free of them until their platform has been looked at again.

A platform knows first that a pool is full: others use it too, or a quota counts what no report shows. So its refusal bounds
what is placed there at once, the platform is looked at, and the bound goes with a look that is young enough. A pool that goes
on refusing what it says it has room for is left alone for longer each time. In memory only: a new broker asks first anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from storage.model import Pool

FIRST_S, LAST_S = 5.0, 300.0
"""How long a refusal bounds its pool, at first and at most."""
FORGET_S = 900.0
"""A pool that refused nothing for so long begins anew."""


@dataclass(slots=True)
class _Refusal:
    size_mib: int
    at: float
    stands_s: float
    look_at: float | None
    """When the platform is to be looked at for its sake; None: it bounds nothing any more."""


class FullPools:
    """The broker thread's own. Instants are in seconds, of the clock whose readings the caller passes in."""

    def __init__(self) -> None:
        self._refusals: dict[tuple[str, str], _Refusal] = {}

    def refused(self, platform: str, pool: str, size_mib: int, now: float) -> None:
        """The platform has refused to make a volume of this size in the pool."""
        before = self._refusals.get((platform, pool))
        if before is None or now - before.at > FORGET_S:
            self._refusals[platform, pool] = _Refusal(size_mib, now, FIRST_S, now)
        elif before.look_at is None:
            self._refusals[platform, pool] = _Refusal(size_mib, now, min(LAST_S, before.stands_s * 2), now)
        else:
            before.size_mib = min(before.size_mib, size_mib)

    def look_at(self, platform: str) -> float | None:
        """When the platform's pools are to be looked at because of what they refused."""
        return min((it.look_at for it in self._of(platform) if it.look_at is not None), default=None)

    def looked(self, platform: str, begun_at: float) -> None:
        """What the ledger has of the platform's pools is what a look said that began at this instant."""
        for refusal in self._of(platform):
            if begun_at >= refusal.at + refusal.stands_s:
                refusal.look_at = None
            elif refusal.look_at is not None and begun_at >= refusal.look_at:
                refusal.look_at = refusal.at + refusal.stands_s

    def failed(self, platform: str, now: float) -> None:
        """The platform could not be looked at."""
        for refusal in self._of(platform):
            if refusal.look_at is not None:
                refusal.look_at = now + refusal.stands_s

    def bounded(self, pool: Pool) -> Pool:
        """The pool with no more free than what it was not yet seen to refuse."""
        refusal = self._refusals.get((pool.platform, pool.name))
        if refusal is None or refusal.look_at is None or pool.free_mib < refusal.size_mib:
            return pool
        return replace(pool, provisioned_mib=pool.limit_mib - (refusal.size_mib - 1))

    def _of(self, platform: str) -> list[_Refusal]:
        return [refusal for (name, _), refusal in self._refusals.items() if name == platform]
