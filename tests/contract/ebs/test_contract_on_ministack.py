"""The contract on ministack, a server of other makers without EC2's rules in front: what the adapter does itself, it does there too.

It makes no faults of its own; a relay before it loses replies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import boto3
import pytest
from msgspec.structs import replace

from storage.platforms.base import Capabilities, Platform
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.ebs import EbsOptions, EbsPlatform
from storage.platforms.faulting import Fault, Faults
from tests.contract.ebs.conftest import SECRET
from tests.peers.ec2_front import KEY_ID
from tests.peers.ministack import MiniStack
from tests.peers.relay import Relay

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]

REGION, ZONE = "us-east-1", "us-east-1a"


@pytest.fixture(scope="module")
def ministack() -> Iterator[MiniStack]:
    server = MiniStack()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture
def relay(ministack: MiniStack) -> Iterator[Relay]:
    relay = Relay(ministack.port)
    yield relay
    relay.stop()


class WithoutCopyVolumes(EbsPlatform):
    """Ministack has no such action."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, clones=False)


class TestEbsOnMiniStack(PlatformContract):
    pool = ZONE
    size_mib = 1024
    has_data = False
    many = 30
    secrets = (SECRET, KEY_ID)
    nodes: ClassVar[tuple[str, str]]

    @pytest.fixture
    def storage(self, ministack: MiniStack, relay: Relay) -> Relay:
        sdk = boto3.client("ec2", endpoint_url=ministack.url, region_name=REGION)
        wanted = {"ImageId": "ami-12345678", "InstanceType": "m5.large", "Placement": {"AvailabilityZone": ZONE}}
        started = sdk.run_instances(MinCount=2, MaxCount=2, **wanted)["Instances"]
        type(self).nodes = started[0]["InstanceId"], started[1]["InstanceId"]
        return relay

    def make(self, storage: Relay) -> Platform:
        options = EbsOptions(region=REGION, endpoint_url=storage.url, reads_per_s=5000, writes_per_s=5000, timeout_s=10)
        return WithoutCopyVolumes("cloud", options, again_s=0.02, gather_s=0.002)

    @contextmanager
    def stopping(self, storage: Relay) -> Iterator[None]:
        sdk = boto3.client("ec2", endpoint_url=storage.url, region_name=REGION)
        sdk.stop_instances(InstanceIds=[self.nodes[1]])
        yield
        sdk.start_instances(InstanceIds=[self.nodes[1]])

    def faults(self, storage: Relay) -> Faults:
        storage.faults = Faults(Fault.LOST)
        return storage.faults

    # What ministack itself lacks, and the front has: pages, client tokens, quotas, a lock on attachments.

    def test_many_volumes_are_listed_in_parts(self, arena: Arena) -> None:
        arena.leave_out("is on ministack, whose lists have no parts")

    def test_listing_goes_on_after_a_deletion(self, arena: Arena) -> None:
        arena.leave_out("is on ministack, whose lists have no parts: each is all that the tests before have left")

    def test_two_creators_at_once_make_one_volume(self, arena: Arena) -> None:
        arena.leave_out("is on ministack, which makes two volumes of one client token")

    def test_full_pool_refuses_and_keeps_nothing(self, arena: Arena) -> None:
        arena.leave_out("is on ministack, which has no quotas")

    def test_expand_beyond_the_pool_is_refused(self, arena: Arena) -> None:
        arena.leave_out("is on ministack, which has no quotas")

    def test_two_nodes_at_once_attach_once(self, arena: Arena) -> None:
        arena.leave_out("is on ministack, which gives a volume to two instances that ask at once")
