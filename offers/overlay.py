"""The overlay: the disk that Polly's storage could bring to an agent, written as Mesos writes disk resources.

Mesos never offered it, so it is shown and matched but never sent back. Agents that see the same storage get the same overlay,
so a large batch of offers costs a handful of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offers.records import UNRESERVED, Offer
from offers.resources import Json
from offers.rooms import Agent, default_slots
from offers.supply import Supply, Vantage
from offers.view import PlatformView, StorageView
from storage.lifecycle import VolumeState
from storage.model import Pool, Profile, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A pool in reach, and the largest volume that it could give."""

    pool: Pool
    profile: Profile | None
    """The profile by which it qualifies; None where the view names no profiles."""
    size_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What one agent can reach. `slots` names the platforms with a limit and how many more volumes fit."""

    region: str
    zone: str
    shares: tuple[Share, ...] = ()
    volumes: tuple[Volume, ...] = ()
    slots: Mapping[str, int] = field(default_factory=dict)
    platforms: Mapping[str, PlatformView] = field(default_factory=dict)


def overlay(offer: Offer, storage: StorageView, volumes: Sequence[Volume] = ()) -> Overlay:
    """The overlay of one offer's agent. volumes: those that pending tasks want; never the whole ledger."""
    return overlays((offer,), storage, volumes)[offer.agent_id]


def overlays(offers: Iterable[Offer], storage: StorageView, volumes: Sequence[Volume] = ()) -> dict[str, Overlay]:
    """The overlays of many agents by agent id. Those of equal reach and slots are one and the same object."""
    supply, defaults = Supply(storage), default_slots(storage)
    made: dict[tuple[Vantage, tuple[tuple[str, int], ...]], Overlay] = {}
    found: dict[str, Overlay] = {}
    for offer in offers:
        if offer.agent_id not in found:
            agent = Agent(offer)
            agent.count_slots(storage.slots, defaults)
            key = (supply.vantage(agent), tuple(agent.slots.items()))
            if key not in made:
                made[key] = _overlay(key[0], agent.slots, storage, volumes)
            found[offer.agent_id] = made[key]
    return found


def _overlay(vantage: Vantage, slots: Mapping[str, int], storage: StorageView, volumes: Sequence[Volume]) -> Overlay:
    full = {platform for platform, left in slots.items() if left <= 0}
    pools = [stock.pool for stock in vantage.pools if stock.platform not in full]
    shares = [share for profile in storage.profiles or (None,) for pool in pools if (share := _share(pool, profile, storage)) is not None]
    near = [v for v in volumes if v.platform not in full and vantage.refuses(v.platform, v.region, v.zone) is None and v.state in _USABLE]
    return Overlay(
        region=vantage.region, zone=vantage.zone, shares=tuple(shares), volumes=tuple(near), slots=dict(slots), platforms=storage.platforms
    )


_USABLE = frozenset({VolumeState.PLANNED, VolumeState.AVAILABLE})


def _share(pool: Pool, profile: Profile | None, storage: StorageView) -> Share | None:
    """None where the pool does not qualify or has no room for even the smallest volume."""
    platform = storage.platform(pool.platform)
    sizes = platform.sizes(profile, pool)
    if sizes is None or (profile is not None and not platform.suits(profile, pool)):
        return None
    limits = (sizes.max_mib, profile.max_mib if profile is not None else None)
    largest = min([pool.free_mib, *[limit for limit in limits if limit is not None]])
    size = largest // sizes.granularity_mib * sizes.granularity_mib
    least = sizes.rounded(profile.min_mib if profile is not None else 1)
    return Share(pool=pool, profile=profile, size_mib=size) if size >= least else None


def overlay_resources(overlay: Overlay, role: str = UNRESERVED) -> list[Json]:
    """The overlay as Mesos Resource JSON, allocated to `role`.

    A pool is a RAW disk with its profile, a volume a MOUNT disk (BLOCK where it has no filesystem) with its id, and
    `provider_id` names the platform.
    """
    return [_pool_disk(share, overlay, role) for share in overlay.shares] + [
        _volume_disk(volume, overlay, role) for volume in overlay.volumes
    ]


def _pool_disk(share: Share, overlay: Overlay, role: str) -> Json:
    pool = share.pool
    source: Json = {"type": "RAW"}
    if share.profile is not None:
        source["profile"] = share.profile.name
    return _disk(pool.platform, share.size_mib, source, {"pool": pool.name, "region": pool.region, "zone": pool.zone}, overlay, role)


def _volume_disk(volume: Volume, overlay: Overlay, role: str) -> Json:
    source: Json = {"type": "MOUNT" if volume.filesystem else "BLOCK", "id": volume.volume_id}
    if volume.profile:
        source["profile"] = volume.profile
    labels = {"name": volume.name, "pool": volume.pool, "region": volume.region, "zone": volume.zone}
    return _disk(volume.platform, volume.size_mib, source, labels, overlay, role)


def _disk(platform: str, size_mib: int, source: Json, labels: Mapping[str, str], overlay: Overlay, role: str) -> Json:
    view = overlay.platforms.get(platform) or PlatformView(name=platform)
    metadata: dict[str, Any] = {"labels": [{"key": key, "value": value} for key, value in labels.items() if value]}
    return {
        "name": "disk",
        "type": "SCALAR",
        "scalar": {"value": float(size_mib)},
        "allocation_info": {"role": role},
        "provider_id": {"value": platform},
        "disk": {"source": {**source, "vendor": view.vendor, "metadata": metadata}},
    }
