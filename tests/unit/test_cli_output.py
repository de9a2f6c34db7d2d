"""Tables on a terminal: aligned, streamed part by part, and harmless whatever is in the names."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from framework.cli.output import Column, Output
from storage.inventory import open_ledger
from tests.unit.front import NOW, fill

ROOT = Path(__file__).parents[2]


def on_a_terminal(*args: str) -> str:
    """What a command prints on a terminal of 160 columns."""
    ours, theirs = pty.openpty()
    code = "from framework.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
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
