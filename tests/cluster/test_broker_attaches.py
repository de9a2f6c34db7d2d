"""`attach_by = "broker"` on a real Mesos, with a platform of a third party: the main path, and whoever may die on it. Then the counts must
be zero: nothing held twice, nothing lost, nothing leaked."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.loopshelf import announce, held, unplug
from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

NODE = "i-17"
PROMPT = {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}
ON_THE_WAY_UP = [
    "before:advance:1", "after:advance:1",
    "before:shelf.create", "after:shelf.create",
    "before:shelf.attach", "after:shelf.attach",
    "before:created", "after:created",
    "before:MESSAGE:1", "after:MESSAGE:1",
    "before:born", "after:born",
    "before:shelf.record_birth", "after:shelf.record_birth",
    "before:MESSAGE:2", "after:MESSAGE:2",
]  # fmt: skip
ON_THE_WAY_DOWN = [
    "before:advance:3", "after:advance:3",
    "before:shelf.detach", "after:shelf.detach",
    "before:free", "after:free",
    "before:shelf.delete", "after:shelf.delete",
]  # fmt: skip


@pytest.fixture
def unplugged(tmp_path: Path) -> Iterator[None]:
    """Whatever a test that failed has left attached is detached, once its cluster is gone."""
    yield
    unplug(tmp_path / "polly" / "images")


@pytest.fixture
def shelf(unplugged: None, make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rig]:
    """A rig whose platform the broker attaches. One agent's node is called NODE by its file; several are called by their hostnames."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(announce(tmp_path / "site")), os.getcwd()]))
    agent = tmp_path / "agent.toml"

    def make(agents: int = 1, *, harm: tuple[str, str] | None = None, **options: Any) -> Rig:
        agent.write_text(f'[platforms.disks]\nnode = "{NODE}"\n' if agents == 1 else "")
        agent.chmod(0o644)
        module = ["tests.cluster.dying_executor", *harm, str(tmp_path / "harmed")] if harm else ["executors.main", "--config", str(agent)]
        root = str(tmp_path / "polly" / "images")
        settings = {
            "executor": {"command": [sys.executable, "-m", *module]},
            "platforms.disks": {"kind": "loopshelf", "attach_by": "broker", "root": root, "format": None},
            **options.pop("settings", {}),
        }
        return make_rig(agents, settings=settings, **options)

    return make


def attachments(rig: Rig) -> dict[str, Any]:
    return held(rig.images)


def ends_clean(rig: Rig) -> None:
    rig.delete("/counter")
    rig.gone()
    rig.settle()
    rig.nothing_left()
    assert attachments(rig) == {}


def test_a_volume_comes_goes_and_comes_back_with_its_data(shelf: Callable[..., Rig]) -> None:
    rig = shelf()
    rig.start_broker()
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    assert attachments(rig) == {"shelf-1": NODE}
    with rig.ledger() as ledger:
        assert [node.identities for node in ledger.nodes()] == [{"disks": NODE}]
        told = [event.why for event in ledger.events(limit=1000).items if event.what == "volume.attached"]
    assert told[0].startswith("shelf-1 to i-17 as /dev/loop")
    rig.settle()
    rig.scale("/counter", 0)
    eventually(lambda: not rig.claims(), 20, "the claim ends")
    assert (attachments(rig), rig.attached()) == ({}, {})
    rig.scale("/counter", 1)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    log = "".join(path.read_text() for path in rig.cluster.folder.glob(f"agent*/work/**/executors/{first['id']}/runs/latest/stderr"))
    assert "running data: " in log
    ends_clean(rig)


@pytest.mark.parametrize("point", ON_THE_WAY_UP)
def test_a_broker_that_dies_while_a_volume_comes(shelf: Callable[..., Rig], point: str) -> None:
    rig = shelf()
    rig.start_broker(die_at=point)
    with contextlib.suppress(httpx.TransportError):
        rig.run(counter())
    assert rig.died() == -9
    rig.start_broker()
    assert rig.count(rig.running()[0]["id"]) == 1
    rig.settle()
    assert (len(rig.claims()), list(attachments(rig).values())) == (1, [NODE])
    ends_clean(rig)


