"""EBS in time: states that last, states that stay, replies that came too late, and who wins when two want one volume."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage.errors import Conflict, Invalid, NoSlot, PlatformError, PlatformUnavailable, StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Birth, ExternalId
from storage.platforms.base import CreateRequest, VolumeReport
from storage.platforms.ebs import EbsPlatform
from storage.platforms.ebs.device_names import NAMES
from storage.platforms.faulting import Fault
from tests.peers import ec2
from tests.peers.ec2_front import Front
from tests.peers.ec2_wire import Refused, text
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]

FOREVER = float("inf")
SHORT_S = 0.15


def request(label: str = "data", *, size_mib: int = 1024, **more: Any) -> CreateRequest:
    return CreateRequest(pool=ec2.ZONE, size_mib=size_mib, token=label, name=label, **more)


def create(platform: EbsPlatform, label: str = "data", **more: Any) -> VolumeReport:
    return platform.create(request(label, **more))


@pytest.fixture
def cloud(front: Front) -> EbsPlatform:
    return ec2.adapter(front)


@pytest.fixture
def hasty(front: Front) -> EbsPlatform:
    """It gives up after a second."""
    return ec2.adapter(front, timeout_s=1, snapshot_timeout_s=1)


@pytest.fixture
def node(front: Front) -> str:
    return front.machines(1)[0]


def attached_to(front: Front, volume: str) -> list[str]:
    """What moto itself says."""
    found = front.do("DescribeVolumes", **{"VolumeId.1": volume})
    return [text(item, "instanceId") for item in found.iterfind("volumeSet/item/attachmentSet/item")]


# --- states that last ----------------------------------------------------------------------------------------


def test_every_change_is_waited_for(front: Front, cloud: EbsPlatform, node: str) -> None:
    front.lasting = dict.fromkeys(("creating", "attaching", "detaching", "deleting", "modifying", "pending"), SHORT_S)
    made = create(cloud)
    volume = made.external_id
    assert made == cloud.inspect(volume)

    attachment = cloud.attach(volume, node, epoch=1)
    assert (attachment.device in NAMES, attachment.serial) == (True, volume.replace("-", ""))
    assert cloud.inspect(volume).held_by == (node,)

    assert cloud.expand(volume, 3000).size_mib == 3072
    snapshot = cloud.snapshot(volume, token="snap")
    assert (snapshot.volume, snapshot.size_mib) == (volume, 3072)

    cloud.detach(volume, node)
    assert (cloud.inspect(volume).held_by, attached_to(front, volume)) == ((), [])
    cloud.delete(volume)
    with pytest.raises(UnknownVolume):
        cloud.inspect(volume)
    assert front.problems == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("creating", "after 1 s it is creating"),
        ("attaching", r"the attachment to i-\w+ is attaching"),
        ("detaching", r"the attachment to i-\w+ is still detaching; a forced detach is for a person"),
        ("modifying", "after 1 s the modification is modifying"),
        ("pending", "is still being made .40%.; ask again"),
    ],
)
def test_a_change_that_never_ends_is_said_and_found_again(front: Front, hasty: EbsPlatform, node: str, change: str, words: str) -> None:
    volume = create(hasty, "other").external_id
    if change == "detaching":
        hasty.attach(volume, node, epoch=1)
    verbs: dict[str, Callable[[], object]] = {
        "creating": lambda: create(hasty),
        "attaching": lambda: hasty.attach(volume, node, epoch=1),
        "detaching": lambda: hasty.detach(volume, node),
        "modifying": lambda: hasty.expand(volume, 2048),
        "pending": lambda: hasty.snapshot(volume, token="snap"),
    }
    front.lasting[change] = FOREVER
    with pytest.raises(PlatformUnavailable, match=words):
        verbs[change]()

    front.ledger.hurry()
    verbs[change]()
    assert len([one for one in hasty.volumes().items if one.token]) == (2 if change == "creating" else 1)
    assert len(hasty.snapshots().items) == (1 if change == "pending" else 0)


def test_a_busy_device_is_still_in_use(front: Front, hasty: EbsPlatform, node: str) -> None:
    volume = create(hasty).external_id
    hasty.attach(volume, node, epoch=1)
    front.lasting["detaching"] = FOREVER
    front.ledger.busy.add((volume, node))

    with pytest.raises(VolumeInUse, match="still has the device in use"):
        hasty.detach(volume, node)
    assert hasty.inspect(volume).held_by == (node,)
    assert hasty.fence(volume, 9) is None


def test_a_volume_that_another_detaches_and_deletes_at_the_same_time_is_deleted(front: Front, cloud: EbsPlatform) -> None:
    volume = create(cloud).external_id
    front.faults.refusing["DeleteVolume"] = [Refused("VolumeInUse", "Volume is currently attached")]
    front.do("DeleteVolume", VolumeId=volume)
    cloud.delete(volume)


def test_a_volume_that_comes_out_in_error_is_said(front: Front, cloud: EbsPlatform, node: str) -> None:
    volume = create(cloud).external_id
    front.ledger.broken[volume] = "KMS"

    with pytest.raises(PlatformError, match="state error; a KMS key"):
        create(cloud)
    with pytest.raises(Conflict, match="wanted available or in-use, found error"):
        cloud.attach(volume, node, epoch=1)


@pytest.mark.parametrize("seen", [True, False])
def test_a_volume_that_vanishes_because_of_its_key_is_said(front: Front, hasty: EbsPlatform, seen: bool) -> None:
    """EC2 takes the call, finds that it may not use the key, and deletes the volume without a word; so it says to the same token again."""
    encrypted = {"encrypted": "true", "kmsKeyId": "alias/not-ours"}
    front.ledger.forbidden_keys = {"alias/not-ours": 0.1 if seen else 0.0}
    with pytest.raises(PlatformError, match="it is gone again; a KMS key that is not there or may not be used is the usual cause") as first:
        create(hasty, parameters=encrypted)
    assert not isinstance(first.value, PlatformUnavailable), "asking again with this token is of no use"
    with pytest.raises(Conflict, match=r"IdempotentParameterMismatch, .* a KMS key"):
        create(hasty, parameters=encrypted)
    assert create(hasty, "other").size_mib == 1024


def test_a_snapshot_that_is_not_shown_at_once_is_waited_for(front: Front, cloud: EbsPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC2 tells of what it has just made a moment later. To call that unknown would leave the snapshot behind."""
    volume, looks = create(cloud).external_id, itertools.count()
    described = cloud._copies._described
    monkeypatch.setattr(cloud._copies, "_described", lambda filters: described(filters) if next(looks) > 3 else [])
    front.lasting["pending"] = 0.05

    made = cloud.snapshot(volume, token="snap")
    assert [one.external_id for one in cloud.snapshots().items] == [made.external_id]


