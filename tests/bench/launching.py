"""P4: from launch to RUNNING with a formatted volume on a loop device, over the same without a volume, on a real Mesos.

P4v: the volume's part of that, from attach to detach, over the bare commands that an operator would type for it:
losetup --find --show, blkid -p, e2fsck -p, mount, umount, losetup -d.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from executors.identity import find_user
from executors.volumes import NodeVolume, Volumes
from executors.wire import Delivery, PlatformSettings
from storage.model import Access, Birth, ClaimId, ExternalId, VolumeId, VolumePlan
from storage.node.pace import Deadline
from tests.bench.cluster import WITH, WITHOUT, Log, app, idle, rig
from tests.bench.harness import Result, in_pairs, ratios, scratch
from tests.cluster.rig import Rig

NEW = 5
SIZE_MIB = 16


def bench() -> Result:
    with rig() as made:
        for app_id in (WITH, WITHOUT):
            made.run(app(app_id, "exec sleep 1000"))
        mine, theirs = in_pairs(partial(_launch, made, WITH), partial(_launch, made, WITHOUT))
        new = [_launch_new(made, f"/new{number}") for number in range(NEW)]
    return Result(
        name="P4",
        ratios=ratios(mine, theirs),
        what="launch to RUNNING with a formatted loop volume over launch to RUNNING without",
        details={
            "with_ms": statistics.median(mine) * 1e3,
            "without_ms": statistics.median(theirs) * 1e3,
            "with_a_new_one_formatted_ms": statistics.median(new) * 1e3,
        },
    )


def _launch(made: Rig, app_id: str) -> float:
    made.scale(app_id, 1)
    spent = Log(made.database).launch_s(made.running(app_id)[0]["id"])
    idle(made, app_id)
    return spent


def _launch_new(made: Rig, app_id: str) -> float:
    made.run(app(app_id, "exec sleep 1000"))
    spent = _launch(made, app_id)
    made.delete(app_id)
    made.gone(app_id)
    return spent


def _nobody(volume: NodeVolume) -> Delivery:
    raise AssertionError(f"volume {volume.plan.name} is attached by this process itself")


class Disk:
    """One volume of a local platform in a folder, which this process brings and releases again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings = {"disks": PlatformSettings(kind="local", settings={"root": str(folder / "images"), "format": "image"})}
        self._rounds = itertools.count(1)
        (folder / "images").mkdir()
        self._birth: Birth | None = None
        self._external_id: ExternalId | None = None
        self.bring()

    @property
    def image(self) -> Path:
        return next((self._folder / "images").rglob("*.img"))

    def bring(self) -> float:
        """Seconds to attach, check, mount and show it, and to take all that back."""
        number = next(self._rounds)
        sandbox = self._folder / f"sandbox{number}"
        sandbox.mkdir()
        volumes = Volumes(
            [self._plan(number)],
            (),
            self._settings,
            overrides={},
            identities={},
            node="bench",
            staging_dir=self._folder / "staging",
            sandbox=sandbox,
        )
        volumes.identify()
        begin = time.perf_counter()
        user = find_user(None)
        volumes.bring(user, deadline=Deadline.of(60), check=lambda: None, ask=_nobody)
        volumes.show(user)
        staged = volumes.volumes[0].staged
        volumes.release()
        spent = time.perf_counter() - begin
        if staged is None or volumes.volumes[0].step != "RELEASED":
            raise AssertionError(f"the volume is {volumes.volumes[0].step}")
        self._birth, self._external_id = staged.birth, staged.external_id
        return spent

    def _plan(self, number: int) -> VolumePlan:
        return VolumePlan(
            claim_id=ClaimId(f"claim-{number}"),
            volume_id=VolumeId("volume"),
            name="/app#0/data",
            epoch=number,
            access=Access.RW,
            platform="disks",
            pool="default",
            size_mib=SIZE_MIB,
            token="claim-1",
            external_id=self._external_id,
            birth=self._birth,
            container_path="data",
        )

    def type_commands(self) -> float:
        """Seconds that the commands take on the same image."""
        target = self._folder / "mounted"
        target.mkdir(exist_ok=True)
        image = self.image
        begin = time.perf_counter()
        device = _run("losetup", "--find", "--show", image).strip()
        for command in (("blkid", "-p", device), ("e2fsck", "-p", device), ("mount", device, target)):
            _run(*command)
        _run("umount", target)
        _run("losetup", "-d", device)
        return time.perf_counter() - begin


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def bench_volume_part() -> Result:
    if os.geteuid() != 0:
        sys.exit("this is measured with real loop devices, which needs root")
    with scratch() as folder:
        disk = Disk(folder)
        mine, theirs = in_pairs(disk.bring, disk.type_commands, pairs=25)
        if str(disk.image) in _run("losetup", "--list", "--noheadings", "--output", "BACK-FILE"):
            raise AssertionError("a loop device is left")
    return Result(
        name="P4v",
        ratios=ratios(mine, theirs),
        what="a formatted volume brought, shown and released over losetup, blkid, e2fsck, mount, umount, losetup -d",
        details={"ours_ms": statistics.median(mine) * 1e3, "commands_ms": statistics.median(theirs) * 1e3},
    )
