"""What a rule works with: two adapters on one storage system, as two nodes have them, and the faults that can be made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from storage.errors import PollyError, PoolFull
from storage.model import ExternalId
from storage.platforms.base import Attachment, CreateRequest, Platform, SnapshotReport, VolumeReport
from storage.platforms.faulting import Faults

_OFFSET = 1 << 20
"""Where the suite writes on a block device."""


class Hooks:
    """What an adapter's test says about it. Only `make` must be written; the others have values that fit many."""

    pool: ClassVar[str] = "default"
    size_mib: ClassVar[int] = 8
    """Of the volumes that the suite makes; twice that must fit as well."""
    many: ClassVar[int] = 1000
    """How many volumes are made to be listed; fewer where each one costs."""
    other_pool: ClassVar[str] = ""
    """A second pool that is there; empty where the tests have just one."""
    nodes: ClassVar[tuple[str, str]] = ("node-a", "node-b")
    """Two nodes as the platform knows them: they must be there."""
    parameters: ClassVar[dict[str, str]] = {}
    """Parameters that a volume is made with."""
    other_parameters: ClassVar[Sequence[Mapping[str, str]]] = ()
    """More that a volume in `pool` may be made with, each by itself."""
    wrong_parameters: ClassVar[Sequence[Mapping[str, str]]] = ()
    """What `pool` refuses, each by itself, beside a parameter that there is not: values that a parameter cannot have."""
    wrong_sizes: ClassVar[Sequence[tuple[Mapping[str, str], int]]] = ()
    """Parameters that `pool` takes, each with a size (MiB) that a volume with them cannot have."""
    has_data: ClassVar[bool] = True
    """Whether `write` and `read` work, so that the suite can look at what is on a volume."""
    secrets: ClassVar[tuple[str, ...]] = ()
    """Texts that must never leave the adapter: passwords, keys, tokens."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Any:
        """The storage system, new for each rule: a folder, a server's address, whatever `make` needs."""
        return tmp_path

    def make(self, storage: Any) -> Platform:
        """A new adapter on the storage system, as a process that has just started has it."""
        raise NotImplementedError("write make(), which gives the adapter to be tested")

    def fill(self, arena: Arena) -> int | None:
        """Leaves the pool without room for a volume of the size that is returned; None if it can never be full."""
        able, pool = arena.here.capabilities, next(pool for pool in arena.here.pools() if pool.name == self.pool)
        if able.max_mib is None or able.max_mib > pool.capacity_mib:
            return pool.capacity_mib + able.granularity_mib
        with contextlib.suppress(PoolFull):
            for number in range(pool.capacity_mib // able.max_mib):
                arena.create(f"filling-{number}", size_mib=able.max_mib)
        return able.max_mib

    def write(self, storage: Any, attachment: Attachment, data: bytes) -> None:
        """Puts data on an attached volume, so that it is there after the next detach."""
        with open(_place(attachment, os.O_WRONLY | os.O_CREAT), "wb") as file:
            file.seek(_offset(attachment))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, storage: Any, attachment: Attachment, length: int) -> bytes:
        with open(_place(attachment, os.O_RDONLY), "rb") as file:
            file.seek(_offset(attachment))
            return file.read(length)

    def faults(self, storage: Any) -> Faults:
        """What the peer can make go wrong at a call of its choice; nothing unless it says so."""
        return Faults()

    def things(self, storage: Any, platform: Platform) -> Sequence[str]:
        """All that is there, half-made things too, so that the suite sees what a fault has left: as `platform` lists it, unless the
        storage system itself can be asked."""
        volumes = [f"{volume.external_id}, held by {volume.held_by}" for volume in _all(platform.volumes, 500)]
        return volumes + [one.external_id for one in _all(platform.snapshots, 500)]

    def stopping(self, storage: Any) -> AbstractContextManager[object] | None:
        """The second of `nodes` is stopped, and runs again afterwards; None if a test cannot stop one."""
        return None

    @contextlib.contextmanager
    def opened(self, storage: Any) -> Iterator[Arena]:
        arena = Arena(case=self, storage=storage, here=self.make(storage), there=self.make(storage))
        try:
            yield arena
        finally:
            arena.here.close()
            arena.there.close()

    @pytest.fixture
    def arena(self, storage: Any) -> Iterator[Arena]:
        with self.opened(storage) as arena:
            yield arena


