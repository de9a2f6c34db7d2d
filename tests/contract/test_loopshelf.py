"""The platform that the tests of `attach_by = "broker"` use keeps the contract like any other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.platforms.base import Platform
from storage.platforms.contract import PlatformContract
from tests.cluster.loopshelf import LoopShelf, LoopShelfOptions

pytestmark = pytest.mark.root


class TestLoopShelf(PlatformContract):
    many = 100

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Path]:
        yield tmp_path
        shelf = self.make(tmp_path)
        for volume in shelf.volumes().items:
            for node in volume.held_by:
                shelf.detach(volume.external_id, node)

    def make(self, storage: Path) -> Platform:
        return LoopShelf("shelf", LoopShelfOptions(root=str(storage)))

    @contextlib.contextmanager
    def stopping(self, storage: Path) -> Iterator[None]:
        flag = storage / f"stopped-{self.nodes[1]}"
        flag.touch()
        yield
        flag.unlink()
