"""How volumes come to nodes and leave them, and how they are fenced.

OneFS exports a folder to as many nodes as ask. So a node announces itself by an export of its own, and looks again: whoever sees
another then gives way. A fence and a delete say what they are about before they look again, too, so of two that meet at least one
sees the other. Marks only ever grow (exports.py). Times of nodes are compared nowhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from storage.errors import Conflict, Invalid, PlatformUnavailable, StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Birth
from storage.platforms.powerscale.exports import Export, Exports, ExportTable, Hold, Home
from storage.platforms.powerscale.onefs import NotThere, Taken
from storage.platforms.powerscale.volumes import Volume

TRIES: Final = 10
"""How often nodes that come in the same moment may all give way, and how often something is kept where others are quicker."""
HOST: Final = re.compile(r"(?=.{1,100}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")


class Attachments:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, table: ExportTable, platform: str, wait: Callable[[float], None], chance: Callable[[], float]) -> None:
        self._table, self._platform, self._wait, self._chance = table, platform, wait, chance

    def seen(self, volume: Volume) -> Exports:
        """Its exports, among them its home, which is made for a volume that Polly did not make. Raises UnknownVolume for one that goes."""
        seen = self._table.of(volume.path)
        if not seen.homes and not seen.closing:
            self._table.make_home(volume.path, Home())
            seen = self._table.of(volume.path)
        self._refuse_gone(volume, seen)
        return seen

    def _refuse_gone(self, volume: Volume, seen: Exports) -> None:
        if seen.closing or not seen.homes:
            raise UnknownVolume(volume=volume.name)

    def attach(self, volume: Volume, node: str, *, epoch: int, read_only: bool) -> int:
        """Returns what the volume was grown to, as is written down with it: MiB, 0 where it never was."""
        _check_node(node)
        for number in range(TRIES):
            seen = self.seen(volume)
            self._admit(seen, volume, epoch, read_only=read_only)
            others = seen.against(node, read_only=read_only)
            if others and number == 0:
                raise VolumeInUse(volume=volume.name, holder=", ".join(others))
            if not others and self._came(volume, seen, Hold(node=node, epoch=epoch, read_only=read_only)):
                return seen.written.size_mib
            self._wait(self._chance() * number)
        raise VolumeInUse(volume=volume.name, holder="another node that comes in the same moment")

    def _admit(self, seen: Exports, volume: Volume, epoch: int, *, read_only: bool) -> Home:
        """What is kept once a holder with this epoch has come. Of a shared volume only a fence shuts out an epoch. Raises StaleEpoch."""
        kept = seen.kept
        return kept.marked(kept.mark.admit(volume.name, epoch, read_only=read_only or kept.shared))

    def _came(self, volume: Volume, seen: Exports, hold: Hold) -> bool:
        """Announces the node. False where it gave way, or must look anew."""
        before = seen.of_node(hold.node)
        try:
            if not before:
                self._table.announce(volume.path, hold)
            elif (wanted := _joined(before[0], hold)) != before[0].hold:
                self._table.change(before[0], wanted)
        except (Taken, NotThere):
            return False
        try:
            stays = self._stays(volume, hold)
        except (UnknownVolume, StaleEpoch):
            self._give_way(volume, hold.node, before)
            raise
        if not stays:
            self._give_way(volume, hold.node, before)
        return stays

    def _stays(self, volume: Volume, hold: Hold) -> bool:
        """Looks again whether the node may have come, and marks the volume. Raises UnknownVolume, StaleEpoch."""
        for _ in range(TRIES):
            now = self._table.of(volume.path)
            self._refuse_gone(volume, now)
            kept = self._admit(now, volume, hold.epoch, read_only=hold.read_only)
            if now.against(hold.node, read_only=hold.read_only) or not now.of_node(hold.node):
                return False
            with suppress(Taken):
                self._table.keep(volume.path, now, kept, "attach a volume")
                return True
        raise self._overtaken("attach a volume")

    def _overtaken(self, action: str) -> PlatformUnavailable:
        reason = f"{TRIES} times in a row others were quicker, or an export that is not Polly's conflicts with the volume's own"
        return PlatformUnavailable(platform=self._platform, action=action, reason=reason)

    def _give_way(self, volume: Volume, node: str, before: list[Export]) -> None:
        """What was there before this call stays."""
        kept, now = {export.id for export in before}, self._table.of(volume.path)
        self._table.drop((export for export in now.of_node(node) if export.id not in kept), "give way to another node")

    def detach(self, path: str, node: str) -> None:
        """What the node's coming has marked stays."""
        for _ in range(TRIES):
            seen = self._table.of(path)
            mine = seen.of_node(node)
            with suppress(Taken):
                if mine and seen.homes:
                    self._table.keep(path, seen, seen.kept, "detach a volume")
                self._table.drop(mine, "detach a volume")
                return
        raise self._overtaken("detach a volume")

    # --- marks ----------------------------------------------------------------------------------------------

    def fence(self, volume: Volume, epoch: int) -> str | None:
        for _ in range(TRIES):
            seen = self.seen(volume)
            if seen.held_by:
                return None
            mark = seen.written.mark.fenced(epoch)
            with suppress(Taken):
                self._table.keep(volume.path, seen, seen.written.marked(mark), "fence a volume")
                if mark == seen.written.mark:
                    return f"no export of {volume.path} names a node; epochs below {mark.floor} are refused"
        raise self._overtaken("fence a volume")

    def record_birth(self, volume: Volume, birth: Birth, *, epoch: int) -> None:
        for _ in range(TRIES):
            seen = self.seen(volume)
            kept, known = seen.kept, seen.written.certificate(volume.name)
            if epoch < kept.epoch:
                raise StaleEpoch(volume=volume.name, epoch=epoch, found=kept.epoch)
            if known not in (None, birth):
                raise Conflict(what=f"the birth certificate of {volume.name}", expected=known, found=birth)
            wanted = seen.written if known == birth else kept.born(birth, volume.name)
            with suppress(Taken):
                self._table.keep(volume.path, seen, wanted, "store a birth certificate")
                if known == birth:
                    return
        raise self._overtaken("store a birth certificate")

    # --- deleting -------------------------------------------------------------------------------------------

    def close(self, name: str, path: str) -> bool:
        """Lets nobody come any more. Whether the volume had a home. Raises VolumeInUse."""
        for _ in range(TRIES):
            seen = self._table.of(path)
            self._refuse_held(name, seen)
            if not seen.homes:
                return seen.closing
            try:
                mine = self._table.close(path, seen, "delete a volume")
            except Taken:
                continue
            except Invalid:
                if seen.closing:  # another delete has come as far as to take the folder away
                    return True
                raise
            now = self._table.of(path)
            if now.held_by:
                self._table.drop([mine], "leave a volume to its node")
            self._refuse_held(name, now)
            return True
        raise self._overtaken("delete a volume")

    def forget(self, path: str) -> None:
        """The homes of what is no volume any more."""
        homes = [one for one in self._table.of(path).all if one.home]
        # Those that let nobody come go last.
        self._table.drop(sorted(homes, key=lambda one: bool(one.home and one.home.deleting)), "delete a volume")

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
