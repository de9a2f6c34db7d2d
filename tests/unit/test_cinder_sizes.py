"""The sizes that Cinder's volume types may have: known to placing where an administrator's rights show them, else refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import Invalid, UnknownPool
from storage.platforms.base import CreateRequest
from storage.platforms.cinder import CinderPlatform
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.options import CinderOptions

GIB = 1024
TYPES = [
    {"name": "plain"},
    {"name": "bulk", "extra_specs": {"provisioning:min_vol_size": "100", "provisioning:max_vol_size": "2000", "thin": "true"}},
    {"name": "odd", "extra_specs": {"provisioning:min_vol_size": "large"}},
]


class Told:
    """What is asked of Cinder when pools are looked at."""

    def project(self, action: str) -> str:
        return "p1"

    def get(self, path: str, **more: Any) -> dict[str, Any]:
        answers: dict[str, dict[str, Any]] = {
            "/os-quota-sets/p1": {"quota_set": {}},
            "/types": {"volume_types": TYPES},
            "/os-availability-zone": {"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]},
        }
        return answers[path]


@pytest.fixture
def cinder() -> CinderPlatform:
    platform = CinderPlatform("cloud", CinderOptions())
    platform._pooling._client = Told()  # type: ignore[attr-defined]  # that of types has one
    return platform


def test_types_tell_their_sizes_once_pools_were_looked_at(cinder: CinderPlatform) -> None:
    assert cinder.fit(10 * GIB, {}, pool="nova/bulk") == 10 * GIB, "nobody has looked yet"
    cinder._pooling.reports([])
    assert [cinder.fit(10 * GIB + 1, {}, pool=f"nova/{kind}") // GIB for kind in ("plain", "bulk", "odd")] == [11, 100, 11]
    with pytest.raises(Invalid, match="a volume of volume type bulk has at most 2048000 MiB"):
        cinder.fit(2001 * GIB, {}, pool="nova/bulk")
    assert cinder.fit(2001 * GIB, {}, pool="nova/plain") == cinder.fit(2001 * GIB, {}) == 2001 * GIB


def test_a_type_is_placed_in_no_pool_of_another(cinder: CinderPlatform) -> None:
    with pytest.raises(Invalid, match=r"parameters\.type is 'bulk': the pool says the volume type, plain"):
        cinder.sizes({"type": "bulk"}, pool="nova/plain")
    with pytest.raises(UnknownPool):
        cinder.sizes({}, pool="nova")


def test_a_size_that_cinder_refuses_for_its_type_is_no_missing_pool(cinder: CinderPlatform) -> None:
    words = "Invalid input received: Specified volume size of '10' is less than the minimum required size of '100' for volume type 'bulk'."
    request = CreateRequest(pool="nova/bulk", size_mib=10 * GIB, token="t")
    place = cinder._pooling.place(request.pool, {})
    error = cinder._making._refused(Refusal(400, words), request, place, request.size_mib)
    assert isinstance(error, Invalid)
    assert (error.fields["field"], error.fields["value"]) == ("size_mib", 10 * GIB)
    assert "minimum required size of '100'" in str(error)
