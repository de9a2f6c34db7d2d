"""EBS keeps the contract, on moto behind EC2's own rules, with replies lost and calls throttled at the network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import pytest

from storage.platforms.base import Platform
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.faulting import Fault, Faults
from tests.peers import ec2
from tests.peers.ec2_front import Front

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


class TestEbs(PlatformContract):
    pool = ec2.ZONE
    other_pool = "us-east-1b"
    size_mib = 1024
    has_data = False
    other_parameters = (
        {"type": "gp2"},
        {"throughput": "250"},
        {"type": "io2", "iops": "100"},
        {"type": "io2", "iops": "100", "multiAttach": "true"},
        {"type": "st1"},
    )
    wrong_sizes = (({"iops": "6000"}, 11 * 1024), ({"type": "io1", "iops": "250"}, 1024), ({"type": "standard"}, 1025 * 1024))
    wrong_parameters = (
        {"type": "gp9"},
        {"iops": "many"},
        {"iops": "90000"},
        {"type": "gp2", "iops": "3000"},
        {"kmsKeyId": "alias/shop"},
        {"type": "io2", "multiAttach": "true"},
    )
    secrets = (SECRET, "AKIAIOSFODNN7EXAMPLE")
    nodes: ClassVar[tuple[str, str]]

    @pytest.fixture
    def storage(self) -> Front:
        front = ec2.fresh()
        type(self).nodes = front.machines(2)  # type: ignore[assignment]  # an instance in place of a property
        return front

    def make(self, storage: Front) -> Platform:
        return ec2.adapter(storage, multi_attach=True)

    def fill(self, arena: Arena) -> int:
        """The account's quota leaves 4 GiB; machines have volumes of their own."""
        used = sum(volume.size_mib for volume in arena.volumes())
        arena.storage.quota_gib = used // 1024 + 4
        return 5 * 1024

    @contextlib.contextmanager
    def stopping(self, storage: Front) -> Iterator[None]:
        storage.do("StopInstances", **{"InstanceId.1": self.nodes[1]})
        yield
        storage.do("StartInstances", **{"InstanceId.1": self.nodes[1]})

    def faults(self, storage: Front) -> Faults:
        storage.lasting = dict.fromkeys(("creating", "attaching", "detaching", "deleting", "pending", "modifying"), 0.03)
        storage.faults.at_call = Faults(*Fault, codes={Fault.EXPIRED: "RequestExpired"})
        return storage.faults.at_call
