"""Whether the platforms can do what the profiles promise: seen when a broker starts, not when the first volume is to be made.

A broker's start asks no platform anything: what only a platform itself knows, such as the names of its service levels, is seen by
`polly doctor`, which asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from storage.errors import Invalid
from storage.model import Pool, Profile, ReclaimPolicy
from storage.platforms.base import Platform


def misfits(profiles: Sequence[Profile], platforms: Mapping[str, Platform]) -> Iterator[Invalid]:
    """What is wrong, profile by profile. A profile that names platforms must fit each of them; any other, one of all."""
    for profile in profiles:
        asked = [platforms[name] for name in profile.platforms or platforms if name in platforms]
        found = [problem for platform in asked if (problem := _misfit(profile, platform))]
        if profile.platforms or (asked and len(found) == len(asked)):
            yield from found


def misfits_in(pools: Sequence[Pool], profiles: Sequence[Profile], platform: Platform) -> Iterator[Invalid]:
    """The parameters that pools of the platform will refuse, though they qualify; the platform is asked. Raises what it raises.

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


def _misfit(profile: Profile, platform: Platform) -> Invalid | None:
    where, able = f"profiles.{profile.name}", platform.capabilities
    if profile.access_mode not in able.access_modes:
        modes = ", ".join(sorted(able.access_modes))
        return Invalid(field=f"{where}.access_mode", value=str(profile.access_mode), reason=f"platform {platform.name} has {modes}")
    if profile.reclaim is ReclaimPolicy.SNAPSHOT_THEN_DELETE and not able.snapshots:
        reason = f'platform {platform.name} has no snapshots; use "retain" or "delete"'
        return Invalid(field=f"{where}.reclaim", value=str(profile.reclaim), reason=reason)
    if able.max_mib is not None and profile.min_mib > able.max_mib:
        reason = f"platform {platform.name} makes volumes of {able.max_mib} MiB at most"
        return Invalid(field=f"{where}.min_mib", value=profile.min_mib, reason=reason)
    if profile.max_mib is not None and (least := able.fit(profile.min_mib)) > profile.max_mib:
        reason = f"platform {platform.name} makes volumes of {least} MiB at least"
        return Invalid(field=f"{where}.max_mib", value=profile.max_mib, reason=reason)
    if problem := _refused(profile, platform, None):
        return Invalid(**{**problem.fields, "reason": f"{problem.fields['reason']}; so says platform {platform.name}"})
    return None


def _refused(profile: Profile, platform: Platform, pool: str | None) -> Invalid | None:
    try:
        platform.check_parameters(profile.parameters, pool=pool)
    except Invalid as error:
        return Invalid(**{**error.fields, "field": f"profiles.{profile.name}.{error.fields['field']}"})
    return None
