"""The node's journal: what was written is read back, a torn last line never was."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage.errors import NodeError
from storage.node.journal import Journal, Mark, read
from storage.node.staged import may_be_held
from tests.nodes import Node, plan


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    ticks = itertools.count(100.0)
    return Journal(tmp_path / "journal", clock=lambda: next(ticks))


def test_entries_come_back_in_order_with_their_facts(journal: Journal) -> None:
    journal.intent("mkfs", "claim-1", durable=True, device="/dev/loop3")
    journal.result("mkfs", "claim-1", took_ms=12.5)
    journal.failure("mount", "claim-1", ValueError("no"))

    found = journal.entries()

    assert [(entry.at, entry.mark, entry.step, entry.subject) for entry in found] == [
        (100.0, Mark.INTENT, "mkfs", "claim-1"),
        (101.0, Mark.RESULT, "mkfs", "claim-1"),
        (102.0, Mark.FAILURE, "mount", "claim-1"),
    ]
    assert [dict(entry.facts) for entry in found] == [
        {"device": "/dev/loop3"},
        {"took_ms": 12.5},
        {"error": "ValueError", "message": "no"},
    ]


def test_a_step_without_an_end_was_cut_off(journal: Journal) -> None:
    journal.intent("attach", "claim-1")
    journal.result("attach", "claim-1")
    journal.intent("probe", "claim-1")
    journal.failure("probe", "claim-1", ValueError("no"))
    journal.intent("mkfs", "claim-1")
    journal.intent("attach", "claim-2")

    assert [(entry.step, entry.subject) for entry in journal.cut_off()] == [("mkfs", "claim-1"), ("attach", "claim-2")]


@pytest.mark.parametrize("torn", ['{"at": 1', '{"at": 103.0, "mark": "result", "step": "mkfs", "subject": "claim-1"}', "x" * 9000])
def test_a_torn_last_line_is_none_and_the_next_process_goes_on(journal: Journal, torn: str) -> None:
    journal.intent("mkfs", "claim-1")
    with journal.path.open("a") as file:
        file.write(torn)

    assert [entry.step for entry in read(journal.path)] == ["mkfs"]
    with Journal(journal.path, clock=lambda: 200.0) as following:
        following.intent("mount", "claim-1")
        assert [entry.step for entry in following.entries()] == ["mkfs", "mount"]


def test_a_journal_of_nothing_but_a_torn_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text('{"at": 1')

    with Journal(tmp_path / "journal", clock=lambda: 1.0) as journal:
        assert journal.entries() == ()


def test_a_line_in_the_middle_that_no_journal_writes_is_an_error(journal: Journal) -> None:
    journal.intent("mkfs", "claim-1")
    with journal.path.open("a") as file:
        file.write("junk\n")
    journal.result("mkfs", "claim-1")

    with pytest.raises(NodeError, match="cannot be read"):
        journal.entries()


def test_a_link_in_the_place_of_the_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NodeError):
        Journal(tmp_path / "journal", clock=lambda: 1.0)


def test_it_is_for_its_owner_alone(journal: Journal) -> None:
    assert journal.path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 16 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def fill_with_lines(journal: Journal) -> None:
    """Raises NodeError once the last block is full."""
    for _ in range(200):
        journal.intent("attach", "claim-2", device="/dev/loop3")


@pytest.mark.root
def test_a_line_for_which_there_is_no_room_leaves_nothing_of_itself(small_disk: Path) -> None:
    journal = Journal(small_disk / "journal", clock=lambda: 1.0)
    journal.intent("attach", "claim-1")
    fill(small_disk)

    with pytest.raises(NodeError, match="No space left"):
        fill_with_lines(journal)
    written = len(journal.entries())
    (small_disk / "full").unlink()
    journal.result("attach", "claim-1")

    assert len(journal.entries()) == written + 1


@pytest.mark.root
def test_a_task_that_fills_the_disk_of_its_sandbox_keeps_no_volume_by_it(tmp_path: Path, small_disk: Path) -> None:
    with Node(tmp_path) as node:
        node.journal = Journal(small_disk / "journal", clock=lambda: 1.0)
        staged = node.stage(plan())
        fill(small_disk)
        with pytest.raises(NodeError, match="No space left"):
            fill_with_lines(node.journal)

        node.unstage(staged)

        assert node.platform.device("claim-1") is None
        with pytest.raises(NodeError, match="No space left") as caught:
            node.stage(plan("claim-2", volume_id="vol-2"))
        assert not may_be_held(caught.value)
        assert not node.platform.image("claim-2").exists()
