"""What volumes, claims and their surroundings are: frozen records that every layer shares.

Knows no database, no scheduler and no platform. Sizes are MiB (2**20 bytes) and say so in their names;
instants are seconds since the epoch, UTC, as float (`*_at`), spans are seconds (`*_s`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NewType, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from storage.errors import Invalid
from storage.lifecycle import ClaimState, ProofKind, VolumeState

VolumeId = NewType("VolumeId", str)
"""Polly's own id of a volume; outlives tasks, claims and brokers."""
ClaimId = NewType("ClaimId", str)
SnapshotId = NewType("SnapshotId", str)
PlacementId = NewType("PlacementId", str)
"""One run of one instance: the Mesos task id, later a pod's or container's id."""
WorkloadId = NewType("WorkloadId", str)
"""What is to run: a Marathon app's id, such as `/shop/db`."""
NodeId = NewType("NodeId", str)
"""A node as its scheduler names it: the Mesos agent id."""
ExternalId = NewType("ExternalId", str)
"""The platform's own id of a volume or snapshot, such as `vol-0123456789abcdef0`."""

NOTHING: Mapping[str, str] = {}


class AccessMode(StrEnum):
    """Which claims on one volume may coexist; CSI's names."""

    SINGLE_NODE_WRITER = "SINGLE_NODE_WRITER"
    SINGLE_NODE_READER_ONLY = "SINGLE_NODE_READER_ONLY"
    MULTI_NODE_READER_ONLY = "MULTI_NODE_READER_ONLY"
    MULTI_NODE_SINGLE_WRITER = "MULTI_NODE_SINGLE_WRITER"
    MULTI_NODE_MULTI_WRITER = "MULTI_NODE_MULTI_WRITER"


class Access(StrEnum):
    """What one claim may do with its volume; Marathon's `mode`."""

    RW = "RW"
    RO = "RO"


class ReclaimPolicy(StrEnum):
    """What becomes of a volume when its workload is deleted."""

    DELETE = "delete"
    RETAIN = "retain"
    SNAPSHOT_THEN_DELETE = "snapshot-then-delete"


class Holder(Struct, frozen=True, kw_only=True, gc=False):
    """Who may use a volume: a workload on a node, of one scheduler."""

    scheduler: str
    """The way in, such as `mesos/polly`."""
    placement: PlacementId
    node: NodeId


class Pool(Struct, frozen=True, kw_only=True, gc=False):
    """A part of a platform with its own capacity and topology."""

    platform: str
    name: str
    capacity_mib: int
    provisioned_mib: int = 0
    """What the ledger's volumes in this pool add up to, planned ones included."""
    foreign_mib: int = 0
    """What others use of the pool's capacity, as the platform last reported it."""
    reserve_mib: int = 0
    """Never given out."""
    overcommit: float = 1.0
    """How many MiB may be provisioned for each MiB of capacity that is left after `foreign_mib` and `reserve_mib`."""
    region: str = ""
    zone: str = ""
    """Empty: reachable from everywhere."""
    labels: Mapping[str, str] = {}
    online: bool = True
    """Reported by its platform, and that answers: otherwise no new volume is made in it."""
    seen_at: float = 0.0
    silent_since: float = 0.0
    """Since when its platform does not answer, where that is why it is offline."""
    silence: str = ""
    """What was heard instead, such as a refused connection."""

    room: str = ""
    """What it shares with those pools of its platform that name the same; empty: nothing."""
    room_capacity_mib: int = 0
    room_foreign_mib: int = 0
    """What others use of the room's capacity, as the platform last reported it."""
    room_provisioned_mib: int = 0
    """What `provisioned_mib` of all pools of the room add up to."""

    @property
    def state(self) -> str:
        """`online`, `silent` (its platform does not answer) or `offline` (its platform does not report it)."""
        return "online" if self.online else "silent" if self.silent_since else "offline"

    @property
    def limit_mib(self) -> int:
        return max(0, int((self.capacity_mib - self.foreign_mib - self.reserve_mib) * self.overcommit))

    @property
    def room_limit_mib(self) -> int:
        """How much the pools of the room may provision together: reserve and overcommit count for it as for one pool."""
        return max(0, int((self.room_capacity_mib - self.room_foreign_mib - self.reserve_mib) * self.overcommit))

    @property
    def room_free_mib(self) -> int:
        return max(0, self.room_limit_mib - self.room_provisioned_mib)

    @property
    def free_mib(self) -> int:
        own_mib = max(0, self.limit_mib - self.provisioned_mib) if self.online else 0
        return min(own_mib, self.room_free_mib) if self.room else own_mib


