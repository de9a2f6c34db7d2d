"""Whole runs of polly-executor, as a process, beside an agent that does what the test says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

from executors import main
from executors.wire import FAILED, RELEASED, HostVolume, Launch
from executors.zipapp import build
from storage.errors import NodeError
from storage.lifecycle import ClaimState
from storage.model import Access, Birth
from storage.node import namespaces
from storage.platforms import registry
from tests.executing import PROGRAM, Disk, Running, launch
from tests.support import eventually

FORBIDDEN = (
    "sqlalchemy",
    "alembic",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "httpx",
    "boto3",
    "kazoo",
    "rich",
    "click",
    "framework",
    "offers",
)
TELL_MODULES = "print('modules', *sorted(sys.modules), flush=True); "


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "rack")


def loop_devices(folder: Path) -> list[str]:
    backing = (path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file"))
    return [file for file in backing if file.startswith(f"{folder}/")]


# --- what the platforms call this node


def test_a_node_that_cannot_say_who_it_is_fails_before_anything_is_attached(executor: Running, disk: Disk) -> None:
    said = {name: msgspec.structs.replace(it, identity="nobody") for name, it in disk.settings.items()}
    executor.launch(msgspec.structs.replace(launch("true", disk.plan(), disks=[disk]), platforms=said))
    last = executor.ends()
    assert (executor.states, last.volume.step, last.volume.held) == (["TASK_FAILED"], FAILED, False)
    assert "knows no such source" in last.message


def test_the_nodes_file_says_who_it_is_and_the_first_status_tells(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "rack", format="folder")
    said = {name: msgspec.structs.replace(it, identity="nobody") for name, it in disk.settings.items()}
    config = f'staging_dir = "{tmp_path}/staging"\n[platforms.rack]\nnode = "i-17"\n'
    with Running(tmp_path, config=config) as executor:
        executor.launch(msgspec.structs.replace(launch("true", disk.plan(), disks=[disk]), platforms=said))
        assert executor.ends().state == "TASK_FINISHED"
        assert [status.progress.identities for status in executor.statuses] == [{"rack": "i-17"}] * len(executor.statuses)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_node_that_is_called_by_its_hostname_says_so_too(tmp_path: Path, by_hand: bool) -> None:
    """It may have had another name before, and of some platforms the broker takes no hostname for a node's name."""
    disk = Disk(tmp_path / "rack", format="folder")
    said = {name: msgspec.structs.replace(it, identity="nobody" if by_hand else "hostname") for name, it in disk.settings.items()}
    named = '[platforms.rack]\nnode = "vm-17"\n' if by_hand else ""
    with Running(tmp_path, config=f'staging_dir = "{tmp_path}/staging"\n{named}') as executor:
        executor.launch(msgspec.structs.replace(launch("true", disk.plan(), disks=[disk]), platforms=said, node="vm-17"))
        executor.ends()
        assert [status.progress.identities for status in executor.statuses] == [{"rack": "vm-17"}] * len(executor.statuses)


# --- a task without volumes


def test_a_task_starts_runs_and_ends(executor: Running) -> None:
    executor.launch(launch("echo hello"))
    last = executor.ends()
    assert executor.states == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    assert (last.message, last.progress.exit_code) == ("exited with status 0", 0)
    assert executor.stdout == "hello\n"


@pytest.mark.parametrize(
    ("cmd", "code", "words"),
    [("exit 3", 3, "exited with status 3"), ("kill -SEGV $$", -signal.SIGSEGV, "killed by SIGSEGV"), ("kill -34 $$", -34, "killed by ")],
)
def test_a_task_that_fails_says_how(executor: Running, cmd: str, code: int, words: str) -> None:
    executor.launch(launch(cmd))
    last = executor.ends()
    assert (last.state, last.progress.exit_code) == ("TASK_FAILED", code)
    assert last.message.startswith(words)


def test_args_are_run_without_a_shell(executor: Running) -> None:
    executor.launch(Launch(args=("echo", "$HOME; exit 1"), lease_s=60))
    assert executor.ends().state == "TASK_FINISHED"
    assert executor.stdout == "$HOME; exit 1\n"


