"""Fixtures for all tests: ledgers on both databases, real servers, and the watch for what a test leaves behind.

A test that this machine cannot run is left out with its reason, which the last lines of the run repeat; with
POLLY_TEST_ALL=1 it fails instead, so that a run of everything cannot hide a missing program.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from tests import leaks
from tests.cluster.mesos_cluster import MesosCluster
from tests.cluster.mesos_install import Installed
from tests.cluster.mesos_install import install as install_mesos
from tests.servers import Missing, Postgres, ZooKeeper
from tests.support import eventually

SETTLE_S = 3.0
LONGEST_GROUPS = (
    "cinder",
    "guest",
    "virtualbox",
    "virtualbox-cli",
    "ebs-soak",
    "ebs",
    "powermax",
    "gce",
    "powerscale",
    "xtremio",
    "powerflex",
)
"""Groups of tests that one worker runs, the longest first."""

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_servers: set[int] = set()


def belongs_to_the_session(pid: int) -> None:
    """A server that outlives the test that started it; what it starts is its own."""
    _servers.add(pid)


def leave_out(reason: str) -> NoReturn:
    """Leaves the running test out, or fails it where everything must run."""
    if os.environ.get("POLLY_TEST_ALL") == "1":
        pytest.fail(f"not to be left out here: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(trylast=True)  # after any other order, which holds within a group
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the longest groups: begun late, one would keep a single worker at work when all else is done."""
    places = {group: place for place, group in enumerate(LONGEST_GROUPS)}
    items.sort(key=lambda item: places.get(_group(item), len(places)))


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        leave_out("needs root, for loop devices, mounts and namespaces")
    if item.get_closest_marker("cluster"):
        if platform.machine() != "x86_64":
            leave_out("needs an x86-64 machine, for which Apache Mesos is published")
        if absent := [program for program in ("g++", "gcc", "nm") if not shutil.which(program)]:
            leave_out(f"needs {', '.join(absent)} (Debian: g++, binutils), to build Mesos' launcher")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    if left_out:
        terminalreporter.section("left out")
        for reason, number in sorted(left_out.items()):
            terminalreporter.line(f"{number} tests: {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for the session."""
    try:
        server = Postgres()
    except Missing as missing:
        leave_out(f"needs {missing}")
    try:
        server.start()
        if server.pid:
            belongs_to_the_session(server.pid)
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgresql_url(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy's URL of an empty PostgreSQL database that only this test uses."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """SQLAlchemy's URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest) -> str:
    """An empty database for a ledger: each test that asks for it runs on SQLite and on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def zookeeper() -> Iterator[ZooKeeper]:
    """A ZooKeeper server of this test's own: `.address`, and `.kill()` and `.start()` to lose it and have it back."""
    try:
        server = ZooKeeper()
    except Missing as missing:
        leave_out(f"needs {missing}")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def mesos(tmp_path: Path) -> Iterator[Callable[..., MesosCluster]]:
    """Starts a real Mesos cluster, with MesosCluster's arguments, that ends with the test."""
    clusters: list[MesosCluster] = []

    def start(*arguments: object, **options: object) -> MesosCluster:
        # arguments as they come
        cluster = MesosCluster(*arguments, **({"folder": tmp_path / f"mesos{len(clusters)}"} | options))  # type: ignore[arg-type]
        clusters.append(cluster)
        return cluster.start()

    yield start
    for cluster in clusters:
        cluster.stop()


@pytest.fixture(scope="session")
def mesos_installed() -> Installed:
    """Makes sure that the default version of Mesos is built before a test's clock runs."""
    return install_mesos()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that needs root and leaves loop devices, mounts or processes."""
    if not request.node.get_closest_marker("root"):
        yield
        return
    folder: Path = request.getfixturevalue("tmp_path")
    before = leaks.traces(folder, frozenset(_servers))
    yield
    try:
        eventually(lambda: not leaks.traces(folder, frozenset(_servers)).since(before), SETTLE_S, "the test's traces go")
    except TimeoutError:
        now = leaks.traces(folder, frozenset(_servers))
        leaks.kill_left(now, before)
        pytest.fail("\n".join(now.since(before)), pytrace=False)
