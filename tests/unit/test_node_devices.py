"""Finding devices in made-up trees of /dev and /sys: by serial, past stale links and foreign serials, refused when held."""

from __future__ import annotations

import ctypes
import errno
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from storage.errors import DeviceInUse, DeviceNotFound, NodeError, UnsafePath, WrongDevice
from storage.node import devices, disks, google_disks, scsi
from storage.node.devices import Roots
from storage.node.pace import Pace
from tests.nodes import as_shown


@dataclass
class Trees:
    """Fake /dev and /sys. A regular file under /dev stands for a block device, unless its name is in `not_block`."""

    root: Path
    not_block: frozenset[str] = frozenset()
    namespaces: dict[str, bytes] = field(default_factory=dict)
    """What NVMe devices answer when they are asked for their namespace; the others refuse."""
    says: dict[str, bytes] = field(default_factory=dict)
    """What SCSI disks answer to an INQUIRY in place of what sysfs shows; nothing for one that does not answer."""

    @property
    def roots(self) -> Roots:
        return Roots(
            dev=self.root / "dev",
            sys=self.root / "sys",
            is_block=lambda path: path.is_file() and path.name not in self.not_block,
            identify_namespace=self._identified,
            inquire=self._inquired,
        )

    def _inquired(self, device: Path, page: int) -> bytes:
        if self.says.get(device.name) == b"":
            raise OSError(f"{device} does not answer")
        return self.says.get(device.name) or as_shown(self.root / "sys")(device, page)

    def _identified(self, device: Path, namespace: int) -> bytes:
        if f"{device.name} {namespace}" not in self.namespaces:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return self.namespaces[f"{device.name} {namespace}"].ljust(4096, b"\0")

    def device(self, name: str, **files: str) -> str:
        """A device whose sysfs folder holds `files` (`/` in their names written as `__`)."""
        (self.root / "dev" / name).touch()
        (self.root / "sys" / "block" / name).mkdir(parents=True)
        for file, text in files.items():
            self.sys(name, file.replace("__", "/"), text)
        return str(self.root / "dev" / name)

    def sys(self, name: str, file: str, text: str = "") -> Path:
        path = self.root / "sys" / "block" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="latin-1")
        return path

    def link(self, name: str, target: str) -> str:
        path = self.root / "dev" / "disk" / "by-id" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        return str(path)


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    (tmp_path / "dev").mkdir()
    return Trees(tmp_path)


class FakeTime:
    """Time that passes only by waiting; `then` happens with the second wait."""

    def __init__(self, then: object = None) -> None:
        self.at, self.waits, self.then = 0.0, 0, then

    def wait(self, seconds: float) -> None:
        self.at += seconds
        self.waits += 1
        if self.waits == 2 and callable(self.then):
            self.then()

    @property
    def pace(self) -> Pace:
        return Pace(now=lambda: self.at, wait=self.wait)


def find(trees: Trees, serial: str, hint: str = "", timeout_s: float = 0.0, time: FakeTime | None = None) -> str:
    return devices.find(serial, hint=hint, roots=trees.roots, pace=(time or FakeTime()).pace, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("name", "files", "serial"),
    [
        ("nvme1n1", {"device__serial": "vol0123456789abcdef0 \n"}, "vol0123456789abcdef0"),
        ("nvme2n1", {"serial": "vol1"}, "vol1"),
        ("vdb", {"serial": "0a1b2c3d-0a1b-2c3d-4"}, "0a1b2c3d-0a1b-2c3d-4e5f-60718293a4b5"),
        ("sdc", {"device__wwid": "naa.600508b1001c"}, "naa.600508b1001c"),
        ("sdd", {"device__vpd_pg80": "\0\x80\0\x08VB123456"}, "VB123456"),
        ("loop3", {"loop__backing_file": "/srv/pool/vol-9.img\n"}, "vol-9"),
        ("loop4", {"loop__backing_file": "/srv/pool/vol-8.img\n"}, "/srv/pool/vol-8.img"),
    ],
)
def test_a_device_is_found_by_its_serial_wherever_sysfs_has_it(trees: Trees, name: str, files: dict[str, str], serial: str) -> None:
    trees.device("sda", serial="another")
    device = trees.device(name, **files)

    assert find(trees, serial) == device
    assert find(trees, serial, hint=device) == device


