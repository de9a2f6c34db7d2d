"""How a node of its own reaches a volume: Cinder's connection info as an attachment that travels to the node.

Only what the node's transports know how to bring up, and how to tell from another volume's device, is let through. What Cinder
says in confidence (CHAP passwords, keys) is left behind here: a node has such things in its own files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from storage.errors import Unsupported
from storage.model import ExternalId
from storage.platforms.base import Attachment

Info = Mapping[str, Any]


def describe(platform: str, external_id: ExternalId, info: Info, *, read_only: bool) -> Attachment:
    """Raises Unsupported for what no node could bring up, or could not be sure of."""
    kind = str(info.get("driver_volume_type") or "")
    action = f"bring volume {external_id} to a machine"
    if info.get("encrypted"):
        raise Unsupported(platform=platform, action=action, reason="it is encrypted; only Nova opens such volumes")
    if kind not in TRANSPORTS:
        reason = f"its backend speaks {kind or 'an unknown protocol'}; machines can use {', '.join(sorted(TRANSPORTS))}"
        raise Unsupported(platform=platform, action=action, reason=reason)
    transport, reach = TRANSPORTS[kind]
    made = reach(external_id, info)
    if isinstance(made, str):
        raise Unsupported(platform=platform, action=action, reason=made)
    device, context = made
    return Attachment(external_id=external_id, device=device, serial=external_id, read_only=read_only, transport=transport, context=context)


Made = tuple[str, Mapping[str, str]]


def _nfs(external_id: ExternalId, info: Info) -> Made | str:
    """A file on a share; its name has the volume's id."""
    if external_id not in str(info.get("name")):
        return f"its file is {info.get('name')}, which does not name it: it was migrated, and nobody could tell it from another's"
    context = {"share": str(info["export"]), "file": str(info["name"]), "format": str(info.get("format") or "raw")}
    if info.get("options"):
        context["options"] = str(info["options"])
    return f"{context['share']}/{context['file']}", context


def _iscsi(external_id: ExternalId, info: Info) -> Made | str:
    """A logical unit of a target that is this volume's alone; of a shared one nobody could tell whose device came up."""
    target, lun = str(info.get("target_iqn") or ""), str(info.get("target_lun") or "0")
    if external_id not in target:
        return f"its target {target} is not its own, so a device could not be told from another volume's"
    portal = str(info.get("target_portal") or "")
    context = {"portal": portal, "target": target, "lun": lun}
    if info.get("auth_method"):
        context["authentication"] = str(info["auth_method"])
    return f"/dev/disk/by-path/ip-{portal}-iscsi-{target}-lun-{lun}", context


TRANSPORTS: Final[Mapping[str, tuple[str, Callable[[ExternalId, Info], Made | str]]]] = {
    "nfs": ("nfs_file", _nfs),
    "iscsi": ("iscsi_target", _iscsi),
}
"""For each protocol of Cinder's the node's transport, and what that must know; a text says why it could not be."""
