"""Volumes that grow. EC2 changes one in its own time, then lets it rest for hours: a repeat must find the change that is under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from storage.errors import Invalid, PlatformError, PlatformUnavailable, PollyError
from storage.model import ExternalId
from storage.platforms.base import VolumeReport
from storage.platforms.ebs.client import Client
from storage.platforms.ebs.looks import Change, Looks
from storage.platforms.ebs.views import Volume
from storage.platforms.ebs.volume_types import MIB_PER_GIB, TYPES, sizes_of

BUSY: Final = frozenset({"IncorrectModificationState", "VolumeModificationRateExceeded"})
USABLE: Final = frozenset({"optimizing", "completed"})
"""The states of a modification in which the volume has its new size."""


class Growing:
    def __init__(self, client: Client, looks: Looks, *, timeout_s: float) -> None:
        self._client, self._looks, self._timeout_s = client, looks, timeout_s

    def expand(self, external_id: ExternalId, wanted_mib: int) -> VolumeReport:
        volume = self._looks.volume(external_id)
        if wanted_mib < volume.size_mib:
            reason = f"volume {external_id} has {volume.size_mib} MiB, and EBS volumes never shrink"
            raise Invalid(field="size_mib", value=wanted_mib, reason=reason)
        if wanted_mib > volume.size_mib:
            if volume.kind in TYPES:  # a newer type is left to EC2
                sizes_of(volume.kind).fit(wanted_mib)
            self._modify(volume, wanted_mib)
            self._wait(external_id, wanted_mib)
            volume = self._grown(external_id, wanted_mib)
        return volume.report()

    def _modify(self, volume: Volume, wanted_mib: int) -> None:
        """Asks EC2 to grow it, unless an earlier call with the same wish is under way."""
        more_mib = wanted_mib - volume.size_mib
        doing = self._client.doing("grow a volume", volume=volume.volume_id, pool=volume.zone, size_mib=more_mib)
        try:
            self._client.change("modify_volume", doing, VolumeId=volume.volume_id, Size=wanted_mib // MIB_PER_GIB)
        except PollyError as error:
            code = str(error.fields.get("reason", "")).partition(":")[0]
            if code.split(" ")[0] not in BUSY or not self._under_way(volume.volume_id, wanted_mib):
                raise

    def _under_way(self, volume_id: str, wanted_mib: int) -> bool:
        _, seen = self._looks.modification_until(volume_id, lambda seen: True, timeout_s=self._timeout_s)
        return seen is not None and seen.get("TargetSize", 0) * MIB_PER_GIB == wanted_mib

    def _wait(self, external_id: ExternalId, wanted_mib: int) -> None:
        def ended(seen: Mapping[str, Any] | None) -> bool:
            ours = seen is not None and seen.get("TargetSize", 0) * MIB_PER_GIB == wanted_mib
            return seen is not None and ours and seen.get("ModificationState") != "modifying"

        _, seen = self._looks.modification_until(external_id, ended, timeout_s=self._timeout_s)
        state = seen.get("ModificationState", "") if seen else "not to be seen"
        if seen and state == "failed":
            raise self._error(PlatformError, external_id, f"the modification failed: {seen.get('StatusMessage') or 'EC2 does not say why'}")
        if state not in USABLE:
            raise self._error(PlatformUnavailable, external_id, f"after {self._timeout_s:g} s the modification is {state}")

    def _grown(self, external_id: ExternalId, wanted_mib: int) -> Volume:
        def large_enough(seen: Volume | None) -> bool:
            return seen is None or seen.size_mib >= wanted_mib

        now = self._looks.volume(external_id)
        if not large_enough(now):
            done, seen = self._looks.volume_until(Change.GROWN, external_id, large_enough, timeout_s=self._timeout_s)
            if seen is None or not done:
                raise self._error(PlatformUnavailable, external_id, f"after {self._timeout_s:g} s it still has its old size")
            now = seen
        return now

    def _error(self, kind: type[PlatformError], external_id: ExternalId, reason: str) -> PlatformError:
        return kind(platform=self._client.platform, action=f"grow volume {external_id}", reason=reason)
