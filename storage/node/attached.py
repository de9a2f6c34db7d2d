"""What this node has attached by more than the platform's own doing, in files beside the mounts: one for each claim.

Disks without a serial are here too: the name that they were attached under is all that tells them from others afterwards.
Such a file says how to let go of what a process that is dead has connected, and is locked while its process lives. So another
process knows which of a volume's holders on this node are alive, and takes away what the dead have left.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from storage.errors import NodeError
from storage.model import ClaimId, VolumeId, VolumePlan
from storage.platforms.base import Attachment

SUFFIX = ".attached"

_locks: dict[Path, int] = {}
"""The files that this process has locked; the kernel drops the locks with the process."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    claim_id: ClaimId
    volume_id: VolumeId
    attachment: Attachment


_decode = msgspec.json.Decoder(Record).decode


def keep(staging_dir: Path, plan: VolumePlan, attachment: Attachment) -> None:
    """Stores the claim's attachment, before anything is connected, and holds the file. Again is fine. Raises NodeError."""
    file = _file(staging_dir, plan.claim_id)
    record = Record(claim_id=plan.claim_id, volume_id=plan.volume_id, attachment=attachment)
    try:
        fd = _locks.pop(file, None)
        if fd is None:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        _locks[file] = fd
        fcntl.flock(fd, fcntl.LOCK_EX)  # waits for no more than another's look
        os.ftruncate(fd, 0)
        os.pwrite(fd, msgspec.json.encode(record), 0)
    except OSError as error:
        raise NodeError(command="write", target=str(file), reason=os.strerror(error.errno or 0)) from error


def drop(staging_dir: Path, claim_id: ClaimId) -> None:
    """The claim holds nothing here any more. Gone already is fine."""
    file = _file(staging_dir, claim_id)
    file.unlink(missing_ok=True)
    if (fd := _locks.pop(file, None)) is not None:
        os.close(fd)


def of(staging_dir: Path, claim_id: ClaimId) -> Attachment | None:
    """What the claim has attached here, as far as any process has stored it."""
    record = _read(_file(staging_dir, claim_id))
    return record.attachment if record else None


def has_others(staging_dir: Path, plan: VolumePlan | Record) -> bool:
    """Whether another claim on the same volume is held on this node by a process that lives."""
    return any(
        record.volume_id == plan.volume_id and is_alive for record, is_alive in _all(staging_dir) if record.claim_id != plan.claim_id
    )


def left_behind(staging_dir: Path) -> list[Record]:
    """What processes that are dead have attached."""
    return [record for record, is_alive in _all(staging_dir) if not is_alive]


def _file(staging_dir: Path, claim_id: ClaimId) -> Path:
    return staging_dir / f".{claim_id}{SUFFIX}"


def _all(staging_dir: Path) -> Iterator[tuple[Record, bool]]:
    for file in sorted(staging_dir.glob(f".*{SUFFIX}")):
        if record := _read(file):
            yield record, file in _locks or _is_locked(file)


def _read(file: Path) -> Record | None:
    """None also for one whose writer died while it wrote: then nothing was connected yet."""
    with suppress(OSError, msgspec.DecodeError):
        return _decode(file.read_bytes())
    return None


def _is_locked(file: Path) -> bool:
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)  # closing is not enough while a child that is being started has a copy
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
