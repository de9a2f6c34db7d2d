"""PowerScale's volumes as a node gets them: mounted in user space from a real NFS server that serves the simulated cluster's exports."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.model import ExternalId
from storage.platforms.base import CreateRequest, Platform
from storage.platforms.registry import build
from tests.conftest import belongs_to_the_session, leave_out
from tests.peers.powerscale_nas import Nas, nas
from tests.servers import Missing

pytestmark = [pytest.mark.peer, pytest.mark.root, pytest.mark.xdist_group("powerscale-data")]

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
"""Programs of this machine come from HERE."""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Nas]:
    if not shutil.which("nfs-cp"):
        leave_out("needs nfs-cp (Debian: libnfs-utils)")
    try:
        with nas(tmp_path, on_start=belongs_to_the_session) as storage:
            yield storage
    except Missing as missing:
        leave_out(f"needs {missing}")


@pytest.fixture
def platform(storage: Nas) -> Iterator[Platform]:
    platform = build("nas", "powerscale", storage.settings())
    yield platform
    platform.close()


def made(platform: Platform, label: str = "t1", **more: object) -> ExternalId:
    # fields as they come
    return platform.create(CreateRequest(**{"pool": "System", "size_mib": 8, "token": label, **more})).external_id  # type: ignore[arg-type]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30)


def put(storage: Nas, volume: ExternalId, text: str, name: str = "data") -> str:
    """Makes a file by NFS; what the server says against it."""
    file = storage.folder / "sent"
    file.write_text(text)
    ended = run("nfs-cp", str(file), storage.url(f"/ifs/data/polly/{volume}/{name}"))
    return ended.stderr if ended.returncode else ""


def got(storage: Nas, volume: ExternalId, name: str = "data") -> str:
    """The file by NFS, or what the server says against it."""
    ended = run("nfs-cat", storage.url(f"/ifs/data/polly/{volume}/{name}"))
    return ended.stderr if ended.returncode else ended.stdout


def test_a_volume_is_there_for_the_node_that_has_it_and_for_no_other(storage: Nas, platform: Platform) -> None:
    volume = made(platform)
    assert "NOENT" in put(storage, volume, "early"), "a volume that no node has can be mounted"

    attachment = platform.attach(volume, HERE, epoch=1)
    assert attachment.device == f"127.0.0.1:/ifs/data/polly/{volume}"
    assert put(storage, volume, "mine") == ""
    assert got(storage, volume) == "mine"

    platform.detach(volume, HERE)
    assert "NOENT" in got(storage, volume), "a node that has left can still mount"
    platform.attach(volume, ELSEWHERE, epoch=2)
    assert "NOENT" in got(storage, volume), "a node can mount what another has"


def test_a_reader_reads_and_does_not_write(storage: Nas, platform: Platform) -> None:
    volume = made(platform)
    platform.attach(volume, HERE, epoch=1)
    put(storage, volume, "kept")
    platform.detach(volume, HERE)

    platform.attach(volume, HERE, epoch=2, read_only=True)
    assert got(storage, volume) == "kept"
    assert "ROFS" in put(storage, volume, "not to be")
    assert got(storage, volume) == "kept"


def test_a_copy_has_the_files_of_its_snapshot_and_a_deleted_volume_is_gone(storage: Nas, platform: Platform) -> None:
    volume = made(platform)
    platform.attach(volume, HERE, epoch=1)
    put(storage, volume, "before")
    snapshot = platform.snapshot(volume, token="s1").external_id
    assert put(storage, volume, "later", "more") == ""

    copy = made(platform, "t2", snapshot=snapshot)
    platform.attach(copy, HERE, epoch=1)
    assert (got(storage, copy), got(storage, volume, "more")) == ("before", "later")
    assert "NOENT" in got(storage, copy, "more")

    platform.detach(copy, HERE)
    platform.delete(copy)
    assert "NOENT" in got(storage, copy)
    assert got(storage, volume, "more") == "later"


def test_a_volume_that_grows_stays_mounted(storage: Nas, platform: Platform) -> None:
    volume = made(platform)
    platform.attach(volume, HERE, epoch=1)
    put(storage, volume, "kept")
    assert platform.expand(volume, 16).size_mib == 16
    assert got(storage, volume) == "kept"
