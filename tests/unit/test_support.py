"""The helpers that other tests lean on: waiting, ports, databases and servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy
from kazoo.client import KazooClient

from tests.ports import free_port, give_back
from tests.servers import Postgres, ZooKeeper
from tests.support import eventually


def test_eventually_returns_the_first_true_answer() -> None:
    answers: Iterator[str] = iter(["", "", "there", "late"])
    assert eventually(lambda: next(answers), 5, "an answer") == "there"


def test_eventually_says_what_it_waited_for_and_the_last_answer() -> None:
    with pytest.raises(TimeoutError, match=r"^three agents: not within 0 s, last answer \[\]$"):
        eventually(lambda: [], 0, "three agents")


def test_eventually_waits_over_failed_assertions_and_connections_and_keeps_the_last() -> None:
    def refuse() -> bool:
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(TimeoutError, match="nobody listens") as caught:
        eventually(refuse, 0.05, "an answer")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_eventually_does_not_hide_a_broken_condition() -> None:
    with pytest.raises(KeyError):
        eventually(lambda: dict[str, str]()["missing"], 5, "a key")


def test_a_port_is_given_out_once_among_all_processes() -> None:
    port = free_port()
    program = f"from tests.ports import free_port, _keep; assert not _keep({port}); print(free_port())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(other.stdout) != port
    assert free_port() != port
    give_back(port)
    subprocess.run([sys.executable, "-c", f"from tests.ports import _keep; assert _keep({port})"], check=True)


def test_a_port_that_somebody_listens_on_is_not_given_out() -> None:
    port = free_port()
    give_back(port)
    with socket.create_server(("127.0.0.1", port)):
        assert free_port() != port


def test_each_test_gets_an_empty_database_that_keeps_what_it_is_told(ledger_url: str) -> None:
    engine = sqlalchemy.create_engine(ledger_url)
    with engine.begin() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
        connection.execute(sqlalchemy.text("CREATE TABLE kept (id INTEGER)"))
        connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (7)"))
    with engine.begin() as connection:
        assert connection.execute(sqlalchemy.text("SELECT id FROM kept")).scalar_one() == 7
    engine.dispose()


def test_a_database_is_dropped_under_whoever_is_connected(postgres: Postgres) -> None:
    name = postgres.create_database()
    engine = sqlalchemy.create_engine(postgres.url(name))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
        postgres.drop_database(name)
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.execute(sqlalchemy.text("SELECT 1"))
    engine.dispose()


def test_zookeeper_keeps_its_address_and_its_nodes_over_a_crash(zookeeper: ZooKeeper) -> None:
    client = KazooClient(zookeeper.address)
    client.start(timeout=10)
    client.create("/mesos/json.info_0000000001", b"{}", makepath=True)
    zookeeper.kill()
    zookeeper.start()
    eventually(lambda: client.connected, 20, "the client is back")
    assert client.retry(client.get_children, "/mesos") == ["json.info_0000000001"]
    client.stop()
    client.close()


def test_zookeeper_names_the_master_that_was_announced_last(zookeeper: ZooKeeper) -> None:
    zookeeper.announce("127.0.0.1:5050")
    assert zookeeper.announce("127.0.0.1:5051") == f"zk://{zookeeper.address}/mesos"
    client = KazooClient(zookeeper.address)
    client.start(timeout=10)
    names = client.get_children("/mesos")
    written = [json.loads(client.get(f"/mesos/{name}")[0]) for name in names]
    client.stop()
    client.close()
    assert [name[:10] for name in names] == ["json.info_"]
    assert [info["address"] for info in written] == [{"ip": "127.0.0.1", "port": 5051, "hostname": "127.0.0.1"}]


@pytest.mark.root
def test_postgresql_does_not_run_as_root(postgres: Postgres) -> None:
    assert postgres.pid is not None
    assert os.stat(f"/proc/{postgres.pid}").st_uid != 0