class Sizes(Struct, frozen=True, kw_only=True):
    """Which sizes volumes of one kind can have: whatever is asked for is rounded up to one of them."""

    of: str = "this platform"
    """Which kind, for people: `type st1`."""
    min_mib: int = 1
    max_mib: int | None = None
    granularity_mib: int = 1
    """All are multiples of this."""

    def rounded(self, size_mib: int) -> int:
        """The least size that is not below `size_mib`, whether or not a volume can be as large."""
        return -(-max(size_mib, self.min_mib, 1) // self.granularity_mib) * self.granularity_mib

    def fit(self, size_mib: int) -> int:
        """The size that a volume gets when `size_mib` is asked for: never less. Raises Invalid for a size that cannot be."""
        if size_mib <= 0:
            raise Invalid(field="size_mib", value=size_mib, reason="a size is 1 MiB or more")
        if self.max_mib is not None and self.rounded(size_mib) > self.max_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"a volume of {self.of} has at most {self.max_mib} MiB")
        return self.rounded(size_mib)


class Hearing(Struct, frozen=True, kw_only=True):
    """When a platform answered last, and since when it does not."""

    platform: str
    heard_at: float = 0.0
    """0: never."""
    silent_since: float = 0.0
    """When it was first asked in vain since then; 0: it answers."""
    looks: int = 0
    """How often in a row it was asked in vain."""
    error: str = ""
    """What came of it the last time."""


class Profile(Struct, frozen=True, kw_only=True):
    """A named storage class: which pools qualify and how a volume is made. Comes from polly.toml."""

    name: str
    platforms: tuple[str, ...] = ()
    """Names of platforms; empty means any."""
    pools: tuple[str, ...] = ()
    """Names of pools; empty means any."""
    pool_labels: Mapping[str, str] = {}
    """Labels that a pool must have."""
    filesystem: str = "ext4"
    mkfs_options: tuple[str, ...] = ()
    mount_options: tuple[str, ...] = ()
    access_mode: AccessMode = AccessMode.SINGLE_NODE_WRITER
    reclaim: ReclaimPolicy = ReclaimPolicy.RETAIN
    min_mib: int = 1
    max_mib: int | None = None
    roles: tuple[str, ...] = ()
    """Mesos roles that may use it; empty means any."""
    labels: Mapping[str, str] = {}
    """Labels that each volume made by it gets."""
    parameters: Mapping[str, str] = {}
    """The platform's own, such as `type=gp3`; handed to the adapter unread."""

    def qualifies(self, pool: Pool) -> bool:
        return (
            (not self.platforms or pool.platform in self.platforms)
            and (not self.pools or pool.name in self.pools)
            and all(pool.labels.get(key) == value for key, value in self.pool_labels.items())
        )


class Birth(Struct, frozen=True, kw_only=True, gc=False):
    """A volume's birth certificate: what was on the device right after Polly formatted it. Checked before every mount."""

    serial: str
    """The device's serial, or what stands for it on the platform."""
    filesystem: str
    filesystem_uuid: str


class Volume(Struct, frozen=True, kw_only=True, gc=False):
    """A piece of storage with an identity that outlives tasks."""

    volume_id: VolumeId
    name: str
    """Unique among the volumes of the ledger: `/shop/db#0/data` for an app's own, the given name for an external one."""
    platform: str
    pool: str
    size_mib: int
    profile: str = ""
    state: VolumeState = VolumeState.PLANNED
    external_id: ExternalId | None = None
    token: str = ""
    """The idempotency token of its creation: the id of the claim, or of the request, that planned it."""
    epoch: int = 0
    """The fencing number of the latest claim; 0 before the first."""
    access_mode: AccessMode = AccessMode.SINGLE_NODE_WRITER
    filesystem: str = "ext4"
    birth: Birth | None = None
    """None until it was formatted (or imported with its filesystem looked at)."""
    owner: str = ""
    """The workload it belongs to, such as `/shop/db`; empty for one that was made or imported by hand."""
    role: str = ""
    region: str = ""
    zone: str = ""
    labels: Mapping[str, str] = {}
    reason: str = ""
    """Why it is FAULTED."""
    created_at: float = 0.0
    snapshot: ExternalId | None = None
    """The platform's id of the snapshot that it starts from; kept, for as long as it is unborn it may have to start again."""
    source: ExternalId | None = None
    """The platform's id of the volume that it is a clone of; kept as `snapshot` is."""

    @property
    def is_copy(self) -> bool:
        """It begins with data: a reader may be the first to claim it."""
        return self.snapshot is not None or self.source is not None

    @property
    def unborn(self) -> bool:
        """Polly was to make its filesystem and has not: no task ever used what may exist of it. An import has no token."""
        return self.birth is None and bool(self.token)


