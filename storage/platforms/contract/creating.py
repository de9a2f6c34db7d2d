"""Rules about volumes coming into being, being found, listed, grown and deleted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from storage.errors import Invalid, PollyError, PoolFull, UnknownPool, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import CreateRequest, Room, VolumeReport
from storage.platforms.contract.arena import Arena, refused

NOWHERE = ExternalId("no-such-volume")
HOSTILE = ("", ".", "..", "../volume", "/etc/passwd", "a/b", "nul\0byte", "x" * 300, "--force", "vol-ö", "two\nlines")
CREATORS = 4
UNKNOWN = {"no-such-parameter": "1"}


class CreateRules:
    def test_create_twice_with_one_token_is_one_volume(self, arena: Arena) -> None:
        first, second = arena.create(), arena.create()
        other = arena.there.create(arena.request())
        assert first.external_id == second.external_id == other.external_id, "one token made two volumes"
        assert _number_of(arena, first.token) == 1, "a repeated create left a second volume"

    def test_other_tokens_make_other_volumes(self, arena: Arena) -> None:
        assert arena.created("one") != arena.created("two"), "two tokens made one volume"

    def test_two_creators_at_once_make_one_volume(self, arena: Arena) -> None:
        together = threading.Barrier(CREATORS)

        def create(request: CreateRequest) -> ExternalId:
            platform = arena.case.make(arena.storage)
            try:
                together.wait(timeout=30)
                return platform.create(request).external_id
            finally:
                platform.close()

        with ThreadPoolExecutor(CREATORS) as pool:
            made = set(pool.map(create, [arena.request()] * CREATORS))
        assert len(made) == 1, f"creators with one token at once made {len(made)} volumes"
        assert _number_of(arena, arena.token("volume")) == 1, "creators at once left a second volume"

    def test_find_knows_a_volume_by_its_token_only(self, arena: Arena) -> None:
        assert arena.here.find(arena.token("volume")) is None, "a volume was found before it was made"
        made = arena.created()
        found = arena.there.find(arena.token("volume"))
        assert found, "a volume was not found by its token"
        assert found.external_id == made, "another volume was found by a token"
        assert arena.here.find(arena.token("vol")) is None, "a volume was found by a part of its token"
        assert arena.here.find("") is None, "a volume was found by no token"

    def test_reports_say_what_was_asked(self, arena: Arena) -> None:
        made = arena.here.create(arena.request(labels={"team": "shop"}))
        assert (made.pool, made.token) == (arena.case.pool, arena.token("volume")), "a report is wrong"
        if arena.here.capabilities.labels:
            assert made.name == arena.token("volume"), "a name was lost"
            assert made.labels.get("team") == "shop", "a label was lost"
        assert made.serial, "a report has no serial"
        assert (made.epoch, made.birth, made.held_by) == (0, None, ()), "a new volume is not untouched"

    def test_all_reports_of_a_volume_agree(self, arena: Arena) -> None:
        made = arena.create()
        seen = [arena.here.inspect(made.external_id), arena.there.find(made.token)]
        seen += [volume for volume in arena.volumes() if volume.external_id == made.external_id]
        assert all(report == made for report in seen), "create, inspect, find and volumes tell different things of one volume"

    def test_sizes_are_rounded_up_as_declared(self, arena: Arena) -> None:
        for size_mib in (1, arena.case.size_mib, arena.case.size_mib + 1):
            request = arena.request(f"of-{size_mib}", size_mib=size_mib)
            made = arena.here.create(request)
            told = arena.here.fit(size_mib, request.parameters, pool=request.pool)
            assert made.size_mib == told >= size_mib, f"{size_mib} MiB became {made.size_mib}, told is {told}"

    def test_sizes_that_cannot_be_are_refused(self, arena: Arena) -> None:
        limit = arena.here.sizes(arena.case.parameters, pool=arena.case.pool).max_mib
        wrong: list[tuple[Mapping[str, str], int]] = [({}, size_mib) for size_mib in (0, -1, *([limit + 1] if limit else []))]
        for parameters, size_mib in [*wrong, *arena.case.wrong_sizes]:
            request = CreateRequest(
                pool=arena.case.pool,
                size_mib=size_mib,
                token=arena.token("size"),
                parameters={**arena.case.parameters, **parameters},
            )
            at_last = _invalid(partial(arena.here.create, request))
            before = _invalid(partial(arena.here.fit, size_mib, request.parameters, pool=request.pool))
            assert at_last, f"a volume of {size_mib} MiB was made with the parameters {request.parameters}"
            assert before == at_last, f"{size_mib} MiB are refused by create alone, or in other words"

    def test_unknown_pool_is_refused(self, arena: Arena) -> None:
        with refused(UnknownPool, "a volume in a pool that is not there is refused"):
            arena.here.create(arena.request(pool="no-such-pool"))

    def test_unknown_parameter_is_refused(self, arena: Arena) -> None:
        with refused(Invalid, "a parameter that the platform does not have is refused"):
            arena.here.create(arena.request(parameters=UNKNOWN))

    def test_parameters_that_create_refuses_are_refused_before(self, arena: Arena) -> None:
        for number, wrong in enumerate([UNKNOWN, *arena.case.wrong_parameters]):
            request = arena.request(f"wrong-{number}", parameters=wrong)
            at_last = _invalid(partial(arena.here.create, request))
            before = _invalid(partial(arena.here.check_parameters, request.parameters, pool=request.pool))
            assert at_last, f"a volume was made with the parameters {wrong}"
            assert before == at_last, f"the parameters {wrong} are refused by create alone, or in other words"
            assert str(before["field"]).startswith("parameters."), "a refusal names no parameter"
        with refused(Invalid, "an unknown parameter is refused before the platform is asked"):
            arena.here.check_parameters(UNKNOWN)

    def test_parameters_that_create_takes_are_taken_before(self, arena: Arena) -> None:
        for number, right in enumerate([{}, *arena.case.other_parameters]):
            request = arena.request(f"right-{number}", parameters=right)
            for pool in (None, request.pool):
                arena.here.check_parameters(request.parameters, pool=pool)
            sizes, made = arena.here.sizes(request.parameters, pool=request.pool), arena.here.create(request)
            told = sizes.rounded(request.size_mib)
            assert made.size_mib == told, f"with the parameters {right} placing counts {told} MiB for a volume of {made.size_mib}"

    def test_full_pool_refuses_and_keeps_nothing(self, arena: Arena) -> None:
        size_mib = arena.fill()
        with refused(PoolFull, "a volume that does not fit is refused"):
            arena.create("too-much", size_mib=size_mib)
        assert arena.here.find(arena.token("too-much")) is None, "a refused volume was left behind"

    def test_pools_tell_their_capacity(self, arena: Arena) -> None:
        pools = {pool.name: pool for pool in arena.here.pools()}
        assert arena.case.pool in pools, f"there is no pool {arena.case.pool}"
        assert all(0 <= pool.foreign_mib <= pool.capacity_mib > 0 for pool in pools.values()), "a pool's capacity makes no sense"

    def test_pools_of_one_room_agree_on_it(self, arena: Arena) -> None:
        before = {pool.room.name: pool.room for pool in arena.here.pools() if pool.room}
        made = arena.create()
        rooms: dict[str, Room] = {}
        for room in filter(None, (pool.room for pool in arena.there.pools())):
            assert rooms.setdefault(room.name, room) == room, "pools of one room tell different things of it"
            assert 0 <= room.foreign_mib <= room.capacity_mib > 0, "a room's capacity makes no sense"
        for name in before.keys() & rooms.keys():
            grown_mib = rooms[name].foreign_mib - before[name].foreign_mib
            assert grown_mib < made.size_mib, "a volume of Polly's counts as another's in its room"


class DeleteRules:
    def test_delete_takes_the_volume_away(self, arena: Arena) -> None:
        volume = arena.created()
        arena.here.delete(volume)
        with refused(UnknownVolume, "a deleted volume is unknown"):
            arena.there.inspect(volume)
        assert arena.here.find(arena.token("volume")) is None, "a deleted volume is found"
        assert _number_of(arena, arena.token("volume")) == 0, "a deleted volume is listed"

    def test_delete_twice_is_fine(self, arena: Arena) -> None:
        volume = arena.created()
        arena.here.delete(volume)
        arena.here.delete(volume)
        arena.there.delete(NOWHERE)

    def test_delete_while_attached_is_refused(self, arena: Arena) -> None:
        volume = arena.created()
        arena.attach(volume)
        for platform in (arena.here, arena.there):
            with refused(VolumeInUse, "deleting an attached volume is refused"):
                platform.delete(volume)
        assert arena.here.inspect(volume).held_by, "a refused delete detached the volume"

    def test_unknown_ids_are_named(self, arena: Arena) -> None:
        with refused(UnknownVolume, "inspecting a volume that is not there is refused"):
            arena.here.inspect(NOWHERE)
        with refused(UnknownVolume, "attaching a volume that is not there is refused"):
            arena.attach(NOWHERE)
        arena.detach(NOWHERE)

    def test_hostile_ids_reach_nothing(self, arena: Arena) -> None:
        volume = arena.created()
        for text in HOSTILE:
            with refused((UnknownVolume, Invalid), f"inspecting {text!r} is refused"):
                arena.here.inspect(ExternalId(text))
            with refused((UnknownVolume, Invalid), f"attaching {text!r} is refused"):
                arena.attach(ExternalId(text))
            _deleted_or_refused(arena, text)
        assert arena.here.inspect(volume).external_id == volume, "a hostile id reached another volume"


class ListRules:
    def test_many_volumes_are_listed_in_parts(self, arena: Arena) -> None:
        size_mib = arena.here.capabilities.min_mib
        made = {arena.create(f"many-{number}", size_mib=size_mib).external_id for number in range(arena.case.many)}
        limit = max(1, arena.case.many // 7)
        seen = _parts(arena, limit)
        ours = [volume.external_id for volume in seen if volume.external_id in made]
        assert len(ours) == len(set(ours)), "a volume was listed twice"
        assert set(ours) == made, f"{len(made - set(ours))} volumes were not listed"
        assert [volume.external_id for volume in _parts(arena, limit)] == [volume.external_id for volume in seen], "the order changes"

    def test_listing_goes_on_after_a_deletion(self, arena: Arena) -> None:
        made = {arena.created(f"listed-{number}") for number in range(5)}
        first = arena.here.volumes(limit=2)
        gone = [volume.external_id for volume in first.items if volume.external_id in made][-1:]
        for volume in gone:
            arena.here.delete(volume)
        seen = [volume.external_id for volume in first.items]
        if first.after is not None:
            seen += [volume.external_id for volume in _parts(arena, 2, after=first.after)]
        ours = Counter(volume for volume in seen if volume in made)
        assert ours == Counter(made), "after a deletion a volume is left out or listed twice"


class ExpandRules:
    def test_expand_grows_a_detached_volume(self, arena: Arena) -> None:
        arena.needs("expand_detached")
        volume, wanted = arena.created(), 2 * arena.case.size_mib + 1
        grown = arena.here.expand(volume, wanted)
        assert grown.size_mib == arena.here.capabilities.fit(wanted), "an expanded volume has another size than declared"
        assert arena.there.inspect(volume).size_mib == grown.size_mib, "an expanded volume did not stay so"

    def test_expand_grows_an_attached_volume(self, arena: Arena) -> None:
        arena.needs("expand_attached")
        volume = arena.created()
        attachment = arena.attach(volume)
        arena.write(attachment, b"kept")
        grown = arena.here.expand(volume, 2 * arena.case.size_mib)
        assert grown.size_mib == arena.here.capabilities.fit(2 * arena.case.size_mib), "an attached volume did not grow"
        assert grown.held_by, "growing a volume detached it"
        assert arena.holds(attachment, b"kept"), "growing a volume lost its data"

    def test_expand_twice_is_fine(self, arena: Arena) -> None:
        arena.needs("expand_detached")
        volume = arena.created()
        sizes = {platform.expand(volume, 2 * arena.case.size_mib).size_mib for platform in (arena.here, arena.here, arena.there)}
        assert sizes == {arena.here.capabilities.fit(2 * arena.case.size_mib)}, "expanding to one size twice gave two sizes"

    def test_shrinking_is_refused(self, arena: Arena) -> None:
        arena.needs("expand_detached")
        made = arena.create(size_mib=2 * arena.case.size_mib)
        with refused(Invalid, "shrinking a volume is refused"):
            arena.here.expand(made.external_id, arena.case.size_mib)
        assert arena.here.inspect(made.external_id).size_mib == made.size_mib, "a refused expand changed the size"

    def test_expand_beyond_the_pool_is_refused(self, arena: Arena) -> None:
        arena.needs("expand_detached")
        made = arena.create()
        wanted = made.size_mib + arena.fill()
        with refused((PoolFull, Invalid), "growing a volume beyond its pool is refused"):
            arena.here.expand(made.external_id, wanted)
        assert arena.here.inspect(made.external_id).size_mib == made.size_mib, "a refused expand changed the size"

    def test_expand_of_an_unknown_volume_is_refused(self, arena: Arena) -> None:
        arena.needs("expand_detached")
        with refused(UnknownVolume, "expanding a volume that is not there is refused"):
            arena.here.expand(NOWHERE, arena.case.size_mib)


def _invalid(call: Callable[[], object]) -> Mapping[str, object] | None:
    """What the call refuses as Invalid."""
    try:
        call()
    except Invalid as error:
        return error.fields
    return None


def _number_of(arena: Arena, token: str) -> int:
    return sum(volume.token == token for volume in arena.volumes())


def _parts(arena: Arena, limit: int, *, after: str | None = None) -> list[VolumeReport]:
    seen: list[VolumeReport] = []
    while True:
        page = arena.here.volumes(after=after, limit=limit)
        assert len(page.items) <= limit, f"a part of {limit} volumes has {len(page.items)}"
        seen += page.items
        if page.after is None:
            return seen
        assert page.after != after, "a part says that it comes after itself"
        after = page.after


def _deleted_or_refused(arena: Arena, text: str) -> None:
    """Nothing of that name is there, so deleting and detaching it is done already, or refused for the name."""
    for call in (arena.here.delete, arena.detach):
        try:
            call(ExternalId(text))
        except (UnknownVolume, Invalid):
            continue
        except PollyError as error:
            raise AssertionError(f"{text!r} is no volume's id, and led to {error.code}") from error
