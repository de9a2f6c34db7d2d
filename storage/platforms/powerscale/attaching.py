"""How volumes come to nodes and leave them, and how they are fenced.

OneFS exports a folder to as many nodes as ask. So a node announces itself by an export of its own, and looks again: whoever sees
another then gives way. A fence and a delete say what they are about before they look again, too, so of two that meet at least one
sees the other. Times of nodes are compared nowhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

import msgspec

from storage.errors import Conflict, Invalid, PlatformUnavailable, StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Birth
from storage.platforms.powerscale.exports import Export, Exports, ExportTable, Hold, Home
from storage.platforms.powerscale.onefs import NotThere, Taken
from storage.platforms.powerscale.volumes import Volume

TRIES: Final = 10
"""How often nodes that come in the same moment may all give way, and how often a mark is written that another overwrites."""
HOST: Final = re.compile(r"(?=.{1,100}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")


class Attachments:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, table: ExportTable, platform: str, wait: Callable[[float], None], chance: Callable[[], float]) -> None:
        self._table, self._platform, self._wait, self._chance = table, platform, wait, chance

    def seen(self, volume: Volume) -> Exports:
        """Its exports, among them its home, which is made for a volume that Polly did not make. Raises UnknownVolume for one that goes."""
        seen = self._table.of(volume.path)
        if seen.home is None:
            self._table.make_home(volume.path, Home())
            seen = self._table.of(volume.path)
        if seen.home is None or seen.kept.deleting:
            raise UnknownVolume(volume=volume.name)
        return seen

    def attach(self, volume: Volume, node: str, *, epoch: int, read_only: bool) -> None:
        _check_node(node)
        for number in range(TRIES):
            seen = self.seen(volume)
            self._admit(seen, volume, epoch, read_only=read_only)
            others = seen.against(node, read_only=read_only)
            if others and number == 0:
                raise VolumeInUse(volume=volume.name, holder=", ".join(others))
            if not others and self._came(volume, seen, Hold(node=node, epoch=epoch, read_only=read_only)):
                return
            self._wait(self._chance() * number)
        raise VolumeInUse(volume=volume.name, holder="another node that comes in the same moment")

    def _admit(self, seen: Exports, volume: Volume, epoch: int, *, read_only: bool) -> Home:
        """What is kept once a holder with this epoch has come. Of a shared volume only a fence shuts out an epoch. Raises StaleEpoch."""
        kept = seen.kept
        return kept.marked(kept.mark.admit(volume.name, epoch, read_only=read_only or kept.shared))

    def _came(self, volume: Volume, seen: Exports, hold: Hold) -> bool:
        """Announces the node and looks again. False where it gave way, or must look anew."""
        before = seen.of_node(hold.node)
        try:
            if not before:
                self._table.announce(volume.path, hold)
            elif (wanted := _joined(before[0], hold)) != before[0].hold:
                self._table.change(before[0], wanted)
        except (Taken, NotThere):
            return False
        now = self._table.of(volume.path)
        try:
            if now.home is None or now.kept.deleting:
                raise UnknownVolume(volume=volume.name)
            kept = self._admit(now, volume, hold.epoch, read_only=hold.read_only)
        except (UnknownVolume, StaleEpoch):
            self._give_way(now, hold.node, before)
            raise
        if now.against(hold.node, read_only=hold.read_only) or not now.of_node(hold.node):
            self._give_way(now, hold.node, before)
            return False
        if kept != now.written:
            self._table.write_home(now.home, kept, "attach a volume")
        return True

    def _give_way(self, now: Exports, node: str, before: list[Export]) -> None:
        """What was there before this call stays."""
        kept = {export.id for export in before}
        self._table.drop((export for export in now.of_node(node) if export.id not in kept), "give way to another node")

    def detach(self, path: str, node: str) -> None:
        """What the node's coming has marked stays."""
        seen = self._table.of(path)
        mine = seen.of_node(node)
        if mine and seen.home is not None and seen.kept != seen.written:
            self._table.write_home(seen.home, seen.kept, "detach a volume")
        self._table.drop(mine, "detach a volume")

    # --- marks ----------------------------------------------------------------------------------------------

    def fence(self, volume: Volume, epoch: int) -> str | None:
        for _ in range(TRIES):
            seen = self.seen(volume)
            if seen.held_by or seen.home is None:
                return None
            mark = seen.written.mark.fenced(epoch)
            if mark == seen.written.mark:
                return f"no export of {volume.path} names a node; epochs below {mark.floor} are refused"
            self._table.write_home(seen.home, seen.kept.marked(mark), "fence a volume")
        raise PlatformUnavailable(platform=self._platform, action="fence a volume", reason="others change its mark all the time")

    def record_birth(self, volume: Volume, birth: Birth, *, epoch: int) -> None:
        seen = self.seen(volume)
        kept, known = seen.kept, seen.kept.certificate(volume.name)
        if epoch < kept.epoch:
            raise StaleEpoch(volume=volume.name, epoch=epoch, found=kept.epoch)
        if known not in (None, birth):
            raise Conflict(what=f"the birth certificate of {volume.name}", expected=known, found=birth)
        if known is None and seen.home is not None:
            self._table.write_home(seen.home, kept.born(birth, volume.name), "store a birth certificate")

    # --- deleting -------------------------------------------------------------------------------------------

    def close(self, name: str, path: str) -> Export | None:
        """Lets nobody come any more; the home that says so, or None where there is none. Raises VolumeInUse."""
        seen = self._table.of(path)
        self._refuse_held(name, seen)
        home = seen.home
        if home is None or home.home is None or home.home.deleting:
            return home
        self._table.write_home(home, msgspec.structs.replace(home.home, deleting=True), "delete a volume")
        now = self._table.of(path)
        if now.held_by:
            self._table.write_home(home, msgspec.structs.replace(now.kept, deleting=False), "leave a volume to its node")
        self._refuse_held(name, now)
        return home

    def forget(self, path: str) -> None:
        """The homes of what is no volume any more."""
        self._table.drop((one for one in self._table.of(path).all if one.home), "delete a volume")

    def _refuse_held(self, name: str, seen: Exports) -> None:
        if seen.held_by:
            raise VolumeInUse(volume=name, holder=", ".join(seen.held_by))


def _joined(export: Export, hold: Hold) -> Hold:
    """A node that comes again: for writing if it ever came so, with the highest epoch that it came with."""
    before = export.hold or hold
    return Hold(node=hold.node, epoch=max(before.epoch, hold.epoch), read_only=before.read_only and hold.read_only)


def _check_node(node: str) -> None:
    try:
        ipaddress.ip_address(node)
    except ValueError:
        if not HOST.fullmatch(node) or node.replace(".", "").isdigit():
            raise Invalid(field="node", value=node, reason="it must be the address or the host name that the node mounts from") from None
