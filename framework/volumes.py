"""What people ask to have done to volumes: create, import, delete, expand. Each verb stores its intent before a platform hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from framework.deleting import Deleting, is_born
from framework.fitting import made_mib
from framework.growing import MOST_MIB
from framework.origins import Origin
from framework.service import ImportOrder, VolumeOrder
from framework.turning import InTurn
from framework.verbs import fulfilled
from storage.errors import (
    BornAsAnother,
    Invalid,
    NotOnPlatform,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownPlatform,
    UnknownPool,
    UnknownVolume,
)
from storage.inventory import NewVolume
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Pool, Profile, Volume, VolumeId
from storage.platforms.base import VolumeReport


class Volumes(Deleting):
    """The verbs on volumes, and those on their snapshots."""

    # --- create ---------------------------------------------------------------------------------

    def create(self, order: VolumeOrder, actor: str) -> Future[Volume]:
        """Takes capacity for a volume: empty, from a snapshot, or to be a clone. It is made by its first claim, on the node."""
        profile, name = self._config.profile(order.profile), _checked_name(order.name)
        origin = self.origin_of(order, profile)
        size_mib = _checked_size(order.size_mib or (origin.size_mib if origin else None), profile)
        if origin and size_mib < origin.size_mib:
            reason = f"{origin.what} has {origin.size_mib} MiB, and a volume from it at least that"
            raise Invalid(field="size", value=f"{size_mib} MiB", reason=reason)
        pool, there_mib = self._roomiest(profile, size_mib, origin)
        new = self._new(name, profile, pool, size_mib, there_mib, origin)
        with self._ledger.begin(actor) as tx:
            volume = tx.plan(new, token=self._ids())
        self._changed([volume])
        return fulfilled(volume)

    def _new(self, name: str, profile: Profile, pool: Pool, asked_mib: int, there_mib: int, origin: Origin | None) -> NewVolume:
        return NewVolume(
            volume_id=VolumeId(self._ids()),
            name=name,
            platform=pool.platform,
            pool=pool.name,
            size_mib=there_mib,
            asked_mib=asked_mib,
            profile=profile.name,
            access_mode=profile.access_mode,
            filesystem=profile.filesystem,
            region=pool.region,
            zone=pool.zone,
            labels=profile.labels,
            snapshot=origin.snapshot if origin else None,
            source=origin.source if origin else None,
        )

    def _roomiest(self, profile: Profile, size_mib: int, origin: Origin | None) -> tuple[Pool, int]:
        """Where most is left over, and what the platform will make of the size there. Raises Invalid, PlatformUnavailable, PoolFull."""
        pools = [pool for pool in self._ledger.pools() if origin is None or origin.has(pool)]
        qualified = [pool for pool in pools if profile.qualifies(pool)]
        if not qualified:
            raise Invalid(field="profile", value=profile.name, reason=self._unqualified(origin, pools))
        awake = [pool for pool in qualified if pool.online]
        if not awake:
            best = max(qualified, key=lambda pool: (pool.silent_since, pool.platform, pool.name))
            reason = best.silence or f"its pool {best.name} is not reported any more"
            raise PlatformUnavailable(platform=best.platform, action=f"make a volume in pool {best.name}", reason=reason)
        sized = self._sized(profile, awake, size_mib)
        best, there_mib = max(sized, key=lambda one: (one[0].free_mib - one[1], one[0].platform, one[0].name))
        if best.free_mib < there_mib:
            raise PoolFull(pool=best.name, platform=best.platform, free_mib=best.free_mib, size_mib=there_mib)
        return best, there_mib

    def _sized(self, profile: Profile, pools: Sequence[Pool], size_mib: int) -> Sequence[tuple[Pool, int]]:
        """Those that can have such a volume, each with its size there. Raises what the first says where none can."""
        sized: list[tuple[Pool, int]] = []
        refusals: list[PollyError] = []
        for pool in pools:
            try:
                sized.append((pool, made_mib(size_mib, profile, self.platform(pool.platform), pool.name)))
            except (Invalid, UnknownPlatform, UnknownPool) as error:
                refusals.append(error)
        if not sized:
            raise refusals[0]
        return sized

    def _unqualified(self, origin: Origin | None, pools: Sequence[Pool]) -> str:
        if origin is None:
            return "no pool qualifies for it; see: polly inventory"
        where = f"{origin.platform}/{origin.pool}" if origin.pool else f"platform {origin.platform}"
        others = sorted(name for name, other in self._config.profiles.items() if any(map(other.qualifies, pools)))
        instead = f"name one of {', '.join(others)}" if others else "see: polly inventory"
        return f"a volume from {origin.what} is made on {where}, and no pool there qualifies for this profile; {instead}"

    # --- import ---------------------------------------------------------------------------------

    def adopt(self, order: ImportOrder, actor: str) -> Future[Volume]:
        """Takes over a volume that Polly did not make. Its filesystem is looked at, never made. Raises BornAsAnother."""
        platform, profile = self.platform(order.platform), self._config.profile(order.profile)
        _checked_name(order.name)

        def store(report: VolumeReport, turn: InTurn) -> Volume:
            if report.birth is not None and not is_born(report):
                raise BornAsAnother(platform=order.platform, external_id=report.external_id, serial=report.birth.serial)
            pool = next((pool for pool in self._ledger.pools(order.platform) if pool.name == report.pool), None)
            with turn.begin(actor) as tx:
                volume = tx.adopt(_imported(report, order, profile, VolumeId(self._ids()), pool, self._clock()))
            self._changed([volume])
            return volume

        def job(_: InTurn) -> VolumeReport:
            try:
                return platform.inspect(ExternalId(order.external_id))
            except UnknownVolume as error:
                raise NotOnPlatform(platform=order.platform, volume=order.external_id) from error

        return self._run(order.platform, f"import {order.platform} {order.external_id}", job, store)


def _checked_name(name: str) -> str:
    if not name or len(name) > 255 or not name.isprintable():
        raise Invalid(field="name", value=name, reason="a name has 1 to 255 printable characters")
    return name


def _checked_size(size_mib: int | None, profile: Profile) -> int:
    if size_mib is None or not 0 < size_mib <= MOST_MIB:
        raise Invalid(field="size_mib", value=size_mib, reason="give the size in MiB, more than 0")
    if size_mib < profile.min_mib or (profile.max_mib is not None and size_mib > profile.max_mib):
        top = "no maximum" if profile.max_mib is None else f"{profile.max_mib} MiB"
        raise Invalid(field="size", value=f"{size_mib} MiB", reason=f"profile {profile.name} allows {profile.min_mib} MiB to {top}")
    return size_mib


def _imported(report: VolumeReport, order: ImportOrder, profile: Profile, volume_id: VolumeId, pool: Pool | None, now: float) -> Volume:
    return Volume(
        volume_id=volume_id,
        name=order.name,
        platform=order.platform,
        pool=report.pool,
        size_mib=report.size_mib,
        profile=profile.name,
        state=VolumeState.AVAILABLE,
        external_id=report.external_id,
        token=report.token,
        epoch=report.epoch,
        access_mode=profile.access_mode,
        filesystem=profile.filesystem,
        birth=report.birth,
        region=pool.region if pool else "",
        zone=report.zone or (pool.zone if pool else ""),
        labels={**profile.labels, **report.labels},
        created_at=now,
    )
