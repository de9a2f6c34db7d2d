"""Media coming into being: made or copied under a passing name, and given their own in one step when they are complete.

So a name is always a whole medium's, whoever dies on the way, and of two makers with one token one finds the name taken.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from storage.errors import PlatformError, PoolFull
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.failures import Fault, Unreachable
from storage.platforms.virtualbox.media import Found, Media
from storage.platforms.virtualbox.options import FORMATS
from storage.platforms.virtualbox.records import Record, write_record

ABANDONED_S: Final = 86400.0
"""After a day nobody is making a medium any more."""


class Plan(Struct, frozen=True, kw_only=True):
    pool: str
    stem: str
    suffix: str
    size_mib: int
    variant: str = "Standard"
    origin: str = ""
    """The medium that it is a copy of; empty for a new one."""
    origin_mib: int = 0


def _chance() -> str:
    return secrets.token_hex(4)


class Making:
    def __init__(
        self,
        media: Media,
        *,
        capacity_mib: int | None,
        total_mib: int | None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], str] = _chance,
    ) -> None:
        self._media, self._host, self._capacity_mib, self._total_mib = media, media.host, capacity_mib, total_mib
        self._clock, self._chance = clock, chance

    def make(self, plan: Plan, record: Record, *, there: Callable[[], Found | None]) -> Found:
        """The medium of the plan, or the one that `there` finds where another maker was faster. Raises PoolFull."""
        self._sweep()
        self.refuse_full(plan.pool, plan.size_mib)
        stem = layout.part_stem(self._clock(), self._chance())
        try:
            part = self._part(plan, stem)
        except Fault as fault:
            raise self._full(plan, fault) from fault
        try:
            made = self._publish(plan, part, replace(record, part=stem), there)
        except Fault:
            self._drop(part)
            raise
        if made is None:
            reason = f"the medium {part} went as soon as it was made"
            raise PlatformError(platform=self._media.platform, action=f"make {plan.stem}", reason=reason)
        return made

    def _part(self, plan: Plan, stem: str) -> str:
        file = self._media.places.file(plan.pool, stem, plan.suffix)
        how = {"format": FORMATS[plan.suffix], "variant": plan.variant}
        if not plan.origin:
            return self._host.create(file, size_mib=plan.size_mib, **how)
        part = self._host.clone(plan.origin, file, **how)
        if plan.size_mib > plan.origin_mib:
            try:
                self._host.resize(part, plan.size_mib)
            except Fault:
                self._drop(part)
                raise
        return part

    def _publish(self, plan: Plan, part: str, record: Record, there: Callable[[], Found | None]) -> Found | None:
        """Its record comes first, so that nobody sees it without one."""
        with self._host.locked():
            if other := there():
                self._drop(part)
                return other
            key = layout.RECORDS + plan.stem
            self._host.write_record(key, write_record(record))
            try:
                self._host.move(part, self._media.places.file(plan.pool, plan.stem, plan.suffix))
            except Fault:
                self._host.write_record(key, "")
                raise
            return there()

    def _drop(self, part: str) -> None:
        """Only what is known not to have got its name: an answer that was lost leaves it for `_sweep`."""
        with suppress(Fault, Unreachable):
            self._host.delete(part)

    def refuse_full(self, pool: str, size_mib: int) -> None:
        """Raises PoolFull if so much more does not fit. What others make at this moment is not seen: the ledger counts what it promised."""
        free = self.free_mib(pool)
        if size_mib > free:
            raise PoolFull(pool=pool, platform=self._media.platform, free_mib=max(0, free), size_mib=size_mib)

    def free_mib(self, pool: str) -> int:
        if self._total_mib is None:
            return self._own_mib(pool)
        return min(self._own_mib(pool), self._total_mib - self._taken_mib(self._media.places.pools))

    def _own_mib(self, pool: str) -> int:
        if self._capacity_mib is not None:
            return self._capacity_mib - self._taken_mib([pool])
        folder = self._media.places.folder(pool)
        if (disk := self._host.disk(folder)) is None:
            raise PlatformError(platform=self._media.platform, action="look for room", reason=f"the folder {folder} is not there")
        return disk.free_mib

    def _taken_mib(self, pools: Collection[str]) -> int:
        ids = [known.uuid for known, place in self._media.listed() if place.pool in pools]
        return sum(self._host.sizes(ids).values())

    def _full(self, plan: Plan, fault: Fault) -> Exception:
        if not fault.is_full:
            return fault
        return PoolFull(pool=plan.pool, platform=self._media.platform, free_mib=0, size_mib=plan.size_mib)

    def _sweep(self) -> None:
        """Deletes what makers that died left behind."""
        parts = [(known, place.stem) for known, place in self._media.listed() if layout.is_part(place)]
        old = {stem: known for known, stem in parts if layout.part_since(stem) < self._clock() - ABANDONED_S}
        if not old:
            return
        with self._host.locked():
            self._media.bury(lambda record: record.part in old)
        for known in old.values():
            self._drop(known.uuid)
