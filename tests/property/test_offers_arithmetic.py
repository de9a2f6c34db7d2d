"""Resource arithmetic and the search for pools, against the plainest way to say what they must do."""

from __future__ import annotations

from itertools import pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from offers.constraints import attribute_text
from offers.planning import Plan, plan
from offers.records import Attribute, Resource, Scalar
from offers.resources import Json, Lot, PortLot, carve, from_milli, merged, take_ports, to_milli
from offers.rooms import Agent
from offers.supply import Supply, Wanted
from offers.view import PlatformView, StorageView
from storage.model import Pool, Sizes
from tests.offering import amounts, decoded, offer_json, ports, scalar, simple

quick = settings(max_examples=150)
ranges = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=5)


def numbers(parts: list[tuple[int, int]]) -> set[int]:
    return {number for begin, end in parts for number in range(begin, end + 1)}


def line(raw: Json) -> Resource:
    return decoded(offer_json("1", [raw]))[0].resources[0]


@quick
@given(ranges)
def test_merged_ranges_hold_the_same_numbers_sorted_and_apart(parts: list[tuple[int, int]]) -> None:
    made = merged(parts)
    assert numbers(made) == numbers(parts)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(made))


@quick
@given(st.integers(0, 10**9))
def test_thousandths_survive_the_way_through_a_float(milli: int) -> None:
    assert to_milli(from_milli(milli)) == milli


@quick
@given(st.floats(0, 1e6))
def test_a_scalar_as_text_has_three_decimals_at_most_and_is_near(value: float) -> None:
    text = attribute_text(Attribute(name="x", type="SCALAR", scalar=Scalar(value)))
    assert len(text.partition(".")[2]) <= 3
    assert not text.endswith((".", "-0"))
    assert abs(float(text) - value) <= 0.0005 + value * 1e-12


@quick
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=4), st.data())
def test_what_is_carved_and_what_is_left_add_up_to_what_was_there(lots: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, sum(lots)))
    made = [Lot(line(scalar("cpus", from_milli(left)))) for left in lots]
    taken: list[Json] = []
    carve(made, wanted, None, "polly", taken)
    assert sum(amounts(taken).values()) == wanted
    assert sum(lot.left for lot in made) == sum(lots) - wanted
    assert all(0 <= lot.left <= was for lot, was in zip(made, lots, strict=True))


@quick
@given(st.lists(ranges, min_size=1, max_size=2), st.data())
def test_ports_are_given_once_each_out_of_what_was_there(parts: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    there: set[int] = set()
    lots = []
    for part in parts:
        own = numbers(part) - there
        there |= own
        lots.append(PortLot(line(ports(*merged([(port, port) for port in own])))))
    exact = data.draw(st.sets(st.sampled_from(sorted(there)), max_size=2)) if there else set()
    free = data.draw(st.integers(0, len(there) - len(exact)))
    wanted = data.draw(st.permutations([*exact, *[0] * free]))
    given_ports, written = take_ports(lots, wanted, frozenset(exact), data.draw(st.integers(0, 99)))
    assert len(set(given_ports)) == len(given_ports) == len(wanted)
    assert set(given_ports) <= there
    assert all(port == want for port, want in zip(given_ports, wanted, strict=True) if want)
    assert {int(name.removeprefix("port ")) for name, _ in amounts(written)} == set(given_ports)
    assert {port for lot in lots for begin, end in lot.ranges for port in range(begin, end + 1)} == there - set(given_ports)
    assert sum(lot.left for lot in lots) == len(there) - len(given_ports)


@quick
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 12), st.sampled_from(["", "r"])), min_size=1, max_size=4),
    st.integers(0, 16),
    st.lists(st.tuples(st.integers(1, 8), st.sampled_from([(), ("a",), ("b",)])), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 3)),
    st.sampled_from([1, 3]),
)
def test_a_plan_is_found_whenever_there_is_one(
    pools: list[tuple[str, int, str]], room_mib: int, wishes: list[tuple[int, tuple[str, ...]]], slots: dict[str, int], grain: int
) -> None:
    made = tuple(
        Pool(platform=platform, name=f"p{number}", capacity_mib=size, room=room, room_capacity_mib=room_mib)
        for number, (platform, size, room) in enumerate(pools)
    )
    view = StorageView(pools=made, platforms={"a": PlatformView(name="a", sizes_in=lambda *_: Sizes(granularity_mib=grain))})
    vantage = Supply(view).vantage(Agent(simple("1")))
    needs = [Wanted(size, None, platforms) for size, platforms in wishes]
    found = plan(needs, vantage, slots)
    ways = [way for way in product(made, repeat=len(needs)) if fits(view, needs, way, slots)]
    assert isinstance(found, Plan) == bool(ways)
    if isinstance(found, Plan):
        assert fits(view, needs, tuple(stock.pool for stock, _ in found.chosen), slots)


def rounded(view: StorageView, pool: Pool, size_mib: int) -> int:
    sizes = view.platform(pool.platform).sizes(None, pool)
    assert sizes is not None
    return sizes.rounded(size_mib)


def fits(view: StorageView, needs: list[Wanted], way: tuple[Pool, ...], slots: dict[str, int]) -> bool:
    free = {("", pool.name): pool.free_mib for pool in way}
    free |= {(pool.platform, pool.room): pool.room_free_mib for pool in way if pool.room}
    left = dict(slots)
    for need, pool in zip(needs, way, strict=True):
        for key in [("", pool.name), (pool.platform, pool.room)][: 2 if pool.room else 1]:
            free[key] -= rounded(view, pool, need.size_mib)
        left[pool.platform] = left.get(pool.platform, 99) - 1
        if need.platforms and pool.platform not in need.platforms:
            return False
    return min(free.values()) >= 0 and min(left.values(), default=0) >= 0
