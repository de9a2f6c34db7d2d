"""What `polly doctor --master` says: of a master that answers, of one that does not, and of what is none; and no secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

import pytest
from click.testing import CliRunner

from framework.cli.root import root
from framework.masters import of_master
from tests.ports import free_port

Pages = Mapping[str, tuple[int, Mapping[str, str], bytes]]
MESOS: Final[tuple[int, Mapping[str, str], bytes]] = (200, {}, b'{"version": "1.11.0"}')


@pytest.fixture
def serve() -> Iterator[Callable[[Pages], str]]:
    """Serves pages by their paths, everything else is a 404; gives the address."""
    with ExitStack() as stack:

        def start(pages: Pages) -> str:
            class Page(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    status, headers, body = pages.get(self.path, (404, {}, b""))
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *_: object) -> None:
                    pass

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Page))
            stack.callback(server.shutdown)
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            return f"127.0.0.1:{server.server_port}"

        yield start


def told(master: str) -> list[tuple[bool, str]]:
    return [(finding.ok, finding.message) for finding in of_master(master)]


def test_a_master_that_answers(serve: Callable[[Pages], str]) -> None:
    leader = serve({"/version": MESOS})
    assert told(leader) == [(True, f"the master at {leader} answers: Mesos 1.11.0")]
    other = serve({"/version": MESOS, "/redirect": (307, {"Location": f"//{leader}"}, b"")})
    assert told(other)[1:] == [(True, f"{other} sends frameworks to {leader}"), (True, f"the master at {leader} answers: Mesos 1.11.0")]


def test_a_leader_that_cannot_be_reached_from_here_is_named(serve: Callable[[Pages], str]) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    other = serve({"/version": MESOS, "/redirect": (307, {"Location": f"//{nowhere}"}, b"")})
    assert told(other)[-1] == (False, f"the master at {nowhere} cannot be reached: Connection refused")


@pytest.mark.parametrize(
    ("page", "words"), [((200, {}, b"<html>"), "(HTTP status 200) is no Mesos master"), ((200, {}, b"[]"), "is no Mesos")]
)
def test_what_is_no_master(serve: Callable[[Pages], str], page: tuple[int, Mapping[str, str], bytes], words: str) -> None:
    ((ok, message),) = told(serve({"/version": page}))
    assert (ok, words in message) == (False, True)


def test_a_master_that_is_too_old(serve: Callable[[Pages], str]) -> None:
    (finding,) = of_master(serve({"/version": (200, {}, b'{"version": "1.7.3"}')}))
    assert (finding.ok, finding.mend) == (False, "Polly needs Mesos 1.8 or newer.")


def test_no_zookeeper_of_those_that_are_named_is_reached_and_no_secret_told() -> None:
    one, two = (f"127.0.0.1:{free_port()}" for _ in range(2))
    found = list(of_master(f"zk://jane:hidden@{one},{two}/mesos"))
    assert [finding.message for finding in found] == [f"ZooKeeper at {it} cannot be reached: Connection refused" for it in (one, two)]
    assert not any(finding.ok for finding in found)
    assert "hidden" not in str(found + list(of_master("zk://hidden@h1:2181/mesos")) + list(of_master("jane:hidden@h1:5050")))


def test_the_doctor_looks_at_the_master_that_is_named() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    result = CliRunner().invoke(
        root, ["doctor"], env={"POLLY_MASTER": nowhere, "POLLY_DATABASE": "", "POLLY_BROKER": "", "POLLY_CONFIG": ""}
    )
    assert result.exit_code == 1
    assert f"MEND\tmesos\tthe master at {nowhere} cannot be reached: Connection refused\tStart the Mesos master there, or" in result.stdout
    assert "broker" not in result.stdout
