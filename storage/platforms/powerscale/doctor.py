"""What `polly doctor` says of a PowerScale cluster: the login, the API, the rights, the zone, the base path, the licences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from storage.errors import Invalid, PlatformUnavailable, PollyError
from storage.platforms.base import Finding
from storage.platforms.passwords import exposed
from storage.platforms.powerscale.onefs import NotThere, OneFs, Refused
from storage.platforms.powerscale.options import PowerScaleOptions
from storage.platforms.restapi import KEYS

OLDEST: Final = 12
"""The version of the platform API that came with OneFS 9.2."""
WRITE: Final = ("ISI_PRIV_NFS", "ISI_PRIV_QUOTA", "ISI_PRIV_SNAPSHOT", "ISI_PRIV_JOB_ENGINE")
READ: Final = (
    "ISI_PRIV_LOGIN_PAPI",
    "ISI_PRIV_NS_IFS_ACCESS",
    "ISI_PRIV_NS_TRAVERSE",
    "ISI_PRIV_IFS_BACKUP",
    "ISI_PRIV_IFS_RESTORE",
    "ISI_PRIV_STATISTICS",
    "ISI_PRIV_AUTH_ZONES",
    "ISI_PRIV_LICENSE",
)
LICENSES: Final = ("SmartQuotas", "SnapshotIQ")
DEAD: Final = ("Unlicensed", "Expired", "Inactive")


def check(options: PowerScaleOptions, onefs: OneFs) -> list[Finding]:
    try:
        latest = onefs.latest()
    except PlatformUnavailable as error:
        mend = "Check endpoint, ca_file, username and password_file, and that this machine reaches the cluster."
        return [Finding(ok=False, subject=options.endpoint, message=str(error), mend=mend)]
    except Invalid as error:
        return [Finding(ok=False, subject=options.endpoint, message=str(error), mend=KEYS)]
    except (PollyError, Refused) as error:
        return [Finding(ok=False, subject=options.endpoint, message=str(error), mend="Check that `endpoint` is the cluster's management.")]
    message = f"OneFS with version {latest} of its API, reached as {options.username}"
    found = [_judged(latest >= OLDEST, options.endpoint, message, "Polly needs OneFS 9.2 or later.")]
    found.extend(exposed(options.password_file))
    for look in (_rights, _zone, _base, _licenses) if latest >= OLDEST else ():
        try:
            found.extend(look(options, onefs))
        except (PollyError, Refused) as error:
            found.append(Finding(ok=False, subject=options.endpoint, message=str(error), mend="Give the user the right to see it."))
    return found


def _rights(options: PowerScaleOptions, onefs: OneFs) -> Iterator[Finding]:
    token = onefs.get("look at the user's rights", "auth/id").part("ntoken")
    held = {str(one["id"]): _may_write(one) for one in token.objects("privilege", optional=True)}
    lacks = [f"{name} (write)" for name in WRITE if not held.get(name)] + [f"{name} (read)" for name in READ if name not in held]
    message = f"the user lacks {', '.join(lacks)}" if lacks else "the user has the rights that Polly needs"
    yield _judged(not lacks, options.username, message, "Give the user's role these privileges.")


def _may_write(privilege: object) -> bool:
    """Older versions say `read_only`, newer ones `permission`."""
    if not isinstance(privilege, dict):
        return False
    return str(privilege["permission"]).lower() == "w" if "permission" in privilege else not privilege.get("read_only")


def _zone(options: PowerScaleOptions, onefs: OneFs) -> Iterator[Finding]:
    subject = f"access zone {options.access_zone}"
    try:
        zones = onefs.get("look at the access zone", f"zones/{options.access_zone}").objects("zones")
    except NotThere:
        zones = []
    if not zones:
        yield Finding(ok=False, subject=subject, message="there is no such access zone", mend="Make it, or name another as `access_zone`.")
        return
    path = str(zones[0]["path"]).rstrip("/")
    inside = f"{options.base_path}/".startswith(f"{path}/")
    message = f"its root is {path}, and the base path is {'' if inside else 'not '}below it"
    yield _judged(inside, subject, message, "Name a base path of this zone.")


def _base(options: PowerScaleOptions, onefs: OneFs) -> Iterator[Finding]:
    there = onefs.is_there("look at the base path", options.base_path)
    message = f"the folder is there; nodes mount from {options.server}" if there else "there is no such folder"
    yield _judged(there, options.base_path, message, "Make the folder, owned by Polly's user.")


def _licenses(options: PowerScaleOptions, onefs: OneFs) -> Iterator[Finding]:
    for name in LICENSES:
        said = onefs.get("look at licences", f"license/licenses/{name}").objects("licenses")
        status = str(said[0]["status"]) if said else "Unlicensed"
        yield _judged(status not in DEAD, name, f"its licence is {status}", "Activate the licence on the cluster.")


def _judged(ok: bool, subject: str, message: str, mend: str) -> Finding:
    return Finding(ok=ok, subject=subject, message=message, mend="" if ok else mend)
