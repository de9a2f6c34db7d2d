"""What Polly asks of a storage platform: the one protocol that every adapter fulfils, with its abilities declared.

Every verb is synchronous, safe to repeat, and says in its docstring what a repeat does. Every failure is one of
storage.errors, with the vendor's own code kept in `reason`. An adapter knows no ledger, no claim table, no scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from storage.errors import Invalid, Unsupported
from storage.model import AccessMode, Birth, ExternalId, Page, Sizes


class Capabilities(Struct, frozen=True, kw_only=True):
    """What an adapter can do; everything that differs between platforms is said here, never by `if name ==`."""

    snapshots: bool = False
    snapshot_attached: bool = False
    """A snapshot of a volume in use is what a crash at that moment would have left; without this it is refused."""
    snapshots_outlive: bool = False
    """A snapshot stays when its volume is deleted; without this a volume that has any is not deleted (HasSnapshots)."""
    restores: bool = False
    """A new volume from a snapshot."""
    clones: bool = False
    """A new volume from another volume of the same pool; CSI's CLONE_VOLUME."""
    clone_attached: bool = False
    """A clone of a volume in use is what a crash at one moment would have left; without this it is refused."""
    expand_attached: bool = False
    expand_detached: bool = False
    fences: bool = False
    """`fence` proves that nothing holds a volume and shuts out every older epoch."""
    marks: bool = False
    """The platform can hold an epoch and a birth certificate with the volume."""
    labels: bool = True
    """The platform keeps a volume's name and labels with it; without this only the ledger has them."""
    access_modes: frozenset[AccessMode] = frozenset({AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY})
    """Of any of its volumes; of those with some parameters there may be fewer, which Platform.access_modes tells."""
    min_mib: int = 1
    max_mib: int | None = None
    granularity_mib: int = 1
    """Sizes are rounded up to a multiple of this."""
    slots_per_node: int | None = None
    """How many volumes one node can hold unless the node knows better; None: no limit."""
    device: str = "block"
    """What an attachment brings: `block` (a device to format and mount), `folder` (a directory, to be bound) or `nfs`."""
    identity: str = "hostname"
    """How a node learns what the platform calls it: a module of storage.node.identities, such as `ec2`; `hostname`: as Mesos says."""
    transports: tuple[str, ...] = ()
    """What its attachments may name as their transport: modules of storage.node.transports. For `polly doctor`."""
    scsi_disk: tuple[str, str] | None = None
    """The vendor and the product that its disks give over SCSI, where a node sees each by several paths. For `polly doctor`."""
    parallel: int = 4
    """How many calls the platform takes at a time from one broker."""
    held_by_process: bool = False
    """An attachment lives no longer than the process that made it, so that only a process on the node can make it."""
    sees_nodes: bool = False
    """`node_stopped` can tell that a node is stopped or deleted."""
    counts_slots: bool = False
    """`node_slots` can tell how many volumes one node can hold, where it is not all of them that hold `slots_per_node`."""

    @property
    def sizes(self) -> Sizes:
        """Of all its volumes; a type of them may have fewer, which Platform.sizes tells."""
        return Sizes(min_mib=self.min_mib, max_mib=self.max_mib, granularity_mib=self.granularity_mib)

    def fit(self, size_mib: int) -> int:
        """What Sizes.fit makes of `size_mib`."""
        return self.sizes.fit(size_mib)


class Room(Struct, frozen=True, kw_only=True):
    """What several pools of one platform draw on together, such as a project's quota or a filesystem."""

    name: str
    """The same in each pool that shares it, and of no other room of the platform."""
    capacity_mib: int
    foreign_mib: int = 0
    """Used by others than Polly's volumes in any of these pools."""


class PoolReport(Struct, frozen=True, kw_only=True):
    name: str
    capacity_mib: int
    """Its own; what it shares with others is counted once, as `room` says."""
    foreign_mib: int = 0
    """Used by others than Polly's volumes."""
    room: Room | None = None
    """What bounds it together with the other pools that name the same room; None: it shares none."""
    region: str = ""
    zone: str = ""
    labels: Mapping[str, str] = {}


