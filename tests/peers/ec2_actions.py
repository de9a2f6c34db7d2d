"""EC2's actions as the front does them: what moto does wrong is refused or done here, the rest is moto's.

Each action is a function of this table; one that is not in it goes to moto as it is. They run one at a time.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol
from xml.etree.ElementTree import Element, SubElement

from tests.peers import ec2_rules as rules
from tests.peers.ec2_ledger import Growth, Later, Ledger
from tests.peers.ec2_wire import Call, Refused, answer_to, put, text

ACCOUNT = "123456789012"
"""Moto's own, which all credentials lead to."""
HOLD_S = 6 * 3600.0
"""How long EC2 lets a volume rest after it was modified."""


class Amazon(Protocol):
    """What the actions need of the front: moto, the ledger, time, and what a test has set."""

    ledger: Ledger
    lasting: dict[str, float]
    quota_gib: int | None
    attach_limit: int

    def ask(self, call: Call) -> Element: ...

    def tagged(self, key: str, value: str) -> set[str]: ...

    def now(self) -> float: ...


def until(amazon: Amazon, what: str) -> float:
    return amazon.now() + amazon.lasting.get(what, 0.0)


# --- looking -----------------------------------------------------------------------------------------------


def volumes(amazon: Amazon, call: Call) -> list[Element]:
    """Volumes as EC2 would show them at this moment."""
    plain = Call(action="DescribeVolumes", parameters={**call.parameters, "Action": "DescribeVolumes"})
    items = _asked(amazon, plain.without("MaxResults", "NextToken", "DryRun"), "VolumeId", "volumeSet/item")
    for item in items:
        _overlay(amazon, item)
    return sorted(items, key=lambda item: text(item, "volumeId"))


def _asked(amazon: Amazon, call: Call, ids: str, items: str) -> list[Element]:
    """What moto has. Ids and whole tags become a question for these alone, which it answers without looking at all."""
    filters, wanted = call.filters(), set(call.many(ids))
    for name, values in call.filters().items():
        exact = not any(letter in value for value in values for letter in "*?\\")
        if name in ("volume-id", "snapshot-id"):
            wanted = set(filters.pop(name))
        elif name.startswith("tag:") and exact:
            found = {one for value in values for one in amazon.tagged(name.removeprefix("tag:"), value)}
            wanted = found & wanted if wanted else found
            filters.pop(name)
            if not wanted:
                return []
    bare = call.without(rf"{ids}\..*").with_filters(filters)
    together = bare.changed(**{f"{ids}.{number}": one for number, one in enumerate(sorted(wanted), 1)})
    try:
        return amazon.ask(together).findall(items)
    except Refused as refusal:
        if not refusal.code.endswith(".NotFound"):
            raise
    each = [bare.changed(**{f"{ids}.1": one}) for one in sorted(wanted)]
    return [item for one in each for item in _found(amazon, one, items)]


def _found(amazon: Amazon, call: Call, items: str) -> list[Element]:
    try:
        return amazon.ask(call).findall(items)
    except Refused as refusal:
        if refusal.code.endswith(".NotFound"):
            return []
        raise


def _overlay(amazon: Amazon, item: Element) -> None:
    ledger, volume_id, now = amazon.ledger, text(item, "volumeId"), amazon.now()
    attachments = item.find("attachmentSet")
    attachments = SubElement(item, "attachmentSet") if attachments is None else attachments
    for (volume, node), device in ledger.extra.items():
        if volume == volume_id:
            _attachment(SubElement(attachments, "item"), volume, node, device, "attached")
    for one in attachments:
        put(one, "status", _attachment_state(amazon, (volume_id, text(one, "instanceId"))))
    state = "in-use" if len(attachments) else "available"
    if ledger.made.get(volume_id, now) > now:
        state = "creating"
    if volume_id in ledger.broken:
        state = "error"
    put(item, "status", "deleting" if volume_id in ledger.deleting else state)
    growth = ledger.growing.get(volume_id)
    if growth and growth.state == "modifying":
        put(item, "size", str(growth.before_gib))


