"""Finding the leading master in a real ZooKeeper. The nodes are written as Mesos masters write them; see parse_master_info."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from framework.masters import of_master
from framework.mesos.driver import Driver
from framework.mesos.events import Disconnected, Offers, Subscribed
from framework.mesos.leader import Address, LeaderWatch, ZooKeeperUri, parse_master
from tests.cluster.mesos_cluster import MesosCluster
from tests.fake_master import FakeMaster
from tests.ports import free_port
from tests.servers import ZooKeeper
from tests.support import eventually
from tests.unit.driving import driving

Masters = Callable[..., str]


@pytest.fixture
def client(zookeeper: ZooKeeper) -> Iterator[KazooClient]:
    found = KazooClient(hosts=zookeeper.address, timeout=3.0)
    found.start()
    yield found
    found.stop()
    found.close()


def elect(client: KazooClient, path: str, address: str, acl: Any = None, *, ephemeral: bool = True) -> str:
    """What a master does that stands for election: an ephemeral node with its MasterInfo. One that is not stays without its session."""
    host, _, port = address.rpartition(":")
    info = {"address": {"hostname": "localhost", "ip": host, "port": int(port)}, "hostname": "localhost", "id": "m", "version": "1.11.0"}
    client.ensure_path(path, acl=acl)
    made: str = client.create(f"{path}/json.info_", json.dumps(info).encode(), ephemeral=ephemeral, sequence=True, acl=acl)
    return made


class Told:
    def __init__(self) -> None:
        self.all: list[tuple[Address | None, str]] = []

    def __call__(self, leader: Address | None, reason: str) -> None:
        self.all.append((leader, reason))

    def wait(self, expected: Address | None) -> str:
        """Returns the reason that was told with it."""
        eventually(lambda: self.all and self.all[-1][0] == expected, what=f"{expected} is told")
        return self.all[-1][1]


@pytest.fixture
def watch() -> Iterator[Callable[[str], Told]]:
    watches: list[LeaderWatch] = []

    def start(uri: str) -> Told:
        told = Told()
        parsed = parse_master(uri)
        assert isinstance(parsed, ZooKeeperUri)
        watches.append(LeaderWatch(parsed, told))
        watches[-1].start()
        return told

    yield start
    for it in watches:
        it.stop()
        eventually(lambda it=it: not it._thread.is_alive(), 15, "the watch ends")  # type: ignore[misc]  # a default of a lambda


def test_the_lowest_number_leads_and_the_next_follows_it(zookeeper: ZooKeeper, client: KazooClient, watch: Callable[[str], Told]) -> None:
    first = elect(client, "/mesos", "127.0.0.1:5051")
    second = elect(client, "/mesos", "127.0.0.2:5052")
    client.create("/mesos/log_replicas")
    told = watch(f"zk://{zookeeper.address}/mesos")
    told.wait(Address(host="127.0.0.1", port=5051))
    client.delete(first)
    told.wait(Address(host="127.0.0.2", port=5052))
    client.delete(second)
    assert "no master leads in zk://" in told.wait(None)
    assert len(told.all) == 3


def test_masters_that_come_later_are_found(zookeeper: ZooKeeper, client: KazooClient, watch: Callable[[str], Told]) -> None:
    told = watch(f"zk://{zookeeper.address}/clusters/prod/mesos")
    assert "no master leads" in told.wait(None)
    elect(client, "/clusters/prod/mesos", "127.0.0.1:5051")
    told.wait(Address(host="127.0.0.1", port=5051))


def test_a_zookeeper_that_dies_and_comes_back(zookeeper: ZooKeeper, client: KazooClient, watch: Callable[[str], Told]) -> None:
    first = elect(client, "/mesos", "127.0.0.1:5051", ephemeral=False)
    told = watch(f"zk://{zookeeper.address}/mesos")
    told.wait(Address(host="127.0.0.1", port=5051))
    zookeeper.kill()
    zookeeper.start()
    eventually(lambda: client.connected, what="the masters are back in ZooKeeper")
    elect(client, "/mesos", "127.0.0.2:5052")
    client.delete(first)
    told.wait(Address(host="127.0.0.2", port=5052))
    assert [leader for leader, _ in told.all] == [Address(host="127.0.0.1", port=5051), Address(host="127.0.0.2", port=5052)]


def test_a_zookeeper_that_is_not_there_yet_is_waited_for(zookeeper: ZooKeeper, watch: Callable[[str], Told]) -> None:
    zookeeper.kill()
    told = watch(f"zk://{zookeeper.address}/mesos")
    assert "does not say which master leads" in told.wait(None)
    zookeeper.start()
    eventually(lambda: "no master leads" in told.all[-1][1], 20, "it is asked")


def test_digest_authentication(zookeeper: ZooKeeper, client: KazooClient, watch: Callable[[str], Told]) -> None:
    client.add_auth("digest", "reader:pass")
    elect(client, "/guarded", "127.0.0.1:5051", acl=[make_digest_acl("reader", "pass", all=True)])
    told = watch(f"zk://{zookeeper.address}/guarded")
    assert "does not say which master leads" in told.wait(None)
    allowed = watch(f"zk://reader:pass@{zookeeper.address}/guarded")
    allowed.wait(Address(host="127.0.0.1", port=5051))


def test_the_driver_follows_the_leader(zookeeper: ZooKeeper, client: KazooClient) -> None:
    with FakeMaster() as first, FakeMaster() as second:
        node = elect(client, "/mesos", first.address)
        elect(client, "/mesos", second.address)
        with driving(f"zk://{zookeeper.address}/mesos") as (driver, heard):
            heard.wait(Subscribed)
            assert driver.master == first.address
            client.delete(node)
            heard.wait(Subscribed, 2)
            assert driver.master == second.address
            assert first.subscription().ended.wait(10)
            assert heard.wait(Disconnected).reason == f"{first.address}: {second.address} leads now"


def test_a_stop_does_not_wait_for_a_zookeeper_that_is_gone(zookeeper: ZooKeeper) -> None:
    zookeeper.kill()
    with driving(f"zk://{zookeeper.address}/mesos") as (driver, heard):
        assert "does not say which master leads" in heard.wait(Disconnected).reason
        began = time.monotonic()
        driver.stop()
        assert time.monotonic() - began < 1


@pytest.mark.cluster
def test_a_real_master_is_found_through_zookeeper(zookeeper: ZooKeeper, client: KazooClient, mesos: Callable[..., MesosCluster]) -> None:
    cluster = mesos()
    elect(client, "/mesos", cluster.master.address)
    with driving(f"zk://{zookeeper.address}/mesos") as (driver, heard):
        heard.wait(Offers)
        driver.suppress()
        assert driver.master == cluster.master.address
        assert isinstance(driver, Driver)


def test_the_doctor_asks_zookeeper_who_leads(zookeeper: ZooKeeper, client: KazooClient) -> None:
    uri = f"zk://{zookeeper.address}/asked"
    (none,) = of_master(uri)
    assert (none.ok, none.message) == (False, f"no master leads in {uri}")
    assert none.mend.startswith(f"Start a master with --zk={uri}, or ")
    nowhere = f"127.0.0.1:{free_port()}"
    elect(client, "/asked", nowhere)
    leads, unreached = of_master(uri)
    assert (leads.ok, leads.message) == (True, f"{uri} says that {nowhere} leads")
    assert (unreached.ok, unreached.message) == (False, f"the master at {nowhere} cannot be reached: Connection refused")
