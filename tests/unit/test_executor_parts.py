"""The small parts of the executor: the node's file, who the task is, the inbox, and what a receipt is."""

from __future__ import annotations

import errno
import json
import os
import pwd
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from unittest.mock import MagicMock, Mock

import pytest

from executors.agent import KillAsked, LaunchAsked, MessageCame, ShutdownAsked
from executors.config import NodeConfig, prepare_staging_dir, read_config
from executors.identity import command_line, find_user
from executors.inbox import Event, Inbox, Stop
from executors.task import Outcome, TaskRun
from executors.volumes import NodeVolume, Volumes
from executors.wire import FAILED, RELEASED, VERSION, Launch, Progress, Receipt, decode_receipt, encode
from storage.errors import Invalid
from storage.model import Birth, ClaimId, ExternalId
from storage.node.staged import Staged
from tests.nodes import plan

# --- the node's file


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert read_config(tmp_path / "agent.toml") == NodeConfig()


def test_the_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('node = "vm-17"\nstaging_dir = "/srv/polly"\n[platforms.rack]\nroot = "/mnt/rack"\n[platforms.cloud]\nnode = "i-1"\n')
    file.chmod(0o644)
    assert read_config(file) == NodeConfig(
        node="vm-17",
        staging_dir=Path("/srv/polly"),
        platforms={"rack": {"root": "/mnt/rack"}, "cloud": {}},
        identities={"cloud": "i-1"},
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes = 'x'", "nodes"),
        ("node = 1", "node"),
        ("staging_dir = 'run'", "absolute"),
        ("[platforms]\nrack = 1", "platforms.rack"),
        ("[platforms.rack]\nnode = 7", "platforms.rack.node"),
        ("[platforms.rack]\nnode = ''", "platforms.rack.node"),
        ("node =", "agent.toml"),
        ("\udcff", "agent.toml"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    file.chmod(0o644)
    with pytest.raises(Invalid, match=words):
        read_config(file)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("")
    file.chmod(mode)
    with pytest.raises(Invalid, match="only its owner"):
        read_config(file)


@pytest.mark.root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.touch(mode=0o600)
    os.chown(file, 65534, 65534)
    with pytest.raises(Invalid, match="must belong to root"):
        read_config(file)


def test_the_staging_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    prepare_staging_dir(tmp_path / "staging")
    prepare_staging_dir(tmp_path / "staging")
    assert (tmp_path / "staging").stat().st_mode & 0o777 == 0o700


def test_a_staging_folder_that_others_may_write_or_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("/")
    for name in ("open", "link", "missing/folder"):
        with pytest.raises(Invalid, match="staging_dir"):
            prepare_staging_dir(tmp_path / name)


# --- the task


def test_a_task_has_a_line_for_the_shell_or_a_program() -> None:
    assert command_line(Launch(cmd="a | b", lease_s=1)) == ("/bin/sh", "-c", "a | b")
    assert command_line(Launch(args=("a", "b"), lease_s=1)) == ("a", "b")
    for both in (Launch(lease_s=1), Launch(cmd="a", args=("b",), lease_s=1)):
        with pytest.raises(Invalid, match="either cmd or args"):
            command_line(both)


def test_without_a_name_the_task_runs_as_we_do() -> None:
    assert find_user(None).uid == os.geteuid()


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(Invalid, match="no such user"):
        find_user("no-such-user")


def test_only_root_can_run_a_task_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    assert find_user("nobody").name == "nobody"
    with pytest.raises(Invalid, match="only root"):
        find_user("daemon")


def test_a_user_without_a_name_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert (find_user(None).name, find_user(None).uid) == ("54321", 54321)


# --- the release


def test_volumes_are_released_though_no_thread_can_be_started(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task in the same pids cgroup may have used them up."""
    run = TaskRun(launched("t"), Mock(), inbox, Mock(), Mock())
    run.volumes = volumes = MagicMock()
    monkeypatch.setattr(threading.Timer, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    run._release(Outcome(state="TASK_FINISHED", message=""))
    volumes.release.assert_called_once_with()


def test_whatever_fails_to_be_taken_out_of_sight_the_volumes_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = Volumes((plan(),), (), {}, overrides={}, identities={}, node="n1", staging_dir=tmp_path, sandbox=tmp_path)
    volumes._published["data"] = None
    monkeypatch.setattr("executors.volumes.unpublish", Mock(side_effect=UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a name")))
    volumes.release()
    assert [volume.step for volume in volumes] == [RELEASED]


def test_a_volume_of_which_nobody_knows_how_far_it_came_may_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = Volumes((plan(),), (), {}, overrides={}, identities={}, node="n1", staging_dir=tmp_path, sandbox=tmp_path)
    volumes.names[plan().platform] = "n1"
    monkeypatch.setattr(volumes, "_attacher", Mock())
    monkeypatch.setattr("executors.volumes.stage", Mock(side_effect=OSError(errno.EROFS, "its lock cannot be removed")))
    with pytest.raises(OSError, match="its lock"):
        volumes.bring(find_user(None), deadline=Mock(), check=lambda: None, ask=Mock())
    volumes.release()
    (said,) = [volume.progress() for volume in volumes]
    assert (said.step, said.held, said.error and said.error.code) == (FAILED, True, "NodeError")


# --- the inbox


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(SimpleQueue[Event](), clock=lambda: 0.0, shutdown_grace_s=2.0, refuse=lambda launched: None)


def launched(task_id: str) -> LaunchAsked:
    return LaunchAsked(task_id=task_id, data=b"", received_at=0.0)


def test_looking_takes_what_is_there_and_does_not_wait(inbox: Inbox) -> None:
    inbox.look()
    inbox.put(launched("task-1"))
    inbox.look()
    assert inbox.launch == launched("task-1")


def test_only_the_first_launch_is_the_executors(inbox: Inbox) -> None:
    refused: list[LaunchAsked] = []
    inbox._refuse = refused.append
    inbox.put(launched("task-1"))
    inbox.put(launched("task-2"))
    inbox.look()
    assert (inbox.launch, refused) == (launched("task-1"), [launched("task-2")])


@pytest.mark.parametrize(
    ("events", "stop"),
    [
        ([KillAsked(task_id="t", grace_s=4.0)], Stop(reason="killed on request", grace_s=4.0)),
        ([ShutdownAsked(reason="over")], Stop(reason="over", grace_s=None, limit_s=2.0)),
        (
            [KillAsked(task_id="t", grace_s=4.0), ShutdownAsked(reason="over")],
            Stop(reason="killed on request", grace_s=4.0, limit_s=2.0),
        ),
        (
            [ShutdownAsked(reason="over"), KillAsked(task_id="t", grace_s=4.0)],
            Stop(reason="killed on request", grace_s=4.0, limit_s=2.0),
        ),
        ([KillAsked(task_id="t", grace_s=4.0), KillAsked(task_id="t", grace_s=1.0)], Stop(reason="killed on request", grace_s=1.0)),
        ([launched("t"), launched("u"), KillAsked(task_id="u", grace_s=1.0)], None),
    ],
)
def test_what_asks_for_the_end_adds_up(inbox: Inbox, events: list[Event], stop: Stop | None) -> None:
    for event in events:
        inbox.put(event)
    inbox.look()
    assert inbox.stop == stop


def test_receipts_add_up_and_other_messages_change_nothing(inbox: Inbox) -> None:
    for data in (encode(Receipt(births=(ClaimId("a"),))), b"what?", encode(Receipt(births=(ClaimId("b"),)))):
        inbox.put(MessageCame(data=data))
    inbox.look()
    assert inbox.births == {"a", "b"}


@pytest.mark.parametrize("message", [Launch(lease_s=1.0), Progress(), Receipt()])
def test_every_message_says_its_version_although_defaults_are_left_out(message: Launch | Progress | Receipt) -> None:
    assert json.loads(encode(message))["version"] == VERSION


@pytest.mark.parametrize("data", [b"", b"{}", b'{"births": "a"}', b'{"births": ["a"], "version": 2}'])
def test_a_receipt_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match=r"MESSAGE\.data"):
        decode_receipt(data)


def test_a_wait_ends_with_its_condition_or_its_time() -> None:
    now = [0.0]
    heard: list[str] = []

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    refuse: Callable[[LaunchAsked], None] = lambda asked: heard.append(asked.task_id)  # noqa: E731  # its type is what is tested
    inbox = Inbox(SimpleQueue[Event](), clock=clock, shutdown_grace_s=2.0, refuse=refuse)
    assert inbox.wait(lambda: True, until=0.0)
    assert not inbox.wait(lambda: False, until=1.5)
    inbox.put(launched("task-1"))
    assert inbox.wait(lambda: inbox.launch)


@pytest.mark.parametrize(
    ("filesystem", "device", "is_folder", "steps", "words"),
    [
        (
            "ext4",
            "/dev/loop3",
            False,
            ("create", "attach", "mkfs", "mount"),
            "created, attached /dev/loop3, formatted ext4, mounted (40 ms)",
        ),
        ("ext4", "/dev/loop3", False, ("attach", "fsck", "mount"), "attached /dev/loop3, checked, mounted (30 ms)"),
        ("folder", "/srv/v.dir", True, ("create", "attach", "mkfs"), "created, attached /srv/v.dir, marked as born (30 ms)"),
        ("folder", "nas:/v", False, ("attach", "mount", "mkfs"), "attached nas:/v, marked as born, mounted (30 ms)"),
    ],
)
def test_what_was_done_is_told_as_it_was_done(filesystem: str, device: str, is_folder: bool, steps: tuple[str, ...], words: str) -> None:
    volume = NodeVolume(plan())
    birth = Birth(serial="s", filesystem=filesystem, filesystem_uuid="u")
    volume.staged = Staged(
        plan=plan(), external_id=ExternalId("v"), size_mib=64, device=device, birth=birth, path="/p", is_folder=is_folder, formatted=True
    )
    volume.took_ms = dict.fromkeys(steps, 10.0)
    assert volume.words == f"{volume.plan.container_path}: {words}"
