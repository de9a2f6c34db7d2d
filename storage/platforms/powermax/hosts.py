"""Nodes as the array knows them: hosts with their initiators, each with one storage group and one masking view of Polly's.

A masking view may not become empty, and deleting one that another process has just filled would cut a task off. So the group of
a host holds a smallest volume of its own, its anchor, and group and view stay.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from storage.errors import PlatformError, PlatformUnavailable
from storage.platforms.powermax import naming
from storage.platforms.powermax.unisphere import EXISTS, NotThere, Refused, Unisphere
from storage.platforms.powermax.volumes import NO_LEVEL, Volumes
from storage.platforms.restapi import Answer

WWPN: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{2}(?::?[0-9a-fA-F]{2}){7})")
IN_USE: Final = ("already in use", "is in use by host", "already exists", "already a member")
ISCSI_PORT: Final = 3260


def initiators(node: str) -> list[str]:
    """A node's name as initiators: an IQN, or WWPNs separated by commas, as the array writes them."""
    return [_initiator(part.strip()) for part in node.split(",") if part.strip()]


def _initiator(text: str) -> str:
    found = WWPN.fullmatch(text)
    return found[1].replace(":", "").lower() if found else text.lower() if text.lower().startswith("iqn.") else text


def _is_initiator(text: str) -> bool:
    return text.startswith("iqn.") or WWPN.fullmatch(text) is not None


