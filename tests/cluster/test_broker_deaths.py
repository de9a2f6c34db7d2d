"""SIGKILL of the broker before and after each commit, call and acknowledgement of a claim's life. Then the counts must be zero."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import httpx
import pytest

from tests.cluster.rig import Rig, counter

pytestmark = [pytest.mark.cluster, pytest.mark.root]

ON_THE_WAY_UP = [
    "before:put_workload", "after:put_workload",
    "before:place", "after:place",
    "before:ACCEPT", "after:ACCEPT",
    "before:advance:1", "after:advance:1",
    "before:ACKNOWLEDGE:1", "after:ACKNOWLEDGE:1",
    "before:created", "after:created",
    "before:born", "after:born",
    "before:MESSAGE", "after:MESSAGE",
    "before:ACKNOWLEDGE:2", "after:ACKNOWLEDGE:2",
    "before:advance:2", "after:advance:2",
    "before:ACKNOWLEDGE:3",
]  # fmt: skip
ON_THE_WAY_DOWN = ["before:KILL", "after:KILL", "before:free", "after:free", "before:deleting", "after:deleting", "before:deleted"]


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def ends_clean(rig: Rig) -> None:
    """The app goes, and with it all that it had."""
    rig.delete("/counter")
    rig.gone()
    rig.settle()
    rig.nothing_left()


@pytest.mark.parametrize("point", ON_THE_WAY_UP)
def test_a_broker_that_dies_on_the_way_up(rig: Rig, point: str) -> None:
    rig.start_broker(die_at=point)
    with contextlib.suppress(httpx.TransportError):
        rig.run(counter())
    assert rig.died() == -9
    rig.start_broker()
    if point == "before:put_workload":
        assert rig.http.get("/v2/apps/counter").status_code == 404
        rig.run(counter())
    task = rig.running()[0]
    assert rig.count(task["id"]) == 1
    rig.settle()
    assert len(rig.claims()) == 1
    ends_clean(rig)


@pytest.mark.parametrize("point", ON_THE_WAY_DOWN)
def test_a_broker_that_dies_on_the_way_down(rig: Rig, point: str) -> None:
    rig.start_broker(die_at=point)
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    with contextlib.suppress(httpx.TransportError):
        rig.delete("/counter")
    assert rig.died() == -9
    rig.start_broker()
    rig.gone()
    rig.settle()
    rig.nothing_left()


def test_a_second_broker_refuses_and_names_the_first(rig: Rig) -> None:
    rig.start_broker()
    assert rig.process
    first, rig.process = rig.process, None
    rig.start_broker(wait=False)
    assert rig.died() == 5
    said = rig.log.read_text()
    assert f"Another broker (process {first.pid}" in said
    assert "Traceback" not in said
    rig.process = first
    rig.run(counter())
    assert rig.count(rig.running()[0]["id"]) == 1
    ends_clean(rig)
