"""XtremIO among others: whoever comes in the same moment, hosts that are shared, and answers that are not the array's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from storage.errors import PlatformError, PlatformUnavailable, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.faulting import Fault
from storage.platforms.restapi import Answer
from storage.platforms.xtremio.hosts import port_addresses
from storage.platforms.xtremio.platform import XtremioPlatform
from storage.platforms.xtremio.xms import NotThere, Refused
from tests.contract.xtremio.arena import NODES, PORTS, platform_on, request, things
from tests.peers.xtremio import PASSWORD, FarFaults, XmsServer

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("xtremio")]


def group_of(xtremio: XtremioPlatform, name: str, addresses: tuple[str, ...]) -> None:
    """A host that an operator has registered."""
    xtremio._xms.create("initiator-groups", {"ig-name": name}, action="test")
    for address in addresses:
        xtremio._xms.create("initiators", {"initiator-name": address[-40:], "ig-id": name, "port-address": address}, action="test")


def before(monkeypatch: pytest.MonkeyPatch, xtremio: XtremioPlatform, call: str, kind: str, happens: Callable[[], object]) -> None:
    """Something happens right before the next call of this name for objects of this kind."""
    real, left = getattr(xtremio._xms, call), [happens]

    def late(what: str, *arguments: object, **options: object) -> object:
        if what == kind and left:
            left.pop()()
        return real(what, *arguments, **options)

    monkeypatch.setattr(xtremio._xms, call, late)


@pytest.fixture
def volume(xtremio: XtremioPlatform) -> ExternalId:
    return xtremio.create(request()).external_id


# --- hosts ----------------------------------------------------------------------------------------------


def test_nodes_whose_long_names_begin_alike_are_two(xtremio: XtremioPlatform, volume: ExternalId) -> None:
    """Names of the array are shorter than an IQN may be."""
    first, second = (f"iqn.2026-11.test:{'x' * 120}{letter}" for letter in "ab")
    xtremio.attach(volume, first, epoch=1)
    with pytest.raises(VolumeInUse):
        xtremio.attach(volume, second, epoch=2)
    assert xtremio.inspect(volume).held_by == (first,)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DIED])
def test_a_host_whose_registration_is_cut_off_is_registered_once(xms: XmsServer, volume: ExternalId, fault: Fault) -> None:
    """The contract's rules attach to a host that is there already."""
    faults = FarFaults(xms, fault, codes={})
    for nth in range(1, 9):
        node, platform = f"iqn.2026-11.test:{fault.name.lower()}-{nth}", platform_on(xms)
        faults.arrange(fault, nth)
        with pytest.raises(PlatformUnavailable):
            platform.attach(volume, node, epoch=1)
        faults.heal()
        platform.close()
        again = platform_on(xms)
        again.attach(volume, node, epoch=1)
        assert again.inspect(volume).held_by == (node,)
        again.detach(volume, node)
        assert sum("initiator" in one and node in one for one in things(xms)) == 2, "it is not one group with one initiator"


def test_an_initiator_that_was_registered_in_capitals_is_the_nodes(xtremio: XtremioPlatform, volume: ExternalId) -> None:
    group_of(xtremio, "theirs", (NODES[0].upper(),))
    xtremio.attach(volume, NODES[0], epoch=1)
    assert xtremio.inspect(volume).held_by == (f"theirs,{NODES[0]}",)


def test_a_group_that_others_are_in_as_well_gets_nothing(xtremio: XtremioPlatform, volume: ExternalId) -> None:
    group_of(xtremio, "cluster", NODES)
    with pytest.raises(PlatformError, match=f"group cluster has also {NODES[1]}: give the node a group of its own"):
        xtremio.attach(volume, NODES[0], epoch=1)
    assert xtremio.inspect(volume).held_by == ()
    xtremio.attach(volume, ",".join(NODES), epoch=1)
    (held,) = xtremio.inspect(volume).held_by
    assert held == f"cluster,{','.join(NODES)}"
    xtremio.detach(volume, held)
    assert xtremio.inspect(volume).held_by == ()


