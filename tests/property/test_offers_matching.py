"""What must hold of every match, whatever the offers: checked on random worlds against the rules written out slowly."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from framework.build import is_compiled
from offers.ask import Ask, Constraint, Peer, PortAsk, VolumeAsk
from offers.constraints import offer_field, peer_of
from offers.matching import Match, Matching, match
from offers.records import Offer, decode_offers
from offers.view import PlatformView, Reach, StorageView
from storage.lifecycle import VolumeState
from storage.model import AccessMode, Pool, Profile, Sizes, Volume, VolumeId, WorkloadId
from tests.offering import Json, amounts, event, offer_json, ports, reserved, scalar

ZONES = ("z1", "z2")
PROFILES = (
    Profile(name="fast", platforms=("ebs",), min_mib=2),
    Profile(name="any"),
    Profile(name="tagged", pool_labels={"tier": "x"}, max_mib=6),
    Profile(name="private", roles=("polly/a",)),
    Profile(name="large", platforms=("ebs",), parameters={"type": "large"}),
)
relaxed = settings(max_examples=80, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class World:
    """The input of one call, with the offers as they came."""

    raw: list[Json]
    asks: list[Ask]
    storage: StorageView
    peers: dict[WorkloadId, list[Peer]]

    @property
    def offers(self) -> list[Offer]:
        return decode_offers(event(self.raw))

    def match(self) -> Matching:
        return match(self.asks, self.offers, self.storage, self.peers)


# --- random worlds -----------------------------------------------------------------------------------

amount = st.sampled_from([0.0, 0.001, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0])
some_role = st.sampled_from(["polly", "polly", "polly", "polly/a"])


@st.composite
def resource(draw: st.DrawFn, role: str) -> Json:
    more: dict[str, Any] = draw(
        st.sampled_from(
            [{}] * 6
            + [{"reservations": reserved(role)}] * 3
            + [
                {"reservations": reserved("polly")},
                {"reservations": [*reserved("polly"), *reserved(role, "DYNAMIC", principal="p")]},
                {"reservations": reserved(role, "DYNAMIC", principal="q")},
                {"reservations": reserved(role, "DYNAMIC", labels={"labels": [{"key": "framework", "value": "other"}]})},
                {"reservations": reserved("stranger")},
                {"role": "*"},
                {"role": role},
                {"role": role, "reservation": {"principal": "p"}},
                {"revocable": {}},
                {"shared": {}},
                {"provider_id": {"value": "p"}},
            ]
        )
    )
    name = draw(st.sampled_from(["cpus", "mem", "cpus", "mem", "disk", "gpus", "ports", "other"]))
    if name == "ports":
        begin = draw(st.integers(1, 12))
        return ports((begin, begin + draw(st.integers(0, 3))), to=role, **more)
    if name == "disk" and draw(st.booleans()):
        more = {**more, "disk": draw(st.sampled_from([{"source": {"type": "RAW"}}, {"persistence": {"id": "x"}}]))}
    return scalar(name, draw(amount), role, **more)


@st.composite
def offers(draw: st.DrawFn) -> list[Json]:
    made: list[Json] = []
    for number in range(draw(st.integers(1, 6))):
        agent, role = draw(st.integers(1, 5)), draw(some_role)
        lines = draw(st.lists(resource(role), max_size=6))
        if draw(st.integers(0, 9)):
            much = st.sampled_from([4.0, 2.5, 1.0, 0.5])
            lines += [scalar("cpus", draw(much), role), scalar("mem", draw(much), role), scalar("disk", 1.0, role), ports((3, 9), to=role)]
        seen: set[int] = set()
        for line in lines:  # Mesos offers no port twice
            parts = line.get("ranges", {}).get("range", [])
            line_ports = {port for part in parts for port in range(part["begin"], part["end"] + 1)}
            if line_ports & seen:
                line["ranges"] = {"range": []}
            seen |= line_ports
        if any(raw["agent_id"]["value"] == f"a{agent}" for raw in made):
            lines = [line for line in lines if line["name"] != "ports"]
        attributes = {"rack": "ab"[agent % 2]} | ({"disks": "ssd"} if agent < 4 else {})
        made.append(offer_json(str(number), lines, agent=f"a{agent}", zone=ZONES[agent % 2], role=role, attributes=attributes))
    return made


constraints = st.builds(
    lambda field, how: Constraint(field=field, operator=how[0], value=how[1]),
    st.sampled_from(["hostname", "@zone", "rack", "disks", "@region"]),
    st.sampled_from(
        [
            ("UNIQUE", None),
            ("cluster", None),
            ("CLUSTER", "a"),
            ("GROUP_BY", None),
            ("group_by", "2"),
            ("LIKE", "a.*"),
            ("UNLIKE", "a1.*"),
            ("MAX_PER", "1"),
            ("MAX_PER", "2"),
            ("IS", "z1"),
        ]
    ),
)


@st.composite
def volume(draw: st.DrawFn) -> VolumeAsk:
    if draw(st.integers(0, 2)):
        profile = draw(st.sampled_from([*PROFILES, PROFILES[1], None, None]))
        return VolumeAsk(
            container_path="data",
            size_mib=draw(st.integers(1, 8)),
            profile=profile,
            platforms=draw(st.sampled_from([(), (), (), ("ebs",), ("nfs",)])),
            name=draw(st.sampled_from(["", "", "", "", "n1"])),
        )
    number = draw(st.integers(0, 4))
    existing = Volume(
        volume_id=VolumeId(f"v{number}"),
        name=f"v{number}",
        platform=("ebs", "nfs")[number % 2],
        pool="p",
        size_mib=5,
        zone=("z1", "z2", "")[number % 3],
        access_mode=list(AccessMode)[number],
        state=VolumeState.AVAILABLE,
    )
    return VolumeAsk(container_path="data", existing=existing, read_only=draw(st.booleans()))


@st.composite
def asks(draw: st.DrawFn) -> list[Ask]:
    made = []
    kinds = [draw(ask_like()) for _ in range(draw(st.integers(1, 3)))]
    for number in range(draw(st.integers(2, 9))):
        kind = draw(st.sampled_from(kinds))
        made.append(structs.replace(kind, key=f"{kind.workload}#{number}"))
    return made


@st.composite
def ask_like(draw: st.DrawFn) -> Ask:
    plain = draw(st.booleans())
    wanted = tuple(draw(st.lists(st.sampled_from([0, 0, 0, 3, 5]), max_size=2)))
    return Ask(
        key="",
        workload=WorkloadId(draw(st.sampled_from(["/a", "/b"]))),
        role="polly" if plain else draw(some_role),
        cpus=draw(amount),
        mem_mib=draw(st.sampled_from([0.1, 0.3, 1.0])),
        disk_mib=draw(st.sampled_from([0, 0, 0.5])),
        gpus=0 if plain else draw(st.sampled_from([0, 0, 1])),
        ports=PortAsk(wanted=wanted, required=draw(st.booleans()), start=draw(st.integers(0, 9))),
        constraints=() if plain else tuple(draw(st.lists(constraints, max_size=2))),
        accepted_roles=None
        if plain
        else draw(st.sampled_from([None, None, frozenset({"*"}), frozenset({"polly"}), frozenset({"*", "polly/a"})])),
        volumes=tuple(draw(st.lists(volume(), max_size=3))),
        executor_cpus=draw(st.sampled_from([0, 0.1])),
        executor_mem_mib=draw(st.sampled_from([0, 0.1])),
    )


def sizes_in(grain: int, parameters: Mapping[str, str], pool: str) -> Sizes | None:
    """Large volumes cannot be in the first pool."""
    if parameters.get("type") != "large":
        return Sizes(granularity_mib=grain)
    return None if pool == "p0" else Sizes(min_mib=4, max_mib=8, granularity_mib=grain)


def size_of(storage: StorageView, wish: VolumeAsk, pool: Pool) -> int | None:
    sizes = storage.platform(pool.platform).sizes(wish.profile, pool)
    size = sizes.rounded(max(wish.size_mib, wish.profile.min_mib if wish.profile else 1)) if sizes else 0
    return size if sizes and size <= (sizes.max_mib or size) else None


@st.composite
def storages(draw: st.DrawFn) -> StorageView:
    room_mib = draw(st.integers(0, 30))
    """Of the room that some pools of ebs share, and as much of one of nfs'."""
    pools = [
        Pool(
            platform=draw(st.sampled_from(["ebs", "nfs"])),
            room=draw(st.sampled_from(["", "", "r"])),
            room_capacity_mib=room_mib,
            name=f"p{number}",
            capacity_mib=draw(st.integers(2, 24)),
            zone=draw(st.sampled_from(["", "", *ZONES])),
            labels=draw(st.sampled_from([{}, {"tier": "x"}])),
            online=draw(st.sampled_from([True, True, True, False])),
        )
        for number in range(draw(st.integers(1, 5)))
    ]
    ebs = PlatformView(
        name="ebs",
        reach=draw(st.sampled_from([None, Reach(field="disks", pattern="ss.")])),
        sizes_in=partial(sizes_in, draw(st.sampled_from([1, 4]))),
        slots_per_node=draw(st.sampled_from([None, None, 0, 1, 2, 3])),
    )
    slots = draw(st.dictionaries(st.tuples(st.sampled_from(["a1", "a2", "a3"]), st.sampled_from(["ebs", "nfs"])), st.integers(0, 3)))
    return StorageView(pools=tuple(pools), platforms={"ebs": ebs}, slots=slots)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    raw = draw(offers())
    around = [peer_of(offer) for offer in decode_offers(event(raw))]
    some = st.lists(st.sampled_from(around), max_size=3) if around else st.just([])
    peers = draw(st.dictionaries(st.sampled_from([WorkloadId("/a"), WorkloadId("/b")]), some))
    return World(raw=raw, asks=draw(asks()), storage=draw(storages()), peers=peers)


