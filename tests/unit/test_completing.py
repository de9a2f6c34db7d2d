"""Names that a shell is offered, from the ledger itself and from a broker; and nothing, in silence, where there is neither."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from framework.cli import completing
from framework.cli.root import root
from framework.rest.app import create_app
from framework.rest.server import serve
from storage.inventory import open_ledger, written
from storage.lifecycle import ClaimState
from storage.model import ClaimId, ExternalId
from storage.platforms.base import VolumeReport
from tests.unit.front import NOW, FakeBroker, fill

Offered = Callable[[str], list[str]]


def complete(typed: str, **environment: str) -> list[str]:
    """What fish shows for `polly TYPED`; the last word is the one that is being typed."""
    words, _, last = f"polly {typed}".rpartition(" ")
    shell = {"_POLLY_COMPLETE": "fish_complete", "COMP_WORDS": words, "COMP_CWORD": last}
    done = CliRunner().invoke(root, [], env=shell | {"POLLY_DATABASE": "", "POLLY_BROKER": ""} | environment, prog_name="polly")
    assert (done.exit_code, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line.startswith("plain,")]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db"
    with_foreign = VolumeReport(external_id=ExternalId("vol-9"), pool="main", size_mib=64, serial="s", token="", name="old")
    ledger = open_ledger(url, clock=lambda: NOW)
    fill(ledger)
    with ledger.begin("broker") as tx:
        tx.sight("local", [(with_foreign, written(with_foreign))])
    ledger.close()
    return url


@pytest.fixture(params=["ledger", "http"])
def offered(url: str, request: pytest.FixtureRequest) -> Iterator[Offered]:
    if request.param == "ledger":
        yield lambda typed: complete(typed, POLLY_DATABASE=url)
        return
    ledger = open_ledger(url, clock=lambda: NOW)
    server = serve(create_app(FakeBroker(ledger), ledger, token=None), "127.0.0.1", 0, token=None)
    yield lambda typed: complete(typed, POLLY_BROKER=server.url)
    server.stop()
    ledger.close()


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("app show ", ["/counter\tRUNNING"]),
        ("explain cou", ["counter\tRUNNING"]),
        ("explain /counter /x", []),
        ("volume list --owner ", ["/counter\tRUNNING"]),
        ("volume show ", ["/counter#0/data\tAVAILABLE, local/main", "hand2\tPLANNED, local/main", "hand3\tPLANNED, local/main"]),
        ("volume delete v", ["v1\t/counter#0/data", "v2\thand2", "v3\thand3"]),
        ("volume delete /counter#", ["/counter#0/data\tAVAILABLE, local/main"]),
        ("volume list --pool ", ["main\tlocal"]),
        ("inventory --platform ", ["local\t"]),
        ("volume create x --profile f", ["fast\text4, retain"]),
        ("volume import --platform local ", ["vol-9\told"]),
        ("node list --zone ", ["z1\t"]),
        ("claim list --node ", ["agent1\tUP", "S1\tagent1, UP"]),
        ("claim show ", ["c1\tRESERVED, volume /counter#0/data"]),
        ("claim release ", []),
        ("snapshot delete ", []),
    ],
)
def test_names_of_what_there_is_are_offered(offered: Offered, typed: str, names: list[str]) -> None:
    assert [line.rstrip("_") for line in offered(typed)] == [name.rstrip("\t") for name in names]


def test_a_stranded_claim_is_offered_to_who_would_release_it(sqlite_url: str) -> None:
    ledger = open_ledger(sqlite_url, clock=lambda: NOW)
    fill(ledger)
    with ledger.begin("broker") as tx:
        tx.advance(ClaimId("c1"), epoch=1, to=ClaimState.STRANDED, reason="away")
    ledger.close()
    assert complete(f"claim release --because x --database {sqlite_url} ", POLLY_DATABASE=sqlite_url) == [
        "c1\tSTRANDED, volume /counter#0/data"
    ]


def test_a_ledger_that_is_named_on_the_line_is_read(url: str) -> None:
    assert complete(f"app show --database {url} ") == ["/counter\tRUNNING"]


@pytest.mark.parametrize("broker", ["http://127.0.0.1:9", "no address at all", "http://127.0.0.1:9 --token-file /no/such"])
def test_where_nothing_answers_nothing_is_offered_and_nothing_said(broker: str) -> None:
    assert complete(f"app show --broker '{broker}' ") == []


def test_a_ledger_that_is_none_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database")
    assert complete("app show ", POLLY_DATABASE=f"sqlite:///{tmp_path}/x.db") == []
    assert complete("app show ", POLLY_DATABASE="nonsense") == []


def test_who_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is what ends it here, and the thread that waits keeps no process alive."""
    monkeypatch.setattr(completing, "DEADLINE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert complete("app show ", POLLY_BROKER=f"http://127.0.0.1:{silent.getsockname()[1]}") == []
        (left,) = [thread for thread in threading.enumerate() if thread.name.endswith("(_read)")]
        assert left.daemon
    left.join()
