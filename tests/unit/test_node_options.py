"""What a profile may say to mkfs and mount."""

from __future__ import annotations

import pytest

from storage.errors import Invalid
from storage.node import syscalls
from storage.node.filesystems import kind_of
from storage.node.options import check_mkfs, check_mount


def test_mkfs_options_are_pairs_and_the_same_flag_is_joined() -> None:
    assert check_mkfs("ext4", ["-i", "8192", "-O", "^has_journal", "-O", "quota"]) == {"-i": "8192", "-O": "^has_journal,quota"}


@pytest.mark.parametrize(
    ("filesystem", "options"),
    [
        ("ext4", ["-U", "clear"]),
        ("ext4", ["-F", "1"]),
        ("ext4", ["-d", "/etc"]),
        ("ext4", ["-i"]),
        ("ext4", ["-i", "8192 /dev/sda"]),
        ("ext4", ["-i", "-n"]),
        ("ext4", ["-J", "device=sda"]),
        ("ext4", ["-O", "journal_dev"]),
        ("ext4", ["-E", "offset=4096"]),
        ("xfs", ["-m", "uuid=00000000-0000-0000-0000-000000000001"]),
        ("xfs", ["-l", "logdev=sda"]),
        ("xfs", ["-d", "name=sda"]),
        ("xfs", ["-d", "file=1"]),
        ("xfs", ["-p", "proto"]),
        ("btrfs", []),
    ],
)
def test_what_could_lead_mkfs_elsewhere_is_refused(filesystem: str, options: list[str]) -> None:
    with pytest.raises(Invalid):
        check_mkfs(filesystem, options)


def test_a_profile_can_change_our_defaults_but_not_our_own_words() -> None:
    ext4 = kind_of("ext4").mkfs("u", {"-m": "1", "-E": "stride=4"}, is_shared=True)
    xfs = kind_of("xfs").mkfs("u", {"-m": "reflink=0"}, is_shared=False)

    assert ext4 == ["mkfs.ext4", "-q", "-F", "-m", "1", "-e", "remount-ro", "-E", "stride=4,nodiscard", "-O", "mmp", "-U", "u"]
    assert xfs == ["mkfs.xfs", "-q", "-K", "-m", "reflink=0,uuid=u"]


def test_mount_options_always_have_nosuid_and_nodev() -> None:
    plain, chosen = check_mount("ext4", []), check_mount("ext4", ["noatime,noexec", "data=journal", "defaults", "discard"])

    assert plain.flags == syscalls.MS_NOSUID | syscalls.MS_NODEV
    assert chosen.flags == plain.flags | syscalls.MS_NOATIME | syscalls.MS_NOEXEC
    assert chosen.data == "data=journal,discard"
    assert chosen.shown == {"nosuid", "nodev", "noatime", "noexec"}


@pytest.mark.parametrize(
    ("filesystem", "word"), [("ext4", "errors=remount-ro"), ("ext4", "commit=30"), ("xfs", "allocsize=64m"), ("xfs", "inode64")]
)
def test_a_filesystem_has_options_of_its_own(filesystem: str, word: str) -> None:
    assert check_mount(filesystem, [word]).data == word


@pytest.mark.parametrize(
    "word",
    [
        *("suid", "dev", "bind", "remount", "loop", "ro", "norecovery", "noload", "logdev=/dev/sda", "x y", "", "a=b=c"),
        *(
            "errors=panic",
            "nobarrier",
            "barrier=0",
            "data=writeback",
            "journal_async_commit",
            "sb=131072",
            "abort",
            "test_dummy_encryption",
        ),
        *("context=system_u:object_r:etc_t:s0", "fscontext=u:r:t", "commit", "commit=", "discard=1", "allocsize=64m"),
    ],
)
def test_mount_options_that_open_a_hole_are_refused(word: str) -> None:
    with pytest.raises(Invalid, match=r"of an ext4 mount a profile or an app may say .*commit=NUMBER"):
        check_mount("ext4", [word])
