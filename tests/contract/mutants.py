"""Adapters that are broken on purpose, one for each rule of the contract: each has one fault that real adapters have had."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from msgspec.structs import replace

from storage.errors import HasSnapshots, PlatformUnavailable, PoolFull, UnknownVolume
from storage.model import AccessMode, Birth, ExternalId, Page, Sizes
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, PoolReport, Room, SnapshotReport, VolumeReport
from storage.platforms.faulting import Fate
from storage.platforms.marks import Mark
from storage.platforms.testing import ABILITIES, MemoryPlatform, MemoryStorage, MemoryVolume

MUTANTS: dict[str, list[type[MemoryPlatform]]] = {}
"""By the rule that must catch them."""
SECRET = "hunter2"
_numbers = itertools.count()


def breaks(rule: str) -> Callable[[type[MemoryPlatform]], type[MemoryPlatform]]:
    def register(mutant: type[MemoryPlatform]) -> type[MemoryPlatform]:
        MUTANTS.setdefault(rule, []).append(mutant)
        return mutant

    return register


class Mutant(MemoryPlatform):
    """A memory platform, and what its mutants need to go wrong."""

    def change(self, external_id: str, **fields: Any) -> VolumeReport:
        return self._store(replace(self.storage.volumes[external_id], **fields))

    def unchecked_create(self, request: CreateRequest, *, size_mib: int | None = None) -> VolumeReport:
        """A new volume, whatever is there and whatever is asked."""
        external_id = ExternalId(f"mutant-{next(_numbers)}")
        self.storage.data[external_id] = self.storage.data.get(request.snapshot or request.source or "", b"")
        return self._store(MemoryVolume(external_id=external_id, request=request, size_mib=size_mib or request.size_mib))

    def unchecked_attach(self, external_id: ExternalId, node: str, epoch: int, *, read_only: bool = False) -> Attachment:
        attached = {**self.storage.volumes[external_id].attached, node: (epoch, read_only)}
        self.change(external_id, attached=attached)
        return Attachment(external_id=external_id, device="/dev/mutant", serial=external_id, read_only=read_only)


# --- creating ----------------------------------------------------------------------------------


@breaks("test_create_twice_with_one_token_is_one_volume")
class ForgetsTokens(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        return self.unchecked_create(request)


@breaks("test_other_tokens_make_other_volumes")
class GivesTheVolumeOfAnotherToken(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        return next((self.inspect(ExternalId(key)) for key in self.storage.volumes), None) or super().create(request)


@breaks("test_two_creators_at_once_make_one_volume")
class LooksThenCreates(Mutant):
    both_looked = threading.Barrier(4)

    def create(self, request: CreateRequest) -> VolumeReport:
        found = self.find(request.token)
        self.both_looked.wait(timeout=30)
        return found or self.unchecked_create(request)


@breaks("test_find_knows_a_volume_by_its_token_only")
class FindsByAPartOfTheToken(Mutant):
    def find(self, token: str) -> VolumeReport | None:
        return next((report for report in self.volumes().items if report.token.startswith(token)), None)


@breaks("test_reports_say_what_was_asked")
class LosesLabels(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        return super().create(replace(request, labels={}))


@breaks("test_all_reports_of_a_volume_agree")
class ListsWithoutNames(Mutant):
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        page = super().volumes(after=after, limit=limit)
        return replace(page, items=[replace(report, name="") for report in page.items])


@breaks("test_sizes_are_rounded_up_as_declared")
class RoundsDown(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        made = super().create(request)
        return self.change(made.external_id, size_mib=max(2, request.size_mib // 2 * 2))


@breaks("test_sizes_that_cannot_be_are_refused")
class TakesEverySize(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        return super().create(replace(request, size_mib=min(4096, max(2, request.size_mib))))


@breaks("test_sizes_that_cannot_be_are_refused")
class LeavesATypesLargestSizeToCreate(Mutant):
    def fit(self, size_mib: int, parameters: Mapping[str, str], *, pool: str | None = None) -> int:
        return super().fit(size_mib, {} if pool else parameters, pool=pool)


@breaks("test_parameters_that_create_takes_are_taken_before")
class TellsNoTypesSizes(Mutant):
    def sizes(self, parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        return super().sizes({} if pool else parameters, pool=pool)


@breaks("test_unknown_pool_is_refused")
class TakesAnyPool(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        return super().create(replace(request, pool="default"))


@breaks("test_unknown_parameter_is_refused")
class IgnoresParameters(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        return super().create(replace(request, parameters={}))


@breaks("test_parameters_that_create_refuses_are_refused_before")
class LeavesAPoolsParametersToCreate(Mutant):
    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        if pool is None:
            super().check_parameters(parameters)


@breaks("test_parameters_that_create_takes_are_taken_before")
class RefusesWhatCreateTakes(Mutant):
    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        super().check_parameters(parameters if pool is None else {f"{key}s": value for key, value in parameters.items()})


@breaks("test_full_pool_refuses_and_keeps_nothing")
class KeepsWhatDidNotFit(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        try:
            return super().create(request)
        except PoolFull:
            self.unchecked_create(request)
            raise


@breaks("test_pools_tell_their_capacity")
class HasNoCapacity(Mutant):
    def pools(self) -> Sequence[PoolReport]:
        return [PoolReport(name="default", capacity_mib=0)]


@breaks("test_pools_of_one_room_agree_on_it")
class CountsOthersPoolByPool(Mutant):
    def pools(self) -> Sequence[PoolReport]:
        used = {
            name: sum(one.size_mib for one in self.storage.volumes.values() if one.request.pool != name) for name in ("default", "other")
        }
        return [
            PoolReport(name=name, capacity_mib=8192, room=Room(name="r", capacity_mib=8192, foreign_mib=mib)) for name, mib in used.items()
        ]


# --- deleting and listing ----------------------------------------------------------------------


@breaks("test_delete_takes_the_volume_away")
class DeletesNothing(Mutant):
    def delete(self, external_id: ExternalId) -> None:
        if volume := self.storage.volumes.get(external_id):
            self._make_sure_unused(volume)


@breaks("test_delete_twice_is_fine")
class DeletesOnce(Mutant):
    def delete(self, external_id: ExternalId) -> None:
        self.inspect(external_id)
        super().delete(external_id)


@breaks("test_delete_while_attached_is_refused")
class DeletesWhatIsAttached(Mutant):
    def delete(self, external_id: ExternalId) -> None:
        self.storage.volumes.pop(external_id, None)


@breaks("test_unknown_ids_are_named")
class AnswersUnknownIdsWithItsOwnError(Mutant):
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        try:
            return super().inspect(external_id)
        except UnknownVolume:
            raise KeyError(external_id) from None


@breaks("test_hostile_ids_reach_nothing")
class CutsIdsShort(Mutant):
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        whole = next((key for key in self.storage.volumes if not external_id.strip(".")), external_id)
        return super().inspect(ExternalId(whole))


@breaks("test_many_volumes_are_listed_in_parts")
class ListsOnePart(Mutant):
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        return replace(super().volumes(after=after, limit=limit), after=None)


@breaks("test_listing_goes_on_after_a_deletion")
class ListsByNumber(Mutant):
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        start, everything = int(after or 0), super().volumes().items
        end = start + limit
        return Page(items=everything[start:end], after=str(end) if end < len(everything) else None)


# --- expanding ---------------------------------------------------------------------------------


@breaks("test_expand_grows_a_detached_volume")
class SaysItHasGrown(Mutant):
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        return replace(self.inspect(external_id), size_mib=self.capabilities.fit(size_mib))


@breaks("test_expand_grows_an_attached_volume")
class DetachesToGrow(Mutant):
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        self.change(external_id, attached={})
        return super().expand(external_id, size_mib)


@breaks("test_expand_twice_is_fine")
class GrowsByTheSize(Mutant):
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        now = self.inspect(external_id).size_mib
        return super().expand(external_id, size_mib if size_mib > now else now + 2)


@breaks("test_shrinking_is_refused")
class Shrinks(Mutant):
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        return self.change(external_id, size_mib=size_mib)


@breaks("test_expand_beyond_the_pool_is_refused")
class GrowsWithoutRoom(Mutant):
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        return self.change(external_id, size_mib=max(size_mib, self.inspect(external_id).size_mib))


@breaks("test_expand_of_an_unknown_volume_is_refused")
class GrowsNothing(Mutant):
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        if external_id not in self.storage.volumes:
            return VolumeReport(external_id=external_id, pool="default", size_mib=size_mib, serial="")
        return super().expand(external_id, size_mib)


# --- attaching ---------------------------------------------------------------------------------


@breaks("test_attachment_is_the_volume")
class AttachesWithoutSerial(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return replace(super().attach(external_id, node, epoch=epoch, read_only=read_only), serial="")


@breaks("test_attach_twice_is_one_attachment")
class UsesANewDeviceEachTime(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        attachment = super().attach(external_id, node, epoch=epoch, read_only=read_only)
        return replace(attachment, device=f"/dev/mutant{next(_numbers)}")


@breaks("test_attach_elsewhere_while_attached_is_refused")
class MovesTheVolume(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        if external_id in self.storage.volumes:
            self.change(external_id, attached={})
        return super().attach(external_id, node, epoch=epoch, read_only=read_only)


@breaks("test_two_nodes_at_once_attach_once")
class LooksThenAttaches(Mutant):
    both_looked = threading.Barrier(2)

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        free = not self.inspect(external_id).held_by
        self.both_looked.wait(timeout=30)
        if free:
            return self.unchecked_attach(external_id, node, epoch)
        return super().attach(external_id, node, epoch=epoch, read_only=read_only)


@breaks("test_held_by_says_whether_it_is_attached")
class NeverLetsGo(Mutant):
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return replace(super().inspect(external_id), held_by=("somebody",))


@breaks("test_data_moves_with_the_volume")
class LosesDataOnDetach(Mutant):
    def detach(self, external_id: ExternalId, node: str) -> None:
        super().detach(external_id, node)
        self.storage.data[external_id] = b""


@breaks("test_detach_twice_is_fine")
class DetachesOnce(Mutant):
    def detach(self, external_id: ExternalId, node: str) -> None:
        if node not in self.storage.volumes[external_id].attached:
            raise UnknownVolume(volume=external_id)
        super().detach(external_id, node)


@breaks("test_detach_elsewhere_leaves_the_volume_attached")
class DetachesFromEveryNode(Mutant):
    def detach(self, external_id: ExternalId, node: str) -> None:
        self.change(external_id, attached={})


@breaks("test_readers_share_and_writers_do_not")
class LetsWritersJoinReaders(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return self.unchecked_attach(external_id, node, epoch, read_only=read_only)


@breaks("test_access_modes_of_parameters_are_kept")
class SharesWhatItCannot(Mutant):
    @property
    def capabilities(self) -> Capabilities:
        return replace(ABILITIES, access_modes=frozenset(AccessMode))


@breaks("test_access_modes_of_parameters_are_kept")
class TellsMoreThanItDeclares(Mutant):
    def access_modes(self, parameters: Mapping[str, str]) -> frozenset[AccessMode]:
        return super().access_modes(parameters) | ({AccessMode.MULTI_NODE_MULTI_WRITER} if parameters else set())


@breaks("test_reader_is_refused_beside_a_writer")
class LetsReadersJoinWriters(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        if read_only:
            return self.unchecked_attach(external_id, node, epoch, read_only=True)
        return super().attach(external_id, node, epoch=epoch)


# --- epochs ------------------------------------------------------------------------------------


class OwnMark(Mutant):
    """Marks a volume by a rule of its own."""

    def mark(self, before: Mark, epoch: int, *, read_only: bool) -> Mark:
        return before

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        before = self.storage.volumes[external_id].mark
        self.change(external_id, mark=Mark())
        attachment = super().attach(external_id, node, epoch=epoch, read_only=read_only)
        self.change(external_id, mark=self.mark(before, epoch, read_only=read_only))
        return attachment


@breaks("test_a_stopped_node_is_seen_and_no_other")
class TakesEveryNodeForStopped(Mutant):
    def node_stopped(self, node: str) -> str | None:
        return "some node is stopped" if self.storage.stopped else None


@breaks("test_slots_of_a_node_are_counted_with_the_volumes_that_it_has")
class CountsWhatIsFree(Mutant):
    def node_slots(self, node: str) -> int | None:
        return 8 - sum(node in volume.attached for volume in self.storage.volumes.values())


@breaks("test_attach_marks_the_volume_with_its_epoch")
class MarksNothing(OwnMark):
    pass


@breaks("test_stale_epoch_is_refused")
class TakesTheLatestEpoch(OwnMark):
    def mark(self, before: Mark, epoch: int, *, read_only: bool) -> Mark:
        return Mark(epoch=epoch, floor=epoch)


@breaks("test_stale_writer_is_refused_after_a_reader")
class ReadersLeaveNoMark(OwnMark):
    def mark(self, before: Mark, epoch: int, *, read_only: bool) -> Mark:
        return before if read_only else before.admit("v", epoch)


@breaks("test_readers_may_come_in_any_order")
class ReadersShutOutReaders(OwnMark):
    def mark(self, before: Mark, epoch: int, *, read_only: bool) -> Mark:
        return before.admit("v", epoch)


@breaks("test_fence_says_no_while_the_volume_is_held")
class FencesWhatIsHeld(Mutant):
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        self.change(external_id, attached={})
        return super().fence(external_id, epoch)


@breaks("test_fence_shuts_out_every_older_epoch")
class FencesInWordsOnly(Mutant):
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return None if self.inspect(external_id).held_by else "nothing holds it"


@breaks("test_fence_never_lowers_the_epoch")
class FencesDownwards(Mutant):
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        self.change(external_id, mark=Mark(epoch=epoch, floor=epoch))
        return "nothing holds it"


@breaks("test_fence_of_an_unknown_volume_is_refused")
class FencesNothing(Mutant):
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return super().fence(external_id, epoch) if external_id in self.storage.volumes else "nothing holds it"


@breaks("test_birth_certificate_is_kept")
class LosesTheBirthOnDetach(Mutant):
    def detach(self, external_id: ExternalId, node: str) -> None:
        super().detach(external_id, node)
        self.change(external_id, birth=None)


@breaks("test_birth_certificate_is_never_replaced")
class ReplacesTheBirth(Mutant):
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        self.change(external_id, birth=birth)


@breaks("test_of_two_birth_certificates_at_once_one_is_kept")
class LooksThenRecords(Mutant):
    both_looked = threading.Barrier(2)

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        found = self.inspect(external_id).birth
        if not found:
            self.both_looked.wait(timeout=30)
            self.change(external_id, birth=birth)


@breaks("test_birth_certificate_of_a_stale_epoch_is_refused")
class TakesAStaleBirth(Mutant):
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        super().record_birth(external_id, birth, epoch=1000)


# --- copies ------------------------------------------------------------------------------------


@breaks("test_snapshot_twice_with_one_token_is_one")
class SnapshotsAnew(Mutant):
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        made = super().snapshot(external_id, token=f"{token}-{next(_numbers)}")
        self.storage.snapshots[made.external_id] = replace(made, token=token)
        return self.storage.snapshots[made.external_id]


@breaks("test_snapshots_are_listed_in_parts")
class ListsSomeSnapshots(Mutant):
    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        return replace(super().snapshots(after=after, limit=limit), after=None)


@breaks("test_delete_with_snapshots_is_as_declared")
class DeletesDespiteSnapshots(Mutant):
    def delete(self, external_id: ExternalId) -> None:
        try:
            super().delete(external_id)
        except HasSnapshots:
            del self.storage.volumes[external_id]


@breaks("test_delete_snapshot_twice_is_fine")
class DeletesSnapshotsOnce(Mutant):
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        del self.storage.snapshots[snapshot]


@breaks("test_snapshot_of_an_unknown_volume_is_refused")
class SnapshotsNothing(Mutant):
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        if external_id not in self.storage.volumes:
            return SnapshotReport(external_id=ExternalId("s"), volume=external_id, size_mib=0)
        return super().snapshot(external_id, token=token)


@breaks("test_snapshot_of_an_attached_volume_is_as_declared")
class SnapshotsTornDespiteItsWord(Mutant):
    @property
    def capabilities(self) -> Capabilities:
        return replace(ABILITIES, snapshot_attached=False)


@breaks("test_snapshot_keeps_what_was_there")
class CopiesWhatIsThereNow(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        made = super().create(request)
        if request.snapshot:
            self.storage.data[made.external_id] = self.storage.data[self.storage.snapshots[request.snapshot].volume]
        return made


@breaks("test_volume_from_a_snapshot_may_be_larger")
class CopiesInTheSnapshotsSize(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        source = self.storage.snapshots.get(request.snapshot or "")
        return super().create(replace(request, size_mib=source.size_mib) if source else request)


@breaks("test_volume_from_a_snapshot_is_never_smaller")
class CutsTheCopy(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        return self.unchecked_create(request)


@breaks("test_volume_from_an_unknown_snapshot_is_refused")
class CreatesBlankWithoutASnapshot(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        known = request.snapshot in self.storage.snapshots
        return super().create(request if known else replace(request, snapshot=None))


@breaks("test_volume_outlives_its_snapshot_and_origin")
class DeletesCopiesToo(Mutant):
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        super().delete_snapshot(snapshot)
        for key in [key for key, volume in self.storage.volumes.items() if volume.request.snapshot == snapshot]:
            del self.storage.volumes[key]


@breaks("test_volume_from_a_snapshot_is_born_by_itself")
class RestoresTheBirth(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        made = super().create(request)
        if request.snapshot is None:
            return made
        origin = self.storage.volumes[self.storage.snapshots[request.snapshot].volume]
        return self.change(made.external_id, birth=origin.birth)


class CloningMutant(Mutant):
    """Goes wrong with clones alone."""

    def create(self, request: CreateRequest) -> VolumeReport:
        return self.clone(request) if request.source else super().create(request)

    def clone(self, request: CreateRequest) -> VolumeReport:
        return super().create(request)


@breaks("test_clone_holds_the_data_of_its_source")
class MakesBlankClones(CloningMutant):
    def clone(self, request: CreateRequest) -> VolumeReport:
        made = super().clone(request)
        self.storage.data[made.external_id] = b""
        return made


@breaks("test_source_of_a_clone_stays_as_it_is")
class RenamesTheSource(CloningMutant):
    def clone(self, request: CreateRequest) -> VolumeReport:
        source = self.storage.volumes[request.source or ""]
        self.change(source.external_id, request=replace(source.request, labels={"cloned": "1"}))
        return super().clone(request)


@breaks("test_clone_has_nothing_of_its_source_but_data")
class CopiesTheMarks(CloningMutant):
    def clone(self, request: CreateRequest) -> VolumeReport:
        source = self.storage.volumes[request.source or ""]
        return self.change(super().clone(request).external_id, mark=source.mark, birth=source.birth)


@breaks("test_clone_twice_with_one_token_is_one")
class ClonesAnew(CloningMutant):
    def clone(self, request: CreateRequest) -> VolumeReport:
        return self.unchecked_create(request)


@breaks("test_clone_may_be_larger")
class ClonesInTheSourcesSize(CloningMutant):
    def clone(self, request: CreateRequest) -> VolumeReport:
        return super().clone(replace(request, size_mib=self.storage.volumes[request.source or ""].size_mib))


@breaks("test_clone_is_never_smaller")
class CutsTheClone(ClonesAnew):
    pass


@breaks("test_clone_of_an_unknown_volume_is_refused")
class CreatesBlankWithoutASource(CloningMutant):
    def clone(self, request: CreateRequest) -> VolumeReport:
        known = request.source in self.storage.volumes
        return super().clone(request if known else replace(request, source=None))


@breaks("test_clone_outlives_its_source")
class DeletesClonesToo(Mutant):
    def delete(self, external_id: ExternalId) -> None:
        super().delete(external_id)
        for key in [key for key, volume in self.storage.volumes.items() if volume.request.source == external_id]:
            del self.storage.volumes[key]


@breaks("test_clone_of_an_attached_volume_is_as_declared")
class ClonesTornDespiteItsWord(ClonesAnew):
    @property
    def capabilities(self) -> Capabilities:
        return replace(ABILITIES, clone_attached=False)


@breaks("test_clone_in_another_pool_is_refused")
class ClonesAcrossPools(ClonesAnew):
    pass


# --- faults ------------------------------------------------------------------------------------


@breaks("test_create_with_a_fault_at_every_call")
class RemembersTokensInTheProcess(Mutant):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._made: dict[str, ExternalId] = {}

    def create(self, request: CreateRequest) -> VolumeReport:
        if request.token not in self._made:
            self._made[request.token] = self.unchecked_create(request).external_id
        return self.inspect(self._made[request.token])


@breaks("test_clone_with_a_fault_at_every_call")
class ClonesAgain(ClonesAnew):
    pass


@breaks("test_attach_with_a_fault_at_every_call")
class RefusesItsOwnAttachment(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return super().attach(external_id, f"{node} of process {id(self)}", epoch=epoch, read_only=read_only)


@breaks("test_detach_with_a_fault_at_every_call")
class RefusesToDetachAgain(Mutant):
    def detach(self, external_id: ExternalId, node: str) -> None:
        if not self.inspect(external_id).held_by:
            raise PlatformUnavailable(platform=self.name, action="detach", reason="it is not attached")
        super().detach(external_id, node)


@breaks("test_delete_with_a_fault_at_every_call")
class RefusesToDeleteAgain(Mutant):
    def delete(self, external_id: ExternalId) -> None:
        self._known(external_id)
        super().delete(external_id)


@breaks("test_expand_with_a_fault_at_every_call")
class RefusesToGrowAgain(Mutant):
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        grown = self.inspect(external_id).size_mib >= size_mib
        return super().expand(external_id, size_mib - 2 if grown else size_mib)


@breaks("test_snapshot_with_a_fault_at_every_call")
class SnapshotsAgain(SnapshotsAnew):
    pass


@breaks("test_delete_snapshot_with_a_fault_at_every_call")
class RefusesToDeleteASnapshotAgain(DeletesSnapshotsOnce):
    pass


@breaks("test_fence_with_a_fault_at_every_call")
class FencesOnce(Mutant):
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return None if self.inspect(external_id).epoch >= epoch else super().fence(external_id, epoch)


@breaks("test_record_birth_with_a_fault_at_every_call")
class RecordsOnce(Mutant):
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        super().record_birth(external_id, birth if self.inspect(external_id).birth is None else replace(birth, serial=""), epoch=epoch)


@breaks("test_restart_in_the_middle_loses_nothing")
class DetachesOnlyWhatItRemembers(Mutant):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._mine: set[str] = set()

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        self._mine.add(external_id)
        return super().attach(external_id, node, epoch=epoch, read_only=read_only)

    def detach(self, external_id: ExternalId, node: str) -> None:
        if external_id in self._mine:
            super().detach(external_id, node)


@breaks("test_close_twice_is_fine")
class ClosesOnce(Mutant):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise ValueError("closed already")
        self.closed = True


@breaks("test_create_with_a_fault_at_every_call")
class LeavesWhatItWorksWith(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        beside = self.unchecked_create(replace(request, token=""))
        made = super().create(request)
        self.delete(beside.external_id)
        return made


@breaks("test_copy_with_a_fault_at_every_call")
class TakesWhatIsThereForWhole(Mutant):
    def create(self, request: CreateRequest) -> VolumeReport:
        if made := self.find(request.token):
            return made
        data = self.storage.data.get(request.snapshot or "", b"")
        made = self.unchecked_create(replace(request, snapshot=None))
        with self._call("fill"):
            self.storage.data[made.external_id] = data
        return made


@breaks("test_attach_with_a_fault_at_every_call")
class RaisesWhatTheNetworkRaises(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        try:
            return super().attach(external_id, node, epoch=epoch, read_only=read_only)
        except PlatformUnavailable as error:
            raise ConnectionError from error


@breaks("test_attach_with_a_fault_at_every_call")
class TriesAnotherNode(Mutant):
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        try:
            return super().attach(external_id, node, epoch=epoch, read_only=read_only)
        except PlatformUnavailable:
            return self.unchecked_attach(external_id, "node-c", epoch)


@breaks("test_looks_with_a_fault_at_every_call")
class GivesUpWhenThrottled(Mutant):
    @contextmanager
    def _call(self, verb: str) -> Iterator[MemoryStorage]:
        if self.storage.faults.fate(verb) is Fate.THROTTLED:
            raise PlatformUnavailable(platform=self.name, action=verb, reason="throttled")
        with super()._call(verb) as storage:
            yield storage


@breaks("test_looks_at_nodes_with_a_fault_at_every_call")
class TakesANodeOutOfReachForStopped(Mutant):
    def node_stopped(self, node: str) -> str | None:
        try:
            return super().node_stopped(node)
        except PlatformUnavailable as error:
            return str(error)


@breaks("test_what_somebody_else_answers_says_nothing")
class TakesAPageForGone(Mutant):
    def delete(self, external_id: ExternalId) -> None:
        with suppress(PlatformUnavailable):
            super().delete(external_id)


@breaks("test_what_somebody_else_answers_says_nothing")
class TakesNoWordForNoNode(Mutant):
    def node_stopped(self, node: str) -> str | None:
        if self.storage.faults.fate("node") is Fate.SILENCE:
            return f"there is no {node}"
        return super().node_stopped(node)


@breaks("test_detach_with_a_fault_at_every_call")
class NeverLogsInAgain(Mutant):
    failed: str = ""

    def detach(self, external_id: ExternalId, node: str) -> None:
        if self.failed:
            raise PlatformUnavailable(platform=self.name, action="detach", reason=self.failed)
        try:
            super().detach(external_id, node)
        except PlatformUnavailable as error:
            self.failed = str(error)
            raise


@breaks("test_fence_with_a_fault_at_every_call")
class KeepsTheVendorsWordsToItself(Mutant):
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        try:
            return super().fence(external_id, epoch)
        except PlatformUnavailable as error:
            raise PlatformUnavailable(platform=self.name, action="fence", reason="it did not work") from error


@breaks("test_delete_with_a_fault_at_every_call")
class CannotCloseWithoutTheStorage(Mutant):
    def close(self) -> None:
        self.pools()


@breaks("test_undeclared_verbs_are_refused")
class DoesWhatItDoesNotDeclare(Mutant):
    @property
    def capabilities(self) -> Capabilities:
        return replace(ABILITIES, fences=False)


@breaks("test_settings_are_text_without_secrets")
class SendsItsSecretToAgents(Mutant):
    def settings(self) -> Mapping[str, str]:
        return {"url": f"https://admin:{SECRET}@array"}


@breaks("test_check_finds_a_healthy_platform_healthy")
class AlwaysComplains(Mutant):
    def check(self) -> Sequence[Finding]:
        return [Finding(ok=False, subject="array", message="it might be better")]
