"""What is PowerFlex' own about volumes: names, pools, thick and thin, trees of copies, what others made, the array's codes."""

from __future__ import annotations

import pytest

from framework.ids import new_id
from storage.errors import (
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownPool,
    UnknownVolume,
    Unsupported,
)
from storage.model import ExternalId
from storage.platforms.base import Platform
from storage.platforms.faulting import Fault
from storage.platforms.powerflex.array import LISTING_S
from tests.contract.powerflex.arena import GRANULE_MIB, NODES, POOL, POOL_ID, SDCS, foreign, platform, refused, request
from tests.peers.powerflex_array import GIB_KB, SYSTEM
from tests.peers.powerflex_gateway import Answer, Gateway

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]


def failure(code: int, message: str, status: int = 500) -> Answer:
    return status, {"message": message, "httpStatusCode": status, "errorCode": code}


# --- names and reports ------------------------------------------------------------------------------


def test_a_claims_id_is_the_volumes_name_and_can_be_read_back(gateway: Gateway, array: Platform) -> None:
    token = new_id()
    made = array.create(request(token, name="db-0", labels={"team": "shop"}))

    (volume,) = gateway.array.volumes.values()
    assert (len(volume.name), made.name, made.token, made.labels) == (30, volume.name, token, {})
    assert made.serial == f"{SYSTEM}-{volume.id}"
    assert [one.token for one in array.volumes().items] == [token]


def test_a_long_token_finds_its_volume_though_the_name_does_not_tell_it(array: Platform) -> None:
    token = f"pvc-{new_id()}"
    made = array.create(request(token))

    assert array.find(token) == made == array.create(request(token))
    assert array.inspect(made.external_id).token == ""


def test_two_creators_whose_looks_crossed_make_one_volume(gateway: Gateway, array: Platform) -> None:
    """The first look of both finds nothing; the array refuses the second name."""
    made = platform(gateway).create(request())

    gateway.refuse = [failure(79, "Could not find the volume")]
    assert array.create(request()) == made
    assert len(gateway.array.volumes) == 1


def test_attaching_takes_few_calls(gateway: Gateway, array: Platform) -> None:
    made = array.create(request())
    array.attach(made.external_id, NODES[0], epoch=1)
    array.detach(made.external_id, NODES[0])
    gateway.calls.clear()

    array.attach(made.external_id, NODES[0], epoch=2)
    assert gateway.calls == {"Volume": 2, "addMappedSdc": 1}, "look, map, look again"


# --- pools ------------------------------------------------------------------------------------------


def test_pools_are_of_their_protection_domains(gateway: Gateway, array: Platform) -> None:
    foreign(gateway, volumeSizeInGb="24")
    theirs = foreign(gateway, "copied")
    gateway.array.snapshot({"snapshotDefs": [{"volumeId": theirs.id, "snapshotName": "their-copy"}]})
    array.create(request())

    pools = {pool.name: (pool.capacity_mib, pool.foreign_mib) for pool in array.pools()}
    full_mib = 64 << 20
    assert pools == {"domain1/fast": (full_mib, (24 + 16) << 10), "domain1/slow": (full_mib, 0)}


def test_only_the_pools_that_are_named_are_used(gateway: Gateway) -> None:
    array = platform(gateway, pools=("domain1/slow",), region="r", zone="z")

    assert [(pool.name, pool.region, pool.zone) for pool in array.pools()] == [("domain1/slow", "r", "z")]
    refused(lambda: array.create(request(pool="domain1/fast")), UnknownPool)
    assert array.create(request(pool="domain1/slow")).zone == "z"


@pytest.mark.parametrize("name", ["fast", POOL_ID, "domain2/fast", "DOMAIN1/fast", "domain1/fast/", ""])
def test_a_pool_goes_by_its_whole_name(array: Platform, name: str) -> None:
    refused(lambda: array.create(request(pool=name)), UnknownPool)