# --- the rules, written out --------------------------------------------------------------------------


def value_of(peer: Peer, field: str) -> str | None:
    known = {"hostname": peer.hostname, "@zone": peer.zone, "@region": peer.region}
    return (known[field] or None) if field in known else peer.attributes.get(field)


def accepts(constraint: Constraint, offer: Offer, peers: Sequence[Peer]) -> bool:
    import re

    value, wanted = offer_field(offer, constraint.field), constraint.value or ""
    if value is None:
        return constraint.operator == "UNLIKE"
    values = [value_of(peer, constraint.field) for peer in peers]
    groups = Counter(values)
    match constraint.operator:
        case "UNIQUE":
            return value not in values
        case "CLUSTER":
            return value == wanted if wanted else not values or values[0] == value
        case "GROUP_BY":
            return value not in groups or (len(groups) >= int(wanted or 0) and groups[value] == min(groups.values()))
        case "LIKE":
            return re.fullmatch(wanted, value) is not None
        case "UNLIKE":
            return re.fullmatch(wanted, value) is None
        case "MAX_PER":
            return groups[value] < int(wanted)
        case _:
            return value == wanted


def usable(line: Json, ask: Ask) -> bool:
    """Whether a resource as it was offered may be given to the task."""
    if line["allocation_info"]["role"] != ask.role or {"revocable", "shared", "provider_id", "disk"} & line.keys():
        return False
    stack = line.get("reservations", [])
    if stack and "labels" in stack[-1]:
        return False
    owner = stack[-1]["role"] if stack else line.get("role", "*")
    if owner == "*":
        return ask.accepted_roles is None or "*" in ask.accepted_roles
    if not (ask.role == owner or ask.role.startswith(owner + "/")):
        return False
    return ask.accepted_roles is None or owner in ask.accepted_roles or ask.role in ask.accepted_roles


