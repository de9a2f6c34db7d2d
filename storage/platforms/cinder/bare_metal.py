"""`attach = "bare-metal"`: nodes are machines of their own that reach the storage themselves, told how by Cinder's attachments.

A node is named by what Cinder must know of it to let it in, its connector: JSON, or its host name alone where the storage asks
for no more. An attachment is reserved first, then named in the volume's metadata as the node's, and only then given the
connector: from the reservation on nobody else can have the volume, and whose it is can be read by everybody after any crash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from storage.errors import Invalid, PlatformUnavailable, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import Attachment
from storage.platforms.cinder import connections, records
from storage.platforms.cinder.attaching import Look, drop
from storage.platforms.cinder.client import Client
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.records import Json
from storage.platforms.cinder.states import MOVING
from storage.platforms.cinder.things import Things

BEING_TAKEN: Final = frozenset({"reserved", "attaching"})
ATTACHED: Final = "attached"


class BareMetal:
    def __init__(self, client: Client, volumes: Things, *, platform: str, orphan_s: float) -> None:
        self._client, self._volumes, self._platform, self._orphan_s = client, volumes, platform, orphan_s

    def holder(self, node: str) -> str:
        connector(node)
        return node

    def look(self, external_id: ExternalId, holder: str = "") -> Look:
        volume: Json | None = self._volumes.known(external_id)
        if volume is not None and volume["status"] in MOVING - BEING_TAKEN:
            volume = self._volumes.rested(external_id, action=f"wait for volume {external_id}")
        if volume is not None and volume["status"] == "reserved":
            volume = self._without_orphans(volume)
        if volume is None:
            raise UnknownVolume(volume=external_id)
        mine = next(iter(self._attachments_for(volume, holder)), "") if holder else ""
        return Look(volume=volume, is_ours=bool(mine), attachment=mine)

    def take(self, external_id: ExternalId, node: str, *, read_only: bool) -> str:
        body = {"attachment": {"volume_uuid": external_id, "mode": "ro" if read_only else "rw"}}
        try:
            made = self._client.ask("POST", "/attachments", action=f"reserve volume {external_id}", body=body)
        except Refusal as refusal:
            if refusal.status == 400 and (holders := records.held_by(self._volumes.known(external_id))):
                raise VolumeInUse(volume=external_id, holder=", ".join(holders)) from refusal
            raise
        return str(made["attachment"]["id"])

    def give(self, external_id: ExternalId, node: str, attachment: str, *, read_only: bool) -> Attachment:
        action = f"attach volume {external_id}"
        try:
            found = self._client.get(f"/attachments/{attachment}", action=action)["attachment"]
            if not (found.get("connection_info") or {}).get("driver_volume_type"):
                body = {"attachment": {"connector": connector(node)}}
                found = self._client.ask("PUT", f"/attachments/{attachment}", action=action, body=body)["attachment"]
            if found["status"] != ATTACHED:
                self._client.ask("POST", f"/attachments/{attachment}/action", action=action, body={"os-complete": {}})
        except Refusal as refusal:
            if not refusal.is_missing:
                raise
            reason = f"attachment {attachment} was taken back meanwhile ({refusal})"
            raise PlatformUnavailable(platform=self._platform, action=action, reason=reason) from refusal
        return connections.describe(self._platform, external_id, found["connection_info"], read_only=read_only)

    def release(self, external_id: ExternalId, node: str) -> None:
        holder, volume = self.holder(node), self._volumes.get(external_id)
        if volume is not None and volume["status"] == "reserved":
            volume = self._without_orphans(volume)
        if volume is None:
            return
        for attachment in sorted(_named_for(volume, holder)):
            if volume["status"] != "available":
                drop(self._client, external_id, attachment)
            self._volumes.unmark(external_id, records.FOR + attachment)

    def _attachments_for(self, volume: Json, holder: str) -> list[str]:
        named = _named_for(volume, holder)
        if not named or volume["status"] == "available":
            return []
        return [one["id"] for one in self._attachments(volume["id"]) if one["id"] in named]

    def _attachments(self, volume: str) -> list[dict[str, Any]]:
        """All of them, also those that are only reserved."""
        found: list[dict[str, Any]] = self._client.get("/attachments", action="list attachments", volume_id=volume)["attachments"]
        return found

    def _without_orphans(self, volume: Json) -> Json | None:
        """The volume once its reservation is named as somebody's, or taken back: whoever made it has not come back to name it.

        A reservation opens no way to the data, so nothing is cut off; who comes back to one that was taken is refused.
        """
        key, nameless = str(volume["id"]), self._nameless(volume)
        if not nameless:
            return volume

        def is_settled(seen: Json | None) -> bool:
            return seen is None or seen["status"] != "reserved" or not nameless - _named(seen)

        if not self._volumes.came(key, is_settled, timeout_s=self._orphan_s):
            for attachment in nameless - _named(self._volumes.known(key)):
                drop(self._client, key, attachment)
        return self._volumes.get(key)

    def _nameless(self, volume: Json) -> set[str]:
        """Reservations that are not a server's and that nobody has named."""
        found = self._attachments(volume["id"])
        return {one["id"] for one in found if one["status"] == "reserved" and not one.get("instance")} - _named(volume)


def _named(volume: Json) -> set[str]:
    return {key.removeprefix(records.FOR) for key in records.metadata(volume) if key.startswith(records.FOR)}


def _named_for(volume: Json, holder: str) -> set[str]:
    """For the machine with the same host name: it may have got another address since."""
    host, kept = connector(holder)["host"], records.metadata(volume)
    return {attachment for attachment in _named(volume) if _host(kept[records.FOR + attachment]) == host}


def _host(node: str) -> str:
    try:
        return str(connector(node)["host"])
    except Invalid:
        return ""


def connector(node: str) -> Mapping[str, Any]:
    """A node's name as the connector that Cinder wants. Raises Invalid."""
    reason = 'with attach = "bare-metal" a node is named by its host name, or by JSON with "host" and what its storage asks for'
    if not 0 < len(node) <= records.LONGEST or not node.isprintable():
        raise Invalid(field="node", value=node, reason=f"{reason}, printable and of up to {records.LONGEST} characters")
    if not node.startswith("{"):
        return {"host": node}
    try:
        read = json.loads(node)
    except ValueError as error:
        raise Invalid(field="node", value=node, reason=f"{reason}; {error}") from error
    if not isinstance(read.get("host"), str) or not read["host"]:
        raise Invalid(field="node", value=node, reason=reason)
    return {key: value for key, value in read.items() if value is not None}
