"""`/v2` speaks as Marathon does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from msgspec.structs import replace

from framework.rest.app import create_app
from storage.inventory import open_ledger
from tests.unit.front import COUNTER, NOW, TASK, FakeBroker, fill, workload


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FakeBroker]:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock=lambda: NOW)
    fill(ledger)
    yield FakeBroker(ledger)
    ledger.close()


@pytest.fixture
def http(broker: FakeBroker) -> TestClient:
    app = create_app(broker, broker.ledger, token=None)
    return TestClient(app, base_url="http://127.0.0.1:7070", headers={"X-Polly-User": "jane"}, raise_server_exceptions=False)


def test_ping_and_info(http: TestClient) -> None:
    assert http.get("/ping").text == "pong"
    assert http.get("/ping", headers={"Accept": "application/json"}).json() == "pong"
    found = http.get("/v2/info").json()
    assert (found["name"], found["frameworkId"], found["marathon_config"]["master"]) == ("polly", "F1", "127.0.0.1:5050")
    assert (found["http_config"], found["zookeeper_config"]) == ({}, {}), "clients read them without asking whether they are there"


def test_an_app_with_its_task(http: TestClient) -> None:
    app = http.get("/v2/apps//counter").json()["app"]
    assert (app["id"], app["tasksRunning"], app["tasksStaged"], app["instances"]) == ("/counter", 1, 0, 1)
    assert app["container"]["volumes"][0]["persistent"] == {"size": 64, "type": "mount", "profileName": "fast"}
    (task,) = app["tasks"]
    assert (task["id"], task["state"], task["host"], task["slaveId"], task["ports"]) == (TASK, "TASK_RUNNING", "agent1", "S1", [31001])
    assert task["localVolumes"] == [{"containerPath": "data", "persistenceId": "v1"}]
    assert task["startedAt"] == "2023-11-14T22:13:21.000Z"
    assert http.get("/v2/apps/counter/tasks").json()["tasks"] == app["tasks"] == http.get("/v2/tasks").json()["tasks"]


def test_lists_are_filtered_and_hold_tasks_when_asked(http: TestClient) -> None:
    (app,) = http.get("/v2/apps").json()["apps"]
    assert "tasks" not in app
    assert "tasks" in http.get("/v2/apps/?embed=apps.tasks").json()["apps"][0]
    assert http.get("/v2/apps?id=other").json() == {"apps": []}
    assert http.get("/v2/deployments").json() == []


def test_create(http: TestClient, broker: FakeBroker) -> None:
    answer = http.post("/v2/apps", json={"id": "/shop/db", "cmd": "x"})
    assert (answer.status_code, answer.headers["location"]) == (201, "/v2/apps/shop/db")
    assert answer.json()["id"] == "/shop/db"
    assert len(answer.json()["deployments"]) == 1
    assert broker.calls == [("run", "/shop/db", "operator:jane")]


def test_create_what_is_there(http: TestClient) -> None:
    answer = http.post("/v2/apps", json=COUNTER)
    assert (answer.status_code, answer.json()["message"]) == (409, "App /counter exists already.")


def test_an_invalid_definition_is_answered_in_marathons_form(http: TestClient) -> None:
    answer = http.post("/v2/apps", json={"id": "/a", "cmd": "x", "container": {"volumes": [{"containerPath": "d", "persistent": {}}]}})
    assert answer.status_code == 422
    assert answer.json()["details"] == [{"path": "/container/volumes(0)/persistent/size", "errors": ["is required"]}]
    assert "size: is required" in answer.json()["message"]


def test_what_is_not_done_yet(http: TestClient) -> None:
    answer = http.post("/v2/apps", json={"id": "/a", "container": {"docker": {"image": "x"}}})
    assert (answer.status_code, answer.json()["code"]) == (422, "NotYet")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"1"])
def test_what_is_no_definition(http: TestClient, body: bytes) -> None:
    answer = http.post("/v2/apps", content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "Invalid")


@pytest.mark.parametrize("verb", ["PUT", "PATCH"])
def test_scale(http: TestClient, broker: FakeBroker, verb: str) -> None:
    answer = http.request(verb, "/v2/apps//counter?force=True", json={"instances": 3})
    assert answer.status_code == 200
    assert answer.json().keys() == {"version", "deploymentId"}
    assert broker.calls == [("scale", "/counter", 3, "operator:jane")]
    assert http.get("/v2/apps/counter").json()["app"]["instances"] == 3


def test_an_app_that_this_polly_cannot_read_is_not_scaled(http: TestClient, broker: FakeBroker) -> None:
    with broker.ledger.begin("test") as tx:
        tx.put_workload(replace(workload(COUNTER), spec=json.dumps({**COUNTER, "mems": 1})))
    answer = http.put("/v2/apps/counter", json={"instances": 3})
    assert (answer.status_code, answer.json()["code"], broker.calls) == (409, "HeldApp", [])


def test_what_a_client_leaves_empty_stays_as_it_is(http: TestClient, broker: FakeBroker) -> None:
    """Some write every field that they know, as null."""
    http.put("/v2/apps/counter", json={"instances": 3, "cmd": None, "labels": None})
    http.put("/v2/apps/counter", json={"instances": None})
    assert broker.calls == [("scale", "/counter", 3, "operator:jane")] * 2


def test_scale_with_the_whole_definition_as_it_was_answered(http: TestClient, broker: FakeBroker) -> None:
    app = http.get("/v2/apps/counter").json()["app"]
    assert http.put("/v2/apps/counter", json={**app, "instances": 2}).status_code == 200
    assert broker.calls == [("scale", "/counter", 2, "operator:jane")]


def test_any_other_change_is_not_done_yet(http: TestClient, broker: FakeBroker) -> None:
    answer = http.put("/v2/apps/counter", json={"instances": 2, "cmd": "other"})
    assert (answer.status_code, answer.json()["code"]) == (422, "NotYet")
    assert http.put("/v2/apps/counter", json={"instances": -2}).json()["details"][0]["path"] == "/instances"
    assert broker.calls == []


def test_put_creates_an_unknown_app(http: TestClient, broker: FakeBroker) -> None:
    assert http.put("/v2/apps/new", json={"cmd": "x"}).status_code == 201
    assert http.put("/v2/apps/other", json={"instances": 2}).status_code == 404
    assert broker.calls == [("run", "/new", "operator:jane")]


def test_delete(http: TestClient, broker: FakeBroker) -> None:
    assert http.delete("/v2/apps/counter").json().keys() == {"version", "deploymentId"}
    assert broker.calls == [("delete", "/counter", "operator:jane")]
    answer = http.delete("/v2/apps/other")
    assert (answer.status_code, answer.json()["message"]) == (404, "There is no app /other.")
