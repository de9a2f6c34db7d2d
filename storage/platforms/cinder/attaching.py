"""What is the same in both ways of attaching: who may have a volume, which epoch it is marked with, and what is looked at again.

Cinder gives a volume to one holder at a time by itself, and in one step. The marks are metadata, which nobody lowers (records.py);
a holder reads them again once the volume is its own, and a fence looks again once it has written them. Whichever comes second
sees the other: no fence is given beside a holder, and no older holder gets in behind a fence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from storage.errors import PlatformError, StaleEpoch, Unsupported, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import Attachment
from storage.platforms.cinder import records
from storage.platforms.cinder.client import Client
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.records import Json
from storage.platforms.cinder.states import MOVING
from storage.platforms.cinder.things import Things

MULTI_ATTACH: Final = "Cinder would give it to several writers at once; take a type that is not"
ATTACHABLE: Final = frozenset({"available", "in-use"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A volume while nothing is under way with it that would still change who has it."""

    volume: Json
    is_ours: bool = False
    """The node has it, wholly or as far as an earlier try came."""
    attachment: str = ""
    """By which attachment, where Cinder's own are used."""


class Way(Protocol):
    """One way of bringing a volume to a node."""

    def holder(self, node: str) -> str:
        """What `held_by` calls the node. Raises Invalid for what cannot be a node's name."""

    def look(self, external_id: ExternalId, holder: str = "") -> Look:
        """Waits for what is under way. Raises UnknownVolume."""

    def take(self, external_id: ExternalId, node: str, *, read_only: bool) -> str:
        """Takes the volume for the node, before anybody else can; returns Look.attachment. Raises VolumeInUse, NoSlot."""

    def give(self, external_id: ExternalId, node: str, attachment: str, *, read_only: bool) -> Attachment:
        """Makes usable what was taken. Raises Unsupported for what no node could bring up."""

    def release(self, external_id: ExternalId, node: str) -> None:
        """Takes it away from the node, and returns when it is gone from there. Not there is fine."""


class Attaching:
    def __init__(self, platform: str, volumes: Things, way: Way) -> None:
        self._platform, self._volumes, self._way = platform, volumes, way

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool) -> Attachment:
        holder = self._way.holder(node)
        look = self._way.look(external_id, holder)
        self._refuse(look, epoch=epoch, read_only=read_only)
        attachment = look.attachment if look.is_ours else self._way.take(external_id, node, read_only=read_only)
        try:
            self._mark(external_id, holder, attachment, epoch=epoch, read_only=read_only)
            return self._way.give(external_id, node, attachment, read_only=read_only)
        except (StaleEpoch, Unsupported):
            if not look.is_ours:
                self._way.release(external_id, node)
            raise

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        look = self._way.look(external_id)
        if not _is_free(look.volume):
            return None
        self._volumes.mark(external_id, records.marked(records.mark(look.volume).fenced(epoch)))
        again = self._volumes.known(external_id)
        if not _is_free(again) or records.mark(again).floor < epoch:
            return None
        self._tidy(external_id, records.metadata(again))
        return f"Cinder shows volume {external_id} as {again['status']} without an attachment, epoch raised to {records.mark(again).epoch}"

    def _refuse(self, look: Look, *, epoch: int, read_only: bool) -> None:
        volume, key = look.volume, look.volume["id"]
        records.mark(volume).admit(key, epoch, read_only=read_only)
        if look.is_ours:
            return
        if others := records.held_by(volume):
            raise VolumeInUse(volume=key, holder=", ".join(others))
        action = f"attach volume {key}"
        if volume.get("multiattach"):
            raise Unsupported(platform=self._platform, action=action, reason=f"its type is multi-attach: {MULTI_ATTACH}")
        if volume["status"] not in ATTACHABLE:
            raise PlatformError(platform=self._platform, action=action, reason=f"it is {volume['status']}: {self._volumes.why(key)}")

    def _mark(self, external_id: ExternalId, holder: str, attachment: str, *, epoch: int, read_only: bool) -> None:
        """Reads the marks again now that the volume is ours, and raises them; an epoch that must not be here is refused after all."""
        volume = self._volumes.known(external_id)
        wanted = records.marked(records.mark(volume).admit(external_id, epoch, read_only=read_only))
        if attachment:
            wanted[records.FOR + attachment] = holder
        if wanted.items() - records.metadata(volume).items():
            self._volumes.mark(external_id, wanted)
        self._tidy(external_id, {**records.metadata(volume), **wanted}, attachment)

    def _tidy(self, external_id: ExternalId, kept: Mapping[str, str], attachment: str = "") -> None:
        """Of a volume that nobody has, or by this attachment alone."""
        for name in records.outdated(kept, attachment=attachment):
            self._volumes.unmark(external_id, name)


def drop(client: Client, volume: str, attachment: str) -> None:
    """Takes one of Cinder's attachments back; gone already is fine. Cinder refuses it for what Nova has plugged in."""
    try:
        client.ask("DELETE", f"/attachments/{attachment}", action=f"detach volume {volume}")
    except Refusal as refusal:
        if not refusal.is_missing:
            raise


def _is_free(volume: Json) -> bool:
    return not records.held_by(volume) and volume["status"] not in MOVING
