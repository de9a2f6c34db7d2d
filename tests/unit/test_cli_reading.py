"""The commands that show something: the same answers from the ledger itself and from a broker's HTTP API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from msgspec.structs import replace

from framework.cli.root import root
from framework.rest.app import create_app
from framework.rest.server import serve
from storage.inventory import open_ledger
from storage.model import ExternalId, Snapshot, SnapshotId, VolumeId
from tests.unit.front import COUNTER, NOW, TASK, FakeBroker, fill, hand_made, workload

Polly = Callable[..., Result]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A filled ledger."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db"
    ledger = open_ledger(url, clock=lambda: NOW)
    fill(ledger)
    ledger.close()
    return url


@pytest.fixture(scope="module", params=["ledger", "http"])
def polly(url: str, request: pytest.FixtureRequest) -> Iterator[Polly]:
    """Runs a command against the ledger, or against a broker over it."""
    if request.param == "ledger":
        yield lambda *args: CliRunner().invoke(root, args, env={"POLLY_DATABASE": url}, prog_name="polly")
        return
    ledger = open_ledger(url, clock=lambda: NOW)
    server = serve(create_app(FakeBroker(ledger), ledger, token=None), "127.0.0.1", 0, token=None)
    yield lambda *args: CliRunner().invoke(root, args, env={"POLLY_BROKER": server.url, "POLLY_DATABASE": ""}, prog_name="polly")
    server.stop()
    ledger.close()


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_apps(polly: Polly) -> None:
    header, row = rows(polly("app", "list"))
    assert header[:3] == ["APP", "RUNNING", "STAGED"]
    assert row[:7] == ["/counter", "1/1", "0", "RUNNING", "1", "128 MiB", "1"]
    assert read(polly("app", "list", "-o", "json"))[0]["tasks"][0]["task_id"] == TASK


def test_one_app(polly: Polly) -> None:
    text = polly("app", "show", "counter").stdout
    assert "data: 64 MiB of profile fast, its own" in text
    assert "data=/counter#0/data" in text
    assert read(polly("app", "show", "/counter", "-o", "json"))["app_id"] == "/counter"


def test_an_app_that_this_polly_cannot_read_is_shown_with_its_tasks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with closing(open_ledger(url, clock=lambda: NOW)) as ledger:
        fill(ledger)
        with ledger.begin("test") as tx:
            tx.put_workload(replace(workload(COUNTER), spec=json.dumps({**COUNTER, "mems": 1})))
    text = CliRunner().invoke(root, ["app", "show", "counter", "--database", url]).stdout
    assert (
        "held        App /counter is held, so nothing of it is launched, replaced or killed: The app definition is not valid. mems: is"
        in text
    )
    assert "polly app kill /counter (its profiles say what becomes of its volumes)" in text
    assert "data=/counter#0/data" in text


def test_inventory(polly: Polly) -> None:
    found = read(polly("inventory", "-o", "json"))
    assert found["platforms"][0]["claimed_mib"] == 64
    text = polly("inventory", "--platform", "local", "--zone", "z1").stdout
    assert "local/main\tz1\t10 GiB\t0 MiB\t0 MiB\t1\t2.1 GiB\t7.9 GiB\t64 MiB\t1\tonline" in text
    empty = polly("inventory", "--zone", "z9")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "No pool passes --zone z9." in empty.stderr
    assert polly("inventory", "--platform", "none").exit_code == 4


def test_profiles_and_nodes(polly: Polly) -> None:
    assert rows(polly("profile", "list"))[1][:4] == ["fast", "local", "any", "ext4"]
    assert rows(polly("node", "list"))[1][:5] == ["agent1", "-", "z1", "UP", "local 1/16"]
    assert read(polly("node", "list", "--state", "gone", "-o", "json")) == []


def test_volumes_by_filter(polly: Polly) -> None:
    assert [row[-1] for row in rows(polly("volume", "list"))[1:]] == ["v1", "v2", "v3"]
    assert [v["volume_id"] for v in read(polly("volume", "list", "--label", "team=a", "--state", "planned", "-o", "json"))] == ["v2"]
    assert [v["volume_id"] for v in read(polly("volume", "list", "--owner", "/counter", "--platform", "local", "-o", "json"))] == ["v1"]
    nothing = polly("volume", "list", "--zone", "z9")
    assert nothing.stdout == ""
    assert nothing.stderr == "No volume passes --zone z9. All that there are: polly volume list\n"
    one = read(polly("volume", "list", "--external-id", "x1", "--owner", "counter", "-o", "json"))
    assert [(v["volume_id"], v["claims"][0]["claim_id"]) for v in one] == [("v1", "c1")]
    held = {row[0]: row[3] for row in rows(polly("volume", "list"))[1:]}
    assert held == {"/counter#0/data": "agent1 (RESERVED)", "hand2": "-", "hand3": "-"}


def test_lists_go_on_where_they_were_cut(polly: Polly) -> None:
    first = polly("volume", "list", "--limit", "2", "-o", "json")
    assert [v["volume_id"] for v in read(first)] == ["v1", "v2"]
    key = first.stderr.strip().rpartition(" ")[2]
    rest = polly("volume", "list", "--after", key, "-o", "json")
    assert [v["volume_id"] for v in read(rest)] == ["v3"]
    assert rest.stderr == ""
    assert polly("volume", "list", "--after", "x").exit_code == 2


def test_one_volume(polly: Polly) -> None:
    found = read(polly("volume", "show", "/counter#0/data", "-o", "json"))
    assert found["volume"]["volume_id"] == "v1"
    assert found["claims"][0]["claim_id"] == "c1"
    text = polly("volume", "show", "v1").stdout
    assert "ext4, UUID u-1" in text
    assert "claim" in text
    free = polly("volume", "show", "v2")
    assert "not made yet" in free.stdout
    assert "it is free" in free.stderr


def test_a_copy_is_told_by_the_names_of_what_it_is_one_of(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with closing(open_ledger(url, clock=lambda: NOW)) as ledger:
        fill(ledger)
        with ledger.begin("test") as tx:
            made = Snapshot(
                snapshot_id=SnapshotId("s1"),
                volume_id=VolumeId("v1"),
                platform="local",
                external_id=None,
                size_mib=64,
                token="t",
                name="before",
                state="PENDING",
            )
            tx.plan_snapshot(made)
            tx.snapshot_made(made.snapshot_id, ExternalId("x1.snap"), 64, NOW)
            tx.plan(replace(hand_made("4", {}), source=ExternalId("x1")), token="t4")
            tx.plan(replace(hand_made("5", {}), snapshot=ExternalId("x1.snap")), token="t5")
    listed = json.loads(CliRunner().invoke(root, ["snapshot", "list", "--database", url, "-o", "json"]).stdout)
    assert [(snapshot["volume_id"], snapshot["volume_name"]) for snapshot in listed] == [("v1", "/counter#0/data")]
    assert "\tbefore\t/counter#0/data\tlocal\t" in CliRunner().invoke(root, ["snapshot", "list", "--database", url]).stdout
    shown = [CliRunner().invoke(root, ["volume", "show", f"v{at}", "--database", url]).stdout for at in (4, 5)]
    copies = [line.split("  ")[-1] for text in shown for line in text.splitlines() if line.startswith("copy of")]
    assert copies == ["volume /counter#0/data", "snapshot s1 (before)"]


def test_claims(polly: Polly) -> None:
    assert rows(polly("claim", "list", "--node", "S1", "--volume", "v1", "--state", "reserved"))[1][:3] == [
        "c1",
        "/counter#0/data",
        "RESERVED",
    ]
    shown = polly("claim", "show", "c1").stdout
    assert f"task         {TASK}" in shown
    assert "volume       /counter#0/data (v1)" in shown
    assert "node         agent1 (S1)" in shown
    assert rows(polly("claim", "list", "--node", "agent1"))[1][0] == "c1"
    assert rows(polly("claim", "list", "--node", "agent2")) == []
    assert polly("claim", "list", "--state", "stranded").stderr.startswith("No live claim passes --state STRANDED.")


def test_snapshots_and_events(polly: Polly) -> None:
    assert "polly volume snapshot" in polly("snapshot", "list").stderr
    seen = read(polly("events", "--volume", "v1", "-o", "json"))
    assert [event["seq"] for event in seen] == sorted(event["seq"] for event in seen)
    newest = read(polly("events", "--newest-first", "--limit", "1", "-o", "json"))
    assert newest[0]["seq"] >= seen[-1]["seq"]
    header, first = rows(polly("events", "--task", TASK))[:2]
    assert (header[2], first[2]) == ("VOLUME", "/counter#0/data")
    assert "VOLUME" not in rows(polly("events", "--volume", "v1"))[0]


def test_yaml(polly: Polly) -> None:
    found = yaml.safe_load(polly("volume", "list", "-o", "yaml").stdout)
    assert [volume["volume_id"] for volume in found] == ["v1", "v2", "v3"]
    assert yaml.safe_load(polly("claim", "show", "c1", "-o", "yaml").stdout)["state"] == "RESERVED"
    assert yaml.safe_load(polly("snapshot", "list", "-o", "yaml").stdout) == []


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("volume", "show", "none"), "There is no volume none."),
        (("claim", "show", "none"), "There is no live claim none."),
        (("app", "show", "/none"), "There is no app /none."),
        (("events", "--volume", "none"), "There is no volume none."),
    ],
)
def test_what_is_not_there_is_a_sentence_with_advice(polly: Polly, args: tuple[str, ...], sentence: str) -> None:
    result = polly(*args)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.splitlines()[0] == f"polly: {sentence}"
    assert result.stderr.splitlines()[1].startswith("List what there is with: polly ")


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (("app", "show", "countr"), "/counter"),
        (("volume", "show", "/counter#0/dat"), "/counter#0/data"),
        (("volume", "show", "counter#0/data"), "/counter#0/data"),
        (("volume", "show", "hnad2"), "hand2"),
        (("inventory", "--platform", "locl"), "local"),
        (("volume", "foreign", "--platform", "loca"), "local"),
    ],
)
def test_a_name_that_was_nearly_right_is_told(polly: Polly, args: tuple[str, ...], meant: str) -> None:
    result = polly(*args)
    assert result.exit_code == 4
    assert result.stderr.splitlines()[1].startswith(f"Did you mean {meant}? ")


# --- the whole ------------------------------------------------------------------------------------------


def test_more_than_a_page_is_streamed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = open_ledger(url, clock=lambda: NOW)
    fill(ledger)
    with ledger.begin("test") as tx:
        tx.sync_pools("local", [_large_pool()])
        for number in range(10, 2110):
            tx.plan(hand_made(str(number), {}), token=f"t{number}")
    ledger.close()
    found = read(CliRunner().invoke(root, ["volume", "list", "--database", url, "-o", "json"]))
    assert len({volume["volume_id"] for volume in found}) == len(found) == 2103
    lines = CliRunner().invoke(root, ["volume", "list", "--database", url]).stdout.splitlines()
    assert (len(lines), [line for line in lines if line.startswith("NAME")]) == (2104, [lines[0]])
    assert VolumeId("v2109") == lines[-1].split("\t")[-1]


def _large_pool() -> Any:
    from storage.platforms.base import PoolReport

    return PoolReport(name="main", capacity_mib=1 << 30, zone="z1")


def test_no_ledger_and_no_broker(tmp_path: Path) -> None:
    result = CliRunner().invoke(root, ["volume", "list", "--database", f"sqlite:///{tmp_path}/none/ledger.db"])
    assert result.exit_code == 7
    assert "Check the --database URL" in result.stderr
    result = CliRunner().invoke(root, ["volume", "list", "--broker", "http://127.0.0.1:1"])
    assert result.exit_code == 7
    assert "No broker answers at http://127.0.0.1:1" in result.stderr
    assert CliRunner().invoke(root, ["volume", "list", "--broker", "nonsense"]).exit_code == 2


def test_reading_does_not_make_a_ledger(tmp_path: Path) -> None:
    CliRunner().invoke(root, ["volume", "list", "--database", f"sqlite:///{tmp_path}/ledger.db"])
    assert list(tmp_path.iterdir()) == []
