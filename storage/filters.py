"""Which records of a long list are asked for. Knows no database, so that whoever asks over HTTP needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.lifecycle import ClaimState, VolumeState
from storage.model import ClaimId, PlacementId, VolumeId


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFilter:
    """Which volumes to list; None means any."""

    platform: str | None = None
    pool: str | None = None
    profile: str | None = None
    zone: str | None = None
    state: VolumeState | None = None
    owner: str | None = None
    role: str | None = None
    name: str | None = None
    external_id: str | None = None
    """What the platform calls it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a volume must have, all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFilter:
    """Which live claims to list; None means any."""

    platform: str | None = None
    state: ClaimState | None = None
    node: str | None = None
    """Its id, or its hostname."""
    scheduler: str | None = None
    volume_id: VolumeId | None = None
    placement_id: PlacementId | None = None
    claim_id: ClaimId | None = None
