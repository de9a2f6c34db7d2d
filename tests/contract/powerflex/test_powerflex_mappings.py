"""Who has a PowerFlex volume: nodes by their names, mappings that others make, and what changes between a look and a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.errors import (
    NoSlot,
    PlatformError,
    UnknownVolume,
    VolumeInUse,
)
from storage.node import devices, identities
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.pace import Pace
from storage.node.scini import Sdc
from storage.node.steps import Machine
from storage.node.transports import transport_of
from storage.platforms.base import Platform
from tests.contract.powerflex.arena import NODES, SDCS, refused, request
from tests.peers.powerflex_array import SYSTEM
from tests.peers.powerflex_gateway import Gateway

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]


# --- mappings -----------------------------------------------------------------------------------------


def test_an_attachment_tells_the_node_what_to_look_for(array: Platform) -> None:
    made = array.create(request())
    attachment = array.attach(made.external_id, NODES[0], epoch=1)

    assert attachment.device == f"/dev/disk/by-id/emc-vol-{SYSTEM}-{made.external_id}"
    assert (attachment.serial, attachment.transport, dict(attachment.context)) == (f"{SYSTEM}-{made.external_id}", "scaleio", {})


@pytest.mark.parametrize("called", [NODES[0], NODES[0].lower(), SDCS[0], "192.168.10.1", "rack7"])
def test_a_node_may_go_by_any_name_that_the_array_has(gateway: Gateway, array: Platform, called: str) -> None:
    gateway.array.sdcs[SDCS[0]].name = "rack7"
    made = array.create(request())

    array.attach(made.external_id, called, epoch=1)
    assert array.inspect(made.external_id).held_by == (NODES[0],)
    array.detach(made.external_id, called)
    assert array.inspect(made.external_id).held_by == ()


def test_a_node_without_an_sdc_is_named(array: Platform) -> None:
    made = array.create(request())

    error = refused(lambda: array.attach(made.external_id, "agent-7", epoch=1), PlatformError)
    assert "node agent-7" in str(error)
    assert "install the SDC there" in str(error)
    array.detach(made.external_id, "agent-7")
    assert array.inspect(made.external_id).held_by == ()


def test_an_sdc_that_came_later_is_found(gateway: Gateway, array: Platform) -> None:
    made = array.create(request())
    late = gateway.array.sdcs.pop(SDCS[1])
    array.attach(made.external_id, NODES[0], epoch=1)
    array.detach(made.external_id, NODES[0])
    gateway.array.sdcs[late.id] = late

    assert array.attach(made.external_id, NODES[1], epoch=2).serial == made.serial


def test_an_sdc_that_is_not_approved_is_refused_in_the_arrays_words(gateway: Gateway, array: Platform) -> None:
    made = array.create(request())
    gateway.array.sdcs[SDCS[0]].approved = False

    assert "The SDC is not approved" in str(refused(lambda: array.attach(made.external_id, NODES[0], epoch=1), PlatformError))


def test_a_node_with_all_its_slots_in_use_is_refused(gateway: Gateway, array: Platform) -> None:
    gateway.array.most_mappings = 1
    first, second = array.create(request("first")), array.create(request("second"))
    array.attach(first.external_id, NODES[0], epoch=1)

    error = refused(lambda: array.attach(second.external_id, NODES[0], epoch=1), NoSlot)
    assert error.fields["node"] == NODES[0]
    assert "mapped to too many volumes" in str(error.fields["reason"])


def test_a_mapping_that_others_made_is_seen_and_named(gateway: Gateway, array: Platform) -> None:
    made = array.create(request())
    gateway.array.map(made.external_id, {"sdcId": SDCS[1], "allowMultipleMappings": "TRUE"})

    assert refused(lambda: array.attach(made.external_id, NODES[0], epoch=1), VolumeInUse).fields["holder"] == NODES[1]
    assert refused(lambda: array.delete(made.external_id), VolumeInUse).fields["holder"] == NODES[1]


def meanwhile(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, *, before: bool, sdc: str = SDCS[1], gone: bool = False) -> None:
    """Somebody else changes the mappings right before, or right after, the next map."""
    truly = gateway.array.map

    def change(key: str, wanted: Mapping[str, Any]) -> None:
        monkeypatch.setattr(gateway.array, "map", truly)
        if before:
            truly(key, {"sdcId": sdc, "allowMultipleMappings": "TRUE"})
        truly(key, wanted)
        if gone:
            gateway.array.volumes[key].mapped.clear()
        elif not before:
            truly(key, {"sdcId": sdc, "allowMultipleMappings": "TRUE"})

    monkeypatch.setattr(gateway.array, "map", change)


def test_a_writer_that_comes_second_is_refused_by_the_array(gateway: Gateway, array: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    made = array.create(request())
    meanwhile(gateway, monkeypatch, before=True)

    assert refused(lambda: array.attach(made.external_id, NODES[0], epoch=1), VolumeInUse).fields["holder"] == NODES[1]
    assert list(gateway.array.volumes[made.external_id].mapped) == [SDCS[1]]


@pytest.mark.parametrize("read_only", [False, True])
def test_whoever_finds_a_writer_beside_itself_gives_way(
    gateway: Gateway, array: Platform, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    made = array.create(request())
    meanwhile(gateway, monkeypatch, before=False)

    error = refused(lambda: array.attach(made.external_id, NODES[0], epoch=1, read_only=read_only), VolumeInUse)
    assert error.fields["holder"] == NODES[1]
    assert list(gateway.array.volumes[made.external_id].mapped) == [SDCS[1]], "it did not take its own mapping back"


def test_a_mapping_that_goes_at_once_is_no_attachment(gateway: Gateway, array: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    made = array.create(request())
    meanwhile(gateway, monkeypatch, before=False, gone=True)

    error = refused(lambda: array.attach(made.external_id, NODES[0], epoch=1), PlatformError)
    assert f"the array does not map it to node {NODES[0]}" in str(error)


def test_a_map_whose_earlier_reply_was_lost_is_ours(gateway: Gateway, array: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same node's first call was done between our look and our map."""
    made = array.create(request())
    meanwhile(gateway, monkeypatch, before=True, sdc=SDCS[0])

    assert array.attach(made.external_id, NODES[0], epoch=1).serial == made.serial


