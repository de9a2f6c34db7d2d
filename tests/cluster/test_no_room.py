"""No room: in a pool, on a node, on the disk below the images, and on the disk below the ledger. What waits goes on by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

MakeRig = Callable[..., Rig]
MIB = 1 << 20


class SmallDisk:
    """A filesystem of its own that a test can fill to the last byte."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "tmpfs", folder], check=True)

    def fill(self) -> None:
        with open(self.filler, "ab", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (MIB, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"\0" * size):
                        pass

    def make_room(self) -> None:
        self.filler.unlink()

    def gone(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., SmallDisk]]:
    made: list[SmallDisk] = []

    def make(name: str, size_mib: int) -> SmallDisk:
        made.append(SmallDisk(tmp_path / "polly" / name, size_mib))
        return made[-1]

    yield make
    for disk in made:
        disk.gone()


def refusals(rig: Rig, app_id: str) -> dict[str, tuple[int, str]]:
    """Of the one instance that waits: reason to (how many offers, an example)."""
    (waiting,) = rig.http.get(f"/v1/apps{app_id}/explanation").json()["waiting"]
    return {refusal["reason"]: (refusal["count"], refusal["example"]) for refusal in waiting["refusals"]}


def with_profile(app_id: str, profile: str, **fields: Any) -> dict[str, Any]:
    app = counter(app_id, **fields)
    app["container"]["volumes"][0]["persistent"]["profileName"] = profile
    return app


def delete_all(rig: Rig, *app_ids: str) -> None:
    for app_id in app_ids:
        rig.delete(app_id)
    for app_id in app_ids:
        rig.gone(app_id)
    rig.settle()
    rig.nothing_left()


def test_a_full_pool_and_a_node_without_slots(make_rig: MakeRig, tmp_path: Path) -> None:
    """What does not fit waits, the reason is told with its count, and it runs once there is room."""
    (tmp_path / "polly" / "slotted").mkdir(parents=True)
    disks = {"capacity_mib": 40}
    slotted = {"kind": "local", "root": f"{tmp_path}/polly/slotted", "format": "image", "slots_per_node": 1}
    profile = {"platforms": ["slotted"], "reclaim": "delete"}
    rig = make_rig(2, settings={"platforms.disks": disks, "platforms.slotted": slotted, "profiles.slotted": profile})
    rig.start_broker()
    rig.run(counter("/room/first", instances=2))
    rig.running("/room/first", number=2)
    rig.run(counter("/room/second"))
    eventually(lambda: refusals(rig, "/room/second")["POOL_FULL"][0] == 2, what="both offers are refused for the full pool")
    assert "16 MiB" in refusals(rig, "/room/second")["POOL_FULL"][1]
    rig.run(with_profile("/slots/first", "slotted", instances=3))
    assert {task["host"] for task in rig.running("/slots/first", number=2)} == {"agent1", "agent2"}
    eventually(lambda: refusals(rig, "/slots/first")["SLOTS"][0] == 2, what="both offers are refused for the want of a slot")
    assert not rig.tasks("/room/second")
    rig.settle()
    rig.scale("/slots/first", 2)
    rig.delete("/room/first")
    assert rig.count(rig.running("/room/second")[0]["id"]) == 1
    rig.run(with_profile("/slots/second", "slotted"))
    eventually(lambda: "SLOTS" in refusals(rig, "/slots/second"), what="the other app finds no slot")
    rig.scale("/slots/first", 1)
    assert rig.count(rig.running("/slots/second")[0]["id"]) == 1
    delete_all(rig, "/room/second", "/slots/first", "/slots/second")


def test_a_disk_that_fills_while_the_executor_works(make_rig: MakeRig, small_disk: Callable[..., SmallDisk], tmp_path: Path) -> None:
    """Full before the volume is made, then full in the middle of mkfs: each time nothing is left, and at last the app runs."""
    disk = small_disk("images", 48)
    tools, tried = tmp_path / "tools", tmp_path / "tried"
    tools.mkdir()
    fake = tools / "mkfs.ext4"
    fills = f"dd if=/dev/zero of={disk.filler} bs=4k conv=notrunc oflag=append"
    fake.write_text(f'#!/bin/sh\nif mkdir {tried} 2>/dev/null; then {fills}; fi\nexec /sbin/mkfs.ext4 "$@"\n')
    fake.chmod(0o755)
    rig = make_rig(1, settings={"executor": {"environment": {"PYTHONPATH": os.getcwd(), "PATH": f"{tools}:{os.environ['PATH']}"}}})
    rig.start_broker()
    disk.fill()
    rig.run(counter(backoffSeconds=0.5))
    eventually(lambda: "has 0 MiB free, 16 MiB were asked for" in last_message(rig), 20, "the volume cannot be made")
    assert not tried.exists()
    disk.make_room()
    eventually(tried.exists, 20, "mkfs meets a disk that fills")
    eventually(lambda: "mkfs" in last_message(rig), 20, "mkfs fails")
    rig.settle()
    disk.make_room()
    assert rig.count(rig.running()[0]["id"]) == 1
    with rig.ledger() as ledger:
        eventually(lambda: not ledger.orphans(), 20, "what the failed attempts made is deleted")
    assert len(list(rig.images.rglob("*.img"))) == 1
    delete_all(rig, "/counter")


def last_message(rig: Rig) -> str:
    waiting = rig.http.get("/v1/apps/counter/explanation").json()["waiting"]
    return str(waiting[0]["last_message"]) if waiting else ""


def test_a_full_disk_under_the_ledger(make_rig: MakeRig, small_disk: Callable[..., SmallDisk]) -> None:
    """The broker goes on and says so; nothing is half done; what Mesos said meanwhile comes again; with room all is right by itself."""
    disk = small_disk("ledger", 16)
    rig = make_rig(1, database=f"sqlite:///{disk.folder}/polly.db")
    rig.start_broker()
    rig.run(counter("/steady", instances=2))
    first = rig.running("/steady", number=2)
    assert [rig.count(task["id"]) for task in first] == [1, 1]
    rig.run(counter("/waiting", instances=0))
    disk.fill()
    assert rig.process
    broker = rig.process.pid
    os.kill(rig.executor_pid(first[0]["id"]), signal.SIGKILL)
    answer = rig.http.post("/v2/apps", json=counter("/refused"))
    assert (answer.status_code, answer.json()["code"]) == (503, "LedgerUnavailable"), answer.text
    assert rig.http.put("/v2/apps/waiting", json={"instances": 1}).status_code == 503
    eventually(lambda: "ledger   " in rig.log.read_text(), what="the broker says that the ledger cannot be used")
    assert rig.http.get("/v2/apps/refused").status_code == 404
    assert len(rig.tasks("/steady")) == 2
    assert len(rig.claims()) == 2
    rig.settle()
    disk.make_room()
    second = rig.running("/steady", number=1, but=[task["id"] for task in first])[0]
    assert rig.count(second["id"]) == 2
    assert {task["id"] for task in rig.tasks("/steady")} == {first[1]["id"], second["id"]}
    assert rig.process.pid == broker
    rig.scale("/waiting", 1)
    assert rig.count(rig.running("/waiting")[0]["id"]) == 1
    delete_all(rig, "/steady", "/waiting")
