"""What `polly doctor` says of an EBS platform: whether EC2 answers, knows the zones, and lets these credentials do what Polly does.

Rights are asked for as dry runs, which change nothing and are answered even where the ids in them are made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from storage.errors import PlatformError, PlatformUnavailable, PollyError
from storage.platforms.base import Finding
from storage.platforms.ebs.client import Client
from storage.platforms.ebs.making import Making
from storage.platforms.ebs.options import EbsOptions

_VOLUME: Final = "vol-00000000000000000"
_SNAPSHOT: Final = "snap-00000000000000000"
_INSTANCE: Final = "i-00000000000000000"
_ATTACHMENT: Final = {"VolumeId": _VOLUME, "InstanceId": _INSTANCE}


def calls(zone: str) -> Mapping[str, Mapping[str, Any]]:
    """Every action that the adapter uses, with arguments for a dry run."""
    tagged = {"Resources": [_VOLUME], "Tags": [{"Key": "polly:check", "Value": ""}]}
    return {
        "describe_volumes": {},
        "describe_volumes_modifications": {},
        "describe_snapshots": {"OwnerIds": ["self"]},
        "describe_instances": {},
        "describe_instance_types": {},
        "create_volume": {"AvailabilityZone": zone, "Size": 1, "VolumeType": "gp3"},
        "copy_volumes": {"SourceVolumeId": _VOLUME},
        "delete_volume": {"VolumeId": _VOLUME},
        "attach_volume": {**_ATTACHMENT, "Device": "/dev/xvddx"},
        "detach_volume": _ATTACHMENT,
        "modify_volume": {"VolumeId": _VOLUME, "Size": 1},
        "create_snapshot": {"VolumeId": _VOLUME},
        "delete_snapshot": {"SnapshotId": _SNAPSHOT},
        "create_tags": tagged,
        "delete_tags": tagged,
    }


def check(options: EbsOptions, client: Client, making: Making) -> Sequence[Finding]:
    if (unread := _unread(options.credentials_file)) is not None:
        return [unread]
    subject = f"EC2 in {options.region}" + (f" at {options.endpoint_url}" if options.endpoint_url else "")
    try:
        zones = [pool.name for pool in making.pools()]
        return [
            Finding(ok=True, subject=subject, message="it answers, and takes the credentials"),
            *_zones(options, zones),
            *_rights(client, zones),
        ]
    except PlatformUnavailable as error:
        mend = "see that credentials are found (environment, shared credentials file, or instance role) and that the address is reached"
        return [Finding(ok=False, subject=subject, message=str(error), mend=mend)]
    except PlatformError as error:
        mend = "allow it with the policy in docs/platforms/ebs.md"
        return [Finding(ok=False, subject=subject, message=str(error), mend=mend)]
    except PollyError as error:
        return [Finding(ok=False, subject=subject, message=str(error), mend="see the keys of its block in polly.toml")]


def _unread(file: str) -> Finding | None:
    """The SDK takes a file that it cannot read for one without profiles."""
    if not file:
        return None
    try:
        Path(file).open("rb").close()
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        return Finding(ok=False, subject="credentials_file", message=message, mend="correct `credentials_file`, or leave it out")
    return None


def _zones(options: EbsOptions, found: Sequence[str]) -> Iterator[Finding]:
    missing = sorted(set(options.zones) - set(found))
    if missing:
        message = f"there is no zone {', '.join(missing)} that can be used"
        yield Finding(
            ok=False, subject="zones", message=message, mend=f"correct `zones`, or enable them for the account in {options.region}"
        )
    if found:
        yield Finding(ok=True, subject="zones", message=f"pools are {', '.join(found)}, of {options.capacity_gib} GiB each as configured")
    elif not missing:
        yield Finding(ok=False, subject="zones", message="the region has no zone that can be used", mend="see `region`")


def _rights(client: Client, zones: Sequence[str]) -> Iterator[Finding]:
    wanted = calls(zones[0] if zones else "")
    refused = [action for action, asked in wanted.items() if client.may(action, client.doing(f"ask for the right to {action}"), **asked)]
    if refused:
        names = ", ".join(f"ec2:{_as_iam(action)}" for action in refused)
        mend = "allow them with the policy in docs/platforms/ebs.md"
        yield Finding(ok=False, subject="rights", message=f"the credentials may not call {names}", mend=mend)
    else:
        yield Finding(ok=True, subject="rights", message=f"the credentials may call all {len(wanted)} actions that Polly uses")


def _as_iam(action: str) -> str:
    return "".join(part.capitalize() for part in action.split("_"))
