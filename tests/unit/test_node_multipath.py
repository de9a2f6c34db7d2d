"""LUNs with several paths: what is mounted, and what must go from the kernel before the LUN is unmapped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from storage.errors import DeviceInUse, NodeError
from storage.node import devices, disks
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.multipathd import Multipathd
from storage.node.pace import Pace
from tests.nodes import as_shown

SERIAL, OTHER = "naa.514f0c5000000001", "naa.514f0c5000000002"


class Node:
    """Made-up trees of /dev and /sys, and a daemon whose tools answer as they are told."""

    def __init__(self, root: Path) -> None:
        self.root, self.ran, self.answers = root, list[str](), dict[str, str | int]()
        self.now = 0.0
        self.then: Callable[[], object] = lambda: None
        """Happens with each wait for a tool."""
        for folder in ("dev", "run/udev/data"):
            (root / folder).mkdir(parents=True)
        self.sockets = root / "unix"
        self.sockets.write_text("0000: 00000002 00000000 00010000 0001 01 100 /run/dbus\n")
        self.says: dict[tuple[str, int], bytes] = {}
        """What disks answer to an INQUIRY in place of what sysfs shows; nothing for one that does not answer."""

    @property
    def roots(self) -> Roots:
        pace = Pace(now=lambda: self.now, wait=self._wait)
        daemon = Multipathd(run=self.run, pace=pace, sockets=self.sockets, state=self.root / "run", udev=self.root / "run/udev")
        return Roots(
            dev=self.root / "dev",
            sys=self.root / "sys",
            is_block=lambda path: path.exists(),
            inquire=self._inquired,
            multipathd=daemon,
        )

    def _wait(self, seconds: float) -> None:
        self.now += seconds
        self.then()

    def run(self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        self.ran.append(words := " ".join(command))
        answer = next((answer for begin, answer in self.answers.items() if words.startswith(begin)), "")
        code, out = (answer, "") if isinstance(answer, int) else (0, answer)
        if code not in ok:
            raise NodeError(command=command[0], target="", reason=f"exit code {code}")
        return Output(code=code, out=out, err="")

    def _inquired(self, device: Path, page: int) -> bytes:
        said = self.says.get((device.name, page))
        if said == b"":
            raise OSError(f"{device} does not answer")
        return said or as_shown(self.root / "sys")(device, page)

    def start_daemon(self) -> None:
        with self.sockets.open("a") as file:
            file.write("0000: 00000002 00000000 00010000 0001 01 101 @/org/kernel/linux/storage/multipathd\n")
        (self.root / "run/multipathd.pid").write_text("7")

    def udev_knows(self, name: str, wwid: str = SERIAL) -> None:
        number = (self.root / "sys/block" / name / "dev").read_text().strip()
        (self.root / f"run/udev/data/b{number}").write_text(f"I:7\nE:ID_SERIAL=3{wwid.removeprefix('naa.')}\nV:1\n")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def roots(node: Node) -> Roots:
    return node.roots


def disk(roots: Roots, name: str, wwid: str = SERIAL) -> None:
    device = roots.sys / "block" / name / "device"
    device.mkdir(parents=True)
    (device / "wwid").write_text(wwid + "\n")
    (device / "vpd_pg83").write_bytes(page_83(wwid))
    for verb in ("device/delete", "device/rescan", "uevent"):
        (roots.sys / "block" / name / verb).touch()
    (roots.sys / "block" / name / "dev").write_text(f"8:{ord(name[-1])}\n")
    (roots.sys / "block" / name / "holders").mkdir()
    (roots.dev / name).touch()


def page_83(wwid: str) -> bytes:
    return bytes((0, 0x83, 0, len(wwid))) + wwid.encode()


def map_over(roots: Roots, name: str, *paths: str, uuid: str = "mpath-3514f0c5000000001") -> None:
    block = roots.sys / "block" / name
    (block / "dm").mkdir(parents=True)
    (block / "dm" / "uuid").write_text(uuid)
    (block / "dm" / "name").write_text("mpatha\n")
    (block / "size").write_text("131072\n")
    (block / "holders").mkdir()
    (block / "slaves").mkdir()
    for path in paths:
        (block / "slaves" / path).mkdir(parents=True)
        (roots.sys / "block" / path / "holders" / name).mkdir()
    (roots.dev / name).touch()


def find(roots: Roots, hint: str = "") -> str:
    return Path(devices.find(SERIAL, hint=hint, roots=roots, pace=Pace(), timeout_s=0.0)).name


def deleted(roots: Roots) -> list[str]:
    return sorted(verb.parents[1].name for verb in (roots.sys / "block").glob("*/device/delete") if verb.read_text() == "1")


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices whose buffers were flushed."""
    found: list[str] = []
    monkeypatch.setattr(devices, "flush", lambda device: found.append(Path(device).name))
    return found


