"""What happens to volumes on EBS besides coming and going, on a real Mesos: copies of a volume in use, growth, a region that does not
answer, a ledger from a backup."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.cluster.ebs_cloud import Cloud, freed
from tests.cluster.rig import COUNT, Rig, counter
from tests.cluster.test_restored_ledger import used_since_the_backup
from tests.cluster.test_volume_forms import csi, delete, named, order, persistent, said, starts, with_volumes
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.peer]

MakeEbs = Callable[..., Rig]
SIZED = COUNT.replace("start $n", "start $n of $(findmnt -bno SIZE data)")
GIB = 1 << 30


def kill(rig: Rig, task: Mapping[str, Any]) -> None:
    os.kill(rig.executor_pid(task["id"]), signal.SIGKILL)


def test_copies_of_a_volume_in_use_and_its_growth(cloud: Cloud, make_ebs: MakeEbs) -> None:
    """Whatever is made of a volume goes its own way; what is kept of a deleted app can be had again."""
    rig = make_ebs("broker", settings={"profiles.archived": {"platforms": ["disks"], "reclaim": "snapshot-then-delete"}})
    rig.start_broker()
    assert starts(rig, with_volumes("/master", [persistent("data", "archived", 1024)], cmd=SIZED)) == 1
    master = named(rig, "/master#0/data")
    snapshot = order(rig, f"volumes/{master.volume_id}/snapshots", {"name": "first"})["snapshot_id"]
    order(rig, "volumes", {"name": "copy", "profile": "fast", "snapshot": snapshot})
    order(rig, "volumes", {"name": "twin", "profile": "fast", "source": master.volume_id})
    assert starts(rig, with_volumes("/copy", [csi("copy", "fast")])) == 2
    assert starts(rig, with_volumes("/twin", [csi("twin", "fast")])) == 2
    assert len({named(rig, name).birth for name in ("/master#0/data", "copy", "twin")}) == 3

    order(rig, f"volumes/{master.volume_id}/size", {"size_mib": 2048}, 200)
    (before,) = rig.running("/master")
    kill(rig, before)
    (after,) = rig.running("/master", but=[before["id"]])
    assert rig.count(after["id"]) == 2, "neither copy has written to it"
    assert int(said(rig, after["id"]).split()[-1]) > 1.8 * GIB
    delete(rig, "/master")
    eventually(lambda: master.volume_id not in {volume.volume_id for volume in rig.volumes()}, 30, "it is deleted after its snapshot")
    with rig.ledger() as ledger:
        last = next(one for one in ledger.snapshots().items if one.name.startswith("before /master was deleted"))
    assert (last.state, last.size_mib) == ("READY", 2048)
    order(rig, "volumes", {"name": "back", "profile": "fast", "snapshot": last.snapshot_id})
    assert starts(rig, with_volumes("/back", [csi("back", "fast")])) == 3

    delete(rig, "/copy", "/twin", "/back")
    cloud.settle(rig)
    for path in ("volumes/copy", "volumes/twin", "volumes/back", f"snapshots/{snapshot}", f"snapshots/{last.snapshot_id}"):
        assert rig.http.delete(f"/v1/{path}").status_code == 204
    cloud.nothing_left(rig)


@pytest.mark.parametrize("attach_by", ["executor", "broker"])
def test_a_region_that_does_not_answer_for_a_while(cloud: Cloud, make_ebs: MakeEbs, attach_by: str) -> None:
    """What runs goes on. What dies meanwhile, and what is new, waits, and goes on once EC2 answers, with its data."""
    rig = make_ebs(attach_by)
    rig.start_broker()
    rig.run(counter("/steady"))
    rig.run(counter("/struck"))
    (steady,), (struck,) = rig.running("/steady"), rig.running("/struck")
    assert [rig.count(task["id"]) for task in (steady, struck)] == [1, 1]
    cloud.settle(rig)

    cloud.disks.silent = True
    kill(rig, struck)
    rig.run(counter("/new"))
    eventually(lambda: "RELEASING" in [str(claim.state) for claim in rig.claims()], 20, "the dead task's volume is to be detached")
    eventually(
        lambda: len([claim for claim in rig.claims() if claim.state in ("RESERVED", "ATTACHING")]) == 1, 20, "the new app has a claim"
    )
    assert freed(rig) == []
    assert [task["id"] for task in rig.tasks("/steady")] == [steady["id"]]

    cloud.disks.silent = False
    (again,) = rig.running("/struck", but=[struck["id"]], timeout_s=120)
    assert rig.count(again["id"]) == 2
    assert rig.count(rig.running("/new", timeout_s=120)[0]["id"]) == 1
    assert [task["id"] for task in rig.tasks("/steady")] == [steady["id"]]
    assert rig.count(steady["id"]) == 1
    cloud.settle(rig)
    delete(rig, "/steady", "/struck", "/new")
    cloud.nothing_left(rig)


def test_a_ledger_from_a_backup_learns_what_ec2_has(cloud: Cloud, make_ebs: MakeEbs) -> None:
    rig = make_ebs("broker", settings={"profiles.fast": {"reclaim": "retain"}})
    used_since_the_backup(rig, counter())
    ((volume, holders),) = cloud.disks.volumes().items()
    assert holders == ()
    rig.start_broker("--restored")
    (task,) = rig.running()
    assert rig.count(task["id"]) == 3
    assert cloud.is_on(task) == volume
    cloud.settle(rig)
    assert len(cloud.disks.made) == 1
