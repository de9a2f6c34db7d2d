"""SIGKILL of the executor in each of its steps, of the task, and what holds a volume up. Then the counts must be zero."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

STAGING = ["create", "attach", "probe", "mkfs", "birth", "mount"]
RELEASING = ["unmount", "detach"]


@pytest.fixture
def rig_with(make_rig: Callable[..., Rig], tmp_path: Path) -> Any:
    def make(*harm: str, **settings: Any) -> Rig:
        blocks: dict[str, Any] = dict(settings)
        if harm:
            command = [sys.executable, "-m", "tests.cluster.dying_executor", *harm, str(tmp_path / "harmed")]
            blocks["executor"] = {"command": command, **blocks.get("executor", {})}
        rig = make_rig(settings=blocks)
        rig.start_broker()
        return rig

    return make


def ends_clean(rig: Rig) -> None:
    rig.delete("/counter")
    rig.gone()
    rig.settle()
    rig.nothing_left()


@pytest.mark.parametrize("step", STAGING)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_executor_that_dies_while_it_stages(rig_with: Callable[..., Rig], when: str, step: str, tmp_path: Path) -> None:
    rig = rig_with("kill", f"{when}:{step}")
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    assert (tmp_path / "harmed").exists()
    rig.settle()
    eventually(lambda: len(list(rig.images.rglob("*.img"))) == 1, what="what the dead executor made is deleted")
    ends_clean(rig)


@pytest.mark.parametrize("step", RELEASING)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_executor_that_dies_while_it_releases(rig_with: Callable[..., Rig], when: str, step: str, tmp_path: Path) -> None:
    rig = rig_with("kill", f"{when}:{step}")
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    rig.scale("/counter", 0)
    eventually(lambda: not rig.claims(), 20, "the claim ends")
    assert (tmp_path / "harmed").exists()
    rig.scale("/counter", 1)
    assert rig.count(rig.running()[0]["id"]) == 2
    ends_clean(rig)


@pytest.mark.parametrize("step", ["attach", "fsck", "mount"])
def test_an_executor_that_dies_with_data_on_the_volume(rig_with: Callable[..., Rig], step: str, tmp_path: Path) -> None:
    (tmp_path / "harmed").touch()
    rig = rig_with("kill", f"after:{step}")
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    (tmp_path / "harmed").unlink()
    os.kill(rig.executor_pid(first["id"]), signal.SIGKILL)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert (tmp_path / "harmed").exists()
    assert rig.volumes()[0].epoch == 3
    ends_clean(rig)


def test_a_running_executor_is_killed(rig_with: Callable[..., Rig]) -> None:
    rig = rig_with()
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    os.kill(rig.executor_pid(first["id"]), signal.SIGKILL)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    ends_clean(rig)


def test_a_task_is_killed(rig_with: Callable[..., Rig]) -> None:
    rig = rig_with()
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    executor = rig.executor_pid(first["id"])
    for pid in eventually(lambda: _sleepers(executor), what="the task sleeps"):
        os.kill(pid, signal.SIGKILL)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    ends_clean(rig)


def test_a_mkfs_that_dies_half_way(rig_with: Callable[..., Rig], tmp_path: Path) -> None:
    """The first mkfs.ext4 stops in the middle of its work and dies; what it left is never mounted and never formatted again."""
    tools = tmp_path / "tools"
    tools.mkdir()
    fake = tools / "mkfs.ext4"
    flag = tmp_path / "half"
    fake.write_text(
        f"#!/bin/sh\nif mkdir {flag} 2>/dev/null; then\n  for last; do :; done\n"
        '  printf "\\123\\357" | dd of="$last" bs=1 seek=1080 conv=notrunc\n  kill -9 $$\nfi\nexec /sbin/mkfs.ext4 "$@"\n'
    )
    fake.chmod(0o755)
    rig = rig_with(
        executor={
            "environment": {
                "PYTHONPATH": os.getcwd(),
                "PATH": f"{tools}:{os.environ['PATH']}",
                "POLLY_STAGING_DIR": str(tmp_path / "staging"),
            }
        }
    )
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    assert flag.exists()
    ends_clean(rig)


def test_a_lease_that_ends_in_flight(rig_with: Callable[..., Rig], tmp_path: Path) -> None:
    """An executor that is held up past its lease begins nothing; the next one runs."""
    rig = rig_with("stall:4", "before:attach", claims={"lease_s": 3.0, "fence_retry_s": 0.3})
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    assert (tmp_path / "harmed").exists()
    assert "lease" in rig.log.read_text()
    ends_clean(rig)


def test_a_device_that_is_busy_on_unmount(rig_with: Callable[..., Rig], tmp_path: Path) -> None:
    """Somebody else's process sits in the volume, in the executor's own mount namespace: the claim ends when it lets go, not before."""
    rig = rig_with()
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    squatter = _squat(rig.executor_pid(first["id"]), rig)
    try:
        rig.scale("/counter", 0)
        eventually(lambda: not rig.tasks(), 30, "the task is over")
        eventually(lambda: [claim.state for claim in rig.claims()] == ["RELEASING"], 30, "the claim waits for its release")
        assert len(rig.attached()) == 1
        assert rig.http.get("/v1/apps/counter/explanation").status_code == 200
    finally:
        squatter.kill()
        squatter.wait()
    eventually(lambda: not rig.claims(), 20, "the claim ends")
    rig.scale("/counter", 1)
    assert rig.count(rig.running()[0]["id"]) == 2
    ends_clean(rig)


def _squat(executor: int, rig: Rig) -> Any:
    import subprocess

    (device,) = rig.loop_devices()
    lines = [line.split() for line in Path(f"/proc/{executor}/mountinfo").read_text().splitlines()]
    target = next(line[4] for line in lines if device in line)
    squatter = subprocess.Popen(["nsenter", "-m", f"--target={executor}", f"--wdns={target}", "sleep", "300"])
    eventually(lambda: os.readlink(f"/proc/{squatter.pid}/cwd").endswith(os.path.basename(target)), what="somebody sits in the volume")
    return squatter


def _sleepers(executor: int) -> list[int]:
    return [pid for pid in _descendants(executor) if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")]


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [grand for child in children for grand in _descendants(int(child))]
