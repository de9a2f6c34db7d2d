"""Rules about snapshots, volumes made from them, and volumes made from volumes."""

from __future__ import annotations

from msgspec.structs import replace

from storage.errors import HasSnapshots, Invalid, UnknownSnapshot, UnknownVolume, Unsupported
from storage.model import ExternalId
from storage.platforms.base import SnapshotReport
from storage.platforms.contract.arena import Arena, refused
from storage.platforms.contract.attaching import BIRTH, OTHER_BIRTH
from storage.platforms.contract.creating import NOWHERE

NO_SNAPSHOT = ExternalId("no-such-snapshot")


class SnapshotRules:
    def test_snapshot_twice_with_one_token_is_one(self, arena: Arena) -> None:
        arena.needs("snapshots")
        made = arena.create()
        first = arena.here.snapshot(made.external_id, token=arena.token("snap"))
        second = arena.there.snapshot(made.external_id, token=arena.token("snap"))
        assert first == second, "one token made two snapshots"
        assert (first.volume, first.size_mib, first.token) == (made.external_id, made.size_mib, arena.token("snap")), "a report is wrong"
        assert [one.external_id for one in _snapshots_of(arena, made.external_id)] == [first.external_id], "a second snapshot was left"

    def test_snapshots_are_listed_in_parts(self, arena: Arena) -> None:
        arena.needs("snapshots")
        volume = arena.created()
        made = [arena.here.snapshot(volume, token=arena.token(f"snap-{number}")).external_id for number in range(5)]
        listed = [one.external_id for one in _snapshots_of(arena, volume)]
        assert sorted(listed) == sorted(made), "snapshots are left out or listed twice"

    def test_delete_with_snapshots_is_as_declared(self, arena: Arena) -> None:
        arena.needs("snapshots")
        volume = arena.created()
        arena.write(arena.attach(volume), b"kept")
        arena.detach(volume)
        snapshot = arena.here.snapshot(volume, token=arena.token("snap"))
        if arena.here.capabilities.snapshots_outlive:
            arena.there.delete(volume)
            left = [replace(one, volume=volume) for one in _snapshots(arena) if one.external_id == snapshot.external_id]
            assert left == [snapshot], "a snapshot went with its volume, or is another now"
            _holds_copy(arena, snapshot, b"kept")
            arena.here.delete_snapshot(snapshot.external_id)
            assert snapshot.external_id not in {one.external_id for one in _snapshots(arena)}, "a deleted snapshot is listed"
        else:
            with refused(HasSnapshots, "deleting a volume with snapshots is refused"):
                arena.there.delete(volume)
            arena.here.delete_snapshot(snapshot.external_id)
            arena.here.delete(volume)
        assert arena.here.find(arena.token("volume")) is None, "a deleted volume is found"

    def test_delete_snapshot_twice_is_fine(self, arena: Arena) -> None:
        arena.needs("snapshots")
        volume = arena.created()
        snapshot = arena.here.snapshot(volume, token=arena.token("snap")).external_id
        for platform in (arena.here, arena.here, arena.there):
            platform.delete_snapshot(snapshot)
        assert not _snapshots_of(arena, volume), "a deleted snapshot is listed"

    def test_snapshot_of_an_unknown_volume_is_refused(self, arena: Arena) -> None:
        arena.needs("snapshots")
        with refused(UnknownVolume, "a snapshot of a volume that is not there is refused"):
            arena.here.snapshot(NOWHERE, token=arena.token("snap"))

    def test_snapshot_of_an_attached_volume_is_as_declared(self, arena: Arena) -> None:
        arena.needs("snapshots")
        volume = arena.created()
        attachment = arena.attach(volume)
        arena.write(attachment, b"before")
        if not arena.here.capabilities.snapshot_attached:
            with refused(Unsupported, "a snapshot of an attached volume that would be torn is refused"):
                arena.there.snapshot(volume, token=arena.token("snap"))
            assert not _snapshots_of(arena, volume), "a refused snapshot was left behind"
            return
        snapshot = arena.there.snapshot(volume, token=arena.token("snap"))
        arena.write(attachment, b"after!")
        assert arena.here.inspect(volume).held_by, "a snapshot detached the volume"
        _holds_copy(arena, snapshot, b"before")

    def test_snapshot_keeps_what_was_there(self, arena: Arena) -> None:
        arena.needs("snapshots", "restores")
        volume = arena.created()
        arena.write(arena.attach(volume, epoch=1), b"before")
        arena.detach(volume)
        snapshot = arena.here.snapshot(volume, token=arena.token("snap"))
        arena.write(arena.attach(volume, epoch=2), b"after!")
        arena.detach(volume)
        _holds_copy(arena, snapshot, b"before")
        assert arena.holds(arena.attach(volume, epoch=3), b"after!"), "a copy changed its origin"