def check_resources(world: World, made: Matching) -> None:
    by_id = {raw["id"]["value"]: raw for raw in world.raw}
    for offer_ids in {one.offer_ids for one in made.matches}:
        offered = amounts(line for name in offer_ids for line in by_id[name]["resources"])
        here = [one for one in made.matches if one.offer_ids == offer_ids]
        given_out = amounts(line for one in here for line in (*one.resources, *one.executor_resources))
        assert all(offered[kind] >= much for kind, much in given_out.items())
    for one in made.matches:
        check_amounts(one)


def check_amounts(one: Match) -> None:
    wanted = one.ask
    assert all(usable(line, wanted) for line in (*one.resources, *one.executor_resources))
    for lines, cpus, mem, disk in (
        (one.resources, wanted.cpus, wanted.mem_mib, wanted.disk_mib),
        (one.executor_resources, wanted.executor_cpus, wanted.executor_mem_mib, 0),
    ):
        found = Counter[str]()
        for (name, _), much in amounts(lines).items():
            found[name] += much
        assert (found["cpus"], found["mem"], found["disk"]) == tuple(round(much * 1000) for much in (cpus, mem, disk))
    held = sorted(int(name[5:]) for name, _ in amounts(one.resources) if name.startswith("port "))
    assert held == sorted(one.ports)
    assert len(one.ports) == len(wanted.ports.wanted)
    assert all(port == need for port, need in zip(one.ports, wanted.ports.wanted, strict=True) if need and wanted.ports.required)


