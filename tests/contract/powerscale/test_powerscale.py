"""The PowerScale adapter keeps the whole contract on the simulated cluster, whose /ifs is a real folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.faulting import Fault, Faults
from storage.platforms.powerscale.exports import NOBODY
from tests.contract.powerscale.arena import NODES, SIZE_MIB, platform_on, renewed
from tests.peers.powerscale_onefs import PASSWORD, OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]


class TestPowerScale(PlatformContract):
    pool = "System"
    nodes = NODES
    size_mib = SIZE_MIB
    other_parameters = ({"shared": "true", "mode": "0750"},)
    wrong_parameters = ({"shared": "yes"}, {"mode": "rwx"})
    secrets = (PASSWORD,)

    @pytest.fixture
    def storage(self, powerscale: OneFs) -> OneFs:
        return renewed(powerscale)

    def make(self, storage: OneFs) -> Platform:
        return platform_on(storage)

    def fill(self, arena: Arena) -> int:
        """Quotas take no room, so others fill the cluster."""
        cluster = arena.storage.cluster
        cluster.bytes_foreign += cluster.bytes_total - cluster.bytes_used()
        return SIZE_MIB

    def write(self, storage: OneFs, attachment: Attachment, data: bytes) -> None:
        place, rights = _place(storage, attachment)
        assert "rw" in rights, "a volume is written to that no node may write"
        place.write_bytes(data)

    def read(self, storage: OneFs, attachment: Attachment, length: int) -> bytes:
        place, rights = _place(storage, attachment)
        assert any(rights), "a volume is read that no node may mount"
        return place.read_bytes()[:length]

    def faults(self, storage: OneFs) -> Faults:
        storage.faults = Faults(*Fault, codes={Fault.EXPIRED: "HTTP 401"})
        return storage.faults

    def things(self, storage: OneFs, platform: Platform) -> list[str]:
        """Of an export that nobody can mount its client and its marks change, so only that it is there counts."""
        cluster = storage.cluster
        cluster.finish_jobs()
        folders = [str(place) for place in cluster.ifs.folder.rglob("*")]
        quotas = [f"{one['path']}: {one['thresholds']['hard']} bytes" for one in cluster.quotas.values()]
        clients = {key: [client for client in one["clients"] if client not in NOBODY] for key, one in cluster.exports.items()}
        exports = [f"{one['paths']} to {clients[key] or 'nobody'}" for key, one in cluster.exports.items()]
        return [*folders, *quotas, *exports, *cluster.snapshots]


def _place(storage: OneFs, attachment: Attachment) -> tuple[Path, list[str]]:
    host, _, path = attachment.device.partition(":")
    assert host == "nas.example"
    return storage.cluster.ifs.real(f"{path}/data"), [storage.cluster.may_mount(path, node) for node in NODES]