class RestoreRules:
    def test_volume_from_a_snapshot_may_be_larger(self, arena: Arena) -> None:
        arena.needs("snapshots", "restores")
        snapshot = arena.here.snapshot(arena.created(), token=arena.token("snap"))
        made = arena.create("copy", size_mib=2 * arena.case.size_mib, snapshot=snapshot.external_id)
        assert made.size_mib == arena.here.capabilities.fit(2 * arena.case.size_mib), "a volume from a snapshot has another size"
        assert made.external_id != snapshot.volume, "a volume from a snapshot is its origin"

    def test_volume_from_a_snapshot_is_never_smaller(self, arena: Arena) -> None:
        arena.needs("snapshots", "restores")
        origin = arena.create(size_mib=2 * arena.case.size_mib)
        snapshot = arena.here.snapshot(origin.external_id, token=arena.token("snap"))
        with refused(Invalid, "a volume smaller than its snapshot is refused"):
            arena.create("copy", size_mib=arena.case.size_mib, snapshot=snapshot.external_id)
        assert arena.here.find(arena.token("copy")) is None, "a refused volume was left behind"

    def test_volume_from_an_unknown_snapshot_is_refused(self, arena: Arena) -> None:
        arena.needs("snapshots", "restores")
        with refused(UnknownSnapshot, "a volume from a snapshot that is not there is refused"):
            arena.create("copy", snapshot=NO_SNAPSHOT)
        assert arena.here.find(arena.token("copy")) is None, "a refused volume was left behind"

    def test_volume_outlives_its_snapshot_and_origin(self, arena: Arena) -> None:
        arena.needs("snapshots", "restores")
        volume = arena.created()
        arena.write(arena.attach(volume), b"kept")
        arena.detach(volume)
        snapshot = arena.here.snapshot(volume, token=arena.token("snap"))
        copy = arena.create("copy", snapshot=snapshot.external_id).external_id
        arena.here.delete_snapshot(snapshot.external_id)
        arena.here.delete(volume)
        assert arena.holds(arena.attach(copy), b"kept"), "a copy went with its origin"

    def test_volume_from_a_snapshot_is_born_by_itself(self, arena: Arena) -> None:
        """Until somebody has had it nobody needs it, and it may be deleted as what was never used."""
        arena.needs("snapshots", "restores", "marks")
        volume = arena.created()
        arena.attach(volume)
        arena.here.record_birth(volume, BIRTH, epoch=1)
        arena.detach(volume)
        snapshot = arena.here.snapshot(volume, token=arena.token("snap"))
        made = arena.create("copy", snapshot=snapshot.external_id)
        assert made.birth is None, "a volume from a snapshot bears a birth certificate before anybody has had it"
        arena.attach(made.external_id)
        arena.here.record_birth(made.external_id, OTHER_BIRTH, epoch=1)
        assert arena.there.inspect(made.external_id).birth == OTHER_BIRTH, "the birth certificate of a volume from a snapshot was not kept"


