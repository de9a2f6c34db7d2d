"""The simulated PowerMax array stands for a real one only because clients that are not ours work with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.powermax.arena import renewed
from tests.peers import powermax as peer
from tests.peers.powermax_unisphere import Unisphere

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powermax")]


@pytest.fixture
def front(powermax: Unisphere) -> Unisphere:
    """Small pages, so that the clients have to turn them."""
    found = renewed(powermax)
    found.page_size = 3
    return found


def is_clean(front: Unisphere) -> bool:
    array = front.array
    return not (array.volumes or array.groups or array.views or array.hosts or array.snapshots)


def test_dells_own_sdk_works_with_the_array(front: Unisphere) -> None:
    seen = peer.run("powermax_sdk", front)

    assert seen["version"] == ["V10.4.0.5", "104"]
    assert (seen["size_gib"], seen["lun"], seen["owner"]) == (2.0, 1, "sdk-host")
    assert (seen["listed"], seen["same_name"]) == (5, 4), "a list of two pages is not whole, or names are unique"
    assert seen["portal"] == [["192.168.7.1"], "iqn.1992-04.com.emc:600009700bca30c01e3e012e00000001"]
    assert seen["view"] == ["sdk-group", ["sdk-view"]]
    assert (seen["srp"], "Diamond" in seen["levels"]) == (10.0, True)
    snapshots = seen["snapshots"]
    assert (snapshots["licensed"], snapshots["linked"], snapshots["left"]) == (True, True, [])
    assert (snapshots["generations"], snapshots["names"]) == ([0, 1], ["sdk-named", "sdk-snap"])
    assert "has linked targets" in snapshots["refused"]
    words = {"twice": "already exists", "kept": "is a member of the storage group", "last": "The last device", "gone": "not found"}
    assert [case for case, said in words.items() if said not in seen["refusals"][case]] == []
    assert seen["left"] == []
    assert is_clean(front)
    assert not front.array.port_groups.keys() - {"polly-iscsi", "polly-fc"}


@pytest.mark.parametrize(("version", "spoken"), [("V10.4.0.5", "100"), ("V9.2.4.1", "92")])
def test_cinders_client_works_with_the_array(front: Unisphere, version: str, spoken: str) -> None:
    front.version, front.page_size = version, 1
    seen = peer.run("powermax_cinder", front)

    assert seen["version"] == spoken
    assert (seen["size_gib"], seen["lun"], seen["owner"]) == (2.0, 1, "OS-HostX-I-IG")
    assert (seen["listed"], seen["found"]) == (["00001", "00002"], None)
    assert "prior to delete" in seen["refusals"]["kept"]
    assert "The last device" in seen["refusals"]["last"]
    snapshots = seen["snapshots"]
    assert (snapshots["licensed"], snapshots["source"], snapshots["linked"]) == (True, [False, True], [True])
    assert snapshots["target"] == [[], True, "OS-snap", True]
    assert (snapshots["names"], snapshots["left"]) == (["OS-renamed"], [])
    assert "has linked targets" in snapshots["refused"]
    assert is_clean(front)


def test_answers_have_the_shapes_that_cinders_tests_keep(front: Unisphere) -> None:
    seen = peer.run("powermax_cinder", front)

    shapes = {**seen["shapes"], "snapshots": seen["snapshots"]["shape"]}
    assert len(shapes) == 12
    assert {kind: found for kind, (kept, answered) in shapes.items() if (found := differences(kept, answered))} == {}


def test_a_shape_that_differs_is_seen() -> None:
    kept = [{"id": "1", "cap_gb": 8, "snapvx_source": "false", "hosts": [{"name": "a"}]}]

    assert differences(kept, [{"id": "2", "cap_gb": 1.5, "snapvx_source": True, "hosts": []}]) == []
    assert differences(kept, [{"id": 2, "cap_gb": "1.5", "hosts": [{}]}]) == [
        "[].id is int, not str",
        "[].cap_gb is str, not int",
        "[] lacks snapvx_source",
        "[].hosts[] lacks name",
    ]


def differences(kept: Any, answered: Any, where: str = "") -> list[str]:
    """What of a kept answer an answer of the array lacks, or has with another type. None may stand for anything."""
    if kept is None or answered is None or _are_alike(kept, answered):
        return []
    if type(kept) is not type(answered):
        return [f"{where} is {type(answered).__name__}, not {type(kept).__name__}"]
    if isinstance(kept, dict):
        found = []
        for key in kept:
            found += differences(kept[key], answered[key], f"{where}.{key}") if key in answered else [f"{where} lacks {key}"]
        return found
    if isinstance(kept, list) and kept and answered:
        return [one for item in answered for one in differences(kept[0], item, f"{where}[]")]
    return []


def _are_alike(kept: Any, answered: Any) -> bool:
    """Cinder keeps some numbers without their fraction, and some truths as words."""
    if isinstance(answered, bool):
        return isinstance(kept, bool) or kept in ("true", "false")
    return isinstance(kept, (int, float)) and not isinstance(kept, bool) and isinstance(answered, (int, float))
