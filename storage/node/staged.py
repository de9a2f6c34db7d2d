"""What staging a volume leads to: the record that the steps after it are given, and what an error says about the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from storage.errors import PollyError
from storage.model import Birth, ExternalId, VolumePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A volume on this node. While its birth is being stored it has no `path` yet."""

    plan: VolumePlan
    external_id: ExternalId
    size_mib: int
    device: str
    """A block device, or the platform's folder."""
    birth: Birth
    path: str = ""
    """Where its files are: the mountpoint, or the platform's folder."""
    is_folder: bool = False
    formatted: bool = False
    """This very claim has made the filesystem."""
    took_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each step done: create, attach, probe, mkfs, birth, fsck, mount, grow."""


OnBirth = Callable[[Staged], None]
"""Called with a birth certificate that the ledger may not have yet. Returns when it is stored, which may take long, or raises."""


def may_be_held(error: BaseException) -> bool:
    """Whether the node may still hold the volume that `stage` or `unstage` failed on with this error; in doubt it may."""
    return bool(error.fields.get("held", True)) if isinstance(error, PollyError) else True
