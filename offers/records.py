"""What an OFFERS event of Mesos says, as frozen records. Knows the v1 JSON and nothing of what offers are used for.

Field names are Mesos' own. Fields that nobody here reads are skipped while decoding; reservations are
kept whole, because Mesos wants them back unchanged in whatever is made of the offer.
"""

from __future__ import annotations

from typing import Any, Literal

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
    """As they came: most offers are placed on, or passed over, without a look at them."""
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
        """What the agent says of itself, read anew each time. Raises Invalid."""
        try:
            return _attributes.decode(self.attributes_json)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(field=f"attributes of offer {self.id}", value=bytes(self.attributes_json)[:80], reason=str(error)) from error

    @property
    def executor_ids(self) -> tuple[str, ...]:
        return tuple(executor.value for executor in self.executors)

    @property
    def unavailable_at(self) -> float | None:
        """When the agent's maintenance begins, in seconds since the epoch; None where none is planned."""
        return self.unavailability.start.nanoseconds / 1e9 if self.unavailability else None


class _Offers(msgspec.Struct, frozen=True, gc=False):
    offers: list[Offer] = []


class _Event(msgspec.Struct, frozen=True, gc=False):
    offers: _Offers | list[Offer] = _Offers()


_attributes = msgspec.json.Decoder(tuple[Attribute, ...])
_event = msgspec.json.Decoder(_Event)
_list = msgspec.json.Decoder(list[Offer])


def decode_offers(data: bytes) -> list[Offer]:
    """The offers of one OFFERS event: of the whole event, of what its `offers` field holds, or of a bare list of offers.

    Raises Invalid, naming what is wrong, for anything else.
    """
    try:
        if data.lstrip()[:1] == b"[":
            return _list.decode(data)
        found = _event.decode(data).offers
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(field="OFFERS event", value=data[:80], reason=str(error)) from error
    return found if isinstance(found, list) else found.offers
