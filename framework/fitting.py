"""Whether the platforms can do what the profiles promise: seen when a broker starts, not when the first volume is to be made.

Looks at what the adapters say of themselves, and asks no platform anything. What a platform only refuses when it is asked, such
as a parameter that it does not know, is seen then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from storage.errors import Invalid
from storage.model import Profile, ReclaimPolicy
from storage.platforms.base import Capabilities


def misfits(profiles: Sequence[Profile], able: Mapping[str, Capabilities]) -> Iterator[Invalid]:
    """What is wrong, profile by profile. A profile that names platforms must fit each of them; any other, one of all."""
    for profile in profiles:
        found = {name: problem for name in profile.platforms or able if name in able and (problem := _misfit(profile, name, able[name]))}
        if profile.platforms or (able and len(found) == len(able)):
            yield from found.values()


def _misfit(profile: Profile, platform: str, able: Capabilities) -> Invalid | None:
    where = f"profiles.{profile.name}"
    if profile.access_mode not in able.access_modes:
        modes = ", ".join(sorted(able.access_modes))
        return Invalid(field=f"{where}.access_mode", value=str(profile.access_mode), reason=f"platform {platform} has {modes}")
    if profile.reclaim is ReclaimPolicy.SNAPSHOT_THEN_DELETE and not able.snapshots:
        return Invalid(
            field=f"{where}.reclaim", value=str(profile.reclaim), reason=f'platform {platform} has no snapshots; use "retain" or "delete"'
        )
    if able.max_mib is not None and profile.min_mib > able.max_mib:
        return Invalid(
            field=f"{where}.min_mib", value=profile.min_mib, reason=f"platform {platform} makes volumes of {able.max_mib} MiB at most"
        )
    if profile.max_mib is not None and (least := able.fit(profile.min_mib)) > profile.max_mib:
        return Invalid(field=f"{where}.max_mib", value=profile.max_mib, reason=f"platform {platform} makes volumes of {least} MiB at least")
    return None
