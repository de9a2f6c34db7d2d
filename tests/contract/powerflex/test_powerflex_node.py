"""A PowerFlex volume from the control plane to the mounted filesystem, on nodes whose SDC shows what the simulated array maps to it.

The devices behind /dev/sciniX are loop devices here; everything else on the node is what Polly does on a real one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from framework.ids import new_id
from storage.errors import VolumeInUse
from storage.node import commands, devices, disks
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.scini import DRV_CFG, Sdc
from storage.node.staged import Staged
from storage.node.steps import Machine
from storage.platforms.base import Platform
from tests.contract.powerflex.arena import GRANULE_MIB, NODES, POOL, SDCS, foreign, renewed
from tests.contract.simulated_node import SimulatedNode
from tests.peers.powerflex_array import SYSTEM, Array, Volume
from tests.peers.powerflex_gateway import Gateway

pytestmark = [pytest.mark.peer, pytest.mark.root, pytest.mark.xdist_group("powerflex")]


@dataclass(kw_only=True)
class SdcNode(SimulatedNode):
    """A node with its SDC, which sees its mappings change as they do, and sizes when it is told to look."""

    array: Array
    sdc: str
    guid: str

    @property
    def machine(self) -> Machine:
        roots = Roots(dev=self.folder / "dev", sys=self.folder / "sys", sdc=Sdc(run=self.run))
        return Machine(roots=roots, run=self.run, device_wait_s=5.0)

    def run(self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        if command[0] != DRV_CFG:
            return commands.run(command, *paths, ok=ok, timeout_s=timeout_s, writes=writes)
        if command[1] == "--rescan":
            for key, (loop, _) in self.shown.items():
                os.truncate(self.data / key, self.array.volumes[key].size_kb * 1024)
                subprocess.run(["losetup", "--set-capacity", loop], check=True)
        volumes = {name: key for key, (_, name) in self.shown.items()}
        answers = {"--query_guid": self.guid, "--query_block_device_id": f"{SYSTEM}-{volumes.get(Path(command[-1]).name, '')}"}
        return Output(code=0, out=answers.get(command[1], ""), err="")

    def look(self) -> None:
        """Shows what is mapped, and no more what is not."""
        mapped = {key: volume for key, volume in self.array.volumes.items() if self.sdc in volume.mapped}
        for key in [key for key in self.shown if key not in mapped]:
            self.hide(key)
        for volume in mapped.values():
            if volume.id not in self.shown:
                self._show(volume)

    def _show(self, volume: Volume) -> None:
        names = [f"scini{letter}" for letter in "abcdefgh"]
        name = self.attach_loop(volume.id, self.data / volume.id, names, size=volume.size_kb * 1024)
        (self.folder / "sys" / "block" / name).mkdir(parents=True)
        self.link(name, f"emc-vol-{SYSTEM}-{volume.id}")

    def hide(self, key: str) -> None:
        (self.folder / "sys" / "block" / self.shown[key][1]).rmdir()
        super().hide(key)

    def stage(self, platform: Platform, **wanted: Any) -> Staged:
        return super().stage(platform, **{"pool": POOL, "size_mib": GRANULE_MIB, **wanted})


@pytest.fixture
def gateway(powerflex_gateways: dict[str, Gateway]) -> Gateway:
    return renewed(powerflex_gateways["4.5"])


@pytest.fixture
def nodes(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SdcNode]]:
    """Two nodes that hear of each change of their mappings."""
    made = []
    (tmp_path / "data").mkdir()
    for sdc, guid in zip(SDCS, NODES, strict=True):
        folder = tmp_path / sdc
        (folder / "dev").mkdir(parents=True)
        made.append(SdcNode(array=gateway.array, sdc=sdc, guid=guid, folder=folder, data=tmp_path / "data"))
    for verb in ("map", "unmap"):
        monkeypatch.setattr(gateway.array, verb, told(getattr(gateway.array, verb), made))
    with ended(made):
        yield made


def told(change: Any, nodes: Sequence[SdcNode]) -> Any:
    def run(*arguments: Any) -> None:
        change(*arguments)
        for node in nodes:
            node.look()

    return run


@contextmanager
def ended(nodes: Sequence[SdcNode]) -> Iterator[None]:
    try:
        yield
    finally:
        for node in nodes:
            node.end()


def test_a_volume_is_born_on_one_node_and_lives_on_at_another(gateway: Gateway, array: Platform, nodes: list[SdcNode]) -> None:
    here, there = nodes
    token = new_id()
    first = here.stage(array, claim=token)
    Path(first.path, "count").write_text("1")
    assert first.birth.serial == f"{SYSTEM}-{first.external_id}"
    assert first.formatted

    known = {"claim": "claim-2", "token": token, "external_id": first.external_id, "birth": first.birth, "epoch": 2}
    with pytest.raises(VolumeInUse, match=NODES[0]):
        there.stage(array, **known)
    here.unstage(array, first)
    assert (here.shown, gateway.array.volumes[first.external_id].mapped) == ({}, {})

    second = there.stage(array, **known)
    assert Path(second.path, "count").read_text() == "1"
    assert not second.formatted
    there.unstage(array, second)
    assert there.shown == {}


def test_a_stale_link_and_another_volume_in_its_place_are_passed_over(gateway: Gateway, array: Platform, nodes: list[SdcNode]) -> None:
    """The device's name was used again, and the link of before leads to it."""
    here, _ = nodes
    token = new_id()
    first = here.stage(array, claim=token)
    Path(first.path, "whose").write_text("ours")
    here.unstage(array, first)
    theirs = foreign(gateway)
    gateway.array.map(theirs.id, {"sdcId": SDCS[0]})
    assert first.device.endswith("/scinia")
    assert here.shown[theirs.id][1] == "scinia"

    second = here.stage(array, claim="claim-2", token=token, external_id=first.external_id, birth=first.birth, epoch=2)
    assert second.device.endswith("/scinib")
    assert Path(second.path, "whose").read_text() == "ours"
    here.unstage(array, second)
    assert list(here.shown) == [theirs.id], "another volume was taken away"


def test_a_volume_that_has_grown_is_grown_on_the_node(array: Platform, nodes: list[SdcNode]) -> None:
    here, _ = nodes
    token = new_id()
    first = here.stage(array, claim=token)
    before = os.statvfs(first.path)
    array.expand(first.external_id, 2 * GRANULE_MIB)
    here.unstage(array, first)

    known = {"token": token, "external_id": first.external_id, "birth": first.birth, "epoch": 2, "size_mib": 2 * GRANULE_MIB}
    second = here.stage(array, claim="claim-2", **known)
    after = os.statvfs(second.path)
    assert second.size_mib == 2 * GRANULE_MIB
    assert after.f_blocks > 1.9 * before.f_blocks
    here.unstage(array, second)


def test_a_device_that_grows_while_it_is_there_is_seen_after_a_rescan(array: Platform, nodes: list[SdcNode]) -> None:
    here, _ = nodes
    first = here.stage(array, claim=new_id())
    array.expand(first.external_id, 2 * GRANULE_MIB)

    assert devices.size_bytes(first.device) == GRANULE_MIB << 20
    disks.rescan_size(first.device, here.machine.roots)
    assert devices.size_bytes(first.device) == 2 * GRANULE_MIB << 20
    here.unstage(array, first)
