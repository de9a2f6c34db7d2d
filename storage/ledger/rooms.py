"""The rooms that several pools share: what is free of them, asked when something is taken from one of their pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from storage.ledger.bulk import Lookup
from storage.ledger.engine import Session

POOLS: Final = Lookup(
    "SELECT platform, name, room, provisioned_mib, room_limit_mib FROM pools WHERE platform {among} ORDER BY platform, name {lock}"
)
"""All of these platforms, locked: what one pool of a room takes is taken from the others, and who takes of several pools waits for nobody
who has one of them already and wants another, if both come by this one look."""


def rooms_of(
    session: Session, sizes: Mapping[tuple[str, str], int], besides: Collection[str] = ()
) -> dict[tuple[str, str], tuple[int, int]]:
    """What is free in each room of these pools, and what `sizes` want of it, in MiB; by platform and the room's name.

    `sizes` are by platform and pool. All pools of these platforms, and of those `besides`, are locked. Less than nothing is free where
    others have taken what was promised here.
    """
    free: dict[tuple[str, str], int] = {}
    wanted: Counter[tuple[str, str]] = Counter()
    for platform, name, room, provisioned_mib, limit_mib in session.find(POOLS, sorted({*besides, *(platform for platform, _ in sizes)})):
        if not room:
            continue
        key = (platform, room)
        free[key] = free.get(key, limit_mib) - provisioned_mib
        wanted[key] += sizes.get((platform, name), 0)
    return {key: (free[key], size_mib) for key, size_mib in wanted.items() if size_mib}
