"""What an OFFERS event of Mesos says, as frozen records. Knows the v1 JSON and nothing of what offers are used for.

Field names are Mesos' own. Fields that nobody here reads are skipped while decoding; reservations are
kept whole, because Mesos wants them back unchanged in whatever is made of the offer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from storage.errors import Invalid

UNRESERVED = "*"
Kind = Literal["SCALAR", "RANGES", "SET", "TEXT"]
"""Mesos' Value.Type."""


class Value(msgspec.Struct, frozen=True, gc=False):
    """Mesos' `{"value": ...}` around an id or a text."""

    value: str


class Scalar(msgspec.Struct, frozen=True, gc=False):
    value: float


class Range(msgspec.Struct, frozen=True, gc=False):
    """Both ends belong to it."""

    begin: int
    end: int


class Ranges(msgspec.Struct, frozen=True, gc=False):
    range: tuple[Range, ...] = ()


class Items(msgspec.Struct, frozen=True, gc=False):
    item: tuple[str, ...] = ()


class AllocationInfo(msgspec.Struct, frozen=True, gc=False):
    role: str = UNRESERVED


class Reservation(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One of the reservations that lie on a resource; before 1.4 the only one, without type and role."""

    type: str = ""
    role: str = ""
    principal: str = ""
    labels: dict[str, Any] | None = None


class Resource(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One line of an offer. The newest reservation is the last of `reservations`; `role` and `reservation` are the form before 1.4."""

    name: str
    type: Kind = "SCALAR"
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    set: Items | None = None
    allocation_info: AllocationInfo | None = None
    reservations: tuple[Reservation, ...] = ()
    role: str | None = None
    reservation: Reservation | None = None
    disk: dict[str, Any] | None = None
    revocable: dict[str, Any] | None = None
    shared: dict[str, Any] | None = None
    provider_id: Value | None = None


class Attribute(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    name: str
    type: Kind = "TEXT"
    text: Value | None = None
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    set: Items | None = None


class Name(msgspec.Struct, frozen=True, gc=False):
    name: str = ""


class FaultDomain(msgspec.Struct, frozen=True, gc=False):
    region: Name = Name()
    zone: Name = Name()


class Domain(msgspec.Struct, frozen=True, gc=False):
    fault_domain: FaultDomain = FaultDomain()


class Nanoseconds(msgspec.Struct, frozen=True, gc=False):
    nanoseconds: int


class Unavailability(msgspec.Struct, frozen=True, gc=False):
    """When an operator means to take the agent out of service."""

    start: Nanoseconds
    duration: Nanoseconds | None = None


NOWHERE = Domain()


class Offer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one agent offers to one role."""

    offer: Value = msgspec.field(name="id")
    framework: Value = msgspec.field(name="framework_id")
    agent: Value = msgspec.field(name="agent_id")
    hostname: str
    resources: tuple[Resource, ...] = ()
    attributes_json: msgspec.Raw = msgspec.field(name="attributes", default=msgspec.Raw(b"[]"))
    """As they came: most offers are placed on, or passed over, without a look at them. They can be read: decode_offers has tried."""
    domain: Domain = NOWHERE
    allocation_info: AllocationInfo = AllocationInfo()
    executors: tuple[Value, ...] = msgspec.field(name="executor_ids", default=())
    unavailability: Unavailability | None = None

    @property
    def id(self) -> str:
        return self.offer.value

    @property
    def framework_id(self) -> str:
        return self.framework.value

    @property
    def agent_id(self) -> str:
        return self.agent.value

    @property
    def role(self) -> str:
        """The role that the offer was allocated to."""
        return self.allocation_info.role

    @property
    def region(self) -> str:
        return self.domain.fault_domain.region.name

    @property
    def zone(self) -> str:
        return self.domain.fault_domain.zone.name

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What the agent says of itself."""
        return _read(bytes(self.attributes_json))

    @property
    def executor_ids(self) -> tuple[str, ...]:
        return tuple(executor.value for executor in self.executors)

    @property
    def unavailable_at(self) -> float | None:
        """When the agent's maintenance begins, in seconds since the epoch; None where none is planned."""
        return self.unavailability.start.nanoseconds / 1e9 if self.unavailability else None


class Malformed(NamedTuple):
    """An offer that is not as Mesos writes them, and what can be told of it."""

    offer_id: str
    """Empty where not even that can be read."""
    agent: str
    """The agent's hostname or, where that cannot be read, its id; empty where neither can."""
    error: Invalid


class _Offers(msgspec.Struct, frozen=True, gc=False):
    offers: list[Offer] = []


class _Event(msgspec.Struct, frozen=True, gc=False):
    offers: _Offers | list[Offer] = _Offers()


class _RawOffers(msgspec.Struct, frozen=True, gc=False):
    offers: list[msgspec.Raw] = []


class _RawEvent(msgspec.Struct, frozen=True, gc=False):
    offers: _RawOffers | list[msgspec.Raw] = _RawOffers()


WRONG = (msgspec.DecodeError, UnicodeDecodeError)
_attributes = msgspec.json.Decoder(tuple[Attribute, ...])
_event = msgspec.json.Decoder(_Event)
_list = msgspec.json.Decoder(list[Offer])
_offer = msgspec.json.Decoder(Offer)
_raw_event = msgspec.json.Decoder(_RawEvent)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


def decode_offers(data: bytes) -> list[Offer]:
    """The offers of one OFFERS event: of the whole event, of what its `offers` field holds, or of a bare list of offers.

    Raises Invalid, naming what is wrong, for anything else, and if any of the offers is not as Mesos writes them.
    """
    try:
        if _is_list(data):
            found = _list.decode(data)
        else:
            inner = _event.decode(data).offers
            found = inner if isinstance(inner, list) else inner.offers
        _try_attributes(found)
    except WRONG as error:
        raise Invalid(field="OFFERS event", value=data[:80], reason=str(error)) from error
    return found


def decode_sound_offers(data: bytes) -> tuple[list[Offer], list[Malformed]]:
    """Like decode_offers, but an offer that is not as Mesos writes them costs nobody the others of its event."""
    try:
        return decode_offers(data), []
    except Invalid as refused:
        try:
            raw = _raw_offers(data)
        except WRONG:
            raise refused from None
    sound: list[Offer] = []
    malformed: list[Malformed] = []
    for one in raw:
        try:
            offer = _offer.decode(one)
            _try_attributes([offer])
        except WRONG as error:
            malformed.append(_malformed(one, error))
        else:
            sound.append(offer)
    return sound, malformed


def _is_list(data: bytes) -> bool:
    return data.lstrip()[:1] == b"["


def _try_attributes(offers: list[Offer]) -> None:
    for offer in offers:
        _read(bytes(offer.attributes_json))


@lru_cache(maxsize=16_384)
def _read(attributes_json: bytes) -> tuple[Attribute, ...]:
    """An agent's attributes. Raises what is wrong with them. An agent says the same of itself with each offer, so it is read once."""
    return _attributes.decode(attributes_json)


def _raw_offers(data: bytes) -> list[msgspec.Raw]:
    if _is_list(data):
        return _raw_list.decode(data)
    inner = _raw_event.decode(data).offers
    return inner if isinstance(inner, list) else inner.offers


def _malformed(raw: msgspec.Raw, error: Exception) -> Malformed:
    known = dict(_readable(raw))
    offer_id, agent = known.get("id", ""), known.get("hostname") or known.get("agent_id", "")
    invalid = Invalid(field=f"offer {offer_id or 'without an id'} of agent {agent or 'unknown'}", value=bytes(raw)[:80], reason=str(error))
    return Malformed(offer_id, agent, invalid)


def _readable(raw: msgspec.Raw) -> Iterator[tuple[str, str]]:
    """What names the offer and its agent, as far as it is text."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except WRONG:
        return
    for name in ("id", "agent_id", "hostname"):
        try:
            found = msgspec.json.decode(fields[name], type=Value | str)
        except (KeyError, *WRONG):
            continue
        yield name, found.value if isinstance(found, Value) else found
