"""What `polly doctor` says of a project: reached, let in, allowed all that is needed, and with the zones, types and quotas named.

A right is tried by a call for something that is not there. Who has the right is told so; who has not is told that first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from storage.platforms.base import Finding
from storage.platforms.gce.api import Api
from storage.platforms.gce.failures import Fault
from storage.platforms.gce.kinds import TYPES
from storage.platforms.gce.names import Place, region_of
from storage.platforms.gce.options import GceOptions

SIGN_IN: Final = (
    "name a service account's key with credentials_file, or set GOOGLE_APPLICATION_CREDENTIALS, "
    "or run on an instance whose service account has the scope compute"
)
NOWHERE: Final = "no-such-type"


def check(options: GceOptions, api: Api) -> Sequence[Finding]:
    first = _reached(options, api)
    if not first.ok:
        return [first]
    findings = [first]
    for zone in options.zones:
        findings += _zone(options, api, zone)
    return [*findings, _rights(options, api)]


def _reached(options: GceOptions, api: Api) -> Finding:
    subject = f"project {options.project}"
    try:
        api.zone(options.zones[0])
    except Fault as fault:
        mend = "enable the Compute Engine API, and grant the account the role of docs/platforms/gce.md"
        if fault.signed_out:
            mend = SIGN_IN
        elif not fault.status:  # nobody answered
            mend = f"see that this machine reaches {options.endpoint or 'https://compute.googleapis.com'}, and its name servers and proxies"
        return Finding(ok=False, subject=subject, message=str(fault), mend=mend)
    return Finding(ok=True, subject=subject, message="the API answers, and knows the credentials")


def _zone(options: GceOptions, api: Api, zone: str) -> list[Finding]:
    subject = f"zone {zone}"
    try:
        found = api.zone(zone)
        if found is None:
            return [Finding(ok=False, subject=subject, message="there is no such zone", mend="see: gcloud compute zones list")]
        if found.status != "UP":
            return [Finding(ok=False, subject=subject, message=f"it is {found.status}", mend="use another zone until Google has mended it")]
        quotas = api.quotas(region_of(zone))
        return [_kind(options, api, zone, kind, quotas) for kind in options.types]
    except Fault as fault:
        return [Finding(ok=False, subject=subject, message=str(fault), mend="grant the account the role of docs/platforms/gce.md")]


def _kind(options: GceOptions, api: Api, zone: str, kind: str, quotas: dict[str, tuple[int, int]]) -> Finding:
    subject, quota = f"pool {zone}.{kind}", TYPES[kind].quota
    if api.disk_type(zone, kind) is None:
        return Finding(ok=False, subject=subject, message=f"the zone has no {kind} disks", mend="leave the type out, or use another zone")
    if options.capacity_mib is not None:
        return Finding(ok=True, subject=subject, message=f"it holds {options.capacity_mib} MiB, as capacity_mib says")
    limit, usage = quotas.get(quota, (0, 0))
    if limit <= 0:
        return Finding(ok=False, subject=subject, message=f"region {region_of(zone)} tells no quota {quota}", mend="set capacity_mib")
    return Finding(ok=True, subject=subject, message=f"{limit - usage} GB are left of the {limit} GB of quota {quota}")


def _rights(options: GceOptions, api: Api) -> Finding:
    nothing = f"polly-doctor-{secrets.token_hex(8)}"
    there = Place(options.zones[0], nothing)
    tries: tuple[Callable[[], Any], ...] = (
        lambda: api.insert_disk(there.zone, name=nothing, kind=NOWHERE, size_gb=10),
        lambda: api.disk(there),
        lambda: api.disks(there.zone, page_token="", most=1),
        lambda: api.delete_disk(there),
        lambda: api.resize_disk(there, 20),
        lambda: api.set_labels(there, {}, "AAAA"),
        lambda: api.create_snapshot(there, name=nothing),
        lambda: api.snapshot(nothing),
        lambda: api.snapshots(page_token="", most=1),
        lambda: api.delete_snapshot(nothing),
        lambda: api.instance(there),
        lambda: api.machine_type(there.zone, nothing),
        lambda: api.attach(there, there, device_name=nothing, read_only=False),
        lambda: api.detach(there, nothing),
    )
    missing = [reason for reason in map(_forbidden, tries) if reason]
    if missing:
        mend = "grant the account the role of docs/platforms/gce.md"
        return Finding(ok=False, subject="rights", message="; ".join(dict.fromkeys(missing)), mend=mend)
    return Finding(ok=True, subject="rights", message="the account may do all that is needed")


def _forbidden(attempt: Callable[[], Any]) -> str:
    """What Google says that the account lacks; every other refusal is the one that was looked for."""
    try:
        attempt()
    except Fault as fault:
        return str(fault) if fault.status == 403 else ""
    return ""