def _attachment_state(amazon: Amazon, key: tuple[str, str]) -> str:
    ledger = amazon.ledger
    if key in ledger.detaching:
        return "busy" if key in ledger.busy else "detaching"
    return "attaching" if ledger.attaching.get(key, amazon.now()) > amazon.now() else "attached"


def _attachment(item: Element, volume: str, node: str, device: str, state: str) -> Element:
    words = {"volumeId": volume, "instanceId": node, "device": device, "status": state, "attachTime": "2026-01-01T00:00:00.000Z"}
    for name, value in words.items():
        put(item, name, value)
    put(item, "deleteOnTermination", "false")
    return item


def volume(amazon: Amazon, volume_id: str) -> Element:
    """The volume; refused as EC2 does where it is not there."""
    rules.check_id("vol", volume_id, "volumeId")
    found = volumes(amazon, Call(action="DescribeVolumes", parameters=_described("DescribeVolumes", "volume-id", volume_id)))
    if not found:
        raise Refused("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
    return found[0]


def _described(action: str, name: str, value: str) -> dict[str, str]:
    return {"Action": action, "Version": "2016-11-15", "Filter.1.Name": name, "Filter.1.Value.1": value}


def instance(amazon: Amazon, instance_id: str) -> Element:
    rules.check_id("i", instance_id, "instanceId")
    answer = amazon.ask(Call(action="DescribeInstances", parameters=_described("DescribeInstances", "instance-id", instance_id)))
    found = answer.find("reservationSet/item/instancesSet/item")
    if found is None:
        raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
    return found


def describe_volumes(amazon: Amazon, call: Call) -> Element:
    rules.check_filters(call, rules.VOLUME_FILTERS)
    for volume_id in call.many("VolumeId"):
        volume(amazon, volume_id)
    filters = call.filters()
    states = filters.pop("status", None)
    on_node = filters.pop("attachment.instance-id", None)
    items = [item for item in volumes(amazon, call.with_filters(filters)) if states is None or text(item, "status") in states]
    if on_node is not None:
        items = [item for item in items if {text(one, "instanceId") for one in item.iterfind("attachmentSet/item")} & set(on_node)]
    return _page(call, "DescribeVolumes", "volumeSet", "volumeId", items, rules.page_size(call, "VolumeId"))


def describe_snapshots(amazon: Amazon, call: Call) -> Element:
    rules.check_filters(call, rules.SNAPSHOT_FILTERS)
    for snapshot_id in call.many("SnapshotId"):
        snapshot(amazon, snapshot_id)
    items = sorted(_snapshots(amazon, call), key=lambda item: text(item, "snapshotId"))
    return _page(call, "DescribeSnapshots", "snapshotSet", "snapshotId", items, rules.page_size(call, "SnapshotId"))


def _snapshots(amazon: Amazon, call: Call) -> list[Element]:
    """Moto takes `self` for everybody, and has the snapshots of all public images."""
    items = _asked(amazon, call.without("MaxResults", "NextToken", "DryRun"), "SnapshotId", "snapshotSet/item")
    if "self" in call.many("Owner"):
        items = [item for item in items if text(item, "ownerId") == ACCOUNT]
    for item in items:
        snapshot_id = text(item, "snapshotId")
        pending = amazon.ledger.made.get(snapshot_id, amazon.now()) > amazon.now()
        put(item, "status", "error" if snapshot_id in amazon.ledger.broken else "pending" if pending else "completed")
        put(item, "progress", "40%" if pending else "100%")
        put(item, "startTime", amazon.ledger.started.get(snapshot_id) or text(item, "startTime"))
        if snapshot_id in amazon.ledger.broken:
            put(item, "statusMessage", amazon.ledger.broken[snapshot_id])
    return items


def snapshot(amazon: Amazon, snapshot_id: str) -> Element:
    rules.check_id("snap", snapshot_id, "snapshotId")
    found = _snapshots(amazon, Call(action="DescribeSnapshots", parameters=_described("DescribeSnapshots", "snapshot-id", snapshot_id)))
    if not found:
        raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return found[0]


def _page(call: Call, action: str, key: str, item_id: str, items: list[Element], size: int) -> Element:
    answer = answer_to(action)
    folder, after = SubElement(answer, key), _decoded(call.get("NextToken"))
    rest = [item for item in items if text(item, item_id) > after]
    folder.extend(rest[:size] if size else rest)
    if size and len(rest) > size:
        put(answer, "nextToken", base64.b64encode(f"after {text(rest[size - 1], item_id)}".encode()).decode())
    return answer


def _decoded(token: str) -> str:
    try:
        word = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Refused("InvalidNextToken", "The token is not valid.") from error
    if token and not word.startswith("after "):
        raise Refused("InvalidNextToken", "The token is not valid.")
    return word.removeprefix("after ")


# --- making and deleting -------------------------------------------------------------------------------------


def create_volume(amazon: Amazon, call: Call) -> Element:
    if known := _known_by_token(amazon, call):
        return _as_created(known)
    source = snapshot(amazon, call.get("SnapshotId")) if call.get("SnapshotId") else None
    if source is not None and text(source, "status") != "completed":
        raise Refused("IncorrectState", f"Snapshot '{call.get('SnapshotId')}' is not completed.")
    size = rules.check_new_volume(call, int(text(source, "volumeSize")) if source is not None else None)
    _check_zone(amazon, call)
    return _made(amazon, call, call, size)


def _known_by_token(amazon: Amazon, call: Call) -> Element | None:
    """The volume that a call with this client token has made before."""
    if (token := call.get("ClientToken")) not in amazon.ledger.tokens:
        return None
    before, volume_id = amazon.ledger.tokens[token]
    if before != _without_token(call):
        raise Refused("IdempotentParameterMismatch", "The client token has been used with different parameters.")
    if volume_id in amazon.ledger.deleting or not _is_there(amazon, volume_id):
        raise Refused("IdempotentParameterMismatch", "The client token was used for a resource that is already deleted.")
    return volume(amazon, volume_id)


def _is_there(amazon: Amazon, volume_id: str) -> bool:
    return bool(volumes(amazon, Call(action="DescribeVolumes", parameters=_described("DescribeVolumes", "volume-id", volume_id))))


def _without_token(call: Call) -> dict[str, str]:
    return {key: value for key, value in call.parameters.items() if key != "ClientToken"}


def _made(amazon: Amazon, call: Call, as_moto_knows: Call, size: int) -> Element:
    _check_quota(amazon, size)
    answer = amazon.ask(as_moto_knows.without("ClientToken", "VolumeInitializationRate"))
    volume_id = text(answer, "volumeId")
    amazon.ledger.made[volume_id] = until(amazon, "creating")
    if token := call.get("ClientToken"):
        amazon.ledger.tokens[token] = (_without_token(call), volume_id)
    if (key := call.get("KmsKeyId")) in amazon.ledger.forbidden_keys:
        _roll_back(amazon, volume_id, amazon.ledger.forbidden_keys[key])
    _overlay(amazon, answer)
    return answer


def _roll_back(amazon: Amazon, volume_id: str, shown_s: float) -> None:
    """The answer says `creating`, and so does what is shown, until the volume is gone without a word."""
    amazon.ledger.made[volume_id] = float("inf")
    deletion = Call(action="DeleteVolume", parameters={"Action": "DeleteVolume", "Version": "2016-11-15", "VolumeId": volume_id})
    amazon.ledger.vanishing[volume_id] = Later(call=deletion, until=amazon.now() + shown_s)


def describe_instances(amazon: Amazon, call: Call) -> Element:
    answer = amazon.ask(call)
    for item in answer.iterfind("reservationSet/item/instancesSet/item"):
        if text(item, "instanceId") in amazon.ledger.hibernated:
            reason = item.find("stateReason")
            put(SubElement(item, "stateReason") if reason is None else reason, "code", "Client.UserInitiatedHibernate")
    return answer


def _as_created(item: Element) -> Element:
    """CreateVolume answers with the volume itself."""
    answer = answer_to("CreateVolume")
    answer.extend(item)
    return answer


def _check_zone(amazon: Amazon, call: Call) -> None:
    zones = amazon.ask(
        Call(action="DescribeAvailabilityZones", parameters={"Action": "DescribeAvailabilityZones", "Version": "2016-11-15"})
    )
    names = [text(item, "zoneName") for item in zones.iterfind("availabilityZoneInfo/item")]
    if call.get("AvailabilityZone") not in names:
        raise Refused("InvalidZone.NotFound", f"The zone '{call.get('AvailabilityZone')}' does not exist.")


def _check_quota(amazon: Amazon, more_gib: int) -> None:
    if amazon.quota_gib is None:
        return
    everything = volumes(amazon, Call(action="DescribeVolumes", parameters={"Version": "2016-11-15"}))
    used = sum(int(text(item, "size")) for item in everything)
    if used + more_gib > amazon.quota_gib:
        raise Refused("VolumeLimitExceeded", "You have exceeded your maximum storage limit for volumes of this type in this region.")


def delete_volume(amazon: Amazon, call: Call) -> Element:
    volume_id = call.get("VolumeId")
    item = volume(amazon, volume_id)
    if text(item, "status") == "deleting":
        return answer_to("DeleteVolume", **{"return": "true"})
    if len(item.findall("attachmentSet/item")):
        raise Refused("VolumeInUse", f"Volume {volume_id} is currently attached to an instance")
    amazon.ledger.deleting[volume_id] = Later(call=call, until=until(amazon, "deleting"))
    return answer_to("DeleteVolume", **{"return": "true"})


def create_snapshot(amazon: Amazon, call: Call) -> Element:
    item = volume(amazon, call.get("VolumeId"))
    if text(item, "status") not in ("available", "in-use"):
        raise Refused("IncorrectState", f"Volume '{call.get('VolumeId')}' is {text(item, 'status')}.")
    answer = amazon.ask(call)
    amazon.ledger.made[text(answer, "snapshotId")] = until(amazon, "pending")
    amazon.ledger.started[text(answer, "snapshotId")] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    put(answer, "startTime", amazon.ledger.started[text(answer, "snapshotId")])
    put(answer, "status", "pending")
    put(answer, "progress", "")
    return answer


def delete_snapshot(amazon: Amazon, call: Call) -> Element:
    snapshot(amazon, call.get("SnapshotId"))
    amazon.ask(call)
    return answer_to("DeleteSnapshot", **{"return": "true"})


def copy_volumes(amazon: Amazon, call: Call) -> Element:
    """Which moto does not have: a volume of the source's zone, with what the call says."""
    made = _known_by_token(amazon, call)
    if made is None:
        source = volume(amazon, call.get("SourceVolumeId"))
        if text(source, "status") not in ("available", "in-use"):
            raise Refused("IncorrectState", f"Volume '{call.get('SourceVolumeId')}' is {text(source, 'status')}.")
        made = _copied(amazon, call, source)
    answer = answer_to("CopyVolumes")
    item = SubElement(SubElement(answer, "volumeSet"), "item")
    item.extend(child for child in made if child.tag != "requestId")
    return answer


def _copied(amazon: Amazon, call: Call, source: Element) -> Element:
    least = int(text(source, "size"))
    sized = call if call.get("Size") else call.changed(Size=str(least))
    size = rules.check_new_volume(sized, None)
    if size < least:
        raise Refused("InvalidParameterValue", f"The specified size '{size}' is smaller than the source volume's, '{least}'.")
    wanted = sized.without("SourceVolumeId").changed(Action="CreateVolume", AvailabilityZone=text(source, "availabilityZone"))
    if text(source, "encrypted") == "true":
        wanted = wanted.changed(Encrypted="true")
    return _made(amazon, call, Call(action="CreateVolume", parameters=wanted.parameters), size)


def modify_volume(amazon: Amazon, call: Call) -> Element:
    volume_id, wanted = call.get("VolumeId"), int(call.get("Size") or 0)
    item = volume(amazon, volume_id)
    size, before = int(text(item, "size")), amazon.ledger.growing.get(volume_id)
    if before and before.state in ("modifying", "optimizing"):
        raise Refused("IncorrectModificationState", f"Cannot modify volume {volume_id} in modification state {before.state.upper()}")
    if before and amazon.now() < before.until + HOLD_S:
        words = "You've reached the maximum modification rate per volume limit. Wait at least 6 hours between modifications per EBS volume."
        raise Refused("VolumeModificationRateExceeded", words)
    if wanted < size:
        raise Refused("InvalidParameterValue", f"New size cannot be smaller than existing size {size}")
    rules.check_size(text(item, "volumeType"), wanted)
    _check_quota(amazon, wanted - size)
    growth = Growth(
        volume=volume_id, before_gib=size, target_gib=wanted, until=until(amazon, "modifying"), started="2026-01-01T00:00:00.000Z"
    )
    amazon.ledger.growing[volume_id] = growth
    answer = answer_to("ModifyVolume")
    _growth(SubElement(answer, "volumeModification"), growth)
    return answer


def describe_volumes_modifications(amazon: Amazon, call: Call) -> Element:
    wanted = call.filters().get("volume-id") or call.many("VolumeId")
    answer = answer_to("DescribeVolumesModifications")
    folder = SubElement(answer, "volumeModificationSet")
    for growth in amazon.ledger.growing.values():
        if not wanted or growth.volume in wanted:
            _growth(SubElement(folder, "item"), growth)
    return answer


def _growth(item: Element, growth: Growth) -> None:
    words = {"volumeId": growth.volume, "modificationState": growth.state, "originalSize": str(growth.before_gib)}
    progress = {"modifying": "10", "optimizing": "60"}.get(growth.state, "100")
    for name, value in {**words, "targetSize": str(growth.target_gib), "progress": progress, "startTime": growth.started}.items():
        put(item, name, value)


# --- attaching -------------------------------------------------------------------------------------------------


def attach_volume(amazon: Amazon, call: Call) -> Element:
    volume_id, node, device = call.get("VolumeId"), call.get("InstanceId"), call.get("Device")
    item, machine = volume(amazon, volume_id), instance(amazon, node)
    state = text(machine, "instanceState/name")
    if state not in ("running", "stopped", "pending", "stopping"):
        raise Refused("IncorrectState", f"Instance '{node}' is not 'running'. It is '{state}'.")
    if text(item, "availabilityZone") != text(machine, "placement/availabilityZone"):
        raise Refused("InvalidVolume.ZoneMismatch", f"The volume '{volume_id}' is not in the same availability zone as instance '{node}'")
    in_use = {text(one, "deviceName"): text(one, "ebs/volumeId") for one in machine.iterfind("blockDeviceMapping/item")}
    rules.check_device(device, in_use)
    holders = [text(one, "instanceId") for one in item.iterfind("attachmentSet/item")]
    shared = text(item, "multiAttachEnabled") == "true"
    if holders and (not shared or node in holders):
        raise Refused("VolumeInUse", f"{volume_id} is already attached to an instance")
    if text(item, "status") not in ("available", "in-use"):
        raise Refused("IncorrectState", f"Volume '{volume_id}' is not 'available'. It is '{text(item, 'status')}'.")
    if len(in_use) >= amazon.attach_limit:
        raise Refused("AttachmentLimitExceeded", f"Volume count has exceeded the maximum of {amazon.attach_limit} for instance '{node}'")
    if holders:
        amazon.ledger.extra[volume_id, node] = device
    else:
        amazon.ask(call)
    amazon.ledger.attaching[volume_id, node] = until(amazon, "attaching")
    return _attachment(answer_to("AttachVolume"), volume_id, node, device, "attaching")


def detach_volume(amazon: Amazon, call: Call) -> Element:
    volume_id, node = call.get("VolumeId"), call.get("InstanceId")
    attachments = volume(amazon, volume_id).findall("attachmentSet/item")
    if not attachments:
        raise Refused("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
    if not node and len(attachments) > 1:
        raise Refused("InvalidParameterCombination", "A volume with several attachments needs the instance.")
    if node:
        instance(amazon, node)
    found = [one for one in attachments if node in ("", text(one, "instanceId")) and call.get("Device") in ("", text(one, "device"))]
    if not found:
        raise Refused("InvalidAttachment.NotFound", f"There is no attachment of volume '{volume_id}' to instance '{node}'")
    node, device = text(found[0], "instanceId"), text(found[0], "device")
    key = (volume_id, node)
    if key in amazon.ledger.detaching:
        raise Refused("IncorrectState", f"Volume '{volume_id}' is in the 'detaching' state.")
    amazon.ledger.attaching.pop(key, None)
    if key in amazon.ledger.extra:
        del amazon.ledger.extra[key]
    else:
        plain = Call(action="DetachVolume", parameters={"Action": "DetachVolume", "Version": "2016-11-15"})
        done = plain.changed(VolumeId=volume_id, InstanceId=node, Device=device)
        amazon.ledger.detaching[key] = Later(call=done, until=until(amazon, "detaching"))
    return _attachment(answer_to("DetachVolume"), volume_id, node, device, "detaching")


def terminate_instances(amazon: Amazon, call: Call) -> Element:
    """What is attached and not to be deleted with the instance is let go, and nothing of it stays."""
    for node in call.many("InstanceId"):
        for one in instance(amazon, node).findall("blockDeviceMapping/item"):
            if text(one, "ebs/deleteOnTermination") != "true":
                wanted = {"Action": "DetachVolume", "Version": "2016-11-15", "VolumeId": text(one, "ebs/volumeId"), "InstanceId": node}
                amazon.ask(Call(action="DetachVolume", parameters=wanted))
    return amazon.ask(call)


# --- the rest ------------------------------------------------------------------------------------------------------


def create_tags(amazon: Amazon, call: Call) -> Element:
    wanted = {call.get(f"Tag.{number}.Key"): call.get(f"Tag.{number}.Value") for number in _numbers(call, "Tag")}
    for resource in call.many("ResourceId"):
        item = volume(amazon, resource) if resource.startswith("vol") else snapshot(amazon, resource)
        present = {text(tag, "key") for tag in item.iterfind("tagSet/item")}
        rules.check_tags(wanted, len(present - wanted.keys()))
    amazon.ask(call)
    return answer_to("CreateTags", **{"return": "true"})


def delete_tags(amazon: Amazon, call: Call) -> Element:
    for resource in call.many("ResourceId"):
        if resource.startswith("vol"):
            volume(amazon, resource)
    amazon.ask(call)
    return answer_to("DeleteTags", **{"return": "true"})


def _numbers(call: Call, prefix: str) -> list[str]:
    return sorted({key.split(".")[1] for key in call.parameters if key.startswith(f"{prefix}.")})


def modify_volume_attribute(amazon: Amazon, call: Call) -> Element:
    volume(amazon, call.get("VolumeId"))
    return answer_to("ModifyVolumeAttribute", **{"return": "true"})


def describe_volume_status(amazon: Amazon, call: Call) -> Element:
    rules.page_size(call, "VolumeId")
    items = [volume(amazon, one) for one in call.many("VolumeId")]
    items = items or volumes(amazon, Call(action="DescribeVolumes", parameters={"Version": "2016-11-15"}))
    answer = answer_to("DescribeVolumeStatus")
    folder = SubElement(answer, "volumeStatusSet")
    for item in items:
        one = SubElement(folder, "item")
        put(one, "volumeId", text(item, "volumeId"))
        put(one, "availabilityZone", text(item, "availabilityZone"))
        put(SubElement(one, "volumeStatus"), "status", "ok")
    return answer


ACTIONS: Mapping[str, Callable[[Amazon, Call], Element]] = {
    "AttachVolume": attach_volume,
    "CopyVolumes": copy_volumes,
    "CreateSnapshot": create_snapshot,
    "CreateTags": create_tags,
    "CreateVolume": create_volume,
    "DeleteSnapshot": delete_snapshot,
    "DeleteTags": delete_tags,
    "DeleteVolume": delete_volume,
    "DescribeInstances": describe_instances,
    "DescribeSnapshots": describe_snapshots,
    "DescribeVolumeStatus": describe_volume_status,
    "DescribeVolumes": describe_volumes,
    "DescribeVolumesModifications": describe_volumes_modifications,
    "DetachVolume": detach_volume,
    "ModifyVolume": modify_volume,
    "ModifyVolumeAttribute": modify_volume_attribute,
    "TerminateInstances": terminate_instances,
}