def test_a_pool_that_came_later_is_found(gateway: Gateway, array: Platform) -> None:
    assert array.pools()
    gateway.array.pools[POOL_ID].name = "renamed"

    assert array.create(request(pool="domain1/renamed")).pool == "domain1/renamed"


def test_a_pool_that_shows_old_data_is_not_used_unless_told_to(gateway: Gateway, array: Platform) -> None:
    error = refused(lambda: array.create(request(pool="domain2/raw")), Unsupported)
    assert "no zero padding" in str(error)
    assert "domain2/raw" not in [pool.name for pool in array.pools()], "a pool is offered in which nothing is made"
    told = platform(gateway, allow_unpadded=True)
    assert "domain2/raw" in [pool.name for pool in told.pools()]
    assert told.create(request(pool="domain2/raw")).pool == "domain2/raw"


def test_pools_of_erasure_coding_are_left_out(gateway: Gateway, array: Platform) -> None:
    gateway.array.domains["fa85edfd00000000"].kind = "EC"

    assert [pool.name for pool in platform(gateway, allow_unpadded=True).pools()] == ["domain2/raw"]
    refused(lambda: array.create(request()), UnknownPool)


# --- sizes and room -----------------------------------------------------------------------------------


def test_volumes_are_thin_or_thick_as_the_profile_says(gateway: Gateway, array: Platform) -> None:
    array.create(request("thin"))
    array.create(request("thick", parameters={"provisioning": "thick", "compression": "normal"}))

    kinds = {volume.name: (volume.kind, volume.compression) for volume in gateway.array.volumes.values()}
    assert kinds == {"polly-v.thin": ("ThinProvisioned", "None"), "polly-v.thick": ("ThickProvisioned", "Normal")}


def test_a_thick_volume_needs_real_room(gateway: Gateway, array: Platform) -> None:
    gateway.array.pools[POOL_ID].net_kb = 24 * GIB_KB
    array.create(request("first", size_mib=2 * GRANULE_MIB, parameters={"provisioning": "thick"}))

    error = refused(lambda: array.create(request("second", size_mib=2 * GRANULE_MIB, parameters={"provisioning": "thick"})), PoolFull)
    assert (error.fields["free_mib"], error.fields["size_mib"], error.fields["pool"]) == (GRANULE_MIB, 2 * GRANULE_MIB, POOL)
    assert "67: Insufficient resources" in str(error.fields["reason"])
    assert array.create(request("thin", size_mib=2 * GRANULE_MIB)).size_mib == 2 * GRANULE_MIB


def test_growth_without_room_says_how_much_there_is(gateway: Gateway, array: Platform) -> None:
    made = array.create(request())
    gateway.array.pools[POOL_ID].limit_kb = 24 * GIB_KB

    error = refused(lambda: array.expand(made.external_id, 4 * GRANULE_MIB), PoolFull)
    assert (error.fields["free_mib"], error.fields["size_mib"]) == (2 * GRANULE_MIB, 3 * GRANULE_MIB)
    assert "exceeds the volume allocation limit" in str(error.fields["reason"])


def test_a_size_between_is_rounded_up_to_eight_gib(gateway: Gateway, array: Platform) -> None:
    made = array.create(request(size_mib=GRANULE_MIB + 1))

    assert made.size_mib == 2 * GRANULE_MIB
    assert array.expand(made.external_id, 2 * GRANULE_MIB + 1).size_mib == 3 * GRANULE_MIB
    assert next(iter(gateway.array.volumes.values())).size_kb == 24 * GIB_KB


