"""The main path on ministack, a server of other makers: it knows none of our rules, and speaks EC2 in its own accent."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest

from storage.errors import UnknownVolume, VolumeInUse
from storage.model import Birth
from storage.platforms.base import CreateRequest
from storage.platforms.ebs import EbsOptions, EbsPlatform
from tests.peers.ministack import MiniStack

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]

REGION, ZONE = "us-east-1", "us-east-1a"
BIRTH = Birth(serial="vol1", filesystem="ext4", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")


@pytest.fixture(scope="module")
def ministack() -> Iterator[MiniStack]:
    server = MiniStack()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture
def cloud(ministack: MiniStack) -> EbsPlatform:
    return EbsPlatform("cloud", EbsOptions(region=REGION, endpoint_url=ministack.url, timeout_s=10), again_s=0.02, gather_s=0.002)


@pytest.fixture
def nodes(ministack: MiniStack) -> tuple[str, str]:
    sdk = boto3.client("ec2", endpoint_url=ministack.url, region_name=REGION)
    wanted = {"ImageId": "ami-12345678", "InstanceType": "m5.large", "Placement": {"AvailabilityZone": ZONE}}
    first, second = sdk.run_instances(MinCount=2, MaxCount=2, **wanted)["Instances"]
    return first["InstanceId"], second["InstanceId"]


def test_a_volume_lives_from_create_to_delete(cloud: EbsPlatform, nodes: tuple[str, str]) -> None:
    here, there = nodes
    assert ZONE in [pool.name for pool in cloud.pools()]
    request = CreateRequest(pool=ZONE, size_mib=2048, token="one", name="/shop/db#0/data", labels={"team": "shop"})
    made = cloud.create(request)
    volume = made.external_id
    assert cloud.create(request) == cloud.find("one") == cloud.inspect(volume) == made
    assert (made.size_mib, made.name, made.labels, made.pool) == (2048, "/shop/db#0/data", {"team": "shop"}, ZONE)

    attachment = cloud.attach(volume, here, epoch=1)
    assert cloud.attach(volume, here, epoch=1) == attachment
    assert cloud.inspect(volume).held_by == (here,)
    with pytest.raises(VolumeInUse):
        cloud.attach(volume, there, epoch=2)
    cloud.record_birth(volume, BIRTH, epoch=1)
    with pytest.raises(VolumeInUse):
        cloud.delete(volume)

    snapshot = cloud.snapshot(volume, token="snap")
    assert cloud.snapshot(volume, token="snap") == snapshot
    assert cloud.expand(volume, 4096).size_mib == 4096

    cloud.detach(volume, here)
    cloud.detach(volume, here)
    assert cloud.fence(volume, 5)
    assert (cloud.inspect(volume).epoch, cloud.inspect(volume).birth) == (5, BIRTH)
    cloud.attach(volume, there, epoch=6)
    cloud.detach(volume, there)

    copy = cloud.create(CreateRequest(pool=ZONE, size_mib=4096, token="copy", snapshot=snapshot.external_id))
    cloud.delete(volume)
    cloud.delete(volume)
    with pytest.raises(UnknownVolume):
        cloud.inspect(volume)
    cloud.delete_snapshot(snapshot.external_id)
    cloud.delete_snapshot(snapshot.external_id)
    assert snapshot.external_id not in [one.external_id for one in cloud.snapshots().items]
    assert copy.external_id in [one.external_id for one in cloud.volumes().items]


def test_a_stopped_node_is_seen(cloud: EbsPlatform, ministack: MiniStack, nodes: tuple[str, str]) -> None:
    sdk = boto3.client("ec2", endpoint_url=ministack.url, region_name=REGION)
    assert cloud.node_stopped(nodes[0]) is None
    sdk.stop_instances(InstanceIds=[nodes[0]])

    assert cloud.node_stopped(nodes[0]) == f"EC2 says that instance {nodes[0]} is stopped"
