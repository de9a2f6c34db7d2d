"""Disks as volumes and snapshots as snapshots: Google's messages read into Polly's reports."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any, Final

from storage.errors import Conflict
from storage.model import ExternalId
from storage.platforms.base import SnapshotReport, VolumeReport
from storage.platforms.gce import tags
from storage.platforms.gce.kinds import GIB_IN_MIB
from storage.platforms.gce.names import Place, last, place_of_link, pool_name
from storage.platforms.marks import Mark

COMING: Final = frozenset({"CREATING", "RESTORING"})
"""States of a disk that pass by themselves."""
LEAVING: Final = frozenset({"DELETING"})


def place_of(disk: Any) -> Place:
    return Place(last(disk.zone), disk.name)


def kind_of(disk: Any) -> str:
    return last(disk.type_)


def holders(disk: Any) -> tuple[str, ...]:
    """The instances that have the disk, as nodes are called."""
    return tuple(sorted(str(place) for place in map(place_of_link, disk.users) if place))


def volume_report(disk: Any) -> VolumeReport:
    place, labels, story = place_of(disk), dict(disk.labels), tags.read_story(disk.description)
    mark = Mark()
    with contextlib.suppress(Conflict):  # spoilt labels are refused where they matter, and must not hide a disk
        mark = tags.read_mark(labels, str(place))
    return VolumeReport(
        external_id=place.external_id,
        pool=pool_name(place.zone, kind_of(disk)),
        size_mib=disk.size_gb * GIB_IN_MIB,
        serial=disk.name,
        token=story.token,
        name=story.name or disk.name,
        epoch=mark.epoch,
        birth=tags.read_birth(labels),
        held_by=holders(disk),
        zone=place.zone,
        labels={**tags.foreign(labels), **story.labels},
    )


def snapshot_report(snapshot: Any) -> SnapshotReport:
    story, source = tags.read_story(snapshot.description), place_of_link(snapshot.source_disk)
    return SnapshotReport(
        external_id=ExternalId(snapshot.name),
        volume=ExternalId(story.volume) if story.volume else source.external_id if source else ExternalId(""),
        size_mib=snapshot.disk_size_gb * GIB_IN_MIB,
        token=story.token,
        created_at=_instant(snapshot.creation_timestamp),
    )


def _instant(text: str) -> float:
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    return 0.0
