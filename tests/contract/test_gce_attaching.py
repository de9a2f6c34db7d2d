"""Who has a disk of Compute Engine: conflicts, late holders, fences, labels that others change, nodes that stop, and hands that meddle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import (
    Conflict,
    Invalid,
    NoSlot,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    StaleEpoch,
    UnknownVolume,
    VolumeInUse,
)
from storage.model import Birth, ExternalId
from storage.node.identities import identify
from storage.node.steps import Machine
from storage.platforms.base import CreateRequest
from storage.platforms.gce import GcePlatform
from storage.platforms.gce.failures import Fault
from tests.peers.gce import attaching
from tests.peers.gce.cloud import ELSEWHERE, NODE, OTHER_ZONE, POOL, ZONE, Cloud, cloud_on
from tests.peers.gce.errors import ApiError, OperationError
from tests.peers.gce.server import Peer

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

BIRTH = Birth(serial="polly-0123", filesystem="ext4", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")


@pytest.fixture
def cloud(compute_engine: Peer, tmp_path: Path) -> Cloud:
    return cloud_on(compute_engine, tmp_path)


@pytest.fixture
def platform(cloud: Cloud) -> Iterator[GcePlatform]:
    platform = cloud.platform()
    yield platform
    platform.close()


@pytest.fixture
def volume(platform: GcePlatform) -> ExternalId:
    return platform.create(CreateRequest(pool=POOL, size_mib=10240, token="claim-1")).external_id


def entries(cloud: Cloud, node: str) -> list[dict[str, Any]]:
    """The disks of an instance beside the one it boots from."""
    found: list[dict[str, Any]] = cloud.world.instances[node]["disks"][1:]
    return found


def test_a_disk_comes_under_its_own_name_and_stays_when_its_instance_goes(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, NODE, epoch=1)

    name = volume.split("/")[1]
    assert (attachment.device, attachment.serial) == (f"/dev/disk/by-id/google-{name}", name)
    (entry,) = entries(cloud, NODE)
    assert (entry["deviceName"], entry["mode"], entry["autoDelete"]) == (name, "READ_WRITE", False)
    assert platform.inspect(volume).held_by == (NODE,)


def test_readers_share_on_many_nodes_and_google_sees_them_as_readers(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    for node in (NODE, ELSEWHERE):
        platform.attach(volume, node, epoch=1, read_only=True)

    assert platform.inspect(volume).held_by == (NODE, ELSEWHERE)
    assert [entry["mode"] for node in (NODE, ELSEWHERE) for entry in entries(cloud, node)] == ["READ_ONLY", "READ_ONLY"]


def test_no_call_ever_attaches_by_force(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    platform.attach(volume, NODE, epoch=1)
    with pytest.raises(VolumeInUse, match=f"in use by {NODE}"):
        platform.attach(volume, ELSEWHERE, epoch=2)
    assert cloud.world.calls.count("instances.attachDisk") == 2


def test_another_claim_on_the_same_node_is_refused(platform: GcePlatform, volume: ExternalId) -> None:
    platform.attach(volume, NODE, epoch=1, read_only=True)
    for epoch, read_only in ((2, True), (2, False)):
        with pytest.raises(VolumeInUse, match="node-a, epoch 1-ro"):
            platform.attach(volume, NODE, epoch=epoch, read_only=read_only)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (f"{OTHER_ZONE}/node-c", "is in another zone"),
        (f"{ZONE}/no-such-node", "has no such instance"),
        ("http://node-a", "it must be an instance"),
        ("", "it must be an instance"),
    ],
)
def test_a_node_that_cannot_have_the_disk_is_named(platform: GcePlatform, volume: ExternalId, node: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as refused:
        platform.attach(volume, node, epoch=1)
    assert refused.value.fields["value"] == node
    platform.detach(volume, node)


def test_a_node_is_enough_by_its_name_in_the_disks_zone(platform: GcePlatform, volume: ExternalId) -> None:
    platform.attach(volume, "node-a", epoch=1)
    assert platform.inspect(volume).held_by == (NODE,)
    platform.detach(volume, NODE)
    assert platform.inspect(volume).held_by == ()


def test_an_instance_that_has_all_the_disks_it_takes_has_no_slot(cloud: Cloud) -> None:
    attaching.boot(cloud.world, ZONE, "small", "e2-micro")
    platform = cloud.platform()
    made = [platform.create(CreateRequest(pool=POOL, size_mib=10240, token=f"claim-{number}")).external_id for number in range(16)]
    for volume in made[:15]:
        platform.attach(volume, f"{ZONE}/small", epoch=1)

    with pytest.raises(NoSlot, match="small has all 16 attach slots") as refused:
        platform.attach(made[15], f"{ZONE}/small", epoch=1)
    assert "LIMIT_EXCEEDED" in refused.value.fields["reason"]
    assert len(entries(cloud, f"{ZONE}/small")) == 15


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", VolumeInUse),
        ("RESOURCE_NOT_FOUND", Invalid),
        ("LIMIT_EXCEEDED", NoSlot),
        ("INTERNAL_ERROR", PlatformUnavailable),
        ("UNSUPPORTED_OPERATION", PlatformError),
    ],
)
def test_an_error_inside_the_operation_of_an_attach_is_an_error(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, code: str, error: type[PollyError]
) -> None:
    cloud.world.faults.failures = [("attachDisk", OperationError(code, "Google's words"))]

    with pytest.raises(error) as refused:
        platform.attach(volume, NODE, epoch=1)
    assert refused.type is error
    assert code in refused.value.fields["reason"]
    assert platform.attach(volume, NODE, epoch=1).external_id == volume


# --- fences ------------------------------------------------------------------------------------------------


def during(monkeypatch: pytest.MonkeyPatch, platform: GcePlatform, call: str, what: Callable[[], object], *, after: bool = False) -> None:
    """Lets something happen right before or after the platform's next call of the API."""
    original = getattr(platform._api, call)

    def run(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        if not after:
            what()
        answer = original(*arguments, **options)
        if after:
            what()
        return answer

    monkeypatch.setattr(platform._api, call, run)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_holder_that_is_fenced_while_it_attaches_lets_go(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    fence = cloud.platform()
    during(monkeypatch, platform, "attach", lambda: fence.fence(volume, 5))

    with pytest.raises(StaleEpoch, match="at epoch 5; a holder with epoch 1"):
        platform.attach(volume, NODE, epoch=1, read_only=read_only)
    assert entries(cloud, NODE) == []
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
    assert entries(cloud, NODE) == []

    if verb == "fence":
        assert other.fence(volume, 2) is None
    other.detach(volume, NODE)
    assert all(operation["status"] == "DONE" for operation in cloud.world.operations.values())
    assert entries(cloud, NODE) == []
    assert other.fence(volume, 2)


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


# --- labels ------------------------------------------------------------------------------------------------


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


def test_labels_that_never_rest_are_given_up(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    changed = ApiError(412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed")
    cloud.world.faults.refusals = [("disks.setLabels", changed)] * 10

    with pytest.raises(PlatformUnavailable, match="changed by others 10 times"):
        platform.attach(volume, NODE, epoch=1)
    assert entries(cloud, NODE) == []


def test_a_spoilt_mark_is_for_a_person_and_hides_no_disk(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    cloud.disk(volume)["labels"] = {"polly-epoch": "many"}

    assert platform.inspect(volume).epoch == 0
    with pytest.raises(Conflict, match=r"label polly-epoch of .* wanted a number, found many"):
        platform.attach(volume, NODE, epoch=1)


def test_holds_of_nodes_that_are_gone_do_not_pile_up(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    for epoch, node in enumerate((NODE, ELSEWHERE, NODE, ELSEWHERE), start=1):
        platform.attach(volume, node, epoch=epoch)
        platform.detach(volume, node)

    labels = cloud.disk(volume)["labels"]
    assert [value for key, value in labels.items() if key.startswith("polly-on-")] == ["4-rw"]


@pytest.mark.parametrize("serial", ["polly-0123", "Serial No. 1_2", "ü"])
def test_a_birth_certificate_comes_back_as_it_was(cloud: Cloud, platform: GcePlatform, volume: ExternalId, serial: str) -> None:
    birth = Birth(serial=serial, filesystem="ext4", filesystem_uuid=BIRTH.filesystem_uuid)
    platform.record_birth(volume, birth, epoch=1)
    assert cloud.platform().inspect(volume).birth == birth


def test_a_birth_certificate_that_no_label_holds_is_refused(platform: GcePlatform, volume: ExternalId) -> None:
    with pytest.raises(Invalid, match=r"birth.serial is 'S+': a label of Compute Engine holds 63 characters"):
        platform.record_birth(volume, Birth(serial="S" * 40, filesystem="ext4", filesystem_uuid="u"), epoch=1)
    assert platform.inspect(volume).birth is None


# --- by other hands, and nodes -------------------------------------------------------------------------------


def attach_by_hand(cloud: Cloud, volume: ExternalId, device: str) -> None:
    zone, name = volume.split("/")
    source = cloud.world.link("zones", zone, "disks", name)
    entry = {"kind": "compute#attachedDisk", "source": source, "deviceName": device, "mode": "READ_WRITE", "index": 1}
    cloud.world.instances[NODE]["disks"].append(entry)


def test_a_disk_that_a_hand_attached_is_in_use_and_can_be_detached(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    attach_by_hand(cloud, volume, "persistent-disk-1")

    with pytest.raises(VolumeInUse, match="which has it by hand"):
        platform.attach(volume, NODE, epoch=1)
    with pytest.raises(VolumeInUse, match="node-a"):
        platform.delete(volume)
    assert platform.fence(volume, 2) is None
    platform.detach(volume, NODE)
    assert entries(cloud, NODE) == []


def test_a_hold_whose_device_was_renamed_is_in_use(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    platform.attach(volume, NODE, epoch=1)
    entries(cloud, NODE)[0]["deviceName"] = "renamed"

    with pytest.raises(VolumeInUse, match="as device renamed and READ_WRITE"):
        platform.attach(volume, NODE, epoch=1)


def test_a_disk_whose_instance_is_deleted_is_free(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    platform.attach(volume, NODE, epoch=1)
    del cloud.world.instances[NODE]

    platform.detach(volume, NODE)
    assert platform.fence(volume, 2) == f"disk {volume} of project {cloud.world.project} has no users, epochs below 2 are refused"
    assert platform.attach(volume, ELSEWHERE, epoch=2).external_id == volume


@pytest.mark.parametrize(
    ("node", "status", "said"),
    [
        (NODE, "RUNNING", None),
        (NODE, "STOPPING", None),
        (NODE, "SUSPENDED", None),
        (NODE, "REPAIRING", None),
        (NODE, "TERMINATED", f"instance {NODE} is TERMINATED"),
        (NODE, "STOPPED", f"instance {NODE} is STOPPED"),
        (f"{ZONE}/gone", "", "has no instance europe-west4-a/gone"),
        ("asia-east1-a/gone", "", None),
        ("gone", "", None),
    ],
)
def test_only_a_node_in_which_nothing_runs_is_stopped(
    cloud: Cloud, platform: GcePlatform, node: str, status: str, said: str | None
) -> None:
    if status:
        cloud.world.instances[node]["status"] = status
    found = platform.node_stopped(node)
    assert found == said or (said and found and found.endswith(said))


def test_an_instance_attaches_by_the_name_that_its_metadata_server_says(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.peer.here = (cloud.world.project, ZONE, "node-b")
    monkeypatch.setenv("GCE_METADATA_HOST", cloud.peer.url.removeprefix("http://"))

    node = identify(platform.capabilities.identity, Machine(), hostname="agent-b.example.net")
    platform.attach(volume, node, epoch=1)
    assert [entry["deviceName"] for entry in entries(cloud, ELSEWHERE)] == [volume.split("/")[1]]


def test_a_disk_that_is_being_deleted_is_gone(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    cloud.disk(volume)["status"] = "DELETING"

    assert platform.find("claim-1") is None
    assert platform.volumes().items == [one for one in platform.volumes().items if one.external_id != volume]
    with pytest.raises(UnknownVolume):
        platform.attach(volume, NODE, epoch=1)
    platform.delete(volume)


# --- what changes between two calls ----------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["attach", "set_labels"])
def test_a_disk_that_goes_while_it_is_attached_is_unknown(
    cloud: Cloud, platform: GcePlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    during(monkeypatch, platform, call, lambda: cloud.world.disks.pop(volume))
    with pytest.raises(UnknownVolume):
        platform.attach(volume, NODE, epoch=1)
    assert entries(cloud, NODE) == []


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
