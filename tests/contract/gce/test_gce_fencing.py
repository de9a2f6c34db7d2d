"""Fencing on Compute Engine: late holders, attaches that were given up, what changes between two calls, and processes that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage.errors import (
    PlatformError,
    PlatformUnavailable,
    StaleEpoch,
    UnknownVolume,
    VolumeInUse,
)
from storage.model import Birth, ExternalId
from storage.platforms.base import CreateRequest
from storage.platforms.gce import GcePlatform
from storage.platforms.gce.failures import Fault
from tests.peers.gce import verbs
from tests.peers.gce.cloud import ELSEWHERE, NODE, POOL, Cloud, cloud_on, during
from tests.peers.gce.errors import ApiError
from tests.peers.gce.server import Peer
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

BIRTH = Birth(serial="polly-0123", filesystem="ext4", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")


# --- fences ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_a_holder_that_is_fenced_while_it_attaches_lets_go(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    fence = cloud.platform()
    during(monkeypatch, platform, "attach", lambda: fence.fence(volume, 5))

    with pytest.raises(StaleEpoch, match="at epoch 5; a holder with epoch 1"):
        platform.attach(volume, NODE, epoch=1, read_only=read_only)
    assert cloud.entries(NODE) == []
    assert platform.attach(volume, ELSEWHERE, epoch=5).external_id == volume


def test_a_fence_is_not_given_to_who_is_too_late(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cloud.platform()
    during(monkeypatch, platform, "set_labels", lambda: other.attach(volume, NODE, epoch=1))

    assert platform.fence(volume, 5) is None
    assert (platform.inspect(volume).epoch, platform.inspect(volume).held_by) == (1, (NODE,))


def test_a_newer_claim_on_the_same_node_keeps_its_disk_when_the_older_lets_go(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cloud.platform()

    def overtake() -> None:
        other.fence(volume, 2)
        other.attach(volume, NODE, epoch=3)

    during(monkeypatch, platform, "attach", overtake)

    with pytest.raises(StaleEpoch):
        platform.attach(volume, NODE, epoch=1)
    assert platform.inspect(volume).held_by == (NODE,)
    assert other.attach(volume, NODE, epoch=3).external_id == volume


def test_an_attach_that_google_calls_done_and_does_not_show_is_asked_again(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    during(monkeypatch, platform, "attach", lambda: cloud.world.instances[NODE]["disks"].pop(), after=True)

    with pytest.raises(PlatformUnavailable, match="shows no user europe-west4-a/node-a"):
        platform.attach(volume, NODE, epoch=1)
    assert platform.attach(volume, NODE, epoch=1).external_id == volume


def give_up(monkeypatch: pytest.MonkeyPatch, platform: GcePlatform) -> None:
    """The next operation of an attach is not waited for."""

    def done(operation: Any, zone: str) -> None:
        if operation.operation_type == "attachDisk":
            raise Fault("OPERATION_IN_PROGRESS", "given up")
        wait(operation, zone)

    wait = platform._api._watch.done
    monkeypatch.setattr(platform._api._watch, "done", done)


@pytest.mark.parametrize("verb", ["detach", "fence"])
def test_an_attach_that_was_given_up_is_waited_for_before_anybody_is_told_that_the_disk_is_free(
    compute_engine: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    cloud = cloud_on(compute_engine, tmp_path, operation_s=0.3)
    platform, other = cloud.platform(), cloud.platform()
    volume = platform.create(CreateRequest(pool=POOL, size_mib=10240, token="claim-1")).external_id
    give_up(monkeypatch, platform)
    with pytest.raises(PlatformUnavailable, match="given up"):
        platform.attach(volume, NODE, epoch=1)
    assert cloud.entries(NODE) == []

    if verb == "fence":
        assert other.fence(volume, 2) is None
    other.detach(volume, NODE)
    assert all(operation["status"] == "DONE" for operation in cloud.world.operations.values())
    assert cloud.entries(NODE) == []
    assert other.fence(volume, 2)


def test_an_attach_under_way_is_seen_however_many_are(cloud: Cloud, volume: ExternalId, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a list has 500 operations at most, and what it has may be another's."""
    cloud.world.faults.stuck = {"attachDisk"}
    hasty = cloud.platform(timeout_s=1)
    others = hasty.create(CreateRequest(pool=POOL, size_mib=10240, token="claim-2")).external_id
    for disk, node in ((others, ELSEWHERE), (volume, NODE)):
        with pytest.raises(PlatformUnavailable, match="is RUNNING after 1 s"):
            hasty.attach(disk, node, epoch=1)

    monkeypatch.setattr(verbs, "MOST", 1)
    with pytest.raises(PlatformUnavailable, match="is RUNNING after 1 s"):
        hasty.fence(volume, 2)


def test_an_attach_that_stays_under_way_is_no_proof(cloud: Cloud, volume: ExternalId) -> None:
    cloud.world.faults.stuck = {"attachDisk"}
    hasty = cloud.platform(timeout_s=1)
    with pytest.raises(PlatformUnavailable, match="is RUNNING after 1 s"):
        hasty.attach(volume, NODE, epoch=1)

    for _ in range(2):
        with pytest.raises(PlatformUnavailable, match="is RUNNING after 1 s"):
            hasty.fence(volume, 2)
    with pytest.raises(PlatformUnavailable, match="is RUNNING after 1 s"):
        hasty.detach(volume, NODE)


