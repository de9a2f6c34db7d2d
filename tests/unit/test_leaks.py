"""Does the watch for what tests leave behind see it?"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.leaks import kill_left, traces
from tests.support import eventually


def test_a_process_that_is_left_is_seen_and_ended(tmp_path: Path) -> None:
    before = traces(tmp_path, frozenset())
    left = subprocess.Popen(["sleep", "600"], cwd=tmp_path, start_new_session=True)
    now = eventually(lambda: found if (found := traces(tmp_path, frozenset())).since(before) else None, 5, "the process is seen")
    assert now is not None
    assert now.since(before) == [f"process left: {left.pid} sleep"]
    kill_left(now, before)
    assert left.wait(timeout=5) == -9
    assert traces(tmp_path, frozenset()).since(before) == []


def test_a_server_of_the_session_and_what_it_starts_are_not_the_tests(tmp_path: Path) -> None:
    before = traces(tmp_path, frozenset())
    server = subprocess.Popen(["sh", "-c", "sleep 600; true"], start_new_session=True)
    try:
        eventually(lambda: len(traces(tmp_path, frozenset()).since(before)) == 2, 5, "both processes run")
        assert traces(tmp_path, frozenset({server.pid})).since(before) == []
    finally:
        kill_left(traces(tmp_path, frozenset()), before)
        server.wait()


@pytest.mark.root
def test_mounts_and_loop_devices_under_the_tests_folder_are_seen(tmp_path: Path) -> None:
    before = traces(tmp_path, frozenset())
    image, target = tmp_path / "image", tmp_path / "target"
    target.mkdir()
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    try:
        mount, device = sorted(traces(tmp_path, frozenset()).since(before), reverse=True)
        assert mount == f"mount left: {target}"
        assert device.startswith("loop device left: /dev/loop")
        assert device.endswith(f" of {image}")
    finally:
        subprocess.run(["umount", target], check=True)
    assert eventually(lambda: not traces(tmp_path, frozenset()).since(before), 5, "they go")
