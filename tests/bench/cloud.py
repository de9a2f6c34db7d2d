"""A cloud that attaches volumes and does nothing else: EC2's calls for it, by HTTP, with a rate limit and attachments that take time.

Only for measuring: what EC2 refuses besides, the tests' own peer refuses.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element, SubElement

from tests.peers.ec2_wire import Answer, Call, Refused, answer_to, serialise
from tests.peers.loopback import Server

ZONE = "eu-central-1a"
BURST = 50


class Cloud:
    """`attach_s` is how long an attachment takes, `calls_per_s` how often each action may be called."""

    def __init__(self, volumes: int, instances: int, *, attach_s: float, calls_per_s: float) -> None:
        self.volumes = [f"vol-{number:017x}" for number in range(volumes)]
        self.instances = [f"i-{number:017x}" for number in range(instances)]
        self.calls: Counter[str] = Counter()
        self.refused = 0
        self._attach_s, self._rate = attach_s, calls_per_s
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tokens that are left of each action, and when that was counted."""
        self._tags: dict[str, dict[str, str]] = {}
        self._held: dict[str, tuple[str, str, float]] = {}
        """Volume to instance, device and when it will be attached."""
        self._server = Server(lambda asked: self.handle(Call.read(asked.sent)).reply, name="ec2")

    @property
    def url(self) -> str:
        return self._server.url

    def stop(self) -> None:
        self._server.stop()

    def attached(self) -> int:
        return sum(done_at <= time.monotonic() for _, _, done_at in self._held.values())

    def handle(self, call: Call) -> Answer:
        actions: Mapping[str, Callable[[Call], Element]] = {
            "DescribeVolumes": self._describe_volumes,
            "DescribeInstances": self._describe_instances,
            "AttachVolume": self._attach,
            "CreateTags": self._tag,
            "DeleteTags": self._untag,
        }
        with self._lock:
            self.calls[call.action] += 1
            try:
                self._limit(call.action)
                return serialise(actions[call.action](call))
            except Refused as refusal:
                return refusal.answer()

    def _limit(self, action: str) -> None:
        """As EC2 counts: a bucket for each action, filled at the rate; an empty one refuses."""
        tokens, at = self._buckets.get(action, (float(BURST), 0.0))
        now = time.monotonic()
        tokens = min(float(BURST), tokens + (now - at) * self._rate)
        if tokens < 1:
            self.refused += 1
            raise Refused("RequestLimitExceeded", "Request limit exceeded.", 503)
        self._buckets[action] = (tokens - 1, now)

    def _describe_volumes(self, call: Call) -> Element:
        root = answer_to("DescribeVolumes")
        found = SubElement(root, "volumeSet")
        for volume in call.filters()["volume-id"]:
            item = _texts(SubElement(found, "item"), volumeId=volume, size="1", status="in-use" if volume in self._held else "available")
            _texts(item, availabilityZone=ZONE, volumeType="gp3", createTime="2026-01-01T00:00:00Z")
            if volume in self._held:
                _texts(SubElement(SubElement(item, "attachmentSet"), "item"), **self._attachment(volume))
            tags = SubElement(item, "tagSet")
            for key, value in self._tags.get(volume, {}).items():
                _texts(SubElement(tags, "item"), key=key, value=value)
        return root

    def _attachment(self, volume: str) -> dict[str, str]:
        instance, device, done_at = self._held[volume]
        status = "attached" if time.monotonic() >= done_at else "attaching"
        return {"volumeId": volume, "instanceId": instance, "device": device, "status": status}

    def _describe_instances(self, call: Call) -> Element:
        root = answer_to("DescribeInstances")
        found = SubElement(SubElement(SubElement(root, "reservationSet"), "item"), "instancesSet")
        for instance in call.filters()["instance-id"]:
            item = _texts(SubElement(found, "item"), instanceId=instance, instanceType="m5.large")
            _texts(SubElement(item, "instanceState"), code="16", name="running")
            _texts(SubElement(item, "placement"), availabilityZone=ZONE)
            mapping = SubElement(item, "blockDeviceMapping")
            for volume, (holder, device, _) in self._held.items():
                if holder == instance:
                    one = _texts(SubElement(mapping, "item"), deviceName=device)
                    _texts(SubElement(one, "ebs"), volumeId=volume)
        return root

    def _attach(self, call: Call) -> Element:
        volume, instance, device = call.get("VolumeId"), call.get("InstanceId"), call.get("Device")
        if volume in self._held:
            raise Refused("VolumeInUse", f"{volume} is already attached to an instance")
        if any(held[:2] == (instance, device) for held in self._held.values()):
            raise Refused("InvalidParameterValue", f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use")
        self._held[volume] = (instance, device, time.monotonic() + self._attach_s)
        return answer_to("AttachVolume", **self._attachment(volume))

    def _tag(self, call: Call) -> Element:
        pairs = zip(_numbered(call, "Key"), _numbered(call, "Value"), strict=True)
        self._tags.setdefault(call.many("ResourceId")[0], {}).update(pairs)
        return answer_to("CreateTags", **{"return": "true"})

    def _untag(self, call: Call) -> Element:
        for key in _numbered(call, "Key"):
            self._tags.get(call.many("ResourceId")[0], {}).pop(key, None)
        return answer_to("DeleteTags", **{"return": "true"})


def _numbered(call: Call, part: str) -> list[str]:
    """`Tag.1.Key`, `Tag.2.Key`, ..."""
    found: list[str] = []
    while (name := f"Tag.{len(found) + 1}.{part}") in call.parameters:
        found.append(call.get(name))
    return found


def _texts(element: Element, **texts: str) -> Element:
    for name, value in texts.items():
        SubElement(element, name).text = value
    return element
