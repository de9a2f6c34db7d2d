"""The simulated PowerScale cluster stands for a real one only because a client that is not ours, Manila's, works with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.powerscale.arena import renewed
from tests.peers import powerscale as peer
from tests.peers.powerscale_onefs import OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

EITHER = {"workload_id"}
"""Manila's client takes a workload's number as `id` or as this."""


@pytest.fixture(scope="module")
def seen(powerscale: OneFs) -> dict[str, Any]:
    """What Manila's client saw."""
    return peer.run(renewed(powerscale))


def test_manilas_client_makes_every_call_that_it_has(seen: dict[str, Any]) -> None:
    assert seen["uncalled"] == []


def test_folders_quotas_and_exports_are_as_manilas_client_wants_them(seen: dict[str, Any]) -> None:
    shares = seen["shares"]
    assert (shares["made"], shares["there"], shares["missing"]) == (True, [True, False], [None, None, None])
    assert (shares["hard_gib"], shares["advisory"], shares["allocated_gib"]) == (2, True, 2.0)
    assert shares["exported"] == [True, False], "a folder is exported to everybody twice"
    assert shares["clients"] == [["10.0.0.2", "10.0.0.3"], ["10.0.0.1"]]


def test_snapshots_are_copied_file_by_file_and_reverted(seen: dict[str, Any]) -> None:
    snapshots = seen["snapshots"]
    assert (snapshots["again"], snapshots["names"]) == (None, ["manila-snap"])
    assert snapshots["copied"] == [["file", "object"]]
    assert snapshots["exported"] == [True, True]
    assert snapshots["left"] == [True, None, None, True, False]


def test_jobs_take_their_time_and_are_cancelled(seen: dict[str, Any]) -> None:
    assert seen["jobs"] == {"states": ["running", "succeeded"], "cancelled": True, "refused": True}


def test_the_rest_of_manilas_calls_is_answered(seen: dict[str, Any]) -> None:
    others = seen["others"]
    assert (others["version"], others["space"], others["sid"]) == ("9.12.0.0", ["free", "total", "used"], "SID:")
    assert (others["acl"], others["alias"], others["dedupe"]) == (["allow:10.0.0.1"], "/ifs/manila/share", ["/ifs/manila/share"])
    assert (others["schedule"], others["limit"], others["datasets"]) == ("every 1 days", 200, 1)
    assert others["gone"] == [True, True]


def test_a_session_that_has_ended_is_begun_anew(seen: dict[str, Any]) -> None:
    assert seen["again"] == [401, True, True]


def test_nothing_is_left(seen: dict[str, Any], powerscale: OneFs) -> None:
    assert seen["cleared"] == [True, True, False, True]
    cluster = powerscale.cluster
    assert [*cluster.quotas, *cluster.exports, *cluster.snapshots] == []
    assert not cluster.ifs.is_folder("/ifs/manila")


def test_answers_have_the_fields_that_manilas_tests_keep(seen: dict[str, Any]) -> None:
    kept = {kind: fields(items) - EITHER for kind, items in seen["kept"].items() if fields(items)}
    assert len(kept) >= 10
    assert {kind: lacking for kind, wanted in kept.items() if (lacking := wanted - fields(seen["answered"].get(kind, [])))} == {}


def fields(items: list[Any]) -> set[str]:
    return {name for item in items if isinstance(item, dict) for name in item}
