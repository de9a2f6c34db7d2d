"""An account of EC2's for tests on a real Mesos, with an instance for each agent, and what is counted there beside the ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from storage.node.identities import ec2 as metadata
from tests.cluster.ebs_disks import Disks
from tests.cluster.mesos_cluster import AgentSpec
from tests.cluster.rig import Rig
from tests.peers import ec2
from tests.peers.imds import Metadata, serving
from tests.support import eventually

REGION, ZONE = "us-east-1", "us-east-1a"
KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
CREDENTIALS = "AWS_SHARED_CREDENTIALS_FILE"


class Cloud:
    """agent1 is the first instance, agent2 the second."""

    def __init__(self, disks: Disks, services: Sequence[Metadata], addresses: Sequence[str], credentials: Path) -> None:
        self.disks, self.services, self.addresses, self.credentials = disks, services, addresses, credentials

    def agents(self, *, credentials: bool) -> list[AgentSpec]:
        return [self._agent(address, {CREDENTIALS: str(self.credentials)} if credentials else {}) for address in self.addresses]

    def _agent(self, address: str, more: Mapping[str, str]) -> AgentSpec:
        """Its executors have nothing of this process' environment but the way to programs."""
        environment = {"PATH": os.environ["PATH"], metadata.VARIABLE: address, **more}
        return AgentSpec(region=REGION, zone=ZONE, flags={"executor_environment_variables": json.dumps(environment)})

    def platform(self, attach_by: str) -> dict[str, Any]:
        """Its block in polly.toml, over the rig's own."""
        block = {"kind": "ebs", "region": REGION, "zones": [ZONE], "endpoint_url": self.disks.url, "attach_by": attach_by}
        return {**block, "reads_per_s": 100, "writes_per_s": 100, "root": None, "format": None}

    def instance_of(self, task: Mapping[str, Any]) -> str:
        return self.services[int(task["host"].removeprefix("agent")) - 1].name

    # --- the counts -----------------------------------------------------------------------------

    def is_on(self, task: Mapping[str, Any]) -> str:
        """The one volume, which the task's instance alone has."""
        ((volume, holders),) = self.disks.volumes().items()
        assert holders == (self.instance_of(task),)
        assert self.disks.link(volume).is_symlink()
        return volume

    def bad_counts(self, rig: Rig) -> dict[str, int]:
        """What the ledger, this machine and EC2 have of what must not be; empty when nothing is held twice, lost or leaked."""
        had = self.disks.volumes()
        with rig.ledger() as ledger:
            claimed = {claim.volume_id for claim in ledger.claims(limit=10_000).items}
        known = {str(volume.external_id): volume.volume_id for volume in rig.volumes() if volume.external_id}
        counts = {
            "attached twice at EC2": sum(len(holders) > 1 for holders in had.values()),
            "attached at EC2 without a claim": sum(1 for volume, holders in had.items() if holders and known.get(volume) not in claimed),
            "lost at EC2": len(known.keys() - had.keys()),
            "at EC2 without being known": len(had.keys() - known.keys()),
            "taken away while mounted": len(self.disks.pulled),
            "unlike Amazon's answers": len(self.disks.problems),
        }
        return {name: number for name, number in {**rig.bad_counts(), **counts}.items() if number}

    def settle(self, rig: Rig, timeout_s: float = 60.0) -> None:
        """Waits until every count is zero; the message says which is not."""
        try:
            eventually(lambda: not self.bad_counts(rig), timeout_s, "all counts are zero, at EC2 too")
        except TimeoutError as error:
            raise AssertionError(f"{self.bad_counts(rig)} {self.disks.pulled}\n{rig.log.read_text()[-4000:]}") from error

    def nothing_left(self, rig: Rig) -> None:
        self.settle(rig)
        rig.nothing_left()
        assert self.disks.volumes() == {}

    def ends_clean(self, rig: Rig, app_id: str = "/counter") -> None:
        rig.delete(app_id)
        rig.gone(app_id)
        self.nothing_left(rig)


def freed(rig: Rig) -> list[str]:
    """By which proofs claims have ended, with what was seen where that is the platform's word."""
    with rig.ledger() as ledger:
        said = [event.why for event in ledger.events(limit=1000).items if event.what == "claim.freed"]
    return [why.partition("; ")[0] if why.startswith("NODE_STOPPED") else why.partition(":")[0] for why in said]


@contextmanager
def running_cloud(credentials: Path, images: Path, *, machines: int = 2) -> Iterator[Cloud]:
    """The broker is to find its credentials by the variable CREDENTIALS; disks are files in `images`, where the rig counts."""
    credentials.write_text(f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    credentials.chmod(0o600)
    images.mkdir(parents=True)
    with ExitStack() as stack:
        disks = Disks(ec2.emptied(), images)
        stack.callback(disks.stop)
        disks.faults.keys = frozenset({KEY_ID})
        services = [Metadata(name) for name in disks.machines(machines, zone=ZONE)]
        addresses = [stack.enter_context(serving(service)) for service in services]
        yield Cloud(disks, services, addresses, credentials)
