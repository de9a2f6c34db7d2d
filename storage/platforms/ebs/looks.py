"""Looks at volumes and instances that many share: one Describe call for all who want to know at that moment.

Ids go into a filter and not into VolumeIds, because EC2 refuses a whole call for one id that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

from storage.errors import Invalid, UnknownVolume
from storage.platforms.ebs import ids
from storage.platforms.ebs.client import Client, Clock
from storage.platforms.ebs.views import Instance, Volume
from storage.platforms.pacing import Poller

MOST_IDS: Final = 200
"""How many values a filter may have."""
AGAIN_S: Final = 1.0
"""How often those who wait for a change look."""
GATHER_S: Final = 0.05
"""How long a look waits for others to join it."""
LOOK_S: Final = 60.0


class Change(Enum):
    """What a volume is waited for, as each takes its own time, which its looks learn."""

    MADE = auto()
    ATTACHED = auto()
    DETACHED = auto()
    GROWN = auto()
    DELETED = auto()


class Looks:
    def __init__(self, client: Client, clock: Clock, *, again_s: float = AGAIN_S, gather_s: float = GATHER_S) -> None:
        self._client = client
        self._changing = {change: self._waiting(again_s, gather_s, clock) for change in Change}
        self._instances = Poller(self._look_at_instances, every_s=gather_s, most=MOST_IDS, now=clock.now)
        self._growing = Poller(self._look_at_modifications, every_s=again_s, most=MOST_IDS, learns=True, now=clock.now)

    def volume(self, external_id: str) -> Volume:
        """The volume as it is now, seen with those that are being attached: most who ask begin to attach. Raises UnknownVolume."""
        _, seen = self._changing[Change.ATTACHED].until(ids.volume(external_id), _anything, timeout_s=LOOK_S, soon=True)
        if seen is None or seen.state in ("deleting", "deleted"):
            raise UnknownVolume(volume=external_id)
        return seen

    def volume_until(
        self, change: Change, volume_id: str, ready: Callable[[Volume | None], bool], *, timeout_s: float
    ) -> tuple[bool, Volume | None]:
        """Waits for a volume to change; None is one that is not there, or not seen yet."""
        return self._changing[change].until(volume_id, ready, timeout_s=timeout_s)

    def instance(self, node: str) -> Instance:
        """Raises Invalid for a node that EC2 does not know in this region."""
        _, seen = self._instances.until(ids.instance(node), _anything, timeout_s=LOOK_S)
        if seen is None:
            raise Invalid(field="node", value=node, reason=f"platform {self._client.platform} knows no such instance in its region")
        return seen

    def modification_until(
        self, volume_id: str, ready: Callable[[Mapping[str, Any] | None], bool], *, timeout_s: float
    ) -> tuple[bool, Mapping[str, Any] | None]:
        """Waits for the latest modification of a volume to change; None where there is none."""
        return self._growing.until(volume_id, ready, timeout_s=timeout_s)

    def volume_now(self, external_id: str) -> Volume:
        """The volume as a look shows it that begins after this call, shared with nobody. Raises UnknownVolume."""
        seen = self._look_at_volumes([ids.volume(external_id)]).get(external_id)
        if seen is None or seen.state in ("deleting", "deleted"):
            raise UnknownVolume(volume=external_id)
        return seen

    def _waiting(self, again_s: float, gather_s: float, clock: Clock) -> Poller[str, Volume]:
        return Poller(self._look_at_volumes, every_s=again_s, soon_s=gather_s, most=MOST_IDS, learns=True, now=clock.now)

    def _look_at_volumes(self, keys: Sequence[str]) -> Mapping[str, Volume]:
        doing = self._client.doing("look at volumes")
        found = self._client.pages("describe_volumes", "Volumes", doing, Filters=_by("volume-id", keys))
        return {volume.volume_id: volume for volume in map(Volume.of, found)}

    def _look_at_instances(self, keys: Sequence[str]) -> Mapping[str, Instance]:
        doing = self._client.doing("look at instances")
        found = self._client.pages("describe_instances", "Reservations", doing, Filters=_by("instance-id", keys))
        instances = [Instance.of(one) for reservation in found for one in reservation.get("Instances", ())]
        return {instance.instance_id: instance for instance in instances}

    def _look_at_modifications(self, keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        doing = self._client.doing("look at volumes that grow")
        found = self._client.pages("describe_volumes_modifications", "VolumesModifications", doing, Filters=_by("volume-id", keys))
        latest: dict[str, Mapping[str, Any]] = {}
        for one in sorted(found, key=lambda one: str(one.get("StartTime", ""))):
            latest[one["VolumeId"]] = one
        return latest


def _by(name: str, values: Sequence[str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": list(values)}]


def _anything(seen: object) -> bool:
    return True
