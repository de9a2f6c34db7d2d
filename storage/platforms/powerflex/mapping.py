"""Who may use a volume: mappings to SDCs, which the array keeps exclusive for a writer, and which are read back after each change.

A writer is mapped as the only one, and the array refuses a second in that same step. Readers may be many; one that finds a
writer beside itself afterwards gives way.
"""

from __future__ import annotations

from storage.errors import NoSlot, PlatformError, VolumeInUse
from storage.platforms.powerflex.array import PowerFlexArray
from storage.platforms.powerflex.failures import GONE, NOT_MAPPED, TOO_MANY_ON_NODE, Refused
from storage.platforms.powerflex.objects import READ_ONLY, READ_WRITE, Mapping, Sdc, Volume
from storage.platforms.powerflex.reports import Reports


class Mappings:
    def __init__(self, platform: str, array: PowerFlexArray, reports: Reports, *, slots: int) -> None:
        self._platform, self._array, self._reports, self._slots = platform, array, reports, slots

    def attach(self, volume: Volume, node: str, *, read_only: bool) -> None:
        """Maps the volume to the node's SDC. Raises VolumeInUse, NoSlot, PlatformError for a node without an SDC."""
        sdc = self._sdc(node)
        mode = READ_ONLY if read_only else READ_WRITE
        self._refuse_held(volume, sdc, mode)
        if mine := _of(volume, sdc):
            if (mine.access_mode or READ_WRITE) != mode:
                self._array.set_mode(volume.id, sdc.id, mode)
        else:
            self._map(volume, node, sdc, mode)
        self._make_sure(volume, node, sdc, mode)

    def detach(self, volume: str, node: str) -> None:
        """Not mapped, no such volume and no such SDC are all fine: then nothing is there."""
        sdc = self._array.sdc(node)
        if sdc is None:
            return
        try:
            self._array.unmap(volume, sdc.id)
        except Refused as refused:
            if not (refused.means(NOT_MAPPED) or refused.means(GONE)):
                raise

    def _sdc(self, node: str) -> Sdc:
        sdc = self._array.sdc(node)
        if sdc is None:
            raise PlatformError(
                platform=self._platform,
                action=f"attach a volume to node {node}",
                reason="the array has no SDC of that GUID, id, name or address; install the SDC there, or name the node in its agent.toml",
            )
        return sdc

    def _refuse_held(self, volume: Volume, sdc: Sdc, mode: str) -> None:
        """A writer bears nobody beside it, a reader no writer."""
        for other in volume.mapped:
            if other.sdc_id != sdc.id and READ_WRITE in (mode, other.access_mode or READ_WRITE):
                raise VolumeInUse(volume=volume.id, holder=self._reports.holder(other))

    def _map(self, volume: Volume, node: str, sdc: Sdc, mode: str) -> None:
        try:
            if mode == READ_ONLY:
                self._array.map(volume.id, sdc.id, mode=mode, shared=True)
            else:
                self._array.map(volume.id, sdc.id)
        except Refused as refused:
            self._judge(refused, volume, node, sdc, mode)

    def _judge(self, refused: Refused, volume: Volume, node: str, sdc: Sdc, mode: str) -> None:
        """The codes of this differ between versions; what the array shows now does not."""
        if refused.means(TOO_MANY_ON_NODE):
            raise NoSlot(node=node, slots=self._slots, platform=self._platform, reason=refused.reason) from refused
        now = self._array.volume(volume.id)
        self._refuse_held(now, sdc, mode)
        if _of(now, sdc) is None:
            raise refused

    def _make_sure(self, volume: Volume, node: str, sdc: Sdc, mode: str) -> None:
        """Looks at what is there now. Raises what stands in the way, and takes the new mapping back."""
        now = self._array.volume(volume.id)
        try:
            self._refuse_held(now, sdc, mode)
        except VolumeInUse:
            if _of(volume, sdc) is None:
                self.detach(volume.id, node)
            raise
        mine = _of(now, sdc)
        if mine is None or (mine.access_mode or READ_WRITE) != mode:
            found = f"maps it {mine.access_mode}" if mine else "does not map it"
            raise PlatformError(platform=self._platform, action=f"attach volume {volume.id}", reason=f"the array {found} to node {node}")


def _of(volume: Volume, sdc: Sdc) -> Mapping | None:
    return next((mapping for mapping in volume.mapped if mapping.sdc_id == sdc.id), None)
