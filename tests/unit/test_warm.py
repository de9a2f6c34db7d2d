"""Brokers that tests fork do and say what the command does, and die as it does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cluster.rig import Process, Starter, cold
from tests.cluster.warm import WarmPython
from tests.support import eventually


@pytest.fixture
def warm() -> Iterator[WarmPython]:
    with WarmPython() as python:
        yield python


def started(start: Starter, log: Path, arguments: Sequence[str]) -> Process:
    with open(log, "wb") as file:
        return start("", arguments, file)


def waiting(folder: Path) -> list[str]:
    """A broker's arguments that make it wait for what its configuration says: nobody writes to this pipe."""
    os.mkfifo(folder / "polly.toml")
    return ["broker", "--master", "127.0.0.1:1", "--config", str(folder / "polly.toml"), "--database", f"sqlite:///{folder}/polly.db"]


def test_a_fork_is_the_command(warm: WarmPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the caller's environment and folder as they are when it is started."""
    (tmp_path / "polly.toml").write_text("[nonsense]\n")
    monkeypatch.setenv("POLLY_DATABASE", f"sqlite:///{tmp_path}/polly.db")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    said = []
    for start in (cold, warm.start):
        process = started(start, tmp_path / "log", ["broker", "--master", "127.0.0.1:1"])
        said.append((process.wait(60), (tmp_path / "log").read_text()))
    assert said[0] == said[1]
    assert said[0][0] == 2
    assert "nonsense" in said[0][1]


def test_a_signal_meets_one_fork_and_no_other(warm: WarmPython, tmp_path: Path) -> None:
    arguments = waiting(tmp_path)
    first, second = (started(warm.start, tmp_path / f"log{number}", arguments) for number in (1, 2))
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0)
    first.send_signal(signal.SIGKILL)
    assert (first.wait(60), second.poll()) == (-signal.SIGKILL, None)
    first.send_signal(signal.SIGKILL)
    second.send_signal(signal.SIGKILL)
    assert second.wait(60) == -signal.SIGKILL


def test_no_fork_outlives_what_it_is_a_fork_of(tmp_path: Path) -> None:
    with WarmPython() as python:
        process = started(python.start, tmp_path / "log", waiting(tmp_path))
        assert process.poll() is None
    eventually(lambda: not Path(f"/proc/{process.pid}").exists(), what="the fork is gone")
