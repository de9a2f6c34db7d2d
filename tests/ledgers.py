"""Small words for tests of the ledger: a clock that stands still, volumes, and tasks to place on node1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from storage.errors import PollyError
from storage.inventory import ClaimRequest, Ledger, NewVolume, Placed, Placement, PlaceRequest, Refused
from storage.lifecycle import ProofKind
from storage.model import Access, AccessMode, Birth, Claim, ClaimId, ExternalId, Node, NodeId, PlacementId, Proof, VolumeId, WorkloadId
from storage.platforms.base import PoolReport

SCHEDULER = "mesos/polly"
PROOF = Proof(kind=ProofKind.RELEASED, evidence="unmounted and detached")
BIRTH = Birth(serial="serial-1", filesystem="ext4", filesystem_uuid="uuid-1")


@dataclass(slots=True)
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def furnish(ledger: Ledger, *, capacity_mib: int = 1_000, slots: int | None = None) -> None:
    """One pool `p` on platform `local`, and the nodes node1 and node2."""
    limit = {} if slots is None else {"local": slots}
    with ledger.begin("test") as tx:
        tx.sync_pools("local", [PoolReport(name="p", capacity_mib=capacity_mib, zone="z1")])
        tx.put_nodes([Node(node_id=NodeId(name), scheduler=SCHEDULER, hostname=f"{name}.test", slots=limit) for name in ("node1", "node2")])


def new(name: str, *, size_mib: int = 100, mode: AccessMode = AccessMode.SINGLE_NODE_WRITER, **changes: object) -> NewVolume:
    """The volume `v-NAME`, called NAME."""
    fields: dict[str, object] = {"platform": "local", "pool": "p", "owner": "/app", "zone": "z1", **changes}
    # fields as they come
    return NewVolume(volume_id=VolumeId(f"v-{name}"), name=name, size_mib=size_mib, access_mode=mode, **fields)  # type: ignore[arg-type]


def fresh(claim: str, volume: NewVolume, access: Access = Access.RW) -> ClaimRequest:
    return ClaimRequest(claim_id=ClaimId(claim), volume_id=volume.volume_id, platform=volume.platform, access=access, new=volume)


def old(claim: str, name: str, epoch: int, access: Access = Access.RW, *, renew: bool = False, platform: str = "local") -> ClaimRequest:
    volume_id = VolumeId(f"v-{name}")
    return ClaimRequest(claim_id=ClaimId(claim), volume_id=volume_id, platform=platform, access=access, epoch=epoch, renew=renew)


def task(name: str, *claims: ClaimRequest, node: str = "node1", scheduler: str = SCHEDULER) -> PlaceRequest:
    placement = Placement(
        placement_id=PlacementId(name), scheduler=scheduler, workload=WorkloadId("/app"), slot=0, node=NodeId(node), state="LAUNCHED"
    )
    return PlaceRequest(placement=placement, claims=claims, lease_s=60.0)


def place(ledger: Ledger, *tasks: PlaceRequest) -> list[Placed | Refused]:
    with ledger.begin("broker") as tx:
        return tx.place(tasks)


def placed(ledger: Ledger, wanted: PlaceRequest) -> tuple[Claim, ...]:
    """Places one task, which must fit."""
    (outcome,) = place(ledger, wanted)
    if isinstance(outcome, Refused):
        raise outcome.error
    return outcome.claims


def refusal(ledger: Ledger, wanted: PlaceRequest) -> PollyError:
    """Why one task, which must not fit, is refused."""
    (outcome,) = place(ledger, wanted)
    assert isinstance(outcome, Refused), outcome
    return outcome.error


def bear(ledger: Ledger, claim: Claim, *, size_mib: int = 100) -> None:
    """The claim's executor has made and formatted the volume."""
    external = ExternalId(f"ext-{claim.claim_id}")
    with ledger.begin("mesos") as tx:
        tx.created(claim.volume_id, token=claim.claim_id, external_id=external, size_mib=size_mib)
        tx.born(claim.volume_id, epoch=claim.epoch, birth=BIRTH)


def end(ledger: Ledger, claims: Iterable[Claim]) -> None:
    """Every claim is released, and its placement goes."""
    with ledger.begin("mesos") as tx:
        for claim in claims:
            tx.free(claim.claim_id, claim.epoch, PROOF)
            tx.drop_placement(claim.holder.placement)


def make(ledger: Ledger, name: str, **changes: object) -> None:
    """A volume NAME that was born and is free, at epoch 1."""
    # fields as they come
    (claim,) = placed(ledger, task(f"maker of {name}", fresh(f"maker-{name}", new(name, **changes))))  # type: ignore[arg-type]
    bear(ledger, claim)
    end(ledger, [claim])


def assert_sound(ledger: Ledger) -> None:
    wrong = {name: number for name, number in ledger.counters().items() if number}
    assert not wrong, wrong
