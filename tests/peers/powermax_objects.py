"""What a simulated PowerMax array consists of, and its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from msgspec import Struct

SERIAL: Final = "000220200123"
T = TypeVar("T")


class Refused(Exception):
    """The array says no."""

    def __init__(self, message: str, *, status: int = 500) -> None:
        super().__init__(message)
        self.message, self.status = message, status


def missing(kind: str, name: str) -> Refused:
    return Refused(f"Cannot find {kind} {name}", status=404)


def known(kind: str, among: Mapping[str, T], name: str) -> T:
    """The one of this name."""
    if name not in among:
        raise missing(kind, name)
    return among[name]


class Snapshot(Struct, kw_only=True):
    id: int
    name: str
    source: str
    cylinders: int
    data: bytes
    made_at: float
    links: dict[str, Link] = {}


class Link(Struct, kw_only=True):
    copy: bool
    looks_left: int
    """How often it is looked at until it is defined and, if it copies, copied."""

    @property
    def is_done(self) -> bool:
        return self.looks_left <= 0


class Volume(Struct, kw_only=True):
    id: str
    name: str
    cylinders: int
    srp: str
    data: bytes = b""

    @property
    def wwn(self) -> str:
        return f"60000970{SERIAL}53{self.id.encode().hex()}"


class Group(Struct, kw_only=True):
    name: str
    srp: str
    level: str
    volumes: dict[str, None] = {}


class View(Struct, kw_only=True):
    name: str
    host: str
    ports: str
    group: str
    luns: dict[str, int] = {}


class Port(Struct, kw_only=True):
    director: str
    number: str
    identifier: str
    addresses: tuple[str, ...] = ()
