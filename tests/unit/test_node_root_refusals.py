"""Devices on which something is already, as they really are: each refused for its own reason, and not one byte changed.

For each there are three plans: a new volume (would be formatted), an imported one (would be taken over) and a born one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.errors import DamagedFilesystem, DeviceInUse, NodeError, NotAsBorn, NotBlank, NotFormatted, PollyError, WrongDevice
from storage.model import Access, Birth, ExternalId, VolumePlan
from storage.node import filesystems
from storage.node.births import filesystem_uuid
from storage.node.commands import Output, run
from storage.node.staged import may_be_held
from storage.node.steps import Machine
from tests.conftest import leave_out
from tests.nodes import Node, digest, plan

pytestmark = pytest.mark.root

UUID = "11111111-2222-3333-4444-555555555555"
Fill = Callable[[Path], None]


def tool(*command: str, says: str = "") -> None:
    if shutil.which(command[0]) is None:
        leave_out(f"needs {command[0]}")
    subprocess.run(command, input=says, check=True, capture_output=True, text=True)


def mbr(image: Path) -> None:
    tool("sfdisk", "--no-reread", "-q", str(image), says="label: dos\n2048,,L\n")


def gpt(image: Path) -> None:
    tool("sfdisk", "--no-reread", "-q", str(image), says="label: gpt\n2048,,L\n")


def gpt_without_protective_mbr(image: Path) -> None:
    gpt(image)
    with image.open("r+b") as file:
        file.write(bytes(512))


def luks1(image: Path) -> None:
    luks(image, "luks1")


def luks2(image: Path) -> None:
    luks(image, "luks2")


def luks(image: Path, kind: str) -> None:
    fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    tool("cryptsetup", "luksFormat", "-q", "--type", kind, *fast, str(image), "-", says="password")


def lvm(image: Path) -> None:
    """An LVM2 physical volume's label, in the second sector, as pvcreate writes it."""
    header = b"LABELONE" + (1).to_bytes(8, "little")
    body = (32).to_bytes(4, "little") + b"LVM2 001" + b"p" * 32 + (64 << 20).to_bytes(8, "little") + bytes(512 - 72)
    crc = _lvm_crc((32).to_bytes(4, "little") + body[4:])
    with image.open("r+b") as file:
        file.seek(512)
        file.write(header + crc.to_bytes(4, "little") + body)


def _lvm_crc(data: bytes) -> int:
    crc = 0xF597A6CF
    for byte in data[: 512 - 20]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return crc


def swap(image: Path) -> None:
    tool("mkswap", "-q", str(image))


def raid(image: Path) -> None:
    """The magic of a Linux RAID superblock of version 1.2, with just enough that libblkid takes it."""
    block = bytearray(4096)
    block[0:4] = (0xA92B4EFC).to_bytes(4, "little")
    block[4:8] = (1).to_bytes(4, "little")
    block[16:32] = os.urandom(16)
    block[128 + 8 + 8 : 128 + 24] = (8).to_bytes(8, "little")
    with image.open("r+b") as file:
        file.seek(4096)
        file.write(block)


def other_filesystem(image: Path) -> None:
    tool("mkfs.ext2", "-q", "-F", str(image))


def ext4(image: Path, uuid: str = UUID) -> None:
    tool("mkfs.ext4", "-q", "-F", "-U", uuid, str(image))


def ext4_inside_a_partition_table(image: Path) -> None:
    """An old table that a later mkfs left in the first sector."""
    ext4(image)
    with image.open("r+b") as file:
        file.seek(446)
        file.write(bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (10000).to_bytes(4, "little"))
        file.seek(510)
        file.write(b"\x55\xaa")


def ext4_with_a_wrong_checksum(image: Path) -> None:
    ext4(image)
    with image.open("r+b") as file:
        file.seek(1024 + 0x78)
        file.write(b"label")


FOREIGN: list[Fill] = [
    mbr,
    gpt,
    gpt_without_protective_mbr,
    luks1,
    luks2,
    lvm,
    swap,
    raid,
    other_filesystem,
    ext4_inside_a_partition_table,
]
EXTERNAL = ExternalId("claim-1")
NEW = plan()
IMPORTED = plan("claim-2", token="import", external_id=EXTERNAL)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as node:
        yield node


def born(node: Node, **changes: Any) -> VolumePlan:
    birth = Birth(serial=node.platform.serial_of(EXTERNAL), filesystem="ext4", filesystem_uuid=UUID)
    return plan("claim-3", **({"token": "claim-1", "external_id": EXTERNAL, "birth": birth} | changes))


@contextmanager
def unchanged(image: Path) -> Iterator[None]:
    before = digest(image)
    yield
    assert digest(image) == before


