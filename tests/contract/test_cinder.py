"""The contract on a real OpenStack, for both ways of attaching: through Nova, and to machines of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.cinder.options import BARE_METAL, NOVA
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.contract.copies import CloneRules
from storage.platforms.faulting import Faults
from tests.contract.cinder_cloud import NODES, POOL, Cloud
from tests.peers import _openstack_files as files

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("cinder")]


class OnCinder(PlatformContract):
    pool = POOL
    size_mib = 1024
    wrong_parameters = ({"type": "no-such-type"},)
    many = 7
    secrets = (files.USER_PASSWORD,)
    way: ClassVar[str]

    @pytest.fixture
    def storage(self, cinder: Cloud) -> Cloud:
        type(self).nodes = self.named(cinder)
        cinder.forget()
        return cinder

    def named(self, cloud: Cloud) -> tuple[str, str]:
        """The two nodes."""
        raise NotImplementedError

    def make(self, storage: Cloud) -> Platform:
        return storage.platform(self.way)

    def fill(self, arena: Arena) -> int:
        """The quota is the pool's capacity."""
        pool = next(pool for pool in arena.here.pools() if pool.name == self.pool)
        return pool.capacity_mib + 1

    def write(self, storage: Cloud, attachment: Attachment, data: bytes) -> None:
        storage.data.write(attachment.external_id, data)

    def read(self, storage: Cloud, attachment: Attachment, length: int) -> bytes:
        return storage.data.read(attachment.external_id, length)

    def faults(self, storage: Cloud) -> Faults:
        return storage.faults()


class TestBareMetal(OnCinder):
    way = BARE_METAL

    def named(self, cloud: Cloud) -> tuple[str, str]:
        return NODES


class TestThroughNova(OnCinder):
    way = NOVA
    by_nova: ClassVar[bool]

    @pytest.fixture
    def storage(self, cinder: Cloud, request: pytest.FixtureRequest) -> Cloud:
        type(self).by_nova = any(verb in request.node.name for verb in ("attach", "detach", "nodes"))
        type(self).nodes = self.named(cinder)
        cinder.forget()
        return cinder

    @pytest.fixture
    def arena(self, request: pytest.FixtureRequest, storage: Cloud) -> Iterator[Arena]:
        with self.opened(storage) as arena:
            if request.function.__name__ in vars(CloneRules):
                arena.leave_out("clones as it does for machines of their own, which is tried there")
            yield arena

    def named(self, cloud: Cloud) -> tuple[str, str]:
        return cloud.servers

    def faults(self, storage: Cloud) -> Faults:
        """All else is tried on bare metal, and is the same here."""
        return super().faults(storage) if self.by_nova else Faults()

    def stopping(self, storage: Cloud) -> AbstractContextManager[object]:
        return storage.stopped(storage.servers[1])
