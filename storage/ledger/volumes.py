"""What becomes of volumes apart from claims: planned, made, born, adopted, faulted, grown. What deletes them is in deleting.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import and_, delete, exists, select, update
from sqlalchemy import insert as sql_insert

from storage import schema
from storage.errors import AlreadyExists, Conflict, Invalid, PollyError, VolumeInUse
from storage.ledger import rows
from storage.ledger.bulk import Batch, insert
from storage.ledger.heirs import Heirs
from storage.ledger.placing import LABEL, Placing
from storage.ledger.reads import nowhere_yet
from storage.ledger.records import NewVolume
from storage.ledger.refusals import names_taken, no_room
from storage.ledger.writer import LIVE, VOLUMES
from storage.lifecycle import VolumeState
from storage.model import Birth, Claim, ExternalId, Volume, VolumeId

TABLE: Final = schema.volumes
ORPHANS: Final = schema.orphans.c
CREATED: Final = Batch(
    "UPDATE volumes SET state = 'AVAILABLE', external_id = :external_id, size_mib = :size_mib {from} "
    "WHERE volumes.volume_id = :volume_id AND volumes.token = :token AND volumes.state = 'PLANNED'",
    ("volume_id", "token", "external_id", "size_mib"),
)
BORN: Final = Batch(
    "UPDATE volumes SET birth_serial = :serial, birth_filesystem = :filesystem, birth_uuid = :uuid {from} "
    "WHERE volumes.volume_id = :volume_id AND volumes.birth_uuid IS NULL AND volumes.external_id IS NOT NULL "
    "AND EXISTS (SELECT 1 FROM claims WHERE claims.volume_id = :volume_id AND claims.epoch = :epoch)",
    ("volume_id", "epoch", "serial", "filesystem", "uuid"),
)


GROWING: Final = insert("growths", ("volume_id",), tail="ON CONFLICT (volume_id) DO NOTHING")


class Volumes(Placing, Heirs):
    """The part of a transaction that changes volumes. Every verb raises UnknownVolume unless it says otherwise."""

    def created(self, volume_id: VolumeId, *, token: str, external_id: ExternalId, size_mib: int) -> None:
        """The platform has made it: PLANNED becomes AVAILABLE. The same again is a no-op.

        The platform may have rounded the size up; the pool's account follows. Raises Conflict for another token or external id.
        """
        volume = self._found(volume_id)
        what = f"volume {volume_id}"
        if volume is None or volume.token != token:
            found = "another token" if volume else "no such volume"
            self._fail(Conflict(what=what, expected=f"planned under token {token}", found=found))
        if volume.external_id == external_id:
            return
        changed = self.session.run(CREATED, [(volume_id, token, external_id, size_mib)])
        self._expect(changed, 1, what=what, expected="PLANNED and nowhere yet")
        self._account(volume.platform, volume.pool, size_mib - volume.size_mib)
        self.note("volume.created", volume_id=volume_id, why=f"{external_id}, {size_mib} MiB")

    def born(self, volume_id: VolumeId, *, epoch: int, birth: Birth) -> None:
        """Stores the birth certificate that the live claim of this epoch reports. The same again is a no-op.

        Raises Conflict for a different one than is stored, and when no live claim has that epoch.
        """
        volume = self._found(volume_id)
        if volume is not None and volume.birth == birth:
            return
        if volume is not None and volume.birth is not None:
            self._fail(Conflict(what=f"the birth certificate of volume {volume_id}", expected=volume.birth, found=birth))
        born = [(volume_id, epoch, birth.serial, birth.filesystem, birth.filesystem_uuid)]
        self._expect(self.session.run(BORN, born), 1, what=f"volume {volume_id}", expected=f"made, and claimed with epoch {epoch}")
        why = f"{birth.filesystem} {birth.filesystem_uuid} on {birth.serial}, by epoch {epoch}"
        self.note("volume.born", volume_id=volume_id, why=why)

    def plan(self, new: NewVolume, token: str) -> Volume:
        """Plans a volume by hand, without a claim.

        Raises PoolFull, UnknownPool, AlreadyExists, Invalid for an empty token, Conflict for a source or a snapshot that is not there to
        begin with, or if room came just now.
        """
        if not token:
            self._fail(Invalid(field="token", value=token, reason="a volume to be made needs one"))
        self._first(names_taken(self.session, [new]))
        if new.snapshot is not None:
            self._hold_snapshot(new.platform, new.snapshot)
        self.plan_all([(new, token, 0)])
        if new.source is not None:
            self._hold_source(new.platform, new.source)
            self._set(new.volume_id, source=new.source)
        self._take_or_fail(new)
        self.note("volume.planned", volume_id=new.volume_id, why=f"{new.sizes} of pool {new.pool} on {new.platform}")
        return self._volume(new.volume_id)

    def unplan(self, volume_id: VolumeId, *, keep_until: float = 0.0) -> None:
        """A volume that was never born goes; what its token may have made becomes an orphan, its capacity comes back.

        `keep_until` is for one whose maker is not known to be gone: until then it may still make it.
        Raises VolumeInUse for a live claim, Conflict if it was born or was not made by Polly.
        """
        volume = self._unclaimed(volume_id)
        if volume.birth is not None or not volume.token:
            self._fail(Conflict(what=f"volume {volume_id}", expected="a volume never born", found="one that may hold data"))
        orphan = {
            "platform": volume.platform,
            "token": volume.token,
            "external_id": volume.external_id,
            "since": self.now,
            "keep_until": keep_until,
        }
        self.session.execute(sql_insert(schema.orphans).values(orphan))
        self._remove(volume, VolumeState(volume.state))
        self.note("volume.unplanned", volume_id=volume_id, why=f"never born; {volume.name}")

    def adopt(self, volume: Volume) -> Volume:
        """Takes in a volume that the platform has already. Its capacity is accounted, whatever the pool's limit says.

        It gets no token: Polly never formats it, and never takes it for one that holds no data. `volume.token` is what it bears on its
        platform. Raises AlreadyExists by id, name, external id, or token: a claim may just be making it, and its external id is not
        known yet; Conflict for what an unborn claim has left, which is about to be deleted; UnknownPool, Invalid without an external id.
        """
        if not volume.external_id:
            self._fail(Invalid(field="external_id", value=volume.external_id, reason="a volume to adopt is on its platform already"))
        table = TABLE.c
        made = and_(table.platform == volume.platform, table.external_id == volume.external_id)
        making = [and_(nowhere_yet(volume.platform), table.token == volume.token)] if volume.token else []
        for same in (table.volume_id == volume.volume_id, table.name == volume.name, made, *making):  # one by one, each has its index
            if row := self.session.first(select(table.name).where(same)):
                self._fail(AlreadyExists(kind="volume", name=row.name))
        # after those: one commit makes an orphan of a volume, so it is found as the one or as the other
        left = select(ORPHANS.since).where(ORPHANS.platform == volume.platform, ORPHANS.token == volume.token)
        if volume.token and volume.birth is None and self.session.first(left):
            found = "Polly's own, never born and to be deleted"
            self._fail(Conflict(what=f"volume {volume.external_id}", expected="nobody's", found=found))
        self._account(volume.platform, volume.pool, volume.size_mib)
        adopted = replace(volume, token="", state=VolumeState.AVAILABLE, created_at=volume.created_at or self.now)
        self.session.execute(sql_insert(TABLE).values(_row(adopted)))
        self.session.run(LABEL, [(volume.volume_id, key, value) for key, value in volume.labels.items()])
        self.note("volume.adopted", volume_id=volume.volume_id, why=f"{volume.external_id} of {volume.platform} as {volume.name}")
        return adopted

    def recall(self, volume_id: VolumeId, *, external_id: ExternalId, epoch: int, birth: Birth | None) -> None:
        """What the platform knows of a volume and a ledger that was restored from a backup does not: its epoch, never lowered, and, of one
        that is unborn here, where it is and its birth certificate. From then on it counts as an import: Polly never formats it.
        """
        volume = self._volume(volume_id)
        if volume.unborn:
            state = VolumeState.AVAILABLE.value if volume.state is VolumeState.PLANNED else volume.state.value
            self._set(volume_id, external_id=external_id, token="", state=state)
            if birth is not None:
                self._set(volume_id, birth_serial=birth.serial, birth_filesystem=birth.filesystem, birth_uuid=birth.filesystem_uuid)
            self.note(
                "volume.recalled", volume_id=volume_id, why=f"unborn in a restored ledger, {external_id} of {volume.platform} in truth"
            )
        if epoch > volume.epoch:
            self._set(volume_id, epoch=epoch)
            self.note(
                "volume.recalled", volume_id=volume_id, why=f"epoch {volume.epoch} in a restored ledger, {epoch} on {volume.platform}"
            )

    def fault(self, volume_id: VolumeId, reason: str) -> None:
        """A person must look at it: nothing new claims it until it is mended. A live claim goes on."""
        self._volume(volume_id)
        self._set(volume_id, state="FAULTED", reason=reason)
        self.note("volume.faulted", volume_id=volume_id, why=reason)

    def mend(self, volume_id: VolumeId, was: VolumeState) -> None:
        """From FAULTED or DELETING, as it `was`, it goes back to what it was before; in any other state this is a no-op."""
        volume = self._volume(volume_id)
        if volume.state is was:
            state = VolumeState.AVAILABLE if volume.external_id else VolumeState.PLANNED
            self._set(volume_id, state=state.value, reason="")
            self.note("volume.mended", volume_id=volume_id, why=f"was {was}")

    def resize(self, volume_id: VolumeId, size_mib: int) -> Volume:
        """Takes the capacity to grow it to `size_mib`, which is an intent until `grown`; that size already is a no-op.

        Raises PoolFull, Invalid to shrink it, VolumeInUse while its claim is making it with the size that it was told, Conflict while a
        clone of its present size is still to be made of it, or if room came just now.
        """
        volume = self._volume(volume_id)
        grown_mib = size_mib - volume.size_mib
        if grown_mib < 0:
            self._fail(Invalid(field="size_mib", value=size_mib, reason=f"the volume has {volume.size_mib} MiB and never shrinks"))
        if grown_mib:
            if volume.external_id is None:
                self._unclaimed(volume_id)
            self._refuse_clones(volume)
            self._take_or_fail(
                NewVolume(volume_id=volume_id, name=volume.name, platform=volume.platform, pool=volume.pool, size_mib=grown_mib)
            )
            self._set(volume_id, size_mib=size_mib)
            if volume.external_id:
                self.session.run(GROWING, [(volume_id,)])
            self.note("volume.resized", volume_id=volume_id, why=f"from {volume.size_mib} to {size_mib} MiB")
        return replace(volume, size_mib=size_mib)

    def grown(self, volume_id: VolumeId, size_mib: int, *, asked_mib: int) -> Volume:
        """The platform has grown it to `asked_mib`, or refused to: this is the size that it says, and the intent is over.

        Unless more was asked meanwhile: then the answer to that decides.
        """
        volume = self._volume(volume_id)
        if volume.size_mib != asked_mib:
            return replace(volume, size_mib=size_mib)
        self.session.execute(delete(schema.growths).where(schema.growths.c.volume_id == volume_id))
        if size_mib != volume.size_mib:
            self._account(volume.platform, volume.pool, size_mib - volume.size_mib)
            self._set(volume_id, size_mib=size_mib)
            self.note("volume.resized", volume_id=volume_id, why=f"from {volume.size_mib} to {size_mib} MiB, as the platform says")
        return replace(volume, size_mib=size_mib)

    def measured(self, volume_id: VolumeId, size_mib: int) -> None:
        """The platform says that it has this size, larger than the ledger has it. Accounted whatever the pool's limit says.

        That size already is a no-op. Raises Invalid for a smaller one.
        """
        volume = self._volume(volume_id)
        if size_mib < volume.size_mib:
            self._fail(Invalid(field="size_mib", value=size_mib, reason=f"the volume has {volume.size_mib} MiB and never shrinks"))
        if size_mib > volume.size_mib:
            self._account(volume.platform, volume.pool, size_mib - volume.size_mib)
            self._set(volume_id, size_mib=size_mib)
            self.note("volume.resized", volume_id=volume_id, why=f"from {volume.size_mib} to {size_mib} MiB, as the platform says")

    def _take_or_fail(self, new: NewVolume) -> None:
        """Takes the volume's capacity; what was too little a moment ago may be enough when one looks for the reason."""
        if not self.take({(new.platform, new.pool): new.size_mib}):
            self._first(no_room(self.session, [new]))
            self._fail(
                Conflict(what=f"pool {new.pool} on {new.platform}", expected=f"room for {new.size_mib} MiB", found="less until just now")
            )

    def _first(self, refusals: Iterable[PollyError]) -> None:
        for refusal in refusals:
            self._fail(refusal)

    def _found(self, volume_id: VolumeId) -> Volume | None:
        found = self.session.find(VOLUMES, [volume_id])
        return rows.volume(found[0]) if found else None

    def _unclaimed(self, volume_id: VolumeId) -> Volume:
        """The volume, locked: only a claim that was there before can be in the way, and that is looked for after the lock."""
        volume = self._volume(volume_id)
        for row in self.session.find(LIVE, [volume_id]):
            self._fail(in_use(volume, rows.claim(row)))
        return volume

    def _set(self, volume_id: VolumeId, **values: Any) -> None:
        changed = self.session.execute(update(TABLE).where(TABLE.c.volume_id == volume_id).values(values))
        self._expect(changed, 1, what=f"volume {volume_id}", expected="in the ledger")

    def _remove(self, volume: Volume, state: VolumeState) -> None:
        claimed = exists().where(schema.claims.c.volume_id == volume.volume_id)
        row = delete(TABLE).where(TABLE.c.volume_id == volume.volume_id, TABLE.c.state == state.value, ~claimed)
        self._expect(self.session.execute(row), 1, what=f"volume {volume.volume_id}", expected=state)
        self._account(volume.platform, volume.pool, -volume.size_mib)


def in_use(volume: Volume, claim: Claim) -> VolumeInUse:
    return VolumeInUse(volume=volume.name, holder=f"{claim.holder.placement} on node {claim.holder.node} ({claim.state})")


def _row(volume: Volume) -> dict[str, Any]:
    birth = volume.birth
    return {
        "volume_id": volume.volume_id,
        "name": volume.name,
        "platform": volume.platform,
        "pool": volume.pool,
        "size_mib": volume.size_mib,
        "profile": volume.profile,
        "state": volume.state.value,
        "external_id": volume.external_id,
        "token": volume.token,
        "epoch": volume.epoch,
        "access_mode": volume.access_mode.value,
        "filesystem": volume.filesystem,
        "birth_serial": birth.serial if birth else None,
        "birth_filesystem": birth.filesystem if birth else None,
        "birth_uuid": birth.filesystem_uuid if birth else None,
        "owner": volume.owner,
        "role": volume.role,
        "region": volume.region,
        "zone": volume.zone,
        "labels": rows.packed(volume.labels),
        "reason": volume.reason,
        "created_at": volume.created_at,
        "snapshot": volume.snapshot,
        "source": volume.source,
    }
