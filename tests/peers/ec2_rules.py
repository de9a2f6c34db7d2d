"""What real EC2 refuses of volumes and moto lets pass: each rule with EC2's code. Knows no server and keeps no state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tests.peers.ec2_wire import Call, Refused

HEX = r"([0-9a-f]{8}|[0-9a-f]{17})"
DEVICE = re.compile(r"(/dev/)?(sd[b-z][0-9]{0,2}|xvd[a-d]?[a-z]|hd[a-z])")
VOLUME_FILTERS = frozenset(
    {
        *(f"attachment.{name}" for name in ("attach-time", "delete-on-termination", "device", "instance-id", "status")),
        *("availability-zone", "availability-zone-id", "create-time", "encrypted", "fast-restored", "multi-attach-enabled"),
        *("operator.managed", "operator.principal", "size", "snapshot-id", "status", "tag-key", "volume-id", "volume-type"),
    }
)
SNAPSHOT_FILTERS = frozenset(
    {
        *("description", "encrypted", "owner-alias", "owner-id", "progress", "snapshot-id", "start-time", "status"),
        *("storage-tier", "transfer-type", "tag-key", "volume-id", "volume-size"),
    }
)
ALL_TAGS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    sizes: tuple[int, int]
    iops: tuple[int, int] | None = None
    per_gib: int = 0
    needs_iops: bool = False
    throughput: bool = False
    multi_attach: bool = False


KINDS: Mapping[str, Kind] = {
    "standard": Kind(sizes=(1, 1024)),
    "gp2": Kind(sizes=(1, 16384)),
    "gp3": Kind(sizes=(1, 65536), iops=(3000, 80000), per_gib=500, throughput=True),
    "io1": Kind(sizes=(4, 16384), iops=(100, 64000), per_gib=50, needs_iops=True, multi_attach=True),
    "io2": Kind(sizes=(4, 65536), iops=(100, 256000), per_gib=1000, needs_iops=True, multi_attach=True),
    "st1": Kind(sizes=(125, 16384)),
    "sc1": Kind(sizes=(125, 16384)),
}


def check_id(prefix: str, text: str, name: str) -> None:
    if not text.startswith(f"{prefix}-"):
        raise Refused("InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid. Expected: '{prefix}-...'.")
    if not re.fullmatch(f"{prefix}-{HEX}", text):
        code = {"vol": "InvalidVolumeID.Malformed", "snap": "InvalidSnapshotID.Malformed", "i": "InvalidInstanceID.Malformed"}[prefix]
        raise Refused(code, f'Invalid id: "{text}"')


def check_filters(call: Call, known: frozenset[str]) -> None:
    for name, values in call.filters().items():
        if name not in known and not name.startswith("tag:"):
            raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
        if len(values) > 200:
            raise Refused("FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200")


def page_size(call: Call, ids: str) -> int:
    """How many items one page has; 0 for all. MaxResults and ids exclude each other."""
    if not (given := call.get("MaxResults")):
        return 0
    if call.many(ids):
        raise Refused("InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter maxResults")
    if not given.isdigit() or not 5 <= int(given) <= 1000:
        raise Refused("InvalidParameterValue", f"Value ( {given} ) for parameter maxResults is invalid. Expecting a value from 5 to 1000.")
    return min(int(given), 500)


def check_new_volume(call: Call, snapshot_gib: int | None) -> int:
    """Returns the size in GiB. `snapshot_gib` is the size of the snapshot that it starts from."""
    name = call.get("VolumeType") or "gp2"
    if name not in KINDS:
        raise Refused("UnknownVolumeType", f"Unsupported volume type '{name}' for volume creation.")
    if not call.get("Size") and snapshot_gib is None:
        raise Refused("MissingParameter", "The request must contain the parameter size/snapshot")
    size = int(call.get("Size") or snapshot_gib or 0)
    check_size(name, size)
    if snapshot_gib is not None and size < snapshot_gib:
        raise Refused("InvalidParameterValue", f"The specified size '{size}' is smaller than snapshot size '{snapshot_gib}'.")
    _check_iops(name, call.get("Iops"), size)
    _check_throughput(name, call.get("Throughput"), int(call.get("Iops") or 3000))
    if call.get("MultiAttachEnabled") == "true" and not KINDS[name].multi_attach:
        raise Refused("InvalidParameterCombination", f"The parameter multiAttachEnabled is not supported for {name} volumes.")
    if call.get("KmsKeyId") and call.get("Encrypted") != "true":
        raise Refused("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
    return size


def check_size(name: str, size: int) -> None:
    least, most = KINDS[name].sizes
    if not least <= size <= most:
        words = "too small" if size < least else "too large"
        raise Refused(
            "InvalidParameterValue", f"Volume of {size}GiB is {words} for volume type {name}; {least} to {most} GiB are supported"
        )


def _check_iops(name: str, given: str, size: int) -> None:
    kind = KINDS[name]
    if kind.iops is None:
        if given:
            raise Refused("InvalidParameterCombination", f"The parameter iops is not supported for {name} volumes.")
        return
    if not given:
        if kind.needs_iops:
            raise Refused("MissingParameter", f"When specifying volume type {name}, the parameter iops is required.")
        return
    least, most = kind.iops
    if not least <= int(given) <= most:
        raise Refused("InvalidParameterValue", f"Volume iops of {given} is not between {least} and {most} for volume type {name}.")
    if int(given) > max(least, kind.per_gib * size):
        raise Refused("InvalidParameterValue", f"Iops to volume size ratio of {given} is too high; maximum is {kind.per_gib}.")


def _check_throughput(name: str, given: str, iops: int) -> None:
    if not given:
        return
    if not KINDS[name].throughput:
        raise Refused("InvalidParameterCombination", f"The parameter throughput is not supported for {name} volumes.")
    if not 125 <= int(given) <= 2000:
        raise Refused("InvalidParameterValue", f"Throughput of {given} is not between 125 and 2000.")
    if int(given) > iops / 4:
        raise Refused("InvalidParameterValue", f"Throughput (MiBps) to iops ratio of {int(given) / iops} is too high; maximum is 0.25.")


def check_device(device: str, in_use: Mapping[str, str]) -> None:
    if not DEVICE.fullmatch(device):
        raise Refused(
            "InvalidParameterValue", f"Value ({device}) for parameter device is invalid. {device} is not a valid EBS device name."
        )
    if device in in_use:
        words = f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
        raise Refused("InvalidParameterValue", words)


def check_tags(wanted: Mapping[str, str], present: int) -> None:
    for key, value in wanted.items():
        if key.lower().startswith("aws:"):
            raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        if len(key) > 128 or not key:
            raise Refused("InvalidParameterValue", f"Tag key exceeds the maximum length of 128 characters: '{key}'")
        if len(value) > 256:
            raise Refused("InvalidParameterValue", f"Tag value exceeds the maximum length of 256 characters: '{value}'")
    if present + len(wanted) > ALL_TAGS:
        raise Refused("TagLimitExceeded", f"The maximum number of tags for a resource has been reached: {ALL_TAGS}.")
