"""What the ledger's source adds up, on both databases; and how long lists are cut into parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from framework.source import LedgerSource
from framework.views import PAGE, EventFilter, pages, platforms
from storage.errors import Invalid, UnknownApp, UnknownClaim, UnknownPlatform, UnknownVolume
from storage.filters import ClaimFilter, VolumeFilter
from storage.inventory import Ledger, PoolUse, open_ledger
from storage.model import ClaimId, Page, VolumeId
from tests.unit.front import NOW, SCHEDULER, fill


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = open_ledger(ledger_url, clock=lambda: NOW)
    fill(ledger)
    yield ledger
    ledger.close()


def test_what_claims_hold_of_each_pool(ledger: Ledger) -> None:
    assert ledger.in_use() == [PoolUse(platform="local", pool="main", claims=1, volumes_mib=64)]
    (view,) = LedgerSource(ledger).pools()
    assert (view.claimed_mib, view.claims, view.free_mib) == (64, 1, 10_240 - 64 - 2048)
    (platform,) = platforms([view], ledger.hearings())
    assert (platform.name, platform.pools, platform.claimed_mib, platform.online) == ("local", 1, 64, True)


def test_a_claim_by_its_id(ledger: Ledger) -> None:
    assert LedgerSource(ledger).claim("c1").volume_id == "v1"
    assert ledger.claims(ClaimFilter(claim_id=ClaimId("c2"))).items == []
    with pytest.raises(UnknownClaim):
        LedgerSource(ledger).claim("c2")


def test_apps_of_one_framework_or_of_all(ledger: Ledger) -> None:
    assert [app.app_id for app in LedgerSource(ledger, SCHEDULER).apps()] == ["/counter"]
    assert LedgerSource(ledger, "mesos/other").apps() == []
    assert LedgerSource(ledger).app("counter").running == 1
    with pytest.raises(UnknownApp):
        LedgerSource(ledger, "mesos/other").app("/counter")


def test_pages_and_events(ledger: Ledger) -> None:
    source = LedgerSource(ledger)
    first = source.volumes(VolumeFilter(), limit=1)
    assert [volume.volume_id for volume in source.volumes(VolumeFilter(), after=first.after).items] == ["v2", "v3"]
    assert {event.volume_id for event in source.events(EventFilter(volume="hand2")).items} == {VolumeId("v2")}
    with pytest.raises(Invalid, match="after is"):
        source.volumes(VolumeFilter(), after="-1")


def test_the_events_of_a_volume_that_is_gone_are_found_by_its_id(ledger: Ledger) -> None:
    with ledger.begin("test") as tx:
        tx.unplan(VolumeId("v2"))
    source = LedgerSource(ledger)
    assert [event.what for event in source.events(EventFilter(volume="v2")).items] == ["volume.planned", "volume.unplanned"]
    for unknown in ("hand2", ""):
        with pytest.raises(UnknownVolume):
            source.events(EventFilter(volume=unknown))


def test_what_is_foreign_on_a_platform_that_nobody_knows_is_not_nothing(ledger: Ledger) -> None:
    assert LedgerSource(ledger).foreign("local").items == []
    with pytest.raises(UnknownPlatform):
        LedgerSource(ledger).foreign("mars")


def test_a_long_list_is_asked_for_in_parts() -> None:
    asked: list[tuple[str | None, int]] = []

    def ask(after: str | None, limit: int) -> Page[int]:
        asked.append((after, limit))
        start = int(after or 0)
        return Page(items=list(range(start, start + limit)), after=str(start + limit) if start + limit < 2500 else None)

    assert [len(page.items) for page in pages(ask)] == [1000, 1000, 1000]
    assert asked == [(None, PAGE), ("1000", PAGE), ("2000", PAGE)]
    asked.clear()
    assert [len(page.items) for page in pages(ask, after="100", limit=1500)] == [1000, 500]
    assert asked == [("100", 1000), ("1100", 500)]
