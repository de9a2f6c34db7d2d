"""Nodes as the array knows them: initiators in initiator groups, and the LUN maps that give a group a volume."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from storage.errors import NoSlot, PlatformError
from storage.platforms.xtremio.xms import NotThere, Object, Refused, Xms

WWPN: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{2}(?::?[0-9a-fA-F]{2}){7})")
TOO_MANY: Final = "too_many"
"""How the array's words for its limits begin, such as `too_many_objs`."""


def port_addresses(node: str) -> list[str]:
    """A node's name as addresses of initiators: an IQN, or WWPNs separated by commas, as the array writes them."""
    return [_address(part.strip()) for part in node.split(",") if part.strip()]


def _address(text: str) -> str:
    found = WWPN.fullmatch(text)
    if found is None:
        return text.lower() if text.lower().startswith(("iqn.", "eui.", "naa.")) else text
    digits = found[1].replace(":", "").lower()
    return ":".join(digits[at : at + 2] for at in range(0, 16, 2))


class Hosts:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, xms: Xms, platform: str, *, register: bool) -> None:
        self._xms, self._platform, self._register = xms, platform, register

    def group(self, node: str) -> str | None:
        """The initiator group that has the node's initiators, or that is called like the node; None if there is none."""
        for address in port_addresses(node):
            for initiator in self._xms.all("initiators", f"port-address:eq:{address}"):
                return str(initiator["ig-id"][1])
        try:
            return str(self._xms.get("initiator-groups", node, action="look for a host")["name"])
        except NotThere:
            return None

    def registered(self, node: str) -> str:
        """The node's initiator group, made if need be. Raises PlatformError where hosts are registered by hand and this one is not."""
        if found := self.group(node):
            return found
        if not self._register or not node:
            reason = f"no initiator of the array has the address {node!r}: register the host, or set register_hosts"
            raise PlatformError(platform=self._platform, action="find a host", reason=reason)
        return self._make(node)

    def _make(self, node: str) -> str:
        addresses = port_addresses(node)
        group = f"polly-{addresses[0]}"[:128]
        self._once("initiator-groups", {"ig-name": group})
        for address in addresses:
            self._once("initiators", {"initiator-name": f"polly-{address}"[:128], "ig-id": group, "port-address": address})
        return group

    def _once(self, kind: str, values: Object) -> None:
        """Another caller may have made it in the same moment."""
        try:
            self._xms.create(kind, values, action="register a host")
        except Refused as error:
            if "not_unique" not in error.words and "already" not in error.words:
                raise

    # --- LUN maps -------------------------------------------------------------------------------------------

    def maps_of(self, volume: str) -> list[Object]:
        return self._xms.all("lun-maps", f"vol-name:eq:{volume}")

    def all_maps(self) -> Iterator[tuple[str, str]]:
        """Volume and group of every LUN map."""
        for found in self._xms.all("lun-maps", props=("vol-name", "ig-name")):
            yield str(found["vol-name"]), str(found["ig-name"])

    def map(self, volume: str, group: str) -> None:
        """Mapped already is fine. Raises NotThere for an unknown volume, NoSlot where the array lets the group have no more.

        How many that are, the array does not tell beforehand, and it differs between its versions: what the group has now is it.
        """
        try:
            self._xms.create("lun-maps", {"vol-id": volume, "ig-id": group}, action="map a volume")
        except Refused as error:
            if error.words.startswith(TOO_MANY):
                mapped = len(self._xms.all("lun-maps", f"ig-name:eq:{group}"))
                raise NoSlot(node=group, slots=mapped, platform=self._platform, reason=error.words) from error
            if "already_mapped" not in error.words:
                raise

    def unmap(self, volume: str, group: str) -> None:
        """Not mapped is fine."""
        for found in self.maps_of(volume):
            if found["ig-name"] == group:
                self._drop(str(found["name"] if "name" in found else found["mapping-id"][1]))

    def _drop(self, name: str) -> None:
        try:
            self._xms.delete("lun-maps", name, action="unmap a volume")
        except NotThere:
            return


def holders(maps: Sequence[Object]) -> tuple[str, ...]:
    return tuple(sorted({str(found["ig-name"]) for found in maps}))
