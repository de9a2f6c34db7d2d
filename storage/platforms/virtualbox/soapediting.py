"""A VM whose settings a client of the web service may change: its controllers, and what is plugged into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage.platforms.virtualbox.host import Controller, Plug
from storage.platforms.virtualbox.websession import WebSession


class SoapEditing:
    """`reference_of` gives the web session's reference of a medium, and raises a Fault for one that is not there."""

    def __init__(self, web: WebSession, machine: str, *, reference_of: Callable[[str], str]) -> None:
        self._web, self._machine, self._reference_of = web, machine, reference_of

    def controllers(self) -> Sequence[Controller]:
        attached = self._attachments()
        return [self._controller(ref, attached) for ref in self._web.call("IMachine_getStorageControllers", self._machine) or []]

    def _controller(self, ref: str, attached: Sequence[Mapping[str, Any]]) -> Controller:
        name = str(self._web.call("IStorageController_getName", ref))
        mine = [one for one in attached if one["controller"] == name]
        return Controller(
            name=name,
            bus=str(self._web.call("IStorageController_getBus", ref)).lower(),
            ports=int(self._web.call("IStorageController_getPortCount", ref)),
            taken=frozenset(one["port"] for one in mine),
            media=frozenset(str(self._web.call("IMedium_getId", one["medium"])) for one in mine if one["medium"]),
        )

    def _attachments(self) -> Sequence[Mapping[str, Any]]:
        return self._web.call("IMachine_getMediumAttachments", self._machine) or []

    def plug_of(self, uuid: str) -> Plug | None:
        for one in self._attachments():
            if one["medium"] and self._web.call("IMedium_getId", one["medium"]) == uuid:
                return Plug(controller=one["controller"], port=one["port"], device=one["device"])
        return None

    def plug(self, uuid: str, plug: Plug, *, hot: bool) -> None:
        medium = self._reference_of(uuid)
        self._web.call("IMachine_attachDevice", self._machine, plug.controller, plug.port, plug.device, "HardDisk", medium)
        if not hot:  # a running VM's plugged disk can be unplugged anyway
            self._web.call("IMachine_setHotPluggableForDevice", self._machine, plug.controller, plug.port, plug.device, True)
        self._web.call("IMachine_saveSettings", self._machine)

    def unplug(self, uuid: str, plug: Plug) -> None:
        self._web.call("IMachine_detachDevice", self._machine, plug.controller, plug.port, plug.device)
        self._web.call("IMachine_saveSettings", self._machine)
