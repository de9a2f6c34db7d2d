"""A machine of its own and a real Cinder: from the machine's name to a mounted filesystem, and the data on the next machine."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import NodeError, VolumeInUse
from storage.model import Access, Birth, ClaimId, ExternalId, VolumeId, VolumePlan
from storage.node import devices, identities
from storage.node.journal import Journal
from storage.node.pace import Deadline
from storage.node.releasing import unstage
from storage.node.staged import OnBirth, Staged
from storage.node.staging import stage
from storage.node.steps import Machine
from storage.node.transports import nfs_file
from storage.platforms.base import CreateRequest
from storage.platforms.cinder import CinderPlatform
from storage.platforms.cinder.options import BARE_METAL
from tests.contract.cinder_cloud import NODES, POOL, Cloud
from tests.peers._openstack_files import SHARE
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("cinder")]

numbers = itertools.count()


@pytest.fixture
def bare(cinder: Cloud) -> Iterator[CinderPlatform]:
    platform = cinder.platform(BARE_METAL)
    yield platform
    platform.close()


@pytest.fixture
def share(cinder: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The share is at its place already, as an operator may have mounted it: this kernel need not have an NFS client."""
    monkeypatch.setattr(nfs_file, "ROOT", tmp_path / "shares")
    place = nfs_file.place(SHARE)
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", "--", str(cinder.openstack.files.share), str(place)], check=True)
    yield place
    subprocess.run(["umount", "--", str(place)], check=True)


class Machines:
    """The one machine that is here, as a staging folder of its own and what it calls itself."""

    def __init__(self, folder: Path) -> None:
        self.node = identities.identify("connector", Machine(), hostname="unused")
        self._where: dict[str, Any] = {"staging_dir": folder / "staging", "journal": Journal(folder / "journal", clock=time.time)}

    def stage(self, platform: CinderPlatform, node: str, plan: VolumePlan, *, on_birth: OnBirth = lambda staged: None) -> Staged:
        return stage(plan, platform, node, deadline=Deadline.of(60.0), on_birth=on_birth, **self._where)

    def unstage(self, platform: CinderPlatform, node: str, staged: Staged) -> None:
        unstage(staged.plan, platform, node, external_id=staged.external_id, **self._where)


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


def plan(claim: str, **changes: Any) -> VolumePlan:
    token = f"{claim}-{os.getpid()}-{next(numbers)}"
    fields: dict[str, Any] = {
        "claim_id": ClaimId(token),
        "volume_id": VolumeId("vol-1"),
        "name": "/shop/db#0/data",
        "epoch": 1,
        "access": Access.RW,
        "platform": "cloud",
        "pool": POOL,
        "size_mib": 1024,
        "token": token,
    }
    return VolumePlan(**(fields | changes))


def again(claim: str, before: Staged, epoch: int = 2) -> VolumePlan:
    """A later claim on the same volume."""
    return plan(claim, token=before.plan.token, external_id=before.external_id, birth=before.birth, epoch=epoch)


def loops(volume: str) -> list[str]:
    return [path.parts[3] for path in Path("/sys/block").glob("loop*/loop/backing_file") if volume in path.read_text()]


def test_a_volume_comes_to_a_machine_and_to_the_next_with_its_data(bare: CinderPlatform, machines: Machines, share: Path) -> None:
    births: list[Birth] = []
    first = machines.stage(bare, machines.node, plan("claim-1"), on_birth=lambda staged: births.append(staged.birth))
    volume = first.external_id
    assert loops(volume) == [Path(first.device).name]
    assert bare.inspect(volume).held_by == (machines.node,)
    Path(first.path, "file").write_text("kept")
    machines.unstage(bare, machines.node, first)
    assert (bare.inspect(volume).held_by, bare.inspect(volume).birth, births) == ((), first.birth, [first.birth])

    moved = machines.stage(bare, NODES[1], again("claim-2", first))
    assert Path(moved.path, "file").read_text() == "kept"
    with pytest.raises(VolumeInUse):
        machines.stage(bare, machines.node, again("claim-3", first, epoch=3))
    machines.unstage(bare, NODES[1], moved)
    assert (bare.inspect(volume).held_by, bare.inspect(volume).epoch) == ((), 2)
    eventually(lambda: not loops(volume), 5, "the loop device goes")


def test_what_a_killed_process_has_left_is_released_by_the_next(bare: CinderPlatform, machines: Machines, share: Path) -> None:
    """Its mount went with its namespace; the device stays, as a cloud's disk does."""
    staged = machines.stage(bare, machines.node, plan("claim-1"))
    subprocess.run(["umount", "--", staged.path], check=True)

    machines.unstage(bare, machines.node, staged)

    eventually(lambda: not loops(staged.external_id), 5, "the loop device goes")
    assert bare.inspect(staged.external_id).held_by == ()


def test_a_volume_grows_under_its_device(bare: CinderPlatform, share: Path, tmp_path: Path) -> None:
    machine = Machine()
    volume = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"grown-{tmp_path}")).external_id
    bare.expand(volume, 2048)
    attachment = bare.attach(volume, NODES[0], epoch=1)
    nfs_file.connect(attachment, machine)

    device = devices.find(attachment.serial, roots=machine.roots, pace=machine.pace, timeout_s=5.0)
    assert devices.size_bytes(device) == 2 << 30
    nfs_file.disconnect(attachment, machine)
    bare.detach(volume, NODES[0])


def test_a_volume_with_snapshots_is_refused_by_the_machine_with_the_way_out(bare: CinderPlatform, share: Path, tmp_path: Path) -> None:
    volume = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"layers-{tmp_path}")).external_id
    snapshot = bare.snapshot(volume, token=f"layer-{tmp_path}").external_id
    with pytest.raises(NodeError, match="while there are snapshots"):
        nfs_file.connect(bare.attach(volume, NODES[0], epoch=1), Machine())
    bare.detach(volume, NODES[0])
    bare.delete_snapshot(snapshot)

    attachment = bare.attach(ExternalId(volume), NODES[0], epoch=2)
    nfs_file.connect(attachment, Machine())
    assert loops(volume)
    nfs_file.disconnect(attachment, Machine())
    bare.detach(volume, NODES[0])
