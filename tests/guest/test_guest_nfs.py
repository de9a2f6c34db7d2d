"""The node's NFS code on a real client and a real server: mounted, written, let go, and a server that says nothing hangs nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import BusyMount, NodeError
from storage.model import ExternalId
from storage.node import publishing
from tests.conftest import leave_out
from tests.guest import inside
from tests.guest.exports import OPTIONS, Exports, relayed
from tests.nodes import again, plan
from tests.peers.ganesha import Ganesha
from tests.peers.guest import Died, Guest
from tests.servers import Missing

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("guest")]

VOLUME = "share-1"
SANDBOX = Path("/run/sandbox")


@pytest.fixture(scope="module")
def ganesha(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ganesha, int]]:
    """A server for the module, and its process; the guest's NFS port leads to it."""
    if os.geteuid() != 0:
        leave_out("needs root, as nfs-ganesha does")
    pids: list[int] = []
    try:
        server = Ganesha(tmp_path_factory.mktemp("ganesha"), on_start=pids.append)
    except Missing as missing:
        leave_out(f"needs {missing}")
    server.start()
    relay = relayed(guest, server.port)
    yield server, pids[0]
    relay.stop()
    server.stop()


@pytest.fixture
def exports(guest: Guest, ganesha: tuple[Ganesha, int], tmp_path: Path) -> Iterator[Exports]:
    made = Exports(guest, ganesha[0], tmp_path / "ifs")
    made.pid = ganesha[1]
    yield made
    left = guest.call(inside.left)
    guest.call(inside.clean_up)
    assert left == []


def test_an_export_is_mounted_and_marked_and_comes_again_with_its_data(exports: Exports) -> None:
    born = plan(VOLUME, mount_options=OPTIONS)
    first = exports.stage(born)
    exports.guest.call(inside.write, f"{first.path}/file", "kept", sync=True)
    mount = exports.guest.call(inside.mount_at, first.path)
    assert (mount.filesystem, mount.source) == ("nfs4", f"127.0.0.1:/ifs/polly/{VOLUME}")
    assert {"nosuid", "nodev"} <= mount.options
    assert (exports.folder_of(VOLUME) / "file").read_text() == "kept"
    for _ in range(2):
        exports.unstage(born)
    assert exports.guest.call(inside.left) == []

    later = again(first.birth, token=VOLUME, external_id=ExternalId(VOLUME), mount_options=OPTIONS)
    second = exports.stage(later)
    assert exports.guest.call(inside.read, f"{second.path}/file") == "kept"
    exports.unstage(later)


def test_a_server_that_says_nothing_fails_the_stage_in_time_and_leaves_nothing(exports: Exports) -> None:
    call = exports.guest.begin(inside.stage, plan(VOLUME, mount_options=OPTIONS), exports.capabilities, answering=exports, patience_s=3.0)
    call.until("attach")
    call.answer()
    with exports.silent():
        call.until("detach")

    with pytest.raises(NodeError, match=r"mount failed on 127\.0\.0\.1:/ifs/polly/share-1"):
        call.result()


def test_a_server_that_falls_silent_under_a_mount_hangs_neither_the_release_nor_the_node(exports: Exports) -> None:
    born = plan(VOLUME, mount_options=OPTIONS)
    staged = exports.stage(born)
    exports.guest.call(inside.write, f"{staged.path}/file", "kept", sync=True)
    user = exports.guest.begin(inside.hold, f"{staged.path}/open", "in use")
    user.until("held")
    exports.guest.run("mkdir", "-p", str(SANDBOX))
    published = exports.guest.call(publishing.publish, staged, SANDBOX, "data")
    with exports.silent():
        exports.guest.call(publishing.unpublish, SANDBOX, "data", timeout_s=3.0)
        assert not exports.guest.call(inside.is_mounted, published.path)
        with pytest.raises((BusyMount, NodeError)):
            exports.unstage(born, timeout_s=3.0)
        assert exports.guest.call(inside.is_mounted, staged.path)
        user.kill()

    exports.unstage(born)
    assert (exports.folder_of(VOLUME) / "file").read_text() == "kept"


