"""How an instance of Compute Engine learns what it is called, from metadata servers on loopback: good ones, late ones, and none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from storage.errors import NodeError
from storage.node.identities import identify
from storage.node.pace import Pace
from storage.node.steps import Machine

ANSWERS = {
    "/computeMetadata/v1/instance/name": "agent-1",
    "/computeMetadata/v1/instance/zone": "projects/123456789012/zones/europe-west4-a",
}


class Metadata(BaseHTTPRequestHandler):
    answers: dict[str, str]
    flavor = "Google"
    late = 0

    def do_GET(self) -> None:  # the name that http.server looks for
        kind = type(self)
        kind.late -= 1
        right = kind.late < 0 and self.headers.get("Metadata-Flavor") == "Google" and self.path in kind.answers
        text = kind.answers[self.path].encode() if right else b""
        self.send_response(200 if right else 503)
        self.send_header("Metadata-Flavor", kind.flavor)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Metadata]]:
    kind = type("Served", (Metadata,), {"answers": dict(ANSWERS)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    yield kind
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


class Clock:
    """Passes only by waiting."""

    def __init__(self) -> None:
        self.at = 0.0

    def wait(self, seconds: float) -> None:
        self.at += seconds

    @property
    def machine(self) -> Machine:
        return Machine(pace=Pace(now=lambda: self.at, wait=self.wait))


def test_an_instance_is_its_zone_and_its_name(metadata: type[Metadata]) -> None:
    assert identify("gce", Clock().machine, hostname="other") == "europe-west4-a/agent-1"


def test_a_server_that_is_late_is_waited_for(metadata: type[Metadata]) -> None:
    metadata.late = 3
    clock = Clock()

    assert identify("gce", clock.machine, hostname="other") == "europe-west4-a/agent-1"
    assert 0 < clock.at < 3


def test_what_is_no_server_of_googles_is_refused(metadata: type[Metadata]) -> None:
    metadata.flavor = "Other"

    with pytest.raises(NodeError, match=r"not Google's metadata server; say it in /etc/polly/agent.toml: \[platforms.NAME\] node = "):
        identify("gce", Clock().machine, hostname="other")


def test_an_answer_that_is_no_name_is_refused(metadata: type[Metadata]) -> None:
    metadata.answers["/computeMetadata/v1/instance/name"] = "<html>"

    with pytest.raises(NodeError, match=r"the instance's name failed on the metadata server 127.0.0.1.*it says '<html>'"):
        identify("gce", Clock().machine, hostname="other")


def test_a_machine_that_is_no_instance_says_what_to_write(metadata: type[Metadata], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    clock = Clock()

    with pytest.raises(NodeError, match=r"Connection refused; say it in"):
        identify("gce", clock.machine, hostname="other")
    assert clock.at == pytest.approx(10.0)
