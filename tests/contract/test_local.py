"""The local platform keeps the contract: images on loop devices as root, folders without."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.platforms.base import Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.registry import build


@pytest.mark.root
class TestLocalImages(PlatformContract):
    def make(self, storage: Path) -> Platform:
        return build("local", "local", {"root": str(storage)})


class TestLocalFolders(PlatformContract):
    def make(self, storage: Path) -> Platform:
        return build("local", "local", {"root": str(storage), "format": "folder"})