@dataclass(slots=True, kw_only=True)
class Arena:
    case: Hooks
    storage: Any
    here: Platform
    there: Platform
    prefix: str = field(default_factory=lambda: os.urandom(4).hex())
    """Of this rule's tokens, for a storage system that others use too."""

    @property
    def node(self) -> str:
        return self.case.nodes[0]

    @property
    def elsewhere(self) -> str:
        return self.case.nodes[1]

    def token(self, label: str) -> str:
        return f"{self.prefix}-{label}"

    def request(
        self, label: str = "volume", *, size_mib: int | None = None, snapshot: ExternalId | None = None, **more: Any
    ) -> CreateRequest:
        return CreateRequest(
            pool=more.pop("pool", self.case.pool),
            size_mib=size_mib or self.case.size_mib,
            token=self.token(label),
            name=self.token(label),
            snapshot=snapshot,
            parameters={**self.case.parameters, **more.pop("parameters", {})},
            **more,
        )

    def create(self, label: str = "volume", *, size_mib: int | None = None, snapshot: ExternalId | None = None) -> VolumeReport:
        return self.here.create(self.request(label, size_mib=size_mib, snapshot=snapshot))

    def clone(self, source: ExternalId, label: str = "clone", *, size_mib: int | None = None) -> VolumeReport:
        return self.here.create(self.request(label, size_mib=size_mib, source=source))

    def created(self, label: str = "volume") -> ExternalId:
        return self.create(label).external_id

    def attach(self, volume: ExternalId, *, epoch: int = 1, read_only: bool = False) -> Attachment:
        return self.here.attach(volume, self.node, epoch=epoch, read_only=read_only)

    def detach(self, volume: ExternalId) -> None:
        self.here.detach(volume, self.node)

    def delete(self, volume: ExternalId) -> None:
        self.here.delete(volume)

    def restart(self) -> None:
        """The process on this node ends and a new one starts: all that its adapter remembered is gone."""
        self.here.close()
        self.here = self.case.make(self.storage)

    def volumes(self, limit: int = 500) -> Iterator[VolumeReport]:
        yield from _all(self.here.volumes, limit)

    def snapshots(self, limit: int = 500) -> Iterator[SnapshotReport]:
        yield from _all(self.here.snapshots, limit)

    def things(self) -> Sequence[str]:
        return self.case.things(self.storage, self.there)

    def needs(self, *abilities: str) -> None:
        """Leaves the rule out for an adapter that does not declare an ability."""
        for ability in abilities:
            if not getattr(self.here.capabilities, ability):
                self.leave_out(f"does not declare {ability}")

    def leave_out(self, reason: str) -> NoReturn:
        pytest.skip(f"{type(self.here).__name__} {reason}")

    def fill(self) -> int:
        size_mib = self.case.fill(self)
        if size_mib is None:
            self.leave_out("has pools that are never full")
        return size_mib

    def write(self, attachment: Attachment, data: bytes) -> None:
        if self.case.has_data:
            self.case.write(self.storage, attachment, data)

    def holds(self, attachment: Attachment, data: bytes) -> bool:
        """Whether the data is on the volume; true where the suite cannot look."""
        return not self.case.has_data or self.case.read(self.storage, attachment, len(data)) == data


@contextlib.contextmanager
def refused(kind: type[PollyError] | tuple[type[PollyError], ...], rule: str) -> Iterator[None]:
    """What is done inside must raise one of these errors, and no other."""
    names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
    try:
        yield
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{rule}: {type(error).__name__} was raised, not {names}") from error
    raise AssertionError(f"{rule}: {names} was not raised")


def _all(list_part: Callable[..., Any], limit: int) -> Iterator[Any]:
    after: str | None = None
    while True:
        page = list_part(after=after, limit=limit)
        yield from page.items
        after = page.after
        if after is None:
            return


def _place(attachment: Attachment, flags: int) -> int:
    device = Path(attachment.device)
    return os.open(device / "contract-data" if device.is_dir() else device, flags | os.O_CLOEXEC, 0o600)


def _offset(attachment: Attachment) -> int:
    return 0 if Path(attachment.device).is_dir() else _OFFSET
