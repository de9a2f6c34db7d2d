"""What a simulated PowerMax array consists of, and its refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SERIAL: Final = "000220200123"


class Refused(Exception):
    """The array says no."""

    def __init__(self, message: str, *, status: int = 500) -> None:
        super().__init__(message)
        self.message, self.status = message, status


def missing(kind: str, name: str) -> Refused:
    return Refused(f"Cannot find {kind} {name}", status=404)


@dataclass(kw_only=True)
class Snapshot:
    id: int
    name: str
    source: str
    cylinders: int
    data: bytes
    made_at: float
    links: dict[str, Link] = field(default_factory=dict)


@dataclass(kw_only=True)
class Link:
    copy: bool
    looks_left: int
    """How often it is looked at until it is defined and, if it copies, copied."""

    @property
    def is_done(self) -> bool:
        return self.looks_left <= 0


@dataclass(kw_only=True)
class Volume:
    id: str
    name: str
    cylinders: int
    srp: str
    data: bytes = b""

    @property
    def wwn(self) -> str:
        return f"60000970{SERIAL}53{self.id.encode().hex()}"


@dataclass(kw_only=True)
class Group:
    name: str
    srp: str
    level: str
    volumes: dict[str, None] = field(default_factory=dict)


@dataclass(kw_only=True)
class View:
    name: str
    host: str
    ports: str
    group: str
    luns: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Port:
    director: str
    number: str
    identifier: str
    addresses: tuple[str, ...] = ()
