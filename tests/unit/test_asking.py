"""What stands in the way of an instance, whatever is offered."""

from __future__ import annotations

import msgspec
import pytest

from framework.mesos.asking import Need, coexist, obstacle
from storage.lifecycle import ClaimState, VolumeState
from storage.model import Access, AccessMode, Birth, Claim, ClaimId, ExternalId, Holder, NodeId, PlacementId, Profile, Volume, VolumeId

BORN = Volume(
    volume_id=VolumeId("v1"),
    name="v",
    platform="disks",
    pool="p",
    size_mib=16,
    token="c0",
    state=VolumeState.AVAILABLE,
    external_id=ExternalId("x1"),
    birth=Birth(serial="s", filesystem="ext4", filesystem_uuid="u"),
)
UNBORN = msgspec.structs.replace(BORN, birth=None, state=VolumeState.PLANNED, external_id=None)
SHARED = AccessMode.MULTI_NODE_READER_ONLY


def need(access: Access = Access.RW, size_mib: int | None = 16) -> Need:
    return Need(container_path="data", name="v", size_mib=size_mib, access=access, profile=Profile(name="fast"))


def held(access: Access = Access.RW) -> list[tuple[str, Claim]]:
    holder = Holder(scheduler="mesos/polly", placement=PlacementId("t1"), node=NodeId("a1"))
    claim = Claim(
        claim_id=ClaimId("c1"), volume_id=VolumeId("v1"), holder=holder, epoch=1, access=access, state=ClaimState.MOUNTED, lease_until=0.0
    )
    return [("task t1 on a1", claim)]


@pytest.mark.parametrize(
    ("wanted", "volume", "holders", "words"),
    [
        (need(), None, [], ""),
        (need(size_mib=None), None, [], "no size to make it with; polly volume create v --profile PROFILE --size SIZE makes it"),
        (need(Access.RO, size_mib=None), None, [], "no size to make it with"),
        (need(Access.RO), None, [], "cannot be made"),
        (need(), BORN, [], ""),
        (need(), BORN, held(), "claimed by task t1"),
        (need(), UNBORN, [], ""),
        (need(Access.RO), UNBORN, [], "nothing on it"),
        (need(), msgspec.structs.replace(UNBORN, access_mode=AccessMode.MULTI_NODE_MULTI_WRITER), held(), "claimed by"),
        (need(Access.RO), msgspec.structs.replace(BORN, access_mode=SHARED), held(Access.RO), ""),
        (need(), msgspec.structs.replace(BORN, access_mode=SHARED), [], "cannot be mounted RW"),
        (need(), msgspec.structs.replace(BORN, state=VolumeState.DELETING), [], "being deleted"),
        (need(), msgspec.structs.replace(BORN, state=VolumeState.FAULTED, reason="torn"), [], "torn"),
    ],
)
def test_what_stands_in_the_way(wanted: Need, volume: Volume | None, holders: list[tuple[str, Claim]], words: str) -> None:
    found = obstacle(wanted, volume, holders)
    assert (words in found) if words else not found


@pytest.mark.parametrize(
    ("mode", "one", "other", "may"),
    [
        (AccessMode.SINGLE_NODE_WRITER, Access.RO, Access.RO, False),
        (AccessMode.SINGLE_NODE_READER_ONLY, Access.RO, Access.RO, False),
        (AccessMode.MULTI_NODE_READER_ONLY, Access.RO, Access.RO, True),
        (AccessMode.MULTI_NODE_READER_ONLY, Access.RO, Access.RW, False),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, Access.RO, Access.RW, True),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, Access.RW, Access.RW, False),
        (AccessMode.MULTI_NODE_MULTI_WRITER, Access.RW, Access.RW, True),
    ],
)
def test_which_claims_may_be_on_one_volume(mode: AccessMode, one: Access, other: Access, may: bool) -> None:
    assert coexist(mode, one, other) is may
    assert coexist(mode, other, one) is may
