"""What `polly doctor` says of a PowerFlex system: the login, the rights, the pools, the SDCs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from storage.platforms.base import Finding
from storage.platforms.passwords import exposed
from storage.platforms.powerflex.array import PowerFlexArray
from storage.platforms.powerflex.failures import DENIED, Refused, Unreachable
from storage.platforms.powerflex.options import PowerFlexOptions

NOWHERE: Final = "ffffffffffffffff"
"""No volume's id: removing it changes nothing, and is refused for the want of rights first."""


def check(options: PowerFlexOptions, array: PowerFlexArray) -> list[Finding]:
    findings = list(exposed(options.password_file))
    try:
        findings.append(Finding(ok=True, subject=options.gateway, message=f"the gateway of version {array.version()} lets us in"))
    except (Refused, Unreachable) as error:
        mend = "check gateway, ca_file, username and the password; the gateway must be reachable from here over TLS"
        return [*findings, Finding(ok=False, subject=options.gateway, message=str(error), mend=mend)]
    for look in (_rights, _pools, _sdcs):
        try:
            findings.extend(look(options, array))
        except (Refused, Unreachable) as error:
            findings.append(Finding(ok=False, subject=options.gateway, message=str(error), mend="give the user the right to see it"))
    return findings


def _rights(options: PowerFlexOptions, array: PowerFlexArray) -> Iterator[Finding]:
    may, said, mend = True, "may change volumes", ""
    try:
        array.remove(NOWHERE)
    except Refused as refused:
        if refused.status == 403 or refused.means(DENIED):
            may, said = False, f"may not change volumes ({refused.reason})"
            mend = "give it a role that may: FrontendConfig or Configure in version 3, StorageAdmin in version 4"
    yield Finding(ok=may, subject=options.username, message=f"the user {said}", mend=mend)


def _pools(options: PowerFlexOptions, array: PowerFlexArray) -> Iterator[Finding]:
    pools = {pool.name: pool for pool in array.pools(anew=True).values()}
    for name in options.pools or sorted(pools):
        pool = pools.get(name)
        if pool is None:
            mend = f"name pools that there are: {', '.join(sorted(pools)) or 'none'}"
            yield Finding(ok=False, subject=name, message="there is no such pool", mend=mend)
        elif not pool.is_mirrored:
            message = "the pool is of PowerFlex 5's erasure coding, which Polly does not speak"
            yield Finding(ok=not options.pools, subject=name, message=message, mend="leave it out of pools")
        elif not (pool.is_padded or options.allow_unpadded):
            message = "the pool has no zero padding: no volume is made in it"
            yield Finding(ok=not options.pools, subject=name, message=message, mend="enable zero padding, or set allow_unpadded")
        else:
            yield Finding(ok=True, subject=name, message="the pool is there")


def _sdcs(options: PowerFlexOptions, array: PowerFlexArray) -> Iterator[Finding]:
    sdcs = array.sdcs(anew=True).values()
    waiting = sorted(sdc.called for sdc in sdcs if sdc.sdc_approved is False)
    if not sdcs:
        yield Finding(ok=False, subject=options.gateway, message="no node has an SDC", mend="install the SDC on the agents")
    elif waiting:
        mend = "approve them on the array"
        yield Finding(ok=False, subject=", ".join(waiting), message="the array has not approved these SDCs", mend=mend)
    else:
        yield Finding(ok=True, subject=options.gateway, message=f"{len(sdcs)} SDCs are known")
