"""What a profile may say to mkfs and mount: a list of what is known to be harmless; all else is refused.

A profile's author must not be able, by mistake or otherwise, to make mkfs write elsewhere, to take away a guard of
Polly's own or to open a hole with a mount option.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.errors import Invalid
from storage.node import syscalls

MKFS_FLAGS: Final = {
    "ext4": frozenset(["-b", "-E", "-G", "-g", "-I", "-i", "-J", "-m", "-N", "-O", "-T"]),
    "xfs": frozenset(["-b", "-d", "-i", "-l", "-m", "-n", "-s"]),
}
MKFS_VALUE: Final = re.compile(r"[A-Za-z0-9^_,=.:]+")
MKFS_NEVER: Final = ("device", "file", "name", "logdev", "rtdev", "uuid", "offset", "journal_dev")
"""Words of a value that would lead mkfs elsewhere, or give the filesystem another identity than its birth certificate's."""

MOUNT_FLAGS: Final = {
    "noexec": syscalls.MS_NOEXEC,
    "noatime": syscalls.MS_NOATIME,
    "nodiratime": syscalls.MS_NODIRATIME,
    "relatime": syscalls.MS_RELATIME,
    "strictatime": syscalls.MS_STRICTATIME,
    "sync": syscalls.MS_SYNCHRONOUS,
    "dirsync": syscalls.MS_DIRSYNC,
    "lazytime": syscalls.MS_LAZYTIME,
}
MOUNT_NO_OPS: Final = frozenset({"defaults", "rw", "nosuid", "nodev", "exec", "async"})
"""How a mount of Polly's is anyway."""
MOUNT_OURS: Final = frozenset(["ro", "suid", "dev", "bind", "rbind", "move", "remount", "loop", "nouuid"])
MOUNT_PEOPLE: Final = frozenset(["user", "users", "owner", "group", "auto", "noauto", "nofail"])
MOUNT_UNSAFE: Final = frozenset(
    ["norecovery", "noload", "logdev", "rtdev", "journal_dev", "journal_path", "offset", "sizelimit"],
)
MOUNT_NEVER: Final = MOUNT_OURS | MOUNT_PEOPLE | MOUNT_UNSAFE
"""What Polly decides itself, what only mount(8) knows, and what mounts something else or skips a repair."""
MOUNT_WORD: Final = re.compile(r"[a-z0-9_]+(=[A-Za-z0-9_.:-]+)?")
MOUNT_SHOWN: Final = frozenset({"noexec", "noatime", "nodiratime", "relatime"})
"""Flags that mountinfo shows again among a mount's own options."""

NFS_WORDS: Final = frozenset(
    {"hard", "soft", "softerr", "ac", "noac", "cto", "nocto", "acl", "noacl", "lock", "nolock", "rdirplus", "nordirplus"}
    | {"resvport", "noresvport", "sharecache", "nosharecache", "softreval", "nosoftreval"}
)
NFS_VALUES: Final = frozenset(
    {"vers", "nfsvers", "minorversion", "proto", "rsize", "wsize", "timeo", "retrans", "nconnect", "sec", "lookupcache", "local_lock"}
    | {"acregmin", "acregmax", "acdirmin", "acdirmax", "actimeo"}
)
NFS_OURS: Final = ("nosuid", "nodev", "retry=0")
"""Always. Whether to ask a server again is for whoever waits; mount.nfs would do so for two minutes."""
NFS_VALUE: Final = re.compile(r"[a-z0-9.:]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """A mount's options as mount(2) takes them."""

    flags: int = syscalls.MS_NOSUID | syscalls.MS_NODEV
    data: str = ""
    """The filesystem's own, joined by commas."""
    shown: frozenset[str] = frozenset({"nosuid", "nodev"})
    """What mountinfo must show of them."""

    def read_only(self) -> MountOptions:
        return MountOptions(flags=self.flags | syscalls.MS_RDONLY, data=self.data, shown=self.shown)

    def also(self, word: str) -> MountOptions:
        """With one more option of the filesystem's own."""
        return MountOptions(flags=self.flags, data=",".join([*([self.data] if self.data else []), word]), shown=self.shown)


def check_mkfs(filesystem: str, options: Sequence[str]) -> dict[str, str]:
    """A profile's mkfs options, a flag and its value by turns (`-i 8192`), as flag to value. Raises Invalid."""
    known = MKFS_FLAGS.get(filesystem)
    if known is None:
        raise Invalid(field="filesystem", value=filesystem, reason=f"it must be one of {', '.join(sorted(MKFS_FLAGS))}")
    if len(options) % 2:
        raise Invalid(field="mkfs_options", value=" ".join(options), reason="each flag needs its value after it, as an item of its own")
    joined: dict[str, str] = {}
    for flag, value in zip(options[::2], options[1::2], strict=True):
        if flag not in known:
            raise Invalid(field="mkfs_options", value=flag, reason=f"of mkfs.{filesystem} a profile may use {', '.join(sorted(known))}")
        words = {part.partition("=")[0] for part in value.split(",")}
        if not MKFS_VALUE.fullmatch(value) or words.intersection(MKFS_NEVER):
            raise Invalid(field="mkfs_options", value=value, reason="this value may not come from a profile")
        joined[flag] = f"{joined[flag]},{value}" if flag in joined else value
    return joined


def check_mount(options: Sequence[str]) -> MountOptions:
    """A profile's mount options, one word an item or several joined by commas, with nosuid and nodev always. Raises Invalid."""
    checked = MountOptions()
    for word in (word for item in options for word in item.split(",")):
        if word in MOUNT_NO_OPS:
            continue
        if not MOUNT_WORD.fullmatch(word) or word.partition("=")[0] in MOUNT_NEVER:
            raise Invalid(field="mount_options", value=word, reason="this option may not come from a profile")
        checked = _with_flag(checked, word) if word in MOUNT_FLAGS else checked.also(word)
    return checked


def check_nfs(options: Sequence[str]) -> tuple[str, ...]:
    """A profile's mount options for an NFS export, as mount(8) takes them. Raises Invalid for what is not known to be harmless.

    `hard` unless `soft` or `softerr` is asked for: a write that a slow server did not take must not be lost.
    """
    words: list[str] = []
    for word in (word for item in options for word in item.split(",")):
        if word in MOUNT_NO_OPS or word in words:
            continue
        name, is_pair, value = word.partition("=")
        known = name in NFS_VALUES and NFS_VALUE.fullmatch(value) if is_pair else word in NFS_WORDS or word in MOUNT_FLAGS
        if not known:
            reason = f"of an NFS mount a profile may say {', '.join(sorted(NFS_WORDS | MOUNT_FLAGS.keys()))}, and give values to "
            raise Invalid(field="mount_options", value=word, reason=reason + ", ".join(sorted(NFS_VALUES)))
        words.append(word)
    firm = () if {"soft", "softerr", "hard"}.intersection(words) else ("hard",)
    return (*NFS_OURS, *firm, *words)


def _with_flag(options: MountOptions, word: str) -> MountOptions:
    shown = options.shown | ({word} & MOUNT_SHOWN)
    return MountOptions(flags=options.flags | MOUNT_FLAGS[word], data=options.data, shown=shown)