def google_nvme(trees: Trees, name: str, namespace: int, told: object) -> str:
    """A disk of Google's on NVMe: the controller and its serial are those of all the others."""
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    trees.namespaces[f"{name} {namespace}"] = bytes(384) + text
    return trees.device(name, device__model="nvme_card-pd", device__serial="nvme_card-pd", nsid=str(namespace))


def designator(kind: int, text: str) -> str:
    return f"\x02{chr(kind)}\0{chr(len(text))}{text}"


def test_googles_nvme_disks_are_told_apart_by_their_namespaces(trees: Trees) -> None:
    google_nvme(trees, "nvme0n1", 1, {"device_name": "boot", "disk_type": "PERSISTENT"})
    device = google_nvme(trees, "nvme0n2", 2, {"device_name": "polly-0123", "disk_type": "PERSISTENT"})
    trees.link("google-polly-0123", "../../nvme0n1")

    assert find(trees, "polly-0123", hint=str(trees.root / "dev/disk/by-id/google-polly-0123")) == device
    assert devices.serials("nvme0n1", trees.roots) == ("nvme_card-pd", "boot")


@pytest.mark.parametrize("told", [b"", b"{", b"[1]", b"\xff\xfe", {"disk_type": "PERSISTENT"}])
def test_an_nvme_disk_of_googles_that_does_not_say_its_name_is_no_volume(trees: Trees, told: object) -> None:
    google_nvme(trees, "nvme0n2", 2, told)

    with pytest.raises(DeviceNotFound):
        find(trees, "polly-0123")


def test_an_nvme_disk_that_may_not_be_asked_is_no_volume(trees: Trees) -> None:
    google_nvme(trees, "nvme0n2", 2, {"device_name": "polly-0123"})
    trees.namespaces.clear()

    with pytest.raises(DeviceNotFound):
        find(trees, "polly-0123")


def test_only_googles_nvme_disks_are_asked(trees: Trees) -> None:
    google_nvme(trees, "nvme0n2", 2, {"device_name": "polly-0123"})
    trees.sys("nvme0n2", "device/model", "Amazon Elastic Block Store")

    with pytest.raises(DeviceNotFound):
        find(trees, "polly-0123")


@pytest.mark.parametrize(
    ("page", "found"),
    [
        (designator(0, "polly-0123"), True),
        (designator(3, "naa-word") + designator(0, "polly-0123"), True),
        (designator(1, "Google  PersistentDisk  polly-0123"), True),
        (designator(3, "polly-0123"), False),
        (designator(0, "polly-01234"), False),
        (designator(0, "polly-0123")[:-3], False),
        ("", False),
    ],
)
def test_googles_scsi_disks_are_told_by_their_designators(trees: Trees, page: str, found: bool) -> None:
    device = trees.device(
        "sdb", device__vendor="Google  ", device__model="PersistentDisk  ", device__vpd_pg83=f"\0\x83\0{chr(len(page))}{page}"
    )
    trees.link("scsi-0Google_PersistentDisk_polly-0123", "../../sdb")

    if found:
        assert find(trees, "polly-0123") == device
    else:
        with pytest.raises(DeviceNotFound):
            find(trees, "polly-0123")


def test_a_disk_that_another_vendor_calls_so_is_not_googles(trees: Trees) -> None:
    page = designator(0, "polly-0123")
    trees.device("sdb", device__vendor="Other", device__model="PersistentDisk", device__vpd_pg83=f"\0\x83\0{chr(len(page))}{page}")

    with pytest.raises(DeviceNotFound):
        find(trees, "polly-0123")


def test_the_command_to_a_namespace_is_as_large_as_the_kernel_reads_it() -> None:
    assert ctypes.sizeof(google_disks._Command) == google_disks.NVME_IOCTL_ADMIN_CMD >> 16 & 0x3FFF


def test_what_is_no_nvme_device_refuses_to_be_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="Inappropriate ioctl"):
        google_disks.identify_namespace(tmp_path / "file", 1)


def page_80(serial: str) -> str:
    return f"\0\x80\0{chr(len(serial))}{serial}"


def said(serial: str) -> bytes:
    return page_80(serial).encode("latin-1")


def test_a_disk_that_says_it_is_another_than_sysfs_shows_is_passed_over(trees: Trees) -> None:
    trees.device("sda", device__vpd_pg80=page_80("vol1"))
    device = trees.device("sdb", device__vpd_pg80=page_80("vol1"))
    trees.says["sda"] = said("vol2")

    assert find(trees, "vol1") == device


