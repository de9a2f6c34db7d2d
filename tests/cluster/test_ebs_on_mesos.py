"""EBS end to end on a real Mesos: two agents that are instances of a moto behind EC2's rules. Each asks a metadata service of its own
who it is, and disks are loop devices under links like udev's. One volume, one attachment, and nothing left in the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.cluster.ebs_cloud import KEY_ID, SECRET, Cloud, freed
from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.peer]

PROMPT = {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}


@pytest.fixture(params=["executor", "broker"])
def rig(request: pytest.FixtureRequest, make_ebs: Callable[..., Rig]) -> Rig:
    return make_ebs(request.param)


def test_an_app_keeps_its_data_when_its_task_and_then_its_machine_is_killed(cloud: Cloud, rig: Rig) -> None:
    rig.start_broker()
    rig.run(counter(unreachableStrategy=PROMPT))
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    volume = cloud.is_on(first)

    os.kill(rig.executor_pid(first["id"]), signal.SIGKILL)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert cloud.is_on(second) == volume

    rig.agent_of(second).kill_machine()
    eventually(lambda: [str(claim.state) for claim in rig.claims()] == ["STRANDED"], 20, "the claim is stranded")
    assert cloud.is_on(second) == volume
    stopped = cloud.instance_of(second)
    cloud.disks.do("StopInstances", **{"InstanceId.1": stopped})
    third = rig.running(but=[first["id"], second["id"]])[0]
    assert third["host"] != second["host"]
    assert rig.count(third["id"]) == 3
    assert cloud.is_on(third) == volume
    assert freed(rig) == ["TERMINAL_STATUS", f"NODE_STOPPED: EC2 says that instance {stopped} is stopped"]

    knows_its_nodes(cloud, rig)
    cloud.settle(rig)
    cloud.ends_clean(rig)
    tells_no_secret(rig)


def knows_its_nodes(cloud: Cloud, rig: Rig) -> None:
    """By what they said themselves, and with the places that EC2 counts: 27 of an m5.large, less its root volume and its interface."""
    with rig.ledger() as ledger:
        known = {node.hostname: (node.identities, node.slots) for node in ledger.nodes()}
    assert known == {f"agent{number}": ({"disks": service.name}, {"disks": 25}) for number, service in enumerate(cloud.services, 1)}
    assert all(service.calls[0] == "PUT /latest/api/token" for service in cloud.services)


def tells_no_secret(rig: Rig) -> None:
    """Neither the ledger, nor the log, nor what agents have stored of tasks."""
    read = [path for path in rig.cluster.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    read += [rig.log, *rig.folder.glob("polly.db*")]
    assert [path for path in read if any(word.encode() in path.read_bytes() for word in (SECRET, KEY_ID))] == []
