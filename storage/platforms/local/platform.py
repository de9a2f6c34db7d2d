"""The local platform: volumes are images or folders of one machine, shared by the agents that run on it.

What is durable lies in the folder (layout.py); what this process holds is in memory and ends with it. Every change of a
volume is made under its guard, so that processes take turns; only copies are made outside, and then put in their place whole.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from storage.errors import Conflict, Invalid, PlatformError, PoolFull, StaleEpoch, UnknownPool, UnknownVolume, VolumeInUse
from storage.model import Birth, ExternalId, Page
from storage.platforms import cloning
from storage.platforms.base import (
    Attachment,
    Capabilities,
    CreateRequest,
    Finding,
    Platform,
    PoolReport,
    Room,
    SnapshotReport,
    VolumeReport,
)
from storage.platforms.local import doctor, layout, space
from storage.platforms.local.attachments import Attachments
from storage.platforms.local.failures import filling, verb
from storage.platforms.local.folders import Folder
from storage.platforms.local.formats import FORMATS, MODES
from storage.platforms.local.layout import Spot, car_name
from storage.platforms.local.options import LocalOptions
from storage.platforms.local.records import Known, Records
from storage.platforms.local.sidecar import Sidecar, encode_car
from storage.platforms.local.snapshots import Snapshots
from storage.platforms.local.store import Store
from storage.platforms.options import write_options


def _random_id() -> str:
    return secrets.token_hex(8)


class LocalPlatform(Platform):
    """Volumes in a folder of this machine. Attachments belong to this instance, and end with its process at the latest."""

    Options = LocalOptions

    def __init__(
        self, name: str, options: LocalOptions, *, clock: Callable[[], float] = time.time, ids: Callable[[], str] = _random_id
    ) -> None:
        self._name, self._options = name, options
        self._format = FORMATS[options.format](name)
        self._store = Store(platform=name, root=Path(options.root), pools=options.pools, suffix=self._format.suffix, ids=ids)
        self._records = Records(platform=name, options=options, format=self._format, store=self._store)
        self._snapshots = Snapshots(records=self._records, clock=clock)
        self._attachments = Attachments(self._records)
        self._reflinks: bool | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            snapshots=True,
            snapshot_attached=self._copies_in_use(),
            snapshots_outlive=True,
            restores=True,
            clones=True,
            clone_attached=self._copies_in_use(),
            expand_attached=True,
            expand_detached=True,
            fences=True,
            marks=True,
            held_by_process=True,
            access_modes=MODES,
            device=self._format.device,
        )

    def _copies_in_use(self) -> bool:
        if self._reflinks is None:
            with contextlib.suppress(PlatformError, OSError), self._store.opened() as root, contextlib.ExitStack() as opened:
                pools = [opened.enter_context(found) for pool in self._options.pools if (found := root.sub_or_none(pool))]
                self._reflinks = all(self._format.copies_in_use(pool) for pool in pools or [root])
        return bool(self._reflinks)

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    @verb("look at its pools")
    def pools(self) -> Sequence[PoolReport]:
        """A pool whose folder is missing is left out. Reads the size of every file: for now and then, not for each offer."""
        with self._store.opened() as root:
            spaces = {pool: found for pool in self._options.pools if (found := self._space(root, pool))}
        return [self._pool(pool, found, space.shared(found, spaces.values())) for pool, found in spaces.items()]

    def _space(self, root: Folder, pool: str) -> space.Space | None:
        folder = self._store.pool(root, pool)
        if folder is None:
            return None
        with folder:
            return space.look(folder, self._format.suffix, self._options.capacity_mib)

    def _pool(self, pool: str, found: space.Space, room: Room | None) -> PoolReport:
        return PoolReport(
            name=pool,
            capacity_mib=found.capacity_mib,
            foreign_mib=found.foreign_mib,
            region=self._options.region,
            zone=self._options.zone,
            room=room,
        )

    @verb("list its volumes")
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        with self._store.opened() as root:
            spots, last = self._store.page(root, after, limit, wanted=layout.volume_spot)
        reports = (self._records.look(spot.stem) for spot in spots)
        return Page(items=[report for report in reports if report], after=last)

    @verb("look at a volume")
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        with self._records.known(external_id) as known:
            return self._records.report(known)

    @verb("look for a volume")
    def find(self, token: str) -> VolumeReport | None:
        return self._records.look(layout.volume_id(token)) if token else None

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        for parameter, value in parameters.items():
            raise Invalid(field=f"parameters.{parameter}", value=value, reason="a local volume has no parameters")

    @verb("create a volume")
    def create(self, request: CreateRequest) -> VolumeReport:
        if made := self.find(request.token):
            return made
        spot = self._check(request)
        size_mib = self.capabilities.fit(request.size_mib)
        with self._store.opened() as root, filling(self._name, request.pool, size_mib):
            with self._store.pool_or_refuse(root, request.pool) as pool:
                self._make_sure_of_room(pool, request.pool, size_mib)
            with self._store.staging(root, request.pool) as stage:
                self._stage(stage, spot, request, size_mib)
                return self._publish(stage, spot, request.pool)

    def _check(self, request: CreateRequest) -> Spot:
        spot = layout.volume_spot(layout.volume_id(request.token)) if request.token else None
        if spot is None:
            raise Invalid(field="token", value=request.token, reason="a volume is created with an idempotency token")
        if request.pool not in self._options.pools:
            raise UnknownPool(pool=request.pool, platform=self._name)
        self.check_parameters(request.parameters)
        if request.source is not None:
            cloning.check(request, self.inspect(request.source), self.capabilities.fit(request.size_mib))
        return spot

    def _make_sure_of_room(self, pool: Folder, name: str, size_mib: int) -> None:
        free = space.free_mib(pool, self._format.suffix, self._options.capacity_mib)
        if size_mib > free:
            raise PoolFull(pool=name, platform=self._name, free_mib=free, size_mib=size_mib)

    def _stage(self, stage: Folder, spot: Spot, request: CreateRequest, size_mib: int) -> None:
        if request.snapshot is not None:
            self._snapshots.restore(request.snapshot, stage, spot.stem, size_mib)
        elif request.source is not None:
            self._snapshots.clone(request.source, stage, spot.stem, size_mib)
        else:
            self._format.make(stage, spot.stem, size_mib)
        car = Sidecar(token=request.token, name=request.name, size_mib=size_mib, labels=dict(request.labels))
        stage.write(car_name(spot.stem), encode_car(car))

    def _publish(self, stage: Folder, spot: Spot, pool: str) -> VolumeReport:
        """Puts the staged volume in its place, unless another creator with this token was first. Its data comes last."""
        with self._store.guard(spot.shard) as root:
            with self._store.find(root, spot) as found:
                if found:
                    return self._records.report(self._records.read(root, found))
            with self._store.home(root, pool, spot) as home:
                for name in (car_name(spot.stem), spot.stem + self._format.suffix):
                    stage.move(name, home, name)
                home.sync()
            with self._store.find(root, spot) as found:
                if found is None:
                    raise UnknownVolume(volume=spot.stem)
                return self._records.report(self._records.read(root, found))

    @verb("delete a volume")
    def delete(self, external_id: ExternalId) -> None:
        try:
            with self._records.known(external_id) as known:
                pool = known.pool
        except UnknownVolume:
            self._records.clear(layout.volume_spot(external_id))
            return
        with self._store.opened() as root, self._store.staging(root, pool) as stage, contextlib.suppress(UnknownVolume):
            self._take_away(external_id, stage)

    def _take_away(self, external_id: ExternalId, stage: Folder) -> None:
        """To the stage, which is emptied after the guard is dropped. The data goes first: without it the volume is gone."""
        with self._records.known(external_id) as known:
            if holders := self._records.holders(known):
                raise VolumeInUse(volume=external_id, holder=", ".join(holders))
            data = known.stem + self._format.suffix
            known.folder.move(data, stage, data)
            for name in self._records.beside(known.stem):
                known.folder.remove(name)
            known.folder.sync()

    @verb("attach a volume")
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return self._attachments.attach(external_id, node, epoch=epoch, read_only=read_only)

    @verb("detach a volume")
    def detach(self, external_id: ExternalId, node: str) -> None:
        """What another process of this node has still attached is in use: it goes with that process and its mounts."""
        self._attachments.detach(external_id, node)

    def inheritable(self, external_id: ExternalId) -> int | None:
        return self._attachments.descriptor(external_id)

    @verb("fence a volume")
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        with self._records.known(external_id) as known:
            if self._records.holders(known):
                return None
            before, after = known.car.mark, known.car.mark.fenced(epoch)
            if after != before:
                self._records.save(known, msgspec.structs.replace(known.car, mark=after))
            return f"the lock of {external_id} was free, its epoch was {before.epoch} and is {after.epoch}"

    @verb("store a birth certificate")
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        with self._records.known(external_id) as known:
            if epoch < known.car.mark.epoch:
                raise StaleEpoch(volume=external_id, epoch=epoch, found=known.car.mark.epoch)
            if known.car.birth is None:
                self._records.save(known, msgspec.structs.replace(known.car, birth=birth))
            elif known.car.birth != birth:
                raise Conflict(what=f"the birth certificate of {external_id}", expected=known.car.birth, found=birth)

    @verb("list its snapshots")
    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        return self._snapshots.page(after, limit)

    @verb("snapshot a volume")
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        return self._snapshots.take(external_id, token, name)

    @verb("delete a snapshot")
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        self._snapshots.delete(snapshot)

    @verb("expand a volume")
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        """An image that is attached on this machine grows with its loop device."""
        wanted = self.capabilities.fit(size_mib)
        with self._records.known(external_id) as known:
            now = self._records.size_mib(known)
            if wanted < now:
                raise Invalid(field="size_mib", value=size_mib, reason=f"volume {external_id} has {now} MiB, and volumes never shrink")
            with filling(self._name, known.pool, wanted):
                self._grow(known, now, wanted)
        return self.inspect(external_id)

    def _grow(self, known: Known, now: int, wanted: int) -> None:
        if wanted > now:
            with self._store.pool_or_refuse(known.root, known.pool) as pool:
                self._make_sure_of_room(pool, known.pool, wanted - now)
        self._format.grow(known.folder, known.stem, wanted)
        self._records.save(known, msgspec.structs.replace(known.car, size_mib=wanted))

    @verb("check itself")
    def check(self) -> Sequence[Finding]:
        """Makes nothing, and changes nothing."""
        return doctor.check(self._options, self._store)

    def close(self) -> None:
        self._attachments.close()
