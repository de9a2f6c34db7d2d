"""The worked example of docs/adapters.md is run: it keeps the contract, with the test class that stands beside it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from storage.platforms import registry
from storage.platforms.local import LocalOptions
from storage.platforms.options import describe

DOCUMENT = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text("utf-8")


def example() -> dict[str, Any]:
    """What the document's two Python blocks define, run one after the other as two files would be."""
    module = sys.modules["shelf_adapter"] = ModuleType("shelf_adapter")
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/adapters.md", "exec"), vars(module))  # noqa: S102  # our own document
    return vars(module)


TestShelf = example()["TestShelf"]


def test_example_is_short() -> None:
    adapter, test = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len([line for line in test.splitlines() if line]) <= 15
    assert len([line for line in adapter.splitlines() if line]) <= 100


def test_every_key_of_the_local_platform_is_documented() -> None:
    keys = [name for name, _, _ in describe(LocalOptions)]
    table = DOCUMENT[DOCUMENT.index("## The local platform") :]
    assert [key for key in keys if f"`{key}`" not in table] == []


def test_example_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shelf_adapter.py").write_text(re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[0])
    information = tmp_path / "shelf_adapter-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf-adapter\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[polly.platforms]\nshelf = shelf_adapter:ShelfPlatform\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shelf_adapter")
    assert "shelf" in registry.kinds()
    platform = registry.build("cellar", "shelf", {"root": str(tmp_path), "capacity_mib": "64"})
    assert [(pool.name, pool.capacity_mib) for pool in platform.pools()] == [("shelf", 64)]
    assert platform.settings() == {"root": str(tmp_path), "capacity_mib": "64"}
