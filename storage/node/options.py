"""What a profile may say to mkfs and mount: a list of what is known to be harmless; all else is refused.

A profile's author must not be able, by mistake or otherwise, to make mkfs write elsewhere, to take away a guard of
Polly's own or to open a hole with a mount option; an app may bring mount options too (CSI's mountFlags).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
_ANY = ""
"""Of a word that has no value."""
_NUMBER, _SIZE = "[0-9]+", "[0-9]+[kmg]?"
NAMED: Final = {_NUMBER: "NUMBER", _SIZE: "SIZE"}
_OF_ALL: Final = dict.fromkeys(["discard", "nodiscard", "grpid", "bsdgroups", "nogrpid", "sysvgroups"], _ANY)
_QUOTAS: Final = dict.fromkeys(["quota", "noquota", "usrquota", "grpquota", "prjquota"], _ANY)
_EXT4_WORDS: Final = (
    *(
        "acl",
        "noacl",
        "user_xattr",
        "nouser_xattr",
        "delalloc",
        "nodelalloc",
        "auto_da_alloc",
        "noauto_da_alloc",
        "barrier",
        "bsddf",
        "minixdf",
    ),
    *("block_validity", "noblock_validity", "dioread_lock", "dioread_nolock", "i_version", "init_itable", "noinit_itable"),
    *("journal_checksum", "nojournal_checksum"),
)
_XFS_WORDS: Final = (
    *("attr2", "noattr2", "ikeep", "noikeep", "inode32", "inode64", "largeio", "nolargeio", "noalign", "swalloc", "wsync", "filestreams"),
    *("uquota", "uqnoenforce", "gquota", "gqnoenforce", "pquota", "pqnoenforce"),
)
MOUNT_DATA: Final[Mapping[str, Mapping[str, str]]] = {
    "ext4": {
        **_OF_ALL,
        **_QUOTAS,
        **dict.fromkeys(_EXT4_WORDS, _ANY),
        **dict.fromkeys(["commit", "inode_readahead_blks", "journal_ioprio", "max_batch_time", "min_batch_time"], _NUMBER),
        **dict.fromkeys(["max_dir_size_kb", "resgid", "resuid", "stripe"], _NUMBER),
        "data": "ordered|journal",
        "errors": "continue|remount-ro",
    },
    "xfs": {
        **_OF_ALL,
        **_QUOTAS,
        **dict.fromkeys(_XFS_WORDS, _ANY),
        **dict.fromkeys(["logbufs", "sunit", "swidth"], _NUMBER),
        **dict.fromkeys(["allocsize", "logbsize"], _SIZE),
    },
}
"""A filesystem's own options and what their values may look like. Not among them, on purpose: what ends or endangers the machine
(`errors=panic`), skips a repair (`noload`), gives up what a flush promises (`nobarrier`, `data=writeback`), leads to another device or
superblock (`logdev`, `sb`), gives files another label (`context`), and what Polly decides itself (`nouuid`)."""
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


def check_mount(filesystem: str, options: Sequence[str]) -> MountOptions:
    """Mount options of a profile or an app, one word an item or several joined by commas, with nosuid and nodev always. Raises Invalid."""
    checked = MountOptions()
    for word in (word for item in options for word in item.split(",")):
        if word in MOUNT_NO_OPS:
            continue
        if word in MOUNT_FLAGS:
            checked = _with_flag(checked, word)
        elif _is_harmless(filesystem, word):
            checked = checked.also(word)
        else:
            reason = f"of an {filesystem} mount a profile or an app may say {', '.join(sorted({*MOUNT_FLAGS, *_shown(filesystem)}))}"
            raise Invalid(field="mount_options", value=word, reason=reason)
    return checked


def _is_harmless(filesystem: str, word: str) -> bool:
    name, is_pair, value = word.partition("=")
    form = MOUNT_DATA[filesystem].get(name)
    return form is not None and bool(is_pair) is bool(form) and re.fullmatch(form, value) is not None


def _shown(filesystem: str) -> Iterator[str]:
    """What the filesystem's own options look like, for people."""
    for name, form in MOUNT_DATA[filesystem].items():
        yield f"{name}={NAMED.get(form, form)}" if form else name


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
