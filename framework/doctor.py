"""`polly doctor`: looks at the set-up from where it runs, and says what to mend. It changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from executors.wire import BROKER
from framework.build import is_compiled
from framework.config import Config, check_against, load_config
from framework.fitting import doubles, misfits, misfits_in
from storage.errors import Invalid, NodeError, PollyError
from storage.model import Hearing, Pool
from storage.node.devices import Roots
from storage.node.identities import HOSTNAME, identify
from storage.node.multipath_findings import multipath_findings
from storage.node.steps import Machine
from storage.node.transports import programs
from storage.platforms.base import Capabilities, Finding, Platform, PoolReport
from storage.platforms.registry import build

if TYPE_CHECKING:
    from framework.client import BrokerClient

PROGRAMS: Final = {"mkfs.ext4": "e2fsprogs", "fsck.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "blkid": "util-linux", "mount": "util-linux"}
"""What an agent's node needs, and the Debian package that brings it."""
NFS_PROGRAMS: Final = {"mount.nfs": "nfs-common"}


def examine(
    *, config: Path | None = None, database: str | None = None, master: str | None = None, broker: BrokerClient | None = None
) -> Iterator[Finding]:
    """One finding after the other. What is None is not looked at."""
    yield _python()
    yield from _node()
    if config is not None:
        yield from _config(config)
    if database is not None:
        yield from _ledger(database)
    if master is not None:
        yield from _master(master)
    if broker is not None:
        yield from _broker(broker)


def _fine(subject: str, message: str) -> Finding:
    return Finding(ok=True, subject=subject, message=message)


def _wrong(subject: str, message: str, mend: str) -> Finding:
    return Finding(ok=False, subject=subject, message=message, mend=mend)


def _failed(subject: str, error: PollyError) -> Finding:
    return _wrong(subject, str(error), error.advice)


def _python() -> Finding:
    built = "compiled" if is_compiled() else "not compiled, so placing takes longer; a wheel built with a C compiler has them compiled"
    return _fine("python", f"{'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}; the hot modules are {built}")


def _node() -> Iterator[Finding]:
    """What this machine needs if it runs an agent."""
    if os.geteuid() != 0:
        yield _fine("node", "not root: an agent here can use folders as volumes, not filesystems on devices")
        return
    yield _programs("node", PROGRAMS, "for ext4 and xfs")
    yield from holding(Machine())


def holding(machine: Machine) -> Iterator[Finding]:
    """What forbids an executor here to hold a task, as it often is in a container. The broker's own machine may well forbid it."""
    try:
        machine.run(["unshare", "--mount", "--pid", "--fork", "true"])
    except NodeError as error:
        needs = "its container needs CAP_SYS_ADMIN, and a seccomp filter that allows unshare and mount"
        yield _fine("node", f"an agent here could run no task ({error}); {needs}")


def _programs(subject: str, needed: Mapping[str, str], what_for: str) -> Finding:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = {program: package for program, package in needed.items() if not shutil.which(program, path=path)}
    if not missing:
        return _fine(subject, f"the programs that an agent needs {what_for} are here")
    packages = " ".join(sorted(set(missing.values())))
    return _wrong(subject, f"{', '.join(missing)} not found; an agent here needs them", f"On Debian: apt-get install {packages}")


def of_node(name: str, able: Capabilities) -> Iterator[Finding]:
    """How an agent learns what the platform calls it, and what it needs beside Polly to bring the platform's volumes up."""
    subject = f"platform {name}"
    if able.identity != HOSTNAME:
        yield _fine(subject, f"what it calls a node comes from {able.identity}; {_identity_here(able.identity)}")
    if os.geteuid() == 0:
        for transport in able.transports:
            if needed := programs(transport):
                yield _programs(subject, needed, f"for {transport}")
        if able.scsi_disk:
            yield from of_platform(name, multipath_findings(able.scsi_disk, Roots()))
        if able.device == "nfs":
            yield _programs(subject, NFS_PROGRAMS, "to mount NFS exports")


def _identity_here(source: str) -> str:
    try:
        return f"this machine is {identify(source, Machine(), hostname=socket.gethostname())}"
    except PollyError as error:
        return f"this machine does not say, which matters on agents only ({error})"


def _config(path: Path) -> Iterator[Finding]:
    try:
        config = load_config(path)
    except PollyError as error:
        yield _failed("config", error)
        return
    yield _fine("config", f"{path}: platforms {', '.join(config.platforms) or 'none'}; profiles {', '.join(config.profiles) or 'none'}")
    if not config.platforms:
        yield _wrong("config", "no platform is configured, so no volume can be made", "Add a block [platforms.NAME] to polly.toml.")
    pools: list[Pool] = []
    for name in config.platforms:
        yield from _platform(config, name, pools)
    yield from of_doubles(config, pools)
    yield from _poolless(config, pools)