def test_the_environment_is_the_apps_and_ours_and_nothing_else(tmp_path: Path) -> None:
    secrets = {"MESOS_EXECUTOR_AUTHENTICATION_TOKEN": "token-1", "AWS_SECRET_ACCESS_KEY": "secret-1", "TZ": "UTC"}
    with Running(tmp_path, variables=secrets) as executor:
        executor.launch(launch("env", env={"GREETING": "hi", "HOME": "/elsewhere"}))
        assert executor.ends().state == "TASK_FINISHED"
        found = dict(line.split("=", 1) for line in executor.stdout.splitlines())
        assert found.keys() == {
            *("PATH", "TZ", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "GREETING"),
            *("MESOS_SANDBOX", "MESOS_FRAMEWORK_ID", "MESOS_AGENT_ID", "MESOS_EXECUTOR_ID", "MESOS_TASK_ID"),
        }
        assert (found["HOME"], found["MESOS_TASK_ID"], found["MESOS_SANDBOX"]) == ("/elsewhere", "task-1", str(executor.sandbox))
        assert "token-1" not in executor.stderr
        assert "secret-1" not in executor.stderr


@pytest.mark.root
def test_the_task_runs_as_its_user_in_a_sandbox_of_its_own(open_folder: Path) -> None:
    with Running(open_folder) as executor:
        executor.launch(launch("id -un; echo $HOME $USER; touch made", user="nobody"))
        assert executor.ends().state == "TASK_FINISHED", executor.stderr
        assert executor.stdout == "nobody\n/nonexistent nobody\n"
        assert (executor.sandbox / "made").owner() == "nobody"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can pass through, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "TaskInfo.data is "),
        (b"{", "TaskInfo.data is "),
        (b'{"lease_s": "long"}', "TaskInfo.data is "),
        (b'{"lease_s": 1, "version": 7}', "speak version 1"),
        (b'{"lease_s": 60}', "a task has either cmd or args"),
        (b'{"lease_s": 60, "cmd": "true", "args": ["x"]}', "a task has either cmd or args"),
        (b'{"lease_s": 60, "cmd": "true", "user": "no-such-user"}', "this node has no such user"),
        (b'{"lease_s": 60, "args": ["/no/such/program"]}', "cannot execute /no/such/program: No such file or directory"),
        (b'{"lease_s": 60, "cmd": "true", "env": {"A": "\\u0000"}}', "embedded null byte"),
    ],
)
def test_what_cannot_run_fails_with_a_sentence(executor: Running, said: bytes, words: str) -> None:
    executor.launch(said)
    last = executor.ends()
    assert last.state == "TASK_FAILED"
    assert words in last.message
    assert "Traceback" not in executor.stderr


@pytest.mark.root
def test_where_root_may_make_no_namespace_the_task_fails_with_what_is_missing_and_nothing_is_begun(tmp_path: Path, disk: Disk) -> None:
    command = ["setpriv", "--bounding-set", "-sys_admin", "--", sys.executable, "-c", PROGRAM.format(last="")]
    with Running(tmp_path, command=command) as executor:
        executor.launch(launch("true", disk.plan(), disks=[disk]))
        last = executor.ends()
        assert last.state == "TASK_FAILED"
        assert (
            "unshare failed on the mount namespace: Operation not permitted; it takes Linux 5.3 or newer and, as root, CAP_SYS_ADMIN"
            in last.message
        )
        assert "Traceback" not in executor.stderr
        assert list(disk.root.iterdir()) == []


@pytest.mark.parametrize("uid", [0, 1000])
def test_an_init_that_cannot_be_started_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(namespaces, "private_mount_namespace", lambda: None)
    monkeypatch.setattr(main, "_hide_from_the_task", lambda: None)
    monkeypatch.setattr(main, "TaskProcess", lambda **_: os.open("/proc/none", os.O_RDONLY))
    with pytest.raises(NodeError, match="start failed on the task's init: No such file"):
        main._start_init()


