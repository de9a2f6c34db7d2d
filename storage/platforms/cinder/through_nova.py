"""`attach = "nova"`: nodes are servers, Nova plugs the volume into them, and a node is named by its server's id."""

from __future__ import annotations

from typing import Final

from storage.errors import Invalid, PlatformError, PlatformUnavailable, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import Attachment
from storage.platforms.cinder import failures, records
from storage.platforms.cinder.attaching import Look, drop
from storage.platforms.cinder.client import SERVERS, Client
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.records import Json
from storage.platforms.cinder.states import MOVING
from storage.platforms.cinder.things import Things

VIRTIO_SERIAL: Final = 20
"""Bytes of a volume's id that a virtio disk shows as its serial."""
SHELVED: Final = "SHELVED_OFFLOADED"
STOPPED: Final = frozenset({"SHUTOFF", "DELETED", "SOFT_DELETED", SHELVED})


class ThroughNova:
    def __init__(self, client: Client, volumes: Things, *, platform: str, slots: int | None) -> None:
        self._client, self._volumes, self._platform, self._slots = client, volumes, platform, slots

    def holder(self, node: str) -> str:
        if not records.is_id(node):
            reason = 'with attach = "nova" a node is named by its server\'s id, a UUID in small letters; it says so in its metadata server'
            raise Invalid(field="node", value=node, reason=reason)
        return node

    def look(self, external_id: ExternalId, holder: str = "") -> Look:
        volume = self._volumes.rested(external_id, action=f"wait for volume {external_id}")
        if volume is None:
            raise UnknownVolume(volume=external_id)
        return Look(volume=volume, is_ours=_is_on(volume, holder))

    def take(self, external_id: ExternalId, node: str, *, read_only: bool) -> str:
        action = f"attach volume {external_id} to server {node}"
        try:
            self._ask_for(external_id, node, action)
        except Refusal as refusal:
            if not _is_under_way(refusal, node):
                self._refused(refusal, external_id, node, action)
            self._wait_for_nova(external_id, node, action)
        seen = self._volumes.rested(external_id, action=action)
        if seen is None:
            raise UnknownVolume(volume=external_id)
        if not _is_on(seen, node):
            reason = f"Nova took the call, but the volume is {seen['status']} now; nova-compute's log says why"
            raise PlatformUnavailable(platform=self._platform, action=action, reason=reason)
        return ""

    def _ask_for(self, external_id: ExternalId, node: str, action: str) -> None:
        body = {"volumeAttachment": {"volumeId": external_id}}
        self._client.ask("POST", f"/servers/{node}/os-volume_attachments", action=action, service=SERVERS, body=body)

    def _wait_for_nova(self, external_id: ExternalId, node: str, action: str) -> None:
        """Nova has begun something with this volume and this server itself: an attach that was asked for before, or a detach."""
        self._volumes.until(external_id, lambda seen: _is_on(seen, node) or not self._has(node, external_id), action=action)
        if not _is_on(self._volumes.get(external_id), node):
            try:
                self._ask_for(external_id, node, action)
            except Refusal as refusal:
                self._refused(refusal, external_id, node, action)

    def _has(self, node: str, external_id: ExternalId) -> bool:
        """Whether the volume is in Nova's own book of the server: before Cinder shows an attachment, and a while after it has gone."""
        path, action = f"/servers/{node}/os-volume_attachments/{external_id}", f"look for volume {external_id} on server {node}"
        return self._client.get_or_none(path, action=action, service=SERVERS) is not None

    def give(self, external_id: ExternalId, node: str, attachment: str, *, read_only: bool) -> Attachment:
        """Nova has plugged it in already. The device that Nova names is a guess; the guest's link by the id is not."""
        link = f"/dev/disk/by-id/virtio-{external_id[:VIRTIO_SERIAL]}"
        return Attachment(external_id=external_id, device=link, serial=external_id, read_only=read_only)

    def release(self, external_id: ExternalId, node: str) -> None:
        action = f"detach volume {external_id} from server {node}"
        volume = self._volumes.get(external_id)
        is_kept = volume is not None and self._is_kept_for_shelved(volume, node)
        if not is_kept and volume is not None and volume["status"] in MOVING:
            volume = self._volumes.rested(external_id, action=action)
        if volume is None or not (is_kept or _is_on(volume, node)):
            return
        try:
            self._client.ask("DELETE", f"/servers/{node}/os-volume_attachments/{external_id}", action=action, service=SERVERS)
        except Refusal as refusal:
            if not refusal.is_missing:
                raise
            self._drop_what_is_left(volume, node)
        self._volumes.until(external_id, lambda seen: not (_is_on(seen, node) or self._has(node, external_id)), action=action)

    def _drop_what_is_left(self, volume: Json, node: str) -> None:
        """Of a server that Nova knows no more, which it deleted while Cinder was away."""
        if self._server(node) is None:
            for one in volume.get("attachments") or ():
                if one.get("server_id") == node:
                    drop(self._client, volume["id"], one["attachment_id"])

    def _is_kept_for_shelved(self, volume: Json, node: str) -> bool:
        """A server that is on no host any more has its volumes reserved: nothing is under way, and Nova lets go of them in its books."""
        if volume["status"] != "reserved" or not records.is_id(node):
            return False
        return (self._server(node) or {}).get("status") == SHELVED and self._has(node, volume["id"])

    def _server(self, node: str) -> Json | None:
        found = self._client.get_or_none(f"/servers/{node}", action=f"look at server {node}", service=SERVERS)
        return found["server"] if found else None

    def stopped(self, node: str) -> str | None:
        if not records.is_id(node):
            return None
        server = self._server(node)
        if server is None:
            return f"Nova has no server {node}"
        if server["status"] in STOPPED and server.get("OS-EXT-STS:task_state") is None:
            return f"Nova shows server {node} as {server['status']} since {server.get('updated')}"
        return None

    def _refused(self, refusal: Refusal, external_id: ExternalId, node: str, action: str) -> None:
        """Raises what a refused attach means. The volume was there and free when we looked."""
        if refusal.is_missing:
            reason = f"Nova has no such server or volume in this project ({refusal})"
            raise PlatformError(platform=self._platform, action=action, reason=reason) from refusal
        if refusal.status == 403 and "disk devices" in refusal.message:
            raise failures.no_slot(refusal, platform=self._platform, node=node, slots=self._slots) from refusal
        if refusal.status == 400:
            # Nova keeps a book of its own, and knows of another server's attach before Cinder shows it.
            named = tuple(found for found in records.UUID.findall(refusal.message) if found not in (external_id, node))
            if holders := records.held_by(self._volumes.known(external_id)) or (named if "already attached" in refusal.message else ()):
                raise VolumeInUse(volume=external_id, holder=", ".join(holders)) from refusal
        raise refusal


def _is_under_way(refusal: Refusal, node: str) -> bool:
    """Whether it is refused for what Nova has of this volume and this server alone."""
    named = set(records.UUID.findall(refusal.message.partition("already attached to instances")[2].partition("(")[0]))
    return refusal.status == 400 and named == {node}


def _is_on(volume: Json | None, server: str) -> bool:
    return bool(server) and volume is not None and any(one.get("server_id") == server for one in volume.get("attachments") or ())
