"""The two numbers that fence a volume, and the rule that reads them. Where they are kept is the adapter's business.

A mark is kept with the data (a sidecar, tags, metadata). Whoever comes with an epoch below what the mark admits must not
touch the volume. Readers may share a volume and come in any order, so a reader does not shut out an older reader; a writer
and a fence shut out everybody before them, and a reader shuts out every older writer.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.errors import StaleEpoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    epoch: int = 0
    """The highest epoch that came: a writer needs this one or a higher."""
    floor: int = 0
    """The highest epoch of a writer or a fence: a reader needs this one or a higher."""

    def admit(self, volume: str, epoch: int, *, read_only: bool = False) -> Mark:
        """The mark once a holder with this epoch has come. Raises StaleEpoch; coming twice changes nothing."""
        needed = self.floor if read_only else self.epoch
        if epoch < needed:
            raise StaleEpoch(volume=volume, epoch=epoch, found=needed)
        return Mark(epoch=max(self.epoch, epoch), floor=self.floor if read_only else epoch)

    def fenced(self, epoch: int) -> Mark:
        """The mark once everything below `epoch` is shut out; a mark is never lowered."""
        return Mark(epoch=max(self.epoch, epoch), floor=max(self.floor, epoch))