@pytest.mark.parametrize("point", ON_THE_WAY_DOWN)
def test_a_broker_that_dies_while_a_volume_goes(shelf: Callable[..., Rig], point: str) -> None:
    rig = shelf()
    rig.start_broker(die_at=point)
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    with contextlib.suppress(httpx.TransportError):
        rig.delete("/counter")
    assert rig.died() == -9
    rig.start_broker()
    rig.gone()
    rig.settle()
    rig.nothing_left()
    assert attachments(rig) == {}


def test_an_executor_that_dies_while_it_waits(shelf: Callable[..., Rig]) -> None:
    """The broker stops just before it attaches, the executor is killed, the broker goes on: what it attaches then is not lost."""
    rig = shelf()
    rig.start_broker(die_at="stop before:shelf.attach")
    rig.run_until_stopped(counter())
    (agent,) = rig.cluster.agents
    eventually(agent.executors, what="the executor waits")
    (pid,) = agent.executors().values()
    os.kill(pid, signal.SIGKILL)
    rig.go_on()
    assert rig.count(rig.running()[0]["id"]) == 1
    rig.settle()
    eventually(lambda: len(list(rig.images.glob("*.img"))) == 1, what="what came for the dead executor is deleted")
    ends_clean(rig)


@pytest.mark.parametrize("point", ["before:create", "before:attach", "after:attach", "after:mkfs", "after:birth", "after:mount"])
def test_an_executor_that_dies_while_it_stages(shelf: Callable[..., Rig], point: str, tmp_path: Path) -> None:
    rig = shelf(harm=("kill", point))
    rig.start_broker()
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    assert (tmp_path / "harmed").exists()
    rig.settle()
    eventually(lambda: len(list(rig.images.glob("*.img"))) == 1, what="what came for the dead executor is deleted")
    ends_clean(rig)


def test_an_executor_that_is_killed_while_its_task_runs(shelf: Callable[..., Rig]) -> None:
    rig = shelf()
    rig.start_broker()
    rig.run(counter())
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    os.kill(rig.executor_pid(first["id"]), signal.SIGKILL)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    ends_clean(rig)


def test_a_lease_that_ends_while_it_waits(shelf: Callable[..., Rig]) -> None:
    """A platform that hangs: the executor gives up within its lease, and what came too late is taken back."""
    rig = shelf(settings={"claims": {"lease_s": 3.0, "fence_retry_s": 0.3}})
    rig.start_broker(die_at="stop before:shelf.attach")
    rig.run_until_stopped(counter())
    (agent,) = rig.cluster.agents
    eventually(agent.executors, what="the executor waits")
    eventually(lambda: not agent.executors(), 30, "the executor gave up")
    rig.go_on()
    assert rig.count(rig.running()[0]["id"]) == 1
    assert "ended before the broker attached volume" in rig.log.read_text()
    ends_clean(rig)


def test_an_agent_that_is_stopped_frees_its_volume_by_the_platforms_word(shelf: Callable[..., Rig]) -> None:
    rig = shelf(2)
    rig.start_broker()
    rig.run(counter(unreachableStrategy=PROMPT))
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    agent = rig.agent_of(first)
    agent.kill_machine()
    eventually(lambda: [str(claim.state) for claim in rig.claims()] == ["STRANDED"], 20, "the claim is stranded")
    assert list(attachments(rig).values()) == [first["host"]]
    (rig.images / f"stopped-{first['host']}").touch()
    second = rig.running(but=[first["id"]])[0]
    assert second["host"] != first["host"]
    assert rig.count(second["id"]) == 2
    with rig.ledger() as ledger:
        freed = [event.why for event in ledger.events(limit=1000).items if event.what == "claim.freed"]
    assert freed[0].startswith(f"NODE_STOPPED: node {first['host']} is stopped; ")
    ends_clean(rig)
