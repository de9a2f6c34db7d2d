"""Where the ledger, the platforms and the nodes' mounts differ: each difference named, weighed, and with what to do about it.

Pure functions over records. What was true a moment ago may look like a difference, so whoever calls looks twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from storage.lifecycle import ClaimState, VolumeState
from storage.model import Claim, ClaimId, Pool, Snapshot, Volume, VolumeId
from storage.platforms.base import PoolReport, SnapshotReport, VolumeReport

VANISHED: Final = "the platform does not have it any more"
"""The reason of a volume that is FAULTED because of VOLUME_GONE; it is mended when the volume is seen again."""


class Severity(StrEnum):
    INFO = "INFO"
    """Nothing is at risk."""
    WARNING = "WARNING"
    """Somebody should look, today."""
    DANGER = "DANGER"
    """Data may be lost or written by two."""


class DriftKind(StrEnum):
    VOLUME_GONE = "VOLUME_GONE"
    VOLUME_BACK = "VOLUME_BACK"
    SIZE_LARGER = "SIZE_LARGER"
    SIZE_SMALLER = "SIZE_SMALLER"
    HELD_UNCLAIMED = "HELD_UNCLAIMED"
    NOT_HELD = "NOT_HELD"
    HELD_ELSEWHERE = "HELD_ELSEWHERE"
    EPOCH_AHEAD = "EPOCH_AHEAD"
    EPOCH_BEHIND = "EPOCH_BEHIND"
    BIRTH_DIFFERS = "BIRTH_DIFFERS"
    BIRTH_UNMARKED = "BIRTH_UNMARKED"
    POOL_MOVED = "POOL_MOVED"
    STRAY_VOLUME = "STRAY_VOLUME"
    SNAPSHOT_GONE = "SNAPSHOT_GONE"
    STRAY_SNAPSHOT = "STRAY_SNAPSHOT"
    POOL_GONE = "POOL_GONE"
    POOL_CHANGED = "POOL_CHANGED"
    MOUNT_STRAY = "MOUNT_STRAY"
    MOUNT_MISSING = "MOUNT_MISSING"


class Meaning(Struct, frozen=True):
    severity: Severity
    advice: str
    mend: str = ""
    """What `polly drift --apply` does; empty where only a person can decide. Nothing that it does deletes or unmounts anything."""


I, W, D = Severity  # noqa: E741  # a table reads better with one letter
MEANINGS: Final[Mapping[DriftKind, Meaning]] = {
    DriftKind.VOLUME_GONE: Meaning(
        D, "Find out who deleted it; a snapshot may have its data. Then: polly volume delete", "set it FAULTED, so that nothing claims it"
    ),
    DriftKind.VOLUME_BACK: Meaning(W, "Look whether its data is what it was.", "set it AVAILABLE again"),
    DriftKind.SIZE_LARGER: Meaning(I, "Its filesystem grows with its next mount.", "take the platform's size over"),
    DriftKind.SIZE_SMALLER: Meaning(D, "Volumes never shrink by Polly: look at what was done on the platform before anything mounts it."),
    DriftKind.HELD_UNCLAIMED: Meaning(W, "Look at who holds it; Polly's next claim on it will be refused by the platform."),
    DriftKind.NOT_HELD: Meaning(D, "Its task writes to nothing, or to something else: look at the task, and restart it."),
    DriftKind.HELD_ELSEWHERE: Meaning(D, "Somebody attached it by hand: find out who, before both write."),
    DriftKind.EPOCH_AHEAD: Meaning(
        D, "Another ledger is in use, or a backup of this one: stop all brokers but one. After a backup, start it once with --restored."
    ),
    DriftKind.EPOCH_BEHIND: Meaning(W, "The mark on the platform was changed by hand; an older holder would not be shut out."),
    DriftKind.BIRTH_DIFFERS: Meaning(D, "It was formatted or replaced outside of Polly: look at it before anything mounts it."),
    DriftKind.BIRTH_UNMARKED: Meaning(I, "The ledger has the birth certificate.", "store the birth certificate on the platform"),
    DriftKind.POOL_MOVED: Meaning(W, "It was moved on the platform; what the ledger accounts to its pools is off by it."),
    DriftKind.STRAY_VOLUME: Meaning(
        W, "It bears a token of Polly's that this ledger does not know: import it, or delete it on the platform."
    ),
    DriftKind.SNAPSHOT_GONE: Meaning(D, "Find out who deleted it. Then: polly snapshot delete"),
    DriftKind.STRAY_SNAPSHOT: Meaning(
        W, "It bears a token of Polly's that this ledger does not know: delete it on the platform, or keep it."
    ),
    DriftKind.POOL_GONE: Meaning(W, "The platform does not report it: look at the platform's settings.", "set the pool offline"),
    DriftKind.POOL_CHANGED: Meaning(I, "The ledger looks at the pools every 30 s.", "take over what the platform says"),
    DriftKind.MOUNT_STRAY: Meaning(D, "A process on this node has a volume mounted that the ledger has given away: end that process."),
    DriftKind.MOUNT_MISSING: Meaning(D, "The ledger takes it for mounted on this node: look at the task, and restart it."),
}


class Drift(Struct, frozen=True, kw_only=True):
    """One difference."""

    kind: DriftKind
    severity: Severity
    platform: str
    subject: str
    """A volume's name, a pool's, or the platform's own id."""
    ledger: str
    """What the ledger says."""
    found: str
    """What was seen."""
    advice: str
    mend: str = ""
    mended: bool = False
    volume_id: VolumeId | None = None
    external_id: str = ""