def refused(node: Node, plan: VolumePlan, error: type[PollyError]) -> PollyError:
    """The refusal, after which nothing is attached, mounted or changed."""
    with unchanged(node.platform.image("claim-1")), pytest.raises(error) as caught:
        node.stage(plan)
    node.platform.let_go("claim-1")
    assert not (node.staging / plan.claim_id).exists()
    assert not may_be_held(caught.value)
    return caught.value


@pytest.mark.parametrize("fill", FOREIGN)
def test_a_device_with_something_on_it_is_never_formatted(node: Node, fill: Fill) -> None:
    fill(node.platform.put("claim-1"))

    refused(node, NEW, NotBlank)


@pytest.mark.parametrize("fill", FOREIGN)
def test_a_device_with_something_else_on_it_is_never_taken_over(node: Node, fill: Fill) -> None:
    fill(node.platform.put("claim-1"))

    refused(node, IMPORTED, NotFormatted)


@pytest.mark.parametrize("fill", FOREIGN)
def test_a_device_with_something_else_on_it_is_no_born_volume(node: Node, fill: Fill) -> None:
    fill(node.platform.put("claim-1"))

    refused(node, born(node), NotAsBorn)


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (mbr, "a dos partition table"),
        (gpt, "a gpt partition table"),
        (luks2, "the crypto_LUKS signature"),
        (lvm, "the LVM2_member signature"),
        (swap, "the swap signature"),
        (raid, "the linux_raid_member signature"),
        (other_filesystem, "the ext2 filesystem"),
    ],
)
def test_the_refusal_says_what_is_there(node: Node, fill: Fill, words: str) -> None:
    fill(node.platform.put("claim-1"))

    assert words in str(refused(node, NEW, NotBlank))


def test_a_superblock_with_a_wrong_checksum_is_for_a_person(node: Node) -> None:
    ext4_with_a_wrong_checksum(node.platform.put("claim-1"))

    refused(node, NEW, NotBlank)
    refused(node, IMPORTED, DamagedFilesystem)
    refused(node, born(node), DamagedFilesystem)


def test_a_filesystem_of_the_wanted_kind_is_not_formatted_either(node: Node) -> None:
    ext4(node.platform.put("claim-1"))

    refused(node, NEW, NotBlank)


def test_a_blank_device_is_not_taken_for_an_imported_or_a_born_volume(node: Node) -> None:
    node.platform.put("claim-1")

    assert "holds nothing" in str(refused(node, IMPORTED, NotFormatted))
    refused(node, born(node), NotAsBorn)


def test_another_uuid_is_another_volume(node: Node) -> None:
    ext4(node.platform.put("claim-1"), uuid="99999999-2222-3333-4444-555555555555")

    assert "filesystem UUID" in str(refused(node, born(node), NotAsBorn))


def test_another_filesystem_than_the_profiles_is_not_taken_over(node: Node) -> None:
    ext4(node.platform.put("claim-1"))

    refused(node, plan("claim-2", token="import", external_id=EXTERNAL, filesystem="xfs"), NotFormatted)


def test_a_birth_certificate_of_another_serial_is_refused(node: Node) -> None:
    ext4(node.platform.put("claim-1"))
    born_elsewhere = plan("claim-3", token="x", external_id=EXTERNAL, birth=Birth(serial="other", filesystem="ext4", filesystem_uuid=UUID))

    assert "serial" in str(refused(node, born_elsewhere, NotAsBorn))


def test_a_device_of_another_serial_is_not_touched(node: Node) -> None:
    node.platform.put("claim-1")
    node.platform.serial = "another"
    node.machine = Machine(device_wait_s=0.0)

    refused(node, NEW, WrongDevice)


def test_a_device_of_another_size_than_the_platform_said_is_not_formatted(node: Node) -> None:
    node.platform.put("claim-1")
    node.platform.says_mib = 65

    assert "where a new volume of 65 MiB was to be" in str(refused(node, NEW, NotBlank))


def test_a_device_that_is_mounted_elsewhere_is_left_there(node: Node, tmp_path: Path) -> None:
    ext4(node.platform.put("claim-1"))
    device = node.platform.attach(EXTERNAL, "node", epoch=1).device
    (tmp_path / "elsewhere").mkdir()
    tool("mount", device, str(tmp_path / "elsewhere"))
    try:
        with pytest.raises(DeviceInUse) as caught:
            node.stage(born(node))
        assert os.path.ismount(tmp_path / "elsewhere")
        assert node.platform.device("claim-1") == device
        assert may_be_held(caught.value)
    finally:
        tool("umount", str(tmp_path / "elsewhere"))
        node.platform.detach(EXTERNAL, "node")