def test_a_second_task_is_refused(executor: Running) -> None:
    executor.launch(launch("while :; do :; done"))
    executor.reaches("TASK_RUNNING")
    executor.launch(launch("true"), task_id="task-2")
    assert "has its task already" in executor.reaches("TASK_FAILED").message
    assert executor.agent.statuses[-1]["task_id"] == {"value": "task-2"}


def test_an_executor_without_an_agent_says_so_and_ends(tmp_path: Path) -> None:
    with Running(tmp_path, variables={"MESOS_AGENT_ENDPOINT": ""}) as executor:
        assert executor.process.wait(10) == 2
        assert "MESOS_AGENT_ENDPOINT" in executor.stderr
        assert "Traceback" not in executor.stderr


# --- the end of a task


def test_a_kill_gives_the_task_its_grace(executor: Running) -> None:
    executor.launch(launch("trap 'echo bye; exit 0' TERM; echo ready; while :; do :; done"))
    eventually(lambda: executor.stdout, what="the trap")
    executor.agent.kill("task-1", grace_s=30)
    last = executor.ends()
    assert executor.states[-2:] == ["TASK_KILLING", "TASK_KILLED"]
    assert (last.message, last.progress.exit_code) == ("killed on request: exited with status 0", 0)
    assert executor.stdout == "ready\nbye\n"


@pytest.mark.parametrize(("policy_s", "launch_s"), [(0.1, 60.0), (None, 0.1)])
def test_after_its_grace_the_task_is_killed_and_the_kill_policy_wins(executor: Running, policy_s: float | None, launch_s: float) -> None:
    executor.launch(launch("trap '' TERM; echo ready; while :; do :; done", kill_grace_s=launch_s))
    eventually(lambda: executor.stdout, what="the trap")
    executor.agent.kill("task-1", policy_s)
    last = executor.ends()
    assert last.state == "TASK_KILLED"
    assert last.progress.exit_code == -signal.SIGKILL


def test_a_second_kill_may_shorten_the_grace(executor: Running) -> None:
    executor.launch(launch("trap '' TERM; echo ready; while :; do :; done", kill_grace_s=60))
    eventually(lambda: executor.stdout, what="the trap")
    executor.agent.kill("task-1")
    executor.reaches("TASK_KILLING")
    executor.agent.kill("task-1", 0.0)
    assert executor.ends().state == "TASK_KILLED"


@pytest.mark.root
def test_a_task_whose_start_hangs_can_be_killed(executor: Running) -> None:
    """As where a server of users or of files does not answer."""
    executor.agent.subscribed()
    pid = executor.process.pid
    (init,) = eventually(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split(), what="the task's init")
    os.kill(int(init), signal.SIGSTOP)
    executor.launch(launch("true"))
    executor.reaches("TASK_STARTING")
    executor.agent.kill("task-1", 0.0)
    assert executor.ends().state == "TASK_KILLED"


def test_a_framework_that_does_not_know_task_killing_is_spared_it(executor: Running) -> None:
    executor.agent.framework["capabilities"] = []
    executor.agent.stop()
    executor.agent.start()
    executor.agent.subscribed(2 if len(executor.agent.heard("SUBSCRIBE")) > 1 else 1)
    executor.launch(launch("while :; do :; done"))
    executor.reaches("TASK_RUNNING")
    executor.agent.kill("task-1", 0.0)
    executor.ends()
    assert "TASK_KILLING" not in executor.states


