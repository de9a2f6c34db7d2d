"""Pools that refused: bounded until a young enough look, for longer each time that the look was wrong."""

from framework.pools import FIRST_S, FORGET_S, LAST_S, FullPools
from storage.model import Pool

POOL = Pool(platform="disks", name="p", capacity_mib=1000, provisioned_mib=100, overcommit=1.5)


def look(full: FullPools, now: float) -> None:
    full.looked("disks", now)


def test_what_a_pool_refused_bounds_it_and_no_other() -> None:
    full = FullPools()
    full.refused("disks", "p", 64, now=0.0)
    assert full.bounded(POOL).free_mib == 63
    full.refused("disks", "p", 16, now=0.0)
    full.refused("disks", "p", 32, now=0.0)
    assert full.bounded(POOL).free_mib == 15
    for other in (Pool(platform="disks", name="q", capacity_mib=9), Pool(platform="san", name="p", capacity_mib=9)):
        assert full.bounded(other) is other


def test_a_pool_that_has_less_keeps_what_it_has() -> None:
    full = FullPools()
    full.refused("disks", "p", 10_000, now=0.0)
    assert full.bounded(POOL) is POOL


def test_the_first_look_is_at_once_and_only_a_later_one_lifts_the_bound() -> None:
    full = FullPools()
    full.refused("disks", "p", 64, now=10.0)
    look(full, 9.0)
    assert full.look_at("disks") == 10.0
    look(full, 10.0)
    assert full.look_at("disks") == 10.0 + FIRST_S
    assert full.bounded(POOL).free_mib == 63
    look(full, 10.0 + FIRST_S)
    assert full.look_at("disks") is None
    assert full.bounded(POOL) is POOL


def test_a_pool_that_goes_on_refusing_is_left_alone_for_longer_up_to_a_limit() -> None:
    full, now, waits = FullPools(), 0.0, []
    for _ in range(10):
        full.refused("disks", "p", 64, now)
        look(full, now)
        lifted = full.look_at("disks")
        assert lifted is not None
        waits.append(lifted - now)
        look(full, lifted)
        now = lifted + 1
    assert waits[:3] == [FIRST_S, FIRST_S * 2, FIRST_S * 4]
    assert waits[-1] == LAST_S
    full.refused("disks", "p", 64, now + FORGET_S)
    look(full, now + FORGET_S)
    assert full.look_at("disks") == now + FORGET_S + FIRST_S


def test_a_look_that_failed_lifts_nothing_and_is_made_again_later() -> None:
    full = FullPools()
    full.refused("disks", "p", 64, now=0.0)
    full.failed("disks", now=1.0)
    assert full.look_at("disks") == 1.0 + FIRST_S
    assert full.look_at("san") is None
    assert full.bounded(POOL).free_mib == 63