def test_a_snapshot_that_fails_is_said(front: Front, cloud: EbsPlatform) -> None:
    volume = create(cloud).external_id
    snapshot = cloud.snapshot(volume, token="snap").external_id
    front.ledger.broken[snapshot] = "Client.InternalError"

    with pytest.raises(PlatformError, match=r"in state error: Client\.InternalError"):
        cloud.snapshot(volume, token="snap")
    with pytest.raises(PlatformError, match="in state error"):
        create(cloud, "copy", snapshot=snapshot)


def test_an_attach_waits_for_a_volume_on_its_way_off(front: Front, cloud: EbsPlatform, node: str) -> None:
    volume = create(cloud).external_id
    cloud.attach(volume, node, epoch=1)
    front.lasting["detaching"] = FOREVER
    front.ledger.detaching.clear()
    with ThreadPoolExecutor(2) as pool:
        detached = pool.submit(cloud.detach, volume, node)
        eventually(lambda: front.ledger.detaching, what="the detach begins")
        again = pool.submit(ec2.adapter(front).attach, volume, node, epoch=2)
        front.ledger.hurry()
        detached.result(timeout=30)
        assert again.result(timeout=30).external_id == volume


# --- who has it ----------------------------------------------------------------------------------------------


def test_another_epoch_does_not_take_over_on_the_same_node(cloud: EbsPlatform, node: str) -> None:
    volume = create(cloud).external_id
    cloud.attach(volume, node, epoch=1)

    with pytest.raises(VolumeInUse, match=f"{node}, a writer of epoch 1"):
        cloud.attach(volume, node, epoch=2)
    with pytest.raises(VolumeInUse):
        cloud.attach(volume, node, epoch=1, read_only=True)
    assert cloud.inspect(volume).epoch == 1


def test_what_a_person_attached_is_not_ours(front: Front, cloud: EbsPlatform, node: str) -> None:
    volume = create(cloud).external_id
    front.do("AttachVolume", VolumeId=volume, InstanceId=node, Device="/dev/sdf")

    with pytest.raises(VolumeInUse, match="attached by somebody else"):
        cloud.attach(volume, node, epoch=1)
    assert cloud.fence(volume, 3) is None


