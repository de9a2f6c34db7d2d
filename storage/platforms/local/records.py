"""A volume as its files tell: found under its guard, with its sidecar, and told as a report."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.errors import PlatformError, UnknownVolume
from storage.model import ExternalId
from storage.platforms.base import VolumeReport
from storage.platforms.local import layout
from storage.platforms.local.folders import Folder, locked, temporary_name
from storage.platforms.local.formats import Format
from storage.platforms.local.layout import Spot, car_name
from storage.platforms.local.options import LocalOptions
from storage.platforms.local.sidecar import Sidecar, encode_car, read_car
from storage.platforms.local.store import Found, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A volume that is there, as long as its guard is held."""

    root: Folder
    pool: str
    folder: Folder
    stem: str
    car: Sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    platform: str
    options: LocalOptions
    format: Format
    store: Store

    @contextlib.contextmanager
    def known(self, external_id: str) -> Iterator[Known]:
        """Under the volume's guard. Raises UnknownVolume, also for what cannot be an id here."""
        with contextlib.ExitStack() as held:
            known = self._look(layout.volume_spot(external_id), held)
            if known is None:
                raise UnknownVolume(volume=external_id)
            yield known

    def look(self, external_id: str) -> VolumeReport | None:
        with contextlib.ExitStack() as held:
            known = self._look(layout.volume_spot(external_id), held)
            return self.report(known) if known else None

    def _look(self, spot: Spot | None, held: contextlib.ExitStack) -> Known | None:
        if spot is None:
            return None
        root = held.enter_context(self.store.guard(spot.shard))
        found = held.enter_context(self.store.find(root, spot))
        return self.read(root, found) if found else None

    def read(self, root: Folder, found: Found) -> Known:
        car = read_car(Sidecar, found.folder, car_name(found.spot.stem), platform=self.platform)
        if car is None and found.spot.own:
            path = found.folder.path / car_name(found.spot.stem)
            raise PlatformError(platform=self.platform, action=f"read {path}", reason="it is gone, and with it the volume's fencing epoch")
        return Known(root=root, pool=found.pool, folder=found.folder, stem=found.spot.stem, car=car or Sidecar())

    def beside(self, stem: str) -> Sequence[str]:
        """The names of all files of a thing but its data, also of one that a process has died over."""
        return (car_name(stem), temporary_name(car_name(stem)), *self.format.leftovers(stem))

    def clear(self, spot: Spot | None) -> None:
        """Removes what a deletion that broke off has left of a thing of Polly's own whose data is gone."""
        if spot and spot.own:
            self.store.clear(spot, self.beside(spot.stem))

    def save(self, known: Known, car: Sidecar) -> None:
        """On disk once this returns."""
        self.note(known, car)
        known.folder.sync()

    def note(self, known: Known, car: Sidecar) -> None:
        """Seen by every process at once, but a power cut may bring the former one back: for what ends with this machine's processes.

        That is true of an attach: whoever was shut out by its epoch is gone after a power cut too.
        """
        known.folder.replace(car_name(known.stem), encode_car(car))

    def size_mib(self, known: Known) -> int:
        return self.format.size_mib(known.folder, known.stem, known.car.size_mib)

    def holders(self, known: Known) -> tuple[str, ...]:
        """Who holds the volume, as its lock says it is held and its sidecar says by whom."""
        probe = self.format.probe(known.folder, known.stem)
        if probe is None:
            return ()
        try:
            if locked(probe, fcntl.LOCK_EX):
                fcntl.flock(probe, fcntl.LOCK_UN)
                return ()
        finally:
            os.close(probe)
        return tuple(str(note) for note in known.car.holders) or ("locked",)

    def report(self, known: Known) -> VolumeReport:
        car = known.car
        return VolumeReport(
            external_id=ExternalId(known.stem),
            pool=known.pool,
            size_mib=self.size_mib(known),
            serial=known.stem,
            token=car.token,
            name=car.name,
            epoch=car.mark.epoch,
            birth=car.birth,
            held_by=self.holders(known),
            zone=self.options.zone,
            labels=dict(car.labels),
        )
