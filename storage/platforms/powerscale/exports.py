"""The NFS exports of volumes: what is kept with a volume, and who may mount it.

A volume has one export that nobody can mount, its home: its description holds the marks and the birth certificate. Each node that
has the volume has an export of its own, so that two nodes that come or go at once never overwrite each other's list of clients. A
description that is not Polly's is somebody else's export, which holds the volume as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from storage.errors import Invalid
from storage.model import Birth
from storage.platforms.marks import Mark
from storage.platforms.powerscale.onefs import Object, OneFs, Taken

PATH: Final = "protocols/nfs/exports"
NOBODY: Final = "192.0.2.1"
"""An address that no host has (RFC 5737). An export without any client would be open to all."""
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
    deleting: bool = False

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
    def home(self) -> Export | None:
        return min((one for one in self.all if one.home), key=lambda one: one.id, default=None)

    @property
    def written(self) -> Home:
        """What its home says by itself."""
        home = self.home
        return home.home if home and home.home else Home()

    @property
    def kept(self) -> Home:
        """What its home says, and whoever has the volume: a mark that was overwritten counts for as long as its node is there."""
        written = self.written
        mark = written.mark
        for hold in (one.hold for one in self.all if one.hold):
            floor = mark.floor if hold.read_only or written.shared else max(mark.floor, hold.epoch)
            mark = Mark(epoch=max(mark.epoch, hold.epoch), floor=floor)
        return written.marked(mark)

    @property
    def held_by(self) -> tuple[str, ...]:
        return tuple(sorted({one.holder for one in self.all if one.holder}))

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
        body = {"paths": [path], "clients": [NOBODY], "read_only": True, "description": _text(HOME, home)}
        try:
            self._onefs.post("export a volume", PATH, body, zone=self._zone)
        except Taken:
            if self.of(path).home is None:
                raise

    def write_home(self, export: Export, home: Home, action: str) -> None:
        self._onefs.put(action, f"{PATH}/{export.id}", {"description": _text(HOME, home)}, zone=self._zone)

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


def _gathered(found: Sequence[Object]) -> dict[str, Exports]:
    by_path: dict[str, list[Export]] = {}
    for one in found:
        for path in one["paths"]:
            by_path.setdefault(str(path).rstrip("/"), []).append(_export(one, str(path).rstrip("/")))
    return {path: Exports(all=tuple(exports)) for path, exports in by_path.items()}


def _export(one: Object, path: str) -> Export:
    number, text = int(one["id"]), str(one.get("description") or "")
    try:
        if text.startswith(HOME):
            return Export(id=number, path=path, home=msgspec.json.decode(text.removeprefix(HOME), type=Home))
        if text.startswith(HOLD):
            return Export(id=number, path=path, hold=msgspec.json.decode(text.removeprefix(HOLD), type=Hold))
    except msgspec.DecodeError:
        pass  # somebody else has written it
    return Export(id=number, path=path)