def test_a_node_whose_initiators_are_in_two_groups_gets_nothing_and_is_taken_from_both(xms: XmsServer, volume: ExternalId) -> None:
    fabric = platform_on(xms, protocol="fc")
    fabric.attach(volume, PORTS[0], epoch=1)
    assert fabric.inspect(volume).held_by == (PORTS[0],)
    group_of(fabric, "second", tuple(port_addresses(PORTS[1])))
    with pytest.raises(PlatformError, match="put them into one"):
        fabric.attach(volume, ",".join(PORTS), epoch=1)
    fabric.detach(volume, ",".join(PORTS))
    assert fabric.inspect(volume).held_by == ()


def test_an_array_that_makes_nothing_of_filters_touches_no_other_volume_and_no_other_host(
    xms: XmsServer, xtremio: XtremioPlatform, volume: ExternalId
) -> None:
    other = xtremio.create(request("t2")).external_id
    xtremio.attach(volume, NODES[0], epoch=1)
    xtremio.attach(other, NODES[0], epoch=1)
    xms.faults(blind=True)
    xtremio.detach(other, NODES[0])
    assert (xtremio.inspect(volume).held_by, xtremio.inspect(other).held_by) == ((NODES[0],), ())
    xtremio.attach(other, NODES[1], epoch=2)
    assert (xtremio.inspect(volume).held_by, xtremio.inspect(other).held_by) == ((NODES[0],), (NODES[1],))


# --- whoever comes in the same moment ---------------------------------------------------------------------


