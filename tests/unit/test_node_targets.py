"""Where a mount may go, and who keeps one busy: no root needed to refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.errors import UnsafePath
from storage.node.holders import holders
from storage.node.targets import Target, empty_folder, remove_folder


def reach(target: Target) -> None:
    with empty_folder(target):
        pass


def test_a_missing_target_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with empty_folder(Target.below(tmp_path, "claim-1")) as place:
        assert os.path.samefile(place, tmp_path / "claim-1")
    assert (tmp_path / "claim-1").stat().st_mode & 0o777 == 0o700


def test_an_open_folder_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "claim-1").mkdir(mode=0o777)

    reach(Target.below(tmp_path, "claim-1"))

    assert (tmp_path / "claim-1").stat().st_mode & 0o777 == 0o700


def test_the_root_itself_may_be_a_link_of_the_operator(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")

    target = Target.below(tmp_path / "root", tmp_path / "root" / "claim-1")

    assert str(target) == str(tmp_path / "real" / "claim-1")


@pytest.mark.parametrize("path", ["", ".", "..", "a/../../b", "/etc", "a\0b"])
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafePath):
        Target.below(tmp_path, path)


def test_a_neighbour_with_the_roots_name_as_prefix_is_outside(tmp_path: Path) -> None:
    with pytest.raises(UnsafePath, match="not under"):
        Target.below(tmp_path / "root", tmp_path / "rootkit" / "x")


@pytest.mark.parametrize("path", ["link", "link/deeper", "folder/link/deeper"])
def test_links_are_refused_in_every_place(tmp_path: Path, path: str) -> None:
    (tmp_path / "elsewhere" / "deeper").mkdir(parents=True)
    (tmp_path / "root" / "folder").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "folder" / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafePath, match="link"):
        reach(Target.below(tmp_path / "root", path))


def test_a_link_to_a_folder_inside_the_root_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    with pytest.raises(UnsafePath):
        reach(Target.below(tmp_path, "link"))


def test_a_file_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UnsafePath):
        reach(Target.below(tmp_path, "file"))


def test_a_folder_with_something_in_it_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "full" / "data").mkdir(parents=True)

    with pytest.raises(UnsafePath, match="not empty"):
        reach(Target.below(tmp_path, "full"))


def test_only_an_empty_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "full" / "data").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")

    for name in ("full", "link", "missing", "empty"):
        remove_folder(Target.below(tmp_path, name))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "link"]


def test_holders_are_named_by_where_they_are_and_what_they_have_open(tmp_path: Path) -> None:
    def process(pid: int, name: str, **links: str) -> None:
        folder = tmp_path / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(f"{name}\n", encoding="latin-1")  # a process may call itself anything
        for place, target in links.items():
            (folder / place.replace("_", "/")).symlink_to(target)

    process(10, "b\xe4sh", cwd="/mnt/data/deep")
    process(9, "postgres", cwd="/", fd_3="/mnt/data/base/1")
    process(11, "other", cwd="/mnt/database", fd_4="/mnt/data2", root="/")
    process(12, "mapper", cwd="/")
    (tmp_path / "12" / "maps").write_text("7f00-7f01 r-xp 00000000 07:00 12 /mnt/data/lib.so\n7f02-7f03 rw-p 00000000 00:00 0 [heap]\n")
    (tmp_path / "self").mkdir()

    assert holders("/mnt/data", tmp_path) == ["9 (postgres)", "10 (b\ufffdsh)", "12 (mapper)"]
