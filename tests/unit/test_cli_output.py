"""Tables on a terminal: aligned, streamed part by part, and harmless whatever is in the names."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from framework.cli.claims import claim_columns
from framework.cli.output import Output
from framework.cli.tables import BESIDE, Column, TerminalTable, fitted
from framework.views import PAGE
from storage.inventory import open_ledger
from tests.unit.front import NOW, fill

ROOT = Path(__file__).parents[2]


def on_a_terminal(*args: str, columns: int = 160, more: Mapping[str, str] = {}) -> str:
    """What a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    code = "from framework.cli import main; main()"
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "", **more}
    process = subprocess.Popen([sys.executable, "-c", code, *args], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    found = b""
    while chunk := _read(ours):
        found += chunk
    os.close(ours)
    process.wait(60)
    return found.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def test_a_table_on_a_terminal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = open_ledger(url, clock=lambda: NOW)
    fill(ledger)
    with ledger.begin("test") as tx:
        tx.note("odd", why="\x1b[2J[bold]x")
    ledger.close()
    text = on_a_terminal("volume", "list", "--database", url)
    assert "VOLUME" in text
    assert "─" in text
    assert "\t" not in text
    odd = on_a_terminal("events", "--newest-first", "--limit", "1", "--database", url)
    assert "[2J[bold]x" in odd
    assert "\x1b[2J" not in odd


@pytest.mark.parametrize("calm", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_is_to_stay_calm_gets_no_escapes(calm: dict[str, str]) -> None:
    assert "\x1b[" in on_a_terminal("doctor", "--database", "sqlite:////nowhere.db")
    assert "\x1b[" not in on_a_terminal("doctor", "--database", "sqlite:////nowhere.db", more=calm)


def test_progress_leaves_nothing_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = Output("table")
    out.progress("not on a terminal")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for line in ("disks: 10 listed", "disks: done", ""):
        out.progress(line)
    assert capsys.readouterr().err == "\rdisks: 10 listed\rdisks: done     \r           \r"


def test_an_empty_part_is_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("json")
    columns: list[Column[int]] = [Column("N", str)]
    out.table(columns, [[], [1], [], [2]], empty="")
    out.table(columns, [[]], empty="")
    found = capsys.readouterr().out
    assert found == "[\n1,\n2\n]\n[]\n"


def laid_out(room: int, *natural: int, ranks: Sequence[int] = (), prose: Sequence[int] = ()) -> tuple[dict[int, int], tuple[int, ...]]:
    columns: list[Column[int]] = [Column(str(at), str, rank=ranks[at] if ranks else 0, prose=at in prose) for at in range(len(natural))]
    found = fitted(columns, natural, room)
    return dict(found.widths), found.below


def test_a_table_that_is_too_wide_loses_what_matters_least_first_and_then_has_the_longest_below() -> None:
    ranks = (0, 0, 1, 2)
    assert laid_out(102, 10, 30, 20, 36, ranks=ranks) == ({0: 10, 1: 30, 2: 20, 3: 36}, ())
    assert laid_out(101, 10, 30, 20, 36, ranks=ranks) == ({0: 10, 1: 30, 2: 20}, ())
    assert laid_out(42, 10, 30, 20, 36, ranks=ranks) == ({0: 10, 1: 30}, ())
    assert laid_out(41, 10, 30, 20, 36, ranks=ranks) == ({0: 10, 2: 20}, (1,)), "what made room for it has room again"
    assert laid_out(31, 10, 30, 20, 36, ranks=ranks) == ({0: 10}, (1,))
    assert laid_out(40, 10, 30, 20, 36) == ({0: 10, 2: 20}, (1, 3))
    assert laid_out(1, 10) == ({0: 10}, ())


def test_a_sentence_stands_in_its_row_where_there_is_room_for_it_and_below_where_not() -> None:
    assert laid_out(120, 36, 90, prose=[1]) == ({0: 36, 1: 82}, ())
    assert laid_out(78, 36, 90, prose=[1]) == ({0: 36, 1: BESIDE}, ())
    assert laid_out(77, 36, 90, prose=[1]) == ({0: 36}, (1,))
    assert laid_out(77, 36, 20, 10, ranks=(0, 0, 1), prose=[1]) == ({0: 36, 1: 20, 2: 10}, ())
    assert laid_out(79, 36, 90, 30, ranks=(0, 0, 1), prose=[1]) == ({0: 36, 1: 41}, ())
    assert laid_out(77, 36, 90, 30, ranks=(0, 0, 1), prose=[1]) == ({0: 36, 2: 30}, (1,))


WHY = "TASK_UNREACHABLE: no proof that the task is gone; see claim 0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d0e of task t"


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        ("/db#0/data", ["  WHY  "]),
        ("/shop/payments/postgres#12/var/lib/data", ["  VOLUME  /shop/payments/postgres#12/var/lib/data", "  WHY     "]),
    ],
)
def test_ids_and_names_of_claims_stand_whole_at_eighty_columns(
    volume: str, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    claim_id = "0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d0e"
    row = [claim_id, volume, "STRANDED", "15 s", "3", "RW", "agent1.example", WHY, f"db.instance-{claim_id}._app.1"]
    TerminalTable(claim_columns({})).print([row], header=True)
    _, rule, first, *below = capsys.readouterr().out.splitlines()
    assert set(rule) == {"─"}
    assert first.split()[0] == claim_id
    assert "STRANDED" in first
    assert "agent1.example" in first
    assert (volume in first) is (len(told) == 1)
    assert [line[: len(start)] for start, line in zip(told, below, strict=False)] == told
    assert " ".join(line[len(told[-1]) :] for line in below[len(told) - 1 :]) == WHY
    assert all(len(line) <= 80 for line in (first, *below))


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_parts_stay_in_line(tmp_path: Path, columns: int) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = open_ledger(url, clock=lambda: NOW)
    fill(ledger)
    with ledger.begin("test") as tx:
        for number in range(PAGE + 5):
            tx.note("noted", why=f"number {number}")
    ledger.close()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal("events", "--database", url, columns=columns)).splitlines()
    assert max(map(len, lines)) <= columns
    whats = {line.find("noted") for line in lines if "noted" in line}
    assert len(whats) == 1
    assert sum("noted" in line for line in lines) == PAGE + 5
