"""The PowerScale adapter keeps the whole contract on the simulated cluster, whose /ifs is a real folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import Arena, PlatformContract
from tests.contract.powerscale.arena import NODES, SIZE_MIB, platform_on, renewed
from tests.peers.powerscale_onefs import PASSWORD, OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

CALLS = {
    "create": ("POST", "/quota/quotas"),
    "attach": ("POST", "/nfs/exports"),
    "detach": ("DELETE", "/nfs/exports/"),
    "delete": ("POST", "/job/jobs"),
    "expand": ("PUT", "/quota/quotas/"),
    "snapshot": ("POST", "/snapshot/snapshots"),
    "delete_snapshot": ("DELETE", "/snapshot/snapshots/"),
    "fence": ("POST", "/nfs/exports"),
    "record_birth": ("POST", "/nfs/exports"),
}
"""The call that does what a verb is for."""


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

    @contextmanager
    def losing(self, storage: OneFs, platform: Platform, verb: str) -> Iterator[Platform]:
        storage.lose = CALLS[verb]
        yield platform
        assert storage.lose is None, f"{verb} did not make its call"

    @contextmanager
    def throttling(self, storage: OneFs) -> Iterator[None]:
        storage.refuse = [(429, None), (503, {"errors": [{"code": "AEC_SERVICE_UNAVAILABLE", "message": "Too many requests"}]})]
        yield
        assert not storage.refuse

    @contextmanager
    def expiring(self, storage: OneFs) -> Iterator[None]:
        storage.sessions.clear()
        storage.password = "changed"
        yield
        storage.password = PASSWORD


def _place(storage: OneFs, attachment: Attachment) -> tuple[Path, list[str]]:
    host, _, path = attachment.device.partition(":")
    assert host == "nas.example"
    return storage.cluster.ifs.real(f"{path}/data"), [storage.cluster.may_mount(path, node) for node in NODES]
