"""LUNs that two portals of a real iSCSI target show, under the maps of a real multipathd, which a real udevd tells of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from storage.errors import DeviceInUse, NodeError
from tests.conftest import leave_out
from tests.guest import inside, lio, multipathing
from tests.guest.array import ENVIRONMENT, Array, Mapped, TwoPortals
from tests.guest.test_guest_iscsi import OTHER, VOLUME, cut_off, next_plan, other_plan
from tests.nodes import plan
from tests.support import EMULATED_S, eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("guest")]

ADVISED = """defaults {
 find_multipaths yes
 user_friendly_names yes
 polling_interval 1
 max_polling_interval 1
 fast_io_fail_tmo 1
 recheck_wwid yes
}
"""
QUEUES = "overrides {\n no_path_retry queue\n}\n"
WWID = "3" + lio.serial_of(VOLUME).removeprefix("naa.")
ALIAS = f"multipaths {{\n multipath {{\n  wwid {WWID}\n  alias data-1.db_x\n }}\n}}\n"
GREEDY = ADVISED.replace("find_multipaths yes", "find_multipaths no")
BLACKLIST = 'blacklist {\n device {\n  vendor "LIO-ORG"\n  product ".*"\n }\n}\n'


@pytest.fixture
def tools() -> None:
    for program, package in (("iscsiadm", "open-iscsi"), ("multipathd", "multipath-tools"), ("udevadm", "udev"), ("dmsetup", "dmsetup")):
        if not shutil.which(program, path=ENVIRONMENT["PATH"]):
            leave_out(f"needs {program} (Debian: {package})")


@pytest.fixture
def array_with(tools: None, cloud_of: Callable[..., Mapped]) -> Iterator[Callable[[str], Mapped]]:
    """Makes the array, with the node's daemon configured so."""
    running: list[Mapped] = []

    def make(configuration: str) -> Mapped:
        array = cloud_of("virtio", Mapped)
        array.configuration = configuration
        running.append(array.__enter__())
        return array

    yield make
    for array in running:
        array.__exit__()


@pytest.fixture
def array(tools: None, cloud_of: Callable[..., TwoPortals]) -> Iterator[TwoPortals]:
    """No daemon makes a map by itself; one can be made by hand."""
    with cloud_of("virtio", TwoPortals) as found:
        for module in multipathing.MODULES:
            found.guest.load(module)
        yield found


def states(array: Mapped) -> list[str]:
    return sorted(array.guest.call(multipathing.paths).values())


def left(array: Array) -> list[str]:
    return array.guest.call(multipathing.disks)


@pytest.mark.parametrize(
    ("configuration", "name", "filesystem", "size_mib"),
    [(ADVISED, "mpatha", "ext4", 64), (GREEDY + ALIAS, "data-1.db_x", "xfs", 320)],
    ids=["friendly names, ext4", "greedy, an alias, xfs"],
)
def test_a_volume_is_used_by_its_map_and_grows_with_it(
    array_with: Callable[[str], Mapped], configuration: str, name: str, filesystem: str, size_mib: int
) -> None:
    array = array_with(configuration)
    born = plan(VOLUME, filesystem=filesystem, size_mib=size_mib)
    first = array.stage(born)
    array.guest.call(inside.write, f"{first.path}/file", "kept")
    assert array.guest.call(multipathing.maps) == {name: first.device.removeprefix("/dev/")}
    assert sorted(array.guest.call(multipathing.paths)) == ["sda", "sdb"]

    array.grow(VOLUME, size_mib + 128)
    known = {"filesystem": filesystem, "size_mib": size_mib + 128, "birth": first.birth, "external_id": first.external_id}
    grown = array.stage(plan(VOLUME, **known))
    assert grown.size_mib == size_mib + 128
    assert array.guest.call(inside.size_mib, first.path) >= size_mib + 64
    array.unstage(born)
    assert left(array) == []

    later = next_plan(first.birth, filesystem=filesystem, size_mib=size_mib + 128)
    second = array.stage(later)
    assert array.guest.call(inside.read, f"{second.path}/file") == "kept"
    array.guest.run("umount", second.path)
    with array.mapped("vg-lv", f"0 2048 linear {second.device} 0", uuid="LVM-of-somebody"), pytest.raises(DeviceInUse, match="dm-1"):
        array.stage(later)
    array.unstage(later)
    assert left(array) == []