def check_places(world: World, made: Matching) -> None:
    offers_by_id = {offer.id: offer for offer in world.offers}
    peers = {workload: list(known) for workload, known in world.peers.items()}
    for one in made.matches:
        offer = offers_by_id[one.offer_ids[0]]
        assert offer.role == one.ask.role
        assert {offers_by_id[name].agent_id for name in one.offer_ids} == {one.agent_id}
        known = peers.setdefault(one.ask.workload, [])
        assert all(accepts(constraint, offer, known) for constraint in one.ask.constraints)
        known.append(peer_of(offer))


def check_volumes(world: World, made: Matching) -> None:
    free = {(pool.platform, pool.name): pool for pool in world.storage.pools}
    taken: Counter[tuple[str, str]] = Counter()
    slots: Counter[tuple[str, str]] = Counter()
    holders: dict[str, list[VolumeAsk]] = {}
    offers_by_id = {offer.id: offer for offer in world.offers}
    for one in made.matches:
        offer = offers_by_id[one.offer_ids[0]]
        assert len(one.volumes) == len(one.ask.volumes)
        for wish, chosen in zip(one.ask.volumes, one.volumes, strict=True):
            slots[one.agent_id, chosen.platform] += 1
            assert reaches(world.storage, chosen.platform, offer)
            assert chosen.existing is wish.existing
            if wish.existing is not None:
                holders.setdefault(wish.existing.volume_id, []).append(wish)
                assert wish.existing.zone in ("", offer.zone)
            else:
                pool = free[chosen.platform, chosen.pool]
                taken[chosen.platform, chosen.pool] += chosen.size_mib
                assert pool.zone in ("", offer.zone)
                assert wish.size_mib <= chosen.size_mib == size_of(world.storage, wish, pool)
                assert not wish.platforms or chosen.platform in wish.platforms
                assert wish.profile is None or (wish.profile.qualifies(pool) and one.ask.role in (wish.profile.roles or [one.ask.role]))
                assert wish.profile is None or chosen.size_mib <= (wish.profile.max_mib or chosen.size_mib)
    assert not too_much(world.storage, taken)
    assert all(slots[key] <= slots_of(world.storage, key) for key in slots)
    assert all(may_share(wishes) for wishes in holders.values())


