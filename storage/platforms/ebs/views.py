"""Volumes, snapshots and instances as EC2 describes them, read once into what the adapter needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from storage.model import ExternalId
from storage.platforms.base import SnapshotReport, VolumeReport
from storage.platforms.ebs import ids, tags
from storage.platforms.ebs.volume_types import MIB_PER_GIB
from storage.platforms.marks import Mark

DETACHED: Final = "detached"
"""The one state of an attachment in which nobody may still write."""
HIBERNATED: Final = "Client.UserInitiatedHibernate"
SHUT_DOWN: Final = frozenset({"Client.UserInitiatedShutdown", "Client.InstanceInitiatedShutdown"})
"""Codes of a StateReason with which nothing of the instance is kept but its disks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One attachment."""

    node: str
    state: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    volume_id: str
    state: str
    zone: str
    size_mib: int
    kind: str
    shared: bool
    """Multi-Attach is enabled."""
    held: Mapping[str, Held]
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Volume:
        attachments = [
            Held(node=_holder(one), state=one.get("State", ""), device=one.get("Device", "")) for one in described.get("Attachments", ())
        ]
        return cls(
            volume_id=described["VolumeId"],
            state=described.get("State", ""),
            zone=described.get("AvailabilityZone", ""),
            size_mib=described["Size"] * MIB_PER_GIB,
            kind=described.get("VolumeType", ""),
            shared=bool(described.get("MultiAttachEnabled")),
            held={one.node: one for one in attachments if one.state != DETACHED},
            tags=tags.of(described),
        )

    @property
    def mark(self) -> Mark:
        return tags.mark(self.tags)

    def report(self) -> VolumeReport:
        return VolumeReport(
            external_id=ExternalId(self.volume_id),
            pool=self.zone,
            size_mib=self.size_mib,
            serial=ids.serial(self.volume_id),
            token=self.tags.get(tags.TOKEN, ""),
            name=self.tags.get(tags.NAME, ""),
            epoch=self.mark.epoch,
            birth=tags.birth(self.tags),
            held_by=tuple(sorted(self.held)),
            zone=self.zone,
            labels=tags.labels(self.tags),
        )


def _holder(attachment: Mapping[str, Any]) -> str:
    """An instance, or what of Amazon's own has the volume, which is no instance of the account's."""
    named = (attachment.get(key) for key in ("InstanceId", "AssociatedResource", "InstanceOwningService"))
    return next(filter(None, named), "somebody whom EC2 does not name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    snapshot_id: str
    volume_id: str
    state: str
    progress: str
    size_mib: int
    started_at: float
    message: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Snapshot:
        started = described.get("StartTime")
        return cls(
            snapshot_id=described["SnapshotId"],
            volume_id=described.get("VolumeId", ""),
            state=described.get("State", ""),
            progress=described.get("Progress", ""),
            size_mib=described.get("VolumeSize", 0) * MIB_PER_GIB,
            started_at=started.timestamp() if started else 0.0,
            message=described.get("StateMessage") or "",
            tags=tags.of(described),
        )

    def report(self) -> SnapshotReport:
        return SnapshotReport(
            external_id=ExternalId(self.snapshot_id),
            volume=ExternalId(self.volume_id),
            size_mib=self.size_mib,
            token=self.tags.get(tags.TOKEN, ""),
            created_at=self.started_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    instance_id: str
    state: str
    kind: str
    zone: str
    devices: Mapping[str, str]
    """Device name to volume."""
    interfaces: int
    hibernated: bool
    """What it ran may go on where it was once it is started again. While it sleeps its state is `stopped`."""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Instance:
        return cls(
            instance_id=described["InstanceId"],
            state=described.get("State", {}).get("Name", ""),
            kind=described.get("InstanceType", ""),
            zone=described.get("Placement", {}).get("AvailabilityZone", ""),
            devices={one["DeviceName"]: one.get("Ebs", {}).get("VolumeId", "") for one in described.get("BlockDeviceMappings", ())},
            interfaces=len(described.get("NetworkInterfaces", ())),
            hibernated=_may_sleep(described),
        )


def _may_sleep(described: Mapping[str, Any]) -> bool:
    """Where hibernation is configured, EC2 itself may have begun it, as of a Spot Instance: only a shutdown is surely none."""
    code = described.get("StateReason", {}).get("Code", "")
    configured = bool(described.get("HibernationOptions", {}).get("Configured"))
    return code == HIBERNATED or (configured and code not in SHUT_DOWN)
