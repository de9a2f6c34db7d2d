"""The birth certificate of a new filesystem, kept with the volume itself. It comes after the ledger's: what bears one was never a volume
without data, whatever a ledger says that was restored from an older backup."""

from __future__ import annotations

from storage.model import Access
from storage.node.attacher import Attacher
from storage.node.staged import Staged
from storage.node.steps import Steps


def mark(staged: Staged, platform: Attacher, steps: Steps) -> None:
    """To be called once the ledger has the certificate. Again is fine, and so is a platform that can keep none.

    Raises LeaseExpired, and what the platform raises.
    """
    with steps.step("birth", uuid=staged.birth.filesystem_uuid):
        if platform.capabilities.marks and staged.plan.access is not Access.RO:
            platform.record_birth(staged.external_id, staged.birth, epoch=staged.plan.epoch)
