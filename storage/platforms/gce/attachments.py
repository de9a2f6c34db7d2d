"""Who has a disk: attaching and detaching, and the epochs that fence it.

The order keeps a late holder out. The hold is written into the labels first, guarded by their fingerprint; then the disk is attached,
and Google refuses a second writer; then the labels are looked at again, and whoever finds a higher epoch there lets go at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from storage.errors import Conflict, Invalid, NoSlot, PlatformError, PlatformUnavailable, StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Birth, ExternalId
from storage.platforms.base import Attachment
from storage.platforms.gce import tags
from storage.platforms.gce.api import Api
from storage.platforms.gce.failures import CHANGED, GONE, IN_USE, NO_SLOT, Fault
from storage.platforms.gce.machines import most_disks, takes
from storage.platforms.gce.names import NAME, Place, last, place, place_of_link
from storage.platforms.gce.options import GceOptions
from storage.platforms.gce.records import COMING, LEAVING, holders, place_of

DEVICE: Final = "/dev/disk/by-id/google-"
MOST_DISKS: Final = 127
"""How many disks an instance takes beside the one it boots from; fewer of some machine types, which `slots` asks Google for."""
TRIES: Final = 10
"""How often labels that others change meanwhile are written anew."""
PERSISTENT: Final = "PERSISTENT"
"""An attached disk that is no local one of the machine's: these are what a machine type's number counts."""
ENDED: Final = frozenset({"TERMINATED", "STOPPED"})
"""States of an instance in which no program of it runs or can go on. One that is suspended goes on where it was."""
Change = Callable[[dict[str, str], Any], dict[str, str]]
"""Makes the labels of a disk what they are to be; called again with what others made of them meanwhile."""


class Attachments:
    def __init__(self, name: str, options: GceOptions, api: Api) -> None:
        self._name, self._options, self._api = name, options, api

    def known(self, external_id: ExternalId) -> Any:
        """The disk. Raises UnknownVolume for one that is not there, is going, or is not in a zone of this platform."""
        disk = self._shown(external_id)
        if disk is None or disk.status in LEAVING:
            raise UnknownVolume(volume=external_id)
        return disk

    def staying(self, external_id: ExternalId) -> Any:
        """The disk; None for one that is not there, once it is really gone: a deletion that is under way may yet fail."""
        disk = self._shown(external_id)
        if disk is not None and disk.status in LEAVING:
            disk = self._api.settled_disk(place_of(disk), LEAVING)
        return disk

    def _shown(self, external_id: ExternalId) -> Any:
        where = place(external_id)
        return self._api.disk(where) if where and where.zone in self._options.zones else None

    def ready(self, external_id: ExternalId) -> Any:
        """The disk once it is made. Raises UnknownVolume, PlatformError for one whose making failed."""
        disk = self.known(external_id)
        if disk.status in COMING:
            disk = self._api.settled_disk(place_of(disk), COMING)
        if disk is None:
            raise UnknownVolume(volume=external_id)
        if disk.status != "READY":
            raise PlatformError(platform=self._name, action=f"use volume {external_id}", reason=f"its disk is {disk.status}")
        return disk

    # --- attach and detach ---

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool) -> Attachment:
        disk = self.ready(external_id)
        where, instance = place_of(disk), self._instance(node, external_id)
        held = self._held(disk, instance, epoch, read_only=read_only)
        self._mark(disk, lambda labels, seen: self._admitted(labels, seen, instance, epoch, read_only=read_only))
        if not held:
            self._bring(where, instance, read_only=read_only)
        self._look_back(external_id, instance, epoch, read_only=read_only)
        return Attachment(external_id=external_id, device=DEVICE + where.name, serial=where.name, read_only=read_only)

    def _instance(self, node: str, external_id: ExternalId) -> Place:
        """The node as a place; a name alone is an instance in the volume's zone. Raises Invalid."""
        zone = external_id.partition("/")[0]
        found = place(node) or (Place(zone, node) if NAME.fullmatch(node) else None)
        if found is None:
            raise Invalid(field="node", value=node, reason="it must be an instance of Compute Engine, as ZONE/NAME")
        if found.zone != zone:
            raise Invalid(field="node", value=node, reason=f"volume {external_id} is in another zone, and a disk never leaves its zone")
        return found

    def _held(self, disk: Any, instance: Place, epoch: int, *, read_only: bool) -> bool:
        """Whether this node has the disk by this very claim. Raises VolumeInUse if it has it by another, or another node has it alone."""
        if str(instance) not in holders(disk):
            return False
        found = dict(disk.labels).get(tags.hold_key(str(instance)), "")
        if found != tags.hold_value(epoch, read_only=read_only):
            raise VolumeInUse(volume=str(place_of(disk)), holder=f"{instance}, {f'epoch {found}' if found else 'which has it by hand'}")
        self._same_device(disk, instance, read_only=read_only)
        return True

    def _same_device(self, disk: Any, instance: Place, *, read_only: bool) -> None:
        where = place_of(disk)
        entry = self._entry(instance, where)
        wanted = (where.name, "READ_ONLY" if read_only else "READ_WRITE")
        if entry is not None and (entry.device_name, entry.mode) != wanted:
            raise VolumeInUse(volume=str(where), holder=f"{instance}, as device {entry.device_name} and {entry.mode}")

    def _entry(self, instance: Place, disk: Place) -> Any:
        """How the instance has the disk; None if it has not, or is gone."""
        found = self._api.instance(instance)
        return next((one for one in found.disks if place_of_link(one.source) == disk), None) if found is not None else None

    def _admitted(self, labels: dict[str, str], disk: Any, instance: Place, epoch: int, *, read_only: bool) -> dict[str, str]:
        where = str(place_of(disk))
        mark = tags.read_mark(labels, where).admit(where, epoch, read_only=read_only)
        kept = tags.without_holds(labels, of={*holders(disk), str(instance)})
        return {**tags.with_mark(kept, mark), tags.hold_key(str(instance)): tags.hold_value(epoch, read_only=read_only)}

    def _bring(self, disk: Place, instance: Place, *, read_only: bool) -> None:
        try:
            self._api.attach(instance, disk, device_name=disk.name, read_only=read_only)
        except Fault as fault:
            if fault.passing or fault.throttled or fault.signed_out:
                raise
            if fault.code in NO_SLOT:
                raise NoSlot(node=str(instance), slots=_limit(fault), platform=self._name, reason=str(fault)) from fault
            if fault.code in GONE:
                raise self._missing(disk, instance, fault) from fault
            users = self._users(disk)
            if str(instance) in users:  # by whose claim, the look back tells
                return
            if fault.code in IN_USE:
                raise VolumeInUse(volume=str(disk), holder=", ".join(users) or "another instance", reason=str(fault)) from fault
            raise

    def _users(self, disk: Place) -> tuple[str, ...]:
        return holders(self.known(disk.external_id))

    def _missing(self, disk: Place, instance: Place, fault: Fault) -> Exception:
        if self._api.disk(disk) is None:
            return UnknownVolume(volume=disk.external_id)
        reason = f"project {self._options.project} has no such instance ({fault.code})"
        return Invalid(field="node", value=str(instance), reason=reason)

    def _look_back(self, external_id: ExternalId, instance: Place, epoch: int, *, read_only: bool) -> None:
        """Whoever was fenced while it attached lets go again. Raises StaleEpoch, PlatformUnavailable if the disk is not there after all."""
        disk, key = self.known(external_id), tags.hold_key(str(instance))
        labels, hold = dict(disk.labels), tags.hold_value(epoch, read_only=read_only)
        found = labels.get(key, hold)
        try:
            tags.read_mark(labels, external_id).admit(external_id, epoch, read_only=read_only)
        except StaleEpoch:
            if found == hold:  # else a newer claim on this very node has it
                self._drop(place_of(disk), instance)
            raise
        if found != hold:
            raise VolumeInUse(volume=external_id, holder=f"{instance}, epoch {found}")
        if str(instance) not in holders(disk):
            reason = f"Google says that it is done, but {external_id} shows no user {instance}"
            raise PlatformUnavailable(platform=self._name, action=f"attach volume {external_id}", reason=reason)
        if key not in labels:  # another reader came meanwhile, and took us for one that is gone
            self._mark(disk, lambda labels, seen: {key: hold, **labels})

    def detach(self, external_id: ExternalId, node: str) -> None:
        try:
            disk, instance = self.known(external_id), self._instance(node, external_id)
        except (UnknownVolume, Invalid):
            return
        if str(instance) not in holders(disk) and tags.hold_key(str(instance)) in disk.labels:
            # An attach that was given up may still be under way, and would bring the disk after this detach.
            self._api.await_attaches(instance.zone, lambda node: node == instance)
            disk = self._api.disk(place_of(disk))
        if disk is not None and str(instance) in holders(disk):
            self._drop(place_of(disk), instance)

    def _drop(self, disk: Place, instance: Place) -> None:
        """Takes the disk from the instance, whatever its device is called there; gone already is fine."""
        entry = self._entry(instance, disk)
        if entry is None:
            return
        try:
            self._api.detach(instance, entry.device_name)
        except Fault as fault:
            if fault.passing or self._entry(instance, disk) is not None:
                raise

    # --- marks ---

    def _mark(self, disk: Any, change: Change) -> None:
        """Writes what `change` makes of the labels, on what it was made from: never over what another wrote meanwhile."""
        where = place_of(disk)
        for _ in range(TRIES):
            labels = dict(disk.labels)
            wanted = change(dict(labels), disk)
            if wanted == labels:
                return
            try:
                self._api.set_labels(where, wanted, disk.label_fingerprint)
                return
            except Fault as fault:
                if fault.code in GONE:
                    raise UnknownVolume(volume=where.external_id) from fault
                if fault.code not in CHANGED and fault.status != 412:
                    raise
            disk = self.known(where.external_id)
        reason = f"its labels were changed by others {TRIES} times in a row"
        raise PlatformUnavailable(platform=self._name, action=f"mark volume {where}", reason=reason)

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        disk, holds = self.ready(external_id), set[str]()
        if holders(disk):
            return None

        def fenced(labels: dict[str, str], seen: Any) -> dict[str, str]:
            if holders(seen):
                return labels
            holds.update(key for key in labels if key.startswith(tags.HOLD))
            mark = tags.read_mark(labels, external_id).fenced(epoch)
            return tags.with_mark(labels, mark)

        self._mark(disk, fenced)
        # Who attaches from here on finds the higher epoch and lets go. Who was under way before is waited for, and seen.
        if holds:
            self._api.await_attaches(place_of(disk).zone, lambda node: tags.hold_key(str(node)) in holds)
        if holders(self.known(external_id)):
            return None
        return f"disk {external_id} of project {self._options.project} has no users, epochs below {epoch} are refused"

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        def born(labels: dict[str, str], seen: Any) -> dict[str, str]:
            mark, found = tags.read_mark(labels, external_id), tags.read_birth(labels)
            if epoch < mark.epoch:
                raise StaleEpoch(volume=external_id, epoch=epoch, found=mark.epoch)
            if found not in (None, birth):
                raise Conflict(what=f"the birth certificate of {external_id}", expected=found, found=birth)
            return tags.with_birth(labels, birth)

        self._mark(self.ready(external_id), born)

    # --- nodes ---

    def node_stopped(self, node: str) -> str | None:
        """What proves that nothing of the node runs any more, in words; None if there is no such proof.

        Only a node in a zone of this platform is looked for: elsewhere, or without its zone, not to find it proves nothing.
        """
        where = place(node)
        if where is None or where.zone not in self._options.zones:
            return None
        found = self._api.instance(where)
        if found is None:
            return f"project {self._options.project} has no instance {where}"
        return f"instance {where} is {found.status}" if last(found.status) in ENDED else None

    def slots(self, node: str) -> int | None:
        """How many of Polly's disks the instance can hold, those that it has included; None where Google does not say.

        Its machine type tells how many disks it takes in all, the one it boots from and others' among them: by the API, or for machines
        that take fewer Hyperdisks than it says, by Google's documents. One that takes none of the platform's types has no slots.
        """
        where = place(node)
        if where is None or where.zone not in self._options.zones:
            return None
        found = self._api.instance(where)
        kind = self._api.machine_type(where.zone, last(found.machine_type)) if found is not None else None
        if found is None or kind is None or not kind.maximum_persistent_disks:
            return None
        if not any(takes(kind.name, disk_type) for disk_type in self._options.types):
            return 0
        told = int(kind.maximum_persistent_disks)
        most = min(told, most_disks(kind.name, kind.guest_cpus) or told)
        sources = [place_of_link(entry.source) for entry in found.disks if entry.type_ == PERSISTENT]
        names = [source.name for source in sources if source is not None and source.zone == where.zone]
        ours = sum(tags.hold_key(node) in disk.labels for disk in self._api.disks_named(where.zone, names))
        return max(0, most - (len(sources) - ours))


def _limit(fault: Fault) -> int:
    """Google's own number, which counts the boot disk, where its words have one."""
    found = re.search(r"Limit: ([0-9]+)", str(fault))
    return int(found[1]) if found else MOST_DISKS