def test_an_attach_that_a_fence_overtook_takes_itself_back(front: Front, cloud: EbsPlatform, node: str) -> None:
    """The old holder's call is on its way when the fence looks, and comes through after it."""
    volume = create(cloud).external_id
    other, arrived, go = ec2.adapter(front), threading.Event(), threading.Event()
    change = other.client.change

    def late(action: str, *arguments: Any, **asked: Any) -> Any:
        if action == "attach_volume":
            arrived.set()
            assert go.wait(30)
        return change(action, *arguments, **asked)

    other.client.change = late  # type: ignore[method-assign]  # for this test
    with ThreadPoolExecutor(1) as pool:
        overtaken = pool.submit(other.attach, volume, node, epoch=3)
        assert arrived.wait(30)
        assert cloud.fence(volume, 4) == f"EC2 has {volume} as available, attached to nothing; epochs below 4 are refused"
        go.set()
        with pytest.raises(StaleEpoch, match="is at epoch 4"):
            overtaken.result(timeout=30)
    assert attached_to(front, volume) == []
    assert cloud.inspect(volume).epoch == 4


def test_marks_written_at_once_never_lower_each_other(front: Front, cloud: EbsPlatform) -> None:
    volume = create(cloud).external_id
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda epoch: ec2.adapter(front).fence(volume, epoch), (3, 9, 1, 7, 5, 2)))

    assert cloud.inspect(volume).epoch == 9


def test_a_long_life_does_not_fill_the_tags(front: Front, cloud: EbsPlatform, node: str) -> None:
    volume = create(cloud).external_id
    for epoch in range(1, 10):
        cloud.attach(volume, node, epoch=epoch)
        cloud.detach(volume, node)

    tags = front.do("DescribeVolumes", **{"VolumeId.1": volume}).findall("volumeSet/item/tagSet/item")
    assert len(tags) < 12
    assert cloud.inspect(volume).epoch == 9


def test_claims_that_never_come_to_have_it_do_not_fill_the_tags(front: Front, cloud: EbsPlatform, node: str) -> None:
    """EC2 keeps 50 of a volume, and refuses the next one."""
    volume, nowhere = create(cloud).external_id, "i-0123456789abcdef0"
    for epoch in range(1, 29, 2):
        with pytest.raises(Invalid):
            cloud.attach(volume, nowhere, epoch=epoch)
        assert cloud.fence(volume, epoch + 1)
    assert cloud.attach(volume, node, epoch=29).external_id == volume
    assert cloud.inspect(volume).epoch == 29
    with pytest.raises(StaleEpoch):
        cloud.attach(volume, node, epoch=28)


def test_readers_share_a_multi_attach_volume(front: Front) -> None:
    cloud, (here, there) = ec2.adapter(front, multi_attach=True), front.machines(2)
    parameters = {"type": "io2", "iops": "100", "multiAttach": "true"}
    volume = create(cloud, size_mib=4096, parameters=parameters).external_id
    cloud.attach(volume, here, epoch=1, read_only=True)
    cloud.attach(volume, there, epoch=2, read_only=True)
    assert cloud.inspect(volume).held_by == tuple(sorted((here, there)))

    cloud.detach(volume, there)
    with pytest.raises(VolumeInUse, match=here):
        cloud.attach(volume, there, epoch=3)


# --- names and places ------------------------------------------------------------------------------------------


