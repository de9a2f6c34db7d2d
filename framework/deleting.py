"""Deletes volumes: the intents of many in one commit, then each one's platform, and what platforms have deleted in one commit again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress

from framework.growing import Growing
from framework.turning import InTurn
from framework.verbs import Gone, failed, fulfilled
from storage.errors import AlreadyLed, BornElsewhere, Conflict, LedgerUnavailable, NotOurs, PollyError, UnknownVolume, VolumeInUse
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Volume
from storage.platforms.base import Platform, VolumeReport


class Deleting(Growing):
    """The verbs that delete volumes, and those on sizes and snapshots."""

    def delete(self, name: str, actor: str, *, keep_snapshots: bool = False, insist: bool = False) -> Future[None]:
        """Raises VolumeInUse while it is claimed, HasSnapshots unless they are kept, UnknownPlatform; for `insist` see go_on_deleting."""
        volume = self._ledger.volume(name)
        if volume.external_id is not None:
            self.platform(volume.platform)
        with self._ledger.begin(actor) as tx:
            if volume.external_id is None:
                tx.unplan(volume.volume_id, keep_until=self._clock() + self._config.claims.quiet_after_s if volume.epoch else 0.0)
            else:
                tx.deleting(volume.volume_id, keep_snapshots=keep_snapshots)
        self._changed([volume])
        if volume.external_id is None:
            return fulfilled(None)
        return self.go_on_deleting(volume, volume.external_id, actor, insist=insist)

    def delete_all(self, volumes: Sequence[Volume], actor: str, *, keep_snapshots: bool) -> Sequence[Future[None]]:
        """Deletes volumes that are on platforms of polly.toml, and insists; see go_on_deleting. Their intents are one commit.

        A volume's future is failed at once with what `delete` would raise of it.
        """
        with self._ledger.begin(actor) as tx:
            outcomes = tx.deleting_all([volume.volume_id for volume in volumes], keep_snapshots=keep_snapshots)
        self._changed([outcome for outcome in outcomes if isinstance(outcome, Volume)])
        return [self._begin_deleting(outcome, actor) for outcome in outcomes]

    def _begin_deleting(self, outcome: Volume | PollyError, actor: str) -> Future[None]:
        if isinstance(outcome, PollyError):
            return failed(outcome)
        assert outcome.external_id is not None  # noqa: S101 - tells the type checker what DELETING means
        return self.go_on_deleting(outcome, outcome.external_id, actor, insist=True)

    def go_on_deleting(self, volume: Volume, external_id: ExternalId, actor: str, *, insist: bool) -> Future[None]:
        """The platform's part of a delete whose intent is stored. A refusal gives the volume back.

        `insist`: that something still holds it is no refusal, for nothing that Polly knows does; it is to be tried again.
        """
        platform = self.platform(volume.platform)

        def job(turn: InTurn) -> VolumeState | None:
            """What it was when its turn came; None: deleted already."""
            if (state := self._state(volume)) is VolumeState.DELETING:
                with suppress(UnknownVolume):
                    _refuse_wrong(platform, volume, external_id)
                    turn.check()
                    platform.delete(external_id)
            return state

        def store(was: VolumeState | None, turn: InTurn) -> Future[None] | None:
            if was is VolumeState.DELETING:
                stored: Future[None] = Future()
                self._gone.append(Gone(actor, volume, turn, stored))
                return stored
            self._changed([volume])
            if was is not None:  # it may be a task's by now, or somebody may have asked again: nothing is undone
                found = f"{was}: it was given back; see polly events"
                raise Conflict(what=f"volume {volume.name}", expected=VolumeState.DELETING, found=found)
            return None

        def note(error: PollyError, turn: InTurn) -> None:
            with turn.begin(actor) as tx:
                tx.still_there(volume.volume_id, str(error))
            self._changed([volume])

        def undo(error: PollyError, turn: InTurn) -> None:
            if insist and isinstance(error, VolumeInUse):
                note(error, turn)
                return
            with turn.begin(actor) as tx:
                tx.mend(volume.volume_id, VolumeState.DELETING)
            self._changed([volume])

        return self._run_once(volume.volume_id, volume, job, store, undo, note)

    def store_deleted(self) -> None:
        """Stores what platforms have deleted, in one commit: to be called whenever a batch of their answers was handed on.

        Before it a volume is still DELETING, and whoever goes on with that hears from the platform that it is gone.
        """
        gone, self._gone = self._gone, []
        for actor in sorted({it.actor for it in gone}):
            self._store_deleted(actor, [it for it in gone if it.actor == actor])

    def _store_deleted(self, actor: str, gone: Sequence[Gone]) -> None:
        try:
            with self._ledger.begin(actor) as tx:
                for it in gone:
                    it.turn.check()
                tx.deleted_all([it.volume.volume_id for it in gone])
        except PollyError as error:
            if len(gone) > 1 and not isinstance(error, (LedgerUnavailable, AlreadyLed)):
                for one in gone:  # it refuses some of them, or their turns have ended
                    self._store_deleted(actor, [one])
                return
            for it in gone:
                it.stored.set_exception(error)
        else:
            self._changed([it.volume for it in gone])
            for it in gone:
                it.stored.set_result(None)

    def _state(self, volume: Volume) -> VolumeState | None:
        try:
            return self._ledger.volume(volume.volume_id).state
        except UnknownVolume:
            return None


def is_born(report: VolumeReport) -> bool:
    """Whether the platform has the volume's own birth certificate; a copy may bear that of its origin."""
    return report.birth is not None and report.birth.serial == report.serial


def refuse_born(platform: Platform, unborn: VolumeReport) -> None:
    """Raises BornElsewhere for a volume of which this ledger knows no birth, while the platform has its certificate.

    That one is stored after the ledger's, so this ledger is older than the volume.
    """
    if is_born(unborn):
        raise BornElsewhere(platform=platform.name, external_id=unborn.external_id)


def _refuse_wrong(platform: Platform, volume: Volume, external_id: ExternalId) -> None:
    """Raises BornElsewhere, and NotOurs where an id is a name that somebody has given to another volume since."""
    if volume.unborn:
        refuse_born(platform, platform.inspect(external_id))
    elif volume.birth is not None and platform.capabilities.marks:
        found = platform.inspect(external_id)
        if found.birth is None and not found.epoch and not (found.token and found.token == volume.token):
            raise NotOurs(platform=platform.name, external_id=external_id)
