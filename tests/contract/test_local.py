"""The local platform keeps the contract: images on loop devices as root, also where extents are shared, and folders without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from storage.platforms.base import Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.faulting import Faults
from storage.platforms.local.layout import LOCKS
from storage.platforms.registry import build
from tests.contract.conftest import xfs
from tests.contract.mortal import Mortal


class OnThisMachine(PlatformContract):
    format: ClassVar[str]

    def make(self, storage: Path) -> Platform:
        return build("local", "local", {"root": str(storage), "format": self.format})

    def faults(self, storage: Path) -> Faults:
        """Its storage is the machine's own: no reply is lost and no call refused, but the process may die at any of them."""
        return Mortal(lambda: self.make(storage))

    def things(self, storage: Path, platform: Platform) -> list[str]:
        """Folders that volumes share stay, and so do locks."""
        paths = [path for path in storage.rglob("*") if LOCKS not in path.parts]
        return [str(path) for path in paths if path.is_file() or path.suffix == ".dir"]


@pytest.mark.root
class TestLocalImages(OnThisMachine):
    many = 100
    format = "image"


@pytest.mark.root
class TestLocalImagesOnXfs(TestLocalImages):
    many = 20

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Path]:
        with xfs(tmp_path) as folder:
            yield folder

    def test_volumes_in_use_can_be_snapshotted(self, storage: Path) -> None:
        assert self.make(storage).capabilities.snapshot_attached


class TestLocalFolders(OnThisMachine):
    many = 300
    format = "folder"
    other_pool = "second"

    def make(self, storage: Path) -> Platform:
        (storage / self.other_pool).mkdir(exist_ok=True)
        return build("local", "local", {"root": str(storage), "format": self.format, "pools": ["default", self.other_pool]})
