"""`/v1`: the inventory read, orders passed on, and who may ask at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from framework.broker import Door
from framework.rest.app import create_app
from framework.rest.listening import listen
from framework.rest.server import serve
from framework.service import BrokerOptions, ImportOrder, VolumeOrder
from framework.tokens import read_token
from storage.errors import Invalid
from storage.inventory import Ledger, open_ledger
from tests.unit.front import NOW, WAITING, FakeBroker, fill

JANE = {"X-Polly-User": "jane"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock=lambda: NOW)
    fill(ledger)
    yield ledger
    ledger.close()


@pytest.fixture
def broker(ledger: Ledger) -> FakeBroker:
    return FakeBroker(ledger)


@pytest.fixture
def http(broker: FakeBroker) -> TestClient:
    app = create_app(broker, broker.ledger, token=None)
    return TestClient(app, base_url="http://127.0.0.1:7070", headers=JANE, raise_server_exceptions=False)


def items(http: TestClient, path: str) -> list[dict[str, Any]]:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_platforms_and_pools(http: TestClient) -> None:
    (platform,) = items(http, "/v1/platforms")
    assert (platform["name"], platform["provisioned_mib"], platform["claimed_mib"], platform["claims"]) == ("local", 2112, 64, 1)
    (pool,) = items(http, "/v1/pools?platform=local")
    assert (pool["pool"]["capacity_mib"], pool["free_mib"], pool["claimed_mib"]) == (10_240, 8128, 64)
    assert http.get("/v1/pools?platform=none").status_code == 404
    assert [profile["name"] for profile in items(http, "/v1/profiles")] == ["fast"]


def test_volumes_by_filter_and_page_by_page(http: TestClient) -> None:
    assert [v["volume_id"] for v in items(http, "/v1/volumes")] == ["v1", "v2", "v3"]
    assert [v["volume_id"] for v in items(http, "/v1/volumes?state=planned&label=team=a")] == ["v2"]
    assert [v["volume_id"] for v in items(http, "/v1/volumes?owner=/counter")] == ["v1"]
    assert items(http, "/v1/volumes?zone=z9") == []
    first = http.get("/v1/volumes?limit=2").json()
    assert [v["volume_id"] for v in items(http, f"/v1/volumes?limit=2&after={first['after']}")] == ["v3"]


@pytest.mark.parametrize(
    "query", ["volumes?state=odd", "volumes?label=x", "volumes?limit=0", "volumes?after=x", "events?after=-1", "claims?state=odd"]
)
def test_a_query_that_is_not_valid_is_refused_with_a_sentence(http: TestClient, query: str) -> None:
    answer = http.get(f"/v1/{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "Invalid")


def test_one_volume_by_id_and_by_name(http: TestClient) -> None:
    assert http.get("/v1/volumes/v1").json()["name"] == "/counter#0/data"
    assert http.get("/v1/volumes/%2Fcounter%230%2Fdata").json()["volume_id"] == "v1"
    answer = http.get("/v1/volumes/none")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "UnknownVolume",
        "message": "There is no volume none.",
        "advice": "List what there is with: polly volume list",
    }


def test_claims_snapshots_nodes_and_events(http: TestClient) -> None:
    (claim,) = items(http, "/v1/claims?state=reserved&volume_id=v1")
    assert (claim["claim_id"], claim["holder"]["node"]) == ("c1", "S1")
    assert http.get("/v1/claims/c1").json() == claim
    assert http.get("/v1/claims/none").json()["code"] == "UnknownClaim"
    assert items(http, "/v1/snapshots") == []
    assert items(http, "/v1/nodes")[0]["used"] == {"local": 1}
    events = items(http, "/v1/events?volume=v1&newest_first=true")
    assert events[0]["seq"] > events[-1]["seq"]
    assert {event["volume_id"] for event in events} == {"v1"}


def test_apps_explanation_and_offers(http: TestClient, broker: FakeBroker) -> None:
    broker.waiting = (WAITING,)
    assert items(http, "/v1/apps")[0]["tasks"][0]["state"] == "RUNNING"
    assert http.get("/v1/apps//counter").json()["app_id"] == "/counter"
    assert http.get("/v1/apps/counter/explanation").json()["waiting"][0]["refusals"][0]["count"] == 9
    assert http.get("/v1/apps/none/explanation").status_code == 404
    assert items(http, "/v1/offers")[0]["fate"] == "declined"
    assert http.get("/v1/broker").json()["framework_id"] == "F1"
    assert items(http, "/v1/doctor") == []


def test_orders_are_passed_on(http: TestClient, broker: FakeBroker) -> None:
    assert http.post("/v1/volumes", json={"name": "a", "profile": "fast", "size_mib": 64}).status_code == 201
    assert http.post("/v1/volumes", json={"name": "c", "profile": "fast", "source": "a"}).status_code == 201
    http.post("/v1/imports", json={"platform": "local", "external_id": "x", "name": "b", "profile": "fast"})
    http.post("/v1/volumes/%2Fcounter%230%2Fdata/size", json={"size_mib": 128})
    http.post("/v1/volumes/v1/snapshots", json={"name": "s"})
    assert http.delete("/v1/volumes/v2").status_code == 204
    http.delete("/v1/snapshots/n1")
    http.post("/v1/claims/c1/release", json={"because": "I saw it burn"})
    jane = "operator:jane"
    assert broker.calls == [
        ("create", VolumeOrder(name="a", profile="fast", size_mib=64), jane),
        ("create", VolumeOrder(name="c", profile="fast", source="a"), jane),
        ("import", ImportOrder(platform="local", external_id="x", name="b", profile="fast"), jane),
        ("expand", "/counter#0/data", 128, jane),
        ("snapshot", "v1", "s", jane),
        ("delete volume", "v2", jane),
        ("delete snapshot", "n1", jane),
        ("release", "c1", "I saw it burn", jane),
    ]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{", b'{"size_mib": "x"}', b'{"size_mib": 1, "more": 2}'])
def test_an_order_that_is_not_valid(http: TestClient, broker: FakeBroker, body: bytes) -> None:
    answer = http.post("/v1/volumes/v1/size", content=body)
    assert (answer.status_code, answer.json()["code"], broker.calls) == (422, "Invalid", [])


def test_half_a_surrogate_pair_comes_to_no_broker(http: TestClient, broker: FakeBroker) -> None:
    answer = http.post("/v1/volumes", content=b'{"name": "a", "profile": "fast", "source": "\\ud800"}')
    assert (answer.status_code, broker.calls) == (422, [])
    assert "half a surrogate pair" in answer.json()["message"]


def test_a_body_without_end_is_not_read(http: TestClient) -> None:
    assert http.post("/v2/apps", content=b" " * (2 << 20)).json()["code"] == "Invalid"


def test_an_unknown_path_and_a_failure_have_the_same_form(http: TestClient, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert http.get("/v3").json()["code"] == "NotFound"
    assert http.put("/v1/pools").json()["code"] == "MethodNotAllowed"
    monkeypatch.setattr(broker, "offers", lambda: 1 / 0)
    answer = http.get("/v1/offers")
    assert (answer.status_code, answer.json()["code"]) == (500, "Internal")
    assert "division" not in answer.text


# --- who may ask ----------------------------------------------------------------------------------------


def test_without_a_token_only_this_machine_is_answered(broker: FakeBroker) -> None:
    app = create_app(broker, broker.ledger, token=None)
    assert TestClient(app, base_url="http://rebound.example").get("/v1/pools").status_code == 403
    here = TestClient(app, base_url="http://localhost:7070")
    assert here.get("/v1/pools", headers={"Origin": "http://evil.example"}).json()["code"] == "Forbidden"
    assert here.get("/v1/pools", headers={"Origin": "null"}).status_code == 403
    assert here.get("/v1/pools", headers={"Origin": "http://localhost:8080"}).status_code == 200


def test_with_a_token_whoever_bears_it_is_answered(broker: FakeBroker) -> None:
    http = TestClient(create_app(broker, broker.ledger, token="right"), base_url="http://polly.example")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
        answer = http.get("/v1/pools", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert http.get("/v1/pools", headers={"Authorization": "Bearer right"}).status_code == 200
    assert http.get("/ping").text == "pong"


def test_serve_listens_answers_and_ends(broker: FakeBroker) -> None:
    server = serve(create_app(broker, broker.ledger, token=None), "127.0.0.1", 0, token=None)
    try:
        assert httpx.get(f"{server.url}/ping", trust_env=False).text == "pong"
        with pytest.raises(Invalid, match="listens there already"):
            serve(create_app(broker, broker.ledger, token=None), "127.0.0.1", int(server.url.rpartition(":")[2]), token=None)
    finally:
        server.stop()
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/ping", trust_env=False)


def test_no_other_address_without_a_token(broker: FakeBroker) -> None:
    app = create_app(broker, broker.ledger, token=None)
    with pytest.raises(Invalid, match="only loopback"):
        serve(app, "0.0.0.0", 0, token=None)  # noqa: S104 - it is refused
    with pytest.raises(Invalid, match="--listen"):
        serve(app, "256.1.1.1", 0, token=None)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/volumes?ownr=/counter", "ownr is '/counter': there is no such parameter; there are after, claims, external_id, label, "),
        ("/v1/platforms?zone=z1", "zone is 'z1': there is no such parameter, nor any other here."),
    ],
)
def test_a_parameter_that_is_misspelt_is_refused(http: TestClient, path: str, message: str) -> None:
    refused = http.get(path)
    assert refused.status_code == 422
    assert refused.json()["message"].startswith(message)


def test_a_body_that_is_not_json_or_has_a_field_too_many(http: TestClient, broker: FakeBroker) -> None:
    assert http.post("/v1/volumes", content=b"{").json()["message"].startswith("the request is '{': not JSON")
    refused = http.post("/v1/volumes", json={"name": "db", "profile": "fast", "size": 5})
    assert (refused.status_code, broker.calls) == (422, [])
    assert "unknown field `size`" in refused.json()["message"]


def test_the_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret-word\n")
    path.chmod(0o600)
    assert read_token(path) == "secret-word"
    path.chmod(0o644)
    with pytest.raises(Invalid, match="chmod 600"):
        read_token(path)
    path.chmod(0o600)
    for text, why in (("", "it is empty"), ("two words", "one word"), ("\u00e4", "one word")):
        path.write_text(text)
        with pytest.raises(Invalid, match=why):
            read_token(path)
    with pytest.raises(Invalid, match="No such file"):
        read_token(tmp_path / "none")


def test_a_port_is_taken_once_and_without_a_token_only_on_loopback() -> None:
    with listen("127.0.0.1", 0, token=None) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Invalid, match="listens there already"):
            listen("127.0.0.1", port, token=None)
    listen("127.0.0.1", port, token=None).close()
    for host in ("0.0.0.0", "::"):  # noqa: S104 - it is refused
        with pytest.raises(Invalid, match="--token-file"):
            listen(host, 0, token=None)
    listen("0.0.0.0", 0, token="word").close()  # noqa: S104 - closed at once


def test_a_broker_that_cannot_answer_makes_no_driver(tmp_path: Path) -> None:
    made: list[str] = []
    with listen("127.0.0.1", 0, token=None) as listener, ExitStack() as stack:
        options = BrokerOptions(master="m", database="d", config=tmp_path, port=listener.getsockname()[1])
        make = Door(options, stack).before(lambda *_: made.append("driver"))  # type: ignore[arg-type]  # only what the test needs of it
        with pytest.raises(Invalid, match="listens there already"):
            make(None, lambda _: None)
    assert made == []
