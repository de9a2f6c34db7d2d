"""How volumes grow, whoever else grows them at the same time: OneFS cannot compare a quota and set it at once.

Who has set a quota writes down how large the volume is now, where nothing is ever lowered (exports.py), and looks again at both. So
of two that meet the later one sees what the earlier has written, and raises the quota again where its own had made it smaller; where it
has died before that, the next attach does.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from storage.errors import PlatformUnavailable, UnknownVolume
from storage.platforms.powerscale.attaching import Attachments
from storage.platforms.powerscale.exports import ExportTable
from storage.platforms.powerscale.onefs import NotThere, Taken
from storage.platforms.powerscale.volumes import Volume, Volumes

TRIES: Final = 10
"""How often others may grow the volume in the same moment."""


class Growth:
    """Raises PlatformUnavailable and Refused beside what it says."""

    def __init__(self, volumes: Volumes, table: ExportTable, attachments: Attachments, platform: str) -> None:
        self._volumes, self._table, self._attachments, self._platform = volumes, table, attachments, platform

    def grow(self, volume: Volume, size_mib: int) -> None:
        """At least to this size. Raises UnknownVolume."""
        self._set(volume, max(size_mib, self._attachments.seen(volume).written.size_mib))
        for _ in range(TRIES):
            seen = self._attachments.seen(volume)
            with suppress(Taken):
                self._table.keep(volume.path, seen, seen.written.grown(size_mib), "expand a volume")
                if self._is_settled(volume):
                    return
        reason = f"{TRIES} times in a row others were quicker"
        raise PlatformUnavailable(platform=self._platform, action="expand a volume", reason=reason)

    def _is_settled(self, volume: Volume) -> bool:
        """Whether the quota is what was written down; it is set so where it is not."""
        now, promised_mib = self._volumes.get(volume.name), self._table.of(volume.path).written.size_mib
        if now is None:
            raise UnknownVolume(volume=volume.name)
        if now.size_mib < promised_mib:
            self._set(now, promised_mib)
            return False
        return True

    def _set(self, volume: Volume, size_mib: int) -> None:
        try:
            self._volumes.grow(volume, size_mib)
        except NotThere as error:
            raise UnknownVolume(volume=volume.name) from error
