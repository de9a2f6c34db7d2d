"""NVMe disks with EBS serials, plugged into a running machine: found, formatted, mounted, let go, and everything that goes wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from storage.errors import DeviceInUse, DeviceNotFound, NotAsBorn, NotBlank, StaleEpoch, WrongDevice
from storage.model import Birth, ExternalId, VolumePlan
from storage.node.births import filesystem_uuid
from storage.node.staged import may_be_held
from tests.guest import inside
from tests.guest.cloud import LINK, Cloud
from tests.nodes import again, plan
from tests.peers.guest import Died

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("guest")]

VOLUME = "vol0123456789abcdef0"
OTHER = "vol0fedcba9876543210"
KINDS = pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])


def next_plan(birth: Birth, volume: str = VOLUME, **changes: Any) -> VolumePlan:
    return again(birth, token=volume, external_id=ExternalId(volume), **changes)


@KINDS
def test_a_volume_is_born_on_a_disk_that_was_plugged_in_and_comes_again_with_its_data(ebs: Cloud, filesystem: str, size_mib: int) -> None:
    born = plan(VOLUME, filesystem=filesystem, size_mib=size_mib)
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

    later = next_plan(first.birth, filesystem=filesystem, size_mib=size_mib)
    second = ebs.stage(later)
    assert ebs.guest.call(inside.read, f"{second.path}/file") == "kept"
    assert not second.formatted
    ebs.unstage(later)


def test_a_volume_that_grew_while_it_was_away_is_as_large_as_its_disk(ebs: Cloud) -> None:
    first = ebs.stage(plan(VOLUME))
    ebs.unstage(plan(VOLUME))
    ebs.grow(VOLUME, 128)

    later = next_plan(first.birth, size_mib=128)
    grown = ebs.stage(later)

    assert "grow" in grown.took_ms
    assert ebs.guest.call(inside.size_mib, grown.path) > 100
    ebs.unstage(later)


def test_a_device_that_comes_while_it_is_waited_for_is_taken(ebs: Cloud) -> None:
    ebs.plugs = False
    call = ebs.guest.begin(inside.stage, plan(VOLUME), ebs.capabilities, answering=ebs)
    call.until("attach")
    call.answer()
    ebs.plug(VOLUME)

    staged = call.result()

    assert staged.device == ebs.guest.call(inside.device_of, VOLUME)
    ebs.unstage(plan(VOLUME))


def test_a_device_that_does_not_come_in_time_is_an_error_that_leaves_nothing(ebs: Cloud) -> None:
    ebs.plugs = False

    with pytest.raises(DeviceNotFound, match=f"{VOLUME}.* 1.0 s") as caught:
        ebs.stage(plan(VOLUME), device_wait_s=1.0)

    assert not may_be_held(caught.value)
    assert ebs.guest.call(inside.left) == []


def test_a_stale_link_to_another_volumes_device_is_passed_over(ebs: Cloud) -> None:
    other = ebs.stage(plan(OTHER))
    ebs.hint = LINK + VOLUME
    ebs.guest.call(inside.link, ebs.hint, other.device)

    staged = ebs.stage(plan(VOLUME))

    assert staged.device not in ("", other.device)
    assert ebs.guest.call(inside.read, f"/sys/block/{staged.device.removeprefix('/dev/')}/device/serial").strip() == VOLUME
    ebs.unstage(plan(VOLUME))
    ebs.hint = ""
    ebs.unstage(plan(OTHER))


def test_a_stale_link_is_the_error_where_the_device_itself_never_comes(ebs: Cloud) -> None:
    other = ebs.stage(plan(OTHER))
    ebs.hint, ebs.plugs = LINK + VOLUME, False
    ebs.guest.call(inside.link, ebs.hint, other.device)

    with pytest.raises(WrongDevice, match=f"{OTHER}.*{VOLUME}"):
        ebs.stage(plan(VOLUME), device_wait_s=1.0)

    assert ebs.guest.call(inside.mounted, OTHER) == other.device
    ebs.hint = ""
    ebs.unstage(plan(OTHER))


def test_a_disk_that_shows_another_serial_is_never_taken(ebs: Cloud) -> None:
    ebs.shown = OTHER

    with pytest.raises(DeviceNotFound, match=VOLUME):
        ebs.stage(plan(VOLUME), device_wait_s=1.0)

    assert ebs.guest.plugged == frozenset()
    assert not any(ebs.image(VOLUME).read_bytes())


def test_another_volumes_disk_under_the_right_serial_is_not_as_born(ebs: Cloud) -> None:
    first = ebs.stage(plan(VOLUME))
    ebs.unstage(plan(VOLUME))
    ebs.stage(plan(OTHER))
    ebs.unstage(plan(OTHER))
    ebs.image(OTHER).rename(ebs.image(VOLUME))

    with pytest.raises(NotAsBorn):
        ebs.stage(next_plan(first.birth))

    assert ebs.guest.plugged == frozenset()


def test_a_disk_that_vanishes_under_its_mount_is_let_go_and_comes_again_whole(ebs: Cloud) -> None:
    first = ebs.stage(plan(VOLUME))
    ebs.guest.call(inside.write, f"{first.path}/file", "kept")
    ebs.guest.run("sync", "-f", first.path)
    ebs.guest.unplug(VOLUME)
    with pytest.raises(OSError, match=r"Input/output error|Read-only"):
        ebs.guest.call(inside.write, f"{first.path}/more", "lost", sync=True)

    ebs.unstage(plan(VOLUME))
    assert ebs.guest.call(inside.left) == []

    later = next_plan(first.birth)
    second = ebs.stage(later)
    assert ebs.guest.call(inside.read, f"{second.path}/file") == "kept"
    ebs.unstage(later)


def test_an_older_epoch_finds_the_volume_taken_and_takes_nothing(ebs: Cloud) -> None:
    first = ebs.stage(plan(VOLUME, epoch=2))

    with pytest.raises(StaleEpoch):
        ebs.stage(next_plan(first.birth, epoch=1))

    assert ebs.guest.call(inside.mounted, VOLUME) == first.device
    ebs.unstage(plan(VOLUME, epoch=2))


def test_a_holder_that_was_killed_half_way_is_followed_by_one_that_ends_it(ebs: Cloud) -> None:
    call = ebs.guest.begin(inside.stage, plan(VOLUME), ebs.capabilities, answering=ebs)
    call.until("record_birth")
    call.kill()
    with pytest.raises(Died):
        call.result(10.0)
    assert VOLUME in ebs.guest.plugged

    staged = ebs.stage(plan(VOLUME))

    assert staged.formatted
    ebs.unstage(plan(VOLUME))
    assert ebs.guest.plugged == frozenset()


# --- what already has something on it ----------------------------------------------------------------------


LUKS = ("cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", "--key-file", __file__)


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        (("sfdisk", "-q"), "gpt"),
        (("mkfs.ext4", "-q", "-F"), "ext4"),
        (LUKS, "crypto_LUKS"),
    ],
    ids=["partitions", "filesystem", "LUKS"],
)
def test_a_new_volume_with_something_on_it_is_never_formatted(ebs: Cloud, prepare: Sequence[str], found: str) -> None:
    image = ebs.put(VOLUME)
    subprocess.run([*prepare, str(image)], input=b"label: gpt\nsize=10MiB\n", check=True)

    with pytest.raises(NotBlank, match=found):
        ebs.stage(plan(VOLUME))

    assert ebs.guest.plugged == frozenset()


def test_a_disk_with_a_map_of_the_device_mapper_over_it_is_refused_until_the_map_is_gone(ebs: Cloud) -> None:
    ebs.put(VOLUME)
    ebs.plug(VOLUME)
    device = ebs.guest.call(inside.device_of, VOLUME)
    with ebs.mapped("above", f"0 {64 << 11} linear {device} 0"), pytest.raises(DeviceInUse, match="dm-0"):
        ebs.stage(plan(VOLUME))
    assert VOLUME in ebs.guest.plugged

    assert ebs.stage(plan(VOLUME)).formatted
    ebs.unstage(plan(VOLUME))
