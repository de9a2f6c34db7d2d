"""PowerScale down to the mount: the adapter on the simulated cluster outside, whose exports Ganesha serves and the guest mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from storage.errors import NodeError, VolumeInUse
from storage.model import Access, AccessMode, ExternalId, VolumePlan
from storage.node.staged import Staged
from storage.platforms.base import Platform
from storage.platforms.registry import build
from tests.conftest import leave_out
from tests.guest import inside
from tests.guest.exports import OPTIONS, SERVER, relayed
from tests.nodes import plan
from tests.peers.guest import Guest
from tests.peers.powerscale_nas import BASE, Nas, nas
from tests.servers import Missing

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("guest")]

ELSEWHERE = "10.20.0.2"


@pytest.fixture(scope="module")
def cluster(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nas]:
    if os.geteuid() != 0:
        leave_out("needs root, as nfs-ganesha does")
    try:
        with nas(tmp_path_factory.mktemp("powerscale"), addresses={inside.NODE: SERVER}) as cluster:
            relay = relayed(guest, cluster.port)
            yield cluster
            relay.kill()
    except Missing as missing:
        leave_out(f"needs {missing}")


@pytest.fixture
def platform(guest: Guest, cluster: Nas) -> Iterator[Platform]:
    platform = build("nas", "powerscale", cluster.settings())
    yield platform
    platform.close()
    left = guest.call(inside.left)
    guest.call(inside.clean_up)
    assert left == []


def wanted(label: str, **more: Any) -> VolumePlan:
    where = {"platform": "nas", "pool": "System", "size_mib": 8, "mount_options": OPTIONS, "volume_id": f"vol-{label}"}
    return plan(label, **{**where, **more})


def later(staged: Staged, number: int, **more: Any) -> VolumePlan:
    """The next claim on the volume."""
    known = {"token": staged.plan.token, "external_id": staged.external_id, "birth": staged.birth, "epoch": staged.plan.epoch + number}
    return wanted(f"{staged.plan.claim_id}-{number}", **{**known, "volume_id": staged.plan.volume_id, **more})


def stage(guest: Guest, platform: Platform, claim: VolumePlan) -> Staged:
    staged: Staged = guest.call(inside.stage, claim, platform.capabilities, answering=platform)
    return staged


def unstage(guest: Guest, platform: Platform, claim: VolumePlan) -> None:
    guest.call(inside.unstage, claim, platform.capabilities, answering=platform)


def test_a_volume_is_one_nodes_and_comes_again_with_its_data(guest: Guest, platform: Platform) -> None:
    first = stage(guest, platform, wanted("again"))
    mount = guest.call(inside.mount_at, first.path)
    assert (mount.filesystem, mount.source) == ("nfs4", f"{SERVER}:{BASE}/{first.external_id}")
    guest.call(inside.write, f"{first.path}/file", "kept", sync=True)
    assert platform.inspect(first.external_id).birth == first.birth
    with pytest.raises(VolumeInUse):
        platform.attach(first.external_id, ELSEWHERE, epoch=first.plan.epoch + 1)
    unstage(guest, platform, first.plan)
    assert platform.inspect(first.external_id).held_by == ()

    platform.attach(first.external_id, ELSEWHERE, epoch=first.plan.epoch + 1)
    with pytest.raises(VolumeInUse):
        stage(guest, platform, later(first, 2))
    platform.detach(first.external_id, ELSEWHERE)

    second = stage(guest, platform, later(first, 3))
    assert guest.call(inside.read, f"{second.path}/file") == "kept"
    unstage(guest, platform, second.plan)


def test_a_reader_cannot_write(guest: Guest, platform: Platform) -> None:
    first = stage(guest, platform, wanted("read"))
    guest.call(inside.write, f"{first.path}/file", "kept", sync=True)
    unstage(guest, platform, first.plan)
    reader = stage(guest, platform, later(first, 1, access=Access.RO, access_mode=AccessMode.SINGLE_NODE_READER_ONLY))
    assert guest.call(inside.read, f"{reader.path}/file") == "kept"
    with pytest.raises(OSError, match="Read-only file system"):
        guest.call(inside.write, f"{reader.path}/other", "not to be")
    unstage(guest, platform, reader.plan)


def test_a_node_that_was_detached_behind_its_back_writes_nothing_any_more(guest: Guest, cluster: Nas, platform: Platform) -> None:
    first = stage(guest, platform, wanted("fenced"))
    guest.call(inside.write, f"{first.path}/file", "kept", sync=True)
    platform.detach(first.external_id, inside.NODE)
    assert platform.fence(first.external_id, first.plan.epoch + 1)

    with pytest.raises((OSError, NodeError)):
        guest.call(inside.write, f"{first.path}/late", "not to be", sync=True)
    assert sorted(one.name for one in cluster.front.cluster.ifs.real(f"{BASE}/{first.external_id}").iterdir()) == [".polly-volume", "file"]
    guest.call(inside.unstage, first.plan, platform.capabilities, answering=platform, force=True)


def test_a_copy_of_a_snapshot_is_mounted_beside_its_origin(guest: Guest, platform: Platform) -> None:
    first = stage(guest, platform, wanted("origin"))
    guest.call(inside.write, f"{first.path}/file", "before", sync=True)
    snapshot: ExternalId = platform.snapshot(first.external_id, token="snap").external_id
    guest.call(inside.write, f"{first.path}/file", "after", sync=True)
    copy = stage(guest, platform, wanted("copy", snapshot=snapshot))
    assert [guest.call(inside.read, f"{staged.path}/file") for staged in (copy, first)] == ["before", "after"]
    assert copy.birth.filesystem_uuid != first.birth.filesystem_uuid
    for staged in (copy, first):
        unstage(guest, platform, staged.plan)
