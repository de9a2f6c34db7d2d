"""The NFS exports of volumes: what is kept with a volume, and who may mount it.

A volume has an export that nobody can mount, its home: its description holds the marks and the birth certificate. OneFS cannot
compare and change at once, so a description is never changed: another home is made that says more, and those go that it covers. What
is kept is what all homes that are there say together, so of two who write at once neither lowers what the other has raised. OneFS
also refuses exports of one folder with a client in common: two who have seen the same don't both get their home in.

Each node that has the volume has an export of its own, so that two nodes that come or go at once never overwrite each other's list
of clients. A description that is not Polly's is somebody else's export, which holds the volume as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any, Final

import msgspec

from storage.errors import Invalid
from storage.model import Birth
from storage.platforms.marks import Mark
from storage.platforms.powerscale.onefs import OneFs, Taken
from storage.platforms.restapi import Answer

PATH: Final = "protocols/nfs/exports"
NOBODY: Final = tuple(f"192.0.2.{number}" for number in range(1, 255))
"""Addresses that no host has (RFC 5737). An export without any client would be open to all."""
HOME, HOLD = "polly volume ", "polly node "
LONGEST: Final = 255
"""Characters of a description."""


class Home(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept with a volume."""

    epoch: int = 0
    floor: int = 0
    birth: tuple[str, str, str] | None = None
    """Serial, filesystem and UUID; the volume's name, which may be long, is left out where it is the serial."""
    shared: bool = False
    """Any number of nodes may write."""
    size_mib: int = 0
    """What the volume was grown to; 0 where it never was."""
    deleting: bool = False
    """This one says nothing else, and counts for as long as it is there."""

    def joined(self, other: Home) -> Home:
        """What both say together. Of two birth certificates the first stands."""
        return Home(
            epoch=max(self.epoch, other.epoch),
            floor=max(self.floor, other.floor),
            birth=self.birth or other.birth,
            shared=self.shared or other.shared,
            size_mib=max(self.size_mib, other.size_mib),
        )

    def covers(self, other: Home) -> bool:
        """Whether the other says nothing that this one does not say as well."""
        return not (self.deleting or other.deleting) and self.joined(other) == self

    @property
    def mark(self) -> Mark:
        return Mark(epoch=self.epoch, floor=self.floor)

    def marked(self, mark: Mark) -> Home:
        return msgspec.structs.replace(self, epoch=mark.epoch, floor=mark.floor)

    def certificate(self, name: str) -> Birth | None:
        """That of the volume of this name."""
        if self.birth is None:
            return None
        serial, filesystem, uuid = self.birth
        return Birth(serial=serial or name, filesystem=filesystem, filesystem_uuid=uuid)

    def grown(self, size_mib: int) -> Home:
        return msgspec.structs.replace(self, size_mib=max(self.size_mib, size_mib))

    def born(self, birth: Birth, name: str) -> Home:
        serial = "" if birth.serial == name else birth.serial
        return msgspec.structs.replace(self, birth=(serial, birth.filesystem, birth.filesystem_uuid))


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That a node has a volume."""

    node: str
    epoch: int
    read_only: bool = False


class Export(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    path: str
    clients: tuple[str, ...] = ()
    home: Home | None = None
    hold: Hold | None = None

    @property
    def holder(self) -> str:
        """Who can mount the volume by it; empty for a home."""
        if self.home is not None:
            return ""
        return self.hold.node if self.hold else f"export {self.id}"


class Exports(msgspec.Struct, frozen=True, kw_only=True):
    """All exports of one volume."""

    all: tuple[Export, ...] = ()

    @property
    def homes(self) -> list[tuple[Export, Home]]:
        """The oldest first, and without those of a delete."""
        found = sorted(self.all, key=lambda one: one.id)
        return [(one, one.home) for one in found if one.home and not one.home.deleting]

    @property
    def closing(self) -> bool:
        """Somebody deletes the volume."""
        return any(one.home and one.home.deleting for one in self.all)

    @property
    def written(self) -> Home:
        """What its homes say by themselves."""
        return reduce(Home.joined, (home for _, home in self.homes), Home())

    @property
    def kept(self) -> Home:
        """What its homes say, and whoever has the volume: a mark that was taken away counts for as long as its node is there."""
        written = self.written
        mark = written.mark
        for hold in (one.hold for one in self.all if one.hold):
            floor = mark.floor if hold.read_only or written.shared else max(mark.floor, hold.epoch)
            mark = Mark(epoch=max(mark.epoch, hold.epoch), floor=floor)
        return written.marked(mark)

    @property
    def held_by(self) -> tuple[str, ...]:
        return tuple(sorted({one.holder for one in self.all if one.holder}))

    @property
    def nobody(self) -> str:
        """The client of the next home. Whoever has seen the same homes takes the same one."""
        last = max((one for one in self.all if one.home), key=lambda one: one.id, default=None)
        begin = NOBODY.index(last.clients[0]) + 1 if last and last.clients and last.clients[0] in NOBODY else 0
        taken = {client for one in self.all for client in one.clients}
        return next((client for client in NOBODY[begin:] + NOBODY[:begin] if client not in taken), NOBODY[begin % len(NOBODY)])

    @property
    def outdated(self) -> list[Export]:
        """Homes that say nothing that another home does not say; of two that say the same the younger."""
        homes = self.homes
        return [
            export
            for number, (export, home) in enumerate(homes)
            if any(other.covers(home) and (other != home or older < number) for older, (_, other) in enumerate(homes) if older != number)
        ]

    def of_node(self, node: str) -> list[Export]:
        return [one for one in self.all if one.hold and one.hold.node == node]

    def against(self, node: str, *, read_only: bool) -> list[str]:
        """Whoever stands in the way of a node that comes."""
        shares = self.kept.shared
        others = [one for one in self.all if one.holder and not (one.hold and one.hold.node == node)]
        return sorted(one.holder for one in others if one.hold is None or not (shares or (read_only and one.hold.read_only)))


class ExportTable:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, onefs: OneFs, zone: str) -> None:
        self._onefs, self._zone = onefs, zone

    def of(self, path: str) -> Exports:
        return _gathered(self._onefs.all("look at a volume's exports", PATH, "exports", zone=self._zone, path=path)).get(path, Exports())

    def by_path(self) -> dict[str, Exports]:
        return _gathered(self._onefs.all("list its exports", PATH, "exports", zone=self._zone))

    def make_home(self, path: str, home: Home) -> None:
        """There already is fine: another with the same token was first."""
        try:
            self._make(path, NOBODY[0], home, "export a volume")
        except Taken:
            if not self.of(path).homes:
                raise

    def keep(self, path: str, seen: Exports, wanted: Home, action: str) -> None:
        """Lets the homes say what is wanted, which is no less than they said, and drops those that say nothing more, also where they say
        it already and whoever wrote it was cut off. Raises Taken where somebody else has done so meanwhile."""
        if wanted != seen.written:
            seen = Exports(all=(*seen.all, self._make(path, seen.nobody, wanted, action)))
        self.drop(seen.outdated, action)

    def close(self, path: str, seen: Exports, action: str) -> Export:
        """One more home, which says that the volume is being deleted. Raises Taken, Invalid where there is no folder any more."""
        return self._make(path, seen.nobody, Home(deleting=True), action)

    def _make(self, path: str, client: str, home: Home, action: str) -> Export:
        body = {"paths": [path], "clients": [client], "read_only": True, "description": _text(HOME, home)}
        made = self._onefs.post(action, PATH, body, zone=self._zone)
        return Export(id=made.whole("id"), path=path, clients=(client,), home=home)

    def announce(self, path: str, hold: Hold) -> None:
        """Lets the node mount the volume, as root. Raises Taken where it has an export already."""
        self._onefs.post("export a volume to a node", PATH, {"paths": [path], **_hold(hold)}, zone=self._zone)

    def change(self, export: Export, hold: Hold) -> None:
        self._onefs.put("export a volume to a node", f"{PATH}/{export.id}", _hold(hold), zone=self._zone)

    def drop(self, exports: Iterable[Export], action: str) -> None:
        """Gone already is fine."""
        for export in exports:
            self._onefs.delete(action, f"{PATH}/{export.id}", zone=self._zone)


def _hold(hold: Hold) -> dict[str, Any]:
    described = {"description": _text(HOLD, hold), "clients": [hold.node], "read_only": hold.read_only}
    return {**described, "map_root": {"enabled": False}}


def _text(prefix: str, kept: Home | Hold) -> str:
    text = prefix + msgspec.json.encode(kept).decode()
    if len(text) > LONGEST:
        raise Invalid(field="description", value=text, reason=f"OneFS keeps {LONGEST} characters with an export, this has {len(text)}")
    return text


def _gathered(found: Sequence[Answer]) -> dict[str, Exports]:
    by_path: dict[str, list[Export]] = {}
    for one in found:
        for path in one["paths"]:
            by_path.setdefault(str(path).rstrip("/"), []).append(_export(one, str(path).rstrip("/")))
    return {path: Exports(all=tuple(exports)) for path, exports in by_path.items()}


def _export(one: Answer, path: str) -> Export:
    number, text = one.whole("id"), str(one.get("description") or "")
    clients = tuple(str(client) for client in one.get("clients") or ())
    home = hold = None
    with suppress(msgspec.DecodeError):  # which somebody else has written
        if text.startswith(HOME):
            home = msgspec.json.decode(text.removeprefix(HOME), type=Home)
        elif text.startswith(HOLD):
            hold = msgspec.json.decode(text.removeprefix(HOLD), type=Hold)
    return Export(id=number, path=path, clients=clients, home=home, hold=hold)