def test_a_path_may_fail_and_come_back_while_the_volume_is_written_to(array_with: Callable[[str], Mapped]) -> None:
    array = array_with(ADVISED)
    first = array.stage(plan(VOLUME))
    array.relay.stop()
    array.guest.call(inside.write, f"{first.path}/file", "by the other", sync=True)
    eventually(lambda: states(array) == ["active", "failed"], EMULATED_S, "the daemon sees that a path has failed")
    array.relay = array.connected()
    eventually(lambda: states(array) == ["active", "active"], EMULATED_S, "the path is back")

    array.relay.stop()
    array.guest.call(inside.write, f"{first.path}/second", "by one path", sync=True)
    array.unstage(plan(VOLUME))
    assert left(array) == []
    array.relay = array.connected()
    again = array.stage(later := next_plan(first.birth))
    said = [array.guest.call(inside.read, f"{again.path}/{file}") for file in ("file", "second")]
    assert said == ["by the other", "by one path"]
    array.unstage(later)


def test_a_volume_that_has_lost_all_its_paths_under_a_map_that_queues_is_released(array_with: Callable[[str], Mapped]) -> None:
    array = array_with(ADVISED + QUEUES)
    first = array.stage(plan(VOLUME))
    array.guest.call(inside.write, f"{first.path}/file", "kept", sync=True)
    array.guest.call(inside.write, f"{first.path}/file", "never arrives")
    array.unplug(VOLUME)

    array.unstage(plan(VOLUME), timeout_s=2.0)

    assert left(array) == []
    again = array.stage(next_plan(first.birth))
    assert array.guest.call(inside.read, f"{again.path}/file") == "kept"

    array.unplug(VOLUME)
    unmount = array.guest.begin(subprocess.run, ["umount", again.path], check=True)  # as the kernel does when the executor has died
    array.guest.call(inside.sweep)

    unmount.result()
    assert left(array) == []
    array.unstage(next_plan(first.birth))


def test_a_volume_gets_no_map_and_no_data_of_another_that_had_its_number_and_is_still_mounted(array_with: Callable[[str], Mapped]) -> None:
    array = array_with(ADVISED + QUEUES)
    first = array.stage(plan(VOLUME))
    array.guest.call(inside.write, f"{first.path}/file", "kept", sync=True)
    array.guest.call(inside.write, f"{first.path}/file", "never arrives")
    cut_off(array)
    eventually(lambda: states(array) == ["failed", "failed"], EMULATED_S, "the daemon sees that the paths have failed")
    array.put(OTHER)

    second = array.stage(other_plan())

    assert (second.formatted, second.birth.serial) == (True, lio.serial_of(OTHER))
    assert second.device != first.device
    array.unstage(plan(VOLUME), timeout_s=2.0)
    again = array.stage(later := next_plan(first.birth))
    assert array.guest.call(inside.read, f"{again.path}/file") == "kept"
    for done in (later, other_plan()):
        array.unstage(done)
    assert left(array) == []
    subprocess.run(["e2fsck", "-f", "-n", str(array.image(OTHER))], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("configuration", "advice"),
    [
        (ADVISED + BLACKLIST, ["it does not claim sda, sdb"]),
        (ADVISED.replace("yes", "strict", 1), ["it makes maps of no disk that it has not had one of before", "it does not claim sda, sdb"]),
    ],
    ids=["blacklisted", "strict"],
)
def test_a_disk_that_the_daemon_does_not_claim_is_used_by_a_path_and_the_doctor_says_so(
    array_with: Callable[[str], Mapped], configuration: str, advice: list[str]
) -> None:
    array = array_with(configuration)
    assert array.stage(plan(VOLUME)).device in ("/dev/sda", "/dev/sdb")
    said = array.guest.call(multipathing.findings)
    assert [message[: len(words)] for message, words in zip(said, advice, strict=True)] == advice
    array.unstage(plan(VOLUME))
    assert left(array) == []


def test_a_path_that_becomes_a_map_before_it_is_mounted_is_used_by_the_map(array: TwoPortals) -> None:
    first = array.stage(plan(VOLUME), taken_before="mkfs.ext4")
    assert (first.device, first.formatted) == ("/dev/dm-0", True)
    array.guest.call(inside.write, f"{first.path}/file", "kept")
    array.unstage(plan(VOLUME))
    assert left(array) == []

    again = array.stage(later := next_plan(first.birth), taken_before="e2fsck")
    assert again.device == "/dev/dm-0"
    assert array.guest.call(inside.read, f"{again.path}/file") == "kept"
    array.unstage(later)
    assert left(array) == []


def test_no_volume_is_used_by_a_path_because_the_daemon_has_died_meanwhile(array_with: Callable[[str], Mapped]) -> None:
    array = array_with(ADVISED)
    call = array.guest.begin(inside.stage, plan(VOLUME), array.capabilities, answering=array, device_wait_s=1.0)
    call.until("attach")
    array.guest.call(multipathing.kill_daemon)
    with pytest.raises(NodeError, match=r"multipathd failed on /dev/sd[ab]: it has died"):
        call.result()
    assert left(array) == []

    array.start_daemon()
    assert array.stage(plan(VOLUME)).device.startswith("/dev/dm-")
    array.unstage(plan(VOLUME))
    assert left(array) == []
