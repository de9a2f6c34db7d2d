"""What people ask to have done to a volume's size: it grows, and never shrinks."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from framework.snapshots import Snapshots
from framework.turning import InTurn
from framework.verbs import REFUSALS, fulfilled
from storage.errors import Conflict, Invalid, PollyError, Unsupported
from storage.model import ExternalId, Volume
from storage.platforms.base import Platform

MOST_MIB = 2**43
"""8 EiB."""


class Growing(Snapshots):
    """The verbs on sizes, and those on snapshots."""

    def expand(self, name: str, size_mib: int, actor: str) -> Future[Volume]:
        """Capacity is taken first, and given back if the platform refuses. The filesystem grows with the next mount."""
        volume = self._ledger.volume(name)
        platform, external = self.platform(volume.platform), volume.external_id
        if not 0 < size_mib <= MOST_MIB:
            raise Invalid(field="size_mib", value=size_mib, reason="give the size in MiB, more than 0")
        if external is not None:
            self._make_sure_it_grows(volume, platform)
        wanted = platform.fit(size_mib, self._parameters(volume), pool=volume.pool)
        with self._ledger.begin(actor) as tx:
            grown = tx.resize(volume.volume_id, wanted)
        self._changed([grown])
        if external is None:
            return fulfilled(grown)
        return self.go_on_growing(grown, external, actor)

    def _parameters(self, volume: Volume) -> Mapping[str, str]:
        """Those that the volume is still to be made with; what is made has its own, which are the platform's to know."""
        profile = self._config.profiles.get(volume.profile)
        return profile.parameters if profile is not None and volume.external_id is None else {}

    def go_on_growing(self, volume: Volume, external_id: ExternalId, actor: str) -> Future[Volume]:
        """The platform's part of an expansion whose intent is stored. After a refusal the volume has the size that the platform says."""
        platform = self.platform(volume.platform)

        def job(turn: InTurn) -> tuple[int, PollyError | None] | Volume:
            found = self._ledger.volume(volume.volume_id)
            if found.size_mib < volume.size_mib or not self._ledger.is_growing(volume.volume_id):
                return found
            turn.check()
            try:
                return platform.expand(external_id, volume.size_mib).size_mib, None
            except REFUSALS as refused:
                return platform.inspect(external_id).size_mib, refused

        def store(answer: tuple[int, PollyError | None] | Volume, turn: InTurn) -> Volume:
            if isinstance(answer, Volume):
                return self._grown_elsewhere(volume, answer)
            size_mib, refused = answer
            with turn.begin(actor) as tx:
                sized = tx.grown(volume.volume_id, size_mib, asked_mib=volume.size_mib)
            self._changed([sized])
            if refused is not None:
                raise refused
            return sized

        def give_up(_: PollyError, turn: InTurn) -> None:
            with turn.begin(actor) as tx:
                tx.grown(volume.volume_id, volume.size_mib, asked_mib=volume.size_mib)

        key = growth_of(volume)
        future = self._under_way[key] = self._run(
            volume.platform, f"volume {volume.volume_id}", job, store, give_up, alone_at=f"volume {volume.name}"
        )
        future.add_done_callback(lambda done: self._under_way.pop(key) if self._under_way.get(key) is done else None)
        return future

    def _grown_elsewhere(self, volume: Volume, found: Volume) -> Volume:
        """As it was `found` once another broker had worked on the same intent. Raises Conflict where that was refused.

        What was asked since is that asker's, so nothing is stored.
        """
        self._changed([found])
        if found.size_mib < volume.size_mib:
            wanted, now = f"{volume.size_mib} MiB", f"{found.size_mib} MiB: the platform refused more; see polly events"
            raise Conflict(what=f"volume {volume.name}", expected=wanted, found=now)
        return found

    def _make_sure_it_grows(self, volume: Volume, platform: Platform) -> None:
        is_claimed = bool(self._ledger.claims_on([volume.volume_id]))
        able = platform.capabilities.expand_attached if is_claimed else platform.capabilities.expand_detached
        if not able:
            reason = "its volumes keep their size while they are in use" if is_claimed else "its volumes keep their size"
            raise Unsupported(platform=volume.platform, action=f"expand volume {volume.name}", reason=reason)


def growth_of(volume: Volume) -> str:
    """What `is_under_way` calls it."""
    return f"growth of {volume.volume_id}"
