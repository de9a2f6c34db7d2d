"""How PowerScale's volumes come to nodes: exports, marks, and who gives way when several come at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from storage.errors import Conflict, Invalid, StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Birth, ExternalId
from storage.platforms.powerscale.exports import NOBODY
from storage.platforms.powerscale.platform import PowerScalePlatform
from tests.contract.powerscale.arena import BASE, NODES, Meet, in_every_gap, platform_on, request
from tests.peers.powerscale_cluster import hosts_of
from tests.peers.powerscale_onefs import OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

EXPORTS = "/platform/12/protocols/nfs/exports"
A, B = NODES
BIRTH = Birth(serial="s", filesystem="folder", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")


@pytest.fixture
def volume(platform: PowerScalePlatform) -> ExternalId:
    return platform.create(request()).external_id


def exports_of(front: OneFs, volume: ExternalId) -> list[dict[str, Any]]:
    return [export for export in front.cluster.exports.values() if export["paths"] == [f"{BASE}/{volume}"]]


def rights(front: OneFs, volume: ExternalId, *nodes: str) -> list[str]:
    return [front.cluster.may_mount(f"{BASE}/{volume}", node) for node in nodes]


def test_a_new_volume_is_exported_to_nobody(front: OneFs, platform: PowerScalePlatform, volume: ExternalId) -> None:
    (home,) = exports_of(front, volume)
    assert (hosts_of(home), home["read_only"], home["zone"]) == ({NOBODY[0]}, True, "System")
    assert rights(front, volume, A, B, "10.99.0.1") == ["", "", ""]


def test_a_node_gets_an_export_of_its_own_with_root_as_root(front: OneFs, platform: PowerScalePlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, A, epoch=3)
    assert (attachment.device, attachment.serial, attachment.transport) == (f"nas.example:{BASE}/{volume}", volume, "")
    mine, _ = exports_of(front, volume)
    assert (mine["clients"], mine["read_only"], mine["map_root"]["enabled"]) == ([A], False, False)
    assert rights(front, volume, A, B) == ["rw", ""]
    platform.detach(volume, A)
    assert rights(front, volume, A, B) == ["", ""]


def test_a_reader_gets_an_export_for_reading(front: OneFs, platform: PowerScalePlatform, volume: ExternalId) -> None:
    platform.attach(volume, A, epoch=1, read_only=True)
    platform.attach(volume, B, epoch=2, read_only=True)
    assert rights(front, volume, A, B) == ["ro", "ro"]
    assert platform.inspect(volume).held_by == tuple(sorted(NODES))


def test_a_node_that_comes_again_keeps_the_more_of_its_rights(front: OneFs, platform: PowerScalePlatform, volume: ExternalId) -> None:
    platform.attach(volume, A, epoch=1, read_only=True)
    platform.attach(volume, A, epoch=2)
    assert rights(front, volume, A) == ["rw"]
    platform.attach(volume, A, epoch=2, read_only=True)
    assert (rights(front, volume, A), len(exports_of(front, volume))) == (["rw"], 2)
    with pytest.raises(StaleEpoch):
        platform.attach(volume, A, epoch=1)


def test_a_shared_volume_has_many_writers_whose_epochs_come_in_any_order(front: OneFs, platform: PowerScalePlatform) -> None:
    volume = platform.create(request(parameters={"shared": "true"})).external_id
    platform.attach(volume, A, epoch=5)
    platform.attach(volume, B, epoch=4)
    assert (rights(front, volume, A, B), platform.inspect(volume).epoch) == (["rw", "rw"], 5)
    for node in NODES:
        platform.detach(volume, node)
    assert platform.fence(volume, 6)
    with pytest.raises(StaleEpoch):
        platform.attach(volume, A, epoch=5)
    platform.attach(volume, A, epoch=6)


def test_an_export_that_is_not_pollys_holds_the_volume(front: OneFs, platform: PowerScalePlatform, volume: ExternalId) -> None:
    made = front.cluster.make_export({"paths": [f"{BASE}/{volume}"], "clients": ["10.5.5.5"]}, zone="System", force=False)
    holder = f"export {made['id']}"
    assert platform.inspect(volume).held_by == (holder,)
    assert platform.fence(volume, 3) is None
    for call in (lambda: platform.attach(volume, A, epoch=1), lambda: platform.delete(volume)):
        with pytest.raises(VolumeInUse, match=holder):
            call()


@pytest.mark.parametrize("text", ["polly node {", 'polly volume {"epoch": "x"}', "polly node []", "Polly", ""])
def test_a_description_that_polly_did_not_write_is_somebody_elses(
    front: OneFs, platform: PowerScalePlatform, volume: ExternalId, text: str
) -> None:
    body = {"paths": [f"{BASE}/{volume}"], "clients": ["10.5.5.5"], "description": text}
    made = front.cluster.make_export(body, zone="System", force=False)
    assert platform.inspect(volume).held_by == (f"export {made['id']}",)


@pytest.mark.parametrize("node", ["", "-a", "a b", "10.0.0", "300.1.1.1", "a" * 101, "*", "10.0.0.0/8", "a,b"])
def test_a_node_that_is_no_address_and_no_name_is_refused(
    front: OneFs, platform: PowerScalePlatform, volume: ExternalId, node: str
) -> None:
    with pytest.raises(Invalid, match="must be the address or the host name"):
        platform.attach(volume, node, epoch=1)
    assert len(exports_of(front, volume)) == 1


def test_a_name_that_the_cluster_cannot_resolve_is_said_with_its_code(platform: PowerScalePlatform, volume: ExternalId) -> None:
    with pytest.raises(Invalid, match=r"AEC_BAD_REQUEST: bad hostname 'nowhere\.example' in field 'clients'"):
        platform.attach(volume, "nowhere.example", epoch=1)


def test_of_many_nodes_at_once_one_has_the_volume(front: OneFs, platform: PowerScalePlatform, volume: ExternalId) -> None:
    nodes = [f"10.20.1.{number}" for number in range(6)]
    together = threading.Barrier(len(nodes))

    def come(node: str) -> bool:
        mine = platform_on(front)
        together.wait(timeout=30)
        try:
            mine.attach(volume, node, epoch=1)
        except VolumeInUse:
            return False
        finally:
            mine.close()
        return True

    with ThreadPoolExecutor(len(nodes)) as pool:
        came = list(pool.map(come, nodes))
    assert sum(came) <= 1, "two nodes have one volume"
    assert platform.inspect(volume).held_by == tuple(node for node, is_here in zip(nodes, came, strict=True) if is_here)


def test_two_that_announce_themselves_in_one_moment_never_both_stay(
    front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform, volume: ExternalId
) -> None:
    """The other comes between the first's look and its announcement."""
    front.meet.append(("POST", EXPORTS, lambda: other.attach(volume, B, epoch=1)))
    with pytest.raises(VolumeInUse):
        platform.attach(volume, A, epoch=1)
    assert rights(front, volume, A, B) == ["", "rw"]
    assert front.meet == []


