"""NVMe disks with EBS serials, plugged into a running machine: found, formatted, mounted, let go, and everything that goes wrong."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from storage.errors import DeviceInUse, DeviceNotFound, NodeError, NotAsBorn, NotBlank, StaleEpoch, VolumeInUse, WrongDevice
from storage.node.births import filesystem_uuid
from storage.node.staged import may_be_held
from tests.guest import inside
from tests.guest.cloud import LINK, Cloud
from tests.nodes import again, plan
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("guest")]

VOLUME = "vol0123456789abcdef0"
OTHER = "vol0fedcba9876543210"
KINDS = pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])


@KINDS
def test_a_volume_is_born_on_a_disk_that_was_plugged_in_and_comes_again_with_its_data(ebs: Cloud, filesystem: str, size_mib: int) -> None:
    born = plan(token=VOLUME, filesystem=filesystem, size_mib=size_mib)
    first = ebs.stage(born)
    ebs.guest.call(inside.write, f"{first.path}/file", "kept")
    assert (first.birth.serial, first.birth.filesystem_uuid) == (VOLUME, filesystem_uuid(born))
    assert first.device.startswith("/dev/nvme")
    assert ebs.inspect(first.external_id).birth == first.birth
    said = ebs.guest.run("blkid", "-p", "-s", "TYPE", "-s", "UUID", "-o", "value", first.device).stdout.split()
    assert sorted(said) == sorted([filesystem, first.birth.filesystem_uuid])
    for _ in range(2):
        ebs.unstage(born)
    assert VOLUME not in ebs.guest.plugged

    later = again(first.birth, token=VOLUME, external_id=first.external_id, filesystem=filesystem, size_mib=size_mib)
    second = ebs.stage(later)
    assert ebs.guest.call(inside.read, f"{second.path}/file") == "kept"
    assert not second.formatted
    ebs.unstage(later)
