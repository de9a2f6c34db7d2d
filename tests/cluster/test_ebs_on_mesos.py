"""EBS end to end on a real Mesos: two agents that are instances of a moto behind EC2's rules. Each asks a metadata service of its own
who it is, and disks are loop devices under links like udev's. One volume, one attachment, and nothing left in the end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from storage.node.identities import ec2
from tests.cluster.ebs_disks import Disks
from tests.cluster.mesos_cluster import Agent, AgentSpec
from tests.cluster.rig import Rig, counter
from tests.peers.imds import Metadata, serving
from tests.peers.moto import Moto
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.peer]

REGION, ZONE = "us-east-1", "us-east-1a"
KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
CREDENTIALS = "AWS_SHARED_CREDENTIALS_FILE"
PROMPT = {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}


class Cloud:
    """The account, and an instance for each of two agents."""

    def __init__(self, disks: Disks, services: tuple[Metadata, ...], addresses: tuple[str, ...], credentials: Path) -> None:
        self.disks, self.services, self.addresses, self.credentials = disks, services, addresses, credentials

    def agents(self, *, credentials: bool) -> list[AgentSpec]:
        return [self._agent(address, {CREDENTIALS: str(self.credentials)} if credentials else {}) for address in self.addresses]

    def _agent(self, address: str, more: dict[str, str]) -> AgentSpec:
        """Its executors have nothing of this process' environment but the way to programs."""
        environment = {"PATH": os.environ["PATH"], ec2.VARIABLE: address, **more}
        return AgentSpec(region=REGION, zone=ZONE, flags={"executor_environment_variables": json.dumps(environment)})

    def instance_of(self, task: dict[str, Any]) -> str:
        """agent1 is the first instance, agent2 the second."""
        return self.services[int(task["host"].removeprefix("agent")) - 1].name


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    credentials.chmod(0o600)
    monkeypatch.setenv(CREDENTIALS, str(credentials))  # the broker's
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    images = tmp_path / "polly" / "images"
    images.mkdir(parents=True)
    with ExitStack() as stack:
        moto = Moto()
        stack.callback(moto.stop)
        moto.wait()
        disks = Disks(moto.port, images)
        stack.callback(disks.stop)
        disks.faults.keys = frozenset({KEY_ID})
        services = tuple(Metadata(name) for name in disks.machines(2, zone=ZONE))
        addresses = tuple(stack.enter_context(serving(service)) for service in services)
        yield Cloud(disks, services, addresses, credentials)


@pytest.fixture(params=["executor", "broker"])
def rig(request: pytest.FixtureRequest, cloud: Cloud, make_rig: Callable[..., Rig]) -> Rig:
    """Where the broker attaches, agents have no credentials."""
    block = {"kind": "ebs", "region": REGION, "zones": [ZONE], "endpoint_url": cloud.disks.url, "attach_by": request.param}
    rates = {"reads_per_s": 100, "writes_per_s": 100}
    agents = cloud.agents(credentials=request.param == "executor")
    settings = {"platforms.disks": {**block, **rates, "root": None, "format": None}}
    return make_rig(agents, settings=settings, region=REGION, zone=ZONE)


def agent_of(rig: Rig, task: dict[str, Any]) -> Agent:
    return next(agent for agent in rig.cluster.agents if agent.flags["hostname"] == task["host"])


def is_on(cloud: Cloud, task: dict[str, Any]) -> str:
    """The one volume, which the task's instance alone has."""
    ((volume, holders),) = cloud.disks.volumes().items()
    assert holders == (cloud.instance_of(task),)
    assert cloud.disks.link(volume).is_symlink()
    return volume


def freed(rig: Rig) -> list[str]:
    """By which proofs claims have ended, with what was seen where that is the platform's word."""
    with rig.ledger() as ledger:
        said = [event.why for event in ledger.events(limit=1000).items if event.what == "claim.freed"]
    return [why.partition("; ")[0] if why.startswith("NODE_STOPPED") else why.partition(":")[0] for why in said]


def test_an_app_keeps_its_data_when_its_task_and_then_its_machine_is_killed(cloud: Cloud, rig: Rig) -> None:
    rig.start_broker()
    rig.run(counter(unreachableStrategy=PROMPT))
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    volume = is_on(cloud, first)

    os.kill(rig.executor_pid(first["id"]), signal.SIGKILL)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert is_on(cloud, second) == volume

    agent_of(rig, second).kill_machine()
    eventually(lambda: [str(claim.state) for claim in rig.claims()] == ["STRANDED"], 20, "the claim is stranded")
    assert is_on(cloud, second) == volume
    stopped = cloud.instance_of(second)
    cloud.disks.do("StopInstances", **{"InstanceId.1": stopped})
    third = rig.running(but=[first["id"], second["id"]])[0]
    assert third["host"] != second["host"]
    assert rig.count(third["id"]) == 3
    assert is_on(cloud, third) == volume
    assert freed(rig) == ["TERMINAL_STATUS", f"NODE_STOPPED: EC2 says that instance {stopped} is stopped"]

    knows_its_nodes(cloud, rig)
    rig.settle()
    ends_clean(cloud, rig)


def knows_its_nodes(cloud: Cloud, rig: Rig) -> None:
    """By what they said themselves, and with the places that EC2 counts: 27 of an m5.large, less its root volume and its interface."""
    with rig.ledger() as ledger:
        known = {node.hostname: (node.identities, node.slots) for node in ledger.nodes()}
    assert known == {f"agent{number}": ({"disks": service.name}, {"disks": 25}) for number, service in enumerate(cloud.services, 1)}
    assert all(service.calls[0] == "PUT /latest/api/token" for service in cloud.services)


def ends_clean(cloud: Cloud, rig: Rig) -> None:
    rig.delete("/counter")
    rig.gone()
    rig.settle()
    rig.nothing_left()
    assert cloud.disks.volumes() == {}
    assert cloud.disks.pulled == []
    assert cloud.disks.problems == []
    tells_no_secret(rig)


def tells_no_secret(rig: Rig) -> None:
    """Neither the ledger, nor the log, nor what agents have stored of tasks."""
    read = [path for path in rig.cluster.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    read += [rig.log, *rig.folder.glob("polly.db*")]
    assert [path for path in read if any(word.encode() in path.read_bytes() for word in (SECRET, KEY_ID))] == []
