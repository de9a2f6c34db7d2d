"""What this process has attached: bringing a volume here, and letting go of it.

An attachment is a lock (formats.py) and what hangs on it. It is in this process' memory only; what is left of it when the
process dies is what the kernel still uses, and the lock of exactly that.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from storage.errors import UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import Attachment
from storage.platforms.local.folders import locked
from storage.platforms.local.formats import Hold
from storage.platforms.local.records import Known, Records
from storage.platforms.local.sidecar import HolderNote
from storage.platforms.local.waiting import soon

LINGER_S: Final = 2.0
"""How long an attach waits for the kernel to clear up after a holder that has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    note: HolderNote
    hold: Hold
    attachment: Attachment


class Attachments:
    def __init__(self, records: Records) -> None:
        self._records = records
        self._held: dict[str, _Held] = {}

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool) -> Attachment:
        """Raises UnknownVolume, StaleEpoch, VolumeInUse; the last after a moment if it is a dead process that held it."""
        note = HolderNote(node=node, pid=os.getpid(), epoch=epoch, read_only=read_only)
        soon(lambda: not self._lingers(external_id, note), LINGER_S)
        with self._records.known(external_id) as known:
            mark = known.car.mark.admit(external_id, epoch, read_only=read_only)
            if held := self._held.get(external_id):
                return _again(held, note)
            lock = self._records.format.lock(known.folder, known.stem, read_only=read_only)
            try:
                beside = self._take(lock, known, read_only)
                self._records.note(known, msgspec.structs.replace(known.car, mark=mark, holders=(*beside, note)))
                hold = self._records.format.hold(lock, known.folder, known.stem, read_only=read_only)
            except BaseException:
                os.close(lock)
                raise
            attachment = Attachment(external_id=external_id, device=hold.device, serial=known.stem, read_only=read_only)
            self._held[external_id] = _Held(note=note, hold=hold, attachment=attachment)
            return attachment

    def _lingers(self, external_id: str, note: HolderNote) -> bool:
        """Whether the lock is only still there because the kernel clears up after processes that have died."""
        with self._records.known(external_id) as known:
            known.car.mark.admit(external_id, note.epoch, read_only=note.read_only)
            pids = [holder.pid for holder in known.car.holders]
            return bool(pids) and not any(Path(f"/proc/{pid}").exists() for pid in pids) and bool(self._records.holders(known))

    def _take(self, lock: int, known: Known, read_only: bool) -> tuple[HolderNote, ...]:
        """Takes the lock. Returns who shares it."""
        if locked(lock, fcntl.LOCK_EX):
            if read_only:
                fcntl.flock(lock, fcntl.LOCK_SH)
            return ()
        if read_only and locked(lock, fcntl.LOCK_SH):
            return known.car.holders
        raise VolumeInUse(volume=known.stem, holder=", ".join(self._records.holders(known)) or "another")

    def detach(self, external_id: ExternalId, node: str) -> None:
        """Raises VolumeInUse while it is used where that can be seen: by a mount, or by a process that has its lock."""
        held = self._held.get(external_id)
        ours = held if held and held.note.node == node else None
        try:
            with self._records.known(external_id) as known:
                if ours:
                    self._let_go(external_id, ours)
                    self._forget(known, ours.note)
                else:
                    self._refuse_if_held(known, node)
        except UnknownVolume:
            if ours:
                self._let_go(external_id, ours)

    def _let_go(self, external_id: str, held: _Held) -> None:
        """After a refusal a repeat goes on where this one ended."""
        if user := held.hold.busy():
            raise VolumeInUse(volume=external_id, holder=user)
        held.hold.drop()
        if user := held.hold.remains():
            raise VolumeInUse(volume=external_id, holder=user)
        self._held.pop(external_id, None)

    def _forget(self, known: Known, note: HolderNote) -> None:
        """Other readers may stay, so this one's name goes. A writer's stays till the next: the lock says that it is gone."""
        if note.read_only:
            others = tuple(other for other in known.car.holders if other != note)
            self._records.note(known, msgspec.structs.replace(known.car, holders=others))

    def _refuse_if_held(self, known: Known, node: str) -> None:
        """Another process of the node may hold it. Readers who died leave their names while others read, so they don't count."""
        writers = [str(note) for note in known.car.holders if note.node == node and not note.read_only]
        if writers and self._records.holders(known):
            raise VolumeInUse(volume=known.stem, holder=", ".join(writers))

    def descriptor(self, external_id: ExternalId) -> int | None:
        held = self._held.get(external_id)
        return held.hold.descriptor() if held else None

    def close(self) -> None:
        """Drops everything; what is mounted stays until it is unmounted."""
        while self._held:
            _, held = self._held.popitem()
            held.hold.drop()
            if not held.hold.busy():
                held.hold.remains()


def _again(held: _Held, note: HolderNote) -> Attachment:
    if held.note != note:
        raise VolumeInUse(volume=held.attachment.external_id, holder=str(held.note))
    return held.attachment