def test_an_export_is_published_read_only_and_given_to_its_user(exports: Exports) -> None:
    born = plan(VOLUME, mount_options=OPTIONS)
    staged = exports.stage(born)
    exports.guest.call(inside.write, f"{staged.path}/file", "kept", sync=True)
    exports.guest.run("mkdir", "-p", str(SANDBOX))

    written = exports.guest.call(inside.publish, staged, SANDBOX, "data", owner=(1234, 1235))
    read = exports.guest.call(inside.publish, staged, SANDBOX, "view", read_only=True)

    assert exports.guest.call(inside.publish, staged, SANDBOX, "view", read_only=True) == read
    assert [exports.guest.call(inside.mount_at, one.path).read_only for one in (written, read)] == [False, True]
    assert exports.guest.call(inside.read, f"{read.path}/file") == "kept"
    found = exports.folder_of(VOLUME).stat()
    assert (found.st_uid, found.st_gid) == (1234, 1235)
    for name in ("data", "view"):
        exports.guest.call(publishing.unpublish, SANDBOX, name)
    exports.unstage(born)


def test_an_export_whose_server_is_silent_when_it_is_published_hangs_nobody(exports: Exports) -> None:
    """Without cached attributes whoever looks at the export asks the server."""
    born = plan(VOLUME, mount_options=(*OPTIONS, "noac"))
    staged = exports.stage(born)
    exports.guest.run("mkdir", "-p", str(SANDBOX))
    with exports.silent(), pytest.raises(NodeError, match=r"did not end within 3\.0 s and was killed"):
        exports.guest.begin(inside.publish, staged, SANDBOX, "data", patience_s=3.0).result(20.0)
    assert not exports.guest.call(inside.is_mounted, str(SANDBOX / "data"))

    published = exports.guest.call(inside.publish, staged, SANDBOX, "data")
    exports.guest.call(inside.write, f"{published.path}/file", "kept", sync=True)
    assert (exports.folder_of(VOLUME) / "file").read_text() == "kept"
    exports.guest.call(publishing.unpublish, SANDBOX, "data")
    exports.unstage(born)


def test_a_release_by_force_takes_a_dead_servers_mount_out_of_sight(exports: Exports) -> None:
    born = plan(VOLUME, mount_options=OPTIONS)
    staged = exports.stage(born)
    call = exports.guest.begin(inside.unstage, born, exports.capabilities, answering=exports, timeout_s=3.0, force=True)
    with exports.silent():
        call.until("detach")
        assert not exports.guest.call(inside.is_mounted, staged.path)
    call.result()


def test_what_a_killed_holder_left_mounted_is_found_again_and_let_go(exports: Exports) -> None:
    born = plan(VOLUME, mount_options=OPTIONS)
    call = exports.guest.begin(inside.stage, born, exports.capabilities, answering=exports)
    call.until("record_birth")
    call.kill()
    with pytest.raises(Died):
        call.result(10.0)
    assert exports.guest.call(inside.left) != []

    staged = exports.stage(born)

    assert exports.guest.call(inside.mount_at, staged.path).source == f"127.0.0.1:/ifs/polly/{VOLUME}"
    exports.unstage(born)


def test_an_export_that_may_only_be_read_is_never_marked(exports: Exports) -> None:
    exports.may_write = False
    with pytest.raises(NodeError, match="Read-only file system"):
        exports.stage(plan(VOLUME, mount_options=OPTIONS))
    assert os.listdir(exports.folder_of(VOLUME)) == []


def test_a_client_that_no_export_names_gets_nothing(exports: Exports) -> None:
    exports.address = "192.0.2.1"
    with pytest.raises(NodeError, match="mount failed"):
        exports.stage(plan(VOLUME, mount_options=OPTIONS))
