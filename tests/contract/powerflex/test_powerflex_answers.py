"""Answers that are not the gateway's, at every call of every verb, logins too: each is an error with a name, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage.errors import PlatformError, PlatformUnavailable
from storage.model import ExternalId
from storage.platforms.base import Platform
from tests.contract.powerflex.arena import NODES, SDCS, foreign, platform, refused, renewed, request
from tests.peers.powerflex_gateway import Answer, Gateway

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]


@pytest.fixture
def newer(powerflex_gateways: dict[str, Gateway]) -> Gateway:
    return renewed(powerflex_gateways["4.5"])


def verbs(array: Platform, volume: ExternalId, snapshot: ExternalId) -> Iterator[Callable[[], object]]:
    yield from (array.pools, array.volumes, array.snapshots, lambda: array.inspect(volume), lambda: array.find("volume"))
    yield lambda: array.create(request("another"))
    yield lambda: array.create(request("another", snapshot=snapshot))
    yield lambda: array.attach(volume, NODES[1], epoch=1)
    yield lambda: array.detach(volume, NODES[0])
    yield lambda: array.expand(volume, 1 << 20)
    yield lambda: array.snapshot(volume, token="another")
    yield lambda: array.delete_snapshot(snapshot)
    yield lambda: array.delete(volume)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>a proxy</html>"),
        (200, b'""'),
        (302, None),
        (404, b"<html>the gateway is starting</html>"),
        (409, None),
    ],
)
def test_an_answer_that_is_not_the_gateways_is_an_error_with_a_name(newer: Gateway, answer: Answer) -> None:
    array = platform(newer)
    volume = array.create(request()).external_id
    snapshot = array.snapshot(volume, token="snap").external_id
    array.attach(volume, NODES[0], epoch=1)
    known = {key: (one.name, one.size_kb, dict(one.mapped)) for key, one in newer.array.volumes.items()}
    for verb in verbs(array, volume, snapshot):
        newer.refuse = [answer] * 30
        with pytest.raises(PlatformError):
            verb()
        newer.refuse = []
    assert {key: (one.name, one.size_kb, dict(one.mapped)) for key, one in newer.array.volumes.items()} == known


@pytest.mark.parametrize(("path", "said"), [("/System/instances", []), ("/snapshotVolumes", {"volumeIdList": []})])
def test_a_list_without_the_one_thing_that_must_be_in_it_is_said(
    newer: Gateway, monkeypatch: pytest.MonkeyPatch, path: str, said: Any
) -> None:
    volume = platform(newer).create(request()).external_id
    real = newer._answer

    def instead(method: str, asked: str, authorization: str, body: dict[str, Any]) -> Answer:
        return (200, said) if asked.endswith(path) else real(method, asked, authorization, body)

    monkeypatch.setattr(newer, "_answer", instead)
    refused(lambda: platform(newer).snapshot(volume, token="snap"), PlatformUnavailable)


def test_hosts_that_have_no_sdc_keep_nobody_from_attaching(newer: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that speaks NVMe over TCP has null for all that an SDC has."""
    real = newer._answer
    nothing: dict[str, Any] = dict.fromkeys(("name", "sdcGuid", "sdcIp", "sdcApproved"))

    def beside(method: str, asked: str, authorization: str, body: dict[str, Any]) -> Answer:
        status, said = real(method, asked, authorization, body)
        return (status, [{**nothing, "id": "1040d67200010000", "hostType": "NVMeHost"}, *said]) if "/Sdc/" in asked else (status, said)

    monkeypatch.setattr(newer, "_answer", beside)
    array = platform(newer)
    volume = array.create(request()).external_id
    array.attach(volume, NODES[0], epoch=1)
    assert array.inspect(volume).held_by == (NODES[0],)
    assert all(finding.ok for finding in array.check())


def test_an_address_that_another_node_has_now_leads_to_that_one(newer: Gateway) -> None:
    array = platform(newer)
    first, second = (newer.array.sdcs[key] for key in SDCS)
    address, volume = first.ip, array.create(request()).external_id
    array.detach(volume, address)
    first.ip, second.ip = second.ip, address
    array.attach(volume, address, epoch=1)
    assert array.inspect(volume).held_by == (NODES[1],)


@pytest.mark.parametrize("logins", [[(200, b"<html>Welcome</html>")], [(200, '"token"'), (200, b"<html>Welcome 4.5</html>")]])
def test_a_page_is_no_login(newer: Gateway, logins: list[Answer]) -> None:
    newer.refuse_logins = list(logins)
    error = refused(platform(newer).pools, PlatformUnavailable)
    assert "<html>" not in str(error)


@pytest.mark.parametrize("token", ["not-a\nreal-token", "not-ä-real-token", ""])
def test_a_token_that_no_header_can_hold_is_no_login_and_is_not_said(newer: Gateway, token: str) -> None:
    newer.refuse_logins = [(200, "token"), (200, "4.5"), (200, None), (200, {"access_token": token, "expires_in": 300})]
    error = refused(platform(newer).pools, PlatformUnavailable)
    assert "holds no token" in str(error)
    assert "real-token" not in str(error)


def test_a_refusal_in_an_answer_that_is_none_is_told(newer: Gateway) -> None:
    array = platform(newer)
    volume = array.create(request()).external_id
    said = newer._answer("GET", f"/api/instances/Volume::{volume}", token_of(newer), {})
    newer.refuse = [said, (200, {"message": "The system is in a state in which it cannot", "httpStatusCode": 500, "errorCode": 41})]
    error = refused(lambda: array.delete(volume), PlatformError)
    assert "41: The system" in str(error)


def test_another_volume_than_was_asked_for_is_not_believed(newer: Gateway) -> None:
    array = platform(newer)
    volume, theirs = array.create(request()).external_id, foreign(newer)
    calls: tuple[Callable[[ExternalId], object], ...] = (array.inspect, array.delete, lambda key: array.expand(key, 1 << 20))
    for verb in calls:
        newer.refuse = [(200, newer._answer("GET", f"/api/instances/Volume::{theirs.id}", token_of(newer), {})[1])]
        refused(partial(verb, volume), PlatformUnavailable)
    assert set(newer.array.volumes) == {volume, theirs.id}


def token_of(gateway: Gateway) -> str:
    return f"Bearer {next(iter(gateway.sessions))}"


def test_a_password_that_is_not_text_is_said(newer: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe\x00")
    error = refused(platform(newer, password_file=str(file)).pools, PlatformUnavailable)
    assert f"password_file {file} cannot be read" in str(error)
