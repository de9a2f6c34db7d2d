"""What is on a device: every signature that libblkid knows, in doubt the worst.

This is what `blkid -p` runs, called in this process on a descriptor that is already open, so that what was probed
is what was opened exclusively, and in half a millisecond. The answers are those of its exit codes: nothing at all
(2), something (0), several things at once (8), and failure, which is an error and never "blank".
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final

from storage.errors import NodeError
from storage.node.commands import Run

FOUND: Final = 0
NOTHING: Final = 1
AMBIVALENT: Final = -2

ENDS: Final = 1 << 19
"""Bytes at either end of a device where nearly all signatures are."""

SUBLKS_UUID: Final = 1 << 3
SUBLKS_TYPE: Final = 1 << 5
SUBLKS_USAGE: Final = 1 << 7
SUBLKS_BADCSUM: Final = 1 << 10
"""Without it a superblock whose checksum is wrong counts as none, and its device as blank."""
PARTS_FORCE_GPT: Final = 1 << 1
"""A GPT counts even if its protective MBR is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is on a device."""

    type: str = ""
    """ext4, xfs, crypto_LUKS, LVM2_member, swap, zfs_member, ...; empty if there is no such signature."""
    uuid: str = ""
    is_filesystem: bool = False
    partition_table: str = ""
    """dos, gpt, ...; empty if there is none."""
    is_damaged: bool = False
    """The signature's checksum is wrong."""
    is_ambivalent: bool = False
    """Signatures of several things that exclude each other."""

    @property
    def is_blank(self) -> bool:
        return not (self.type or self.partition_table or self.is_ambivalent)

    @property
    def filesystem(self) -> str:
        """The filesystem's type, if a whole one is there and nothing else."""
        certain = self.is_filesystem and not (self.partition_table or self.is_damaged or self.is_ambivalent)
        return self.type if certain else ""

    def __str__(self) -> str:
        """In words, for an error's sentence."""
        if self.is_ambivalent:
            return "several signatures that exclude each other"
        if self.is_blank:
            return "nothing"
        table = [f"a {self.partition_table} partition table"] if self.partition_table else []
        return " and ".join([*table, *([self._signature()] if self.type else [])])

    def _signature(self) -> str:
        kind = "filesystem" if self.is_filesystem else "signature"
        uuid = f" with UUID {self.uuid}" if self.uuid else ""
        return f"{'a damaged' if self.is_damaged else 'the'} {self.type} {kind}{uuid}"


def probe(fd: int, device: str) -> Contents:
    """Looks through the open `device`. Raises NodeError if it cannot be told, which must not be taken for blank."""
    _read_ahead(fd)
    with _prober(fd, device) as (library, prober):
        answer = library.blkid_do_safeprobe(prober)
        if answer == AMBIVALENT:
            return Contents(is_ambivalent=True)
        if answer == NOTHING:
            return Contents()
        if answer != FOUND:
            raise NodeError(command="blkid", target=device, reason="its content cannot be read")
        return _contents(_values(library, prober))


def second_opinion(device: str, run: Run) -> str:
    """What `wipefs`, which reads each signature by itself, finds on a device that was probed blank; empty if nothing.

    Raises NodeError.
    """
    said = run(["wipefs", "--no-act", "--json"], device)
    try:
        found = json.loads(said.out or "{}").get("signatures") or []
        return ", ".join(f"{item['type']} at {item['offset']}" for item in found)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise NodeError(command="wipefs", target=device, reason=f"its answer cannot be read: {said.last_words}") from error


def _contents(values: dict[str, str]) -> Contents:
    return Contents(
        type=values.get("TYPE", ""),
        uuid=values.get("UUID", ""),
        is_filesystem=values.get("USAGE") == "filesystem",
        partition_table=values.get("PTTYPE", ""),
        is_damaged="SBBADCSUM" in values,
    )


def _read_ahead(fd: int) -> None:
    """Has the kernel fetch both ends of the device in a few large reads, where libblkid would make fifty small ones."""
    size = os.lseek(fd, 0, os.SEEK_END)
    for start in (0, max(0, size - ENDS)):
        os.posix_fadvise(fd, start, ENDS, os.POSIX_FADV_WILLNEED)


@contextmanager
def _prober(fd: int, device: str) -> Iterator[tuple[ctypes.CDLL, int]]:
    library = _library()
    prober = library.blkid_new_probe()
    if not prober:
        raise NodeError(command="blkid", target=device, reason="no memory")
    try:
        if library.blkid_probe_set_device(prober, fd, 0, 0) != 0:
            raise NodeError(command="blkid", target=device, reason="the device cannot be probed")
        library.blkid_probe_enable_superblocks(prober, 1)
        library.blkid_probe_set_superblocks_flags(prober, SUBLKS_UUID | SUBLKS_TYPE | SUBLKS_USAGE | SUBLKS_BADCSUM)
        library.blkid_probe_enable_partitions(prober, 1)
        library.blkid_probe_set_partitions_flags(prober, PARTS_FORCE_GPT)
        yield library, prober
    finally:
        library.blkid_free_probe(prober)


def _values(library: ctypes.CDLL, prober: int) -> dict[str, str]:
    values = {}
    for index in range(library.blkid_probe_numof_values(prober)):
        name, value = ctypes.c_char_p(), ctypes.c_char_p()
        if library.blkid_probe_get_value(prober, index, ctypes.byref(name), ctypes.byref(value), None) == 0:
            values[(name.value or b"").decode()] = (value.value or b"").decode("utf-8", "replace")
    return values


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libblkid.so.1", use_errno=True)
    except OSError as error:
        raise NodeError(command="blkid", target="libblkid.so.1", reason="util-linux' library libblkid is not installed") from error
    pointer, number, offset = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    text = ctypes.POINTER(ctypes.c_char_p)
    library.blkid_new_probe.restype = pointer
    library.blkid_probe_set_device.argtypes = [pointer, number, offset, offset]
    for verb in ("enable_superblocks", "set_superblocks_flags", "enable_partitions", "set_partitions_flags"):
        getattr(library, f"blkid_probe_{verb}").argtypes = [pointer, number]
    for verb in ("blkid_do_safeprobe", "blkid_probe_numof_values", "blkid_free_probe"):
        getattr(library, verb).argtypes = [pointer]
    library.blkid_free_probe.restype = None
    library.blkid_probe_get_value.argtypes = [pointer, number, text, text, pointer]
    return library
