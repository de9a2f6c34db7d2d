"""Where instances go on a real cluster: zones, what a platform reaches, and Marathon's constraints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.mesos_cluster import AgentSpec
from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

AGENTS = [
    AgentSpec(attributes={"rack": "left"}, region="earth", zone="a"),
    AgentSpec(attributes={"rack": "right"}, region="earth", zone="b"),
    AgentSpec(attributes={"rack": "right", "spare": "yes"}, region="earth", zone="b"),
]


@pytest.fixture
def rig(make_rig: Callable[..., Rig], tmp_path: Path) -> Rig:
    def disks(name: str, **keys: Any) -> dict[str, Any]:
        (tmp_path / "polly" / "images" / name).mkdir(parents=True)
        return {"kind": "local", "root": f"{tmp_path}/polly/images/{name}", "format": "image", **keys}

    settings = {
        "platforms.zoned": disks("zoned", region="earth", zone="b"),
        "platforms.racked": disks("racked", agent_attribute="rack", agent_pattern="left|middle"),
        "profiles.zoned": {"platforms": ["zoned"], "reclaim": "delete"},
        "profiles.racked": {"platforms": ["racked"], "reclaim": "delete"},
    }
    made = make_rig(AGENTS, settings=settings, region="earth", zone="a")
    made.start_broker()
    return made


def placed(rig: Rig, app_id: str, number: int, *, profile: str = "fast", **fields: Any) -> Counter[str]:
    """Runs an app and says how many of its instances are on which agent."""
    app = counter(app_id, instances=fields.pop("instances", number), **fields)
    app["container"]["volumes"][0]["persistent"]["profileName"] = profile
    rig.run(app)
    return Counter(task["host"] for task in rig.running(app_id, number=number))


def refused(rig: Rig, app_id: str) -> dict[str, int]:
    waiting = rig.http.get(f"/v1/apps{app_id}/explanation").json()["waiting"]
    return {refusal["reason"]: refusal["count"] for it in waiting for refusal in it["refusals"]}


def test_zones_reach_and_constraints(rig: Rig) -> None:
    assert placed(rig, "/zoned", 1, profile="zoned", constraints=[["spare", "UNLIKE", "yes"]]) == {"agent2": 1}
    assert placed(rig, "/racked", 2, profile="racked") == {"agent1": 2}
    assert placed(rig, "/unique", 3, instances=4, constraints=[["hostname", "UNIQUE"]]) == {"agent1": 1, "agent2": 1, "agent3": 1}
    eventually(lambda: refused(rig, "/unique") == {"UNIQUE": 3}, what="the fourth instance waits for a fourth machine")
    by_zone = placed(rig, "/grouped", 4, constraints=[["@zone", "GROUP_BY", "2"]])
    assert by_zone["agent1"] == 2
    assert by_zone["agent2"] + by_zone["agent3"] == 2
    assert set(placed(rig, "/liked", 2, constraints=[["rack", "LIKE", "r.*"], ["spare", "IS", "yes"]])) == {"agent3"}
    assert max(placed(rig, "/spread", 3, constraints=[["hostname", "MAX_PER", "1"]]).values()) == 1
    assert len(placed(rig, "/together", 2, constraints=[["hostname", "CLUSTER"]])) == 1
    volume = next(volume for volume in rig.volumes() if volume.owner == "/zoned")
    assert (volume.region, volume.zone) == ("earth", "b")
    rig.run(counter("/nowhere", constraints=[["@zone", "IS", "c"]]))
    eventually(lambda: refused(rig, "/nowhere") == {"IS": 3}, what="no agent is in that zone")
    rig.settle()


def test_a_volume_stays_in_its_zone(rig: Rig) -> None:
    """The machine dies that has the app; the volume cannot follow to another zone, but to another machine of its own."""
    first = placed(rig, "/zoned", 1, profile="zoned", constraints=[["spare", "UNLIKE", "yes"]])
    assert first == {"agent2": 1}
    task = rig.running("/zoned")[0]
    assert rig.count(task["id"]) == 1
    rig.cluster.kill_machine(1)
    eventually(lambda: refused(rig, "/zoned"), 30, "the instance waits for an agent")
    assert refused(rig, "/zoned") == {"ZONE": 1, "UNLIKE": 1}
    rig.settle()
