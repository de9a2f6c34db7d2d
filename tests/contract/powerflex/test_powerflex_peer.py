"""The simulated PowerFlex array stands for a real one only because clients that are not ours work with it, in both generations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers import powerflex
from tests.peers.powerflex_gateway import Gateway, serving

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerflex")]
GRANULE_KB = 8 << 20


@pytest.fixture(scope="module", params=["3.6", "4.5"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(tmp_path_factory.mktemp("powerflex"), request.param) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def cinder(gateway: Gateway) -> dict[str, Any]:
    """What Cinder's client saw."""
    return powerflex.run("powerflex_cinder", gateway)


def test_dells_own_sdk_works_with_the_array(gateway: Gateway) -> None:
    seen = powerflex.run("powerflex_sdk", gateway)

    version = gateway.array.version
    assert (seen["version"], seen["component"]) == (version, f"{version}.100")
    assert seen["sizes"] == [2 * GRANULE_KB, 3 * GRANULE_KB], "sizes are not rounded up to 8 GiB"
    assert seen["holders"] == [[next(iter(gateway.array.sdcs))], []]
    assert seen["attached"]
    assert seen["ancestors"] == [True, None], "a snapshot does not go to its ancestor's ancestor when that is removed"
    assert seen["names"] == ["sdk-volume", "sdk-snapshot", "sdk-renamed"]
    assert seen["statistics"]["netUnusedCapacityInKb"] == gateway.array.pools["6c6dc54500000000"].net_kb
    assert (seen["left"], gateway.array.volumes) == ([], {})
    newer = version >= "4.0"
    codes = {"taken": 99, "elsewhere": 297, "twice": 4037 if newer else 81, "kept": 104, "shrunk": 133, "again": 4039 if newer else 84}
    for case, code in {**codes, "gone": 79}.items():
        assert f"'errorCode': {code}" in seen["refusals"][case], f"{case} is refused with another code"


def test_cinders_client_works_with_the_array(gateway: Gateway, cinder: dict[str, Any]) -> None:
    seen = cinder
    assert (seen["kind"], seen["version"]) == ("Mirroring", gateway.array.version)
    assert seen["tree"] == [3, True], "a snapshot and its copy are not in the tree of their volume"
    assert seen["mapped"] == [True, []]
    assert seen["limits"] == [5000, 10]
    assert seen["safe"] == [True, False], "zero padding is not said"
    assert seen["stats"] == [64 << 10, 64 << 10, 0]
    assert seen["too_many"] == 126
    assert gateway.array.volumes == {}
    assert gateway.calls["login"] >= 1


def test_answers_have_the_shapes_that_cinders_tests_keep(cinder: dict[str, Any]) -> None:
    answers = {"sdc_instances": cinder["sdcs"], "sdc_by_id": cinder["sdc"], "sdc_volumes": cinder["volumes"]}
    assert len(answers["sdc_instances"]) == 4
    assert [len(one["mappedSdcInfo"]) for one in answers["sdc_volumes"]] == [1]
    for kept, answered in answers.items():
        assert differences(cinder["fixtures"][f"query_{kept}_response"], answered) == [], f"answers differ from query_{kept}"


def test_a_shape_that_differs_is_seen() -> None:
    kept = [{"id": "1", "sizeInKb": 8, "mappedSdcInfo": [{"sdcId": "2"}]}]

    assert differences(kept, [{"id": "3", "sizeInKb": 9, "mappedSdcInfo": None}]) == []
    assert differences(kept, [{"id": "3", "sizeInKb": "9", "mappedSdcInfo": [{}]}]) == [
        "[].sizeInKb is str, not int",
        "[].mappedSdcInfo[] lacks sdcId",
    ]


def differences(kept: Any, answered: Any, where: str = "") -> list[str]:
    """What of a kept answer an answer of the array lacks, or has with another type. None may stand for anything."""
    if kept is None or answered is None:
        return []
    if type(kept) is not type(answered):
        return [f"{where} is {type(answered).__name__}, not {type(kept).__name__}"]
    if isinstance(kept, dict):
        lacking = [f"{where} lacks {key}" for key in kept if key not in answered]
        return lacking + [one for key in kept if key in answered for one in differences(kept[key], answered[key], f"{where}.{key}")]
    if isinstance(kept, list) and kept and answered:
        return [one for item in answered for one in differences(kept[0], item, f"{where}[]")]
    return []
