"""What EC2 says of an instance: whether it is stopped, and how many volumes it can still be given."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from storage.errors import Invalid
from storage.platforms.ebs import ids, tags
from storage.platforms.ebs.client import Client
from storage.platforms.ebs.looks import Looks
from storage.platforms.ebs.views import Instance

STOPPED: Final = frozenset({"stopped", "terminated"})


class Nodes:
    def __init__(self, client: Client, looks: Looks) -> None:
        self._client, self._looks = client, looks
        self._lock = threading.Lock()
        self._kinds: dict[str, Mapping[str, Any]] = {}

    def stopped(self, node: str) -> str | None:
        """What EC2 says of an instance that runs no more; None while it may run, on its way down too, or go on from hibernation.

        A terminated instance is forgotten after about an hour; one that EC2 does not know is therefore none that runs.
        """
        ids.instance(node)
        try:
            seen = self._looks.instance(node)
        except Invalid:
            return f"EC2 knows no instance {node}: it was terminated"
        if seen.state not in STOPPED or (seen.hibernated and seen.state == "stopped"):
            return None
        return f"EC2 says that instance {node} is {seen.state}"

    def slots(self, node: str) -> int | None:
        """How many of Polly's volumes the instance can hold, those that it has included; None where its type does not say."""
        instance = self._looks.instance(node)
        limits = self._limits(instance.kind)
        most = limits.get("MaximumEbsAttachments")
        if not most:
            return None
        taken = len(set(instance.devices.values()) - self._ours(instance))
        if limits.get("AttachmentLimitType") == "shared":
            taken += instance.interfaces + int(limits.get("InstanceStorage", 0))
        return max(0, int(most) - taken)

    def _ours(self, instance: Instance) -> set[str]:
        """Those that Polly has made, and those that it has taken over."""
        doing = self._client.doing("look at an instance's volumes", node=instance.instance_id)
        here = [{"Name": "attachment.instance-id", "Values": [instance.instance_id]}]
        found = self._client.pages("describe_volumes", "Volumes", doing, Filters=here)
        return {one["VolumeId"] for one in found if not {tags.TOKEN, tags.BIRTH}.isdisjoint(tags.of(one))}

    def _limits(self, kind: str) -> Mapping[str, Any]:
        with self._lock:
            if kind in self._kinds:
                return self._kinds[kind]
        doing = self._client.doing("look at an instance type")
        found = self._client.read("describe_instance_types", doing, InstanceTypes=[kind]).get("InstanceTypes", ())
        disks = sum(disk.get("Count", 0) for one in found for disk in one.get("InstanceStorageInfo", {}).get("Disks", ()))
        limits = {**(found[0].get("EbsInfo", {}) if found else {}), "InstanceStorage": disks}
        with self._lock:
            self._kinds[kind] = limits
        return limits
