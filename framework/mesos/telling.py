"""What a round of offers came to, in a person's words. A large round is told in one line: its claims are in the ledger's event log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from framework.mesos.context import story
from framework.mesos.launches import Launch
from offers.overlay import overlays
from offers.records import Offer
from offers.view import StorageView

ONE_BY_ONE = 20
"""So many launches of one round are told one by one."""


def tell_round(launches: Sequence[Launch], offers: Sequence[Offer], seen: int, storage: StorageView) -> None:
    """The offers that were used of so many seen, with their overlays, and the claims that were made on them."""
    if not launches or not story.isEnabledFor(logging.INFO):
        return
    used = {launch.match.agent_id for launch in launches}
    if len(launches) > ONE_BY_ONE:
        claims = sum(len(launch.task.claims) for launch in launches)
        story.info("claim    %d volumes reserved for %d tasks on %d of %d agents", claims, len(launches), len(used), seen)
        return
    _tell_offers([offer for offer in offers if offer.agent_id in used], storage)
    for launch in launches:
        _tell_claims(launch)


def _tell_offers(chosen: Sequence[Offer], storage: StorageView) -> None:
    found = overlays(chosen, storage)
    for offer in chosen:
        pools = {(share.pool.platform, share.pool.name): share.size_mib for share in found[offer.agent_id].shares}
        shares = ", ".join(f"{platform}/{pool} up to {size_mib} MiB" for (platform, pool), size_mib in pools.items())
        story.info("offer    %s: %s; overlay: %s", offer.hostname, _scalars(offer), shares or "nothing in reach")


def _scalars(offer: Offer) -> str:
    return ", ".join(f"{resource.name} {resource.scalar.value:g}" for resource in offer.resources if resource.scalar)


def _tell_claims(launch: Launch) -> None:
    match, task = launch.match, launch.task
    for volume, chosen, wanted in zip(task.volumes.values(), match.volumes, match.ask.volumes, strict=True):
        asked = f" ({wanted.size_mib} MiB were asked for)" if 0 < wanted.size_mib < volume.size_mib else ""
        what = "existing volume" if chosen.existing else "new volume, late bound in"
        story.info(
            "claim    %s epoch %d: %s %s/%s %d MiB%s, reserved for %s on %s",
            volume.name, volume.epoch, what, volume.platform, volume.pool, volume.size_mib, asked, match.ask.key, match.hostname,
        )  # fmt: skip
