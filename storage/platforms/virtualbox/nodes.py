"""Which VM a node is: by its UUID, what its firmware or network shows of it, or its name."""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Sequence

from storage.errors import Invalid
from storage.platforms.virtualbox.failures import NOT_FOUND, Fault
from storage.platforms.virtualbox.host import STOPPED, Host, Vm
from storage.platforms.virtualbox.layout import is_uuid


class Nodes:
    def __init__(self, platform: str, host: Host) -> None:
        self._platform, self._host = platform, host
        self._found: dict[str, str] = {}

    def vm(self, node: str) -> Vm:
        """Raises Invalid for a node that no VM is, or that two are."""
        if vm := self.find(node):
            return vm
        reason = (
            "VirtualBox has no VM with this name, UUID or MAC address; "
            f'[platforms.{self._platform}] node = "..." in the agent\'s file names it by hand'
        )
        raise Invalid(field="node", value=node, reason=reason)

    def find(self, node: str) -> Vm | None:
        """As it was found before, if its hardware or its name still says so. Raises Invalid for one that two VMs are."""
        known = self._host.find_vm(self._found[node]) if node in self._found else None
        return known if known and self._is(known, spellings(node)) else self._find_anew(node)

    def _find_anew(self, node: str) -> Vm | None:
        """Among all VMs: a copied one may show the UUID that another one is registered by."""
        if not node.isprintable():
            return None
        words = spellings(node)
        named = [vm for word in words if word and (vm := self._host.find_vm(word))]
        by_name = named and words == [node]
        alike = [] if by_name else [vm for vm in self._host.vms() if self._shows(vm, words)]
        found = {vm.uuid: vm for vm in (*named, *alike)}
        if len(found) > 1:
            names = ", ".join(sorted(vm.name for vm in found.values()))
            raise Invalid(field="node", value=node, reason=f"these VMs show it all: {names}; give each a UUID and MAC addresses of its own")
        for vm in found.values():
            self._found[node] = vm.uuid
            return vm
        return None

    def _is(self, vm: Vm, words: Sequence[str]) -> bool:
        return vm.uuid in words or vm.name in words or self._shows(vm, words)

    def _shows(self, vm: Vm, words: Sequence[str]) -> bool:
        """False for one that went meanwhile."""
        try:
            shown = self._host.hardware(vm, cards=not is_uuid(words[0])) if vm.accessible else frozenset[str]()
        except Fault as fault:
            if fault.code != NOT_FOUND:
                raise
            return False
        return bool({word.replace(":", "") for word in words} & shown)

    def names(self, machines: Sequence[str]) -> str:
        """For people: the VMs' names, or their ids where they have none."""
        return ", ".join(vm.name if (vm := self._host.find_vm(machine)) else machine for machine in machines)

    def stopped(self, node: str) -> str | None:
        """Only what VirtualBox says now of a VM that it has: one that it does not have may be another VirtualBox's."""
        vm = self._find_anew(node)
        if vm is None or vm.state not in STOPPED:
            return None
        return f"VirtualBox says that VM {vm.name} ({vm.uuid}) is {STOPPED[vm.state]}"


def spellings(node: str) -> Sequence[str]:
    """A UUID as it is and with its first three fields the other way round: guests read them so from VirtualBox's firmware tables."""
    small = node.strip().lower()
    if is_uuid(small):
        return list(dict.fromkeys((small, str(uuids.UUID(bytes=uuids.UUID(small).bytes_le)))))
    return [small] if re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", small) else [node]
