"""An app whose profile names a real Cinder, on a real Mesos: from the app's JSON to a mounted filesystem, and on to the next machine.

Each agent is a machine of its own, to Cinder too: it has its own host name, and its own /run, where the share is mounted already as an
operator may have mounted it, because this kernel need not have an NFS client.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from storage.lifecycle import ClaimState
from storage.node.transports import nfs_file
from tests.cluster.mesos_cluster import Agent, AgentSpec, MesosCluster
from tests.cluster.rig import Rig, counter
from tests.contract.cinder_cloud import POOL, Cloud
from tests.peers._openstack_files import SHARE
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.cluster, pytest.mark.root, pytest.mark.xdist_group("cinder")]

MACHINE = """\
echo "$1" > /proc/sys/kernel/hostname
mount -t tmpfs none /run
mkdir -p "$3"
mount --bind "$2" "$3"
if [ "$4" ]; then mount --bind /dev/null "$4"; fi
shift 4
exec "$@"
"""
"""Its name, the share and where that is looked for, a file that is kept from it; and what runs there."""
HOLDERS = """\
SELECT volumes.id, coalesce(attached_host, volume_attachment.attach_status) FROM volumes
LEFT JOIN volume_attachment ON volume_id = volumes.id AND NOT volume_attachment.deleted
WHERE NOT volumes.deleted AND coalesce(display_name, '') NOT LIKE 'disk of %'"""
PROMPT = {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 3600}


def app() -> dict[str, Any]:
    volume = {"containerPath": "data", "mode": "RW", "persistent": {"size": 1024, "type": "mount", "profileName": "cinder"}}
    return counter("/db", container={"type": "MESOS", "volumes": [volume]}, unreachableStrategy=PROMPT)


def machine(name: str, cloud: Cloud, kept_from_it: str) -> AgentSpec:
    words = [name, str(cloud.openstack.files.share), str(nfs_file.place(SHARE)), kept_from_it]
    return AgentSpec(machine=["unshare", "--mount", "--uts", "--", "sh", "-ec", MACHINE, "machine", *words])


@pytest.fixture(params=["executor", "broker"])
def rig(request: pytest.FixtureRequest, cinder: Cloud, mesos: Callable[..., MesosCluster], tmp_path: Path) -> Iterator[Rig]:
    """Where the broker attaches, the machines cannot read the credentials."""
    cinder.forget()
    clouds = shutil.copy(cinder.openstack.files.clouds, tmp_path / "clouds.yaml")
    kept = str(clouds) if request.param == "broker" else ""
    cloud = {"kind": "cinder", "cloud": "polly", "clouds_file": str(clouds), "attach": "bare-metal", "attach_by": request.param}
    settings = {
        "executor": {"command": [sys.executable, "-m", "executors.main"], "environment": {"PYTHONPATH": os.getcwd()}},
        "claims": {"lease_s": 60.0, "fence_retry_s": 0.5},
        "platforms.cloud": cloud,
        "profiles.cinder": {"platforms": ["cloud"], "pools": [POOL], "filesystem": "ext4", "reclaim": "delete"},
    }
    made = Rig(mesos([machine(f"agent{number}", cinder, kept) for number in (1, 2)]), tmp_path / "polly", settings=settings)
    yield made
    made.stop()
    for volume in holders(cinder):
        unplug(volume)


def holders(cloud: Cloud) -> dict[str, list[str]]:
    """Of all volumes in Cinder's own books; a reservation counts as a holder."""
    found: dict[str, list[str]] = {}
    with cloud.database() as database:
        for volume, holder in database.execute(HOLDERS):
            found.setdefault(volume, []).extend([holder] if holder else [])
    return found


def devices(volume: str) -> list[str]:
    """Other tests' devices come and go meanwhile."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found += [f"/dev/{path.parts[3]}"] if volume in path.read_text() else []
    return found


def unplug(volume: str) -> None:
    """What still has it mounted keeps it until then."""
    for device in devices(volume):
        subprocess.run(["losetup", "--detach", device], check=True)


def lose(agent: Agent, volume: str) -> None:
    """The machine dies with all that is on it; its device goes with its kernel, which here is ours."""
    agent.kill_machine()
    unplug(volume)
    eventually(lambda: not devices(volume), 10, "the dead machine's device is gone")


def started(rig: Rig, *, but: str = "", times: int) -> Mapping[str, Any]:
    (task,) = rig.running("/db", but=[but])
    assert rig.count(task["id"]) == times
    return task


def test_an_app_outlives_its_machine_with_its_data(rig: Rig, cinder: Cloud) -> None:
    rig.start_broker()
    rig.run(app())
    first = started(rig, times=1)
    ((volume, held_by),) = holders(cinder).items()
    assert held_by == [first["host"]]
    assert len(devices(volume)) == 1
    rig.settle()

    lose(rig.agent_of(first), volume)
    eventually(
        lambda: "something still holds it" in rig.claims()[0].reason, 30, "Cinder shows its attachment, so nobody else gets the volume"
    )
    assert [claim.state for claim in rig.claims()] == [ClaimState.STRANDED]
    assert holders(cinder) == {volume: [first["host"]]}

    rig.cluster.mark_gone(first["slaveId"])
    second = started(rig, but=first["id"], times=2)
    assert second["host"] != first["host"]
    assert holders(cinder) == {volume: [second["host"]]}
    with rig.ledger() as ledger:
        (freed,) = [event.why for event in ledger.events(limit=1000).items if event.what == "claim.freed"]
    assert freed.startswith("TASK_GONE_BY_OPERATOR: ")
    assert f"Cinder shows volume {volume} as available without an attachment, epoch raised to 2" in freed
    rig.settle()

    rig.delete("/db")
    rig.gone("/db")
    rig.settle()
    rig.nothing_left()
    assert (holders(cinder), devices(volume)) == ({}, [])
