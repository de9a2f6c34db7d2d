"""P7: the CPU of one claim on an existing volume, in a transaction of its own, with a million volumes over a thousand.

The volumes are picked at random, the worst case: none of the pages that a claim reads is likely to be read by the next.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from storage.inventory import ClaimRequest, Ledger, Placed, Placement, PlaceRequest, Release, open_ledger
from storage.lifecycle import ProofKind
from storage.model import Access, Claim, ClaimId, Node, NodeId, PlacementId, Proof, VolumeId, WorkloadId
from storage.platforms.base import PoolReport
from tests.bench.filling import fill, picked, sound, volume_id
from tests.bench.harness import Result, in_pairs, ratios, scratch

FEW, MANY = 1_000, 1_000_000
CLAIMS = 300
NODES = 100
SCHEDULER = "mesos/bench"


class Claimer:
    """A filled ledger, of which volumes are claimed and released again."""

    def __init__(self, folder: Path, volumes: int) -> None:
        self.ledger, self._volumes = open_ledger(f"sqlite:///{folder}/{volumes}.db"), volumes
        self._epochs: dict[int, int] = {}
        self._rounds = itertools.count()
        furnish(self.ledger)
        fill(self.ledger, volumes, platform="disks", pool="p")

    def round(self) -> float:
        """Seconds of CPU for one claim."""
        number = next(self._rounds)
        tasks = [self._task(it, f"{number}-{it}") for it in picked(CLAIMS, self._volumes, seed=number)]
        before = time.process_time()
        claims = [self._place(task) for task in tasks]
        spent = time.process_time() - before
        self._release(claims)
        return spent / CLAIMS

    def _task(self, volume: int, name: str) -> PlaceRequest:
        epoch = self._epochs.get(volume, 1)
        self._epochs[volume] = epoch + 1
        placement = Placement(
            placement_id=PlacementId(f"app.{name}"),
            scheduler=SCHEDULER,
            workload=WorkloadId("/app"),
            slot=0,
            node=NodeId(f"agent-{volume % NODES}"),
            state="LAUNCHED",
        )
        claim = ClaimRequest(
            claim_id=ClaimId(f"claim-{name}"), volume_id=VolumeId(volume_id(volume)), platform="disks", access=Access.RW, epoch=epoch
        )
        return PlaceRequest(placement=placement, claims=(claim,), lease_s=60.0)

    def _place(self, task: PlaceRequest) -> Claim:
        with self.ledger.begin("broker") as tx:
            (outcome,) = tx.place([task])
        if not isinstance(outcome, Placed):
            raise AssertionError(f"a claim was refused: {outcome.error}")
        return outcome.claims[0]

    def _release(self, claims: Sequence[Claim]) -> None:
        proof = Proof(kind=ProofKind.RELEASED, evidence="unmounted and detached")
        with self.ledger.begin("broker") as tx:
            tx.free_many([Release(claim_id=claim.claim_id, epoch=claim.epoch, proof=proof) for claim in claims])
            tx.drop_placements([claim.holder.placement for claim in claims])


def furnish(ledger: Ledger) -> None:
    """A pool with room for everything, and the nodes."""
    with ledger.begin("bench") as tx:
        tx.sync_pools("disks", [PoolReport(name="p", capacity_mib=10**12)])
        tx.put_nodes([Node(node_id=NodeId(f"agent-{it}"), scheduler=SCHEDULER, hostname=f"n{it}") for it in range(NODES)])


def bench() -> Result:
    with scratch() as folder:
        few, many = Claimer(folder, FEW), Claimer(folder, MANY)
        mine, theirs = in_pairs(many.round, few.round)
        for claimer in (few, many):
            sound(claimer.ledger)
            claimer.ledger.close()
    return Result(
        name="P7",
        ratios=ratios(mine, theirs),
        what=f"CPU of a claim with {MANY:,} volumes over {FEW:,}, SQLite",
        details={"us_cpu_with_many": min(mine) * 1e6, "us_cpu_with_few": min(theirs) * 1e6},
    )
