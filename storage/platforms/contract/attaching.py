"""Rules about who has a volume: attaching, detaching, epochs, fences and birth certificates."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace

from storage.errors import Conflict, StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import AccessMode, Birth
from storage.platforms.base import Platform
from storage.platforms.contract.arena import Arena, refused
from storage.platforms.contract.creating import NOWHERE

BESIDE = {
    AccessMode.MULTI_NODE_READER_ONLY: (True, True),
    AccessMode.MULTI_NODE_SINGLE_WRITER: (False, True),
    AccessMode.MULTI_NODE_MULTI_WRITER: (False, False),
}
"""Whether each of two nodes that have a volume at once only reads it."""
BIRTH = Birth(serial="serial", filesystem="ext4", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")
OTHER_BIRTH = Birth(serial="serial", filesystem="xfs", filesystem_uuid="00000000-0000-4000-8000-000000000000")


class AttachRules:
    def test_attachment_is_the_volume(self, arena: Arena) -> None:
        made = arena.create()
        attachment = arena.attach(made.external_id)
        seen = arena.there.inspect(made.external_id)  # an array may name a volume for the network with its first attachment
        assert (attachment.external_id, attachment.serial) == (made.external_id, seen.serial), "an attachment is of another volume"
        assert attachment.device, "an attachment has no device"
        assert not attachment.read_only, "a writer's attachment is read-only"

    def test_attach_twice_is_one_attachment(self, arena: Arena) -> None:
        volume = arena.created()
        assert arena.attach(volume) == arena.attach(volume), "attaching again gave another attachment"
        assert len(arena.here.inspect(volume).held_by) == 1, "attaching twice attached twice"

    def test_attach_elsewhere_while_attached_is_refused(self, arena: Arena) -> None:
        volume = arena.created()
        attachment = arena.attach(volume)
        with refused(VolumeInUse, "attaching a volume that another node has is refused"):
            arena.there.attach(volume, arena.elsewhere, epoch=2)
        arena.write(attachment, b"still here")
        assert arena.there.inspect(volume).held_by, "a refused attach took the volume away"

    def test_two_nodes_at_once_attach_once(self, arena: Arena) -> None:
        volume = arena.created()
        together = threading.Barrier(2)

        def attach(platform: Platform, node: str) -> bool:
            together.wait(timeout=30)
            try:
                platform.attach(volume, node, epoch=1)
            except VolumeInUse:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            attached = list(pool.map(attach, (arena.here, arena.there), arena.case.nodes))
        assert sum(attached) == 1, f"{sum(attached)} of two nodes that attach at once have the volume"

    def test_held_by_says_whether_it_is_attached(self, arena: Arena) -> None:
        volume = arena.created()
        arena.attach(volume)
        assert arena.there.inspect(volume).held_by, "an attached volume is held by nobody"
        arena.detach(volume)
        assert not arena.there.inspect(volume).held_by, "a detached volume is held"

    def test_data_moves_with_the_volume(self, arena: Arena) -> None:
        volume = arena.created()
        arena.write(arena.attach(volume, epoch=1), b"written here")
        arena.detach(volume)
        moved = arena.there.attach(volume, arena.elsewhere, epoch=2)
        assert arena.holds(moved, b"written here"), "what was written before the detach is not there after the next attach"

    def test_detach_twice_is_fine(self, arena: Arena) -> None:
        volume = arena.created()
        arena.detach(volume)
        arena.attach(volume)
        arena.detach(volume)
        arena.detach(volume)
        arena.attach(volume)

    def test_detach_elsewhere_leaves_the_volume_attached(self, arena: Arena) -> None:
        volume = arena.created()
        arena.attach(volume)
        arena.there.detach(volume, arena.elsewhere)
        assert arena.here.inspect(volume).held_by, "detaching from another node took the volume away from this one"

    def test_readers_share_and_writers_do_not(self, arena: Arena) -> None:
        volume = arena.created()
        assert arena.attach(volume, epoch=1, read_only=True).read_only, "a reader's attachment is not read-only"
        if AccessMode.MULTI_NODE_READER_ONLY in arena.here.access_modes(arena.case.parameters):
            arena.there.attach(volume, arena.elsewhere, epoch=2, read_only=True)
            arena.there.detach(volume, arena.elsewhere)
        with refused(VolumeInUse, "a writer beside a reader is refused"):
            arena.there.attach(volume, arena.elsewhere, epoch=3)

    def test_access_modes_of_parameters_are_kept(self, arena: Arena) -> None:
        nodes = tuple(zip(arena.case.nodes, (arena.here, arena.there), strict=True))
        for number, more in enumerate([{}, *arena.case.other_parameters]):
            request = arena.request(f"shared-{number}", parameters=more)
            modes = arena.here.access_modes(request.parameters)
            assert modes <= arena.here.capabilities.access_modes, f"with the parameters {more} there are more access modes than declared"
            for mode in sorted(modes & BESIDE.keys()):
                volume = arena.here.create(replace(request, token=arena.token(f"{mode}-{number}"))).external_id
                for (node, platform), read_only in zip(nodes, BESIDE[mode], strict=True):
                    platform.attach(volume, node, epoch=1, read_only=read_only)
                for node, platform in nodes:
                    platform.detach(volume, node)

    def test_reader_is_refused_beside_a_writer(self, arena: Arena) -> None:
        volume = arena.created()
        arena.attach(volume, epoch=1)
        with refused(VolumeInUse, "a reader beside a writer is refused"):
            arena.there.attach(volume, arena.elsewhere, epoch=2, read_only=True)


class NodeRules:
    def test_a_stopped_node_is_seen_and_no_other(self, arena: Arena) -> None:
        arena.needs("sees_nodes")
        assert [arena.here.node_stopped(node) for node in arena.case.nodes] == [None, None], "a node that runs is said to be stopped"
        if (stopping := arena.case.stopping(arena.storage)) is None:
            arena.leave_out("has no node that can be stopped")
        with stopping:
            assert arena.here.node_stopped(arena.elsewhere), "a stopped node is not seen"
            assert arena.here.node_stopped(arena.node) is None, "a node that runs is said to be stopped beside one that is"
        assert arena.there.node_stopped(arena.elsewhere) is None, "a node that runs again is said to be stopped"

    def test_slots_of_a_node_are_counted_with_the_volumes_that_it_has(self, arena: Arena) -> None:
        arena.needs("counts_slots")
        slots = arena.here.node_slots(arena.node)
        assert slots is None or slots > 0, "a node can hold no volume"
        arena.attach(arena.created())
        assert arena.there.node_slots(arena.node) == slots, "a node that has a volume of Polly's can hold fewer of them in all"


class EpochRules:
    def test_attach_marks_the_volume_with_its_epoch(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume, epoch=3)
        assert arena.there.inspect(volume).epoch == 3, "an attached volume is not marked with the epoch"
        arena.detach(volume)
        assert arena.there.inspect(volume).epoch == 3, "a detached volume has lost its mark"

    def test_stale_epoch_is_refused(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume, epoch=3)
        arena.detach(volume)
        with refused(StaleEpoch, "a writer with an older epoch is refused"):
            arena.there.attach(volume, arena.elsewhere, epoch=2)
        with refused(StaleEpoch, "a reader with an older epoch than a writer's is refused"):
            arena.there.attach(volume, arena.elsewhere, epoch=2, read_only=True)
        assert (arena.here.inspect(volume).epoch, arena.here.inspect(volume).held_by) == (3, ()), "a stale attach changed something"
        arena.there.attach(volume, arena.elsewhere, epoch=3)

    def test_stale_writer_is_refused_after_a_reader(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume, epoch=3, read_only=True)
        arena.detach(volume)
        with refused(StaleEpoch, "a writer with an older epoch than a reader's is refused"):
            arena.attach(volume, epoch=2)

    def test_readers_may_come_in_any_order(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume, epoch=3, read_only=True)
        arena.detach(volume)
        assert arena.there.attach(volume, arena.elsewhere, epoch=2, read_only=True).read_only, "a reader did not come read-only"
        assert arena.here.inspect(volume).epoch == 3, "a reader with an older epoch lowered the mark"

    def test_fence_says_no_while_the_volume_is_held(self, arena: Arena) -> None:
        arena.needs("fences")
        volume = arena.created()
        for read_only in (False, True):
            arena.attach(volume, epoch=1, read_only=read_only)
            assert arena.there.fence(volume, 5) is None, "a fence was given while the volume was held"
            assert arena.there.inspect(volume).epoch == 1, "a fence that was not given raised the epoch"
            arena.detach(volume)
        arena.attach(volume, epoch=1)

    def test_fence_shuts_out_every_older_epoch(self, arena: Arena) -> None:
        arena.needs("fences")
        volume = arena.created()
        arena.attach(volume, epoch=1)
        arena.detach(volume)
        assert arena.there.fence(volume, 5), "a fence does not say what was seen"
        for read_only in (False, True):
            with refused(StaleEpoch, "an epoch below the fence's is refused"):
                arena.attach(volume, epoch=4, read_only=read_only)
        arena.attach(volume, epoch=5)

    def test_fence_never_lowers_the_epoch(self, arena: Arena) -> None:
        arena.needs("fences")
        volume = arena.created()
        assert all([arena.here.fence(volume, 5), arena.there.fence(volume, 5), arena.here.fence(volume, 3)]), "a repeated fence is refused"
        assert arena.here.inspect(volume).epoch == 5, "a fence lowered the epoch"

    def test_fence_of_an_unknown_volume_is_refused(self, arena: Arena) -> None:
        arena.needs("fences")
        with refused(UnknownVolume, "fencing a volume that is not there is refused"):
            arena.here.fence(NOWHERE, 1)

    def test_birth_certificate_is_kept(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume)
        for _ in range(2):
            arena.here.record_birth(volume, BIRTH, epoch=1)
            assert arena.there.inspect(volume).birth == BIRTH, "a birth certificate was not kept"
        arena.detach(volume)
        assert arena.there.inspect(volume).birth == BIRTH, "a detach lost the birth certificate"

    def test_birth_certificate_is_never_replaced(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume)
        arena.here.record_birth(volume, BIRTH, epoch=1)
        with refused(Conflict, "another birth certificate is refused"):
            arena.here.record_birth(volume, OTHER_BIRTH, epoch=1)
        assert arena.here.inspect(volume).birth == BIRTH, "a refused birth certificate replaced the first"

    def test_of_two_birth_certificates_at_once_one_is_kept(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume)
        together = threading.Barrier(2)

        def record(platform: Platform, birth: Birth) -> Birth | None:
            together.wait(timeout=30)
            try:
                platform.record_birth(volume, birth, epoch=1)
            except Conflict:
                return None
            return birth

        with ThreadPoolExecutor(2) as pool:
            recorded = [birth for birth in pool.map(record, (arena.here, arena.there), (BIRTH, OTHER_BIRTH)) if birth]
        assert len(recorded) < 2, "two birth certificates were recorded"
        for birth in recorded or [BIRTH]:  # two that came in each other's way may both be refused
            arena.here.record_birth(volume, birth, epoch=1)
            assert arena.there.inspect(volume).birth == birth, "a birth certificate that was recorded is not the one that is there"

    def test_birth_certificate_of_a_stale_epoch_is_refused(self, arena: Arena) -> None:
        arena.needs("marks")
        volume = arena.created()
        arena.attach(volume, epoch=3)
        with refused(StaleEpoch, "a birth certificate from an older epoch is refused"):
            arena.there.record_birth(volume, BIRTH, epoch=2)
        with refused(UnknownVolume, "a birth certificate for a volume that is not there is refused"):
            arena.here.record_birth(NOWHERE, BIRTH, epoch=1)
        assert arena.here.inspect(volume).birth is None, "a refused birth certificate was kept"
