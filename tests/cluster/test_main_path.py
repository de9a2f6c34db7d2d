"""The main job on a real Mesos: an app with a volume runs, loses its machine, and comes up elsewhere with its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.mesos_cluster import VERSIONS, MesosCluster
from tests.cluster.rig import Rig, counter

pytestmark = [pytest.mark.cluster, pytest.mark.root]


@pytest.fixture
def rig(mesos: Callable[..., MesosCluster], tmp_path: Path) -> Iterator[Rig]:
    made = Rig(mesos(2), tmp_path / "polly")
    yield made
    made.stop()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_app_outlives_its_machine(version: str, mesos: Callable[..., MesosCluster], tmp_path: Path) -> None:
    rig = Rig(mesos(2, version=version), tmp_path / "polly")
    try:
        rig.start_broker()
        rig.run(counter())
        first = rig.running()[0]
        assert rig.count(first["id"]) == 1
        number = next(n for n, agent in enumerate(rig.cluster.agents) if agent.flags["hostname"] == first["host"])
        rig.cluster.kill_machine(number)
        second = rig.running(but=[first["id"]])[0]
        assert rig.count(second["id"]) == 2
        assert second["host"] != first["host"]
        volume = rig.volumes()[0]
        assert volume.epoch == 2
        with rig.ledger() as ledger:
            ended = [event for event in ledger.events(volume_id=volume.volume_id).items if event.what == "claim.freed"]
        assert len(ended) == 1
        assert "FENCED" in ended[0].why
        rig.settle()
    finally:
        rig.stop()


def test_scaling_down_keeps_volumes_and_scaling_up_finds_them(rig: Rig) -> None:
    rig.start_broker()
    rig.run(counter(instances=2))
    first = rig.running(number=2)
    assert [rig.count(task["id"]) for task in first] == [1, 1]
    rig.scale("/counter", 0)
    rig.running(number=0)
    assert len(rig.volumes()) == 2
    rig.scale("/counter", 2)
    second = rig.running(number=2, but=[task["id"] for task in first])
    assert [rig.count(task["id"]) for task in second] == [2, 2]
    rig.delete("/counter")
    rig.gone()
    rig.settle()
    rig.nothing_left()
