"""The contract on a real OpenStack, for both ways of attaching: through Nova, and to machines of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.cinder.options import BARE_METAL, NOVA
from storage.platforms.contract import Arena, PlatformContract
from storage.platforms.contract.copies import CloneRules, RestoreRules
from storage.platforms.contract.creating import CreateRules, ListRules
from storage.platforms.contract.interrupted import InterruptedRules
from storage.platforms.faulting import Faults
from tests.contract.cinder_cloud import NODES, POOL, Cloud
from tests.peers import _openstack_files as files

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("cinder")]


def is_without_nova(rule: str) -> bool:
    """Whether a rule is about what the adapter asks Cinder alone, in either way of attaching."""
    if rule in vars(InterruptedRules):
        return not any(verb in rule for verb in ("attach", "detach", "nodes"))
    return any(rule in vars(rules) for rules in (CreateRules, ListRules, RestoreRules, CloneRules))


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

    def things(self, storage: Cloud, platform: Platform) -> list[str]:
        return storage.things()


class TestBareMetal(OnCinder):
    way = BARE_METAL

    def named(self, cloud: Cloud) -> tuple[str, str]:
        return NODES


class TestThroughNova(OnCinder):
    way = NOVA

    @pytest.fixture
    def arena(self, request: pytest.FixtureRequest, storage: Cloud) -> Iterator[Arena]:
        with self.opened(storage) as arena:
            if is_without_nova(request.function.__name__):
                arena.leave_out("does it as for machines of their own, where it is tried")
            yield arena

    def named(self, cloud: Cloud) -> tuple[str, str]:
        return cloud.servers

    def stopping(self, storage: Cloud) -> AbstractContextManager[object]:
        return storage.stopped(storage.servers[1])
