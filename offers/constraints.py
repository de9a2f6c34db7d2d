"""Marathon's constraints: what an agent says of itself as text, who of a workload is where, and what each operator accepts.

Where an agent lacks the field, only UNLIKE accepts it. GROUP_BY accepts a value that no peer has, and the smallest group
once as many groups as asked were seen; so it alone can accept later what it refused before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from offers.ask import Constraint, Operator, Peer
from offers.records import Attribute, Offer
from offers.tally import Refusal

FIXED = frozenset({Operator.LIKE, Operator.UNLIKE, Operator.IS})
"""Operators that look at the agent alone, never at the peers."""


def attribute_text(attribute: Attribute) -> str:
    """Text as it is, a scalar as 0.### with halves to even, ranges as `[1-2,5-9]`, a set as `{a,b}`."""
    if attribute.scalar is not None:
        text = f"{attribute.scalar.value:.3f}".rstrip("0").rstrip(".")
        return "0" if text == "-0" else text
    if attribute.ranges is not None:
        parts = sorted((part.begin, part.end) for part in attribute.ranges.range)
        return "[" + ",".join(f"{begin}-{end}" for begin, end in parts) + "]"
    if attribute.set is not None:
        return "{" + ",".join(sorted(attribute.set.item)) + "}"
    return attribute.text.value if attribute.text is not None else ""


def offer_field(offer: Offer, field: str) -> str | None:
    """What the offer's agent says for a constraint's field; None where it says nothing. The first of equally named attributes counts."""
    if field in _OFFER_FIELDS:
        return _OFFER_FIELDS[field](offer) or None
    for attribute in offer.attributes:
        if attribute.name == field:
            return attribute_text(attribute)
    return None


def attribute_texts(offer: Offer) -> Mapping[str, str]:
    """All attributes of the offer's agent as text. The first of equally named ones counts, as in `offer_field`."""
    texts: dict[str, str] = {}
    for attribute in offer.attributes:
        texts.setdefault(attribute.name, attribute_text(attribute))
    return texts


def peer_field(peer: Peer, field: str) -> str | None:
    if field in _PEER_FIELDS:
        return _PEER_FIELDS[field](peer) or None
    return peer.attributes.get(field)


_OFFER_FIELDS: Mapping[str, Callable[[Offer], str]] = {
    "hostname": lambda offer: offer.hostname,
    "@hostname": lambda offer: offer.hostname,
    "@region": lambda offer: offer.region,
    "@zone": lambda offer: offer.zone,
}
_PEER_FIELDS: Mapping[str, Callable[[Peer], str]] = {
    "hostname": lambda peer: peer.hostname,
    "@hostname": lambda peer: peer.hostname,
    "@region": lambda peer: peer.region,
    "@zone": lambda peer: peer.zone,
}


def peer_of(offer: Offer) -> Peer:
    """What must be remembered of the agent of a placed instance, so that it counts as a peer from now on."""
    return Peer(agent_id=offer.agent_id, hostname=offer.hostname, region=offer.region, zone=offer.zone, attributes=attribute_texts(offer))


class Groups:
    """How many instances of one workload there are for each value of one field; None stands for those without a value."""

    __slots__ = ("_smallest", "counts", "first")

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self.counts: Counter[str | None] = Counter()
        self.first: str | None = None
        self._smallest = 0
        for value in values:
            self.add(value)

    def add(self, value: str | None) -> None:
        if not self.counts:
            self.first = value
        self.counts[value] += 1
        self._smallest = 0

    @property
    def smallest(self) -> int:
        """How many instances the smallest group has; there is at least one group."""
        self._smallest = self._smallest or min(self.counts.values())
        return self._smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One constraint, ready to be asked often."""

    constraint: Constraint
    wanted: str
    number: int
    """The value as a number: how many per group for MAX_PER, how many groups for GROUP_BY."""
    pattern: re.Pattern[str] | None
    refusal: Refusal
    moving: bool
    """Whether it looks at the peers."""

    def refuses(self, value: str | None, groups: Groups) -> Refusal | None:
        """Why an agent with this value is refused to one more instance, if it is."""
        operator = self.constraint.operator
        if value is None:
            return None if operator is Operator.UNLIKE else Refusal.ATTRIBUTE
        return None if _ACCEPTS[Operator(operator)](self, value, groups) else self.refusal


def rule(constraint: Constraint) -> Rule:
    operator = Operator(constraint.operator)
    wanted = constraint.value or ""
    return Rule(
        constraint=constraint,
        wanted=wanted,
        number=_number(wanted),
        pattern=re.compile(wanted) if operator in (Operator.LIKE, Operator.UNLIKE) else None,
        refusal=Refusal[operator.name],
        moving=operator not in FIXED and not (operator is Operator.CLUSTER and wanted != ""),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _matches(rule: Rule, value: str) -> bool:
    return rule.pattern is not None and rule.pattern.fullmatch(value) is not None


def _groups_by(rule: Rule, value: str, groups: Groups) -> bool:
    if value not in groups.counts:
        return True
    return len(groups.counts) >= rule.number and groups.counts[value] == groups.smallest


def _clusters(rule: Rule, value: str, groups: Groups) -> bool:
    if rule.wanted:
        return value == rule.wanted
    return not groups.counts or groups.first == value


_ACCEPTS: Mapping[Operator, Callable[[Rule, str, Groups], bool]] = {
    Operator.UNIQUE: lambda rule, value, groups: value not in groups.counts,
    Operator.CLUSTER: _clusters,
    Operator.GROUP_BY: _groups_by,
    Operator.LIKE: lambda rule, value, groups: _matches(rule, value),
    Operator.UNLIKE: lambda rule, value, groups: not _matches(rule, value),
    Operator.MAX_PER: lambda rule, value, groups: groups.counts[value] < rule.number,
    Operator.IS: lambda rule, value, groups: value == rule.wanted,
}
