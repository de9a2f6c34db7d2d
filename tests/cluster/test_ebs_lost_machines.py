"""A machine on EC2 is lost and does not come back: its volume goes to another only by what EC2 says, or by an operator's word. A lease
frees nothing that was ever born; it only says when nobody can make any more what was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.inventory import Orphan
from storage.model import Claim
from tests.cluster.ebs_cloud import Cloud, freed
from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.peer]

MakeEbs = Callable[..., Rig]
PROMPT = {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}
LEASE_S = 15.0
ROUNDS = 4
"""How often EC2 is asked in vain before a test believes that nothing comes of it."""


def lose(cloud: Cloud, rig: Rig) -> tuple[dict[str, Any], str]:
    """An app counts to one and loses its machine, of which EC2 says that it runs; its task and its instance."""
    rig.start_broker()
    rig.run(counter(unreachableStrategy=PROMPT))
    task = rig.running()[0]
    assert rig.count(task["id"]) == 1
    cloud.is_on(task)
    rig.agent_of(task).kill_machine()
    instance = cloud.instance_of(task)
    refusal = f"platform disks says that something still holds it, and not that {instance} is stopped"
    eventually(lambda: rig.claims()[0].reason == refusal, 30, "EC2 says that the instance runs")
    return task, instance


def stranded(rig: Rig) -> Claim:
    (claim,) = rig.claims()
    assert (str(claim.state), claim.epoch) == ("STRANDED", 1)
    return claim


def goes_on(cloud: Cloud, rig: Rig, lost: dict[str, Any], proof: str) -> None:
    """The count goes on elsewhere, on the same volume, and in the end nothing is left."""
    task = rig.running(but=[lost["id"]])[0]
    assert task["host"] != lost["host"]
    assert rig.count(task["id"]) == 2
    cloud.is_on(task)
    assert freed(rig) == [proof]
    assert [claim.epoch for claim in rig.claims()] == [2]
    cloud.settle(rig)
    cloud.ends_clean(rig)
    assert len(cloud.disks.made) == 1


def orphans(rig: Rig) -> Sequence[Orphan]:
    with rig.ledger() as ledger:
        return ledger.orphans()


def explained(rig: Rig) -> str:
    command = [sys.executable, "-c", "from framework.cli import main; main()", "explain", "/counter"]
    asked = [*command, "--broker", f"http://127.0.0.1:{rig.port}"]
    return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout


def test_an_instance_that_is_terminated_is_a_proof(cloud: Cloud, make_ebs: MakeEbs) -> None:
    rig = make_ebs("broker")
    task, instance = lose(cloud, rig)
    cloud.disks.terminate(instance)
    goes_on(cloud, rig, task, f"NODE_STOPPED: EC2 says that instance {instance} is terminated")


def test_a_volume_that_somebody_has_detached_is_fenced(cloud: Cloud, make_ebs: MakeEbs) -> None:
    """The instance runs on, for all that EC2 knows: nothing holds the volume, and nobody of an older epoch can attach it again."""
    rig = make_ebs("executor")
    task, instance = lose(cloud, rig)
    cloud.disks.do("DetachVolume", VolumeId=cloud.is_on(task), InstanceId=instance)
    goes_on(cloud, rig, task, "FENCED")


@pytest.mark.parametrize(("attach_by", "word"), [("executor", "gone"), ("broker", "release")])
def test_without_a_proof_nobody_gets_the_volume_before_an_operator_says_so(
    cloud: Cloud, make_ebs: MakeEbs, attach_by: str, word: str
) -> None:
    """Neither when the lease is over nor however often EC2 is asked."""
    rig = make_ebs(attach_by, settings={"claims": {"lease_s": LEASE_S, "fence_retry_s": 0.3}})
    task, instance = lose(cloud, rig)
    claim = stranded(rig)
    eventually(lambda: time.time() > claim.lease_until, LEASE_S + 10, "the lease is over")
    asked = cloud.disks.calls["DescribeInstances"]
    eventually(lambda: cloud.disks.calls["DescribeInstances"] >= asked + ROUNDS, 30, "EC2 is asked again and again")
    assert stranded(rig).claim_id == claim.claim_id
    assert (freed(rig), rig.tasks()) == ([], [])
    cloud.is_on(task)
    said = explained(rig)
    assert f"stop or delete {instance} on platform disks" in said
    assert f'"mark_agent_gone": {{"agent_id": {{"value": "{task["slaveId"]}"}}}}' in said
    assert f"polly claim release {claim.claim_id} --because" in said

    if word == "gone":
        rig.cluster.mark_gone(task["slaveId"])
        goes_on(cloud, rig, task, "TASK_GONE_BY_OPERATOR")
    else:
        answer = rig.http.post(f"/v1/claims/{claim.claim_id}/release", json={"because": "the machine burnt down"})
        assert answer.status_code == 204, answer.text
        goes_on(cloud, rig, task, "OPERATOR_OVERRIDE")


def start_stopped(cloud: Cloud, rig: Rig, flag: Path) -> dict[str, Any]:
    """An app whose executor stops itself before it makes its volume; its task."""
    rig.start_broker()
    rig.run(counter(unreachableStrategy=PROMPT))
    eventually(flag.exists, 30, "the executor stops")
    (task,) = eventually(lambda: rig.tasks(state="TASK_STARTING"), 10, "the broker has heard of it")
    assert cloud.disks.volumes() == {}
    return task


def test_what_is_made_after_its_claim_has_ended_goes_with_the_lease(cloud: Cloud, make_ebs: MakeEbs, tmp_path: Path) -> None:
    """An agent is cut off before its task's volume is made. Nothing can be lost with that, so the app begins anew at once. Later the
    executor goes on, which nobody can see, and dies with its machine: two leases after, what it has made and attached is found."""
    lease_s, flag = 20.0, tmp_path / "stopped"
    harm = [sys.executable, "-m", "tests.cluster.dying_executor", "stop", "before:create", str(flag)]
    rig = make_ebs("executor", settings={"executor": {"command": harm}, "claims": {"lease_s": lease_s, "fence_retry_s": 0.3}})
    lost = start_stopped(cloud, rig, flag)
    agent, executor = rig.agent_of(lost), rig.executor_pid(lost["id"])
    for pid in agent.pids:
        os.kill(pid, signal.SIGSTOP)
    task = rig.running(but=[lost["id"]])[0]
    assert task["host"] != lost["host"]
    assert rig.count(task["id"]) == 1
    assert freed(rig) == ["NEVER_BORN"]
    (owed,) = orphans(rig)
    wanted = cloud.is_on(task)

    os.kill(executor, signal.SIGCONT)
    here = (cloud.instance_of(lost),)
    eventually(lambda: here in cloud.disks.volumes().values(), lease_s, "the executor that is cut off makes and attaches its volume")
    assert time.time() < owed.keep_until
    agent.kill_machine()
    eventually(lambda: set(cloud.disks.volumes()) == {wanted}, 3 * lease_s, "what came too late is detached and deleted")
    assert time.time() > owed.keep_until
    assert cloud.is_on(task) == wanted
    cloud.settle(rig)
    cloud.ends_clean(rig)
    assert len(cloud.disks.made) == 2
