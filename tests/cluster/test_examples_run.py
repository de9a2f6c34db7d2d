"""The examples as a person submits them, on a real Mesos with real loop devices. The counter is the demo's, and runs there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cluster.mesos_cluster import AgentSpec
from tests.cluster.rig import Rig
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENTS = [
    AgentSpec(region="earth", zone="a", attributes={"disk": "ssd"}),
    AgentSpec(region="earth", zone="b", attributes={"disk": "spinning-old"}),
    AgentSpec(region="earth", zone="b"),
    AgentSpec(region="earth", zone="c", attributes={"disk": "ssd"}),
]


@pytest.fixture
def rig(public_folder: Path, make_rig: Callable[..., Rig]) -> Rig:
    made = make_rig(AGENTS, region="earth", zone="a", folder=public_folder)
    made.start_broker()
    return made


def example(name: str, **fields: Any) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text("utf-8"))
    return {**definition, **fields}


def run(rig: Rig, app: Mapping[str, Any]) -> list[dict[str, Any]]:
    rig.run(app)
    return rig.running(app["id"], number=app["instances"])


def output(rig: Rig, task: Mapping[str, Any], wanted: str) -> str:
    """What the task has said, once that is among it."""
    pattern = f"agent*/work/agents/*/work/slaves/*/frameworks/*/executors/{task['id']}/runs/latest/stdout"

    def said() -> str:
        texts = [file.read_text() for file in rig.cluster.folder.glob(pattern)]
        return next((text for text in texts if wanted in text), "")

    return eventually(said, 20, f"task {task['id']} says {wanted!r}")


def machine_of(rig: Rig, task: Mapping[str, Any]) -> int:
    return [agent.flags["hostname"] for agent in rig.cluster.agents].index(task["host"])


def ends_clean(rig: Rig, app_id: str, *volumes: str) -> None:
    rig.delete(app_id)
    rig.gone(app_id)
    for name in volumes:  # those with a name of their own outlive their apps
        assert rig.http.delete(f"/v1/volumes/{name}").status_code == 204
    rig.settle()
    rig.nothing_left()


def test_a_database_moves_with_its_volume(rig: Rig) -> None:
    """A real PostgreSQL, on a volume that was made beforehand; its machine dies, and what was committed is there."""
    made = rig.http.post("/v1/volumes", json={"name": "shop-postgres", "profile": "fast", "size_mib": 320})
    assert made.status_code == 201, made.text
    app = example("postgres-csi", env={"LISTEN": "127.0.0.1"})
    (first,) = run(rig, app)
    ask(first, "CREATE TABLE orders (what text)")
    ask(first, "INSERT INTO orders VALUES ('a chair')")
    rig.cluster.kill_machine(machine_of(rig, first))
    (second,) = rig.running(app["id"], but=[first["id"]])
    assert second["host"] != first["host"]
    assert ask(second, "SELECT what FROM orders") == [("a chair",)]
    ends_clean(rig, app["id"], "shop-postgres")


def ask(task: Mapping[str, Any], statement: str) -> list[tuple[Any, ...]]:
    """Once the database takes connections."""

    def answered() -> list[list[tuple[Any, ...]]]:
        try:
            with psycopg.connect(host="127.0.0.1", port=task["ports"][0], user="postgres", autocommit=True) as connection:
                cursor = connection.execute(statement)
                return [cursor.fetchall() if cursor.description else []]
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from error

    return eventually(answered, 30, statement)[0]


def test_a_queue_goes_on_with_its_spool(rig: Rig) -> None:
    app = example("queue-dvdi")
    (first,) = run(rig, app)
    output(rig, first, "1 beats")
    rig.scale(app["id"], 0)
    eventually(lambda: not rig.claims(), 20, "the queue stops")
    rig.scale(app["id"], 1)
    (second,) = rig.running(app["id"], but=[first["id"]])
    assert "1 beats\n" not in output(rig, second, " beats").splitlines(keepends=True)
    (volume,) = rig.volumes()
    assert (volume.name, volume.size_mib, volume.filesystem) == ("shop-queue", 1024, "xfs")
    ends_clean(rig, app["id"], "shop-queue")


def test_a_search_is_spread_over_hosts_and_zones(rig: Rig) -> None:
    app = example("search-constraints")
    tasks = run(rig, app)
    assert {task["host"] for task in tasks} == {"agent1", "agent3", "agent4"}
    for task in tasks:
        output(rig, task, f"{task['id']} in index/")
    assert len(rig.claims()) == 3
    ends_clean(rig, app["id"])


def test_a_reader_sees_the_agents_logs(rig: Rig) -> None:
    app = example("logs-host")
    (task,) = run(rig, app)
    output(rig, task, "total ")
    assert not rig.claims()
    ends_clean(rig, app["id"])