class VolumeReport(Struct, frozen=True, kw_only=True):
    external_id: ExternalId
    pool: str
    size_mib: int
    serial: str
    """What the node will see as the device's serial."""
    token: str = ""
    """The idempotency token it was created with; empty for a volume that Polly did not make."""
    name: str = ""
    epoch: int = 0
    """The highest epoch marked on it; 0 where none is or can be."""
    birth: Birth | None = None
    held_by: tuple[str, ...] = ()
    """Who holds it now, as the platform names them: the name that `attach` was given, where a node holds it. For the local platform
    `pid NNN`-like words or `locked`."""
    zone: str = ""
    labels: Mapping[str, str] = {}


class SnapshotReport(Struct, frozen=True, kw_only=True):
    external_id: ExternalId
    volume: ExternalId
    """Whose it is. Once that volume is deleted a platform may have forgotten it, and say another or none."""
    size_mib: int
    token: str = ""
    created_at: float = 0.0


class CreateRequest(Struct, frozen=True, kw_only=True):
    pool: str
    size_mib: int
    token: str
    """Created twice with one token is created once."""
    name: str = ""
    snapshot: ExternalId | None = None
    """Begin with what this snapshot holds."""
    source: ExternalId | None = None
    """Begin with what this volume holds: a clone."""
    parameters: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        """Raises Invalid for two beginnings."""
        if self.snapshot is not None and self.source is not None:
            raise Invalid(
                field="source", value=self.source, reason=f"a volume begins with a snapshot ({self.snapshot}) or a volume, not both"
            )


class Attachment(Struct, frozen=True, kw_only=True):
    """A volume that the platform has given to a node, and how the node finds it. The adapter may run elsewhere (`attach_by = "broker"`)."""

    external_id: ExternalId
    device: str
    """A block device, or a folder, or `host:/export`, as Capabilities.device says."""
    serial: str
    read_only: bool = False
    transport: str = ""
    """What brings the device up on the node: a module of storage.node.transports, such as `iscsi`; empty: it comes by itself."""
    context: Mapping[str, str] = {}
    """What the transport needs to know: targets, portals, a LUN. Travels to the node, so it holds no secret."""


class Finding(Struct, frozen=True, kw_only=True):
    """One line of `polly doctor`."""

    ok: bool
    subject: str
    message: str
    mend: str = ""
    """What to do about it."""


