"""What a pending task asks of an offer: frozen records. Knows neither offers nor platforms.

cpus and gpus are counts, memory and disk are MiB. An ask is complete: whatever decides where a task may run is in it, in the
peers of its workload, or in the view of the storage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from storage.errors import Invalid
from storage.model import Profile, Volume, WorkloadId


class Operator(StrEnum):
    """How a Marathon constraint compares."""

    UNIQUE = "UNIQUE"
    CLUSTER = "CLUSTER"
    GROUP_BY = "GROUP_BY"
    LIKE = "LIKE"
    UNLIKE = "UNLIKE"
    MAX_PER = "MAX_PER"
    IS = "IS"


NEED_A_VALUE = frozenset({Operator.LIKE, Operator.UNLIKE, Operator.MAX_PER, Operator.IS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Where instances of one workload may run, as Marathon means it.

    `field` is hostname (or @hostname), @region, @zone or the name of an agent attribute; `operator` is read in any case.
    Raises Invalid for an unknown operator, a missing value, a broken regular expression or a MAX_PER that is no number.
    """

    field: str
    operator: str
    value: str | None = None

    def __post_init__(self) -> None:
        try:
            operator = Operator(self.operator.upper())
        except ValueError as error:
            raise self._wrong(f"the operator is one of {', '.join(Operator)}") from error
        object.__setattr__(self, "operator", operator)
        if operator in NEED_A_VALUE and not self.value:
            raise self._wrong(f"{operator} needs a value")
        if operator is Operator.MAX_PER and not (self.value or "").isdecimal():
            raise self._wrong("the value of MAX_PER is a whole number")
        if operator in (Operator.LIKE, Operator.UNLIKE):
            self._check_pattern()

    def _check_pattern(self) -> None:
        try:
            re.compile(self.value or "")
        except re.error as error:
            raise self._wrong(f"the value is no regular expression: {error}") from error

    def _wrong(self, reason: str) -> Invalid:
        return Invalid(field="constraint", value=[self.field, str(self.operator), self.value], reason=reason)


class PortAsk(Struct, frozen=True, kw_only=True, gc=False):
    """The host ports of one task."""

    wanted: tuple[int, ...] = ()
    """One number for each port; 0: any."""
    required: bool = False
    """Exactly these host ports where they are not 0 (Marathon's requirePorts); otherwise each number stands for any port."""
    start: int = 0
    """Where to begin among an agent's free ports, counted round and round.

    A new number after each failure avoids a port that only seems to be free.
    """


NO_PORTS = PortAsk()


class VolumeAsk(Struct, frozen=True, kw_only=True, gc=False):
    """One volume of one task: an existing one, or one that is to be made."""

    container_path: str
    size_mib: int = 0
    """What a new volume must hold at least; an existing one is taken as large as it is."""
    read_only: bool = False
    existing: Volume | None = None
    profile: Profile | None = None
    """How a new one is made; None: in any pool that is in reach."""
    platforms: tuple[str, ...] = ()
    """Names of the platforms that may hold a new one; empty: any that the profile allows."""
    name: str = ""
    """The ledger's name for a new one: given to one task only. Empty: not looked at."""


class Ask(Struct, frozen=True, kw_only=True, gc=False):
    """All that one pending task needs. Asks are served in the order in which they are given to `match`."""

    key: str
    """Unique among the pending, such as `/shop/db#0`."""
    workload: WorkloadId
    role: str
    """Only offers allocated to this role count."""
    cpus: float
    mem_mib: float
    disk_mib: float = 0
    gpus: float = 0
    ports: PortAsk = NO_PORTS
    constraints: tuple[Constraint, ...] = ()
    accepted_roles: frozenset[str] | None = None
    """Marathon's acceptedResourceRoles: `*` for unreserved resources, the role for those reserved for it or its ancestors; None: both."""
    volumes: tuple[VolumeAsk, ...] = ()
    executor_cpus: float = 0
    executor_mem_mib: float = 0
    executor_disk_mib: float = 0


class Peer(Struct, frozen=True, kw_only=True, gc=False):
    """Where one instance of a workload already is."""

    agent_id: str
    hostname: str
    region: str = ""
    zone: str = ""
    attributes: Mapping[str, str] = {}
    """The agent's attributes as text, as `constraints.attribute_text` writes them."""