def test_a_shutdown_ends_the_task_within_the_agents_patience(tmp_path: Path) -> None:
    with Running(tmp_path, variables={"MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "200ms"}) as executor:
        executor.launch(launch("trap '' TERM; echo ready; while :; do :; done", kill_grace_s=60))
        eventually(lambda: executor.stdout, what="the trap")
        executor.agent.shutdown()
        last = executor.ends()
        assert (last.state, last.message) == ("TASK_KILLED", "the agent shuts this executor down: killed with all its processes")


def test_sigterm_ends_the_executor_and_its_task(executor: Running) -> None:
    executor.launch(launch("while :; do :; done"))
    executor.reaches("TASK_RUNNING")
    executor.process.send_signal(signal.SIGTERM)
    assert executor.ends().state == "TASK_KILLED"


def test_without_checkpoint_the_task_ends_with_the_agent(tmp_path: Path) -> None:
    with Running(tmp_path, variables={"MESOS_CHECKPOINT": "0"}) as executor:
        executor.launch(launch("while :; do :; done"))
        executor.reaches("TASK_RUNNING")
        executor.agent.stop()
        assert executor.process.wait(15) == 1
        assert "the agent went away" in executor.stderr


def test_with_checkpoint_the_task_lives_over_an_agents_restart_and_its_end_is_told(executor: Running) -> None:
    executor.launch(launch("echo $$; while [ ! -e stop ]; do :; done"))
    executor.reaches("TASK_RUNNING")
    executor.agent.stop()
    (executor.sandbox / "stop").touch()
    executor.says("TASK_FINISHED")
    executor.agent.start()
    executor.agent.subscribed(2)
    carried = executor.agent.heard("SUBSCRIBE")[-1].body["subscribe"]["unacknowledged_updates"]
    assert [update["status"]["state"] for update in carried] == ["TASK_FINISHED"]
    executor.agent.acknowledge_update(carried[0]["status"])
    assert executor.process.wait(10) == 0


# --- volumes


@pytest.mark.root
def test_a_new_volume_is_made_given_to_the_user_and_released(open_folder: Path) -> None:
    disk = Disk(open_folder / "rack")
    with Running(open_folder) as executor:
        executor.launch(launch("stat -c '%U %a' data; echo 1 >data/count", disk.plan(), disks=[disk], user="nobody"))
        last = executor.ends()
        assert last.state == "TASK_FINISHED", executor.stderr
        assert executor.stdout == "nobody 755\n"
        starting, born, running, _ = executor.statuses
        assert [status.state for status in executor.statuses] == ["TASK_STARTING", "TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
        assert (starting.volume.step, starting.message) == (ClaimState.ATTACHING, "attaching data")
        assert born.volume.formatted
        assert born.volume.birth is not None
        assert running.volume.step == ClaimState.MOUNTED
        assert running.message.startswith("data: created, attached /dev/loop")
        assert (last.volume.step, last.volume.held) == (RELEASED, False)
        assert {"create", "attach", "mkfs", "mount", "unmount", "detach"} <= last.volume.took_ms.keys()
    assert loop_devices(open_folder) == []
    assert os.listdir(executor.sandbox) != []
    assert not (executor.sandbox / "data").exists()


@pytest.mark.root
def test_the_data_is_there_for_the_next_claim_and_its_owner_stays(open_folder: Path) -> None:
    disk = Disk(open_folder / "rack")
    with Running(open_folder) as first:
        first.launch(launch("echo 1 >data/count; chmod 700 data", disk.plan(), disks=[disk], user="nobody"))
        disk.learn(first.ends().volume)
    with Running(open_folder) as second:
        second.launch(launch("cat data/count; stat -c %U data", disk.plan(), disks=[disk], user="root"))
        last = second.ends()
        assert last.state == "TASK_FINISHED", second.stderr
        assert second.stdout == "1\nnobody\n"
        assert len([status for status in second.statuses if status.state == "TASK_STARTING"]) == 1
        assert "mkfs" not in last.volume.took_ms


@pytest.mark.root
def test_nothing_runs_before_the_broker_has_stored_the_birth(tmp_path: Path, disk: Disk) -> None:
    """And only then the volume bears its certificate: what bears one was never without data."""
    plan = disk.plan()
    with Running(tmp_path, births=False) as executor, closing(registry.build("rack", "local", disk.settings["rack"].settings)) as platform:
        executor.launch(launch("echo ran", plan, disks=[disk]))
        birth = executor.reaches("TASK_STARTING", 2).volume.birth
        assert executor.reaches("TASK_STARTING", 3).volume.birth == birth
        assert "TASK_RUNNING" not in executor.states
        made = platform.find(plan.token)
        assert made is not None
        assert (made.birth, birth is None) == (None, False)
        executor.answer()
        assert executor.ends().state == "TASK_FINISHED"
        assert executor.stdout == "ran\n"
        assert platform.inspect(made.external_id).birth == birth


@pytest.mark.root
def test_a_birth_whose_executor_died_before_the_volume_bore_it_is_kept_by_the_next(tmp_path: Path, disk: Disk) -> None:
    """The ledger has it. A task's data on a volume without it would be an orphan's to a ledger that is restored from before the birth."""
    plan = disk.plan()
    with Running(tmp_path, births=False) as first:
        first.launch(launch("echo ran", plan, disks=[disk]))
        first.reaches("TASK_STARTING", 2)
        first.agent.kill("task-1")
        disk.learn(first.ends().volume)
    with closing(registry.build("rack", "local", disk.settings["rack"].settings)) as platform:
        made = platform.find(plan.token)
        assert made is not None
        assert made.birth is None
        with Running(tmp_path) as second:
            second.launch(launch("echo ran >data/count", disk.plan(), disks=[disk]))
            assert second.ends().state == "TASK_FINISHED", second.stderr
        assert platform.inspect(made.external_id).birth == disk.plan().birth


@pytest.mark.root
def test_a_birth_that_is_never_stored_ends_with_the_lease(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path, births=False) as executor:
        executor.launch(launch("echo ran", disk.plan(), disks=[disk], lease_s=1.0))
        last = executor.ends()
        assert (last.state, last.volume.step, last.volume.held) == ("TASK_FAILED", RELEASED, False)
        assert "lease" in last.message
        assert executor.stdout == ""
    assert loop_devices(tmp_path) == []


@pytest.mark.root
def test_a_receipt_for_another_claim_or_of_another_form_is_none(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path, births=False) as executor:
        executor.launch(launch("echo ran", disk.plan(), disks=[disk], lease_s=2.0))
        executor.reaches("TASK_STARTING", 2)
        executor.agent.message(b'{"births": ["claim-of-another"]}')
        executor.agent.message(b"births!")
        assert executor.ends().state == "TASK_FAILED"
        assert "a message of the broker is passed over" in executor.stderr


@pytest.mark.root
def test_a_kill_while_the_volume_comes_calls_everything_off(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path, births=False) as executor:
        executor.launch(launch("echo ran", disk.plan(), disks=[disk]))
        executor.reaches("TASK_STARTING", 2)
        executor.agent.kill("task-1")
        last = executor.ends()
        assert (last.state, last.message) == ("TASK_KILLED", "ended before it was started: killed on request")
        assert (last.volume.step, last.volume.held, last.volume.error) == (RELEASED, False, None)


def test_a_lease_that_is_over_begins_nothing(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path) as executor:
        executor.launch(launch("echo ran", disk.plan(), disks=[disk], lease_s=0.0))
        last = executor.ends()
        assert (last.volume.step, last.volume.held) == (FAILED, False)
        assert last.volume.error is not None
        assert last.volume.error.code in ("LeaseExpired", "Unsupported")
        assert list(disk.root.rglob("*.img")) == []


@pytest.mark.root
def test_all_volumes_or_none(tmp_path: Path) -> None:
    good, bad = Disk(tmp_path / "rack"), Disk(tmp_path / "rack", name="bad")
    birth = Birth(serial="vol-0", filesystem="ext4", filesystem_uuid="0")
    with Running(tmp_path) as executor:
        plans = [good.plan("good"), bad.plan("bad", external_id="vol-nowhere", birth=birth)]
        executor.launch(launch("echo ran", *plans, disks=[good]))
        last = executor.ends()
        assert last.state == "TASK_FAILED"
        first, second = last.progress.volumes
        assert (first.step, first.held, first.error) == (RELEASED, False, None)
        assert (second.step, second.held) == (FAILED, False)
        assert second.error is not None
        assert second.error.code == "UnknownVolume"
        assert second.error.message in last.message
        assert executor.stdout == ""
    assert loop_devices(tmp_path) == []


@pytest.mark.root
def test_an_unknown_platform_fails_with_its_name(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path) as executor:
        executor.launch(launch("true", disk.plan()))
        last = executor.ends()
        assert (last.volume.step, last.volume.held) == (FAILED, False)
        assert "rack" in last.message


@pytest.mark.root
def test_several_volumes_are_shown_each_in_its_place(tmp_path: Path) -> None:
    one, two = Disk(tmp_path / "rack", name="one"), Disk(tmp_path / "rack", name="two")
    over, host = tmp_path / "over", tmp_path / "host"
    for folder in (over, host):
        folder.mkdir()
    (over / "file").write_text("of the machine\n")
    (host / "file").write_text("of the host\n")
    lines = f"echo x >deep/down/x; echo y >{over}/y; ls {over}; cat shared/file; touch shared/z 2>/dev/null || echo read-only"
    with Running(tmp_path) as executor:
        plans = [one.plan("deep/down"), two.plan(str(over))]
        (tmp_path / "way").symlink_to(host)  # as /var/run is one
        shared = HostVolume(host_path=str(tmp_path / "way"), container_path="shared", read_only=True)
        executor.launch(launch(lines, *plans, disks=[one], host_volumes=(shared,)))
        last = executor.ends()
        assert last.state == "TASK_FINISHED", executor.stderr
        assert executor.stdout == "lost+found\ny\nof the host\nread-only\n"
        assert [volume.step for volume in last.progress.volumes] == [RELEASED, RELEASED]
    assert os.listdir(over) == ["file"]
    assert over.stat().st_mode & 0o777 == 0o755


@pytest.mark.root
@pytest.mark.parametrize("path", ["../outside", "/no/such/folder", ".", "link/inside"])
def test_a_place_outside_of_the_sandbox_is_refused(tmp_path: Path, disk: Disk, path: str) -> None:
    with Running(tmp_path) as executor:
        (executor.sandbox / "link").symlink_to("/")
        executor.launch(launch("echo ran", disk.plan(path), disks=[disk]))
        last = executor.ends()
        assert last.state == "TASK_FAILED"
        assert (executor.stdout, last.volume.held) == ("", False)
    assert loop_devices(tmp_path) == []


@pytest.mark.root
def test_a_task_that_moves_the_folder_above_its_volume_is_released_all_the_same(open_folder: Path) -> None:
    disk = Disk(open_folder / "rack")
    with Running(open_folder) as executor:
        cmd = "echo 1 >deep/down/count; mv deep moved; ln -s /etc deep; cat moved/down/count"
        executor.launch(launch(cmd, disk.plan("deep/down"), disks=[disk], user="nobody"))
        last = executor.ends()
        assert (last.state, last.volume.step, last.volume.held) == ("TASK_FINISHED", RELEASED, False), executor.stderr
        assert executor.stdout == "1\n"
    assert loop_devices(open_folder) == []


@pytest.mark.root
def test_a_volume_for_reading_cannot_be_written(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path) as executor:
        executor.launch(launch("echo 1 >data/count", disk.plan(), disks=[disk]))
        disk.learn(executor.ends().volume)
    with Running(tmp_path) as reader:
        reader.launch(launch("cat data/count; touch data/x 2>/dev/null || echo read-only", disk.plan(access=Access.RO), disks=[disk]))
        assert reader.ends().state == "TASK_FINISHED"
        assert reader.stdout == "1\nread-only\n"


@pytest.mark.root
def test_an_older_epoch_is_refused_by_the_volume_itself(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path) as executor:
        executor.launch(launch("true", disk.plan(), disks=[disk]))
        disk.learn(executor.ends().volume)
    late = disk.plan()
    with Running(tmp_path) as newer:
        newer.launch(launch("true", disk.plan(), disks=[disk]))
        newer.ends()
    with Running(tmp_path) as older:
        older.launch(launch("echo ran", late, disks=[disk]))
        last = older.ends()
        assert last.volume.error is not None
        assert (last.volume.error.code, last.volume.held, older.stdout) == ("StaleEpoch", False, "")


# --- what kills an executor, at each of its steps


@pytest.mark.root
@pytest.mark.parametrize("step", ["create", "attach", "probe", "mkfs", "mount", "running"])
def test_sigkill_at_each_step_leaves_nothing_and_the_next_claim_goes_on(tmp_path: Path, disk: Disk, step: str) -> None:
    with Running(tmp_path, births=step == "running") as executor:
        executor.launch(launch("echo 1 >data/count; echo counted >&2; while :; do :; done", disk.plan(), disks=[disk]))
        executor.says("polly-executor: running" if step == "running" else f": {step} (")
        if step == "running":
            executor.says("counted")
        executor.process.kill()
        executor.process.wait()
    eventually(lambda: loop_devices(tmp_path) == [], what="the end of the loop device")
    for status in executor.statuses:
        if status.state == "TASK_RUNNING":
            disk.learn(status.volume)
    with Running(tmp_path) as second:
        second.launch(launch("cat data/count || echo new", disk.plan(), disks=[disk]))
        assert second.ends().state == "TASK_FINISHED", second.stderr
        assert second.stdout.splitlines() == (["1"] if disk.birth else ["new"])


@pytest.mark.root
def test_a_task_that_is_killed_from_outside_is_released(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path) as executor:
        executor.launch(launch("echo $$ >pid; while :; do :; done", disk.plan(), disks=[disk]))
        executor.reaches("TASK_RUNNING")
        children = Path(f"/proc/{executor.process.pid}/task/{executor.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        last = executor.ends()
        assert (last.state, last.message, last.volume.step) == ("TASK_FAILED", "killed with all its processes", RELEASED)


@pytest.mark.root
def test_a_release_that_takes_long_is_told_while_it_goes_on(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path) as executor:
        executor.launch(launch("while :; do :; done", disk.plan(), disks=[disk]))
        executor.reaches("TASK_RUNNING")
        squatter = subprocess.Popen(
            ["nsenter", "-m", f"--target={executor.process.pid}", f"--wdns={executor.staging}/claim-data-1", "cat"], stdin=subprocess.PIPE
        )
        with squatter:
            eventually(lambda: os.readlink(f"/proc/{squatter.pid}/cwd").endswith("claim-data-1"), what="somebody sits in the volume")
            executor.agent.kill("task-1", 0.0)
            releasing = executor.reaches("TASK_KILLING", 2)
            assert releasing.volume.step == ClaimState.RELEASING
        last = executor.ends()
        assert (last.state, last.volume.step, last.volume.held) == ("TASK_KILLED", RELEASED, False)


# --- without root


@pytest.mark.root
def test_without_root_a_folder_volume_is_linked_locked_and_released(open_folder: Path) -> None:
    disk = Disk(open_folder / "rack", format="folder")
    nobody = 65534
    os.chown(disk.root, nobody, nobody)
    with Running(open_folder, user=nobody) as executor:
        executor.launch(launch("echo 1 >data/count; id -un; while [ ! -e stop ]; do :; done", disk.plan(), disks=[disk]))
        executor.reaches("TASK_RUNNING")
        (open_folder / "rival").mkdir()
        with Running(open_folder / "rival", user=nobody) as rival:
            plan = disk.plan(external_id=executor.statuses[-1].volume.external_id, birth=executor.statuses[-1].volume.birth)
            rival.launch(launch("true", plan, disks=[disk]))
            error = rival.ends().volume.error
            assert error is not None
            assert error.code == "VolumeInUse"
        (executor.sandbox / "stop").touch()
        last = executor.ends()
        assert (last.state, last.volume.step) == ("TASK_FINISHED", RELEASED)
        assert "nobody" in executor.stdout


@pytest.mark.root
def test_without_root_the_task_cannot_look_into_the_executor(open_folder: Path) -> None:
    secrets = {"MESOS_EXECUTOR_AUTHENTICATION_TOKEN": "token-1", "AWS_SECRET_ACCESS_KEY": "secret-1"}
    cmd = "for of in environ mem maps fd/0; do head -c 4096 /proc/$EXECUTOR/$of 2>&1; done | tr '\\0' '\\n'"
    with Running(open_folder, user=65534, variables=secrets) as executor:
        executor.launch(launch(cmd, env={"EXECUTOR": str(executor.process.pid)}))
        assert executor.ends().state == "TASK_FINISHED", executor.stderr
        assert "token-1" not in executor.stdout
        assert "secret-1" not in executor.stdout
        assert executor.stdout.count("Permission denied") == 4


# --- what it imports, and its own file


@pytest.mark.parametrize("with_volume", [False, pytest.param(True, marks=pytest.mark.root)])
def test_it_imports_only_what_the_task_needs(tmp_path: Path, disk: Disk, with_volume: bool) -> None:
    with Running(tmp_path, last=TELL_MODULES) as executor:
        plans = [disk.plan()] if with_volume else []
        executor.launch(launch("true", *plans, disks=[disk]))
        assert executor.ends().state == "TASK_FINISHED"
        modules = executor.stdout.split()
        assert "executors.task" in modules
        assert [name for name in modules if name.partition(".")[0] in FORBIDDEN] == []
        assert ("storage.node.staging" in modules) is with_volume
        assert "storage.inventory" not in modules


def test_a_node_file_that_others_may_write_is_refused(tmp_path: Path, disk: Disk) -> None:
    with Running(tmp_path) as executor:
        (tmp_path / "agent.toml").chmod(0o666)
        executor.launch(launch("echo ran", disk.plan(), disks=[disk]))
        last = executor.ends()
        assert last.state == "TASK_FAILED"
        assert "only its owner may write to it" in last.message
        assert executor.stdout == ""


@pytest.mark.root
def test_the_node_file_wins_over_the_broker(tmp_path: Path) -> None:
    said, true = Disk(tmp_path / "said"), Disk(tmp_path / "true")
    config = f'staging_dir = "{tmp_path}/elsewhere"\n[platforms.rack]\nroot = "{true.root}"\n'
    with Running(tmp_path, config=config) as executor:
        executor.launch(launch("true", said.plan(), disks=[said]))
        assert executor.ends().state == "TASK_FINISHED", executor.stderr
    assert list(said.root.iterdir()) == []
    assert list(true.root.iterdir()) != []
    assert (tmp_path / "elsewhere").is_dir()


# --- in one file


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("archive") / "polly-executor.pyz")


@pytest.mark.root
def test_the_archive_runs_where_nothing_of_polly_is_installed(archive: Path, tmp_path: Path, disk: Disk) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-I", "-S", str(archive)]
    for count in ("1", "2"):
        with Running(tmp_path, command=command, variables={"POLLY_EXECUTOR_CACHE": str(cache), "PYTHONPATH": "/nowhere"}) as executor:
            executor.launch(launch("echo x >>data/count; wc -l <data/count", disk.plan(), disks=[disk]))
            disk.learn(executor.ends().volume)
            assert executor.stdout.split()[-1] == count
    assert len(os.listdir(cache)) == 1
    unpacked = next(cache.iterdir())
    assert not (unpacked / "storage" / "ledger").exists()
    assert unpacked.stat().st_mode & 0o777 == 0o700


def test_the_archive_knows_its_version_and_refuses_a_folder_that_others_may_write(archive: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(archive), "--version"]
    environment = {"POLLY_EXECUTOR_CACHE": str(tmp_path)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == version("polly-broker")
    next(tmp_path.iterdir()).chmod(0o777)
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "nobody else may write to it" in refused.stderr


def test_the_command_line_is_explained() -> None:
    program = [sys.executable, "-c", "import sys; from executors.main import main; sys.exit(main())"]
    wrong = subprocess.run([*program, "--verbose"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.startswith("usage: polly-executor")) == (2, True)
    told = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == version("polly-broker")


@pytest.mark.root
def test_nothing_is_imported_from_the_sandbox(tmp_path: Path, disk: Disk) -> None:
    """The task's user may put any file there, and the executor is root."""
    with Running(tmp_path, command=[sys.executable, "-m", "executors.main"]) as executor:
        for module in ("tomllib", "shutil", "storage", "secrets"):
            (executor.sandbox / f"{module}.py").write_text("open('imported', 'w')")
        executor.launch(launch("true", disk.plan(), disks=[disk]))
        assert executor.ends().state == "TASK_FINISHED"
        assert not (executor.sandbox / "imported").exists()