def test_a_fence_that_meets_a_node_shuts_one_of_the_two_out(
    front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform, volume: ExternalId
) -> None:
    fenced: list[str | None] = []
    front.meet.append(("POST", EXPORTS, lambda: fenced.append(other.fence(volume, 5))))
    with pytest.raises(StaleEpoch):
        platform.attach(volume, A, epoch=1)
    assert (bool(fenced[0]), rights(front, volume, A)) == (True, [""])

    front.meet.append(("POST", EXPORTS, lambda: other.attach(volume, A, epoch=5)))
    assert platform.fence(volume, 7) is None
    assert rights(front, volume, A) == ["rw"]


def test_a_delete_that_meets_a_node_leaves_the_volume_to_one_of_the_two(
    front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform, volume: ExternalId
) -> None:
    front.meet.append(("POST", EXPORTS, lambda: other.attach(volume, A, epoch=4)))
    with pytest.raises(VolumeInUse):
        platform.delete(volume)
    seen = platform.inspect(volume)
    assert (seen.held_by, seen.epoch, rights(front, volume, A)) == ((A,), 4, ["rw"])
    platform.detach(volume, A)

    front.meet.append(("POST", EXPORTS, lambda: other.delete(volume)))
    with pytest.raises((UnknownVolume, Invalid)):
        platform.attach(volume, A, epoch=5)
    assert exports_of(front, volume) == []


