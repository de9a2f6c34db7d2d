"""The keys of a block `[platforms.NAME]` with `kind = "virtualbox"`, and the parameters that a profile may give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from storage.errors import Invalid
from storage.platforms.options import option

POOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
FORMATS: Final[Mapping[str, str]] = {"vdi": "VDI", "vmdk": "VMDK"}
"""The parameter `format`, which is the file's suffix too, with VirtualBox's name of it."""
VARIANTS: Final[Mapping[str, str]] = {"standard": "Standard", "fixed": "Fixed"}
DEFAULT_SLOTS: Final = 29
"""Of a SATA controller's 30 ports one is the system disk's."""


def _one_of(*words: str) -> Callable[[str], str]:
    return lambda value: "" if value in words else f"it must be one of {', '.join(words)}"


def _absolute(root: str) -> str:
    absolute = root.isprintable() and (root.startswith("/") or re.match(r"[A-Za-z]:[\\/]", root))
    return (
        ""
        if absolute and ".." not in re.split(r"[\\/]", root)
        else "it must be an absolute path of the VM host, in one line and without '..'"
    )


def _file(path: str) -> str:
    return "" if not path or PurePosixPath(path).is_absolute() else "it must be an absolute path"


def _http(url: str) -> str:
    return "" if re.fullmatch(r"https?://[^/@\s]+/?", url) else 'it must be an address such as "http://vmhost:18083/", without a user'


def _at_least_one(number: int) -> str:
    return "" if number >= 1 else "it must be 1 or more"


def _pool_names(pools: Sequence[str]) -> str:
    if not pools or len(set(pools)) != len(pools) or not all(POOL_NAME.fullmatch(pool) for pool in pools):
        return "it must be a list of different folder names of letters, digits, '_' and '-'"
    return ""


def _ports(slots: int) -> str:
    return "" if 1 <= slots <= 30 else "it must be between 1 and 30, the ports of a SATA controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualBoxOptions:
    root: str = option(says="the folder on the VM host that holds the pools' folders; an absolute path", check=_absolute, where=True)
    pools: tuple[str, ...] = option(("default",), says="the sub-folders of root that are pools", check=_pool_names)
    capacity_mib: int | None = option(
        None, says='how much each pool holds, in MiB; must be given with via = "soap", which cannot tell', check=_at_least_one
    )
    total_mib: int | None = option(
        None,
        says="how much all pools hold together, in MiB, where their folders share a disk",
        check=_at_least_one,
    )
    via: str = option(
        "soap",
        says='"soap": the web service vboxwebsrv; "vboxmanage": the command line, for a broker on the VM host',
        check=_one_of("soap", "vboxmanage"),
    )
    url: str = option("http://127.0.0.1:18083/", says="where vboxwebsrv listens", check=_http, where=True)
    username: str = option("", says="whom vboxwebsrv lets in; empty where it was told to let in everybody")
    password_file: str = option("", says="a file with that user's password, readable by Polly alone", check=_file)
    ca_file: str = option("", says="the certificate authority of an https address, where the system does not know it", check=_file)
    vboxmanage: str = option("VBoxManage", says="the command line's program, by name or path")
    controller: str = option("", says="the name of the VMs' SATA controller for volumes; empty: the first one that a VM has")
    slots: int = option(
        DEFAULT_SLOTS, says="how many volumes a VM can hold until VirtualBox was asked for its controller's ports", check=_ports
    )
    lock_wait_s: int = option(10, says="how long to wait for a VM or a volume that another client has locked", check=_at_least_one)
    timeout_s: int = option(60, says="how long one call may take; copies have no limit while they go on", check=_at_least_one)
    region: str = option("", says="the region of its pools; empty: they are reached from everywhere")
    zone: str = option("", says="the zone of its pools; empty: they are reached from everywhere")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How a profile wants a medium made."""

    format: str = "vdi"
    variant: str = "standard"


def read_parameters(given: Mapping[str, str]) -> Parameters:
    """Raises Invalid for a parameter that media don't have, or a value that it cannot have."""
    known = {"format": FORMATS, "variant": VARIANTS}
    for key, value in given.items():
        if key not in known:
            raise Invalid(field=f"parameters.{key}", value=value, reason=f"a medium's parameters are {', '.join(known)}")
        if value not in known[key]:
            raise Invalid(field=f"parameters.{key}", value=value, reason=f"it must be one of {', '.join(known[key])}")
    return Parameters(**given)


def refuse_incomplete(name: str, options: VirtualBoxOptions) -> None:
    """What no single key can see. Raises Invalid."""
    if options.via == "soap" and options.capacity_mib is None:
        reason = 'it must be given with via = "soap": the web service cannot tell how large a folder\'s disk is'
        raise Invalid(field=f"platforms.{name}.capacity_mib", value="", reason=reason)
    if bool(options.username) != bool(options.password_file):
        missing = "password_file" if options.username else "username"
        raise Invalid(field=f"platforms.{name}.{missing}", value="", reason="username and password_file are given together")
