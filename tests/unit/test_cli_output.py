"""Tables on a terminal: aligned, streamed part by part, and harmless whatever is in the names."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from framework.cli.claims import claim_columns
from framework.cli.output import NARROWEST, Column, Output, fitted
from framework.views import PAGE
from storage.inventory import open_ledger
from tests.unit.front import NOW, fill

ROOT = Path(__file__).parents[2]


def on_a_terminal(*args: str, columns: int = 160) -> str:
    """What a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    code = "from framework.cli import main; main()"
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
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


def test_an_empty_part_is_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("json")
    columns: list[Column[int]] = [Column("N", str)]
    out.table(columns, [[], [1], [], [2]], empty="")
    out.table(columns, [[]], empty="")
    found = capsys.readouterr().out
    assert found == "[\n1,\n2\n]\n[]\n"


def test_a_table_that_is_too_wide_loses_what_matters_least_first() -> None:
    natural, ranks = [10, 30, 20, 36], [0, 0, 1, 2]
    assert fitted(natural, ranks, 200) == {0: 10, 1: 30, 2: 20, 3: 36}
    assert fitted(natural, ranks, 70) == {0: 10, 1: 30, 2: 20}
    assert fitted(natural, ranks, 42) == {0: 10, 1: 30}
    assert fitted(natural, ranks, 30) == {0: 10, 1: 18}
    assert fitted(natural, ranks, 1) == {0: NARROWEST, 1: NARROWEST}


def test_a_claims_id_stands_whole_on_a_terminal_of_eighty_columns() -> None:
    columns = claim_columns({})
    cells = {
        "CLAIM": 36,
        "VOLUME": len("/counter#0/data"),
        "STATE": len("ATTACHING"),
        "FOR": len("15 s"),
        "NODE": len("agent1"),
        "TASK": 60,
    }
    widths = fitted([max(len(column.title), cells.get(column.title, 0)) for column in columns], [column.rank for column in columns], 80)
    assert {columns[at].title: width for at, width in widths.items()} == {"CLAIM": 36, "VOLUME": 15, "STATE": 9, "NODE": 6, "WHY": 3}


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