@pytest.fixture
def mapped(node: Node) -> Roots:
    """Two paths under their map."""
    for name in ("sda", "sdb"):
        disk(node.roots, name)
    map_over(node.roots, "dm-0", "sda", "sdb")
    return node.roots


def test_the_map_over_the_paths_is_the_device(mapped: Roots) -> None:
    assert find(mapped) == "dm-0"
    assert devices.matches(SERIAL, "dm-0", mapped)
    disks.refuse_held(str(mapped.dev / "dm-0"), mapped, alone=False)


def test_a_map_whose_table_is_not_yet_in_force_is_not_the_device(mapped: Roots) -> None:
    (mapped.sys / "block/dm-0/size").write_text("0\n")
    assert find(mapped) == "sda"


def test_a_link_of_udevs_leads_to_the_map(mapped: Roots) -> None:
    link = mapped.dev / "disk/by-id/wwn-0x514f0c5000000001"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../dm-0")
    assert find(mapped, hint=str(link)) == "dm-0"


def test_another_kind_of_map_is_a_holder(roots: Roots) -> None:
    disk(roots, "sda")
    map_over(roots, "dm-0", "sda", uuid="LVM-abc")
    assert find(roots) == "sda"
    with pytest.raises(DeviceInUse, match="dm-0"):
        disks.refuse_held(str(roots.dev / "sda"), roots, alone=False)


def test_a_map_of_another_volume_is_a_holder_and_not_the_device(roots: Roots) -> None:
    disk(roots, "sda")
    map_over(roots, "dm-0", "sda", uuid="mpath-3514f0c5000000002")
    assert find(roots) == "sda"
    assert not devices.matches(SERIAL, "dm-0", roots)
    with pytest.raises(DeviceInUse, match="dm-0"):
        disks.refuse_held(str(roots.dev / "sda"), roots, alone=False)


def test_a_map_with_a_path_of_another_volume_is_not_the_device(roots: Roots) -> None:
    disk(roots, "sda")
    disk(roots, "sdb", OTHER)
    map_over(roots, "dm-0", "sda", "sdb")
    assert find(roots) == "sda"


def test_a_map_one_of_whose_paths_says_another_name_by_now_is_not_the_device(mapped: Roots, node: Node) -> None:
    node.says["sdb", 0x83] = page_83(OTHER)
    assert find(mapped) == "sda"


@pytest.mark.parametrize("answer", [b"", b"\x7f\x83\x00\x00"], ids=["no answer", "nothing behind it"])
def test_a_map_one_of_whose_paths_has_failed_is_the_device(mapped: Roots, node: Node, answer: bytes) -> None:
    node.says["sdb", 0x83] = answer
    assert find(mapped) == "dm-0"


def test_a_map_whose_paths_are_all_gone_is_found_by_its_name(roots: Roots) -> None:
    map_over(roots, "dm-0")
    assert devices.shown(SERIAL, roots) == str(roots.dev / "dm-0")
    assert devices.shown(OTHER, roots) == ""