def test_a_volume_that_another_has_grown_further_is_large_enough(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    array, other = platform(gateway), platform(gateway)
    made = array.create(request()).external_id
    resize = array._array.resize

    def late(volume: str, size_mib: int) -> None:
        other.expand(made, 4 * GRANULE_MIB)
        resize(volume, size_mib)

    monkeypatch.setattr(array._array, "resize", late)
    assert array.expand(made, 2 * GRANULE_MIB).size_mib == 4 * GRANULE_MIB


# --- trees of snapshots and copies ----------------------------------------------------------------------


def test_a_tree_with_all_its_snapshots_takes_no_more(gateway: Gateway, array: Platform) -> None:
    made = array.create(request())
    for number in range(126):
        gateway.array.snapshot({"snapshotDefs": [{"volumeId": made.external_id, "snapshotName": f"theirs-{number}"}]})

    error = refused(lambda: array.snapshot(made.external_id, token="one-more"), PlatformError)
    assert "failed to snapshot a volume: 182: " in str(error)
    assert {one.token for one in array.snapshots().items} == {""}


def test_a_larger_copy_whose_growth_was_lost_grows_with_the_repeat(gateway: Gateway, array: Platform) -> None:
    snapshot = array.snapshot(array.create(request()).external_id, token="snap").external_id
    wanted = request("copy", size_mib=3 * GRANULE_MIB, snapshot=snapshot)

    gateway.faults.arrange(Fault.LOST, 3)  # after the looks for the copy and for its snapshot
    refused(lambda: array.create(wanted), PlatformUnavailable)
    found = array.find("copy")
    assert found
    assert found.size_mib == GRANULE_MIB, "it has not the size that this test needs it to have"
    assert array.create(wanted).size_mib == 3 * GRANULE_MIB
    assert sum(one.token == "copy" for one in array.volumes().items) == 1


def test_a_copy_that_finds_no_room_to_grow_is_not_left(gateway: Gateway, array: Platform) -> None:
    snapshot = array.snapshot(array.create(request()).external_id, token="snap").external_id
    gateway.array.pools[POOL_ID].limit_kb = 16 * GIB_KB

    refused(lambda: array.create(request("copy", size_mib=3 * GRANULE_MIB, snapshot=snapshot)), PoolFull)
    assert array.find("copy") is None
    assert array.create(request("copy", snapshot=snapshot)).size_mib == GRANULE_MIB


def test_a_copy_is_in_its_snapshots_pool(array: Platform) -> None:
    snapshot = array.snapshot(array.create(request()).external_id, token="snap").external_id

    error = refused(lambda: array.create(request("copy", pool="domain1/slow", snapshot=snapshot)), Invalid)
    assert "in the snapshot's pool, domain1/fast" in str(error)


def test_a_volume_is_no_snapshot_and_a_snapshot_no_volume(array: Platform) -> None:
    volume = array.create(request()).external_id
    snapshot = array.snapshot(volume, token="snap").external_id

    refused(lambda: array.inspect(snapshot), UnknownVolume)
    refused(lambda: array.attach(snapshot, NODES[0], epoch=1), UnknownVolume)
    array.delete(snapshot)
    array.delete_snapshot(volume)
    assert [one.external_id for one in array.volumes().items] == [volume]
    assert [one.external_id for one in array.snapshots().items] == [snapshot]


def test_a_snapshot_that_people_have_renamed_is_the_same(gateway: Gateway, array: Platform) -> None:
    snapshot = array.snapshot(array.create(request()).external_id, token="snap").external_id
    gateway.array.volumes[snapshot].name = "keep this one"
    assert [one.external_id for one in array.snapshots().items] == [snapshot]
    assert array.create(request("copy", snapshot=snapshot)).token == "copy"
    array.delete_snapshot(snapshot)
    assert snapshot not in gateway.array.volumes


def test_a_copy_that_people_have_renamed_is_the_volume_that_it_was(gateway: Gateway, array: Platform) -> None:
    copy = array.create(request("copy", source=array.create(request()).external_id)).external_id
    gateway.array.volumes[copy].name = "theirs now"
    array.attach(copy, NODES[0], epoch=1)
    assert array.inspect(copy).held_by == (NODES[0],)


def test_a_snapshot_of_a_deleted_volume_stays_and_tells_what_is_left(array: Platform) -> None:
    first = array.create(request()).external_id
    snapshot = array.snapshot(first, token="snap").external_id
    copy = array.create(request("copy", snapshot=snapshot)).external_id
    deeper = array.snapshot(copy, token="deeper").external_id

    array.delete(copy)
    array.delete(first)
    assert {one.external_id: one.volume for one in array.snapshots().items} == {snapshot: "", deeper: snapshot}
    array.delete_snapshot(snapshot)
    assert array.create(request("again", snapshot=deeper)).size_mib == GRANULE_MIB


# --- what others have made ------------------------------------------------------------------------------


def test_what_others_made_can_be_adopted(gateway: Gateway, array: Platform) -> None:
    volume = foreign(gateway)
    key = ExternalId(volume.id)
    (copy,) = gateway.array.snapshot({"snapshotDefs": [{"volumeId": key, "snapshotName": "their-copy"}]})
    (snapshot,) = gateway.array.snapshot({"snapshotDefs": [{"volumeId": key, "snapshotName": "kept"}], "accessModeLimit": "ReadOnly"})

    assert [(one.external_id, one.name, one.token) for one in array.volumes().items] == [(key, "theirs", ""), (copy.id, "their-copy", "")]
    assert [(one.external_id, one.volume, one.token) for one in array.snapshots().items] == [(copy.id, key, ""), (snapshot.id, key, "")]
    array.attach(key, NODES[0], epoch=1)
    assert array.inspect(key).held_by == (NODES[0],)


def test_a_name_like_ours_is_found_only_whole(gateway: Gateway, array: Platform) -> None:
    foreign(gateway, "polly-v.volume-2")

    assert array.find("volume") is None
    assert array.create(request()).token == "volume"


# --- listing ------------------------------------------------------------------------------------------


def test_a_walk_through_the_list_takes_one_look(gateway: Gateway) -> None:
    now = [1000.0]
    gateway.array.clock = lambda: now[0]
    array = platform(gateway)
    for number in range(5):
        foreign(gateway, f"theirs-{number}")
    gateway.calls.clear()

    page = array.volumes(limit=2)
    assert len(array.volumes(after=page.after, limit=2).items) == 2
    assert gateway.calls["instances"] == 4, "the system, its pools in two calls, and the volumes"
    now[0] += LISTING_S
    foreign(gateway, "late")
    assert [one.name for one in array.volumes(after=page.after, limit=9).items] == ["theirs-2", "theirs-3", "theirs-4", "late"]


def test_what_the_array_does_not_name_is_not_asked_for_again_and_again(gateway: Gateway, array: Platform) -> None:
    """Mapped to hosts that are no SDCs, in a pool that the user may not see."""
    for number in range(20):
        volume = foreign(gateway, f"theirs-{number}")
        volume.mapped[SDCS[1]] = "ReadWrite"
    assert array.pools()
    seen = array.volumes().items[0]
    assert (seen.pool, seen.held_by) == (POOL, (NODES[1],))
    gateway.calls.clear()

    fresh = platform(gateway)
    gateway.array.pools[POOL_ID].domain = "nowhere"
    del gateway.array.sdcs[SDCS[1]]
    listed = fresh.volumes().items
    assert {(one.pool, one.held_by) for one in listed if one.name.startswith("theirs")} == {(POOL_ID, (SDCS[1],))}
    assert gateway.calls["instances"] == 5, "the system, its pools in two calls, the SDCs and the volumes are asked for once"


# --- the array's words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (failure(79, "Could not find the volume"), UnknownVolume, "There is no volume"),
        (failure(212, "A volume removal operation is currently in progress."), PlatformUnavailable, "212: A volume removal"),
        (failure(168, "You do not have permission", 403), PlatformError, "lacks the right"),
        (failure(1, "Error"), PlatformError, "1: Error"),
        (failure(0, "Not found", 404), PlatformUnavailable, "no answer of the array's"),
    ],
)
def test_every_refusal_is_named_with_the_arrays_code(
    gateway: Gateway, array: Platform, answer: Answer, kind: type[PollyError], words: str
) -> None:
    made = array.create(request())
    gateway.refuse = [answer] * 6

    error = refused(lambda: array.inspect(made.external_id), kind)
    assert words in str(error)
    gateway.refuse.clear()
    assert array.inspect(made.external_id) == made
