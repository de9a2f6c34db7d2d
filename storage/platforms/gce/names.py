"""What things are called: ids, names made from tokens, and Google's links, which are read and never compared."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final, NamedTuple

from storage.model import ExternalId

NAME: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_IN_ZONE: Final = re.compile(r"(?:^|/)zones/([^/]+)/[A-Za-z]+/([^/]+)/?$")


class Place(NamedTuple):
    """A disk or an instance. Written `ZONE/NAME`, which is a volume's external id and what a node is called."""

    zone: str
    name: str

    def __str__(self) -> str:
        return f"{self.zone}/{self.name}"

    @property
    def external_id(self) -> ExternalId:
        return ExternalId(str(self))


def place(text: str) -> Place | None:
    """`ZONE/NAME` read; None for what is no such thing."""
    zone, slash, name = text.partition("/")
    return Place(zone, name) if slash and NAME.fullmatch(zone) and NAME.fullmatch(name) else None


def place_of_link(link: str) -> Place | None:
    """The zonal resource that a link, a whole one or a part, leads to."""
    found = _IN_ZONE.search(link)
    return Place(found[1], found[2]) if found else None


def last(link: str) -> str:
    return link.rstrip("/").rsplit("/", 1)[-1]


def disk_name(token: str) -> str:
    """The name of the disk that a token makes: always the same, so that Google itself refuses a second one."""
    return f"polly-{sha256(token.encode()).hexdigest()[:32]}"


def snapshot_name(token: str) -> str:
    return f"polly-{sha256(b'snapshot ' + token.encode()).hexdigest()[:32]}"


def region_of(zone: str) -> str:
    return zone.rsplit("-", 1)[0]


def pool_name(zone: str, kind: str) -> str:
    return f"{zone}.{kind}"
