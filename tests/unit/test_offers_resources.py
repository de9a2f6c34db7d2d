"""Resource arithmetic: what may be used, what is given, and in which form it goes back."""

from __future__ import annotations

from typing import Any

import pytest

from offers.records import Resource
from offers.resources import PortLot, accepts, is_plain, merged, serves, to_milli, usable
from tests.offering import Json, decoded, offer_json, ports, reserved, scalar


def resource(line: Json) -> Resource:
    return decoded(offer_json("1", [line]))[0].resources[0]


def test_amounts_are_thousandths_as_in_mesos() -> None:
    assert [to_milli(value) for value in (0.1 + 0.2, 1.0005, 0.0004, 4096.0)] == [300, 1001, 0, 4_096_000]


@pytest.mark.parametrize(
    ("more", "plain"),
    [
        ({}, True),
        ({"disk": {}}, True),
        ({"disk": {"source": {"type": "MOUNT"}}}, False),
        ({"disk": {"persistence": {"id": "x"}, "volume": {"mode": "RW"}}}, False),
        ({"revocable": {}}, False),
        ({"shared": {}}, False),
        ({"provider_id": {"value": "p"}}, False),
        ({"reservations": reserved("polly", "DYNAMIC", principal="p")}, True),
        ({"reservations": reserved("polly", "DYNAMIC", labels={"labels": []})}, False),
        ({"role": "polly", "reservation": {"labels": {"labels": []}}}, False),
    ],
)
def test_only_plain_resources_are_used(more: Json, plain: bool) -> None:
    assert is_plain(resource(scalar("disk", 1, **more))) is plain


@pytest.mark.parametrize(
    ("owner", "role", "serving"),
    [("*", "a/b", True), ("a/b", "a/b", True), ("a", "a/b", True), ("a/b/c", "a/b", False), ("a", "ab", False), ("b", "a/b", False)],
)
def test_a_reservation_serves_its_role_and_the_roles_below(owner: str, role: str, serving: bool) -> None:
    assert serves(owner, role) is serving


@pytest.mark.parametrize(
    ("accepted", "owner", "yes"),
    [
        (None, "*", True),
        (None, "a", True),
        ({"*"}, "*", True),
        ({"*"}, "a/b", False),
        ({"a/b"}, "*", False),
        ({"a/b"}, "a/b", True),
        ({"a/b"}, "a", True),
        ({"a"}, "a/b", False),
    ],
)
def test_accepted_roles_choose_between_reserved_and_unreserved(accepted: set[str] | None, owner: str, yes: bool) -> None:
    assert accepts(None if accepted is None else frozenset(accepted), owner, "a/b") is yes


def test_a_resource_that_was_allocated_to_another_role_is_not_used() -> None:
    assert usable(resource(scalar("cpus", 1, "polly")), "polly")
    assert not usable(resource(scalar("cpus", 1, "other")), "polly")


def test_ranges_are_merged_where_they_touch_or_overlap() -> None:
    assert merged([(5, 6), (1, 2), (3, 3), (6, 9), (11, 11)]) == [(1, 3), (5, 9), (11, 11)]
    assert merged([]) == []


def port_lot(*ranges: tuple[int, int]) -> PortLot:
    return PortLot(resource(ports(*ranges)))


def test_a_port_is_taken_out_of_the_middle_of_a_range() -> None:
    lot = port_lot((1, 3), (7, 7))
    lot.remove(2)
    lot.remove(7)
    assert (lot.ranges, lot.left) == ([(1, 1), (3, 3)], 2)
    assert [lot.at(index) for index in range(2)] == [1, 3]
    with pytest.raises(IndexError):
        lot.at(2)


def test_taken_ports_are_written_as_few_ranges() -> None:
    written: Any = port_lot((1, 9)).taken([4, 2, 3, 8])
    assert written == {
        "name": "ports",
        "type": "RANGES",
        "allocation_info": {"role": "polly"},
        "ranges": {"range": [{"begin": 2, "end": 4}, {"begin": 8, "end": 8}]},
    }