def too_much(storage: StorageView, taken: Mapping[tuple[str, str], int]) -> bool:
    """Whether a pool, or a room that pools share, has less than what is taken of it, by platform and pool."""
    rooms: Counter[tuple[str, str]] = Counter()
    for pool in storage.pools:
        much = taken.get((pool.platform, pool.name), 0)
        rooms[pool.platform, pool.room] += much if pool.room else 0
        if much > pool.free_mib or (pool.room and rooms[pool.platform, pool.room] > pool.room_free_mib):
            return True
    return False


def reaches(storage: StorageView, platform: str, offer: Offer) -> bool:
    reach = storage.platform(platform).reach
    return reach is None or offer_field(offer, reach.field) == "ssd"


def slots_of(storage: StorageView, key: tuple[str, str]) -> int:
    default = storage.platform(key[1]).slots_per_node
    return storage.slots.get(key, 1000 if default is None else default)


def may_share(wishes: Sequence[VolumeAsk]) -> bool:
    mode = wishes[0].existing.access_mode if wishes[0].existing else None
    writers = sum(not wish.read_only for wish in wishes)
    if mode is AccessMode.MULTI_NODE_MULTI_WRITER:
        return True
    if mode is AccessMode.MULTI_NODE_SINGLE_WRITER:
        return writers <= 1
    if mode is AccessMode.MULTI_NODE_READER_ONLY:
        return writers == 0
    return len(wishes) == 1 and (mode is not AccessMode.SINGLE_NODE_READER_ONLY or writers == 0)


# --- what is left, to try by brute force whether one more would fit ------------------------------------


def fits_somewhere(world: World, made: Matching, waiting: Ask) -> bool:
    """Tries every room and every way to spread the volumes over the pools, on what the matches have left."""
    rooms: dict[tuple[str, str], list[Json]] = {}
    for raw in world.raw:
        rooms.setdefault((raw["agent_id"]["value"], raw["allocation_info"]["role"]), []).append(raw)
    return any(fits_room(world, made, waiting, raws) for (_, role), raws in rooms.items() if role == waiting.role)


def fits_room(world: World, made: Matching, waiting: Ask, raws: Sequence[Json]) -> bool:
    ids = tuple(sorted(raw["id"]["value"] for raw in raws))
    offer = decode_offers(event(raws))[0]
    left = amounts(line for raw in raws for line in raw["resources"] if usable(line, waiting))
    here = [one for one in made.matches if one.offer_ids == ids]
    left.subtract(amounts(line for one in here for line in (*one.resources, *one.executor_resources) if usable(line, waiting)))
    totals: Counter[str] = Counter()
    for (name, _), much in left.items():
        totals[name] += much
    return (
        all(totals[name] >= much for name, much in needs(waiting).items())
        and ports_fit(waiting, {int(name[5:]) for name, much in totals.items() if name.startswith("port ") and much > 0})
        and all(accepts(constraint, offer, peers_now(world, made, waiting)) for constraint in waiting.constraints)
        and volumes_fit(world, made, waiting, offer)
    )


def needs(waiting: Ask) -> dict[str, int]:
    def milli(*much: float) -> int:
        return sum(round(one * 1000) for one in much)

    return {
        "cpus": milli(waiting.cpus, waiting.executor_cpus),
        "mem": milli(waiting.mem_mib, waiting.executor_mem_mib),
        "disk": milli(waiting.disk_mib),
        "gpus": milli(waiting.gpus),
    }


def ports_fit(waiting: Ask, free: set[int]) -> bool:
    exact = [port for port in waiting.ports.wanted if port and waiting.ports.required]
    return len(set(exact)) == len(exact) and set(exact) <= free and len(free) >= len(waiting.ports.wanted)


def peers_now(world: World, made: Matching, waiting: Ask) -> list[Peer]:
    offers_by_id = {offer.id: offer for offer in world.offers}
    placed = [peer_of(offers_by_id[one.offer_ids[0]]) for one in made.matches if one.ask.workload == waiting.workload]
    return [*world.peers.get(waiting.workload, ()), *placed]


