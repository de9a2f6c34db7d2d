"""Who has a volume: attaching, detaching, fences and birth certificates.

EC2 attaches a volume to one instance at a time, which is the lock; the tags say under which epoch. The order makes it safe: an
attach writes its epoch, attaches, and then reads back what the tags say; a fence writes its epoch and then looks whether
anything is attached. So of a fence and an older attach at least one sees the other, and the attach takes itself back.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Final

from storage.errors import Conflict, NoSlot, PlatformUnavailable, PollyError, StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Birth, ExternalId
from storage.platforms.base import Attachment
from storage.platforms.ebs import ids, tags
from storage.platforms.ebs.client import Client
from storage.platforms.ebs.device_names import DeviceNames
from storage.platforms.ebs.failures import Doing, NameTaken
from storage.platforms.ebs.looks import Change, Looks
from storage.platforms.ebs.tags import Holding
from storage.platforms.ebs.views import Held, Volume

NAME_TRIES: Final = 6
NOT_ATTACHED: Final = frozenset({"IncorrectState", "InvalidAttachment.NotFound", "InvalidVolume.NotFound", "InvalidInstanceID.NotFound"})
"""What EC2 says to a detach of what is not attached, or not there."""


class Attaching:
    def __init__(self, client: Client, looks: Looks, *, timeout_s: float) -> None:
        self._client, self._looks, self._timeout_s = client, looks, timeout_s
        self._names = DeviceNames()

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool) -> Attachment:
        volume = self._ready(self._looks.volume(external_id), node)
        wanted = Holding(epoch=epoch, read_only=read_only)
        mark = volume.mark.admit(external_id, epoch, read_only=read_only)
        _refuse_others(volume, node, wanted)
        if is_new := node not in volume.held:
            self._write(volume, {**tags.of_mark(mark), **tags.holder(ids.instance(node), wanted)})
            self._begin(volume, node, wanted)
        return self._attached(external_id, node, wanted, is_new=is_new)

    def detach(self, external_id: ExternalId, node: str) -> None:
        try:
            volume = self._looks.volume(external_id)
        except UnknownVolume:
            self._names.give_back(node, external_id)
            return
        begun = tags.holders(volume.tags, node)
        if node not in volume.held and not begun:
            self._names.give_back(node, external_id)
            return
        if node not in volume.held or volume.held[node].state != "detaching":
            # Also where no attachment is seen, if one was begun: EC2 may show it late.
            doing = self._client.doing("detach a volume", volume=external_id, node=node)
            self._client.change("detach_volume", doing, passing=NOT_ATTACHED, VolumeId=external_id, InstanceId=node)
        self._let_go(external_id, node)
        self._names.give_back(node, external_id)
        if begun:
            self._forget(external_id, begun)

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        volume = self._looks.volume_now(external_id)
        if volume.held or volume.state != "available":
            return None
        self._write(volume, tags.of_mark(volume.mark.fenced(epoch)))
        volume = self._looks.volume_now(external_id)
        if volume.held or volume.state != "available":
            return None
        return f"EC2 has {external_id} as available, attached to nothing; epochs below {epoch} are refused"

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        volume = self._looks.volume(external_id)
        if epoch < volume.mark.epoch:
            raise StaleEpoch(volume=external_id, epoch=epoch, found=volume.mark.epoch)
        wanted = tags.of_birth(birth)
        if tags.BIRTH not in volume.tags:
            self._intend(volume, wanted)
            self._write(volume, {tags.BIRTH: wanted})
        elif (found := volume.tags[tags.BIRTH]) != wanted:
            raise Conflict(what=f"the birth certificate of {external_id}", expected=wanted, found=found)

    def _intend(self, volume: Volume, certificate: str) -> None:
        """Raises Conflict where somebody else intends to keep another certificate, or has kept it: of two at once at most one goes on."""
        mine, external_id = tags.intent(certificate), ExternalId(volume.volume_id)
        self._write(volume, {mine: ""})
        now = self._looks.volume_now(external_id).tags
        if others := tags.intents(now) - {mine}:
            self._forget(external_id, [mine])
            found = now.get(tags.BIRTH) or ", ".join(sorted(others))
            raise Conflict(what=f"the birth certificate of {external_id}", expected=certificate, found=found)

    def _ready(self, volume: Volume, node: str) -> Volume:
        """The volume once it is neither being made nor on its way off this node."""
        held = volume.held.get(node)
        if volume.state == "creating" or (held and held.state == "detaching"):
            _, seen = self._looks.volume_until(
                Change.DETACHED, volume.volume_id, lambda seen: _settled(seen, node), timeout_s=self._timeout_s
            )
            if seen is None:
                raise UnknownVolume(volume=volume.volume_id)
            volume = seen
        if volume.state in ("available", "in-use"):
            return volume
        raise Conflict(what=f"volume {volume.volume_id}", expected="available or in-use", found=volume.state)

    def _begin(self, volume: Volume, node: str, wanted: Holding) -> None:
        """Asks EC2 to attach it, under a device name that should be free there; the instance is looked at only once EC2 refuses one."""
        try:
            in_use: Collection[str] = ()
            for _ in range(NAME_TRIES - 1):
                with suppress(NameTaken):
                    self._ask(volume, node, in_use)
                    return
                in_use = self._looks.instance(node).devices
            self._ask(volume, node, in_use)
        except PlatformUnavailable:
            raise
        except PollyError as error:
            self._names.give_back(node, volume.volume_id)
            with suppress(PollyError):
                self._forget(volume.volume_id, tags.holder(node, wanted))
            if isinstance(error, (NameTaken, NoSlot)):
                raise self._no_slot(node, error) from error
            raise

    def _ask(self, volume: Volume, node: str, in_use: Collection[str]) -> None:
        """Raises NameTaken, NoSlot, and what else EC2 refuses."""
        doing = self._client.doing("attach a volume", volume=volume.volume_id, node=node)
        device = self._names.take(self._client.platform, node, volume.volume_id, in_use)
        try:
            self._client.change("attach_volume", doing, VolumeId=volume.volume_id, InstanceId=node, Device=device)
        except VolumeInUse as error:
            self._refuse_in_use(volume.volume_id, node, error)

    def _no_slot(self, node: str, error: PollyError) -> PollyError:
        """With how many volumes the instance has, which is what EC2 has found too many."""
        reason = {"reason": error.fields["reason"]} if "reason" in error.fields else {}
        return NoSlot(node=node, slots=len(self._looks.instance(node).devices), platform=self._client.platform, **reason)

    def _refuse_in_use(self, volume_id: str, node: str, error: VolumeInUse) -> None:
        """EC2 says that it is attached: to this node by a call whose answer was lost, which is fine, or to another."""
        now = self._looks.volume_now(volume_id)
        if node in now.held:
            return
        if now.held:
            raise VolumeInUse(volume=volume_id, holder=", ".join(sorted(now.held)), reason=error.fields["reason"]) from error
        raise error

    def _attached(self, external_id: ExternalId, node: str, wanted: Holding, *, is_new: bool) -> Attachment:
        """Waits until EC2 shows the attachment, and takes it back if a higher epoch came meanwhile. `is_new`: we have asked for it."""
        done, seen = self._looks.volume_until(
            Change.ATTACHED, external_id, lambda seen: _is_attached(seen, node), timeout_s=self._timeout_s
        )
        held = seen.held.get(node) if seen else None
        if seen is None or held is None or not done:
            state = held.state if held else "not to be seen"
            reason = f"after {self._timeout_s:g} s the attachment to {node} is {state}"
            raise PlatformUnavailable(platform=self._client.platform, action=f"attach volume {external_id}", reason=reason)
        if is_new and not tags.holders(seen.tags, node):
            seen = self._said_again(seen, tags.holder(node, wanted))
        self._refuse_overtaken(seen, node, wanted)
        _refuse_others(seen, node, wanted)
        if old := tags.outdated(seen.tags, seen.held):
            self._forget(external_id, old)
        return Attachment(external_id=external_id, device=held.device, serial=ids.serial(external_id), read_only=wanted.read_only)

    def _said_again(self, seen: Volume, holder: dict[str, str]) -> Volume:
        """Another reader has tidied up meanwhile, and taken us for one that is gone."""
        self._write(seen, holder)
        return replace(seen, tags={**seen.tags, **holder})

    def _refuse_overtaken(self, seen: Volume, node: str, wanted: Holding) -> None:
        needed = seen.mark.floor if wanted.read_only else seen.mark.epoch
        if wanted.epoch >= needed:
            return
        if tags.holdings(seen.tags, node)[:1] == [wanted]:
            self.detach(ExternalId(seen.volume_id), node)
        raise StaleEpoch(volume=seen.volume_id, epoch=wanted.epoch, found=needed)

    def _let_go(self, external_id: ExternalId, node: str) -> None:
        def gone(seen: Volume | None) -> bool:
            return seen is None or node not in seen.held

        done, seen = self._looks.volume_until(Change.DETACHED, external_id, gone, timeout_s=self._timeout_s)
        if done or seen is None:
            return
        state = seen.held[node].state
        if state == "busy":
            raise VolumeInUse(volume=external_id, holder=f"{node}, which still has the device in use (EC2: busy)")
        reason = f"after {self._timeout_s:g} s the attachment to {node} is still {state}; a forced detach is for a person to decide"
        raise PlatformUnavailable(platform=self._client.platform, action=f"detach volume {external_id}", reason=reason)

    def _write(self, volume: Volume, wanted: dict[str, str]) -> None:
        """Those that others have overtaken make room: nobody else does where no claim comes to have the volume."""
        if missing := {key: value for key, value in wanted.items() if volume.tags.get(key) != value}:
            if old := tags.overtaken(volume.tags):
                self._forget(volume.volume_id, old)
            doing = self._doing_tags(volume.volume_id)
            self._client.change("create_tags", doing, Resources=[volume.volume_id], Tags=tags.as_list(missing))

    def _forget(self, volume_id: str, keys: Collection[str]) -> None:
        doing = self._doing_tags(volume_id)
        gone = ("InvalidVolume.NotFound", "InvalidID")
        self._client.change("delete_tags", doing, passing=gone, Resources=[volume_id], Tags=[{"Key": key} for key in keys])

    def _doing_tags(self, volume_id: str) -> Doing:
        return self._client.doing("tag a volume", volume=volume_id)


def _refuse_others(volume: Volume, node: str, wanted: Holding) -> None:
    """Raises VolumeInUse unless nobody has it, this node has it in this very way, or all have it only to read."""
    known = tags.holdings(volume.tags, node)
    mine = wanted in known if wanted.read_only else known[:1] == [wanted]
    if node in volume.held and not mine:
        raise VolumeInUse(volume=volume.volume_id, holder=f"{node}, {known[0].text if known else 'attached by somebody else'}")
    others = [one for one in volume.held if one != node]
    if others and not (volume.shared and wanted.read_only and all(_reads(volume, one) for one in others)):
        raise VolumeInUse(volume=volume.volume_id, holder=", ".join(sorted(others)))


def _reads(volume: Volume, node: str) -> bool:
    known = tags.holdings(volume.tags, node)
    return bool(known) and all(one.read_only for one in known)


def _settled(seen: Volume | None, node: str) -> bool:
    return seen is None or (seen.state != "creating" and (node not in seen.held or seen.held[node].state != "detaching"))


def _is_attached(seen: Volume | None, node: str) -> bool:
    held: Held | None = seen.held.get(node) if seen else None
    return held is not None and held.state == "attached"