def test_a_map_stays_itself_whatever_its_paths_lead_to(mapped: Roots) -> None:
    before = devices.identity("dm-0", mapped)
    for path in ("sda", "sdb"):
        (mapped.sys / "block" / path / "device/wwid").write_text(OTHER)
    assert devices.identity("dm-0", mapped) == before
    assert devices.serials("dm-0", mapped) == (SERIAL,)


def test_a_map_goes_before_its_paths(mapped: Roots, node: Node, flushed: list[str]) -> None:
    disk(mapped, "sdc", OTHER)
    node.start_daemon()
    disks.forget(str(mapped.dev / "dm-0"), mapped)
    assert flushed == ["dm-0"]
    assert node.ran == ["multipathd disablequeueing map mpatha", "multipath -f mpatha"]
    assert deleted(mapped) == ["sda", "sdb"]


def test_a_map_without_a_path_that_works_goes_without_writing(mapped: Roots, node: Node, flushed: list[str]) -> None:
    node.says |= {("sda", 0x83): b"", ("sdb", 0x83): b""}
    disks.forget(str(mapped.dev / "dm-0"), mapped)
    assert (flushed, deleted(mapped)) == ([], ["sda", "sdb"])


def test_a_map_that_somebody_only_looks_at_goes_when_that_is_over(mapped: Roots, node: Node, flushed: list[str]) -> None:
    """As udev does with what was just unmounted: the map cannot be removed meanwhile."""
    node.answers["multipath -f"] = 1
    node.then = node.answers.clear
    disks.forget(str(mapped.dev / "dm-0"), mapped)
    assert node.ran.count("multipath -f mpatha") == 2
    assert deleted(mapped) == ["sda", "sdb"]


def test_paths_whose_map_does_not_go_stay(mapped: Roots, node: Node, flushed: list[str]) -> None:
    node.answers["multipath -f"] = 1
    with pytest.raises(NodeError):
        disks.forget(str(mapped.dev / "dm-0"), mapped)
    assert deleted(mapped) == []


def test_a_map_that_leads_to_another_volume_goes_without_writing_and_leaves_that_volumes_disk(
    mapped: Roots, node: Node, flushed: list[str]
) -> None:
    (mapped.sys / "block/sdb/device/wwid").write_text(OTHER)
    disks.forget(str(mapped.dev / "dm-0"), mapped)
    assert (flushed, deleted(mapped)) == ([], ["sda"])
    assert node.ran == ["dmsetup message mpatha 0 fail_if_no_path", "multipath -f mpatha"]


def test_a_map_grows_with_all_its_paths(mapped: Roots, node: Node) -> None:
    disks.rescan_size(str(mapped.dev / "dm-0"), mapped)
    assert [(mapped.sys / "block" / path / "device/rescan").read_text() for path in ("sda", "sdb")] == ["1", "1"]
    assert node.ran == ["multipathd resize map mpatha"]


def test_a_map_queues_on_while_one_of_its_paths_works(mapped: Roots, node: Node) -> None:
    node.says["sda", 0x83] = b""
    assert not disks.unstick(str(mapped.dev / "dm-0"), mapped)
    node.says["sdb", 0x83] = b""
    assert disks.unstick(str(mapped.dev / "dm-0"), mapped)
    assert node.ran == ["dmsetup message mpatha 0 fail_if_no_path"]
    assert not disks.unstick(str(mapped.dev / "sda"), mapped)