def test_labels_that_others_change_meanwhile_are_kept(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    def relabel() -> None:
        disk = cloud.platform()._api.disk(platform._attachments._instance(volume, volume))
        cloud.platform()._api.set_labels(
            platform._attachments._instance(volume, volume), {**disk.labels, "team": "till"}, disk.label_fingerprint
        )

    during(monkeypatch, platform, "set_labels", relabel)
    platform.attach(volume, NODE, epoch=4)

    labels = cloud.disk(volume)["labels"]
    assert (labels["team"], labels["polly-epoch"], labels["polly-floor"]) == ("till", "4", "4")
    assert platform.inspect(volume).labels == {"team": "till"}


# --- what changes between two calls ----------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["attach", "set_labels"])
def test_a_disk_that_goes_while_it_is_attached_is_unknown(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    during(monkeypatch, platform, call, lambda: cloud.world.disks.pop(volume))
    with pytest.raises(UnknownVolume):
        platform.attach(volume, NODE, epoch=1)
    assert cloud.entries(NODE) == []


def test_a_disk_that_goes_while_it_is_made_is_unknown(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.disk(volume)["status"] = "CREATING"
    during(monkeypatch, platform, "settled_disk", lambda: cloud.world.disks.pop(volume))
    with pytest.raises(UnknownVolume):
        platform.attach(volume, NODE, epoch=1)


def test_a_reader_that_another_of_its_node_has_overtaken_leaves_the_disk_to_it(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cloud.platform()
    during(monkeypatch, platform, "attach", lambda: other.attach(volume, NODE, epoch=2, read_only=True))

    with pytest.raises(VolumeInUse, match="node-a, epoch 2-ro"):
        platform.attach(volume, NODE, epoch=1, read_only=True)
    assert platform.inspect(volume).held_by == (NODE,)


def test_a_reader_that_another_takes_for_gone_while_it_comes_is_known_for_one(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes drops the holds of nodes that do not have the disk, and cannot see who is just on its way."""
    other = cloud.platform()
    during(monkeypatch, platform, "attach", lambda: other.attach(volume, NODE, epoch=1, read_only=True))

    attachment = platform.attach(volume, ELSEWHERE, epoch=2, read_only=True)
    assert platform.attach(volume, ELSEWHERE, epoch=2, read_only=True) == attachment, "a repeat is refused"


@pytest.mark.parametrize("call", ["instance", "detach"])
def test_a_disk_that_another_detaches_at_the_same_time_is_detached(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    platform.attach(volume, NODE, epoch=1)
    during(monkeypatch, platform, call, lambda: cloud.world.instances[NODE]["disks"].pop())
    platform.detach(volume, NODE)
    assert platform.inspect(volume).held_by == ()


def test_a_detach_that_google_refuses_is_said(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    platform.attach(volume, NODE, epoch=1)
    cloud.world.faults.refusals = [
        ("instances.detachDisk", ApiError(403, "forbidden", "Required 'compute.instances.detachDisk' permission"))
    ]
    with pytest.raises(PlatformError, match="FORBIDDEN: Required"):
        platform.detach(volume, NODE)
    assert platform.inspect(volume).held_by == (NODE,)


# --- killed in the middle --------------------------------------------------------------------------------------


def killed(cloud: Cloud, verb: str, method: str) -> None:
    """A process that does the verb, and is killed as soon as Google has heard of the method."""
    program = f"""
from storage.platforms.base import CreateRequest
from storage.platforms.registry import build
platform = build("cloud", "gce", {dict(cloud.platform().settings())!r})
platform.{verb}
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        eventually(lambda: method in cloud.world.calls, what=f"the process has called {method}", timeout_s=60)
    finally:
        process.kill()
        assert process.wait(timeout=10) == -signal.SIGKILL


@pytest.mark.parametrize("method", ["disks.setLabels", "instances.attachDisk"])
def test_an_executor_that_is_killed_while_it_attaches_leaves_a_disk_that_can_be_taken_back(
    compute_engine: Peer, tmp_path: Path, method: str
) -> None:
    cloud = cloud_on(compute_engine, tmp_path, operation_s=0.4)
    platform = cloud.platform()
    volume = platform.create(CreateRequest(pool=POOL, size_mib=10240, token="claim-1")).external_id

    killed(cloud, f"attach({volume!r}, {NODE!r}, epoch=1)", method)
    platform.detach(volume, NODE)
    assert platform.fence(volume, 2), "nothing holds it any more"
    assert platform.attach(volume, ELSEWHERE, epoch=2).external_id == volume
    assert (len(cloud.entries(NODE)), len(cloud.entries(ELSEWHERE))) == (0, 1)


def test_a_creator_that_is_killed_leaves_one_disk_at_most(compute_engine: Peer, tmp_path: Path) -> None:
    cloud = cloud_on(compute_engine, tmp_path, operation_s=0.4)
    killed(cloud, f"create(CreateRequest(pool={POOL!r}, size_mib=10240, token='claim-1'))", "disks.insert")

    made = cloud.platform().create(CreateRequest(pool=POOL, size_mib=10240, token="claim-1"))
    assert [key for key in cloud.world.disks if "polly-" in key] == [made.external_id]
