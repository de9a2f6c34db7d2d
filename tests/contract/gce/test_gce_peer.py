"""The peer that stands for Compute Engine, accepted first by Google's own other client, then held to what that client cannot ask."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.peers import gce
from tests.peers.gce.errors import ApiError
from tests.peers.gce.server import Peer
from tests.peers.gce.world import World

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]


@pytest.mark.parametrize("operation_s", [0.0, 0.05])
def test_googles_other_client_lives_a_disks_whole_life_on_it(compute_engine: Peer, tmp_path: Path, operation_s: float) -> None:
    world = compute_engine.project(operation_s=operation_s)
    account = tmp_path / "account.json"
    account.write_text(json.dumps(compute_engine.account(world.project)))
    program = Path(gce.__file__).with_name("independent.py")
    command = [gce.python(), program, compute_engine.url, gce.document(), account, world.project, next(iter(world.zones))]

    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "a stopped instance"
    assert len(done.stdout.splitlines()) == 39
    assert compute_engine.violations == []


@pytest.mark.parametrize(
    ("verb", "path", "query", "body", "reason"),
    [
        ("GET", "zones/europe-west4-a/disks/Bad_Name", "", b"", "invalid"),
        ("GET", "zones/Europe/disks/one", "", b"", "invalid"),
        ("GET", "zones/europe-west4-a/disks", "maxResults=-1", b"", "invalid"),
        ("GET", "zones/europe-west4-a/disks", "maxResult=1", b"", "badRequest"),
        ("GET", "zones/europe-west4-a/disks", "filter=a&filter=b", b"", "invalid"),
        ("GET", "zones/europe-west4-a/disks/one", "", b'{"a": 1}', "badRequest"),
        ("PUT", "zones/europe-west4-a/disks/one", "", b"", "notFound"),
        ("POST", "zones/europe-west4-a/instances/i/detachDisk", "", b"", "required"),
        ("POST", "zones/europe-west4-a/instances/i/attachDisk", "forceAttach=yes", b"{}", "invalid"),
        ("POST", "zones/europe-west4-a/instances/i/attachDisk", "", b'{"mode": "WRITE"}', "invalid"),
        ("POST", "zones/europe-west4-a/disks", "", b"{}", "required"),
        ("POST", "zones/europe-west4-a/disks", "", b"{", "parseError"),
        ("POST", "zones/europe-west4-a/disks", "", b'{"name": "one", "sizeGb": "ten"}', "invalid"),
        ("POST", "zones/europe-west4-a/disks", "", b'{"name": "one", "sizeGb": "9223372036854775808"}', "invalid"),
        ("POST", "zones/europe-west4-a/disks", "", b'{"name": "one", "labels": ["a"]}', "badRequest"),
        ("POST", "zones/europe-west4-a/disks", "", b'{"name": "one", "licenses": "a"}', "badRequest"),
    ],
)
def test_what_the_document_does_not_allow_is_refused(
    compute_engine: Peer, verb: str, path: str, query: str, body: bytes, reason: str
) -> None:
    with pytest.raises(ApiError) as refused:
        compute_engine.discovery.read(verb, f"/compute/v1/projects/p/{path}", query, body)
    assert refused.value.reason == reason


def test_what_is_googles_to_write_is_ignored_and_numbers_become_text(compute_engine: Peer) -> None:
    body = b'{"name": "one", "status": "READY", "id": "7", "sizeGb": 10}'
    call = compute_engine.discovery.read("POST", "/compute/v1/projects/p/zones/z/disks", "", body)
    assert call.body == {"name": "one", "sizeGb": "10"}


def test_an_answer_that_is_not_as_the_document_says_is_seen(compute_engine: Peer) -> None:
    wrong = {"kind": "compute#disc", "sizeGb": 10, "status": "DONE", "colour": "red", "users": "one", "labelFingerprint": "?"}
    found = compute_engine.discovery.problems(wrong, {"$ref": "Disk"})
    assert [text.split(" ")[0] for text in found] == [
        "answer.kind",
        "answer.sizeGb",
        "answer.status",
        "answer",
        "answer.users",
        "answer.labelFingerprint",
    ]


def test_projects_do_not_see_each_other(compute_engine: Peer) -> None:
    mine, other = compute_engine.project(), compute_engine.project()
    token = f"Bearer {compute_engine.token(mine.project)['access_token']}"
    assert isinstance(compute_engine.world_of(mine.project, token), World)
    for project, bearer, status in ((other.project, token, 403), (mine.project, "Bearer x", 401)):
        with pytest.raises(ApiError) as refused:
            compute_engine.world_of(project, bearer)
        assert refused.value.status == status
