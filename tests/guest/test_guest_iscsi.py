"""LUNs of a real iSCSI target, by the kernel's initiator and open-iscsi: found by their world-wide name, never by their number."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage.errors import BusyMount
from storage.model import Birth, ExternalId, VolumeId, VolumePlan
from tests.conftest import leave_out
from tests.guest import inside, lio
from tests.guest.array import ENVIRONMENT, Array, Fabric, FarAway, TwoPortals
from tests.nodes import again, digest, plan

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("guest")]

VOLUME = "vol0123456789abcdef0"
OTHER = "vol0fedcba9876543210"


@pytest.fixture(params=[Array, TwoPortals, Fabric], ids=["iSCSI", "two portals", "fabric"])
def array(request: pytest.FixtureRequest, cloud_of: Callable[..., Array]) -> Iterator[Array]:
    if not shutil.which("iscsiadm", path=ENVIRONMENT["PATH"]):
        leave_out("needs iscsiadm (Debian: open-iscsi)")
    with cloud_of("virtio", request.param) as running:
        yield running


@pytest.fixture
def far(cloud_of: Callable[..., FarAway]) -> Iterator[FarAway]:
    """An array whose one portal may be lost."""
    if not shutil.which("iscsiadm", path=ENVIRONMENT["PATH"]):
        leave_out("needs iscsiadm (Debian: open-iscsi)")
    with cloud_of("virtio", FarAway) as running:
        yield running


def next_plan(birth: Birth, volume: str = VOLUME, **changes: Any) -> VolumePlan:
    return again(birth, token=volume, external_id=ExternalId(volume), **changes)


def other_plan() -> VolumePlan:
    return plan(OTHER, volume_id=VolumeId("vol-2"), name="/app#1/data")


def disks(array: Array) -> list[str]:
    """All that the kernel has of both volumes."""
    return [name for volume in (VOLUME, OTHER) for name in array.guest.call(inside.disks_of, lio.serial_of(volume))]


def cut_off(array: Array) -> None:
    """The array takes the volume away from a node that has let go of it but not of its disk."""
    array.unplug(VOLUME)
    assert array.guest.call(inside.disks_of, lio.serial_of(VOLUME)) != []


@pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])
def test_a_volume_is_born_on_a_lun_and_comes_again_with_its_data(array: Array, filesystem: str, size_mib: int) -> None:
    born = plan(VOLUME, filesystem=filesystem, size_mib=size_mib)
    first = array.stage(born)
    array.guest.call(inside.write, f"{first.path}/file", "kept")
    assert first.birth.serial == lio.serial_of(VOLUME)
    assert first.device.startswith("/dev/sd")
    for _ in range(2):
        array.unstage(born)
    assert VOLUME not in array.guest.plugged

    later = next_plan(first.birth, filesystem=filesystem, size_mib=size_mib)
    second = array.stage(later)
    assert array.guest.call(inside.read, f"{second.path}/file") == "kept"
    assert not second.formatted
    array.unstage(later)


def test_a_second_lun_is_found_over_the_session_that_is_there(array: Array) -> None:
    first, second = array.stage(plan(VOLUME)), array.stage(other_plan())

    assert first.device != second.device
    assert second.birth.serial == lio.serial_of(OTHER)
    array.unstage(other_plan())
    array.unstage(plan(VOLUME))


def test_a_mounted_filesystem_grows_with_its_lun(array: Array) -> None:
    first = array.stage(plan(VOLUME))
    array.grow(VOLUME, 192)

    grown = array.stage(plan(VOLUME, size_mib=192, birth=first.birth, external_id=first.external_id))

    assert grown.size_mib == 192
    assert array.guest.call(inside.size_mib, first.path) > 150
    array.unstage(plan(VOLUME))


def test_another_volume_under_the_number_of_one_that_was_cut_off_is_itself(array: Array) -> None:
    first = array.stage(plan(VOLUME))
    array.guest.call(inside.write, f"{first.path}/file", "kept")
    array.guest.run("umount", first.path)
    cut_off(array)

    second = array.stage(other_plan())

    assert second.formatted
    assert second.birth.serial == lio.serial_of(OTHER)
    later = next_plan(first.birth)
    assert array.guest.call(inside.read, f"{array.stage(later).path}/file") == "kept"
    for done in (later, plan(VOLUME), other_plan()):
        array.unstage(done)


def test_a_disk_behind_which_nothing_is_any_more_is_not_taken_for_the_volume(array: Array) -> None:
    first = array.stage(plan(VOLUME))
    array.guest.call(inside.write, f"{first.path}/file", "kept")
    array.guest.run("umount", first.path)
    cut_off(array)
    array.lowest = 5

    second = array.stage(next_plan(first.birth))

    assert second.device != first.device
    assert array.guest.call(inside.read, f"{second.path}/file") == "kept"
    for done in (next_plan(first.birth), plan(VOLUME)):
        array.unstage(done)


def test_a_disk_that_leads_to_another_volume_now_is_never_formatted(array: Array) -> None:
    call = array.guest.begin(inside.stage, plan(VOLUME), array.capabilities, answering=array)
    call.until("record_birth")
    call.stop()
    cut_off(array)
    array.put(OTHER)
    array.plug(OTHER)
    before = digest(array.image(OTHER))

    staged = array.stage(plan(VOLUME))

    assert staged.birth.serial == lio.serial_of(VOLUME)
    assert digest(array.image(OTHER)) == before
    array.unstage(plan(VOLUME))
    array.unplug(OTHER)


def test_a_volume_whose_only_path_is_lost_goes_from_the_kernel_unless_it_is_used_and_before_its_number_is_used_again(far: FarAway) -> None:
    first = far.stage(plan(VOLUME))
    far.guest.call(inside.write, f"{first.path}/file", "kept", sync=True)
    holder = far.guest.begin(inside.hold, f"{first.path}/held", "never arrives")
    holder.until("held")
    far.cut()
    with pytest.raises(BusyMount):
        far.unstage(plan(VOLUME), timeout_s=0.5, force=True)
    assert VOLUME in far.guest.plugged
    holder.stop()
    far.unstage(plan(VOLUME))
    assert disks(far) == []

    far.restore()
    second = far.stage(other_plan())
    assert (second.formatted, second.birth.serial) == (True, lio.serial_of(OTHER))
    again = far.stage(later := next_plan(first.birth))
    assert far.guest.call(inside.read, f"{again.path}/file") == "kept"

    far.cut()
    for staged in (second, again):
        far.guest.run("umount", staged.path)  # as the kernel does when the executors have died
    far.guest.call(inside.sweep)
    assert disks(far) == []
    for done in (later, other_plan()):
        far.unstage(done)
    far.relay = far.connected()