def volumes_fit(world: World, made: Matching, waiting: Ask, offer: Offer) -> bool:
    given_out = [(one.agent_id, wish, chosen) for one in made.matches for wish, chosen in zip(one.ask.volumes, one.volumes, strict=True)]
    names = [wish.name for _, wish, _ in given_out if wish.existing is None and wish.name]
    names += [wish.name for wish in waiting.volumes if wish.existing is None and wish.name]
    own = [wish.existing.volume_id for wish in waiting.volumes if wish.existing]
    if len(set(names)) < len(names) or len(set(own)) < len(own):
        return False
    for wish in waiting.volumes:
        if wish.existing:
            others = [other for _, other, _ in given_out if other.existing and other.existing.volume_id == wish.existing.volume_id]
            near = wish.existing.zone in ("", offer.zone) and reaches(world.storage, wish.existing.platform, offer)
            if not near or not may_share([*others, wish]):
                return False
        elif wish.profile and wish.profile.roles and waiting.role not in wish.profile.roles:
            return False
    new = [wish for wish in waiting.volumes if not wish.existing]
    return any(
        ways_fit(world, given_out, waiting, offer, list(zip(new, way, strict=True)))
        for way in product(world.storage.pools, repeat=len(new))
    )


def ways_fit(world: World, given_out: Sequence[Any], waiting: Ask, offer: Offer, way: Sequence[tuple[VolumeAsk, Pool]]) -> bool:
    taken: Counter[tuple[str, str]] = Counter()
    used: Counter[str] = Counter(chosen.platform for agent, _, chosen in given_out if agent == offer.agent_id)
    used.update(wish.existing.platform for wish in waiting.volumes if wish.existing)
    for _, wish, chosen in given_out:
        if not wish.existing:
            taken[chosen.platform, chosen.pool] += chosen.size_mib
    for wish, pool in way:
        size = size_of(world.storage, wish, pool)
        if size is None:
            return False
        taken[pool.platform, pool.name] += size
        used[pool.platform] += 1
        allowed = not wish.platforms or pool.platform in wish.platforms
        suits = wish.profile is None or (wish.profile.qualifies(pool) and size <= (wish.profile.max_mib or size))
        if not (allowed and suits and pool.zone in ("", offer.zone) and reaches(world.storage, pool.platform, offer)):
            return False
    return not too_much(world.storage, taken) and all(
        much <= slots_of(world.storage, (offer.agent_id, name)) for name, much in used.items()
    )


# --- the properties ----------------------------------------------------------------------------------


@relaxed
@given(worlds())
def test_nothing_is_given_that_was_not_offered_and_no_rule_is_broken(world: World) -> None:
    made = world.match()
    assert len({one.ask.key for one in made.matches} | set(made.tallies)) == len(world.asks)
    assert not {one.ask.key for one in made.matches} & set(made.tallies)
    check_resources(world, made)
    check_places(world, made)
    check_volumes(world, made)
    used = {name for one in made.matches for name in one.offer_ids}
    assert sorted([*used, *made.unused]) == sorted(raw["id"]["value"] for raw in world.raw)


@relaxed
@given(worlds())
def test_no_waiting_task_that_still_fits_goes_unplaced(world: World) -> None:
    made = world.match()
    waiting = [one for one in world.asks if one.key in made.tallies]
    assert [one.key for one in waiting if fits_somewhere(world, made, one)] == []


