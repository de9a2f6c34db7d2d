"""The demo itself, as `make demo ONCE=1` runs it: it ends well and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.mesos_install import Installed
from tests.leaks import traces
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

DEMO = [sys.executable, str(Path(__file__).parents[2] / "examples/demo.py")]


def home(tmp_path: Path, installed: Installed) -> dict[str, str]:
    """An environment whose folders for temporary files and of the user's own are the test's; Mesos is where it is installed."""
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    cache = {"XDG_CACHE_HOME": str(installed.library.parents[2])}
    return {**os.environ, **cache, "TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "home")}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_demo_ends_well_and_leaves_nothing(tmp_path: Path, mesos_installed: Installed) -> None:
    environment, before = home(tmp_path, mesos_installed), traces(tmp_path, frozenset())
    done = subprocess.run(
        [*DEMO, "--once", "--folder", str(tmp_path / "demo")], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for words in ("overlay: disks/default", "epoch 1", "formatted ext4", "by proof FENCED", "epoch 2", "the data survived"):
        assert words in done.stdout
    assert traces(tmp_path, frozenset()).since(before) == []
    assert files(tmp_path / "tmp") == files(tmp_path / "home") == []
    assert not (tmp_path / "demo").exists()


@pytest.fixture
def taken() -> Iterator[None]:
    """Somebody listens on the usual port: the other test's demo, or we do."""
    with socket.socket() as holder:
        with suppress(OSError):
            holder.bind(("127.0.0.1", 7070))
            holder.listen()
        yield


@pytest.mark.usefixtures("taken")
def test_ctrl_c_ends_the_demo_with_all_that_it_started(tmp_path: Path, mesos_installed: Installed) -> None:
    environment, before = home(tmp_path, mesos_installed), traces(tmp_path, frozenset())
    story = tmp_path / "story"
    with open(story, "w") as out:
        process = subprocess.Popen(
            [*DEMO, "--folder", str(tmp_path / "demo")], env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        eventually(lambda: "overlay:" in story.read_text() or process.poll() is not None, 60, "the demo's app is placed")
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, story.read_text()
    assert "Traceback" not in story.read_text()
    assert traces(tmp_path, frozenset()).since(before) == []
    assert not (tmp_path / "demo").exists()