def test_a_volume_that_is_taken_away_while_it_is_attached_is_said(
    xtremio: XtremioPlatform, other: XtremioPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = xtremio._mapped_alone

    def mapped_alone(volume: ExternalId, group: str) -> bool:
        is_alone = real(volume, group)
        other.detach(volume, NODES[0])
        return is_alone

    monkeypatch.setattr(xtremio, "_mapped_alone", mapped_alone)
    with pytest.raises(PlatformUnavailable, match="in the same moment"):
        xtremio.attach(volume, NODES[0], epoch=1)


@pytest.mark.parametrize("what", ["a snapshot", "a copy"])
def test_two_that_copy_with_one_token_leave_one(
    xms: XmsServer, xtremio: XtremioPlatform, other: XtremioPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    snapshot = xtremio.snapshot(volume, token="s1").external_id

    def make(platform: XtremioPlatform) -> ExternalId:
        if what == "a snapshot":
            return platform.snapshot(volume, token="s2").external_id
        return platform.create(request("t2", snapshot=snapshot)).external_id

    before(monkeypatch, xtremio, "create", "snapshots", lambda: make(other))
    made = make(xtremio)
    assert sum("volumes:" in one for one in things(xms)) == 3, "what the later one has begun is left"
    assert made == make(other)


def test_a_copy_that_gave_up_is_no_volume_and_no_snapshot_and_is_found_to_be_deleted(
    xms: XmsServer, xtremio: XtremioPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = xtremio.snapshot(volume, token="s1").external_id

    def dies() -> None:
        raise PlatformUnavailable(platform="x", action="name", reason="killed")

    for make in (lambda: xtremio.create(request("t2", snapshot=snapshot)), lambda: xtremio.snapshot(volume, token="s2")):
        before(monkeypatch, xtremio, "change", "volumes", dies)
        with pytest.raises(PlatformUnavailable, match="killed"):
            make()
    assert ([one.external_id for one in xtremio.volumes().items], [one.token for one in xtremio.snapshots().items]) == ([volume], ["s1"])
    left = xtremio.find("t2")
    assert left is not None
    assert (left.token, left.held_by) == ("t2", ())
    with pytest.raises(UnknownVolume):
        xtremio.attach(left.external_id, NODES[0], epoch=1)
    xtremio.delete(left.external_id)
    assert xtremio.find("t2") is None
    assert xtremio.snapshot(volume, token="s2").token == "s2"


def test_a_password_that_goes_in_the_middle_of_a_verb_is_no_refusal_of_it(
    xms: XmsServer, volume: ExternalId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal nobody looks for what was begun."""
    (password := tmp_path / "password").write_text(PASSWORD)
    rotated = platform_on(xms, password_file=str(password))
    before(monkeypatch, rotated, "change", "volumes", lambda: password.write_text(""))
    with pytest.raises(PlatformUnavailable, match="is empty"):
        rotated.snapshot(volume, token="s1")
    password.write_text(PASSWORD)
    assert rotated.snapshot(volume, token="s1").token == "s1"
    assert sum("volumes:" in one for one in things(xms)) == 2


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_a_snapshot_whose_volume_goes_before_the_repeat_is_there(
    xms: XmsServer, xtremio: XtremioPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch, is_cut_off: bool
) -> None:
    def dies() -> None:
        raise PlatformUnavailable(platform="x", action="name", reason="killed")

    if is_cut_off:
        before(monkeypatch, xtremio, "change", "volumes", dies)
    with contextlib.suppress(PlatformUnavailable):
        xtremio.snapshot(volume, token="s1")
    xtremio.delete(volume)
    assert xtremio.snapshot(volume, token="s1").external_id == "polly-snap-s1"
    xtremio.delete_snapshot(ExternalId("polly-snap-s1"))
    assert things(xms) == []
    with pytest.raises(UnknownVolume):
        xtremio.snapshot(volume, token="s1")


def test_a_volume_that_another_has_grown_further_is_large_enough(
    xtremio: XtremioPlatform, other: XtremioPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, xtremio, "change", "volumes", lambda: other.expand(volume, 4096))
    assert xtremio.expand(volume, 2048).size_mib == 4096


def test_a_volume_that_has_got_the_name_of_another_is_not_taken_for_it(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    """An operator has put another one in the place of a volume that Polly had adopted."""
    xtremio._xms.create("volumes", {"vol-name": "db", "vol-size": "1g"}, action="test")
    (adopted,) = [one.external_id for one in xtremio.volumes().items]
    xtremio._xms.change("volumes", "db", {"vol-name": "db-old"}, action="test")
    xtremio._xms.create("volumes", {"vol-name": "db", "vol-size": "1g"}, action="test")
    known = things(xms)
    xtremio.delete(adopted)
    xtremio.detach(adopted, NODES[0])
    calls: tuple[Callable[[ExternalId], object], ...] = (
        xtremio.inspect,
        lambda key: xtremio.attach(key, NODES[0], epoch=1),
        lambda key: xtremio.expand(key, 4096),
        lambda key: xtremio.snapshot(key, token="s1"),
    )
    for call in calls:
        with pytest.raises(UnknownVolume):
            call(adopted)
    assert things(xms) == known


def test_a_volume_that_others_have_made_is_cloned_by_its_name(xtremio: XtremioPlatform) -> None:
    """Its id is more than that."""
    xtremio._xms.create("volumes", {"vol-name": "db", "vol-size": "1g"}, action="test")
    (adopted,) = [one.external_id for one in xtremio.volumes().items]
    assert xtremio.create(request("t2", source=adopted)).token == "t2"


def test_a_group_that_goes_while_a_volume_is_mapped_is_no_volume_that_is_lost(
    xtremio: XtremioPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_of(xtremio, "theirs", (NODES[0],))
    before(monkeypatch, xtremio, "create", "lun-maps", lambda: xtremio._xms.delete("initiator-groups", "theirs", action="test"))
    with pytest.raises(NotThere, match="obj_not_found"):
        xtremio.attach(volume, NODES[0], epoch=1)


def test_a_volume_that_has_no_name_on_the_network_yet_is_not_given_out(
    xtremio: XtremioPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = xtremio._xms.get
    with monkeypatch.context() as patch:
        patch.setattr(xtremio._xms, "get", lambda *what, **more: Answer("x", "look", {**real(*what, **more), "naa-name": ""}))
        with pytest.raises(PlatformUnavailable, match="no NAA yet"):
            xtremio.attach(volume, NODES[0], epoch=1)
    assert xtremio.attach(volume, NODES[0], epoch=1).serial.startswith("naa.")


# --- answers that are not the array's -----------------------------------------------------------------------


def verbs(xtremio: XtremioPlatform, volume: ExternalId, snapshot: ExternalId) -> Iterator[Callable[[], object]]:
    yield from (xtremio.pools, xtremio.volumes, xtremio.snapshots, lambda: xtremio.inspect(volume), lambda: xtremio.find("t1"))
    yield lambda: xtremio.create(request("t3"))
    yield lambda: xtremio.create(request("t3", snapshot=snapshot))
    yield lambda: xtremio.attach(volume, NODES[0], epoch=1)
    yield lambda: xtremio.detach(volume, NODES[0])
    yield lambda: xtremio.expand(volume, 4096)
    yield lambda: xtremio.snapshot(volume, token="s3")
    yield lambda: xtremio.delete_snapshot(snapshot)
    yield lambda: xtremio.delete(volume)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>a proxy</html>"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"content": null, "volumes": null, "lun-maps": null, "initiators": null, "clusters": null}'),
        (200, '{"content": {}, "volumes": [{}], "lun-maps": [{}], "initiators": [{}], "clusters": [{}]}'),
        (200, '{"content": {"name": "polly-t1", "vol-size": "much"}, "volumes": [{"name": "polly-snap-x", "vol-size": []}]}'),
        (302, ""),
        (404, "<html>nothing</html>"),
        (502, "<html>a gateway</html>"),
    ],
)
def test_an_answer_that_is_not_the_arrays_is_an_error_with_a_name(
    xms: XmsServer, xtremio: XtremioPlatform, volume: ExternalId, answer: tuple[int, str]
) -> None:
    snapshot = xtremio.snapshot(volume, token="s1").external_id
    known = things(xms)
    for verb in verbs(xtremio, volume, snapshot):
        xms.faults(say=[answer] * 30)
        with pytest.raises(PlatformUnavailable):
            verb()
        xms.faults(say=[])
    assert things(xms) == known


def test_nothing_is_gone_because_the_cluster_is(xms: XmsServer, volume: ExternalId) -> None:
    elsewhere = platform_on(xms, cluster="brick9")
    looks: tuple[Callable[[ExternalId], object], ...] = (
        elsewhere.delete,
        elsewhere.inspect,
        lambda _: elsewhere.find("t1"),
        elsewhere._volumes.discard,
        lambda volume: elsewhere._hosts.unmap(volume, "theirs"),
    )
    for look in looks:
        with pytest.raises(PlatformUnavailable, match="no cluster brick9"):
            look(volume)


def test_a_refusal_in_an_answer_that_is_none_is_told(xms: XmsServer, xtremio: XtremioPlatform, volume: ExternalId) -> None:
    xms.faults(say=[(200, '{"message": "vol_in_wrong_state", "error_code": 17}')])
    with pytest.raises(Refused, match="vol_in_wrong_state"):
        xtremio._volumes.discard(volume)
    assert xtremio.inspect(volume)


def test_portals_of_both_kinds_of_addresses_are_written_as_iscsiadm_wants_them(
    xtremio: XtremioPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"name": "a", "ip-port": 3260, "port-address": "iqn.x"}
    portals = [Answer("x", "look", {**said, "ip-addr": address}) for address in ("10.1.1.1/16", "fd00:206::7/16")]
    monkeypatch.setattr(xtremio._xms, "all", Mock(return_value=portals))
    assert xtremio._hosts.portals() == "10.1.1.1:3260,iqn.x [fd00:206::7]:3260,iqn.x"
