"""Snapshots (SnapVX), and new volumes that are filled from one.

A copy is made in a storage group for copies and moves to its pool's group when it is whole; the array moves it only once, and
only while it is there, so nobody ever sees a half-made one, and two who work on one copy end with one. The link copies in the
background (`copy`), and is ended as soon as it is defined: from then on the volume has its data without the snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.errors import PlatformUnavailable
from storage.platforms.powermax import naming
from storage.platforms.powermax.unisphere import NO_MEMBER, NotThere, Object, Refused, Unisphere
from storage.platforms.powermax.volumes import NO_LEVEL, Volume, Volumes

TRIES: Final = 8
"""How often a copy that somebody else has taken away is begun again."""
COPY_S: Final = 3600.0
FIRST_LOOK_S, LONGEST_LOOK_S = 1.0, 15.0
NOT_LINKED: Final = ("is not linked", "not in the desired state", "no link")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    device: str
    """Whose it is."""
    id: int
    name: str
    created_at: float = 0.0


def from_session(header: Object) -> Snapshot:
    """As a list of volumes tells it."""
    made_ms = float(header.get("timestamp") or 0)
    return Snapshot(
        device=str(header["device"]), id=int(header["snapid"]), name=str(header["snapshotName"]), created_at=made_ms / 1000
    )


class Copies:
    """Raises PlatformUnavailable and Refused beside what it says."""

    def __init__(self, unisphere: Unisphere, volumes: Volumes, platform: str, wait: Callable[[float], None]) -> None:
        self._unisphere, self._volumes, self._platform, self._wait = unisphere, volumes, platform, wait

    # --- snapshots --------------------------------------------------------------------------------

    def of(self, device: str) -> list[Snapshot]:
        """All snapshots of a volume, the oldest first. Raises NotThere for an unknown volume."""
        return sorted((_snapshot(device, said) for said in self._said(device)), key=lambda one: one.id)

    def get(self, device: str, key: int, name: str) -> Snapshot | None:
        try:
            return next((one for one in self.of(device) if (one.id, one.name) == (key, name)), None)
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

    def _said(self, device: str) -> list[Object]:
        path = ("volume", device, "snapshot")
        said = self._unisphere.get("look at snapshots", *path, category="replication", private=True)
        return list(said.get("snapshotSrcs") or ())

    def _change(self, action: str, method: str, name: str, body: Object) -> None:
        self._unisphere.change(action, method, "snapshot", name, body=body, category="replication", private=True)

    # --- copies -----------------------------------------------------------------------------------

    def make(self, snapshot: Snapshot, name: str, size_mib: int, *, srp: str, level: str) -> Volume:
        """A volume with what the snapshot holds; one that was begun is gone on with, or begun anew where its link is not there."""
        for _ in range(TRIES):
            if done := self._volumes.choose(found := self._volumes.named(name)):
                return done
            begun = [volume for volume in found if volume.is_copying]
            target = next((volume for volume in begun if self._link(snapshot, volume.device)), None)
            for other in begun:
                if other is not target:
                    self._discard(other)
            if target or begun == []:
                self._finish(snapshot, target or self._begin(snapshot, name, size_mib, srp), srp, level)
        reason = f"others take the volume {name} away, {TRIES} times"
        raise PlatformUnavailable(platform=self._platform, action="copy a snapshot", reason=reason)

    def _begin(self, snapshot: Snapshot, name: str, size_mib: int, srp: str) -> Volume | None:
        device = self._volumes.make_in(naming.COPIES, name, size_mib, srp="None", level=NO_LEVEL)
        begun = [volume for volume in self._volumes.named(name) if volume.is_copying and device in ("", volume.device)]
        if not begun:
            return None
        try:
            self._act(snapshot, begun[0].device, "Link")
        except Refused as error:
            self._discard(begun[0])
            if isinstance(error, NotThere) and self.get(snapshot.device, snapshot.id, snapshot.name):
                return None  # somebody has taken the new volume away
            raise
        return begun[0]

    def _finish(self, snapshot: Snapshot, target: Volume | None, srp: str, level: str) -> None:
        if target is None:
            return
        self._await(snapshot, target.device)
        try:
            self._act(snapshot, target.device, "Unlink")
        except Refused as error:
            if not error.says(NOT_LINKED):
                raise
        try:
            self._volumes.move(naming.COPIES, target.device, srp, level)
        except Refused as error:
            if not (isinstance(error, NotThere) or error.says(NO_MEMBER)):
                raise

    def _discard(self, volume: Volume) -> None:
        """What was begun and never linked: whoever takes it out of the group for copies may delete it."""
        if self._volumes.take(naming.COPIES, volume.device, "take up a copy"):
            self._volumes.remove(volume)

    def _await(self, snapshot: Snapshot, target: str) -> None:
        waited_s, look_s = 0.0, FIRST_LOOK_S
        while (link := self._link(snapshot, target)) and not (link.get("defined") or link.get("state") == "Copied"):
            if waited_s >= COPY_S:
                reason = f"its link to {target} is {link.get('state')} after {waited_s:.0f} s"
                raise PlatformUnavailable(platform=self._platform, action="copy a snapshot", reason=reason)
            self._wait(look_s)
            waited_s, look_s = waited_s + look_s, min(2 * look_s, LONGEST_LOOK_S)

    def _link(self, snapshot: Snapshot, target: str) -> Object | None:
        try:
            said = [one for one in self._said(snapshot.device) if _snapshot(snapshot.device, one).id == snapshot.id]
        except NotThere:
            return None
        links: list[Object] = [link for one in said for link in one.get("linkedDevices") or ()]
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


def _snapshot(device: str, said: Object) -> Snapshot:
    made_ms = said.get("timestamp")
    created_at = float(made_ms) / 1000 if isinstance(made_ms, (int, float)) else 0.0
    return Snapshot(device=device, id=int(said["snap_id"]), name=str(said["snapshotName"]), created_at=created_at)
