"""Two brokers on one ledger and one account. EC2 takes no token for a snapshot, so of two made in one instant both would stay."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from framework.janitor import Janitor
from framework.pools import FullPools
from framework.volumes import Volumes
from storage.inventory import open_ledger
from storage.model import Birth, Volume, VolumeId
from storage.platforms.base import CreateRequest
from storage.platforms.ebs.platform import EbsPlatform
from tests.ledgers import Clock
from tests.peers import ec2
from tests.peers.ec2_front import Front
from tests.stage import Hands, stage_config

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]


class Broker:
    """Its verbs on volumes, and its janitor."""

    def __init__(self, url: str, front: Front, stack: ExitStack) -> None:
        clock, ids, self.hands = Clock(), itertools.count(1), Hands()
        self.ledger = stack.enter_context(closing(open_ledger(url, clock=clock)))
        self.platform = stack.enter_context(closing(ec2.adapter(front)))
        platforms: Any = {"disks": self.platform}
        workers: Any = self.hands
        self.volumes = Volumes(
            stage_config(), self.ledger, platforms, workers, clock=clock, ids=lambda: f"id-{next(ids)}", changed=lambda _: None
        )
        self.janitor = Janitor(stage_config(), self.ledger, platforms, self.volumes, workers, clock=clock, full=FullPools())

    def work(self) -> None:
        for done, outcome in self.hands.work():
            done(outcome)

    def adopt(self) -> str:
        made = self.platform.create(CreateRequest(pool=ec2.ZONE, size_mib=1024, token="t", name="v"))
        volume = Volume(
            volume_id=VolumeId("v"),
            name="v",
            platform="disks",
            pool=made.pool,
            size_mib=made.size_mib,
            external_id=made.external_id,
            birth=Birth(serial=made.external_id, filesystem="ext4", filesystem_uuid="u"),
        )
        with self.ledger.begin("test") as tx:
            tx.sync_pools("disks", self.platform.pools())
            tx.adopt(volume)
        return volume.name


@pytest.fixture
def brokers(sqlite_url: str, front: Front) -> Iterator[tuple[Broker, Broker]]:
    with ExitStack() as stack:
        yield Broker(sqlite_url, front, stack), Broker(sqlite_url, front, stack)


def watch(platform: EbsPlatform, sent: list[str], meanwhile: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what the adapter has done, and lets something happen when it has looked and is about to."""
    change = platform.client.change

    def changed(method: str, *arguments: Any, **parameters: Any) -> Any:
        meanwhile()
        sent.append(method)
        return change(method, *arguments, **parameters)

    monkeypatch.setattr(platform.client, "change", changed)


def test_a_snapshot_that_both_find_in_the_ledger_is_made_once(
    brokers: tuple[Broker, Broker], sdk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = brokers
    name, sent = one.adopt(), list[str]()

    def meanwhile() -> None:
        other.janitor.resume()
        other.work()

    watch(one.platform, sent, meanwhile, monkeypatch)
    watch(other.platform, sent, lambda: None, monkeypatch)
    taken = one.volumes.snapshot(name, "monday", "jane")
    one.work()
    made = sdk.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert [it["SnapshotId"] for it in made] == [taken.result(timeout=0).external_id]
    assert sent == ["create_snapshot"]
    assert not other.janitor.resume()
