"""A volume that a platform is asked to take from a machine is not given to anybody there before that is done.

Of a volume that several may hold, one's end detaches it from a machine where another may just be coming to it, by another broker or
another life of this one. So the intent to detach is stored with the claim, in the transaction that looks for others on the machine, and who
places looks for it. Both lock the volume: whichever is first, the other sees it. The mark goes with the claim.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from storage.errors import UnknownClaim
from storage.ledger.bulk import Batch, Lookup
from storage.ledger.engine import Session
from storage.ledger.machines import called
from storage.ledger.records import Neighbour, PlaceRequest
from storage.ledger.writer import VOLUMES, Writer
from storage.model import ClaimId, NodeId, VolumeId

NEIGHBOURS: Final = Lookup(
    "SELECT claims.scheduler, claims.node_id, claims.platform, placements.state, nodes.hostname, nodes.identities FROM claims "
    "JOIN placements ON placements.placement_id = claims.placement_id "
    "LEFT JOIN nodes ON nodes.scheduler = claims.scheduler AND nodes.node_id = claims.node_id WHERE claims.volume_id {among}"
)
LEAVE: Final = Batch(
    "UPDATE claims SET leaving = true {from} WHERE claims.claim_id = :claim_id AND claims.epoch = :epoch", ("claim_id", "epoch")
)
LEAVING: Final = Lookup(
    "SELECT claims.volume_id, claims.claim_id, claims.node_id, claims.platform, nodes.identities FROM claims "
    "LEFT JOIN nodes ON nodes.scheduler = claims.scheduler AND nodes.node_id = claims.node_id "
    "WHERE claims.leaving AND claims.platform {among}"
)
NAMES: Final = Lookup("SELECT scheduler, node_id, identities FROM nodes WHERE node_id {among}")


class Leaving(Writer):
    """The part of a transaction that takes volumes from machines."""

    def neighbours(self, volume_id: VolumeId, scheduler: str) -> list[Neighbour]:
        """The live claims of other schedulers on the volume, which may be gone. Until the transaction ends no other comes."""
        self.session.lock(VOLUMES, [volume_id])
        return [
            Neighbour(node=NodeId(node), hostname=hostname or "", name=called(platform, identities), state=state)
            for who, node, platform, state, hostname, identities in self.session.find(NEIGHBOURS, [volume_id])
            if who != scheduler
        ]

    def leave(self, claim_id: ClaimId, epoch: int) -> None:
        """Stores that the claim's volume is about to be detached from its machine. Raises UnknownClaim for one that has ended."""
        if not self.session.run(LEAVE, [(claim_id, epoch)]):
            self._fail(UnknownClaim(claim=claim_id))


def leaving_before(session: Session, platforms: Collection[str], requests: Iterable[PlaceRequest]) -> Collection[tuple[VolumeId, ClaimId]]:
    """What these placements want of these platforms on a machine that it is just being taken from, each with the claim for whose end that
    is done. Their volumes must be locked.
    """
    if not (leaving := session.find(LEAVING, sorted(platforms))):
        return ()
    volumes = {row[0] for row in leaving}
    coming = [(claim, request.placement) for request in requests for claim in request.claims if claim.volume_id in volumes]
    identities = {(who, node): said for who, node, said in session.find(NAMES, sorted({placement.node for _, placement in coming}))}
    found = []
    for claim, placement in coming:
        mine = called(claim.platform, identities.get((placement.scheduler, placement.node)))
        for volume_id, claim_id, node, platform, said in leaving:
            if volume_id == claim.volume_id and (node == placement.node or (mine and mine == called(platform, said))):
                found.append((claim.volume_id, ClaimId(claim_id)))
    return found
