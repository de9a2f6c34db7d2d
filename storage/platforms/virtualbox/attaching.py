"""Who has a medium: attaching, detaching, fencing, and the marks of it.

VirtualBox lets one medium be attached to several VMs that do not run, and its extra data know no compare-and-set. So each of
these goes on while no other client of the platform is inside (Host.locked), and what VirtualBox shows afterwards is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from storage.errors import Conflict, NoSlot, PlatformError, StaleEpoch, VolumeInUse
from storage.model import Birth, ExternalId
from storage.platforms.base import Attachment
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.failures import IN_USE, Fault
from storage.platforms.virtualbox.host import WRITETHROUGH, Controller, Editing, Plug, Vm
from storage.platforms.virtualbox.media import Found, Media
from storage.platforms.virtualbox.nodes import Nodes
from storage.platforms.virtualbox.records import Record, write_record


class Attaching:
    def __init__(self, media: Media, nodes: Nodes, *, controller: str) -> None:
        self._media, self._host, self._nodes, self._controller = media, media.host, nodes, controller

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool) -> Attachment:
        with self._host.locked():
            found, vm = self._media.known(external_id), self._nodes.vm(node)
            record = replace(found.record, mark=found.record.mark.admit(external_id, epoch, read_only=read_only))
            self._refuse_held(found, besides=vm)
            with self._host.edit(vm) as editing:
                plug = editing.plug_of(found.uuid)
                if plug is None and vm.uuid in found.medium.machines:
                    raise self._through_heir(found, vm) if found.medium.has_heirs else self._left_behind(found, vm)
                free = plug or self._free(editing, vm)
                self._media.save(found, record)
                if plug is None:
                    self._plug(editing, found, free, vm)
                    self._look_back(editing, found, free, vm)
        serial = layout.serial(external_id)
        device = f"/dev/disk/by-id/ata-VBOX_HARDDISK_{serial}"
        return Attachment(external_id=external_id, device=device, serial=serial, read_only=read_only)

    def _left_behind(self, found: Found, vm: Vm) -> PlatformError:
        """VirtualBox does not take back what its web service had not saved when that died, until it starts anew."""
        reason = (
            f"VirtualBox remembers that VM {vm.name} has medium {found.uuid}, and the VM's settings do not: vboxwebsrv died before it had "
            "saved them. Stop vboxwebsrv and what else uses VirtualBox on the VM host until VBoxSVC has ended, and start them again"
        )
        return PlatformError(platform=self._media.platform, action="attach a volume", reason=reason)

    def _through_heir(self, found: Found, vm: Vm) -> PlatformError:
        reason = (
            f"VM {vm.name} does not have the medium itself but a differencing one that stands on it, since a snapshot of the VM was "
            f'taken; delete the snapshots of VM {vm.name} first: VBoxManage snapshot {vm.uuid} delete "NAME"'
        )
        return PlatformError(platform=self._media.platform, action=f"reach volume {found.uuid}", reason=reason)

    def _refuse_held(self, found: Found, *, besides: Vm | None = None) -> None:
        if others := [machine for machine in found.medium.machines if besides is None or machine != besides.uuid]:
            raise VolumeInUse(volume=found.uuid, holder=f"VM {self._nodes.names(others)}")

    def _plug(self, editing: Editing, found: Found, plug: Plug, vm: Vm) -> None:
        try:
            if found.medium.kind != WRITETHROUGH and not found.medium.machines:
                self._host.write_through(found.uuid)
            editing.plug(found.uuid, plug, hot=vm.runs)
        except Fault as fault:
            if fault.code == IN_USE:
                raise VolumeInUse(volume=found.uuid, holder=f"VirtualBox ({fault.words})") from fault
            raise

    def _look_back(self, editing: Editing, found: Found, plug: Plug, vm: Vm) -> None:
        """Somebody who does not take our lock may have attached it elsewhere at the same moment: then it is not ours."""
        seen = self._host.look([found.uuid]).get(found.uuid)
        if others := [machine for machine in (seen.machines if seen else ()) if machine != vm.uuid]:
            editing.unplug(found.uuid, plug)
            raise VolumeInUse(volume=found.uuid, holder=f"VM {self._nodes.names(others)}")

    def _free(self, editing: Editing, vm: Vm) -> Plug:
        controller = self._chosen(editing.controllers(), vm)
        if (port := controller.free_port()) is None:
            raise NoSlot(node=vm.name, slots=controller.ports, platform=self._media.platform)
        return Plug(controller=controller.name, port=port)

    def slots(self, node: str) -> int | None:
        """How many volumes the VM's controller has ports for, those that it has included; None for a VM or controller that is not there.

        An attach tells better what is wanting.
        """
        vm = self._nodes.find(node)
        controller = self._suitable(self._host.controllers(vm)) if vm and vm.accessible else None
        if controller is None:
            return None
        places = [self._media.places.place(medium.location) for medium in self._host.look(controller.media).values()]
        ours = sum(place is not None and layout.is_volume(place) for place in places)
        return max(0, controller.ports - (len(controller.taken) - ours))

    def _chosen(self, controllers: Sequence[Controller], vm: Vm) -> Controller:
        """Only AHCI disks can be plugged into a running VM, and show their guest a serial that is made from the medium's id."""
        if (found := self._suitable(controllers)) is not None:
            return found
        named = f" named {self._controller!r}" if self._controller else ""
        mend = f'VBoxManage storagectl {vm.uuid} --name "{self._controller or "SATA"}" --add sata --controller IntelAhci --portcount 30'
        reason = f"VM {vm.name} has no SATA controller{named}; while it is off, add one: {mend}"
        raise PlatformError(platform=self._media.platform, action="attach a volume", reason=reason)

    def _suitable(self, controllers: Sequence[Controller]) -> Controller | None:
        return next((one for one in controllers if one.bus == "sata" and self._controller in ("", one.name)), None)

    def detach(self, external_id: ExternalId, node: str) -> None:
        """Also of a medium that VirtualBox cannot read: its disk may be gone."""
        with self._host.locked():
            found, vm = self._media.seek(external_id, layout.is_volume), self._nodes.find(node)
            if found is None or vm is None or vm.uuid not in found.medium.machines:
                return
            with self._host.edit(vm) as editing:
                if plug := editing.plug_of(found.uuid):
                    editing.unplug(found.uuid, plug)
                elif found.medium.has_heirs:
                    raise self._through_heir(found, vm)

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        """A VM that has the medium holds it, running or not: what does not run may be started at any moment."""
        with self._host.locked():
            found = self._media.known(external_id)
            if found.medium.machines:
                return None
            before, after = found.record.mark, found.record.mark.fenced(epoch)
            self._media.save(found, replace(found.record, mark=after))
        return f"VirtualBox has medium {external_id} attached to no VM; its epoch was {before.epoch} and is {after.epoch}"

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        with self._host.locked():
            found = self._media.known(external_id)
            if epoch < found.record.mark.epoch:
                raise StaleEpoch(volume=external_id, epoch=epoch, found=found.record.mark.epoch)
            if found.record.birth not in (None, birth):
                raise Conflict(what=f"the birth certificate of {external_id}", expected=found.record.birth, found=birth)
            self._media.save(found, replace(found.record, birth=birth))

    def delete(self, external_id: ExternalId) -> None:
        with self._host.locked():
            found = self._media.seek(external_id, layout.is_volume)
            if found is None:
                self._media.bury()
                return
            self._refuse_held(found)
            remove(self._media, found)


def remove(media: Media, found: Found) -> None:
    """The medium with its file and its record. One whose file is gone already is only taken from VirtualBox's list."""
    if found.record != Record():
        media.host.write_record(found.key, write_record(replace(found.record, deleting=True)))
    try:
        if "VERR_FILE_NOT_FOUND" in found.medium.fault:
            media.host.forget(found.uuid)
        else:
            media.host.delete(found.uuid)
    except Fault as fault:
        if fault.code == IN_USE:
            raise VolumeInUse(volume=found.uuid, holder=f"VirtualBox ({fault.words})") from fault
        raise
    media.host.write_record(found.key, "")