@pytest.mark.parametrize("answer", [b"", said("vol2"), said("vol12"), said("vol")], ids=["none", "another", "longer", "shorter"])
def test_a_disk_counts_only_if_it_answers_what_sysfs_shows(trees: Trees, answer: bytes) -> None:
    trees.device("sda", device__vpd_pg80=page_80("vol1"))
    trees.says["sda"] = answer

    with pytest.raises(DeviceNotFound):
        find(trees, "vol1")


def test_what_comes_after_the_end_of_a_page_is_no_part_of_it(trees: Trees) -> None:
    device = trees.device("sda", device__vpd_pg80=page_80("vol1"))
    trees.says["sda"] = said("vol1") + bytes(40)

    assert find(trees, "vol1") == device


def test_a_disk_whose_path_does_not_work_is_not_asked(trees: Trees) -> None:
    """The kernel would make whoever asks wait for the path, for minutes."""
    trees.device("sda", device__vpd_pg80=page_80("vol1"), device__state="blocked\n")
    verb = trees.sys("sda", "device/rescan")
    asked: list[Path] = []

    def inquire(device: Path, page: int) -> bytes:
        asked.append(device)
        return said("vol1")

    with pytest.raises(DeviceNotFound):
        devices.find("vol1", roots=replace(trees.roots, inquire=inquire), pace=FakeTime().pace, timeout_s=3.0)

    assert (asked, verb.read_text()) == ([], "")


def test_a_disk_that_has_become_another_is_read_anew_when_that_is_waited_for(trees: Trees) -> None:
    ghost = trees.device("sda", device__vpd_pg80=page_80("vol1"), device__state="running\n")
    trees.device("sdb", device__vpd_pg80=page_80("vol3"), device__state="running\n")
    verbs = [trees.sys(name, "device/rescan") for name in ("sda", "sdb")]
    trees.says["sda"] = said("vol2")

    def kernel() -> None:
        if verbs[0].read_text():
            trees.sys("sda", "device/vpd_pg80", page_80("vol2"))

    assert find(trees, "vol2", timeout_s=3.0, time=FakeTime(kernel)) == ghost
    assert [verb.read_text() for verb in verbs] == ["1", ""]


def test_the_request_to_a_scsi_disk_is_as_large_as_the_kernels_struct() -> None:
    assert ctypes.sizeof(scsi._Request) == 88


def test_what_is_no_scsi_disk_refuses_an_inquiry(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="Inappropriate ioctl"):
        scsi.inquire(tmp_path / "file", 0x83)


def test_a_link_is_followed_to_the_plain_device(trees: Trees) -> None:
    device = trees.device("nvme1n1", serial="vol1")
    link = trees.link("nvme-Amazon_Elastic_Block_Store_vol1", "../../nvme1n1")

    assert find(trees, "vol1", hint=link) == device


def test_a_stale_link_is_passed_over_when_the_right_device_is_there(trees: Trees) -> None:
    trees.device("nvme1n1", serial="another")
    device = trees.device("nvme2n1", serial="vol1")
    link = trees.link("nvme-Amazon_Elastic_Block_Store_vol1", "../../nvme1n1")

    assert find(trees, "vol1", hint=link) == device


def test_a_stale_link_that_stays_is_the_wrong_device(trees: Trees) -> None:
    trees.device("nvme1n1", serial="another")
    link = trees.link("nvme-Amazon_Elastic_Block_Store_vol1", "../../nvme1n1")

    with pytest.raises(WrongDevice, match="'another', the volume's is 'vol1'"):
        find(trees, "vol1", hint=link, timeout_s=2.0)


def test_a_link_that_is_mended_meanwhile_is_waited_for(trees: Trees) -> None:
    trees.device("nvme1n1", serial="another")
    link = trees.link("nvme-x_vol1", "../../nvme1n1")

    def mend() -> None:
        trees.device("nvme2n1", serial="vol1")
        trees.link("nvme-x_vol1", "../../nvme2n1")

    time = FakeTime(then=mend)
    assert find(trees, "vol1", hint=link, timeout_s=60.0, time=time) == str(trees.roots.dev / "nvme2n1")
    assert time.at < 2.0


def test_a_device_that_never_comes_is_not_found_at_the_deadline(trees: Trees) -> None:
    time = FakeTime()

    with pytest.raises(DeviceNotFound, match=r"serial vol1 came up on this node within 3.0 s"):
        find(trees, "vol1", hint=str(trees.roots.dev / "nvme1n1"), timeout_s=3.0, time=time)
    assert time.at == pytest.approx(3.0)


