"""Who has a disk of Compute Engine: conflicts, slots, marks in labels, nodes that stop, and hands that meddle."""

from __future__ import annotations

import pytest

from storage.errors import (
    Conflict,
    Invalid,
    NoSlot,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    UnknownVolume,
    VolumeInUse,
)
from storage.model import Birth, ExternalId
from storage.node.identities import identify
from storage.node.steps import Machine
from storage.platforms.base import CreateRequest
from storage.platforms.gce import GcePlatform, machines
from storage.platforms.gce.names import Place
from tests.peers.gce import attaching
from tests.peers.gce.cloud import ELSEWHERE, FAR_ZONE, NODE, OTHER_ZONE, POOL, ZONE, Cloud, add, create
from tests.peers.gce.errors import ApiError, OperationError

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

BIRTH = Birth(serial="polly-0123", filesystem="ext4", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")


def test_a_disk_comes_under_its_own_name_and_stays_when_its_instance_goes(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, NODE, epoch=1)

    name = volume.split("/")[1]
    assert (attachment.device, attachment.serial) == (f"/dev/disk/by-id/google-{name}", name)
    (entry,) = cloud.entries(NODE)
    assert (entry["deviceName"], entry["mode"], entry["autoDelete"]) == (name, "READ_WRITE", False)
    assert platform.inspect(volume).held_by == (NODE,)


def test_readers_share_on_many_nodes_and_google_sees_them_as_readers(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    for node in (NODE, ELSEWHERE):
        platform.attach(volume, node, epoch=1, read_only=True)

    assert platform.inspect(volume).held_by == (NODE, ELSEWHERE)
    assert [entry["mode"] for node in (NODE, ELSEWHERE) for entry in cloud.entries(node)] == ["READ_ONLY", "READ_ONLY"]


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
    assert len(cloud.entries(f"{ZONE}/small")) == 15


def test_slots_are_those_of_the_machine_type_without_what_others_have_there(cloud: Cloud) -> None:
    attaching.boot(cloud.world, ZONE, "small", "e2-micro")
    add(cloud, ZONE, "by-hand")
    platform, small = cloud.platform(), Place(ZONE, "small")
    assert platform.node_slots(f"{ZONE}/node-a") == 127
    assert platform.node_slots(str(small)) == 15, "a shared core has 16, one of them to boot from"
    platform._api.attach(small, Place(ZONE, "by-hand"), device_name="data", read_only=False)
    assert platform.node_slots(str(small)) == 14
    ours = [create(platform, f"claim-{number}").external_id for number in range(14)]
    for volume in ours:
        platform.attach(volume, str(small), epoch=1)
    assert platform.node_slots(str(small)) == 14
    cloud.world.instances[str(small)]["disks"].append({"type": "SCRATCH", "deviceName": "local-ssd-0"})
    assert platform.node_slots(str(small)) == 14, "a local disk of the machine counts as a persistent one"


@pytest.mark.parametrize(("kind", "slots"), [("c4-standard-4", 15), ("n4-custom-8-32768", 15)])
def test_slots_of_newer_machines_go_by_their_series_and_vcpus(cloud: Cloud, kind: str, slots: int) -> None:
    """Google's API says 128 of them, and refuses what is more than its documents say."""
    attaching.boot(cloud.world, ZONE, "newer", kind)
    platform, node, pool = cloud.platform(types=("hyperdisk-balanced", "pd-balanced")), f"{ZONE}/newer", f"{ZONE}.hyperdisk-balanced"
    assert platform.node_slots(node) == slots
    for number in range(slots):
        platform.attach(create(platform, f"claim-{number}", pool=pool).external_id, node, epoch=1)
    assert platform.node_slots(node) == slots
    with pytest.raises(NoSlot):
        platform.attach(create(platform, "one-more", pool=pool).external_id, node, epoch=1)


def test_a_machine_that_takes_none_of_the_types_has_no_slots(cloud: Cloud) -> None:
    attaching.boot(cloud.world, ZONE, "newer", "c4-standard-4")
    platform, node = cloud.platform(types=("pd-balanced", "pd-ssd")), f"{ZONE}/newer"
    with pytest.raises(PlatformError, match="pd-balanced disk type cannot be used by c4-standard-4 machine type"):
        platform.attach(create(platform).external_id, node, epoch=1)
    assert platform.node_slots(node) == 0


@pytest.mark.parametrize(
    ("kind", "cpus", "disks"),
    [
        ("c4-standard-2", 2, 8),
        ("c4-highmem-24-lssd", 24, 32),
        ("c4-standard-288-metal", 288, 128),
        ("c4a-standard-16", 16, 32),
        ("c4d-standard-2", 2, 4),
        ("n4-custom-80-32768", 80, 32),
        ("n4d-standard-8", 8, 16),
        ("n4a-standard-64", 64, 32),
        ("n2-standard-4", 4, None),
        ("c3-standard-4", 4, None),
        ("e2-micro", 2, None),
    ],
)
def test_what_google_documents_of_machines(kind: str, cpus: int, disks: int | None) -> None:
    assert machines.most_disks(kind, cpus) == disks


def test_slots_of_a_node_that_google_does_not_tell_are_not_known(cloud: Cloud, platform: GcePlatform) -> None:
    attaching.boot(cloud.world, ZONE, "odd", "q9-standard-1")
    for node in (f"{ZONE}/odd", f"{ZONE}/no-such-node", f"{FAR_ZONE}/node-a", "node-a"):
        assert platform.node_slots(node) is None


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


# --- labels ------------------------------------------------------------------------------------------------


def test_labels_that_never_rest_are_given_up(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    changed = ApiError(412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed")
    cloud.world.faults.refusals = [("disks.setLabels", changed)] * 10

    with pytest.raises(PlatformUnavailable, match="changed by others 10 times"):
        platform.attach(volume, NODE, epoch=1)
    assert cloud.entries(NODE) == []


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
    assert cloud.entries(NODE) == []


def test_a_hold_whose_device_was_renamed_is_in_use(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    platform.attach(volume, NODE, epoch=1)
    cloud.entries(NODE)[0]["deviceName"] = "renamed"

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
    assert [entry["deviceName"] for entry in cloud.entries(ELSEWHERE)] == [volume.split("/")[1]]


def test_a_disk_that_is_being_deleted_is_gone(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    cloud.disk(volume)["status"] = "DELETING"

    assert platform.find("claim-1") is None
    assert platform.volumes().items == [one for one in platform.volumes().items if one.external_id != volume]
    with pytest.raises(UnknownVolume):
        platform.attach(volume, NODE, epoch=1)


def test_a_deletion_that_is_under_way_is_waited_for(cloud: Cloud, platform: GcePlatform, volume: ExternalId) -> None:
    impatient = cloud.platform(timeout_s=1)
    cloud.disk(volume)["status"] = "DELETING"
    with pytest.raises(PlatformUnavailable, match=r"is DELETING after 1 s"):
        impatient.delete(volume)
    cloud.disk(volume)["status"] = "READY"
    platform.delete(volume)
    assert volume not in cloud.world.disks