def test_mkfs_itself_is_kept_off_a_mounted_device(node: Node, tmp_path: Path) -> None:
    ext4(node.platform.put("claim-1"))
    device = node.platform.attach(EXTERNAL, "node", epoch=1).device
    (tmp_path / "elsewhere").mkdir()
    tool("mount", device, str(tmp_path / "elsewhere"))
    try:
        with pytest.raises(DeviceInUse):
            filesystems.make(device, "ext4", uuid=UUID, mkfs_options=(), size_mib=64, run=run)
    finally:
        tool("umount", str(tmp_path / "elsewhere"))
        node.platform.detach(EXTERNAL, "node")


# --- half-made ------------------------------------------------------------------------------------------------


def begun(image: Path, filesystem: str, size_mib: int, share: float) -> None:
    """What a mkfs of the first claim leaves that wrote only the first part of what it had to write."""
    whole = image.with_suffix(".whole")
    with whole.open("wb") as file:
        file.truncate(size_mib << 20)
    uuid = ["-U", filesystem_uuid(NEW)] if filesystem == "ext4" else ["-m", f"uuid={filesystem_uuid(NEW)}"]
    tool(f"mkfs.{filesystem}", "-q", *uuid, str(whole))
    with whole.open("rb") as source, image.open("r+b") as target:
        target.write(source.read(int(share * (size_mib << 20))))
    whole.unlink()


@pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])
@pytest.mark.parametrize("share", [0.0003, 0.01, 0.2])
def test_a_half_made_filesystem_of_our_own_is_refused(node: Node, filesystem: str, size_mib: int, share: float) -> None:
    begun(node.platform.put("claim-1", size_mib), filesystem, size_mib, share)

    refused(node, plan(filesystem=filesystem, size_mib=size_mib), DamagedFilesystem)


@pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])
def test_a_half_made_filesystem_is_not_taken_over(node: Node, filesystem: str, size_mib: int) -> None:
    begun(node.platform.put("claim-1", size_mib), filesystem, size_mib, 0.2)

    refused(node, plan("claim-2", token="x", external_id=EXTERNAL, filesystem=filesystem, size_mib=size_mib), DamagedFilesystem)


def test_an_xfs_whose_mkfs_says_that_it_is_in_progress_is_refused(node: Node) -> None:
    image = node.platform.put("claim-1", 320)
    tool("mkfs.xfs", "-q", "-m", f"uuid={filesystem_uuid(NEW)}", str(image))
    tool("xfs_db", "-x", "-c", "sb 0", "-c", "write -d inprogress 1", str(image))

    assert "never finished" in str(refused(node, plan(filesystem="xfs", size_mib=320), DamagedFilesystem))


def test_a_finished_filesystem_of_our_own_is_taken_for_ours(node: Node) -> None:
    ext4(node.platform.put("claim-1"), uuid=filesystem_uuid(NEW))

    staged = node.stage(NEW)

    assert staged.formatted
    assert "mkfs" not in staged.took_ms
    node.unstage(staged)


def test_a_read_only_claim_leaves_every_byte(node: Node) -> None:
    image = node.platform.put("claim-1")
    ext4(image)
    with unchanged(image):
        staged = node.stage(born(node, token="x", access=Access.RO))
        with pytest.raises(OSError, match="Read-only"):
            Path(staged.path, "file").touch()
        node.unstage(staged)


def test_a_broken_born_filesystem_is_for_a_person(node: Node) -> None:
    image = node.platform.put("claim-1")
    ext4(image)
    with image.open("r+b") as file:
        file.seek(1024 + 0x3A)
        file.write((2).to_bytes(2, "little"))
        file.seek(8192)
        file.write(b"\xff" * (8 << 20))

    with pytest.raises((DamagedFilesystem, NotAsBorn)) as caught:
        node.stage(born(node))
    assert not may_be_held(caught.value)
    node.platform.let_go("claim-1")


def test_a_tool_that_is_missing_stops_before_anything_is_written(node: Node) -> None:
    image = node.platform.put("claim-1")

    def missing(command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        raise NodeError(command="wipefs", target=paths[0], reason="this program is not installed")

    node.machine = Machine(run=missing)
    with unchanged(image), pytest.raises(NodeError, match="not installed"):
        node.stage(NEW)


@pytest.mark.parametrize("due", [("-c", "1"), ("-i", "1d")], ids=["after so many mounts", "after so long"])
def test_an_ext4_that_may_be_due_for_a_whole_check_is_checked_on_the_leash(tmp_path: Path, due: tuple[str, str]) -> None:
    """An e2fsck that writes must not outlive the executor that has begun it."""
    ext4(image := Node(tmp_path).platform.put("disk"))
    assert filesystems.superblock(str(image), "ext4").is_clean
    tool("tune2fs", *due, str(image))
    assert not filesystems.superblock(str(image), "ext4").is_clean
