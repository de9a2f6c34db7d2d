"""What goes into the ledger and comes out of it besides the records of storage.model. Knows no database."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from storage.errors import PollyError
from storage.model import Access, AccessMode, Claim, ClaimId, ExternalId, Node, NodeId, PlacementId, Volume, VolumeId, WorkloadId


class NewVolume(Struct, frozen=True, kw_only=True, gc=False):
    """A volume to be planned: capacity is taken now, the platform makes it later."""

    volume_id: VolumeId
    name: str
    platform: str
    pool: str
    size_mib: int
    """What the platform will make of it: this is accounted."""
    asked_mib: int = 0
    """What was asked for; 0: as much."""
    profile: str = ""
    access_mode: AccessMode = AccessMode.SINGLE_NODE_WRITER
    filesystem: str = "ext4"
    owner: str = ""
    role: str = ""
    region: str = ""
    zone: str = ""
    labels: Mapping[str, str] = {}
    snapshot: ExternalId | None = None
    """The platform's id of the snapshot that it starts from."""
    source: ExternalId | None = None
    """The platform's id of the volume that it is a clone of; only for one that is planned by hand."""

    @property
    def sizes(self) -> str:
        """For people: `16 MiB`, or `16 MiB (15 MiB were asked for)` where the platform rounds up."""
        return f"{self.size_mib} MiB" + (f" ({self.asked_mib} MiB were asked for)" if 0 < self.asked_mib < self.size_mib else "")


class ClaimRequest(Struct, frozen=True, kw_only=True, gc=False):
    """One volume for one placement."""

    claim_id: ClaimId
    volume_id: VolumeId
    platform: str
    """The volume's."""
    access: Access
    epoch: int = 0
    """The volume's epoch as last read; the claim gets the next one. 0 for a new volume."""
    new: NewVolume | None = None
    """Plan this volume in the same transaction; the claim's id becomes its token."""
    renew: bool = False
    """The volume is there but unborn: it starts over under this claim's token, and what it was becomes an orphan."""


class Placement(Struct, frozen=True, kw_only=True, gc=False):
    """One run of one instance of a workload."""

    placement_id: PlacementId
    scheduler: str
    workload: WorkloadId
    slot: int
    """Which instance, from 0."""
    node: NodeId
    state: str
    """In the words of the front end."""
    data: str = "{}"
    """JSON of the front end; the ledger does not read it."""
    created_at: float = 0.0
    updated_at: float = 0.0


class Workload(Struct, frozen=True, kw_only=True):
    """What is to run."""

    scheduler: str
    workload_id: WorkloadId
    spec: str
    """JSON of the front end; the ledger does not read it."""
    instances: int
    version: str = ""
    state: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0


class PlaceRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A placement with a claim for each of its volumes: all of it or nothing."""

    placement: Placement
    claims: tuple[ClaimRequest, ...] = ()
    lease_s: float = 0.0


class Placed(Struct, frozen=True, kw_only=True, gc=False):
    placement_id: PlacementId
    claims: tuple[Claim, ...]
    """In the order of the request."""


class Refused(Struct, frozen=True, kw_only=True):
    placement_id: PlacementId
    error: PollyError


class Orphan(Struct, frozen=True, kw_only=True):
    """What a token may have made on a platform, and nobody needs."""

    platform: str
    token: str
    external_id: ExternalId | None
    """None: nobody has seen it; the platform finds it by its token, or has nothing."""
    since: float
    keep_until: float = 0.0
    """Before this instant whoever was told to make it may still do so: it is to be looked for once more afterwards."""


class PoolUse(Struct, frozen=True, kw_only=True):
    """What live claims hold of one pool."""

    platform: str
    pool: str
    claims: int
    volumes_mib: int
    """The sizes of the volumes that are claimed, each counted once."""


class Pruned(Struct, frozen=True, kw_only=True):
    """What one part of pruning the event log came to."""

    deleted: int
    after: int | None
    """The number of the line to go on after; None: nothing that is old was found, so nothing that follows is either."""


class Neighbour(Struct, frozen=True, kw_only=True):
    """A live claim of another scheduler on a volume: where it is, and how its task stands."""

    node: NodeId
    hostname: str
    """Empty where its scheduler has not told it."""
    name: str
    """What the volume's platform calls the node; empty where nobody has said so."""
    state: str
    """Its placement's."""


class SlotsUsed(Struct, frozen=True, kw_only=True):
    """How many attach slots of a platform a scheduler uses on one node."""

    node: NodeId
    platform: str
    name: str
    """What the platform calls the node; empty where nobody has said so."""
    used: int


class Restored(Struct, frozen=True, kw_only=True):
    """All that one scheduler's broker needs to go on after a death, as of one moment."""

    workloads: list[Workload]
    placements: list[Placement]
    claims: list[tuple[Claim, Volume]]
    """Every live claim of the scheduler, with its volume."""
    nodes: list[Node]