def test_a_path_that_is_beside_its_map_is_another_way_to_the_disk(mapped: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(mapped, "sdc")
    monkeypatch.setattr(devices, "in_use", lambda device: Path(device).name in ("sda", "sdb", "sdc"))
    with pytest.raises(DeviceInUse, match="program on sdc, another path"):
        disks.refuse_held(str(mapped.dev / "dm-0"), mapped, alone=True)


def test_a_path_that_the_map_gets_just_now_is_no_other_user(mapped: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_use(device: str) -> bool:
        if device.endswith("/sdc"):
            (mapped.sys / "block/sdc/holders/dm-0").mkdir()
        return device.endswith("/sdc")

    disk(mapped, "sdc")
    monkeypatch.setattr(devices, "in_use", in_use)
    disks.refuse_held(str(mapped.dev / "dm-0"), mapped, alone=True)


def test_a_path_that_has_failed_is_no_other_user(mapped: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be opened; whether it is in use the kernel says before."""

    def in_use(device: str) -> bool:
        if device.endswith("/sdc"):
            raise NodeError(command="open", target=device, reason="No such device or address")
        return False

    disk(mapped, "sdc")
    monkeypatch.setattr(devices, "in_use", in_use)
    disks.refuse_held(str(mapped.dev / "dm-0"), mapped, alone=True)
    assert not disks.has_users(str(mapped.dev / "dm-0"), mapped)
    with pytest.raises(NodeError):
        disks.has_users(str(mapped.dev / "sdc"), mapped)


@pytest.fixture
def cut_off(roots: Roots) -> Roots:
    """The one path to the disk is lost, and the kernel lets nobody open it."""
    disk(roots, "sda")
    (roots.sys / "block/sda/device/state").write_text("transport-offline\n")
    return roots


def test_a_disk_that_cannot_be_opened_any_more_is_found_and_goes_without_writing(cut_off: Roots, flushed: list[str]) -> None:
    device = devices.shown(SERIAL, cut_off)
    assert device == str(cut_off.dev / "sda")
    assert not disks.has_users(device, cut_off)
    disks.forget(device, cut_off)
    assert (flushed, deleted(cut_off)) == ([], ["sda"])


@pytest.mark.parametrize("shown", ["fs/ext4/sda", "fs/xfs/sda", "block/sda/holders/dm-5"])
def test_a_disk_that_cannot_be_opened_any_more_is_in_use_while_the_kernel_shows_what_is_on_it(cut_off: Roots, shown: str) -> None:
    (cut_off.sys / shown).mkdir(parents=True)
    assert disks.has_users(str(cut_off.dev / "sda"), cut_off)


def test_a_path_that_is_mounted_beside_its_map_is_in_use_when_it_is_lost_too(mapped: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "in_use", lambda device: False)
    disk(mapped, "sdc")
    (mapped.sys / "block/sdc/device/state").write_text("offline\n")
    assert not disks.has_users(str(mapped.dev / "dm-0"), mapped)
    (mapped.sys / "fs/ext4/sdc").mkdir(parents=True)
    assert disks.has_users(str(mapped.dev / "dm-0"), mapped)


def test_a_disk_that_says_that_it_is_anothers_is_not_shown_as_the_volume(roots: Roots, node: Node) -> None:
    disk(roots, "sda")
    node.says["sda", 0x83] = page_83(OTHER)
    assert devices.shown(SERIAL, roots) == ""
    node.says["sda", 0x83] = b""
    assert devices.shown(SERIAL, roots) == str(roots.dev / "sda")


def test_all_paths_without_a_map_are_forgotten(roots: Roots, flushed: list[str]) -> None:
    for name in ("sda", "sdb"):
        disk(roots, name)
    disk(roots, "sdc", "")
    disks.forget(str(roots.dev / "sda"), roots)
    assert deleted(roots) == ["sda", "sdb"]
    disks.forget(str(roots.dev / "sdc"), roots)
    assert deleted(roots) == ["sda", "sdb", "sdc"]


def test_a_disk_of_another_kind_is_left_to_the_kernel(roots: Roots, flushed: list[str]) -> None:
    (roots.sys / "block" / "nvme0n1" / "device").mkdir(parents=True)
    disks.forget(str(roots.dev / "nvme0n1"), roots)
    assert (flushed, list((roots.sys / "block" / "nvme0n1" / "device").iterdir())) == ([], [])
