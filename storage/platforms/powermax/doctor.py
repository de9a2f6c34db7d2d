"""What `polly doctor` says of a PowerMax array: the login, the array, the rights, the port group, the service level."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from storage.errors import PlatformError, PlatformUnavailable, PollyError
from storage.platforms.base import Finding
from storage.platforms.passwords import exposed
from storage.platforms.powermax.hosts import Hosts
from storage.platforms.powermax.options import PowerMaxOptions
from storage.platforms.powermax.unisphere import NotThere, Refused, Unisphere
from storage.platforms.restapi import KEYS

OLDEST: Final = (5978, 669)
"""Since when a snapshot has an id of its own, and a volume is deleted with what is allocated to it."""
NOWHERE: Final = "polly-doctor"
"""No storage group's name: deleting it changes nothing, and is refused for the want of rights first."""


def check(options: PowerMaxOptions, unisphere: Unisphere, hosts: Hosts) -> list[Finding]:
    try:
        version = unisphere.version()
    except PlatformUnavailable as error:
        mend = "Check endpoint, ca_file, username and password_file, and that this machine reaches Unisphere."
        return [Finding(ok=False, subject=options.endpoint, message=str(error), mend=mend)]
    except PollyError as error:
        return [Finding(ok=False, subject=options.endpoint, message=str(error), mend=error.advice or KEYS)]
    found = [Finding(ok=True, subject=options.endpoint, message=f"Unisphere {version}, reached as {options.username}")]
    found.extend(exposed(options.password_file))
    for look in (_array, _rights, _pools, _ports, _levels):
        try:
            found.extend(look(options, unisphere, hosts))
        except NotThere:
            found.append(Finding(ok=False, subject=options.array, message="Unisphere does not know this array", mend="Check `array`."))
            break
        except PollyError as error:
            found.append(Finding(ok=False, subject=options.array, message=str(error), mend="Give the user the right to see it."))
            break
    return found


def _array(options: PowerMaxOptions, unisphere: Unisphere, hosts: Hosts) -> Iterator[Finding]:
    said = unisphere.get("look at the array", category="system")
    code = str(said.get("microcode") or said.get("ucode") or "")
    numbers = tuple(int(part) for part in re.findall(r"\d+", code)[:2])
    message = f"{said.get('model', 'array')} with PowerMaxOS {code}"
    yield _judged(numbers >= OLDEST, options.array, message, "Polly needs PowerMaxOS 5978.669 or later.")


def _rights(options: PowerMaxOptions, unisphere: Unisphere, hosts: Hosts) -> Iterator[Finding]:
    may, message = True, "the user may change storage groups"
    try:
        unisphere.change("try the user's rights", "DELETE", "storagegroup", NOWHERE)
    except NotThere:
        pass
    except (Refused, PlatformUnavailable):
        raise
    except PlatformError as error:
        may, message = False, str(error)
    yield _judged(may, options.username, message, "Give the user the role StorageAdmin on the array.")


def _pools(options: PowerMaxOptions, unisphere: Unisphere, hosts: Hosts) -> Iterator[Finding]:
    there = sorted(unisphere.get("look at its pools", "srp").get("srpId") or ())
    message = f"the array has the storage resource pools {', '.join(there)}"
    for srp in options.srps or there[:1]:
        yield _judged(srp in there, srp, message, "Name some of them in `srps`.")


def _ports(options: PowerMaxOptions, unisphere: Unisphere, hosts: Hosts) -> Iterator[Finding]:
    try:
        ports = hosts.ports()
    except NotThere:
        yield Finding(ok=False, subject=options.port_group, message="there is no such port group", mend="Make it, or name another.")
        return
    usable = hosts.portals().split() if options.protocol == "iscsi" else ports
    mend = "Put ports of the protocol into the port group, and give iSCSI ports addresses."
    message = f"{len(usable)} {options.protocol} ports in the port group"
    yield _judged(bool(usable), options.port_group, message, mend)


def _levels(options: PowerMaxOptions, unisphere: Unisphere, hosts: Hosts) -> Iterator[Finding]:
    levels = sorted(unisphere.get("look at service levels", "slo").get("sloId") or ())
    message = f"the array has the service levels {', '.join(levels)}"
    yield _judged(options.service_level in levels, options.service_level, message, "Name one of them.")


def _judged(ok: bool, subject: str, message: str, mend: str) -> Finding:
    return Finding(ok=ok, subject=subject, message=message, mend="" if ok else mend)