def _poolless(config: Config, pools: Sequence[Pool]) -> Iterator[Finding]:
    """Profiles that no pool qualifies for, though each platform that they may use has shown its pools."""
    shown = {pool.platform for pool in pools}
    for profile in config.profiles.values():
        wanted = set(profile.platforms or config.platforms)
        if wanted <= shown and not any(profile.qualifies(pool) for pool in pools):
            there = ", ".join(f"{pool.platform}/{pool.name}" for pool in pools if pool.platform in wanted)
            mend = f"Mend its platforms, pools or pool_labels; the pools there are {there}."
            yield _wrong("config", f"no pool qualifies for profile {profile.name}, so no volume of it can be made", mend)


def of_doubles(config: Config, pools: Sequence[Pool]) -> Iterator[Finding]:
    """Platforms that are one, and do not know of each other's volumes."""
    for double in doubles(config.platforms, pools):
        mend = "Make one block of the two; profiles choose among its pools by `pools` and `pool_labels`."
        yield _wrong("config", f"{double}, so it is promised twice", mend)


def _platform(config: Config, name: str, seen: list[Pool]) -> Iterator[Finding]:
    """Adds the platform's pools to those that were seen."""
    block, said = config.platforms[name], False
    try:
        with closing(build(name, block.keys.kind, block.settings)) as platform:
            for finding in of_platform(name, platform.check()):
                said = said or not finding.ok
                yield finding
            yield from of_node(name, platform.capabilities)
            if block.keys.attach_by == BROKER:
                yield _fine(f"platform {name}", "the broker attaches its volumes; agents need no credentials of it")
            yield from _profiles(config, platform)
            pools = platform.pools()
            yield _fine(f"platform {name}", f"pools: {', '.join(pool.name for pool in pools) or 'none'}")
            known = [_pool(name, pool) for pool in pools]
            seen += known
            yield from of_profiles(config, platform, known)
    except PollyError as error:
        if not said:  # else it is the same once more, without what to do about it
            yield _failed(f"platform {name}", error)


def _pool(platform: str, report: PoolReport) -> Pool:
    room = report.room.name if report.room else ""
    return Pool(platform=platform, name=report.name, capacity_mib=report.capacity_mib, labels=report.labels, room=room)


def of_profiles(config: Config, platform: Platform, pools: Sequence[Pool]) -> Iterator[Finding]:
    """What the platform would refuse of the profiles' parameters, pool by pool. Raises what it raises."""
    for misfit in misfits_in(pools, list(config.profiles.values()), platform):
        yield _failed("config", misfit)


def _profiles(config: Config, platform: Platform) -> Iterator[Finding]:
    """What the platform cannot do of what the profiles want of it."""
    named = [profile for profile in config.profiles.values() if platform.name in profile.platforms]
    for misfit in misfits(named, {platform.name: platform}):
        yield _failed("config", misfit)
    try:
        check_against(config, {platform.name: platform})
    except Invalid as error:
        yield _failed("config", error)


def _ledger(database: str) -> Iterator[Finding]:
    from storage.inventory import open_ledger

    try:
        with closing(open_ledger(database, read_only=True)) as ledger:
            yield _fine("ledger", f"{ledger.url} can be read")
            yield from soundness(ledger.counters())
            yield from silences(ledger.hearings())
    except PollyError as error:
        yield _failed("ledger", error)


def _master(master: str) -> Iterator[Finding]:
    from framework.masters import of_master

    return of_master(master)


def soundness(counters: Mapping[str, int]) -> Iterator[Finding]:
    """What the ledger counts of what must not be."""
    wrong = {name.replace("_", " "): number for name, number in counters.items() if number}
    for name, number in wrong.items():
        yield _wrong("ledger", f"{name}: {number}; it must be 0", "See: polly claim list, polly events")
    if not wrong:
        yield _fine("ledger", "nothing held twice, no claim lost or leaked, every sum right")


def silences(hearings: Iterable[Hearing]) -> Iterator[Finding]:
    """The platforms that a broker has asked in vain the last time."""
    for hearing in hearings:
        if hearing.silent_since:
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(hearing.silent_since))
            message = f"the broker has asked it {hearing.looks} times in vain since {since}: {hearing.error}"
            yield _wrong(f"platform {hearing.platform}", message, "Mend what the error says; the broker asks again by itself.")


def of_platform(name: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """An adapter's findings under the platform's name."""
    for finding in findings:
        yield replace(finding, subject=f"platform {name}", message=f"{finding.subject}: {finding.message}")


def _broker(broker: BrokerClient) -> Iterator[Finding]:
    try:
        info = broker.info()
        yield _fine("broker", f"{broker.url}: version {info.version}, framework {info.framework_name} {info.framework_id}".rstrip())
        yield from broker.doctor()
    except PollyError as error:
        yield _failed("broker", error)