def test_no_serial_is_no_wildcard(trees: Trees) -> None:
    trees.device("sda")

    with pytest.raises(WrongDevice):
        find(trees, "", hint=str(trees.roots.dev / "sda"))


def test_a_hint_that_leaves_dev_is_refused(trees: Trees) -> None:
    (trees.root / "image").touch()
    (trees.root / "dev" / "mapper").mkdir()
    (trees.root / "dev" / "mapper" / "vg-lv").touch()

    for target in (trees.root / "image", trees.root / "dev" / "mapper" / "vg-lv"):
        with pytest.raises(UnsafePath, match="no plain device"):
            find(trees, "vol1", hint=trees.link("x_vol1", str(target)))


def test_a_hint_that_is_no_block_device_is_refused(trees: Trees) -> None:
    device = trees.device("null1", serial="vol1")
    trees.not_block = frozenset({"null1"})

    with pytest.raises(UnsafePath, match="no block device"):
        find(trees, "vol1", hint=device)
    with pytest.raises(DeviceNotFound):
        find(trees, "vol1")


def test_a_link_of_another_kind_does_not_stop_the_search(trees: Trees) -> None:
    (trees.root / "dev" / "dm-0").touch()
    trees.link("dm-name-vol1", "../../dm-0")
    device = trees.device("sdb", serial="vol1")

    assert find(trees, "vol1") == device


def test_a_device_that_another_is_built_on_is_refused(trees: Trees) -> None:
    device = trees.device("sdb", serial="vol1")
    disks.refuse_held(device, trees.roots, alone=True)
    trees.sys("sdb", "holders/dm-3")

    with pytest.raises(DeviceInUse, match="in use by dm-3"):
        disks.refuse_held(device, trees.roots, alone=True)


def test_rescans_write_what_the_kernel_wants_where_the_kind_has_it(trees: Trees) -> None:
    scsi, nvme, virtio = trees.device("sdb"), trees.device("nvme1n1"), trees.device("vdb")
    verb = trees.sys("sdb", "device/rescan")
    controller = trees.sys("nvme1n1", "device/rescan_controller")
    shared = trees.device("nvme2n1")
    paths = [trees.sys("nvme2n1", f"device/nvme{number}/rescan_controller") for number in (2, 3)]

    for device in (scsi, nvme, virtio, shared):
        disks.rescan_size(device, trees.roots)

    assert [file.read_text() for file in (verb, controller, *paths)] == ["1"] * 4


def test_scsi_hosts_look_for_a_device_that_is_waited_for(trees: Trees) -> None:
    scan = trees.root / "sys" / "class" / "scsi_host" / "host0" / "scan"
    scan.parent.mkdir(parents=True)
    scan.touch()

    with pytest.raises(DeviceNotFound):
        find(trees, "vol1")
    assert scan.read_text() == ""
    with pytest.raises(DeviceNotFound):
        find(trees, "vol1", timeout_s=1.0)
    assert scan.read_text() == "- - -"


def test_scsi_hosts_are_told_again_to_look_for_a_device_that_they_did_not_see_the_first_time(trees: Trees) -> None:
    """As where the way to the array was lost when the volume was mapped: when it is back the kernel does not look by itself."""
    scan = trees.root / "sys" / "class" / "scsi_host" / "host0" / "scan"
    scan.parent.mkdir(parents=True)

    def come_back() -> None:
        scan.write_text("nobody has looked since")

    time = FakeTime(then=come_back)
    with pytest.raises(DeviceNotFound):
        find(trees, "vol1", timeout_s=30.0, time=time)
    assert scan.read_text() == "- - -"


def test_only_a_scsi_disk_is_forgotten(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(devices, "flush", flushed.append)
    scsi, nvme = trees.device("sdb"), trees.device("nvme1n1")
    verb = trees.sys("sdb", "device/delete")

    disks.forget(scsi, trees.roots)
    disks.forget(nvme, trees.roots)

    assert (verb.read_text(), flushed) == ("1", [scsi])


def test_the_size_of_what_is_no_device_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NodeError, match="ioctl 0x80081272 failed"):
        devices.size_bytes(str(tmp_path / "file"))
    with pytest.raises(NodeError, match="No such file"):
        devices.size_bytes(str(tmp_path / "missing"))
