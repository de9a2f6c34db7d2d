"""polly-executor on a real Mesos, launched by a plain pymesos scheduler: what only the real agent can show."""

from __future__ import annotations

import base64
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymesos import MesosSchedulerDriver, Scheduler

from executors.wire import RELEASED, Launch, Progress, Receipt, decode_progress, encode
from tests.cluster.mesos_cluster import MesosCluster
from tests.executing import REPOSITORY, Disk, launch
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

Mesos = Callable[..., MesosCluster]


class OneTask(Scheduler):  # type: ignore[misc]  # pymesos has no types
    """Launches one task with polly-executor on the first offer, keeps what it hears, acknowledges, and answers births."""

    def __init__(self, launch: Launch, folder: Path) -> None:
        self.launch, self.folder = launch, folder
        self.updates: list[dict[str, Any]] = []
        self.agent_id: dict[str, str] = {}
        self._launched = threading.Lock()

    def resourceOffers(self, driver: Any, offers: list[dict[str, Any]]) -> None:  # noqa: N802 - pymesos' name
        for offer in offers:
            if self._launched.acquire(blocking=False):
                self.agent_id = offer["agent_id"]
                driver.launchTasks(offer["id"], [self.task(offer)])
            else:
                driver.declineOffer(offer["id"])

    def statusUpdate(self, driver: Any, update: dict[str, Any]) -> None:  # noqa: N802 - pymesos' name
        self.updates.append(update)
        births = [volume.claim_id for volume in _progress(update).volumes if volume.birth]
        if births:
            data = base64.b64encode(encode(Receipt(births=tuple(births)))).decode()
            driver.sendFrameworkMessage({"value": "task-1"}, self.agent_id, data)
        driver.acknowledgeStatusUpdate(update)

    def task(self, offer: dict[str, Any]) -> dict[str, Any]:
        config = self.folder / "agent.toml"
        config.write_text(f'staging_dir = "{self.folder}/staging"\n')
        config.chmod(0o600)
        arguments = [sys.executable, "-m", "executors.main", "--config", str(config)]
        return {
            "name": "task",
            "task_id": {"value": "task-1"},
            "agent_id": offer["agent_id"],
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}],
            "data": base64.b64encode(encode(self.launch)).decode(),
            "executor": {
                "type": "CUSTOM",
                "executor_id": {"value": "task-1"},
                "command": {
                    "shell": True,
                    "value": f"exec {shlex.join(arguments)}",
                    "environment": {"variables": [{"name": "PYTHONPATH", "type": "VALUE", "value": str(REPOSITORY)}]},
                },
                "resources": [{"name": "mem", "type": "SCALAR", "scalar": {"value": 64}}],
            },
        }

    @property
    def states(self) -> list[str]:
        return [update["state"] for update in self.updates]

    def reaches(self, state: str) -> dict[str, Any]:
        eventually(lambda: state in self.states, 30, f"{state}; so far {self.states}")
        return next(update for update in self.updates if update["state"] == state)


def _progress(update: dict[str, Any]) -> Progress:
    return decode_progress(base64.b64decode(update.get("data", ""))) if update.get("data") else Progress()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[MesosCluster, Launch], tuple[OneTask, Any]]]:
    drivers: list[Any] = []

    def start(cluster: MesosCluster, launch: Launch) -> tuple[OneTask, Any]:
        scheduler = OneTask(launch, tmp_path)
        framework = {
            "user": "root",
            "name": "test",
            "checkpoint": True,
            "failover_timeout": 60,
            "capabilities": [{"type": "TASK_KILLING_STATE"}, {"type": "PARTITION_AWARE"}],
        }
        driver = MesosSchedulerDriver(scheduler, framework, cluster.master.address, implicit_acknowledgements=False, failover=True)
        driver.start()
        drivers.append(driver)
        return scheduler, driver

    yield start
    for driver in drivers:
        driver.stop()
        driver.join()


def test_a_task_with_a_volume_runs_and_gives_it_back(mesos: Mesos, run: Any, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "rack")
    scheduler, _ = run(mesos(1), launch("echo 1 >data/count", disk.plan(), disks=[disk]))
    finished = scheduler.reaches("TASK_FINISHED")
    assert scheduler.states == ["TASK_STARTING", "TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    (volume,) = _progress(finished).volumes
    assert (volume.step, finished["source"]) == (RELEASED, "SOURCE_EXECUTOR")


def test_the_agents_restart_is_survived_and_what_it_missed_is_told_again(mesos: Mesos, run: Any, tmp_path: Path) -> None:
    cluster = mesos(1)
    disk, stop = Disk(tmp_path / "rack"), tmp_path / "stop"
    scheduler, _ = run(cluster, launch(f"echo 1 >data/count; while [ ! -e {stop} ]; do sleep 0.05; done", disk.plan(), disks=[disk]))
    scheduler.reaches("TASK_RUNNING")
    (executor,) = cluster.agents[0].executors().values()
    cluster.agents[0].kill()
    stop.touch()
    stderr = next(cluster.folder.rglob("task-1/runs/latest/stderr"))
    eventually(lambda: "TASK_FINISHED" in stderr.read_text(), what="the task's end while its agent is away")
    assert os.path.exists(f"/proc/{executor}")
    cluster.agents[0].start()
    finished = scheduler.reaches("TASK_FINISHED")
    assert (finished["source"], _progress(finished).volumes[0].step) == ("SOURCE_EXECUTOR", RELEASED)
    eventually(lambda: not os.path.exists(f"/proc/{executor}"), what="the executor's end after its acknowledgement")


def test_a_kill_gives_the_task_its_grace(mesos: Mesos, run: Any, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    scheduler, driver = run(mesos(1), launch(f"trap 'exit 0' TERM; touch {ready}; while :; do sleep 0.05; done", kill_grace_s=20))
    eventually(ready.exists, what="the task's trap")
    driver.killTask({"value": "task-1"})
    killed = scheduler.reaches("TASK_KILLED")
    assert scheduler.states[-2:] == ["TASK_KILLING", "TASK_KILLED"]
    assert killed["message"] == "killed on request: exited with status 0"


def test_the_death_of_the_executor_is_told_by_the_agent_and_nothing_is_left(mesos: Mesos, run: Any, tmp_path: Path) -> None:
    cluster = mesos(1)
    disk = Disk(tmp_path / "rack")
    scheduler, _ = run(cluster, launch("while :; do sleep 1; done", disk.plan(), disks=[disk]))
    scheduler.reaches("TASK_RUNNING")
    (executor,) = cluster.agents[0].executors().values()
    os.kill(executor, 9)
    assert scheduler.reaches("TASK_FAILED")["source"] != "SOURCE_EXECUTOR"
    eventually(lambda: not _loop_devices(disk.root), what="the end of the loop device")


def _loop_devices(folder: Path) -> list[str]:
    backing = [file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [file for file in backing if file.startswith(f"{folder}/")]