class Hosts:
    """Raises PlatformUnavailable and Refused beside what it says."""

    def __init__(self, unisphere: Unisphere, volumes: Volumes, platform: str, *, port_group: str, register: bool) -> None:
        self._unisphere, self._volumes, self._platform = unisphere, volumes, platform
        self._port_group, self._register = port_group, register

    # --- which host -----------------------------------------------------------------------------

    def find(self, node: str) -> list[str]:
        """The hosts that have the node's initiators, or the one that is called like the node, or is what it would be registered as."""
        owners = (self._owner(initiator) for initiator in initiators(node) if _is_initiator(initiator))
        if found := sorted(set(filter(None, owners))):
            return found
        names = (name for name in (node, naming.host_name(node)) if naming.HOST_NAME.fullmatch(name))
        return list(islice((name for name in names if self._initiators_of(name) is not None), 1))

    def registered(self, node: str) -> str:
        """The node's host, made if need be. Raises PlatformError where hosts are registered by hand and this one is not, and for one
        that others are in as well."""
        if found := self.find(node):
            self._refuse_shared(node, found)
            return found[0]
        wanted = [one for one in initiators(node) if _is_initiator(one)]
        if not self._register or not wanted:
            reason = f"no host of the array has the initiator {node!r}: register the host, or set register_hosts"
            raise PlatformError(platform=self._platform, action="find a host", reason=reason)
        body = {"hostId": naming.host_name(node), "initiatorId": wanted}
        try:
            self._unisphere.begin("register a host", "POST", "host", body=body)
        except Refused as error:
            if not error.says(IN_USE):
                raise
            if found := self.find(node):  # another caller has made it in the same moment
                self._refuse_shared(node, found)
                return found[0]
            raise
        return naming.host_name(node)

    def _refuse_shared(self, node: str, hosts: list[str]) -> None:
        """What a host is given, every initiator of it is given. A machine has one IQN unless the node's name says more; of its WWPNs the
        node names those that are online."""
        if len(hosts) > 1:
            reason = f"the initiators {node} are in the hosts {', '.join(hosts)}: put them into one"
            raise PlatformError(platform=self._platform, action="find a host", reason=reason)
        wanted = initiators(node)
        others = [one for one in self._initiators_of(hosts[0]) or () if one.startswith("iqn.") and one not in wanted]
        if others and any(one.startswith("iqn.") for one in wanted):
            reason = f"host {hosts[0]} has also {', '.join(others)}: give the node a host of its own, or name all of its initiators"
            raise PlatformError(platform=self._platform, action="find a host", reason=reason)

    def _owner(self, initiator: str) -> str:
        """An initiator that has logged in stands in the list with the port before it, once for each port."""
        for name in self._unisphere.names("look for a host", "initiator", "initiatorId", initiator_hba=initiator):
            try:
                host = self._unisphere.get("look for a host", "initiator", name).get("host")
            except NotThere:
                continue
            if host:
                return str(host)
        return ""

    def _initiators_of(self, host: str) -> list[str] | None:
        """None where there is no such host."""
        try:
            said = self._unisphere.get("look for a host", "host", host)
        except NotThere:
            return None
        return sorted(_initiator(str(one)) for one in said.get("initiator") or ())

    def _called(self, host: str) -> str:
        """What `attach` takes for it: its initiators, behind its name if that is not Polly's."""
        named = [] if host.startswith(naming.REGISTERED) else [host]
        return ",".join([*named, *(self._initiators_of(host) or ())]) or host

    # --- who has a volume -------------------------------------------------------------------------

    def holders(self, groups: tuple[str, ...], known: dict[str, tuple[str, ...]] | None = None) -> tuple[str, ...]:
        """The hosts that reach a volume in these groups, as nodes are named. `known` keeps what is found, for many volumes."""
        seen = {} if known is None else known
        for group in groups:
            if group not in seen:
                seen[group] = () if naming.is_home(group) else self._holders(group)
        return tuple(sorted({host for group in groups for host in seen[group]}))

    def _holders(self, group: str) -> tuple[str, ...]:
        return tuple(map(self._called, self._hosts_of(group)))

    def _hosts_of(self, group: str) -> list[str]:
        """Those that a view shows the group to; one of Polly's groups is its host's also before there is a view."""
        try:
            views = self._unisphere.get("look who has a volume", "storagegroup", group).get("maskingview") or ()
        except NotThere:
            return []
        hosts = [host for view in views if (host := self._host_of(str(view)))]
        return hosts or ([group.removeprefix(naming.HOST)] if group.startswith(naming.HOST) else [])

    def _host_of(self, view: str) -> str:
        try:
            said = self._unisphere.get("look who has a volume", "maskingview", view)
        except NotThere:
            return ""
        return str(said.get("hostId") or said.get("hostGroupId") or view)

    # --- giving and taking ------------------------------------------------------------------------

    def give(self, device: str, host: str) -> None:
        """Into the host's group, which is made with its view if need be. Raises NotThere for an unknown volume."""
        group = naming.host_group(host)
        try:
            self._volumes.add(group, device, "attach a volume")
        except NotThere:
            self._volumes.make_group(group, srp="None", level=NO_LEVEL, first=naming.anchor_name(host))
            self._volumes.add(group, device, "attach a volume")

    def take(self, device: str, host: str, groups: tuple[str, ...] = ()) -> None:
        """Not there is fine. `groups` are those that the volume is in: a host that was renamed has the group of its old name."""
        old = (group for group in groups if group.startswith(naming.HOST) and host in self._hosts_of(group))
        for group in {naming.host_group(host), *old}:
            self._volumes.take(group, device, "detach a volume")

    def lun(self, device: str, host: str) -> str:
        """The number that the host sees the volume under, through the view, which is made if need be."""
        view = naming.host_group(host)
        try:
            rows = self._connections(view, device)
        except NotThere:
            self._make_view(view, host)
            rows = self._connections(view, device)
        if not rows:
            reason = f"masking view {view} does not show volume {device}"
            raise PlatformUnavailable(platform=self._platform, action="attach a volume", reason=reason)
        try:
            return str(int(str(rows[0]["host_lun_address"]), 16))
        except ValueError:
            raise rows[0].wrong(f"has {rows[0]['host_lun_address']!r} as a LUN") from None

    def _connections(self, view: str, device: str) -> list[Answer]:
        """Whatever Unisphere makes of the filter: those of this volume."""
        said = self._unisphere.get("look at a masking view", "maskingview", view, "connections", volume_id=device)
        rows = said.objects("maskingViewConnection", optional=True)
        return [row for row in rows if row.get("host_lun_address") and row["volumeId"] == device]

    def _make_view(self, view: str, host: str) -> None:
        body = {
            "maskingViewId": view,
            "hostOrHostGroupSelection": {"useExistingHostParam": {"hostId": host}},
            "portGroupSelection": {"useExistingPortGroupParam": {"portGroupId": self._port_group}},
            "storageGroupSelection": {"useExistingStorageGroupParam": {"storageGroupId": view}},
        }
        try:
            self._unisphere.begin("make a masking view", "POST", "maskingview", body=body)
        except Refused as error:
            if not error.says(EXISTS):
                raise

    # --- ports ------------------------------------------------------------------------------------

    def ports(self) -> list[Answer]:
        """The ports of the port group. Raises NotThere where there is none."""
        said = self._unisphere.get("look at the port group", "portgroup", self._port_group)
        keys = said.objects("symmetrixPortKey", optional=True)
        return [self._port(str(key["directorId"]), str(key["portId"]).rpartition(":")[2]) for key in keys]

    def _port(self, director: str, number: str) -> Answer:
        return self._unisphere.get("look at a port", "director", director, "port", number, category="system").part("symmetrixPort")

    def portals(self) -> str:
        """`ADDRESS:PORT,IQN` of each iSCSI portal of the group, separated by blanks."""
        found = [(str(port.get("identifier", "")), port.get("ip_addresses") or ()) for port in self.ports()]
        return " ".join(
            f"{f'[{address}]' if ':' in address else address}:{ISCSI_PORT},{iqn}"
            for iqn, addresses in found
            if iqn.startswith("iqn.") and isinstance(addresses, list)
            for address in addresses
        )