def drift(kind: DriftKind, platform: str, subject: str, *, ledger: str, found: str, **more: str | VolumeId | None) -> Drift:
    meaning = MEANINGS[kind]
    return Drift(
        kind=kind,
        severity=meaning.severity,
        platform=platform,
        subject=subject,
        ledger=ledger,
        found=found,
        advice=meaning.advice,
        mend=meaning.mend,
        **more,  # type: ignore[arg-type]  # volume_id and external_id
    )


# --- volumes ---------------------------------------------------------------------------------------------


def of_volume(
    volume: Volume, seen: VolumeReport | None, claims: Sequence[Claim], nodes: Mapping[str, str], *, marks: bool
) -> Iterator[Drift]:
    """How one volume of the ledger differs from what the platform says of it; None: the platform has no such volume.

    `nodes` are the platform's names of the nodes that the claims are on, by node id, as far as they are known; `marks` is
    Capabilities.marks.
    """
    if volume.external_id is None or volume.state is VolumeState.DELETING:
        return
    if seen is None:
        if not (volume.state is VolumeState.FAULTED and volume.reason == VANISHED):
            yield _of(volume, DriftKind.VOLUME_GONE, ledger=f"{volume.state}, {volume.size_mib} MiB", found="no such volume")
        return
    if volume.state is VolumeState.FAULTED and volume.reason == VANISHED:
        yield _of(volume, DriftKind.VOLUME_BACK, ledger=f"FAULTED: {VANISHED}", found=f"{seen.size_mib} MiB in {seen.pool}")
    yield from _size(volume, seen)
    yield from _place(volume, seen)
    yield from _holders(volume, seen, claims, nodes)
    if marks:
        yield from _marks(volume, seen, claims)


def _of(volume: Volume, kind: DriftKind, *, ledger: str, found: str) -> Drift:
    return drift(
        kind,
        volume.platform,
        volume.name,
        ledger=ledger,
        found=found,
        volume_id=volume.volume_id,
        external_id=volume.external_id or "",
    )


def _size(volume: Volume, seen: VolumeReport) -> Iterator[Drift]:
    if seen.size_mib != volume.size_mib:
        kind = DriftKind.SIZE_LARGER if seen.size_mib > volume.size_mib else DriftKind.SIZE_SMALLER
        yield _of(volume, kind, ledger=f"{volume.size_mib} MiB", found=f"{seen.size_mib} MiB")


def _place(volume: Volume, seen: VolumeReport) -> Iterator[Drift]:
    known, now = f"pool {volume.pool}", f"pool {seen.pool}"
    if volume.zone and seen.zone:
        known, now = f"{known} in {volume.zone}", f"{now} in {seen.zone}"
    if known != now:
        yield _of(volume, DriftKind.POOL_MOVED, ledger=known, found=now)


def _holders(volume: Volume, seen: VolumeReport, claims: Sequence[Claim], nodes: Mapping[str, str]) -> Iterator[Drift]:
    held = ", ".join(seen.held_by)
    if seen.held_by and not claims:
        yield _of(volume, DriftKind.HELD_UNCLAIMED, ledger="free", found=f"held by {held}")
    mounted = [claim for claim in claims if claim.state is ClaimState.MOUNTED]
    if mounted and not seen.held_by:
        where = ", ".join(claim.holder.node for claim in mounted)
        yield _of(volume, DriftKind.NOT_HELD, ledger=f"mounted on {where}", found="held by nobody")
    expected = [name for claim in claims if (name := nodes.get(claim.holder.node))]
    strangers = [holder for holder in seen.held_by if not any(_is_at(holder, name) for name in expected)]
    if claims and len(expected) == len(claims) and strangers:
        known = ", ".join(sorted(set(expected)))
        yield _of(volume, DriftKind.HELD_ELSEWHERE, ledger=f"claimed for {known}", found=f"held by {', '.join(strangers)}")


def _is_at(holder: str, name: str) -> bool:
    """A node may be named by some of its initiators, in any order."""
    known, wanted = holder.lower(), name.lower()
    return wanted in known or set(wanted.split(",")) <= set(known.split(","))