def test_device_names_differ_on_one_machine(cloud: EbsPlatform, node: str) -> None:
    volumes = [create(cloud, f"token-{number}").external_id for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        devices = {one.device for one in pool.map(lambda volume: cloud.attach(volume, node, epoch=1), volumes)}

    assert len(devices) == 6
    assert devices < set(NAMES)


def test_a_name_that_somebody_takes_meanwhile_is_not_the_end(front: Front, cloud: EbsPlatform, node: str) -> None:
    taken = Refused("InvalidParameterValue", "Invalid value '/dev/xvdba' for unixDevice. Attachment point /dev/xvdba is already in use")
    front.faults.refusing["AttachVolume"] = [taken, taken]
    volume = create(cloud).external_id

    assert cloud.attach(volume, node, epoch=1).device in NAMES
    assert front.calls["AttachVolume"] == 3


def test_a_full_machine_is_named(front: Front, cloud: EbsPlatform, node: str) -> None:
    front.attach_limit = 2
    cloud.attach(create(cloud, "one").external_id, node, epoch=1)

    with pytest.raises(NoSlot, match=f"Node {node} has all 2 attach slots of platform cloud in use") as caught:
        cloud.attach(create(cloud, "two").external_id, node, epoch=1)
    assert caught.value.fields["reason"].startswith("AttachmentLimitExceeded")


def test_places_are_counted_from_the_instance_type(front: Front, cloud: EbsPlatform, node: str) -> None:
    """27 of an m5.large, less its root volume, its interface, and a volume that is not Polly's; ours and adopted ones do not count."""
    assert cloud.node_slots(node) == 25
    cloud.attach(create(cloud).external_id, node, epoch=1)
    assert cloud.node_slots(node) == 25
    foreign = text(front.do("CreateVolume", AvailabilityZone=ec2.ZONE, Size="1"), "volumeId")
    front.do("AttachVolume", VolumeId=foreign, InstanceId=node, Device="/dev/sdf")
    assert cloud.node_slots(node) == 24
    front.do("DetachVolume", VolumeId=foreign, InstanceId=node)
    cloud.attach(ExternalId(foreign), node, epoch=1)
    cloud.record_birth(ExternalId(foreign), Birth(serial="vol1", filesystem="xfs", filesystem_uuid="6b1f0d0e"), epoch=1)
    assert cloud.node_slots(node) == 25


def test_what_ec2_says_of_a_node(front: Front, cloud: EbsPlatform) -> None:
    running, stopped, asleep, gone = front.machines(4)
    front.do("StopInstances", **{"InstanceId.1": stopped})
    front.do("StopInstances", **{"InstanceId.1": asleep})
    front.do("TerminateInstances", **{"InstanceId.1": gone})

    assert cloud.node_stopped(running) is None
    front.ledger.hibernated.add(asleep)
    assert cloud.node_stopped(asleep) is None, "what is hibernated goes on where it was"
    assert cloud.node_stopped(stopped) == f"EC2 says that instance {stopped} is stopped"
    assert cloud.node_stopped(gone) == f"EC2 says that instance {gone} is terminated"
    assert cloud.node_stopped("i-0123456789abcdef0") == "EC2 knows no instance i-0123456789abcdef0: it was terminated"
    with pytest.raises(Invalid, match=r"node is 'agent-7': EC2 knows its machines by an id"):
        cloud.node_stopped("agent-7")


def test_a_node_elsewhere_or_unknown_is_refused_in_words(front: Front, cloud: EbsPlatform) -> None:
    (far,) = front.machines(1, zone="us-east-1b")
    volume = create(cloud).external_id

    with pytest.raises(Invalid, match=r"InvalidVolume\.ZoneMismatch: .*another availability zone"):
        cloud.attach(volume, far, epoch=1)
    with pytest.raises(Invalid, match=r"InvalidInstanceID\.NotFound"):
        cloud.attach(volume, "i-0123456789abcdef0", epoch=1)
    with pytest.raises(Invalid, match="EC2 knows its machines by an id"):
        cloud.attach(volume, "agent-7", epoch=1)
    assert cloud.inspect(volume).held_by == ()


# --- making, growing, copying ------------------------------------------------------------------------------------


def test_a_token_with_other_arguments_finds_the_volume(front: Front, cloud: EbsPlatform) -> None:
    """Two creators at once that want different sizes: EC2 refuses the second, who takes the first's."""
    made = create(cloud)
    late = ec2.adapter(front)
    find = late._making.find  # looked at before the first one's call came through
    answers = iter([None])
    late._making.find = lambda token: next(answers, find(token))  # type: ignore[method-assign]  # for this test

    assert create(late, size_mib=4096).external_id == made.external_id


def test_a_volume_being_modified_by_hand_is_not_grown_by_accident(front: Front, cloud: EbsPlatform) -> None:
    volume = create(cloud).external_id
    cloud.expand(volume, 2048)

    with pytest.raises(Conflict, match="IncorrectModificationState"):
        cloud.expand(volume, 4096)
    front.ledger.growing[volume].state = "completed"
    with pytest.raises(PlatformError, match=r"VolumeModificationRateExceeded.*again only some hours"):
        cloud.expand(volume, 4096)
    assert cloud.inspect(volume).size_mib == 2048


def test_a_growth_that_is_under_way_is_joined_and_not_begun_again(front: Front, hasty: EbsPlatform) -> None:
    volume = create(hasty).external_id
    front.lasting["modifying"] = FOREVER
    with pytest.raises(PlatformUnavailable):
        hasty.expand(volume, 2048)
    with ThreadPoolExecutor(1) as pool:
        grown = pool.submit(ec2.adapter(front).expand, volume, 2048)
        eventually(lambda: front.refused["IncorrectModificationState"], what="the repeat asks")
        front.ledger.hurry()
        assert grown.result(timeout=30).size_mib == 2048


def test_a_growth_that_fails_is_said(front: Front, cloud: EbsPlatform) -> None:
    volume = create(cloud).external_id
    front.lasting["modifying"] = FOREVER
    with ThreadPoolExecutor(1) as pool:
        grown = pool.submit(cloud.expand, volume, 2048)
        eventually(lambda: volume in front.ledger.growing, what="the growth begins")
        front.ledger.growing[volume].state = "failed"
        with pytest.raises(PlatformError, match="the modification failed"):
            grown.result(timeout=30)


def test_two_snapshots_of_one_token_at_once_become_one(front: Front, cloud: EbsPlatform) -> None:
    volume = create(cloud).external_id
    late = ec2.adapter(front)
    find, looks = late._copies._find, iter([True])
    late._copies._find = lambda token: [] if next(looks, False) else find(token)  # type: ignore[method-assign]  # for this test
    one = cloud.snapshot(volume, token="snap")

    other = late.snapshot(volume, token="snap")
    assert [snapshot.external_id for snapshot in cloud.snapshots().items] == [other.external_id]
    assert (other.token, front.calls["CreateSnapshot"], front.calls["DeleteSnapshot"]) == (one.token, 2, 1)


def test_foreign_volumes_are_listed_to_be_adopted(front: Front, cloud: EbsPlatform, node: str) -> None:
    answer = front.do("CreateVolume", AvailabilityZone=ec2.ZONE, Size="3", VolumeType="gp2")
    volume = ExternalId(text(answer, "volumeId"))
    front.do(
        "CreateTags", **{"ResourceId.1": volume, "Tag.1.Key": "Name", "Tag.1.Value": "old db", "Tag.2.Key": "team", "Tag.2.Value": "shop"}
    )

    (found,) = [one for one in cloud.volumes().items if one.external_id == volume]
    assert (found.token, found.name, found.size_mib, found.labels, found.birth) == ("", "old db", 3072, {"team": "shop"}, None)
    cloud.attach(volume, node, epoch=1)
    birth = Birth(serial=found.serial, filesystem="xfs", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")
    cloud.record_birth(volume, birth, epoch=1)
    assert (cloud.inspect(volume).birth, cloud.inspect(volume).epoch) == (birth, 1)


def test_lost_describes_are_asked_again(front: Front, cloud: EbsPlatform) -> None:
    volume = create(cloud).external_id
    front.faults.at_call.arrange(Fault.DIED, 1)
    with pytest.raises(PlatformUnavailable, match="look at volumes"):
        cloud.inspect(volume)
    front.faults.at_call.heal()
    before = front.calls["DescribeVolumes"]
    front.faults.instead = [Refused("InternalError", "An internal error has occurred", 500).answer()] * 2

    assert cloud.inspect(volume).external_id == volume
    assert front.calls["DescribeVolumes"] - before == 3


BIRTHS = [Birth(serial="serial", filesystem=kind, filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10") for kind in ("ext4", "xfs")]


@pytest.mark.parametrize("writes_before", [1, 2])
def test_a_birth_certificate_that_comes_between_a_look_and_a_write_is_not_replaced(
    front: Front, cloud: EbsPlatform, monkeypatch: pytest.MonkeyPatch, writes_before: int
) -> None:
    volume, other = create(cloud).external_id, ec2.adapter(front)
    write, writes, refused = cloud._attaching._write, itertools.count(1), []

    def write_late(*arguments: Any) -> None:
        if next(writes) == writes_before:
            try:
                other.record_birth(volume, BIRTHS[1], epoch=0)
            except Conflict:
                refused.append(BIRTHS[1])
        write(*arguments)

    monkeypatch.setattr(cloud._attaching, "_write", write_late)
    try:
        cloud.record_birth(volume, BIRTHS[0], epoch=0)
    except Conflict:
        refused.append(BIRTHS[0])
    assert refused == [BIRTHS[writes_before - 1]]
    assert other.inspect(volume).birth not in [None, *refused]
