"""What the front keeps beside moto: changes that take time, volumes on several instances, idempotency tokens, quotas.

A change that moto makes at once is either shown as under way for a while (making, attaching), or told to moto only when its time
has come (detaching, deleting, growing). Time is passed in; `inf` never comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.peers.ec2_wire import Call


@dataclass(slots=True, kw_only=True)
class Growth:
    volume: str
    before_gib: int
    target_gib: int
    until: float
    started: str
    state: str = "modifying"


@dataclass(slots=True, kw_only=True)
class Later:
    """A call that moto is told when its time has come."""

    call: Call
    until: float


@dataclass(slots=True, kw_only=True)
class Ledger:
    made: dict[str, float] = field(default_factory=dict)
    """Volume or snapshot to when it is ready."""
    broken: dict[str, str] = field(default_factory=dict)
    """Volume or snapshot that came out in state error, with the reason."""
    attaching: dict[tuple[str, str], float] = field(default_factory=dict)
    detaching: dict[tuple[str, str], Later] = field(default_factory=dict)
    busy: set[tuple[str, str]] = field(default_factory=set)
    """Attachments that the instance's system does not let go of."""
    deleting: dict[str, Later] = field(default_factory=dict)
    vanishing: dict[str, Later] = field(default_factory=dict)
    """Volumes that EC2 itself takes back."""
    growing: dict[str, Growth] = field(default_factory=dict)
    extra: dict[tuple[str, str], str] = field(default_factory=dict)
    """Further attachments of a Multi-Attach volume, with their devices: moto knows one."""
    tokens: dict[str, tuple[Mapping[str, str], str]] = field(default_factory=dict)
    """Idempotency token to the call that came with it and the volume that it made."""
    forbidden_keys: dict[str, float] = field(default_factory=dict)
    """KMS keys that may not be used, which EC2 finds out after it has taken the call: its volumes are shown so long, and gone then."""
    hibernated: set[str] = field(default_factory=set)
    """Stopped instances that go on where they were once they are started."""
    started: dict[str, str] = field(default_factory=dict)
    """When a snapshot was begun, to the millisecond: moto has whole seconds."""

    def due(self, now: float) -> list[Call]:
        """What moto is to be told by now; it is forgotten here."""
        laters = (*self.detaching.values(), *self.deleting.values(), *self.vanishing.values())
        calls = [later.call for later in laters if later.until <= now]
        self.detaching = {key: later for key, later in self.detaching.items() if later.until > now}
        self.deleting = {key: later for key, later in self.deleting.items() if later.until > now}
        self.vanishing = {key: later for key, later in self.vanishing.items() if later.until > now}
        for growth in self.growing.values():
            if growth.state == "modifying" and growth.until <= now:
                growth.state = "optimizing"
                calls.append(Call(action="ModifyVolume", parameters=_modify(growth)))
        return calls

    def hurry(self) -> None:
        """All that takes time has taken it."""
        self.made.clear()
        self.attaching.clear()
        for later in (*self.detaching.values(), *self.deleting.values()):
            later.until = float("-inf")
        for growth in self.growing.values():
            growth.until = float("-inf")


def _modify(growth: Growth) -> dict[str, str]:
    return {"Action": "ModifyVolume", "Version": "2016-11-15", "VolumeId": growth.volume, "Size": str(growth.target_gib)}
