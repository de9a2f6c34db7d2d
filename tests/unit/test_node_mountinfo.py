"""Reading /proc/PID/mountinfo."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import NodeError
from storage.node import mountinfo

TEXT = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt2 ro,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue
41 36 7:3 / /srv/with\\040space\\134x rw,nosuid,nodev,relatime - ext4 /dev/loop3 rw
42 36 7:4 / /srv/with\\040space\\134x rw - xfs /dev/loop4 rw
"""


def test_each_field_is_found_with_and_without_optional_ones() -> None:
    plain, optional, *_ = mountinfo.parse(TEXT)

    assert (plain.mount_id, plain.device, plain.target, plain.filesystem) == (22, "0:21", "/proc", "proc")
    assert (optional.root, optional.target, optional.source) == ("/mnt1", "/mnt2", "/dev/root")
    assert optional.read_only
    assert optional.options == {"ro", "noatime"}


def test_the_last_mount_on_a_target_is_what_one_sees() -> None:
    found = mountinfo.top("/srv/with space\\x", mountinfo.parse(TEXT))

    assert found is not None
    assert found.device == "7:4"
    assert mountinfo.top("/srv", mountinfo.parse(TEXT)) is None


def test_it_is_read_of_the_calling_thread(tmp_path: Path) -> None:
    (tmp_path / "thread-self").mkdir()
    (tmp_path / "thread-self" / "mountinfo").write_text(TEXT)

    assert len(mountinfo.read(tmp_path)) == 4
    found = mountinfo.at("/srv/with space\\x", tmp_path)
    assert found is not None
    assert found.device == "7:4"
    assert mountinfo.at("/srv", tmp_path) is None


def test_junk_is_an_error_and_not_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "thread-self").mkdir()
    (tmp_path / "thread-self" / "mountinfo").write_text("22 27\n")

    with pytest.raises(NodeError):
        mountinfo.read(tmp_path)