@relaxed
@given(worlds())
def test_offers_one_at_a_time_leave_no_task_behind_that_fits(world: World) -> None:
    """What a broker does: each offer for itself, the view brought up to date in between. The last look must find nothing more."""
    storage, waiting = world.storage, list(world.asks)
    peers = {workload: list(known) for workload, known in world.peers.items()}
    held: list[VolumeAsk] = []
    for raw in world.raw:
        alone = World(raw=[raw], asks=waiting, storage=storage, peers=peers)
        made = alone.match()
        check_resources(alone, made)
        check_volumes(alone, made)
        left = [one for one in waiting if one.key in made.tallies]
        assert [one.key for one in left if fits_somewhere(alone, made, one)] == []
        for one in made.matches:
            peers.setdefault(one.ask.workload, []).append(peer_of(alone.offers[0]))
            held += one.ask.volumes
        storage, waiting = after(storage, made), [one for one in left if not any(blocked(wish, held) for wish in one.volumes)]


def after(storage: StorageView, made: Matching) -> StorageView:
    """The view once the matches hold their volumes."""
    pools = {(pool.platform, pool.name): pool for pool in storage.pools}
    slots = dict(storage.slots)
    for one in made.matches:
        for chosen in one.volumes:
            limit = slots_of(StorageView(platforms=storage.platforms, slots=slots), (one.agent_id, chosen.platform))
            slots[one.agent_id, chosen.platform] = limit - 1
            if chosen.existing is None:
                pools = {key: holding(pool, pools[chosen.platform, chosen.pool], chosen.size_mib) for key, pool in pools.items()}
    return replace(storage, pools=tuple(pools.values()), slots=slots)


def holding(pool: Pool, taker: Pool, size_mib: int) -> Pool:
    """The pool once as much is provisioned in another, or in itself."""
    own = size_mib if pool is taker else 0
    shared = size_mib if pool.room and (pool.platform, pool.room) == (taker.platform, taker.room) else 0
    return structs.replace(pool, provisioned_mib=pool.provisioned_mib + own, room_provisioned_mib=pool.room_provisioned_mib + shared)


def blocked(wish: VolumeAsk, held: Sequence[VolumeAsk]) -> bool:
    if wish.existing is None:
        return bool(wish.name) and any(other.name == wish.name for other in held)
    others = [other for other in held if other.existing and other.existing.volume_id == wish.existing.volume_id]
    return not may_share([*others, wish])


@relaxed
@given(worlds(), st.randoms(use_true_random=False))
def test_the_same_input_gives_the_same_result_in_whatever_order_the_offers_come(world: World, random: Any) -> None:
    made = world.match()
    shuffled = list(world.raw)
    random.shuffle(shuffled)
    again = World(raw=shuffled, asks=copy.deepcopy(world.asks), storage=world.storage, peers=world.peers).match()
    assert shown(again) == shown(made)
    assert {key: str(tally) for key, tally in again.tallies.items()} == {key: str(tally) for key, tally in made.tallies.items()}


def shown(made: Matching) -> str:
    places = [[one.ask.key, one.offer_ids, one.resources, one.executor_resources, one.ports] for one in made.matches]
    chosen = [[(volume.platform, volume.pool, volume.size_mib) for volume in one.volumes] for one in made.matches]
    return json.dumps([places, chosen, sorted(made.unused)])


@relaxed
@given(worlds())
def test_a_tally_counts_every_offer_once_and_has_an_example_for_each_reason(world: World) -> None:
    made = world.match()
    for tally in made.tallies.values():
        assert sum(tally.counts.values()) == tally.offers == len(world.raw)
        assert tally.examples.keys() == tally.counts.keys()
        assert all(text.endswith(tuple("abcdefghijklmnopqrstuvwxyz0123456789")) for text in tally.examples.values())


@pytest.mark.skipif(is_compiled(), reason="a compiled method cannot be replaced")
@relaxed
@given(worlds())
def test_what_is_remembered_of_earlier_tasks_changes_nothing(world: World) -> None:
    def each_for_itself(likeness: object, ask: Ask) -> object:
        return ask.key

    with patch("offers.feasibility.Likeness.__call__", each_for_itself):
        slowly = world.match()
    assert shown(world.match()) == shown(slowly)
