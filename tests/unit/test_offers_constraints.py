"""Marathon's constraints, operator by operator, and what agents say of themselves as text."""

from __future__ import annotations

import pytest

from offers.ask import Constraint
from offers.constraints import Groups, attribute_text, offer_field, peer_field, peer_of, rule
from offers.records import Attribute, Items, Range, Ranges, Scalar, Value
from offers.tally import Refusal
from storage.errors import Invalid
from tests.offering import simple


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2"), (2.5, "2.5"), (0.0625, "0.062"), (0.1875, "0.188"), (0.0004, "0"), (1234.5, "1234.5"), (-0.0001, "0")]
)
def test_a_scalar_is_written_with_three_decimals_at_most_and_halves_to_even(value: float, text: str) -> None:
    assert attribute_text(Attribute(name="x", type="SCALAR", scalar=Scalar(value))) == text


def test_texts_ranges_and_sets_are_written_as_mesos_formats_them() -> None:
    assert attribute_text(Attribute(name="x", text=Value("rack-1"))) == "rack-1"
    assert attribute_text(Attribute(name="x", type="RANGES", ranges=Ranges((Range(5, 9), Range(1, 2))))) == "[1-2,5-9]"
    assert attribute_text(Attribute(name="x", type="SET", set=Items(("b", "a")))) == "{a,b}"


def test_fields_are_the_hostname_the_fault_domain_or_an_attribute() -> None:
    offer = simple("1", agent="a1", zone="z1", region="r1", attributes={"rack": "x"})
    fields = ("hostname", "@hostname", "@region", "@zone", "rack", "floor")
    wanted = ["a1.example", "a1.example", "r1", "z1", "x", None]
    assert [offer_field(offer, field) for field in fields] == wanted
    assert [peer_field(peer_of(offer), field) for field in fields] == wanted
    assert offer_field(simple("1"), "@zone") is None


def refused(operator: str, wanted: str | None, value: str | None, *placed: str | None) -> Refusal | None:
    return rule(Constraint(field="rack", operator=operator, value=wanted)).refuses(value, Groups(placed))


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "placed", "fits"),
    [
        ("UNIQUE", None, "a", (), True),
        ("UNIQUE", None, "a", ("b", None), True),
        ("UNIQUE", None, "a", ("a",), False),
        ("CLUSTER", None, "a", (), True),
        ("CLUSTER", None, "a", ("a", "a"), True),
        ("CLUSTER", None, "a", ("b",), False),
        ("CLUSTER", None, "a", (None,), False),
        ("CLUSTER", "", "a", ("b",), False),
        ("CLUSTER", "a", "a", ("b",), True),
        ("CLUSTER", "a", "b", (), False),
        ("GROUP_BY", None, "a", (), True),
        ("GROUP_BY", None, "a", ("a",), True),
        ("GROUP_BY", "2", "a", ("a",), False),
        ("GROUP_BY", "2", "b", ("a",), True),
        ("GROUP_BY", "2", "a", ("a", "b"), True),
        ("GROUP_BY", "2", "a", ("a", "a", "b"), False),
        ("GROUP_BY", "2", "b", ("a", "a", "b"), True),
        ("GROUP_BY", "many", "a", ("a",), True),
        ("GROUP_BY", None, "a", ("a", "a", None), False),
        ("LIKE", "rack-[1-3]", "rack-2", (), True),
        ("LIKE", "rack-[1-3]", "rack-22", (), False),
        ("UNLIKE", "rack-[1-3]", "rack-2", (), False),
        ("UNLIKE", "rack-[1-3]", "rack-22", (), True),
        ("MAX_PER", "2", "a", ("a", "b", "b"), True),
        ("MAX_PER", "2", "b", ("a", "b", "b"), False),
        ("IS", "a", "a", ("b",), True),
        ("IS", "a", "b", (), False),
    ],
)
def test_what_each_operator_accepts(operator: str, wanted: str | None, value: str, placed: tuple[str | None, ...], fits: bool) -> None:
    assert refused(operator, wanted, value, *placed) == (None if fits else Refusal[operator])
    assert refused(operator.lower(), wanted, value, *placed) == (None if fits else Refusal[operator])


@pytest.mark.parametrize("operator", ["UNIQUE", "CLUSTER", "GROUP_BY", "LIKE", "UNLIKE", "MAX_PER", "IS"])
def test_without_the_attribute_only_unlike_accepts(operator: str) -> None:
    assert refused(operator, "1", None) == (None if operator == "UNLIKE" else Refusal.ATTRIBUTE)


@pytest.mark.parametrize(
    ("operator", "value", "words"),
    [
        ("NEAR", "x", "one of UNIQUE, CLUSTER"),
        ("LIKE", None, "needs a value"),
        ("UNLIKE", "", "needs a value"),
        ("IS", None, "needs a value"),
        ("MAX_PER", "two", "whole number"),
        ("LIKE", "(", "no regular expression"),
    ],
)
def test_a_constraint_that_means_nothing_is_refused(operator: str, value: str | None, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        Constraint(field="rack", operator=operator, value=value)
