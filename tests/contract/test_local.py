"""The local platform keeps the contract: images on loop devices as root, also where extents are shared, and folders without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.platforms.base import Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.registry import build
from tests.contract.conftest import xfs


@pytest.mark.root
class TestLocalImages(PlatformContract):
    many = 100

    def make(self, storage: Path) -> Platform:
        return build("local", "local", {"root": str(storage)})


@pytest.mark.root
class TestLocalImagesOnXfs(TestLocalImages):
    many = 20

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Path]:
        with xfs(tmp_path) as folder:
            yield folder

    def test_volumes_in_use_can_be_snapshotted(self, storage: Path) -> None:
        assert self.make(storage).capabilities.snapshot_attached


class TestLocalFolders(PlatformContract):
    many = 300

    def make(self, storage: Path) -> Platform:
        return build("local", "local", {"root": str(storage), "format": "folder"})