def test_a_mark_that_somebody_overwrote_counts_while_its_node_is_there_and_after(
    front: OneFs, platform: PowerScalePlatform, volume: ExternalId
) -> None:
    platform.attach(volume, A, epoch=7)
    home, _ = exports_of(front, volume)
    home["description"] = "polly volume {}"
    assert platform.inspect(volume).epoch == 7
    platform.detach(volume, A)
    assert platform.inspect(volume).epoch == 7


def test_two_fences_at_once_keep_the_higher(
    front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform, volume: ExternalId
) -> None:
    front.meet.append(("POST", EXPORTS, lambda: other.fence(volume, 3)))
    assert platform.fence(volume, 5)
    assert platform.inspect(volume).epoch == 5
    assert other.fence(volume, 4)
    assert platform.inspect(volume).epoch == 5


def test_a_birth_certificate_that_does_not_fit_is_refused(platform: PowerScalePlatform, volume: ExternalId) -> None:
    platform.attach(volume, A, epoch=1)
    birth = Birth(serial="s" * 300, filesystem="folder", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")
    with pytest.raises(Invalid, match="OneFS keeps 255 characters"):
        platform.record_birth(volume, birth, epoch=1)
    assert platform.inspect(volume).birth is None


def test_what_a_folder_volume_is_born_with_fits(platform: PowerScalePlatform) -> None:
    volume = platform.create(request("t" * 180)).external_id
    platform.attach(volume, A, epoch=10**9)
    birth = Birth(serial=volume, filesystem="folder", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")
    platform.record_birth(volume, birth, epoch=10**9)
    assert platform.inspect(volume).birth == birth


def test_a_detach_of_a_volume_that_is_gone_is_fine(platform: PowerScalePlatform, volume: ExternalId) -> None:
    platform.attach(volume, A, epoch=1)
    platform.detach(volume, A)
    platform.delete(volume)
    platform.detach(volume, A)
    with pytest.raises(UnknownVolume):
        platform.inspect(volume)


def test_a_node_whose_export_others_take_away_meanwhile_comes_again(
    front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform, volume: ExternalId
) -> None:
    """Another process on the same node detaches while this one attaches."""
    platform.attach(volume, A, epoch=1, read_only=True)

    def leave() -> None:
        other.detach(volume, A)

    front.meet.append(("PUT", f"{EXPORTS}/", leave))
    platform.attach(volume, A, epoch=2)
    assert (rights(front, volume, A), front.meet) == (["rw"], [])


# --- one of two, whatever call of the other it comes before ---------------------------------------------------------


def comes(platform: PowerScalePlatform, volume: ExternalId, node: str, epoch: int) -> bool:
    """Whether it was not refused, for a reason that two who meet may have."""
    try:
        platform.attach(volume, node, epoch=epoch)
    except (VolumeInUse, StaleEpoch, UnknownVolume, Invalid):
        return False
    return True


def goes(platform: PowerScalePlatform, volume: ExternalId) -> bool:
    try:
        platform.delete(volume)
    except VolumeInUse:
        return False
    return True


def test_of_two_nodes_one_comes(front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform) -> None:
    def rule(volume: ExternalId, meet: Meet) -> None:
        second: list[bool] = []
        meet(lambda: second.append(comes(other, volume, B, 1)))
        first = comes(platform, volume, A, 1)
        assert platform.inspect(volume).held_by == ((A,) if first else (B,))
        assert first != (second == [True])

    in_every_gap(front, platform, rule)


def test_a_node_and_a_fence_never_both_get_their_way(front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform) -> None:
    def rule(volume: ExternalId, meet: Meet) -> None:
        fenced: list[bool] = []
        meet(lambda: fenced.append(other.fence(volume, 5) is not None))
        came = comes(platform, volume, A, 1)
        seen = platform.inspect(volume)
        assert (seen.held_by == (A,)) == came
        assert not (came and fenced == [True]), "a node came in spite of a fence"
        assert seen.epoch >= (5 if fenced == [True] else 1)

    in_every_gap(front, platform, rule)


def test_a_fence_and_a_node_never_both_get_their_way(front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform) -> None:
    def rule(volume: ExternalId, meet: Meet) -> None:
        came: list[bool] = []
        meet(lambda: came.append(comes(other, volume, A, 1)))
        fenced = platform.fence(volume, 5) is not None
        assert fenced != (came == [True])

    in_every_gap(front, platform, rule)


def test_a_volume_is_deleted_or_a_node_has_it(front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform) -> None:
    def rule(volume: ExternalId, meet: Meet) -> None:
        came: list[bool] = []
        meet(lambda: came.append(comes(other, volume, A, 3)))
        gone = goes(platform, volume)
        assert gone != (came == [True])
        if gone:
            assert exports_of(front, volume) == []
        else:
            assert (platform.inspect(volume).held_by, platform.inspect(volume).epoch) == ((A,), 3)

    in_every_gap(front, platform, rule)


def test_a_node_has_a_volume_or_it_is_deleted(front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform) -> None:
    def rule(volume: ExternalId, meet: Meet) -> None:
        gone: list[bool] = []
        meet(lambda: gone.append(goes(other, volume)))
        came = comes(platform, volume, A, 3)
        assert came != (gone == [True])
        assert came or exports_of(front, volume) == []

    in_every_gap(front, platform, rule)


# --- a mark is never lowered, whatever call of another verb a fence comes before ------------------------------------

Verb = Callable[[PowerScalePlatform, ExternalId], object]
VERBS: dict[str, Verb] = {
    "a lower fence": lambda platform, volume: platform.fence(volume, 3),
    "an attach": lambda platform, volume: platform.attach(volume, A, epoch=2),
    "an attach once more": lambda platform, volume: platform.attach(volume, A, epoch=1),
    "a detach": lambda platform, volume: platform.detach(volume, A),
    "a birth certificate": lambda platform, volume: platform.record_birth(volume, BIRTH, epoch=1),
    "a growth": lambda platform, volume: platform.expand(volume, 64),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_what_a_fence_has_raised_no_verb_lowers(front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform, verb: Verb) -> None:
    def rule(volume: ExternalId, meet: Meet) -> None:
        platform.attach(volume, A, epoch=1)
        if verb is VERBS["a lower fence"]:
            platform.detach(volume, A)
        fenced: list[str | None] = []

        def fence() -> None:
            other.detach(volume, A)
            fenced.append(other.fence(volume, 5))

        meet(fence)
        with contextlib.suppress(StaleEpoch, VolumeInUse):
            verb(platform, volume)
        if fenced and fenced[0]:
            assert platform.inspect(volume).epoch == 5
            with pytest.raises(StaleEpoch):
                platform.attach(volume, B, epoch=4)

    in_every_gap(front, platform, rule)


def test_of_two_birth_certificates_at_once_one_is_refused(front: OneFs, platform: PowerScalePlatform, other: PowerScalePlatform) -> None:
    mine, others = (msgspec.structs.replace(BIRTH, serial=serial) for serial in ("mine", "others"))

    def stores(platform: PowerScalePlatform, volume: ExternalId, birth: Birth) -> bool:
        with contextlib.suppress(Conflict):
            platform.record_birth(volume, birth, epoch=1)
            return True
        return False

    def rule(volume: ExternalId, meet: Meet) -> None:
        second: list[bool] = []
        meet(lambda: second.append(stores(other, volume, others)))
        first = stores(platform, volume, mine)
        assert first != (second == [True])
        assert platform.inspect(volume).birth == (mine if first else others)

    in_every_gap(front, platform, rule)
