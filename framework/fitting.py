"""Whether the platforms can do what the profiles promise: seen when a broker starts, not when the first volume is to be made.

A broker's start asks no platform anything: what only a platform itself knows, such as the names of its service levels, is seen by
`polly doctor`, which asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from framework.config import PlatformConfig
from storage.errors import Invalid, PollyError, UnknownPool
from storage.model import Pool, Profile, ReclaimPolicy, Sizes
from storage.platforms.base import Platform
from storage.platforms.registry import whereabouts


def misfits(profiles: Sequence[Profile], platforms: Mapping[str, Platform]) -> Iterator[Invalid]:
    """What is wrong, profile by profile. A profile that names platforms must fit each of them; any other, one of all."""
    for profile in profiles:
        asked = [platforms[name] for name in profile.platforms or platforms if name in platforms]
        found = [problem for platform in asked if (problem := _misfit(profile, platform))]
        if profile.platforms or (asked and len(found) == len(asked)):
            yield from found


def misfits_in(pools: Sequence[Pool], profiles: Sequence[Profile], platform: Platform) -> Iterator[Invalid]:
    """What pools of the platform will refuse, parameters or any size, though they qualify; the platform is asked. Raises what it raises.

    Without those that `misfits` tells of a profile that names the platform.
    """
    for profile in profiles:
        if platform.name in profile.platforms and _refused(profile, platform, None):
            continue
        qualified = [pool.name for pool in pools if profile.qualifies(pool)]
        refusals = {pool: problem for pool in qualified if (problem := _refused(profile, platform, pool))}
        if refusals:
            problem = next(iter(refusals.values()))
            where = f"pool {', '.join(refusals)} of platform {platform.name}"
            yield Invalid(**{**problem.fields, "reason": f"{problem.fields['reason']}; so says {where}"})


def made_mib(size_mib: int, profile: Profile, platform: Platform, pool: str | None = None) -> int:
    """The size that a volume of the profile gets: in this pool, or without one in some pool of the platform.

    Raises Invalid for a size that it cannot have, or a parameter of the profile that goes with no such size; UnknownPool.
    """
    made = _fitting(size_mib, profile, platform, pool)
    if profile.max_mib is not None and made > profile.max_mib:
        reason = f"platform {platform.name} makes it {made} MiB, and profile {profile.name} allows {profile.max_mib} MiB"
        raise Invalid(field="size", value=f"{size_mib} MiB", reason=reason)
    return made


def check_size(size_mib: int, profile: Profile, platforms: Mapping[str, Platform], pools: Sequence[Pool]) -> None:
    """Raises Invalid for a size that a volume of the profile can have in no pool: what the first says of it."""
    places: list[tuple[Platform, str | None]] = [
        (platforms[pool.platform], pool.name) for pool in pools if pool.platform in platforms and profile.qualifies(pool)
    ]
    refusals: list[Invalid] = []
    for platform, pool in places or [(platforms[name], None) for name in profile.platforms if name in platforms]:
        try:
            made_mib(size_mib, profile, platform, pool)
            return
        except Invalid as error:
            refusals.append(error)
        except UnknownPool:
            continue
    if refusals:
        raise refusals[0]


def sizes_in(platform: Platform, parameters: Mapping[str, str], pool: str) -> Sizes | None:
    """What placing must know of a pool; None: no volume with these parameters can be there, or the platform has no such pool any more."""
    try:
        return platform.sizes(parameters, pool=pool)
    except (Invalid, UnknownPool):
        return None


def doubles(blocks: Mapping[str, PlatformConfig], pools: Sequence[Pool]) -> Iterator[str]:
    """A sentence for each two platforms that are one storage system and account, and give out the same room twice."""
    there = {name: (block.keys.kind, where) for name, block in blocks.items() if (where := _whereabouts(block))}
    for one, other in combinations(sorted(there), 2):
        if there[one] == there[other] and (same := sorted(_given_out(pools, one) & _given_out(pools, other))):
            place = ", ".join(f"{key} {value}" for key, value in there[one][1].items())
            yield f"platforms {one} and {other} are one, {place}: each gives out all of {', '.join(same)}"


def _whereabouts(block: PlatformConfig) -> Mapping[str, str]:
    """Empty also for a block that cannot be read, of which others tell."""
    try:
        return whereabouts(block.name, block.keys.kind, block.settings)
    except PollyError:
        return {}


def _given_out(pools: Sequence[Pool], platform: str) -> set[str]:
    mine = [pool for pool in pools if pool.platform == platform]
    return {f"pool {pool.name}" for pool in mine} | {f"what its pools share, {pool.room}" for pool in mine if pool.room}


def _misfit(profile: Profile, platform: Platform) -> Invalid | None:
    where, able = f"profiles.{profile.name}", platform.capabilities
    if profile.access_mode not in (modes := platform.access_modes(profile.parameters)):
        made_so = " for volumes with these parameters" if profile.access_mode in able.access_modes else ""
        reason = f"platform {platform.name} has {', '.join(sorted(modes))}{made_so}"
        return Invalid(field=f"{where}.access_mode", value=str(profile.access_mode), reason=reason)
    if profile.reclaim is ReclaimPolicy.SNAPSHOT_THEN_DELETE and not able.snapshots:
        reason = f'platform {platform.name} has no snapshots; use "retain" or "delete"'
        return Invalid(field=f"{where}.reclaim", value=str(profile.reclaim), reason=reason)
    if problem := _refused(profile, platform, None):
        return Invalid(**{**problem.fields, "reason": f"{problem.fields['reason']}; so says platform {platform.name}"})
    return None


def _refused(profile: Profile, platform: Platform, pool: str | None) -> Invalid | None:
    """Why no volume of the profile can be in the pool, whatever its size."""
    try:
        platform.check_parameters(profile.parameters, pool=pool)
    except Invalid as error:
        return _of_profile(profile, error)
    sizes = platform.sizes(profile.parameters, pool=pool)
    if sizes.max_mib is not None and profile.min_mib > sizes.max_mib:
        reason = f"a volume of {sizes.of} has {sizes.max_mib} MiB at most"
        return Invalid(field=f"profiles.{profile.name}.min_mib", value=profile.min_mib, reason=reason)
    if profile.max_mib is None:
        return None
    if (least := sizes.rounded(profile.min_mib)) > profile.max_mib:
        reason = f"a volume of {sizes.of} has {least} MiB at least"
        return Invalid(field=f"profiles.{profile.name}.max_mib", value=profile.max_mib, reason=reason)
    largest = min(profile.max_mib, sizes.max_mib or profile.max_mib) // sizes.granularity_mib * sizes.granularity_mib
    try:
        _fitting(largest, profile, platform, pool)
    except Invalid as error:
        return error
    return None


def _fitting(size_mib: int, profile: Profile, platform: Platform, pool: str | None) -> int:
    try:
        return platform.fit(size_mib, profile.parameters, pool=pool)
    except Invalid as error:
        raise _of_profile(profile, error) from error


def _of_profile(profile: Profile, error: Invalid) -> Invalid:
    """The same, with a parameter named as polly.toml has it."""
    field = str(error.fields["field"])
    return Invalid(**{**error.fields, "field": f"profiles.{profile.name}.{field}" if field.startswith("parameters.") else field})
