"""Some tens of instances with volumes on EBS come and go for a minute under random kills, by each way to attach; one of EC2's instances is
stopped for good half way. POLLY_SOAK_SEED replays a run, POLLY_EBS_SOAK_S and POLLY_EBS_SOAK_INSTANCES make it longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.cluster.ebs_cloud import Cloud
from tests.cluster.rig import Rig
from tests.cluster.soak import HEAL_S, Soak, make_plan

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.peer, pytest.mark.xdist_group("ebs-soak")]  # two at once starve each other

AGENTS = 3
SECONDS = float(os.environ.get("POLLY_EBS_SOAK_S", "60"))
SEED = int(os.environ.get("POLLY_SOAK_SEED", "1"))
INSTANCES = int(os.environ.get("POLLY_EBS_SOAK_INSTANCES", "30"))


@dataclass(slots=True)
class EbsSoak(Soak):
    cloud: Cloud = field(kw_only=True)

    def lose_machine(self, number: int) -> None:
        """Only by EC2's word that it is stopped are its volumes free."""
        self.agents[number].kill_machine()
        self.cloud.disks.do("StopInstances", **{"InstanceId.1": self.cloud.services[number].name})

    def settle(self) -> None:
        self.cloud.settle(self.rig, HEAL_S)

    def is_where_it_runs(self) -> None:
        """Each instance's volume is attached to the instance of EC2's on which it runs, and to no other."""
        tasks = {task["id"]: task for app_id in self.wanted for task in self.rig.tasks(app_id)}
        volumes = {volume.volume_id: str(volume.external_id) for volume in self.rig.volumes()}
        wanted = {volumes[it.volume_id]: (self.cloud.instance_of(tasks[it.holder.placement]),) for it in self.rig.claims()}
        assert {volume: holders for volume, holders in self.cloud.disks.volumes().items() if holders} == wanted


@pytest.mark.parametrize("cloud", [AGENTS], indirect=True)
@pytest.mark.parametrize("attach_by", ["executor", "broker"])
def test_instances_come_and_go_under_random_kills(cloud: Cloud, make_ebs: Callable[..., Rig], attach_by: str) -> None:
    plan = make_plan(SEED, seconds=SECONDS, instances=INSTANCES, agents=AGENTS)
    print(f"POLLY_SOAK_SEED={SEED} POLLY_EBS_SOAK_S={SECONDS:g} POLLY_EBS_SOAK_INSTANCES={INSTANCES}", *plan, sep="\n")
    resources = "cpus:32;mem:32768;disk:20480;ports:[31000-32000]"
    claims = {"lease_s": 12.0, "fence_retry_s": 0.5}
    rig = make_ebs(attach_by, settings={"claims": claims}, registry="replicated_log", resources=resources)
    soak = EbsSoak(rig, plan, cloud=cloud)
    soak.run()
    soak.all_is_well()
    soak.is_where_it_runs()
    soak.end()
    assert cloud.disks.volumes() == {}