class CloneRules:
    def test_clone_holds_the_data_of_its_source(self, arena: Arena) -> None:
        clone = arena.clone(_written(arena, b"kept"))
        assert arena.holds(arena.attach(clone.external_id), b"kept"), "a clone does not have its source's data"

    def test_source_of_a_clone_stays_as_it_is(self, arena: Arena) -> None:
        source = _written(arena, b"kept")
        before = arena.here.inspect(source)
        clone = arena.clone(source).external_id
        assert arena.there.inspect(source) == before, "cloning a volume changed it"
        arena.write(arena.attach(clone), b"mine")
        arena.detach(clone)
        assert arena.holds(arena.attach(source, epoch=6), b"kept"), "writing to a clone changed its source"

    def test_clone_has_nothing_of_its_source_but_data(self, arena: Arena) -> None:
        source = _written(arena, b"kept")
        if arena.here.capabilities.marks:
            arena.here.record_birth(source, BIRTH, epoch=5)
        origin, clone = arena.here.inspect(source), arena.clone(source)
        assert clone.external_id != source, "a clone is its source"
        assert clone.serial != origin.serial, "a clone is taken for its source by its serial"
        assert (clone.token, clone.pool) == (arena.token("clone"), origin.pool), "a report of a clone is wrong"
        assert (clone.epoch, clone.birth, clone.held_by) == (0, None, ()), "a clone has its source's marks"
        assert arena.there.inspect(clone.external_id) == clone, "create and inspect tell different things of one clone"
        arena.attach(clone.external_id, epoch=1)

    def test_clone_twice_with_one_token_is_one(self, arena: Arena) -> None:
        arena.needs("clones")
        source = arena.created()
        first = arena.clone(source)
        second = arena.there.create(arena.request("clone", source=source))
        assert first.external_id == second.external_id, "one token made two clones"
        assert [one.external_id for one in arena.volumes() if one.token == first.token] == [first.external_id], "a second clone was left"

    def test_clone_may_be_larger(self, arena: Arena) -> None:
        clone = arena.clone(_written(arena, b"kept"), size_mib=2 * arena.case.size_mib)
        assert clone.size_mib == arena.here.capabilities.fit(2 * arena.case.size_mib), "a larger clone has another size than was asked for"
        assert arena.holds(arena.attach(clone.external_id), b"kept"), "a larger clone does not have its source's data"

    def test_clone_is_never_smaller(self, arena: Arena) -> None:
        arena.needs("clones")
        source = arena.create(size_mib=2 * arena.case.size_mib).external_id
        with refused(Invalid, "a clone smaller than its source is refused"):
            arena.clone(source, size_mib=arena.case.size_mib)
        assert arena.here.find(arena.token("clone")) is None, "a refused clone was left behind"

    def test_clone_of_an_unknown_volume_is_refused(self, arena: Arena) -> None:
        arena.needs("clones")
        with refused(UnknownVolume, "a clone of a volume that is not there is refused"):
            arena.clone(NOWHERE)
        assert arena.here.find(arena.token("clone")) is None, "a refused clone was left behind"

    def test_clone_outlives_its_source(self, arena: Arena) -> None:
        source = _written(arena, b"kept")
        clone = arena.clone(source).external_id
        arena.here.delete(source)
        assert arena.here.find(arena.token("volume")) is None, "the source of a clone was not deleted"
        assert arena.holds(arena.attach(clone), b"kept"), "a clone went with its source"

    def test_clone_of_an_attached_volume_is_as_declared(self, arena: Arena) -> None:
        arena.needs("clones")
        source = arena.created()
        attachment = arena.attach(source)
        arena.write(attachment, b"before")
        if not arena.here.capabilities.clone_attached:
            with refused(Unsupported, "a clone of an attached volume that would be torn is refused"):
                arena.there.create(arena.request("clone", source=source))
            assert arena.here.find(arena.token("clone")) is None, "a refused clone was left behind"
            return
        clone = arena.there.create(arena.request("clone", source=source))
        arena.write(attachment, b"after!")
        assert arena.here.inspect(source).held_by, "cloning a volume detached it"
        assert clone.held_by == (), "a clone is attached because its source is"
        assert arena.holds(arena.attach(clone.external_id), b"before"), "a clone of an attached volume is not of its moment"

    def test_clone_in_another_pool_is_refused(self, arena: Arena) -> None:
        arena.needs("clones")
        if not arena.case.other_pool:
            arena.leave_out("has one pool here")
        source = arena.created()
        with refused(Invalid, "a clone in another pool than its source's is refused"):
            arena.here.create(arena.request("clone", source=source, pool=arena.case.other_pool))
        assert arena.here.find(arena.token("clone")) is None, "a refused clone was left behind"


def _written(arena: Arena, data: bytes) -> ExternalId:
    """A volume that was used, to be cloned; it has been attached with epoch 5."""
    arena.needs("clones")
    volume = arena.created()
    arena.write(arena.attach(volume, epoch=5), data)
    arena.detach(volume)
    return volume


def _snapshots_of(arena: Arena, volume: ExternalId) -> list[SnapshotReport]:
    return [one for one in _snapshots(arena) if one.volume == volume]


def _snapshots(arena: Arena) -> list[SnapshotReport]:
    seen: list[SnapshotReport] = []
    after: str | None = None
    while True:
        page = arena.here.snapshots(after=after, limit=2)
        assert len(page.items) <= 2, f"a part of 2 snapshots has {len(page.items)}"
        seen += page.items
        if page.after is None:
            return seen
        after = page.after


def _holds_copy(arena: Arena, snapshot: SnapshotReport, data: bytes) -> None:
    """A volume made from the snapshot has the data."""
    if not arena.here.capabilities.restores:
        return
    copy = arena.create("copy", snapshot=snapshot.external_id).external_id
    assert arena.holds(arena.attach(copy, epoch=1), data), "a volume from a snapshot does not have what was there then"
    arena.detach(copy)
