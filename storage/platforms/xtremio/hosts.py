"""Nodes as the array knows them: initiators in initiator groups, and the LUN maps that give a group a volume."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from storage.errors import NoSlot, PlatformError
from storage.platforms.restapi import Answer
from storage.platforms.xtremio import naming
from storage.platforms.xtremio.xms import NotThere, Object, Refused, Xms, named

WWPN: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{2}(?::?[0-9a-fA-F]{2}){7})")
TOO_MANY: Final = "too_many"
"""How the array's words for its limits begin, such as `too_many_objs`."""
REGISTERED: Final = "polly-"


def port_addresses(node: str) -> list[str]:
    """A node's name as addresses of initiators: an IQN, or WWPNs separated by commas, as the array writes them."""
    return [_address(part.strip()) for part in node.split(",") if part.strip()]


def _address(text: str) -> str:
    found = WWPN.fullmatch(text)
    if found is None:
        return text.lower() if text.lower().startswith(("iqn.", "eui.", "naa.")) else text
    digits = found[1].replace(":", "").lower()
    return ":".join(digits[at : at + 2] for at in range(0, 16, 2))


def _as_node(address: str) -> str:
    """An address as a node says it."""
    return address.replace(":", "") if WWPN.fullmatch(address) else address


def _registered(text: str) -> str:
    """A name of Polly's for a host or an initiator; of two that are too long neither is taken for the other."""
    name = REGISTERED + text
    return name if len(name) <= naming.LONGEST else f"{name[: naming.LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class Hosts:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, xms: Xms, platform: str, *, register: bool, portals: Sequence[str]) -> None:
        self._xms, self._platform, self._register, self._wanted = xms, platform, register, portals

    def groups(self, node: str) -> list[str]:
        """The initiator groups that have the node's initiators, or the one that is called like the node."""
        if found := sorted({group for address in port_addresses(node) for group in self._groups_of(address)}):
            return found
        try:
            return [str(self._xms.get("initiator-groups", node, action="look for a host")["name"])] if node else []
        except NotThere:
            return []

    def _groups_of(self, address: str) -> Iterator[str]:
        """Whatever the XMS makes of the filter, and of capitals: a volume must not go to another host."""
        for initiator in self._xms.all("initiators", f"port-address:eq:{address}") or self._xms.all("initiators"):
            if _address(str(initiator["port-address"])) == address:
                yield named(initiator, "ig-id")

    def registered(self, node: str) -> str:
        """The node's initiator group, made if need be. Raises PlatformError where hosts are registered by hand and this one is not, and
        for one that others are in as well."""
        found = self.groups(node)
        if not found:
            if not self._register or not port_addresses(node):
                raise self._no_host(f"no initiator of the array has the address {node!r}: register the host, or set register_hosts")
            self._make(node)
            found = self.groups(node)
        if len(found) != 1:
            raise self._no_host(f"the initiators {node} are in the groups {', '.join(found) or '(none)'}: put them into one")
        self._refuse_shared(node, found[0])
        return found[0]

    def _refuse_shared(self, node: str, group: str) -> None:
        """What a group is given, every initiator of it is given. A machine has one IQN unless the node's name says more; of its WWPNs the
        node names those that are online."""
        wanted = port_addresses(node)
        if not any(one.startswith("iqn.") for one in wanted):
            return
        if others := [one for one in self._members()[group] if one.startswith("iqn.") and one not in wanted]:
            reason = f"group {group} has also {', '.join(others)}: give the node a group of its own, or name all of its initiators"
            raise self._no_host(reason)

    def _no_host(self, reason: str) -> PlatformError:
        return PlatformError(platform=self._platform, action="find a host", reason=reason)

    def _make(self, node: str) -> None:
        addresses = port_addresses(node)
        group = _registered(addresses[0])
        self._once("initiator-groups", {"ig-name": group})
        for address in addresses:
            self._once("initiators", {"initiator-name": _registered(address), "ig-id": group, "port-address": address})

    def _once(self, kind: str, values: Object) -> None:
        """Another caller may have made it in the same moment."""
        try:
            self._xms.create(kind, values, action="register a host")
        except Refused as error:
            if "not_unique" not in error.words and "already" not in error.words:
                raise

    def portals(self) -> str:
        """`ADDRESS:PORT,IQN` of each portal that nodes may use, separated by blanks."""
        found = [portal for portal in self._xms.all("iscsi-portals") if not self._wanted or portal["name"] in self._wanted]
        return " ".join(f"{_host(str(portal['ip-addr']))}:{portal['ip-port']},{portal['port-address']}" for portal in found)

    # --- LUN maps -------------------------------------------------------------------------------------------

    def maps_of(self, volume: str) -> list[Answer]:
        """Whatever the XMS makes of the filter: no other volume is ever unmapped."""
        return [found for found in self._xms.all("lun-maps", f"vol-name:eq:{volume}") if found["vol-name"] == volume]

    def all_maps(self) -> dict[str, list[str]]:
        """The groups that each volume is mapped to."""
        found: dict[str, list[str]] = defaultdict(list)
        for one in self._xms.all("lun-maps", props=("vol-name", "ig-name")):
            found[str(one["vol-name"])].append(str(one["ig-name"]))
        return found

    def called(self, groups: Iterable[str]) -> dict[str, str]:
        """What `attach` takes for these groups: their initiators, behind the group's name if that is not Polly's."""
        wanted = set(groups)
        members = self._members() if wanted else {}
        return {group: ",".join([*_theirs(group), *map(_as_node, members.get(group, ()))]) or group for group in wanted}

    def _members(self) -> dict[str, list[str]]:
        """The addresses in each group."""
        found: dict[str, list[str]] = defaultdict(list)
        for initiator in self._xms.all("initiators"):
            found[named(initiator, "ig-id")].append(_address(str(initiator["port-address"])))
        return defaultdict(list, {group: sorted(addresses) for group, addresses in found.items()})

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
                self._drop(str(found.get("name") or named(found, "mapping-id")))

    def _drop(self, name: str) -> None:
        try:
            self._xms.delete("lun-maps", name, action="unmap a volume")
        except NotThere:
            return


def _host(address: str) -> str:
    """The address of a portal, which has the length of its network behind it, as iscsiadm writes it."""
    plain = address.partition("/")[0]
    return f"[{plain}]" if ":" in plain else plain


def _theirs(group: str) -> list[str]:
    return [] if group.startswith(REGISTERED) else [group]


def groups_in(maps: Iterable[Answer]) -> list[str]:
    return sorted({str(found["ig-name"]) for found in maps})
