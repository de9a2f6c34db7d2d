"""The instance id from a metadata service: with its token, again after a stumble, past proxies, and refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from storage.errors import NodeError
from storage.node import identities
from storage.node.identities import ec2
from storage.node.pace import Pace
from storage.node.steps import Machine
from tests.peers.imds import Metadata, serving

NAME = "i-0123456789abcdef0"


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    service = Metadata(NAME)
    with serving(service) as address:
        monkeypatch.setenv(ec2.VARIABLE, address)
        yield service


@dataclass
class FakeTime:
    at: float = 0.0

    def wait(self, seconds: float) -> None:
        self.at += seconds

    @property
    def machine(self) -> Machine:
        return Machine(pace=Pace(now=lambda: self.at, wait=self.wait))


def test_the_id_is_asked_for_with_a_token(metadata: Metadata) -> None:
    assert ec2.identify(FakeTime().machine) == NAME
    assert metadata.calls == ["PUT /latest/api/token", "GET /latest/meta-data/instance-id"]


def test_the_source_is_found_by_its_name(metadata: Metadata) -> None:
    assert identities.identify("ec2", FakeTime().machine, hostname="agent-7") == NAME


def test_a_stumbling_service_is_asked_again(metadata: Metadata) -> None:
    metadata.stumbles, time = 2, FakeTime()

    assert ec2.identify(time.machine) == NAME
    assert time.at == pytest.approx(2.0)


def test_a_proxy_is_not_asked(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert ec2.identify(FakeTime().machine) == NAME


def test_a_service_that_never_answers_is_said_with_the_way_out(metadata: Metadata) -> None:
    metadata.stumbles, time = 1000, FakeTime()

    with pytest.raises(NodeError, match=r"503 Service Unavailable; .*hop limit.*node = \"i-\.\.\.\" in /etc/polly/agent\.toml"):
        ec2.identify(time.machine)
    assert time.at == pytest.approx(ec2.PATIENCE_S)


def test_no_service_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ec2.VARIABLE, "http://127.0.0.1:1")

    with pytest.raises(NodeError, match=r"ask for the instance id failed on http://127\.0\.0\.1:1: .*refused"):
        ec2.identify(FakeTime().machine)


@pytest.mark.parametrize("name", ["i-xyz", "<html>login</html>", "vol-0123456789abcdef0", f"{NAME}/../x"])
def test_what_is_no_instance_id_is_refused(metadata: Metadata, name: str) -> None:
    metadata.name = name

    with pytest.raises(NodeError, match="is none; "):
        ec2.identify(FakeTime().machine)


def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ec2.VARIABLE, "169.254.169.254")

    with pytest.raises(NodeError, match=r"AWS_EC2_METADATA_SERVICE_ENDPOINT must be an address"):
        ec2.identify(FakeTime().machine)
