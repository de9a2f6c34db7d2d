"""Which volumes the processes of a node have mounted: in made-up tables, and for real in a namespace of another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.node.mounted import mounted

ROOT = "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
VOLUME = "61 22 7:1 / /run/polly/claim-1 rw,nosuid,nodev - ext4 /dev/loop1 rw\n"
DEEPER = "62 22 7:1 / /run/polly/claim-1/inner rw - ext4 /dev/loop1 rw\n"


def process(proc: Path, pid: int, namespace: str, table: str) -> None:
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns" / "mnt").symlink_to(namespace)
    (folder / "mountinfo").write_text(table)


def test_each_claim_is_found_once_with_all_processes_that_see_it(tmp_path: Path) -> None:
    process(tmp_path, 1, "mnt:[1]", ROOT)
    process(tmp_path, 70, "mnt:[2]", ROOT + VOLUME + DEEPER)
    process(tmp_path, 71, "mnt:[2]", ROOT + VOLUME + DEEPER)
    process(tmp_path, 72, "mnt:[3]", "nonsense")
    (tmp_path / "self").mkdir()
    (found,) = mounted(Path("/run/polly"), tmp_path)
    assert (found.claim_id, found.source, found.pids) == ("claim-1", "/dev/loop1", (70, 71))


@pytest.mark.root
def test_a_mount_in_another_processs_namespace_is_seen(tmp_path: Path) -> None:
    (tmp_path / "claim-2").mkdir()
    mount = "import subprocess, sys; subprocess.run(['mount', '-t', 'tmpfs', 'x', sys.argv[1]], check=True)"
    program = f"{mount}; print(flush=True); sys.stdin.read()"
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", program, str(tmp_path / "claim-2")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (found,) = mounted(tmp_path)
        assert found.claim_id == "claim-2"
        assert os.getpid() not in found.pids
        other.communicate()
    assert mounted(tmp_path) == []
