"""What every adapter makes sure of before it clones a volume: that the request fits the source, as the protocol says."""

from __future__ import annotations

from storage.errors import Invalid, Unsupported
from storage.platforms.base import CreateRequest, VolumeReport


def check(request: CreateRequest, source: VolumeReport, size_mib: int) -> None:
    """`size_mib` is what the clone will have. Raises Invalid for a pool or a size that cannot be."""
    if request.pool != source.pool:
        reason = f"volume {source.external_id} is in pool {source.pool}, and a clone is made where its source is"
        raise Invalid(field="pool", value=request.pool, reason=reason)
    if size_mib < source.size_mib:
        reason = f"volume {source.external_id} has {source.size_mib} MiB, and a clone has at least that"
        raise Invalid(field="size_mib", value=size_mib, reason=reason)


def refuse_attached(source: VolumeReport, *, platform: str) -> None:
    """For a platform without `clone_attached`. Raises Unsupported."""
    if source.held_by:
        reason = f"{', '.join(source.held_by)} has it attached, and the copy would be torn; detach it first"
        raise Unsupported(platform=platform, action=f"clone volume {source.external_id} now", reason=reason)
