"""What may be done with a device, decided from what is on it and what is known of its volume. Pure: looks at nothing itself.

The one rule: a device is formatted only for the very claim that creates its volume, and only if nothing is on it. All
else is either known to be the volume, taken over as it is, or an error for a person.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from storage.errors import NotAsBorn, NotBlank, NotFormatted
from storage.model import Birth, VolumePlan
from storage.node.probing import Contents

OURS: Final = UUID("9f6f2a52-6a0e-5d0b-9a57-3f0c4c1f7b11")
"""The namespace of the UUIDs that Polly gives to filesystems."""


class Verdict(StrEnum):
    FORMAT = "format"
    """New and blank."""
    FINISHED = "finished"
    """An earlier attempt of the same claim has made this filesystem, and may have been cut off after that."""
    CLONE = "clone"
    """New, but a copy of another volume or of a snapshot."""
    ADOPT = "adopt"
    """Imported with its filesystem; it gets its birth certificate now."""
    BORN = "born"
    """As its birth certificate says."""


def filesystem_uuid(plan: VolumePlan) -> str:
    """The UUID that this claim gives to the filesystem it makes: the same each time, so that it knows its own work again."""
    return str(uuid5(OURS, f"{plan.volume_id}/{plan.claim_id}"))


def is_borrowed(plan: VolumePlan, uuid: str) -> bool:
    """Whether the filesystem of a copy has the UUID of where it was copied from: Polly did not give it this one."""
    return plan.is_copy and uuid != str(uuid5(OURS, f"{plan.volume_id}/{plan.token}"))


def made_by(plan: VolumePlan, birth: Birth) -> bool:
    """Whether this very claim has made the filesystem of this birth certificate."""
    return plan.may_format and not plan.is_copy and birth.filesystem_uuid == filesystem_uuid(plan)


def judge(plan: VolumePlan, contents: Contents, *, known: Birth | None, serial: str, device: str, filesystem: str) -> Verdict:
    """What to do with `device`, whose serial was verified. Raises NotAsBorn, NotBlank, NotFormatted.

    `known` is the birth certificate from the ledger or the platform, `filesystem` what the volume is to have.
    """
    if known is not None:
        _compare(known, contents, serial, device)
        return Verdict.BORN
    if plan.may_format and not plan.is_copy:
        return _judge_new(plan, contents, device, filesystem)
    if contents.filesystem != filesystem:
        raise NotFormatted(device=device, expected=filesystem, found=str(contents))
    return Verdict.CLONE if plan.may_create else Verdict.ADOPT


def _judge_new(plan: VolumePlan, contents: Contents, device: str, filesystem: str) -> Verdict:
    if contents.is_blank:
        return Verdict.FORMAT
    if (contents.filesystem, contents.uuid) == (filesystem, filesystem_uuid(plan)):
        return Verdict.FINISHED
    raise NotBlank(device=device, found=str(contents))


def _compare(known: Birth, contents: Contents, serial: str, device: str) -> None:
    found = contents.filesystem or str(contents)
    for what, is_there, was in (
        ("serial", serial, known.serial),
        ("filesystem", found, known.filesystem),
        ("filesystem UUID", contents.uuid, known.filesystem_uuid),
    ):
        if is_there != was:
            raise NotAsBorn(device=device, what=what, found=is_there, expected=was)
