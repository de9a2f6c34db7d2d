"""How the broker comes to Mesos and to its ledger: with a secret, through ZooKeeper, for roles, and with PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.mesos_cluster import AgentSpec
from tests.cluster.rig import Rig, counter
from tests.servers import ZooKeeper
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

MakeRig = Callable[..., Rig]


def ends_clean(rig: Rig, *app_ids: str) -> None:
    for app_id in app_ids or ("/counter",):
        rig.delete(app_id)
    for app_id in app_ids or ("/counter",):
        rig.gone(app_id)
    rig.settle()
    rig.nothing_left()


def test_a_master_that_wants_a_secret(make_rig: MakeRig, tmp_path: Path) -> None:
    """A wrong secret, or none, ends the broker with a sentence; the right one lets an app run."""
    rig = make_rig(1, credentials={"polly": "open sesame"})
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    wrong.write_text("open barley\n")
    right.write_text("open sesame\n")
    for secret in (wrong, right):
        secret.chmod(0o600)
    for options in (["--principal", "polly", "--secret-file", str(wrong)], []):
        rig.log.unlink(missing_ok=True)
        rig.start_broker(*options, wait=False)
        assert rig.died() == 9
        said = rig.log.read_text()
        assert "The Mesos master will not have this framework" in said
        assert "--secret-file" in said
        assert "Traceback" not in said
        assert "barley" not in said
    rig.start_broker("--principal", "polly", "--secret-file", str(right))
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    rig.kill_broker()
    rig.start_broker("--principal", "polly", "--secret-file", str(right))
    assert rig.running()[0]["id"] == first["id"]
    ends_clean(rig)


def test_a_master_that_zookeeper_knows(make_rig: MakeRig, zookeeper: ZooKeeper) -> None:
    """The broker finds the leader, keeps it while ZooKeeper is away, and finds it again after its own death."""
    rig = make_rig(1)
    address = zookeeper.announce(rig.cluster.master.address)
    rig.start_broker(master=address)
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    zookeeper.kill()
    rig.scale("/counter", 2)
    rig.running(number=2)
    rig.kill_broker()
    rig.start_broker(master=address)
    assert rig.http.get("/v1/broker").json()["connected"] is False
    zookeeper.start()
    eventually(lambda: rig.http.get("/v1/broker").json()["connected"], 30, "the broker finds the master")
    assert first["id"] in {task["id"] for task in rig.running(number=2)}
    ends_clean(rig)


def test_resources_reserved_for_a_role(make_rig: MakeRig) -> None:
    reserved = "cpus(shop):4;mem(shop):2048;disk(shop):1024;ports(shop):[31000-31100]"
    rig = make_rig([AgentSpec(resources=reserved), AgentSpec()])
    rig.start_broker("--role", "shop", "--role", "ops")
    rig.run(counter("/own", acceptedResourceRoles=["shop"], instances=2))
    assert {task["host"] for task in rig.running("/own", number=2)} == {"agent1"}
    rig.run(counter("/anyones", acceptedResourceRoles=["*"], instances=2))
    assert {task["host"] for task in rig.running("/anyones", number=2)} == {"agent2"}
    rig.run(counter("/ops/db", role="ops"))
    assert rig.running("/ops/db")[0]["host"] == "agent2"
    rig.run(counter("/ops/other", role="ops", constraints=[["hostname", "IS", "agent1"]]))
    eventually(lambda: rig.http.get("/v1/apps/ops/other/explanation").json()["waiting"][0]["refusals"], what="it waits, and why is told")
    assert not rig.tasks("/ops/other")
    answer = rig.http.post("/v2/apps", json=counter("/stranger", role="nobody"))
    assert answer.status_code == 422, answer.text
    assert "this broker has the roles shop, ops" in answer.json()["message"]
    rig.settle()
    ends_clean(rig, "/own", "/anyones", "/ops/db", "/ops/other")


def test_a_ledger_in_postgresql(make_rig: MakeRig, postgresql_url: str) -> None:
    """The main path with two kills: the machine's, and the broker's."""
    rig = make_rig(2, database=postgresql_url)
    rig.start_broker()
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    rig.kill_broker()
    os.kill(rig.executor_pid(first["id"]), signal.SIGKILL)
    rig.start_broker()
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    rig.cluster.kill_machine(int(second["host"].removeprefix("agent")) - 1)
    third = rig.running(but=[first["id"], second["id"]])[0]
    assert rig.count(third["id"]) == 3
    assert third["host"] != second["host"]
    ends_clean(rig)
