"""`polly drift` on a real agent: the ledger against the platform's own files, and against what processes really have mounted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.lifecycle import VolumeState
from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    made = make_rig()
    made.start_broker()
    return made


def staging(rig: Rig) -> Path:
    return Path(rig.environment["POLLY_STAGING_DIR"])


def drift(rig: Rig, *more: str) -> tuple[int, set[tuple[str, str, bool]]]:
    """The exit status, and each difference by its name, its subject and whether it was mended."""
    here = ["--hostname", rig.cluster.agents[0].flags["hostname"], "--staging-dir", str(staging(rig))]
    command = [sys.executable, "-c", "from framework.cli import main; main()", "drift", *here, "-o", "json", *more]
    done = subprocess.run([*command, "--broker", str(rig.http.base_url)], capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return done.returncode, {(it["kind"], it["subject"], it["mended"]) for it in json.loads(done.stdout)["differences"]}


@contextmanager
def mount_of_nobodys(rig: Rig, claim: str) -> Iterator[None]:
    """A process with a mount of its own where a claim's would be, as a broken release might leave one."""
    target = staging(rig) / claim
    target.mkdir()
    words = f"mount -t tmpfs none {target} && echo mounted && exec sleep 600"
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mounted\n"
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        target.rmdir()


def test_mounts_that_are_there_and_should_not_and_the_other_way_round(rig: Rig) -> None:
    rig.run(counter())
    (task,) = rig.running()
    assert rig.count(task["id"]) == 1
    (volume,) = rig.volumes()
    eventually(lambda: drift(rig) == (0, set()), 20, "nothing differs while an app runs")

    with mount_of_nobodys(rig, "none-of-this-ledger"):
        host = task["host"]
        assert drift(rig) == (1, {("MOUNT_STRAY", f"{host}: claim none-of-this-ledger", False)})
        assert drift(rig, "--apply")[0] == 1, "what only a person can mend was mended"
    assert drift(rig) == (0, set())

    agent = rig.cluster.agents[0]
    with silent(agent.pids):
        os.kill(rig.executor_pid(task["id"]), signal.SIGKILL)
        gone = {("MOUNT_MISSING", volume.name, False), ("NOT_HELD", volume.name, False)}
        eventually(lambda: drift(rig) == (1, gone), 20, "the kernel has unmounted what the ledger takes for mounted")
    (again,) = rig.running(but=[task["id"]])
    assert rig.count(again["id"]) == 2
    eventually(lambda: drift(rig) == (0, set()), 20, "nothing differs once the app is back")


@contextmanager
def silent(pids: Collection[int]) -> Iterator[None]:
    """An agent that says nothing for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_volume_that_goes_and_comes_back_is_followed_only_when_that_is_asked_for(rig: Rig) -> None:
    image = rig.images / "default" / "theirs.img"
    image.parent.mkdir(exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    order = {"platform": "disks", "external_id": "theirs", "name": "mine", "profile": "fast"}
    assert rig.http.post("/v1/imports", json=order).status_code == 201
    assert drift(rig) == (0, set())

    def state() -> VolumeState:
        return rig.volumes()[0].state

    away = image.rename(rig.folder / "away.img")
    assert drift(rig) == (1, {("VOLUME_GONE", "mine", False)})
    assert state() is VolumeState.AVAILABLE
    assert drift(rig, "--apply") == (0, {("VOLUME_GONE", "mine", True)})
    assert state() is VolumeState.FAULTED
    away.rename(image)
    assert drift(rig) == (1, {("VOLUME_BACK", "mine", False)})
    assert drift(rig, "--apply") == (0, {("VOLUME_BACK", "mine", True)})
    assert state() is VolumeState.AVAILABLE
    assert drift(rig) == (0, set())
