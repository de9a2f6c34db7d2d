"""Clones: which volume Cinder is to copy, and whether it was left alone meanwhile.

Cinder lets a volume be attached while its backend copies it. Where the backend does not take a moment, such a copy may be torn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from storage.errors import PlatformError, PlatformUnavailable, UnknownVolume
from storage.platforms import cloning
from storage.platforms.base import CreateRequest, VolumeReport
from storage.platforms.cinder import records
from storage.platforms.cinder.records import Json
from storage.platforms.cinder.things import Things

USABLE: Final = ("available", "in-use")


class Cloning:
    def __init__(self, volumes: Things, report: Callable[[Json], VolumeReport], *, platform: str, in_use: bool) -> None:
        self._volumes, self._report, self._platform, self._in_use = volumes, report, platform, in_use

    def source(self, request: CreateRequest, size_mib: int) -> Json:
        """The volume to clone, at rest. Raises UnknownVolume, Invalid, Unsupported, PlatformError for one that is broken."""
        key = request.source or ""
        found = self._volumes.rested(key, action=f"clone volume {key}")
        if found is None:
            raise UnknownVolume(volume=key)
        cloning.check(request, self._report(found), size_mib)
        if not self._in_use:
            cloning.refuse_attached(self._report(found), platform=self._platform)
        if found["status"] not in USABLE:
            reason = f"it is {found['status']}: {self._volumes.why(key)}"
            raise PlatformError(platform=self._platform, action=f"clone volume {key}", reason=reason)
        return found

    def begun(self, source: Json) -> dict[str, str]:
        """What a clone's metadata say until it is known to be whole."""
        return {} if self._in_use else records.clone_of(source)

    def torn(self, clone: Json) -> PlatformUnavailable | None:
        """Why a clone may be torn; None if it is known to be whole, or nobody has had its source attached since it was asked for."""
        if (origin := records.metadata(clone).get(records.CLONE_OF)) is None:
            return None
        key, _, epoch = origin.partition(" ")
        now = self._volumes.get(key)
        if now is not None and not records.held_by(now) and str(records.mark(now).epoch) == epoch:
            return None
        reason = f"volume {key} was attached while Cinder copied it, so the copy was thrown away"
        return PlatformUnavailable(platform=self._platform, action=f"clone volume {key}", reason=reason)
