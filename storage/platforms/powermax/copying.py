"""Snapshots (SnapVX), and new volumes that are filled from one.

A copy is made in a storage group for itself and moves to its pool's group when it is whole; the array moves it only once, and
only while it is there, so nobody ever sees a half-made one, and two who work on one copy end with one. The link copies in the
background (`copy`), and is ended as soon as it is defined: from then on the volume has its data without the snapshot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from storage.errors import PlatformUnavailable
from storage.platforms.powermax import naming
from storage.platforms.powermax.unisphere import NO_MEMBER, NotThere, Object, Refused, Unisphere
from storage.platforms.powermax.volumes import NO_LEVEL, Volume, Volumes
from storage.platforms.restapi import Answer

TRIES: Final = 20
"""How often a copy that somebody else has taken away is begun again."""
COPY_S: Final = 3600.0
FIRST_LOOK_S, LONGEST_LOOK_S = 1.0, 15.0
PATIENCE: Final = 4
"""How often a volume that another has begun and not linked is seen before it counts as left behind."""
NOT_LINKED: Final = ("is not linked", "not in the desired state", "no link")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    device: str
    """Whose it is."""
    id: int
    name: str
    created_at: float = 0.0


def from_session(header: Answer) -> Snapshot:
    """As a list of volumes tells it."""
    made_ms = header.number("timestamp", otherwise=0.0)
    device, key, name = str(header["device"]), header.whole("snapid"), str(header["snapshotName"])
    return Snapshot(device=device, id=key, name=name, created_at=made_ms / 1000)


class Copies:
    """Raises PlatformUnavailable and Refused beside what it says."""

    def __init__(
        self, unisphere: Unisphere, volumes: Volumes, platform: str, wait: Callable[[float], None], chance: Callable[[], float]
    ) -> None:
        self._unisphere, self._volumes, self._platform = unisphere, volumes, platform
        self._wait, self._chance = wait, chance

    # --- snapshots --------------------------------------------------------------------------------

    def of(self, device: str) -> list[Snapshot]:
        """All snapshots of a volume, the oldest first. Raises NotThere for an unknown volume."""
        return sorted((_snapshot(device, said) for said in self._said(device)), key=lambda one: one.id)

    def get(self, device: str, key: int) -> Snapshot | None:
        """By what it is, whatever it is called by now."""
        try:
            return next((one for one in self.of(device) if one.id == key), None)
        except NotThere:
            return None

    def take(self, device: str, name: str) -> None:
        body = {"deviceNameListSource": [{"name": device}], "bothSides": "false", "star": "false", "force": "false"}
        self._change("snapshot a volume", "POST", name, body)

    def end(self, snapshot: Snapshot) -> None:
        """Gone already is fine."""
        body = {"deviceNameListSource": [{"name": snapshot.device}], "snap_id": snapshot.id}
        try:
            self._change("delete a snapshot", "DELETE", snapshot.name, body)
        except NotThere:
            return

    def _said(self, device: str, role: str = "snapshotSrcs") -> list[Answer]:
        """What a volume is the source of, or by `snapshotLnks` the target. Some versions say of a volume without either that they have not
        found it."""
        path = ("volume", device, "snapshot")
        try:
            said = self._unisphere.get("look at snapshots", *path, category="replication", private=True)
        except NotThere:
            self._volumes.get(device)
            return []
        if not said.keys() & {"snapshotSrcs", "snapshotLnks"}:
            raise said.wrong("tells neither of snapshots nor of links")
        return said.objects(role, optional=True)

    def _change(self, action: str, method: str, name: str, body: Object) -> None:
        self._unisphere.change(action, method, "snapshot", name, body=body, category="replication", private=True)

    # --- copies -----------------------------------------------------------------------------------

    def make(self, snapshot: Snapshot, name: str, size_mib: int, *, srp: str, level: str) -> Volume:
        """A volume with what the snapshot holds; one that was begun is gone on with, or begun anew where its link is not there."""
        seen: dict[tuple[str, ...], int] = {}
        for number in range(TRIES):
            found = self._volumes.named(name)
            if done := self._volumes.choose(found):
                return done
            begun = [volume for volume in found if volume.is_copying]
            seen = {volume.groups: seen.get(volume.groups, 0) + 1 for volume in begun}
            target = next((volume for volume in begun if self._link(snapshot, volume.device)), None)
            for left in [volume for volume in begun if volume is not target and seen[volume.groups] > PATIENCE]:
                self._discard(snapshot, left)
            if target or not begun:
                self._finish(snapshot, target or self._begin(snapshot, name, size_mib, srp), name, srp, level)
            self._wait(self._chance() * min(number, LONGEST_LOOK_S))
        reason = f"others copy to {name} as well, and do not end"
        raise PlatformUnavailable(platform=self._platform, action="copy a snapshot", reason=reason)

    def _begin(self, snapshot: Snapshot, name: str, size_mib: int, srp: str) -> Volume | None:
        """In a group of its own, which is made with it, so that neither is left without the other: the number of a volume that goes is
        given again, but never in this group."""
        group = naming.copying_group(self._chance())
        self._volumes.make_group(group, srp="None", level=NO_LEVEL, first=name, size_mib=size_mib)
        mine = next((volume for volume in self._volumes.named(name) if group in volume.groups), None)
        if mine is None:
            return None
        try:
            self._act(snapshot, mine.device, "Link")
        except Refused as error:
            self._discard(snapshot, mine)
            if isinstance(error, NotThere) and self.get(snapshot.device, snapshot.id):
                return None  # somebody has taken the new volume away
            raise
        return mine

    def _finish(self, snapshot: Snapshot, target: Volume | None, name: str, srp: str, level: str) -> None:
        """Only who has ended the link moves the volume, and only before all others of its name."""
        if target is None or not self._await(snapshot, target.device):
            return
        try:
            self._act(snapshot, target.device, "Unlink")
        except Refused as error:
            if error.says(NOT_LINKED):
                return
            raise
        if not self._is_first(snapshot, target, name):
            self._discard(snapshot, target)
            return
        for group in filter(naming.is_copying, target.groups):
            try:
                self._volumes.move(group, target.device, srp, level)
            except Refused as error:
                if not (isinstance(error, NotThere) or error.says(NO_MEMBER)):
                    raise
            self._volumes.drop_group(group)

    def _is_first(self, snapshot: Snapshot, target: Volume, name: str) -> bool:
        """Whether no other is done and none is before it; those behind it are taken away, which they cannot be once they are done."""
        others = [volume for volume in self._volumes.named(name) if volume.device != target.device and volume.groups]
        if any(not other.is_copying or other.device < target.device for other in others):
            return False
        taken = [self._discard(snapshot, other) for other in others]
        return all(taken)

    def _discard(self, snapshot: Snapshot, volume: Volume) -> bool:
        """What is not to be: whoever takes it out of the group for copies may delete it. False where it was not there any more."""
        for group in filter(naming.is_copying, volume.groups):
            if self._volumes.take(group, volume.device, "take up a copy"):
                self._remove(snapshot, volume)
                self._volumes.drop_group(group)
                return True
        return False

    def sweep(self, snapshot: Snapshot | None, name: str) -> None:
        """What is left of a copy that is done: volumes that somebody has taken out of their group and not deleted, and groups that
        nothing is in any more, for none is ever made without its volume."""
        for volume in self._volumes.named(name):
            if not volume.groups:
                with contextlib.suppress(Refused):
                    self._remove(snapshot, volume)
        for group in filter(naming.is_copying, self._volumes.groups()):
            if self._volumes.is_empty(group):
                self._volumes.drop_group(group)

    def _remove(self, snapshot: Snapshot | None, volume: Volume) -> None:
        """A snapshot that is gone has no links."""
        if snapshot is not None:
            with contextlib.suppress(Refused):  # it is mostly not linked
                self._act(snapshot, volume.device, "Unlink")
        self._volumes.remove(replace(volume, groups=()))

    def _await(self, snapshot: Snapshot, target: str) -> bool:
        """Whether the volume is whole; False where its link has gone meanwhile."""
        waited_s, look_s = 0.0, FIRST_LOOK_S
        while link := self._link(snapshot, target):
            if link.get("defined") or link.get("state") == "Copied":
                return True
            if waited_s >= COPY_S:
                reason = f"its link to {target} is {link.get('state')} after {waited_s:.0f} s"
                raise PlatformUnavailable(platform=self._platform, action="copy a snapshot", reason=reason)
            self._wait(look_s)
            waited_s, look_s = waited_s + look_s, min(2 * look_s, LONGEST_LOOK_S)
        return False

    def unlink(self, target: str) -> None:
        """From whatever the volume is linked to; the array says of a target only which volume's snapshot that is. The snapshot of a clone
        goes with its link."""
        sources = {str(one["linkSourceName"]) for one in self._said(target, "snapshotLnks")}
        for snapshot in [one for source in sources for one in self.of(source)]:
            if self._link(snapshot, target):
                self._act(snapshot, target, "Unlink")
                if naming.is_clone(snapshot.name):
                    self.end(snapshot)

    def _link(self, snapshot: Snapshot, target: str) -> Answer | None:
        try:
            said = [one for one in self._said(snapshot.device) if _snapshot(snapshot.device, one).id == snapshot.id]
        except NotThere:
            return None
        links = [link for one in said for link in one.objects("linkedDevices", optional=True)]
        return next((link for link in links if link.get("targetDevice") == target), None)

    def _act(self, snapshot: Snapshot, target: str, action: str) -> None:
        body = {
            "deviceNameListSource": [{"name": snapshot.device}],
            "deviceNameListTarget": [{"name": target}],
            "action": action,
            "copy": "true",
            "star": "false",
            "force": "false",
            "exact": "false",
            "remote": "false",
            "symforce": "false",
            "snap_id": snapshot.id,
        }
        self._change("copy a snapshot", "PUT", snapshot.name, body)


def _snapshot(device: str, said: Answer) -> Snapshot:
    made_ms = said.get("timestamp")
    created_at = float(made_ms) / 1000 if isinstance(made_ms, (int, float)) else 0.0
    return Snapshot(device=device, id=said.whole("snap_id"), name=str(said["snapshotName"]), created_at=created_at)