def test_a_reader_that_becomes_a_writer_may_write(gateway: Gateway, array: Platform) -> None:
    made = array.create(request())
    mapped = gateway.array.volumes[made.external_id].mapped

    assert array.attach(made.external_id, NODES[0], epoch=1, read_only=True).read_only
    assert mapped == {SDCS[0]: "ReadOnly"}
    array.attach(made.external_id, NODES[0], epoch=2)
    assert mapped == {SDCS[0]: "ReadWrite"}
    array.attach(made.external_id, NODES[0], epoch=3, read_only=True)
    assert mapped == {SDCS[0]: "ReadOnly"}


def test_the_node_finds_what_the_array_has_given_it(gateway: Gateway, array: Platform, tmp_path: Path) -> None:
    """From the control plane to the device: the SDC shows what is mapped to it when it is told to look."""
    (tmp_path / "dev").mkdir()

    def drv_cfg(command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        shown = [volume.id for volume in gateway.array.volumes.values() if SDCS[0] in volume.mapped]
        if command[1] == "--rescan":
            for number in range(len(shown)):
                (tmp_path / "dev" / f"scini{number}").touch()
                (tmp_path / "sys" / "block" / f"scini{number}").mkdir(parents=True, exist_ok=True)
        asked = command[-1].rpartition("scini")[2]
        return Output(code=0, out=f"{SYSTEM}-{shown[int(asked)]}" if asked.isdigit() else NODES[0], err="")

    roots = Roots(dev=tmp_path / "dev", sys=tmp_path / "sys", is_block=Path.is_file, sdc=Sdc(run=drv_cfg))
    machine = Machine(roots=roots, run=drv_cfg)
    node = identities.identify(array.capabilities.identity, machine, hostname="agent-1")
    volumes = [array.create(request(f"volume-{number}")).external_id for number in range(3)]
    attachments = [array.attach(volume, node, epoch=1) for volume in volumes]
    transport = transport_of(attachments[1])
    assert transport

    transport.connect(attachments[1], machine)
    found = devices.find(attachments[1].serial, hint=attachments[1].device, roots=roots, pace=Pace(), timeout_s=0.0)
    assert Path(found).name == "scini1"


def test_a_volume_that_goes_in_the_middle_is_unknown(gateway: Gateway, array: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    made = array.create(request())
    truly = gateway.array.map

    def remove_first(key: str, wanted: Mapping[str, Any]) -> None:
        gateway.array.remove(key, "ONLY_ME")
        truly(key, wanted)

    monkeypatch.setattr(gateway.array, "map", remove_first)
    assert refused(lambda: array.attach(made.external_id, NODES[0], epoch=1), UnknownVolume).fields["volume"] == made.external_id


def test_a_volume_that_is_mapped_in_the_middle_is_not_deleted(gateway: Gateway, array: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    made = array.create(request())
    truly = gateway.array.remove

    def map_first(key: str, mode: str) -> None:
        gateway.array.map(key, {"sdcId": SDCS[1]})
        truly(key, mode)

    monkeypatch.setattr(gateway.array, "remove", map_first)
    assert refused(lambda: array.delete(made.external_id), VolumeInUse).fields["holder"] == NODES[1]
    assert made.external_id in gateway.array.volumes