class Platform(Protocol):
    """One configured storage system. Instances are cheap; a connection is made at first use.

    Adapters derive from this class: the verbs that stand on a declared ability are refused here with Unsupported, so an
    adapter writes only what its platform can do. The contract of every verb is tested by storage.platforms.contract.
    """

    @property
    def name(self) -> str:
        """The name of its block in polly.toml."""

    @property
    def capabilities(self) -> Capabilities: ...

    def settings(self) -> Mapping[str, str]:
        """What an executor needs to build the same adapter, without any secret."""

    def pools(self) -> Sequence[PoolReport]: ...

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        """All volumes of the platform that an operator could adopt, in a stable order, part by part."""

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        """Raises UnknownVolume."""

    def find(self, token: str) -> VolumeReport | None:
        """The volume that was created with this token, if there is one."""

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        """Raises Invalid, as `create` does, for what a profile's parameters ask and no volume can have, whatever its size.

        With a pool: what `create` refuses there, for which the platform may be asked for what it has, once. Without one: what
        can be told before anything is asked, and holds in every pool.
        """

    def sizes(self, parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        """Which sizes a volume with these parameters can have: in this pool, or without one in some pool. Asks the platform nothing.

        Placing knows by it what it takes of a pool. Raises Invalid where no volume can have the parameters, UnknownPool.
        """
        return self.capabilities.sizes

    def access_modes(self, parameters: Mapping[str, str]) -> frozenset[AccessMode]:
        """How many may have a volume with these parameters at once, and how. Asks the platform nothing, and refuses no parameter."""
        return self.capabilities.access_modes

    def fit(self, size_mib: int, parameters: Mapping[str, str], *, pool: str | None = None) -> int:
        """The size that `create` makes of this one, as `sizes` says. Asks the platform nothing.

        Raises what `sizes` raises, and Invalid for a size that cannot be, or a parameter that a volume of this size cannot have.
        """
        return self.sizes(parameters, pool=pool).fit(size_mib)

    def create(self, request: CreateRequest) -> VolumeReport:
        """Makes a volume, or finds the one that this token has made before, whatever else is asked the second time.

        The size is rounded up as `fit` says. From a snapshot or a volume it is at least as large as that (Invalid if less).
        A volume from a snapshot has none of the marks that the snapshot's volume had.
        A clone is in its source's pool (Invalid if another is asked for), is attached nowhere and has none of its source's marks; what
        becomes of the one does nothing to the other. Of an attached volume only with Capabilities.clone_attached (otherwise Unsupported).
        Raises PoolFull, UnknownPool, UnknownSnapshot, UnknownVolume, Invalid (also for a parameter that the platform does not have).
        """

    def delete(self, external_id: ExternalId) -> None:
        """Gone already is fine. Raises VolumeInUse, and HasSnapshots without Capabilities.snapshots_outlive."""

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        """Brings the volume to this node and marks it with the epoch, where the platform can hold one.

        Attached here already with the same epoch is fine. Raises VolumeInUse, StaleEpoch, UnknownVolume.
        """

    def detach(self, external_id: ExternalId, node: str) -> None:
        """Not attached there is fine. Raises VolumeInUse while the node still has it mounted, where that can be seen."""

    def inheritable(self, external_id: ExternalId) -> int | None:
        """A file descriptor that keeps the volume held for as long as any process has it open.

        For an adapter whose hold would not outlive its process: the executor hands it on to the task's init. None where the
        platform or the kernel's mount holds by itself, or where nothing is attached.
        """
        return None

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        """Proves that nothing holds the volume and refuses every holder of an epoch below `epoch` from now on.

        Returns what was seen, in words, or None if something holds it. Needs Capabilities.fences. Raises UnknownVolume.
        """
        raise self._unsupported(f"fence volume {external_id}", "it cannot tell who holds a volume")

    def node_stopped(self, node: str) -> str | None:
        """What the platform says of a node, by the name that `attach` takes, that is stopped or deleted: nothing runs on it any more.

        None if it runs, is on its way from one to the other, or the platform cannot be sure. Needs Capabilities.sees_nodes.
        """
        raise self._unsupported(f"look at node {node}", "it does not see nodes")

    def node_slots(self, node: str) -> int | None:
        """How many volumes of Polly's this node can hold, those that it has included; None: as Capabilities.slots_per_node says.

        Polly asks once it knows what the platform calls the node, and now and then again. Needs Capabilities.counts_slots.
        """
        raise self._unsupported(f"count the attach slots of node {node}", "it does not tell them node by node")

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        """Stores the birth certificate with the volume; the same again is fine, another one is a Conflict.

        Needs Capabilities.marks. Raises StaleEpoch for an epoch below the one marked, UnknownVolume.
        """
        raise self._unsupported(f"store the birth certificate of volume {external_id}", "it keeps no marks")

    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        """All snapshots, in a stable order, part by part."""
        return Page(items=())

    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        """Makes a snapshot, or finds the one that this token has made before.

        Of an attached volume only with Capabilities.snapshot_attached (otherwise Unsupported). Raises UnknownVolume, PoolFull.
        """
        raise self._unsupported(f"snapshot volume {external_id}", "it has no snapshots")

    def delete_snapshot(self, snapshot: ExternalId) -> None:
        """Gone already is fine."""
        raise self._unsupported(f"delete snapshot {snapshot}", "it has no snapshots")

    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        """Grows the volume to what Capabilities.fit makes of this size; that large already is fine. Never shrinks (Invalid).

        A filesystem on it is the node's to grow. Raises UnknownVolume, PoolFull.
        """
        raise self._unsupported(f"expand volume {external_id}", "its volumes keep their size")

    def check(self) -> Sequence[Finding]:
        """What `polly doctor` prints of this platform: reachability, credentials, rights."""

    def close(self) -> None:
        """Drops what this instance holds open: connections, and attachments that nothing uses. Safe to repeat."""

    def _unsupported(self, action: str, reason: str) -> Unsupported:
        return Unsupported(platform=self.name, action=action, reason=reason)
