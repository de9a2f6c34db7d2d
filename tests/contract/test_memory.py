"""The platform in memory keeps the whole contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from storage.platforms.base import Attachment, Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.faulting import Faults
from storage.platforms.testing import MemoryPlatform, MemoryStorage

POOLS = ("default", "second")


class TestMemory(PlatformContract):
    other_pool = POOLS[1]
    other_parameters = ({"type": "fast"}, {"type": "large"})
    wrong_sizes = (({"type": "large"}, 2050),)

    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage(pools=POOLS)

    def make(self, storage: MemoryStorage) -> Platform:
        return MemoryPlatform(storage=storage)

    def write(self, storage: MemoryStorage, attachment: Attachment, data: bytes) -> None:
        storage.data[attachment.external_id] = data

    def read(self, storage: MemoryStorage, attachment: Attachment, length: int) -> bytes:
        return storage.data[attachment.external_id][:length]

    @contextlib.contextmanager
    def stopping(self, storage: MemoryStorage) -> Iterator[None]:
        storage.stopped.add(self.nodes[1])
        yield
        storage.stopped.clear()

    def faults(self, storage: MemoryStorage) -> Faults:
        return storage.faults
