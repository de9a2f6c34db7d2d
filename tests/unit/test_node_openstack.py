"""How a node learns what OpenStack calls it: from a metadata server, a config drive, or what the machine itself has."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest

from storage.errors import NodeError
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.identities import connector, identify, openstack
from storage.node.pace import Pace
from storage.node.steps import Machine

SERVER = "6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10"
NOWHERE = ("127.0.0.1", 1)


class FakeTime:
    def __init__(self) -> None:
        self.at = 0.0

    def wait(self, seconds: float) -> None:
        self.at += seconds

    @property
    def pace(self) -> Pace:
        return Pace(now=lambda: self.at, wait=self.wait)


def machine(root: Path, *, drive: str | None = None) -> Machine:
    """A machine whose config drive, if it has one, holds `drive` as its document; mount(8) puts it there."""
    (root / "dev/disk/by-label").mkdir(parents=True)
    if drive is not None:
        (root / "dev/sr0").touch()
        (root / "dev/disk/by-label/config-2").symlink_to("../../sr0")

    def run(command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        if command[0] == "mount" and drive:
            document = Path(paths[1], openstack.DOCUMENT)
            document.parent.mkdir(parents=True)
            document.write_text(drive)
        return Output(code=0, out="", err="")

    roots = Roots(dev=root / "dev", sys=root / "sys", proc=root / "proc", is_block=Path.exists)
    return Machine(roots=roots, pace=FakeTime().pace, run=run, may_mount=True)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, int]]]:
    """A metadata server that gives each of the answers in turn, the last one for ever."""
    servers: list[http.server.HTTPServer] = []

    def start(*answers: tuple[int, str]) -> tuple[str, int]:
        left = list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                """Nobody reads it."""

            def do_GET(self) -> None:
                status, text = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status if self.path == "/openstack/latest/meta_data.json" else 404)
                self.end_headers()
                self.wfile.write(text.encode())

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return "127.0.0.1", server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_metadata_server_names_the_server(tmp_path: Path, serve: Callable[..., tuple[str, int]]) -> None:
    address = serve((200, json.dumps({"uuid": SERVER, "name": "db-1"})))

    assert openstack.identify(machine(tmp_path), server=address) == SERVER


def test_a_metadata_server_that_comes_late_is_asked_again(tmp_path: Path, serve: Callable[..., tuple[str, int]]) -> None:
    address = serve((503, ""), (404, ""), (200, json.dumps({"uuid": SERVER})))

    assert openstack.identify(machine(tmp_path), server=address) == SERVER


def test_a_config_drive_is_read_without_any_network(tmp_path: Path) -> None:
    assert openstack.identify(machine(tmp_path, drive=json.dumps({"uuid": SERVER})), server=NOWHERE) == SERVER


@pytest.mark.parametrize("text", ["<html>", "{}", "[]", json.dumps({"uuid": 7}), json.dumps({"uuid": "../../etc"})])
def test_what_is_no_server_is_refused_with_the_way_out(tmp_path: Path, serve: Callable[..., tuple[str, int]], text: str) -> None:
    for made, address in ((machine(tmp_path / "net"), serve((200, text))), (machine(tmp_path / "drive", drive=text), NOWHERE)):
        with pytest.raises(NodeError, match=r"it (gives|says) .*\[platforms.NAME\] node = "):
            openstack.identify(made, server=address)


def test_a_config_drive_without_the_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"config drive .*meta_data\.json"):
        openstack.identify(machine(tmp_path, drive=""), server=NOWHERE)


def test_a_machine_that_is_no_server_is_told_how_to_name_itself(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"there is no config drive; say it in /etc/polly/agent\.toml"):
        openstack.identify(machine(tmp_path), server=NOWHERE)


def test_a_machine_names_itself_by_what_storage_asks_for(tmp_path: Path) -> None:
    initiator = tmp_path / "initiatorname.iscsi"
    initiator.write_text("## made by open-iscsi\nInitiatorName=iqn.1993-08.org.debian:01:abc\n")

    made = connector.identify(machine(tmp_path), host=lambda: "db-1", address=lambda: "10.0.0.7", initiator_file=initiator)

    assert json.loads(made) == {"host": "db-1", "ip": "10.0.0.7", "initiator": "iqn.1993-08.org.debian:01:abc", "multipath": False}
    assert made == connector.identify(machine(tmp_path / "2"), host=lambda: "db-1", address=lambda: "10.0.0.7", initiator_file=initiator)


def test_a_machine_without_iscsi_and_without_routes_has_its_name(tmp_path: Path) -> None:
    made = connector.identify(machine(tmp_path), host=lambda: "db-1", address=str, initiator_file=tmp_path / "none")

    assert json.loads(made) == {"host": "db-1", "multipath": False}


@pytest.mark.parametrize(("host", "reason"), [("localhost", "localhost"), ("", "''"), ("h" * 250, "longer than 255")])
def test_a_machine_that_cannot_be_told_from_others_is_refused(tmp_path: Path, host: str, reason: str) -> None:
    with pytest.raises(NodeError, match=rf"{reason}.*\[platforms.NAME\] node = "):
        connector.identify(machine(tmp_path), host=lambda: host, address=str, initiator_file=tmp_path / "none")


def test_this_machine_has_a_connector() -> None:
    assert json.loads(identify("connector", Machine(), hostname="unused"))["host"] == os.uname().nodename
