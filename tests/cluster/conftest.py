"""A whole Polly on a real Mesos for each test that asks, gone when the test ends."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.ebs_cloud import CREDENTIALS, REGION, ZONE, Cloud, running_cloud
from tests.cluster.mesos_cluster import AgentSpec, MesosCluster
from tests.cluster.rig import Rig
from tests.cluster.warm import WarmPython
from tests.peers import ec2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the soaks, the longest by far: begun last, one would keep a single worker at work when all else is done."""
    items.sort(key=lambda item: "under_random_kills" not in item.name)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Where tasks of other users may go; pytest's own folders are root's, whatever a test makes of them while others run."""
    with tempfile.TemporaryDirectory(prefix="polly-public-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython]:
    with WarmPython() as python:
        yield python


@pytest.fixture
def make_rig(mesos: Callable[..., MesosCluster], tmp_path: Path, warm: WarmPython) -> Iterator[Callable[..., Rig]]:
    """Starts a cluster of `agents` with MesosCluster's options; `settings` are blocks of polly.toml. The broker is the test's to start."""
    made: list[Rig] = []

    def make(
        agents: int | Sequence[AgentSpec] = 1, *, settings: Mapping[str, Any] | None = None, database: str = "", **options: Any
    ) -> Rig:
        rig = Rig(mesos(agents, **options), tmp_path / "polly", settings=settings, database=database, start=warm.start)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.stop()


@pytest.fixture(scope="session")
def moto() -> None:
    """Runs before the first test of it looks at what there is, and stays."""
    ec2.emptied()


@pytest.fixture
def cloud(request: pytest.FixtureRequest, moto: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """EC2 with two instances, or as many as its parameter says, for `make_ebs`."""
    monkeypatch.setenv(CREDENTIALS, str(tmp_path / "credentials"))  # the broker's
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    machines = getattr(request, "param", 2)
    with running_cloud(tmp_path / "credentials", tmp_path / "polly" / "images", machines=machines) as found:
        yield found


@pytest.fixture
def make_ebs(cloud: Cloud, make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """A rig whose platform is the cloud, attached by "executor" or "broker"; in the latter case agents have no credentials."""

    def make(attach_by: str, *, settings: Mapping[str, Any] | None = None, **options: Any) -> Rig:
        blocks = {"platforms.disks": cloud.platform(attach_by), **(settings or {})}
        return make_rig(cloud.agents(credentials=attach_by == "executor"), settings=blocks, region=REGION, zone=ZONE, **options)

    return make