class Claim(Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """The durable record that one holder may use one volume."""

    claim_id: ClaimId
    volume_id: VolumeId
    holder: Holder
    epoch: int
    access: Access
    state: ClaimState
    lease_until: float
    reason: str = ""
    """Why it is where it is: set with STRANDED and RELEASING."""
    since: float = 0.0
    """When it came into its present state."""
    volume_name: str = ""
    """For people; only lists have it, so it tells no two claims apart."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Claim) and astuple(self)[:-1] == astuple(other)[:-1]

    def __hash__(self) -> int:
        return hash(self.claim_id)


class Proof(Struct, frozen=True, kw_only=True):
    """Why a claim could end: kept in the event log."""

    kind: ProofKind
    evidence: str
    """What was seen, in words: `TASK_FAILED from agent ...`, `flock free, epoch raised to 4`."""


class Snapshot(Struct, frozen=True, kw_only=True):
    snapshot_id: SnapshotId
    volume_id: VolumeId
    platform: str
    external_id: ExternalId | None
    size_mib: int
    token: str
    name: str = ""
    state: str = "READY"
    """PENDING (the intent is stored), READY or DELETING."""
    created_at: float = 0.0
    volume_name: str = ""
    """For people, as the volume is called now; empty once it is gone."""


class Node(Struct, frozen=True, kw_only=True):
    """A machine that can hold volumes."""

    node_id: NodeId
    scheduler: str
    hostname: str
    region: str = ""
    zone: str = ""
    state: str = "UP"
    """UP, UNREACHABLE (cut off or dead) or GONE (for good, by its scheduler's word: its id does not come back)."""
    identities: Mapping[str, str] = {}
    """What each platform calls this node: platform name to instance id, SDC guid, initiator."""
    slots: Mapping[str, int] = {}
    """How many volumes of a platform it can hold; a platform that is missing has no limit."""
    used: Mapping[str, int] = {}
    """How many claims on volumes of a platform it has; kept by the ledger."""
    seen_at: float = 0.0
    """When its scheduler last offered it, or said what became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the event log: who did what to which volume, when and why. It is never changed, and deleted only for its age."""

    seq: int
    at: float
    actor: str
    """`broker`, `executor`, `mesos`, `operator:NAME`, ..."""
    what: str
    """A verb in the past: `volume.planned`, `claim.reserved`, `claim.freed`, `volume.born`, ..."""
    volume_id: VolumeId | None = None
    claim_id: ClaimId | None = None
    placement_id: PlacementId | None = None
    why: str = ""
    volume_name: str = field(default="", compare=False)
    """For people; empty once the volume is gone."""


class VolumePlan(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """All that a node needs to bring one volume to one task. Travels in the TaskInfo; holds no secret.

    Source of the wire format: executors/wire.py.
    """

    claim_id: ClaimId
    volume_id: VolumeId
    name: str
    epoch: int
    access: Access
    platform: str
    pool: str
    size_mib: int
    token: str
    external_id: ExternalId | None = None
    """None: to be created (or found by its token) on this node."""
    snapshot: ExternalId | None = None
    """The platform's id of the snapshot that a new volume starts from."""
    source: ExternalId | None = None
    """The platform's id of the volume that a new volume is a clone of."""
    filesystem: str = "ext4"
    mkfs_options: tuple[str, ...] = ()
    mount_options: tuple[str, ...] = ()
    access_mode: AccessMode = AccessMode.SINGLE_NODE_WRITER
    birth: Birth | None = None
    parameters: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    container_path: str = ""

    @property
    def is_copy(self) -> bool:
        """What this claim makes brings its filesystem from where it was copied."""
        return self.snapshot is not None or self.source is not None

    @property
    def may_create(self) -> bool:
        """This very claim makes the volume; for reading only if there is something to copy."""
        return self.birth is None and self.token == self.claim_id and (self.access is Access.RW or self.is_copy)

    @property
    def may_format(self) -> bool:
        """Only the very claim that creates a volume may format it: its id is the volume's token."""
        return self.birth is None and self.token == self.claim_id and self.access is Access.RW


T_co = TypeVar("T_co", covariant=True)


class Page(Struct, Generic[T_co], frozen=True, kw_only=True):
    """Part of a long list. `after` is what to ask the next part with; None at the end."""

    items: Sequence[T_co]
    after: str | None = None


class EventPage(Page[Event], frozen=True, kw_only=True):
    """Part of the event log."""

    kept_since: float = 0.0
    """From when on the log is whole: of what is older, lines were deleted. 0: it always was."""
