"""The front refuses what EC2 refuses: every gap of moto's, asked with Amazon's own client, and all answers in Amazon's shapes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from storage.platforms.faulting import Fault
from tests.peers import ec2
from tests.peers.ec2_front import EMPTY, HTML, Front

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]

ZONE = ec2.ZONE
NO_VOLUME, NO_INSTANCE, NO_SNAPSHOT = "vol-0123456789abcdef0", "i-0123456789abcdef0", "snap-0123456789abcdef0"


def refusal(call: Callable[..., Any], **asked: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    return str(caught.value.response["Error"]["Code"])


def made(sdk: Any, **asked: Any) -> str:
    return str(sdk.create_volume(**{"AvailabilityZone": ZONE, "Size": 10, "VolumeType": "gp3"} | asked)["VolumeId"])


def shown(sdk: Any, volume: str) -> dict[str, Any]:
    found: dict[str, Any] = sdk.describe_volumes(VolumeIds=[volume])["Volumes"][0]
    return found


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"VolumeType": "gp3", "Iops": 99999}, "InvalidParameterValue"),
        ({"VolumeType": "gp3", "Iops": 8000, "Size": 10}, "InvalidParameterValue"),
        ({"VolumeType": "gp3", "Throughput": 1000}, "InvalidParameterValue"),
        ({"VolumeType": "gp3", "Throughput": 100}, "InvalidParameterValue"),
        ({"VolumeType": "gp2", "Throughput": 250}, "InvalidParameterCombination"),
        ({"VolumeType": "gp2", "Iops": 3000}, "InvalidParameterCombination"),
        ({"VolumeType": "io2"}, "MissingParameter"),
        ({"VolumeType": "io1", "Iops": 1000, "Size": 10}, "InvalidParameterValue"),
        ({"VolumeType": "st1", "Size": 1}, "InvalidParameterValue"),
        ({"VolumeType": "zz9"}, "UnknownVolumeType"),
        ({"VolumeType": "gp3", "MultiAttachEnabled": True}, "InvalidParameterCombination"),
        ({"KmsKeyId": "alias/x"}, "InvalidParameterDependency"),
        ({"Size": 0}, "InvalidParameterValue"),
        ({"Size": 99999}, "InvalidParameterValue"),
        ({"AvailabilityZone": "us-east-1zz"}, "InvalidZone.NotFound"),
        ({"SnapshotId": NO_SNAPSHOT}, "InvalidSnapshot.NotFound"),
        ({"SnapshotId": "snap-junk"}, "InvalidSnapshotID.Malformed"),
    ],
)
def test_volumes_that_cannot_be_are_refused(sdk: Any, asked: dict[str, Any], code: str) -> None:
    assert refusal(sdk.create_volume, **{"AvailabilityZone": ZONE, "Size": 10, "VolumeType": "gp3"} | asked) == code


def test_a_volume_without_a_size_is_refused(sdk: Any) -> None:
    assert refusal(sdk.create_volume, AvailabilityZone=ZONE) == "MissingParameter"


def test_one_client_token_makes_one_volume(sdk: Any) -> None:
    first, second = made(sdk, ClientToken="one"), made(sdk, ClientToken="one")

    assert first == second
    assert made(sdk, ClientToken="two") != first
    assert refusal(sdk.create_volume, AvailabilityZone=ZONE, Size=11, VolumeType="gp3", ClientToken="one") == "IdempotentParameterMismatch"


def test_attaching_is_refused_as_ec2_does(sdk: Any, front: Front) -> None:
    here, there = front.machines(2)
    (elsewhere,) = front.machines(1, zone="us-east-1b")
    volume, other = made(sdk), made(sdk)
    sdk.attach_volume(VolumeId=volume, InstanceId=here, Device="/dev/sdf")
    attach = sdk.attach_volume

    assert refusal(attach, VolumeId=volume, InstanceId=here, Device="/dev/sdg") == "VolumeInUse"
    assert refusal(attach, VolumeId=volume, InstanceId=there, Device="/dev/sdf") == "VolumeInUse"
    assert refusal(attach, VolumeId=other, InstanceId=here, Device="/dev/sdf") == "InvalidParameterValue"
    assert refusal(attach, VolumeId=other, InstanceId=here, Device="bogus") == "InvalidParameterValue"
    assert refusal(attach, VolumeId=other, InstanceId=elsewhere, Device="/dev/sdf") == "InvalidVolume.ZoneMismatch"
    assert refusal(attach, VolumeId=other, InstanceId=NO_INSTANCE, Device="/dev/sdh") == "InvalidInstanceID.NotFound"
    assert refusal(attach, VolumeId=NO_VOLUME, InstanceId=here, Device="/dev/sdh") == "InvalidVolume.NotFound"
    assert refusal(attach, VolumeId="junk", InstanceId=here, Device="/dev/sdh") == "InvalidParameterValue"
    assert refusal(attach, VolumeId="vol-junk", InstanceId=here, Device="/dev/sdh") == "InvalidVolumeID.Malformed"
    assert [one["InstanceId"] for one in shown(sdk, volume)["Attachments"]] == [here]


def test_stopped_machines_take_volumes_and_terminated_ones_do_not(sdk: Any, front: Front) -> None:
    stopped, gone = front.machines(2)
    sdk.stop_instances(InstanceIds=[stopped])
    held, volume = made(sdk), made(sdk)
    sdk.attach_volume(VolumeId=held, InstanceId=gone, Device="/dev/sdf")
    sdk.terminate_instances(InstanceIds=[gone])

    assert shown(sdk, held)["State"] == "available"
    assert refusal(sdk.attach_volume, VolumeId=volume, InstanceId=gone, Device="/dev/sdf") == "IncorrectState"
    assert sdk.attach_volume(VolumeId=volume, InstanceId=stopped, Device="/dev/sdf")["State"] == "attaching"


def test_a_machine_has_so_many_places(sdk: Any, front: Front) -> None:
    (node,) = front.machines(1)
    front.attach_limit = 2
    sdk.attach_volume(VolumeId=made(sdk), InstanceId=node, Device="/dev/sdf")

    assert refusal(sdk.attach_volume, VolumeId=made(sdk), InstanceId=node, Device="/dev/sdg") == "AttachmentLimitExceeded"


def test_several_machines_share_a_multi_attach_volume(sdk: Any, front: Front) -> None:
    nodes = front.machines(2)
    volume = made(sdk, VolumeType="io2", Iops=100, MultiAttachEnabled=True)
    for node in nodes:
        sdk.attach_volume(VolumeId=volume, InstanceId=node, Device="/dev/sdf")
    assert {one["InstanceId"] for one in shown(sdk, volume)["Attachments"]} == set(nodes)

    sdk.detach_volume(VolumeId=volume, InstanceId=nodes[1])
    assert {one["InstanceId"] for one in shown(sdk, volume)["Attachments"]} == {nodes[0]}


def test_detaching_is_as_ec2_does(sdk: Any, front: Front) -> None:
    here, there = front.machines(2)
    volume = made(sdk)
    sdk.attach_volume(VolumeId=volume, InstanceId=here, Device="/dev/sdf")

    assert refusal(sdk.detach_volume, VolumeId=volume, InstanceId=there) == "InvalidAttachment.NotFound"
    assert refusal(sdk.detach_volume, VolumeId=volume, InstanceId=here, Device="/dev/sdz") == "InvalidAttachment.NotFound"
    assert refusal(sdk.delete_volume, VolumeId=volume) == "VolumeInUse"
    assert sdk.detach_volume(VolumeId=volume)["InstanceId"] == here
    assert refusal(sdk.detach_volume, VolumeId=volume) == "IncorrectState"


def test_growing_is_as_ec2_does(sdk: Any) -> None:
    volume = made(sdk)

    assert refusal(sdk.modify_volume, VolumeId=volume, Size=5) == "InvalidParameterValue"
    assert sdk.modify_volume(VolumeId=volume, Size=20)["VolumeModification"]["ModificationState"] == "modifying"
    assert refusal(sdk.modify_volume, VolumeId=volume, Size=30) == "IncorrectModificationState"
    assert shown(sdk, volume)["Size"] == 20
    assert sdk.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"][0]["TargetSize"] == 20


def test_a_grown_volume_rests_for_hours(sdk: Any, front: Front) -> None:
    volume = made(sdk)
    sdk.modify_volume(VolumeId=volume, Size=20)
    front.ledger.growing[volume].state = "completed"

    assert refusal(sdk.modify_volume, VolumeId=volume, Size=30) == "VolumeModificationRateExceeded"


def test_snapshots_are_as_ec2_has_them(sdk: Any, front: Front) -> None:
    volume = made(sdk)
    snapshot = sdk.create_snapshot(VolumeId=volume)["SnapshotId"]

    assert refusal(sdk.create_volume, AvailabilityZone=ZONE, Size=1, SnapshotId=snapshot) == "InvalidParameterValue"
    assert sdk.create_volume(AvailabilityZone=ZONE, SnapshotId=snapshot)["Size"] == 10
    front.lasting["pending"] = 1000.0
    pending = sdk.create_snapshot(VolumeId=volume)["SnapshotId"]
    assert refusal(sdk.create_volume, AvailabilityZone=ZONE, SnapshotId=pending) == "IncorrectState"
    sdk.delete_snapshot(SnapshotId=snapshot)
    assert refusal(sdk.delete_snapshot, SnapshotId=snapshot) == "InvalidSnapshot.NotFound"


def test_states_last_as_long_as_the_test_says(sdk: Any, front: Front) -> None:
    (node,) = front.machines(1)
    front.lasting = dict.fromkeys(("creating", "attaching", "detaching", "deleting", "modifying"), 1000.0)
    volume = made(sdk)
    assert shown(sdk, volume)["State"] == "creating"
    assert refusal(sdk.attach_volume, VolumeId=volume, InstanceId=node, Device="/dev/sdf") == "IncorrectState"

    front.ledger.hurry()
    sdk.attach_volume(VolumeId=volume, InstanceId=node, Device="/dev/sdf")
    assert shown(sdk, volume)["Attachments"][0]["State"] == "attaching"
    front.ledger.hurry()
    assert shown(sdk, volume)["Attachments"][0]["State"] == "attached"

    sdk.modify_volume(VolumeId=volume, Size=20)
    assert shown(sdk, volume)["Size"] == 10
    front.ledger.hurry()
    assert shown(sdk, volume)["Size"] == 20

    sdk.detach_volume(VolumeId=volume, InstanceId=node)
    assert [(one["State"], one["InstanceId"]) for one in shown(sdk, volume)["Attachments"]] == [("detaching", node)]
    assert refusal(sdk.delete_volume, VolumeId=volume) == "VolumeInUse"
    front.ledger.hurry()
    assert shown(sdk, volume)["State"] == "available"

    sdk.delete_volume(VolumeId=volume)
    assert shown(sdk, volume)["State"] == "deleting"
    front.ledger.hurry()
    assert refusal(sdk.describe_volumes, VolumeIds=[volume]) == "InvalidVolume.NotFound"


def test_lists_come_in_pages(sdk: Any) -> None:
    wanted = {made(sdk) for _ in range(12)}

    first = sdk.describe_volumes(MaxResults=5)
    assert (len(first["Volumes"]), bool(first["NextToken"])) == (5, True)
    pages = sdk.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5})
    assert {volume["VolumeId"] for page in pages for volume in page["Volumes"]} == wanted
    assert refusal(sdk.describe_volumes, MaxResults=4) == "InvalidParameterValue"
    assert refusal(sdk.describe_volumes, NextToken="junk!") == "InvalidNextToken"
    assert refusal(sdk.describe_volumes, MaxResults=5, VolumeIds=sorted(wanted)[:1]) == "InvalidParameterCombination"


def test_filters_are_checked_and_work(sdk: Any, front: Front) -> None:
    (node,) = front.machines(1)
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "team", "Value": "shop"}]}]
    volume, _ = made(sdk, TagSpecifications=tags), made(sdk)
    sdk.attach_volume(VolumeId=volume, InstanceId=node, Device="/dev/sdf")

    def found(name: str, value: str) -> list[str]:
        return [one["VolumeId"] for one in sdk.describe_volumes(Filters=[{"Name": name, "Values": [value]}])["Volumes"]]

    assert found("tag:team", "shop") == found("tag:team", "sh*") == [volume]
    assert found("tag:team", "sho") == []
    assert volume in found("attachment.instance-id", node)
    assert volume in found("status", "in-use")
    assert volume not in found("status", "available")
    assert refusal(sdk.describe_volumes, Filters=[{"Name": "bogus", "Values": ["x"]}]) == "InvalidParameterValue"


def test_tags_have_limits(sdk: Any) -> None:
    volume = made(sdk)
    sdk.create_tags(Resources=[volume], Tags=[{"Key": f"k{number}", "Value": ""} for number in range(50)])

    assert refusal(sdk.create_tags, Resources=[volume], Tags=[{"Key": "one more", "Value": ""}]) == "TagLimitExceeded"
    assert refusal(sdk.create_tags, Resources=[volume], Tags=[{"Key": "k1", "Value": "x" * 257}]) == "InvalidParameterValue"
    assert refusal(sdk.create_tags, Resources=[volume], Tags=[{"Key": "aws:x", "Value": ""}]) == "InvalidParameterValue"


def test_the_calls_that_moto_lacks_are_there(sdk: Any) -> None:
    volume = made(sdk)

    sdk.modify_volume_attribute(VolumeId=volume, AutoEnableIO={"Value": True})
    assert sdk.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"][0]["VolumeStatus"]["Status"] == "ok"


def test_copies_are_as_ec2_has_them(sdk: Any) -> None:
    volume = made(sdk, Encrypted=True)
    (first,) = sdk.copy_volumes(SourceVolumeId=volume, ClientToken="copy")["Volumes"]
    (again,) = sdk.copy_volumes(SourceVolumeId=volume, ClientToken="copy")["Volumes"]

    assert (first["Size"], first["VolumeType"], first["Encrypted"], first["AvailabilityZone"]) == (10, "gp2", True, ZONE)
    assert again["VolumeId"] == first["VolumeId"] != volume
    assert sdk.copy_volumes(SourceVolumeId=volume, Size=20, VolumeType="gp3")["Volumes"][0]["Size"] == 20
    assert refusal(sdk.copy_volumes, SourceVolumeId=volume, Size=20, ClientToken="copy") == "IdempotentParameterMismatch"
    assert refusal(sdk.copy_volumes, SourceVolumeId=volume, Size=9) == "InvalidParameterValue"
    assert refusal(sdk.copy_volumes, SourceVolumeId=NO_VOLUME) == "InvalidVolume.NotFound"


def test_quotas_rates_and_rights_are_refused(sdk: Any, front: Front) -> None:
    front.quota_gib = 15
    made(sdk)
    assert refusal(sdk.create_volume, AvailabilityZone=ZONE, Size=10, VolumeType="gp3") == "VolumeLimitExceeded"
    front.rate = (0.001, 1)
    sdk.describe_volumes()
    assert refusal(sdk.describe_volumes) == "RequestLimitExceeded"
    front.rate, front.faults.denied = None, frozenset({"DeleteVolume"})
    assert refusal(sdk.delete_volume, VolumeId=NO_VOLUME, DryRun=True) == "UnauthorizedOperation"
    assert refusal(sdk.create_volume, AvailabilityZone=ZONE, Size=1, DryRun=True) == "DryRunOperation"
    front.faults.keys = frozenset({"AKIANOBODY"})
    assert refusal(sdk.describe_volumes) == "AuthFailure"


def test_answers_that_are_none_come_as_from_a_broken_proxy(sdk: Any, front: Front) -> None:
    front.faults.instead = [HTML, EMPTY]

    assert refusal(sdk.describe_volumes) == "502"
    assert refusal(sdk.describe_volumes) == "503"


def test_a_lost_answer_leaves_the_call_done(sdk: Any, front: Front) -> None:
    front.faults.at_call.arrange(Fault.LOST, 1)
    with pytest.raises(ConnectionClosedError):
        made(sdk)
    assert len(sdk.describe_volumes()["Volumes"]) == 1


def test_two_calls_at_once_come_one_after_the_other(sdk: Any) -> None:
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(made(sdk, ClientToken="one"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert (len(seen), len(set(seen))) == (4, 1)


def test_every_answer_has_amazons_shape(sdk: Any, front: Front) -> None:
    (node,) = front.machines(1)
    volume = made(sdk, ClientToken="one", Iops=3000, Throughput=125, Encrypted=True)
    sdk.create_tags(Resources=[volume], Tags=[{"Key": "a", "Value": "b"}])
    sdk.attach_volume(VolumeId=volume, InstanceId=node, Device="/dev/sdf")
    sdk.modify_volume(VolumeId=volume, Size=20)
    sdk.describe_volumes_modifications()
    snapshot = sdk.create_snapshot(VolumeId=volume)["SnapshotId"]
    sdk.describe_snapshots(OwnerIds=["self"])
    sdk.describe_volumes(MaxResults=5)
    sdk.describe_volume_status()
    sdk.copy_volumes(SourceVolumeId=volume)
    sdk.detach_volume(VolumeId=volume)
    sdk.delete_snapshot(SnapshotId=snapshot)
    sdk.delete_tags(Resources=[volume], Tags=[{"Key": "a"}])
    sdk.delete_volume(VolumeId=volume)

    assert front.problems == []
    assert sum(front.calls.values()) == 14
