"""What a task is told, and the names made from its app's id."""

from __future__ import annotations

import json

from framework.marathon.environment import Environment
from framework.marathon.ids import app_of, task_id, timestamp, volume_name
from framework.marathon.reading import read_app

UUID = "c6ba8ab0-4a3d-11e8-bac9-0242ac110002"


def environment(ports: tuple[int, ...] = (), **fields: object) -> dict[str, str]:
    app = read_app({"id": "/shop/db", "cmd": "x", "version": "2015-02-03T12:30:00.000Z", **fields})
    found: dict[str, str] = json.loads(Environment(app).of_task(b'"t"', b'"agent1"', ports), object_pairs_hook=_once)
    return found


def _once(members: list[tuple[str, str]]) -> dict[str, str]:
    """An object that names no member twice, of which readers would take one or the other."""
    assert len({name for name, _ in members}) == len(members)
    return dict(members)


def test_who_it_is_and_what_it_may_use() -> None:
    assert environment(portDefinitions=[]) == {
        "MARATHON_APP_ID": "/shop/db",
        "MARATHON_APP_VERSION": "2015-02-03T12:30:00.000Z",
        "MARATHON_APP_RESOURCE_CPUS": "1.0",
        "MARATHON_APP_RESOURCE_MEM": "128.0",
        "MARATHON_APP_RESOURCE_DISK": "0.0",
        "MARATHON_APP_RESOURCE_GPUS": "0",
        "MARATHON_APP_LABELS": "",
        "MESOS_TASK_ID": "t",
        "HOST": "agent1",
    }


def test_ports_by_number_order_and_name() -> None:
    found = environment((31001, 31002), portDefinitions=[{"port": 8080, "name": "http-api"}, {"port": 0}])
    assert {name: value for name, value in found.items() if name.startswith("PORT")} == {
        "PORT": "31001",
        "PORTS": "31001,31002",
        "PORT0": "31001",
        "PORT1": "31002",
        "PORT_8080": "31001",
        "PORT_31002": "31002",
        "PORT_HTTP_API": "31001",
    }


def test_labels_are_sanitised_and_the_long_ones_left_out() -> None:
    found = environment(labels={"a.b/c": "1", "TEAM": "x", "long": "y" * 512, "n" * 493: "z"})
    assert found["MARATHON_APP_LABELS"] == "A_B_C TEAM"
    assert {name for name in found if name.startswith("MARATHON_APP_LABEL_")} == {"MARATHON_APP_LABEL_A_B_C", "MARATHON_APP_LABEL_TEAM"}


def test_the_apps_own_variables_win() -> None:
    assert environment(env={"HOST": "mine"})["HOST"] == "mine"


def test_task_ids_lead_back_to_their_app() -> None:
    assert task_id("/shop/db", UUID) == f"shop_db.instance-{UUID}._app.1"
    assert app_of(task_id("/shop.eu/db-1", UUID, 7)) == "/shop.eu/db-1"
    assert app_of("somebody.else") is None


def test_names_and_timestamps() -> None:
    assert volume_name("/shop/db", 0, "data") == "/shop/db#0/data"
    assert timestamp(1427967420.596) == "2015-04-02T09:37:00.596Z"