def _marks(volume: Volume, seen: VolumeReport, claims: Sequence[Claim]) -> Iterator[Drift]:
    if seen.epoch > volume.epoch:
        yield _of(volume, DriftKind.EPOCH_AHEAD, ledger=f"epoch {volume.epoch}", found=f"epoch {seen.epoch}")
    written = [claim.epoch for claim in claims if claim.state is ClaimState.MOUNTED and claim.access == "RW"]
    if written and seen.epoch < max(written):
        yield _of(volume, DriftKind.EPOCH_BEHIND, ledger=f"epoch {max(written)}", found=f"epoch {seen.epoch}")
    if volume.birth and seen.birth and volume.birth != seen.birth:
        yield _of(volume, DriftKind.BIRTH_DIFFERS, ledger=_birth(volume), found=f"{seen.birth.filesystem} {seen.birth.filesystem_uuid}")
    if volume.birth and seen.birth is None and volume.token:
        yield _of(volume, DriftKind.BIRTH_UNMARKED, ledger=_birth(volume), found="no birth certificate")


def _birth(volume: Volume) -> str:
    return f"{volume.birth.filesystem} {volume.birth.filesystem_uuid}" if volume.birth else "unborn"


def of_stray(platform: str, seen: VolumeReport) -> Drift:
    """A volume with a token of Polly's that the ledger has neither as a volume nor as an orphan."""
    found = f"{seen.size_mib} MiB in {seen.pool}, token {seen.token}"
    return drift(
        DriftKind.STRAY_VOLUME, platform, seen.name or seen.external_id, ledger="unknown", found=found, external_id=seen.external_id
    )


# --- snapshots and pools -----------------------------------------------------------------------------------


def of_snapshots(platform: str, known: Sequence[Snapshot], seen: Collection[SnapshotReport]) -> Iterator[Drift]:
    """`known` are the ledger's on this platform."""
    there = {report.external_id for report in seen}
    ours = {snapshot.external_id or snapshot.token for snapshot in known}  # a second one of a token is nobody's
    for snapshot in known:
        if snapshot.state == "READY" and snapshot.external_id not in there:
            yield drift(
                DriftKind.SNAPSHOT_GONE,
                platform,
                snapshot.name or snapshot.snapshot_id,
                ledger=f"{snapshot.size_mib} MiB of volume {snapshot.volume_id}",
                found="no such snapshot",
                external_id=snapshot.external_id or "",
            )
    for report in seen:
        if report.token and report.external_id not in ours and report.token not in ours:
            found = f"{report.size_mib} MiB of {report.volume}"
            yield drift(
                DriftKind.STRAY_SNAPSHOT, platform, report.external_id, ledger="unknown", found=found, external_id=report.external_id
            )


def of_pools(platform: str, known: Sequence[Pool], seen: Sequence[PoolReport]) -> Iterator[Drift]:
    reports = {report.name: report for report in seen}
    for pool in known:
        report = reports.pop(pool.name, None)
        if report is None:
            if pool.online:
                yield drift(DriftKind.POOL_GONE, platform, pool.name, ledger=f"online, {pool.capacity_mib} MiB", found="not reported")
        elif (before := _pool_words(pool)) != (now := _pool_words(report)) or not pool.online:
            yield drift(DriftKind.POOL_CHANGED, platform, pool.name, ledger=before if pool.online else "offline", found=now)
    for report in reports.values():
        yield drift(DriftKind.POOL_CHANGED, platform, report.name, ledger="unknown", found=_pool_words(report))


def _pool_words(pool: Pool | PoolReport) -> str:
    """What does not change by itself: what others use of a pool does."""
    return ", ".join(word for word in (f"{pool.capacity_mib} MiB", pool.region, pool.zone) if word)


# --- a node's mounts -----------------------------------------------------------------------------------------


class NodeMount(Struct, frozen=True, kw_only=True):
    """A volume that some process of this node has mounted."""

    claim_id: ClaimId
    target: str
    source: str
    pids: tuple[int, ...]
    """Processes that see the mount."""


def of_mounts(node: str, mounts: Sequence[NodeMount], live: Collection[ClaimId], here: Sequence[tuple[Claim, Volume]]) -> Iterator[Drift]:
    """`live` are those of the mounts' claims that the ledger has, `here` its claims on this node that have a mount of their own."""
    for mount in mounts:
        if mount.claim_id not in live:
            found = f"{mount.source} on {mount.target}, seen by process {', '.join(map(str, mount.pids))}"
            yield drift(DriftKind.MOUNT_STRAY, "", f"{node}: claim {mount.claim_id}", ledger="no such claim", found=found)
    mounted = {mount.claim_id for mount in mounts}
    for claim, volume in here:
        if claim.state is ClaimState.MOUNTED and claim.claim_id not in mounted:
            yield _of(volume, DriftKind.MOUNT_MISSING, ledger=f"mounted on {node} by claim {claim.claim_id}", found="not mounted")
