"""Volumes coming into being: looked for by their tag, made with EC2's own idempotency token, waited for."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from storage.errors import Conflict, Invalid, PlatformError, PlatformUnavailable, UnknownPool, UnknownVolume, VolumeInUse
from storage.model import ExternalId, Page
from storage.platforms import cloning
from storage.platforms.base import CreateRequest, PoolReport, VolumeReport
from storage.platforms.ebs import ids, listing, tags, volume_types
from storage.platforms.ebs.client import Client
from storage.platforms.ebs.copies import Copies
from storage.platforms.ebs.looks import Change, Looks
from storage.platforms.ebs.options import EbsOptions
from storage.platforms.ebs.views import Volume
from storage.platforms.ebs.volume_types import MIB_PER_GIB

MISMATCH: Final = ("IdempotentParameterMismatch",)
KEY: Final = "a KMS key that is not there or may not be used is the usual cause"
LISTED: Final = ["creating", "available", "in-use", "error"]


class Making:
    def __init__(self, client: Client, looks: Looks, copies: Copies, options: EbsOptions) -> None:
        self._client, self._looks, self._copies, self._options = client, looks, copies, options
        self._lock = threading.Lock()
        self._zones: Sequence[Mapping[str, Any]] = ()

    def pools(self) -> Sequence[PoolReport]:
        """The zones, asked for anew."""
        return [
            PoolReport(
                name=zone["ZoneName"],
                capacity_mib=self._options.capacity_gib * MIB_PER_GIB,
                region=self._options.region,
                zone=zone["ZoneName"],
                labels={"zoneId": zone["ZoneId"]} if zone.get("ZoneId") else {},
            )
            for zone in self._look_at_zones()
        ]

    def find(self, token: str) -> Volume | None:
        if not token:
            return None
        doing = self._client.doing("look for a volume")
        named = [{"Name": f"tag:{tags.TOKEN}", "Values": [listing.exactly(token)]}, {"Name": "status", "Values": LISTED}]
        found = self._client.pages("describe_volumes", "Volumes", doing, Filters=named)
        ours = [Volume.of(one) for one in sorted(found, key=lambda one: (str(one.get("CreateTime", "")), one["VolumeId"]))]
        return next((volume for volume in ours if volume.tags.get(tags.TOKEN) == token), None)

    def create(self, request: CreateRequest) -> VolumeReport:
        if made := self.find(request.token):
            return self._usable(made).report()
        size_mib = volume_types.fit(request.size_mib, request.parameters)
        asked = self._arguments(request, size_mib)
        if request.snapshot is not None:
            self._large_enough(request.snapshot, size_mib)
        made = self._cloned(request, size_mib, asked) if request.source is not None else self._created(request, size_mib, asked)
        return self._usable(made).report()

    def _created(self, request: CreateRequest, size_mib: int, asked: Mapping[str, Any]) -> Volume:
        doing = self._client.doing("create a volume", pool=request.pool, size_mib=size_mib, snapshot=request.snapshot or "")
        answer = self._client.change("create_volume", doing, passing=MISMATCH, AvailabilityZone=request.pool, **asked)
        return self._made_otherwise(request.token) if answer is None else Volume.of(answer)

    def _cloned(self, request: CreateRequest, size_mib: int, asked: Mapping[str, Any]) -> Volume:
        """In the source's zone, which CopyVolumes does not ask for."""
        source = self._looks.volume(request.source or "")
        cloning.check(request, source.report(), size_mib)
        doing = self._client.doing("clone a volume", volume=source.volume_id, pool=request.pool, size_mib=size_mib)
        answer = self._client.change("copy_volumes", doing, passing=MISMATCH, SourceVolumeId=source.volume_id, **asked)
        return self._made_otherwise(request.token) if answer is None else Volume.of(answer["Volumes"][0])

    def delete(self, external_id: ExternalId) -> None:
        if not ids.VOLUME.fullmatch(external_id):
            return
        doing = self._client.doing("delete a volume", volume=external_id)
        try:
            answer = self._client.change("delete_volume", doing, passing=("InvalidVolume.NotFound",), VolumeId=external_id)
        except VolumeInUse as error:
            try:
                held = self._looks.volume_now(external_id).held
            except UnknownVolume:
                return
            raise VolumeInUse(volume=external_id, holder=", ".join(sorted(held)) or "EC2", reason=error.fields["reason"]) from error
        if answer is not None:
            self._gone(external_id)

    def page(self, *, after: str | None, limit: int) -> Page[VolumeReport]:
        filters = [{"Name": "status", "Values": LISTED}]
        if self._options.zones:
            filters.append({"Name": "availability-zone", "Values": list(self._options.zones)})
        doing = self._client.doing("list volumes")
        page = listing.page(self._client, "describe_volumes", "Volumes", "VolumeId", doing, after, limit, {"Filters": filters})
        return Page(items=[Volume.of(one).report() for one in page.items], after=page.after)

    def _arguments(self, request: CreateRequest, size_mib: int) -> dict[str, Any]:
        wanted = tags.at_creation(token=request.token, name=request.name, labels=request.labels)
        settings = volume_types.settings(request.parameters, size_mib, from_snapshot=request.snapshot is not None)
        self._check_pool(request.pool)
        if request.snapshot is not None:
            settings["SnapshotId"] = ids.snapshot(request.snapshot)
        return {
            "ClientToken": ids.client_token(request.token),
            "TagSpecifications": [{"ResourceType": "volume", "Tags": tags.as_list(wanted)}],
            **settings,
        }

    def _check_pool(self, pool: str) -> None:
        known = self._options.zones or [zone["ZoneName"] for zone in self._zones]
        if pool in known:
            return
        if self._options.zones or pool not in [zone["ZoneName"] for zone in self._look_at_zones()]:
            raise UnknownPool(pool=pool, platform=self._client.platform)

    def _look_at_zones(self) -> Sequence[Mapping[str, Any]]:
        filters = [{"Name": "region-name", "Values": [self._options.region]}, {"Name": "state", "Values": ["available"]}]
        answer = self._client.read("describe_availability_zones", self._client.doing("list zones"), Filters=filters)
        wanted = self._options.zones
        zones = sorted(answer.get("AvailabilityZones", ()), key=lambda zone: str(zone["ZoneName"]))
        with self._lock:
            self._zones = [zone for zone in zones if not wanted or zone["ZoneName"] in wanted]
            return self._zones

    def _large_enough(self, snapshot: ExternalId, size_mib: int) -> None:
        found = self._copies.known(snapshot)
        if size_mib < found.size_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {snapshot} has {found.size_mib} MiB")

    def _usable(self, volume: Volume) -> Volume:
        """The volume once EC2 has made it. EC2 looks at a KMS key after the call, and takes the volume back without a word."""
        seen: Volume | None = volume
        was_seen = False

        def ready(now: Volume | None) -> bool:
            nonlocal was_seen
            was_seen = was_seen or now is not None
            return was_seen and (now is None or now.state != "creating")

        if volume.state == "creating":
            _, seen = self._looks.volume_until(Change.MADE, volume.volume_id, ready, timeout_s=float(self._options.timeout_s))
        if seen is not None and seen.state in ("available", "in-use"):
            return seen
        action = f"create volume {volume.volume_id}"
        if seen is None:
            raise PlatformError(platform=self._client.platform, action=action, reason=f"EC2 took the call, and it is gone again; {KEY}")
        if seen.state == "error":
            raise PlatformError(platform=self._client.platform, action=action, reason=f"EC2 has it in state error; {KEY}")
        reason = f"after {self._options.timeout_s} s it is {seen.state}"
        raise PlatformUnavailable(platform=self._client.platform, action=action, reason=reason)

    def _made_otherwise(self, token: str) -> Volume:
        """EC2 knows our token with other arguments: somebody made the volume at the same moment, for another size or zone.

        It says the same of a token whose volume is gone.
        """
        if made := self.find(token):
            return made
        found = f"IdempotentParameterMismatch, and no volume with this token; {KEY}"
        raise Conflict(what=f"the volume of token {token}", expected="made with the same arguments, or there", found=found)

    def _gone(self, external_id: ExternalId) -> None:
        done, _ = self._looks.volume_until(
            Change.DELETED,
            external_id,
            lambda seen: seen is None or seen.state in ("deleting", "deleted"),
            timeout_s=float(self._options.timeout_s),
        )
        if not done:
            reason = f"EC2 took the call, and still has it after {self._options.timeout_s} s"
            raise PlatformUnavailable(platform=self._client.platform, action=f"delete volume {external_id}", reason=reason)
