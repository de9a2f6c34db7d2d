"""A whole Polly on a real Mesos for each test that asks, gone when the test ends."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.mesos_cluster import AgentSpec, MesosCluster
from tests.cluster.rig import Rig


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Where tasks of other users may go; pytest's own folders are root's, whatever a test makes of them while others run."""
    with tempfile.TemporaryDirectory(prefix="polly-public-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def make_rig(mesos: Callable[..., MesosCluster], tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Starts a cluster of `agents` with MesosCluster's options; `settings` are blocks of polly.toml. The broker is the test's to start."""
    made: list[Rig] = []

    def make(
        agents: int | Sequence[AgentSpec] = 1, *, settings: Mapping[str, Any] | None = None, database: str = "", **options: Any
    ) -> Rig:
        rig = Rig(mesos(agents, **options), tmp_path / "polly", settings=settings, database=database)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.stop()
