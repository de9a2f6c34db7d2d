"""A platform in memory, for the tests of whoever uses platforms: it keeps the whole contract, and needs no root and no disk.

A MemoryStorage is the storage system; each MemoryPlatform is one adapter on it, as each process would have its own. Faults are
set on the storage: `expired` refuses all calls, and `faults` what the contract arranges (the adapter tries again when it is throttled,
as one of a cloud does).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from storage.errors import (
    Conflict,
    HasSnapshots,
    Invalid,
    PlatformUnavailable,
    PoolFull,
    StaleEpoch,
    UnknownPool,
    UnknownSnapshot,
    UnknownVolume,
    VolumeInUse,
)
from storage.model import AccessMode, Birth, ExternalId, Page, Sizes
from storage.platforms import cloning
from storage.platforms.base import (
    Attachment,
    Capabilities,
    CreateRequest,
    Finding,
    Platform,
    PoolReport,
    SnapshotReport,
    VolumeReport,
)
from storage.platforms.faulting import ANSWERS, Fate, Fault, Faults
from storage.platforms.marks import Mark

ABILITIES: Final = Capabilities(
    snapshots=True,
    snapshot_attached=True,
    restores=True,
    clones=True,
    clone_attached=True,
    expand_attached=True,
    expand_detached=True,
    fences=True,
    marks=True,
    sees_nodes=True,
    counts_slots=True,
    access_modes=frozenset({AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY}),
    min_mib=2,
    max_mib=4096,
    granularity_mib=2,
)
PARAMETERS: Final = frozenset({"type"})
LARGE: Final = Sizes(of="type large", min_mib=32, max_mib=2048, granularity_mib=2)
"""Of volumes with the parameter `type = "large"`."""

R = TypeVar("R", VolumeReport, SnapshotReport)


class MemoryVolume(Struct, frozen=True, kw_only=True):
    external_id: ExternalId
    request: CreateRequest
    size_mib: int
    birth: Birth | None = None
    mark: Mark = Mark()
    attached: Mapping[str, tuple[int, bool]] = {}
    """Node to epoch and read-only."""


@dataclass(slots=True, kw_only=True)
class MemoryStorage:
    """What all adapters of one storage system share."""

    capacity_mib: int = 8192
    pools: tuple[str, ...] = ("default",)
    """The capacity is theirs together."""
    volumes: dict[str, MemoryVolume] = field(default_factory=dict)
    snapshots: dict[str, SnapshotReport] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    """What is on each volume and snapshot, by its external id."""
    stopped: set[str] = field(default_factory=set)
    """Nodes that the storage system knows to be stopped."""
    slots: dict[str, int] = field(default_factory=dict)
    """Node to how many volumes it can hold; a node that is missing has no limit of its own."""
    expired: bool = False
    faults: Faults = field(default_factory=lambda: Faults(*Fault, codes={Fault.EXPIRED: "the credentials have expired"}))
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """A memory platform has no settings."""


class MemoryPlatform(Platform):
    Options = MemoryOptions

    def __init__(
        self,
        name: str = "memory",
        options: MemoryOptions | None = None,
        *,
        storage: MemoryStorage | None = None,
        capabilities: Capabilities = ABILITIES,
    ) -> None:
        self._name, self._capabilities = name, capabilities
        self.storage = storage or MemoryStorage()

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def settings(self) -> Mapping[str, str]:
        return {}

    @contextlib.contextmanager
    def _call(self, verb: str) -> Iterator[MemoryStorage]:
        """One call to the storage system: one at a time, again when it is throttled."""
        with self.storage.lock:
            fate = self.storage.faults.fate(verb)
            if self.storage.expired or fate is Fate.EXPIRED:
                raise PlatformUnavailable(platform=self.name, action=verb, reason="the credentials have expired")
            if fate is Fate.CUT:
                raise PlatformUnavailable(platform=self.name, action=verb, reason="the storage is out of reach")
            if fate in ANSWERS:
                raise PlatformUnavailable(platform=self.name, action=verb, reason="somebody else has answered")
            if fate is Fate.THROTTLED:
                fate = self.storage.faults.fate(verb)
            yield self.storage
            if fate is Fate.UNHEARD:
                raise PlatformUnavailable(platform=self.name, action=verb, reason="the reply was lost")

    def pools(self) -> Sequence[PoolReport]:
        with self._call("pools") as storage:
            return [PoolReport(name=pool, capacity_mib=storage.capacity_mib) for pool in storage.pools]

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        with self._call("volumes") as storage:
            return _page([_report(storage.volumes[key]) for key in sorted(storage.volumes)], after, limit)

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        with self._call("inspect"):
            return _report(self._known(external_id))

    def _known(self, external_id: ExternalId) -> MemoryVolume:
        try:
            return self.storage.volumes[external_id]
        except KeyError:
            raise UnknownVolume(volume=external_id) from None

    def find(self, token: str) -> VolumeReport | None:
        with self._call("find") as storage:
            return next((_report(volume) for volume in storage.volumes.values() if volume.request.token == token), None)

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        for parameter in parameters.keys() - PARAMETERS:
            raise Invalid(field=f"parameters.{parameter}", value=parameters[parameter], reason="the one parameter is type")

    def sizes(self, parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        self.check_parameters(parameters)
        return LARGE if parameters.get("type") == "large" else self.capabilities.sizes

    def create(self, request: CreateRequest) -> VolumeReport:
        with self._call("create") as storage:
            if made := self.find(request.token):
                return made
            size_mib = self._fitting(request)
            external_id = ExternalId(f"mem-{sha256(request.token.encode()).hexdigest()[:16]}")
            storage.data[external_id] = storage.data.get(request.snapshot or request.source or "", b"")
            return self._store(MemoryVolume(external_id=external_id, request=request, size_mib=size_mib))

    def _fitting(self, request: CreateRequest) -> int:
        if request.pool not in self.storage.pools:
            raise UnknownPool(pool=request.pool, platform=self.name)
        size_mib = self.fit(request.size_mib, request.parameters)
        if request.snapshot is not None:
            self._large_enough(request.snapshot, size_mib)
        if request.source is not None:
            self._cloneable(request, _report(self._known(request.source)), size_mib)
        self._make_sure_of_room(size_mib)
        return size_mib

    def _large_enough(self, snapshot: ExternalId, size_mib: int) -> None:
        source = self.storage.snapshots.get(snapshot)
        if source is None:
            raise UnknownSnapshot(snapshot=snapshot)
        if size_mib < source.size_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {snapshot} has {source.size_mib} MiB")

    def _cloneable(self, request: CreateRequest, source: VolumeReport, size_mib: int) -> None:
        cloning.check(request, source, size_mib)
        if not self.capabilities.clone_attached:
            cloning.refuse_attached(source, platform=self.name)

    def _make_sure_of_room(self, more_mib: int) -> None:
        free = self.storage.capacity_mib - sum(volume.size_mib for volume in self.storage.volumes.values())
        if more_mib > free:
            raise PoolFull(pool="default", platform=self.name, free_mib=free, size_mib=more_mib)

    def _store(self, volume: MemoryVolume) -> VolumeReport:
        self.storage.volumes[volume.external_id] = volume
        return _report(volume)

    def delete(self, external_id: ExternalId) -> None:
        with self._call("delete") as storage:
            if volume := storage.volumes.get(external_id):
                self._make_sure_unused(volume)
                del storage.volumes[external_id]

    def _make_sure_unused(self, volume: MemoryVolume) -> None:
        if volume.attached:
            raise VolumeInUse(volume=volume.external_id, holder=", ".join(volume.attached))
        if left := [key for key, snapshot in self.storage.snapshots.items() if snapshot.volume == volume.external_id]:
            raise HasSnapshots(volume=volume.external_id, snapshots=", ".join(left))

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        with self._call("attach"):
            volume = self._known(external_id)
            mark = volume.mark.admit(external_id, epoch, read_only=read_only)
            _make_sure_free(volume, node, (epoch, read_only))
            self._store(replace(volume, mark=mark, attached={**volume.attached, node: (epoch, read_only)}))
            return Attachment(external_id=external_id, device=f"/dev/memory/{external_id}", serial=external_id, read_only=read_only)

    def detach(self, external_id: ExternalId, node: str) -> None:
        with self._call("detach") as storage:
            if volume := storage.volumes.get(external_id):
                self._store(replace(volume, attached={key: held for key, held in volume.attached.items() if key != node}))

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        with self._call("fence"):
            volume = self._known(external_id)
            if volume.attached:
                return None
            self._store(replace(volume, mark=volume.mark.fenced(epoch)))
            return f"nothing holds {external_id}, epochs below {epoch} are refused"

    def node_stopped(self, node: str) -> str | None:
        with self._call("node_stopped") as storage:
            return f"node {node} is stopped" if node in storage.stopped else None

    def node_slots(self, node: str) -> int | None:
        with self._call("node_slots") as storage:
            return storage.slots.get(node)

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        with self._call("record_birth"):
            volume = self._known(external_id)
            if epoch < volume.mark.epoch:
                raise StaleEpoch(volume=external_id, epoch=epoch, found=volume.mark.epoch)
            if volume.birth not in (None, birth):
                raise Conflict(what=f"the birth certificate of {external_id}", expected=volume.birth, found=birth)
            self._store(replace(volume, birth=birth))

    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        with self._call("snapshots") as storage:
            return _page([storage.snapshots[key] for key in sorted(storage.snapshots)], after, limit)

    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        with self._call("snapshot") as storage:
            volume = self._known(external_id)
            key = ExternalId(f"{external_id}-{sha256(token.encode()).hexdigest()[:16]}")
            if key not in storage.snapshots:
                storage.data[key] = storage.data.get(external_id, b"")
                storage.snapshots[key] = SnapshotReport(external_id=key, volume=external_id, size_mib=volume.size_mib, token=token)
            return storage.snapshots[key]

    def delete_snapshot(self, snapshot: ExternalId) -> None:
        with self._call("delete_snapshot") as storage:
            storage.snapshots.pop(snapshot, None)

    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        with self._call("expand"):
            volume, wanted = self._known(external_id), self.capabilities.fit(size_mib)
            if wanted < volume.size_mib:
                raise Invalid(
                    field="size_mib", value=size_mib, reason=f"volume {external_id} has {volume.size_mib} MiB, and volumes never shrink"
                )
            self._make_sure_of_room(wanted - volume.size_mib)
            return self._store(replace(volume, size_mib=wanted))

    def check(self) -> Sequence[Finding]:
        return [Finding(ok=not self.storage.expired, subject=self.name, message="volumes are in memory, and gone with the process")]

    def close(self) -> None:
        """Nothing is held open: attachments are the storage's."""


def _make_sure_free(volume: MemoryVolume, node: str, wanted: tuple[int, bool]) -> None:
    others = [read_only for key, (_, read_only) in volume.attached.items() if key != node]
    alone = not others or (wanted[1] and all(others))
    if not alone or volume.attached.get(node, wanted) != wanted:
        raise VolumeInUse(volume=volume.external_id, holder=", ".join(volume.attached))


def _report(volume: MemoryVolume) -> VolumeReport:
    return VolumeReport(
        external_id=volume.external_id,
        pool=volume.request.pool,
        size_mib=volume.size_mib,
        serial=volume.external_id,
        token=volume.request.token,
        name=volume.request.name,
        epoch=volume.mark.epoch,
        birth=volume.birth,
        held_by=tuple(volume.attached),
        labels=dict(volume.request.labels),
    )


def _page(items: Sequence[R], after: str | None, limit: int) -> Page[R]:
    if limit < 1:
        raise Invalid(field="limit", value=limit, reason="a part has 1 item or more")
    rest = [item for item in items if after is None or item.external_id > after]
    return Page(items=rest[:limit], after=rest[limit - 1].external_id if len(rest) > limit else None)
