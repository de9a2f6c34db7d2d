"""A whole broker in its own thread, with a driver that only keeps what it is told and a platform in memory."""

from __future__ import annotations

from typing import Any

from executors.wire import VolumeProgress
from framework.clock import steady_clock
from framework.engine import Engine, Parts
from framework.mesos.events import Status, Updated
from framework.mesos.instances import Task
from storage.platforms.testing import MemoryPlatform
from tests.stage import ShakyLedger, Told, birth_of, bring, stage_config, status, step


class Started(Told):
    def start(self) -> None: ...
    def stop(self, *, failover: bool = True) -> None: ...


def parts(ledger: ShakyLedger, driver: Any, platform: MemoryPlatform | None = None) -> Parts:
    platforms: Any = {"disks": platform or MemoryPlatform("disks")}
    return Parts(config=stage_config(), ledger=ledger, make_driver=lambda *_: driver, platforms=platforms, clock=steady_clock())


def tell(engine: Engine, *statuses: Status) -> None:
    """The broker has heard them when this returns."""
    for it in statuses:
        engine.loop.post(Updated(status=it))
    engine.ask(lambda: None)


def tasks_of(engine: Engine, app_id: str = "/db") -> list[Task]:
    return engine.ask(lambda: sorted(engine.scheduler.apps.app(app_id).tasks.values(), key=lambda task: task.slot))


def start(engine: Engine, driver: Told, platform: MemoryPlatform, app_id: str = "/db") -> Task:
    """The app's first task, from its launch to RUNNING, by an executor that does all right."""
    task = tasks_of(engine, app_id)[0]
    launch = next(it for info, it in zip(driver.task_infos(), driver.launched(), strict=True) if info["task_id"]["value"] == task.task_id)
    made = []
    for plan in launch.volumes:
        external = bring(platform, plan, launch.node)
        made.append(
            VolumeProgress(claim_id=plan.claim_id, epoch=plan.epoch, step="ATTACHING", external_id=external, birth=birth_of(external))
        )
    tell(engine, status(task, "TASK_STARTING", *made), status(task, "TASK_RUNNING", *[step(one, "MOUNTED") for one in made]))
    return task
