"""Matching, case by case: where tasks go, in which form, and what those are told that go nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from offers.ask import Ask, Constraint, Peer, PortAsk, VolumeAsk
from offers.matching import PARTS, Match, match
from offers.records import Offer, decode_offers
from offers.tally import Refusal, Tally
from offers.view import NO_STORAGE, PlatformView, Reach, StorageView
from storage.lifecycle import VolumeState
from storage.model import AccessMode, Pool, Profile, Sizes, WorkloadId
from tests.offering import ask, decoded, named, new_volume, offer_json, old_volume, ports, reserved, scalar, simple

UNIQUE = (Constraint(field="hostname", operator="UNIQUE"),)
FAST = Profile(name="fast")


def places(
    asks: list[Ask], offers: list[Offer], storage: StorageView = NO_STORAGE, peers: dict[WorkloadId, list[Peer]] | None = None
) -> list[str]:
    """`key agent` of each match."""
    return [f"{one.ask.key} {one.agent_id}" for one in match(asks, offers, storage, peers).matches]


def only(asks: list[Ask], offers: list[Offer], storage: StorageView = NO_STORAGE) -> Match:
    (found,) = match(asks, offers, storage).matches
    return found


def tally(waiting: Ask, offers: list[Offer], storage: StorageView = NO_STORAGE, *before: Ask) -> Tally:
    return match([*before, waiting], offers, storage).tallies[waiting.key]


def one_pool(capacity_mib: int = 1000, zone: str = "") -> StorageView:
    return StorageView(pools=(Pool(platform="ebs", name="p", capacity_mib=capacity_mib, zone=zone),))


# --- resources ---------------------------------------------------------------------------------------


def test_a_task_gets_what_it_asks_and_its_executor_apart() -> None:
    event = (Path(__file__).parent / "offers_event.json").read_bytes()
    wanted = ask(role="shop", cpus=2.5, mem_mib=256, disk_mib=10, ports=PortAsk(wanted=(0, 0)), executor_cpus=0.1, executor_mem_mib=32)
    found = only([wanted], decode_offers(event))
    shop = {"allocation_info": {"role": "shop"}}
    static = {**shop, "reservations": [{"type": "STATIC", "role": "shop"}]}
    assert list(found.resources) == [
        {"name": "cpus", "type": "SCALAR", **static, "scalar": {"value": 2.0}},
        {"name": "cpus", "type": "SCALAR", **shop, "scalar": {"value": 0.5}},
        {"name": "mem", "type": "SCALAR", **static, "scalar": {"value": 256.0}},
        {"name": "disk", "type": "SCALAR", **shop, "scalar": {"value": 10.0}},
        {"name": "ports", "type": "RANGES", **shop, "ranges": {"range": [{"begin": 31000, "end": 31001}]}},
    ]
    assert list(found.executor_resources) == [
        {"name": "cpus", "type": "SCALAR", **shop, "scalar": {"value": 0.1}},
        {"name": "mem", "type": "SCALAR", **static, "scalar": {"value": 32.0}},
    ]
    assert (found.hostname, found.ports, found.volumes) == ("agent1", (31000, 31001), ())
    assert found.offer_ids == ("db6decd1-b12f-41c3-ac8a-5bd9f8cbc543-O0",)


def test_the_form_before_reservation_refinement_goes_back_as_it_came() -> None:
    lines = [scalar("cpus", 1, role="polly", reservation={"principal": "p"}), scalar("mem", 200, role="*")]
    found = only([ask()], decoded(offer_json("1", lines)))
    assert [(line["name"], line["role"], line.get("reservation")) for line in found.resources] == [
        ("cpus", "polly", {"principal": "p"}),
        ("mem", "*", None),
    ]


def test_offers_of_one_agent_and_role_are_one_room() -> None:
    offers = [simple("1", cpus=1, agent="a"), simple("2", cpus=1, agent="a"), simple("3", cpus=1.5, agent="b")]
    found = only([ask(cpus=2)], offers)
    assert (found.agent_id, found.offer_ids, named(found.resources, "cpus")) == ("a", ("offer-1", "offer-2"), 2)
    assert match([ask(cpus=2)], offers).unused == ("offer-3",)


def test_an_offer_that_comes_twice_counts_once() -> None:
    offer = simple("1", cpus=1)
    assert match([ask(cpus=2)], [offer, offer]).matches == ()


def test_the_most_particular_reservation_is_used_first() -> None:
    lines = [
        scalar("cpus", 1),
        scalar("cpus", 1, reservations=reserved("a")),
        scalar("cpus", 1, reservations=reserved("a/b")),
        scalar("mem", 500),
    ]
    offers = decoded(offer_json("1", [{**line, "allocation_info": {"role": "a/b"}} for line in lines], role="a/b"))
    found = only([ask(role="a/b", cpus=2.5)], offers)
    assert [line.get("reservations", [{}])[-1].get("role") for line in found.resources if line["name"] == "cpus"] == ["a/b", "a", None]


def test_accepted_roles_leave_the_rest_alone() -> None:
    lines = [
        scalar("cpus", 4),
        scalar("cpus", 1, reservations=reserved("polly")),
        scalar("mem", 500),
        scalar("mem", 500, reservations=reserved("polly")),
    ]
    offers = decoded(offer_json("1", lines))
    assert match([ask(cpus=2, accepted_roles=frozenset({"polly"}))], offers).matches == ()
    found = only([ask(cpus=1, accepted_roles=frozenset({"polly"}))], offers)
    assert all("reservations" in line for line in found.resources)
    found = only([ask(cpus=4, accepted_roles=frozenset({"*"}))], offers)
    assert not any("reservations" in line for line in found.resources)


def test_another_roles_offer_is_no_place() -> None:
    refused = tally(ask(role="other"), [simple("1")])
    assert (str(refused), refused.counts) == ("1 offer: 1 for another role", {Refusal.ROLE: 1})


# --- ports -------------------------------------------------------------------------------------------


def ports_of(wanted: PortAsk, *lines: dict[str, object]) -> tuple[int, ...] | None:
    offers = decoded(offer_json("1", [scalar("cpus", 1), scalar("mem", 500), *lines]))
    found = match([ask(ports=wanted)], offers).matches
    return found[0].ports if found else None


def test_ports_are_any_unless_they_are_required() -> None:
    assert ports_of(PortAsk(wanted=(80, 0)), ports((5, 6))) == (5, 6)
    assert ports_of(PortAsk(wanted=(6, 0), required=True), ports((5, 6))) == (6, 5)
    assert ports_of(PortAsk(wanted=(80, 0), required=True), ports((5, 6))) is None
    assert ports_of(PortAsk(wanted=(5, 5), required=True), ports((5, 6))) is None
    assert ports_of(PortAsk(wanted=(0, 0, 0)), ports((5, 6))) is None


def test_the_choice_of_ports_begins_where_it_is_told_to() -> None:
    assert [ports_of(PortAsk(wanted=(0, 0), start=start), ports((5, 6), (9, 9))) for start in range(4)] == [(5, 6), (6, 9), (9, 5), (5, 6)]


def test_ports_come_out_of_several_reservations() -> None:
    offers = decoded(offer_json("1", [scalar("cpus", 1), scalar("mem", 500), ports((5, 5)), ports((7, 7), reservations=reserved("polly"))]))
    found = only([ask(ports=PortAsk(wanted=(0, 5), required=True))], offers)
    assert found.ports == (7, 5)
    assert sorted(len(line.get("reservations", ())) for line in found.resources if line["name"] == "ports") == [0, 1]


# --- constraints -------------------------------------------------------------------------------------


def test_constraints_hold_among_tasks_of_the_same_call() -> None:
    asks = [ask(f"/app#{n}", constraints=UNIQUE) for n in range(3)]
    made = match(asks, [simple("1"), simple("2")])
    assert [one.agent_id for one in made.matches] == ["agent-1", "agent-2"]
    assert made.tallies["/app#2"].counts == {Refusal.UNIQUE: 2}
    assert made.tallies["/app#2"].examples[Refusal.UNIQUE] == "hostname UNIQUE is asked for, agent-1.example has agent-1.example"


def test_peers_count_by_their_workload() -> None:
    peers = {WorkloadId("/app"): [Peer(agent_id="agent-1", hostname="agent-1.example")]}
    assert places([ask(constraints=UNIQUE)], [simple("1")], peers=peers) == []
    assert places([ask("/else#0", constraints=UNIQUE)], [simple("1")], peers=peers) == ["/else#0 agent-1"]


def test_a_group_that_was_full_opens_again_when_the_others_have_caught_up() -> None:
    rule = (Constraint(field="rack", operator="GROUP_BY", value="2"),)
    asks = [ask("/app#0", cpus=3, constraints=rule)] + [ask(f"/app#{n}", constraints=rule) for n in range(1, 4)]
    offers = [simple("1", attributes={"rack": "a"}), simple("2", cpus=2, attributes={"rack": "b"})]
    peers = {WorkloadId("/app"): [Peer(agent_id="x", hostname="x", attributes={"rack": "a"})]}
    # 0 fits only on agent-1 in rack a, which is closed until rack b has caught up.
    expected = ["/app#1 agent-2", "/app#2 agent-2", "/app#3 agent-1", "/app#0 agent-1"]
    assert places(asks, offers, peers=peers) == expected


def test_a_missing_attribute_is_named() -> None:
    refused = tally(ask(constraints=(Constraint(field="rack", operator="IS", value="a"),)), [simple("1")])
    assert refused.examples == {Refusal.ATTRIBUTE: "rack IS a is asked for, agent-1.example has no rack"}


# --- ranking -----------------------------------------------------------------------------------------


def test_the_tightest_agent_is_filled_first_and_ties_are_broken_by_name() -> None:
    offers = [simple("3", cpus=4), simple("2", cpus=2), simple("1", cpus=4)]
    assert places([ask(f"/app#{n}", cpus=2) for n in range(3)], offers) == ["/app#0 agent-2", "/app#1 agent-1", "/app#2 agent-1"]


def test_ties_are_spread_over_agents() -> None:
    offers = [simple("1", cpus=1, mem=200), simple("2", cpus=1, mem=200)]
    tiny = [ask(f"/app#{n}", cpus=0, mem_mib=0) for n in range(4)]
    assert places(tiny, offers) == ["/app#0 agent-1", "/app#1 agent-2", "/app#2 agent-1", "/app#3 agent-2"]


def test_least_waste_of_volume_goes_before_least_waste_of_cpus() -> None:
    pools = (
        Pool(platform="ebs", name="wide", capacity_mib=1000, zone="z1"),
        Pool(platform="ebs", name="tight", capacity_mib=120, zone="z2"),
        Pool(platform="ebs", name="small", capacity_mib=90, zone="z2"),
    )
    offers = [simple("1", cpus=1, zone="z1"), simple("2", cpus=8, zone="z2")]
    found = only([ask(volumes=(new_volume(100),))], offers, StorageView(pools=pools))
    assert (found.agent_id, found.volumes[0].pool) == ("agent-2", "tight")


def test_asks_are_served_in_their_order() -> None:
    assert places([ask("/b#0", cpus=3), ask("/a#0", cpus=3), ask("/c#0", cpus=1)], [simple("1", cpus=4)]) == [
        "/b#0 agent-1",
        "/c#0 agent-1",
    ]


# --- volumes -----------------------------------------------------------------------------------------


def test_matches_are_told_of_while_others_are_made_and_each_once() -> None:
    asks, told = [ask(key=f"/app#{it}", cpus=0.001, mem_mib=1) for it in range(sum(PARTS) + PARTS[-1] + 1)], list[list[str]]()
    made = match(asks, [simple("a")], told=lambda matches: told.append([one.ask.key for one in matches]))
    assert [len(part) for part in told] == [*PARTS, PARTS[-1], 1]
    assert [key for part in told for key in part] == [one.ask.key for one in made.matches]


def test_a_new_volume_is_planned_in_a_pool_with_the_size_that_the_platform_makes_of_it() -> None:
    view = replace(one_pool(), platforms={"ebs": PlatformView(name="ebs", sizes_in=lambda *_: Sizes(min_mib=64, granularity_mib=50))})
    found = only([ask(volumes=(new_volume(101, FAST), new_volume(1, FAST)))], [simple("1")], view)
    assert [(one.platform, one.pool, one.size_mib, one.existing) for one in found.volumes] == [
        ("ebs", "p", 150, None),
        ("ebs", "p", 100, None),
    ]


def test_no_more_of_a_pool_is_given_than_is_free() -> None:
    asks = [ask(f"/app#{n}", volumes=(new_volume(400),)) for n in range(3)]
    made = match(asks, [simple("1"), simple("2")], one_pool(1000))
    assert [one.ask.key for one in made.matches] == ["/app#0", "/app#1"]
    refused = made.tallies["/app#2"]
    assert str(refused) == "2 offers: 2 but the pools are too full"
    assert refused.examples == {Refusal.POOL_FULL: "volume data needs 400 MiB, the emptiest pool in reach, ebs/p, has 200 MiB free"}


def test_volumes_of_one_task_are_spread_over_pools_where_one_pool_does_not_hold_them() -> None:
    pools = tuple(Pool(platform="ebs", name=name, capacity_mib=size) for name, size in (("a", 100), ("b", 70)))
    # The largest first into the tightest pool: 70 in b, 60 and 40 in a; first come, first served would fail.
    wanted = ask(volumes=(new_volume(40), new_volume(60), new_volume(70)))
    found = only([wanted], [simple("1")], StorageView(pools=pools))
    assert [one.pool for one in found.volumes] == ["a", "a", "b"]


def test_the_search_turns_back_where_the_tightest_pool_was_the_wrong_one() -> None:
    pools = (Pool(platform="ebs", name="a", capacity_mib=60), Pool(platform="nfs", name="b", capacity_mib=70))
    wanted = ask(volumes=(new_volume(60), new_volume(50, platforms=("ebs",))))
    found = only([wanted], [simple("1")], StorageView(pools=pools))
    assert [one.pool for one in found.volumes] == ["b", "a"]


def test_attach_slots_are_counted_over_the_whole_call() -> None:
    view = replace(
        one_pool(), platforms={"ebs": PlatformView(name="ebs", slots_per_node=5)}, slots={("agent-1", "ebs"): 2, ("agent-2", "ebs"): 1}
    )
    made = match([ask(f"/app#{n}", volumes=(new_volume(1),)) for n in range(4)], [simple("1", cpus=4), simple("2", cpus=8)], view)
    assert [one.agent_id for one in made.matches] == ["agent-1", "agent-1", "agent-2"]
    refused = made.tallies["/app#3"]
    assert refused.counts == {Refusal.SLOTS: 2}
    assert refused.examples[Refusal.SLOTS] == "agent-1.example has too few attach slots left for volume data on ebs"


def test_every_attach_slot_of_an_agent_is_given_away_in_one_call() -> None:
    view = replace(one_pool(), platforms={"ebs": PlatformView(name="ebs", slots_per_node=4)})
    asks = [ask(str(number), volumes=(new_volume(10),)) for number in range(5)]
    assert places(asks, [simple("1", cpus=8)], view) == [f"{number} agent-1" for number in range(4)]


def test_ports_of_another_role_are_not_given_away() -> None:
    offer = offer_json("1", [scalar("cpus", 8), scalar("mem", 4096), ports((31000, 31009), reservations=reserved("other"))])
    assert tally(ask(ports=PortAsk(wanted=(0,))), decoded(offer)).counts == {Refusal.PORTS: 1}


def test_slots_are_shared_by_the_rooms_of_an_agent() -> None:
    view = replace(one_pool(), platforms={"ebs": PlatformView(name="ebs", slots_per_node=1)})
    offers = [simple("1", agent="a"), simple("2", agent="a", role="other")]
    asks = [ask("/a#0", volumes=(new_volume(1),)), ask("/b#0", role="other", volumes=(new_volume(1),))]
    assert places(asks, offers, view) == ["/a#0 a"]


def test_a_volume_is_brought_only_where_its_zone_is() -> None:
    offers = [simple("1", zone="z1"), simple("2", zone="z2")]
    assert places([ask(volumes=(old_volume(zone="z2"),))], offers) == ["/app#0 agent-2"]
    refused = tally(ask(volumes=(old_volume(zone="z3"),)), offers)
    assert refused.counts == {Refusal.ZONE: 2}
    assert refused.examples == {Refusal.ZONE: "volume old is in z3, agent-1.example is in r1/z1"}


def test_a_platform_is_reached_by_attribute() -> None:
    view = replace(one_pool(), platforms={"ebs": PlatformView(name="ebs", reach=Reach(field="disks", pattern="ssd|nvme"))})
    offers = [simple("1", attributes={"disks": "ssd0"}), simple("2", attributes={"disks": "nvme"}), simple("3")]
    assert places([ask(volumes=(new_volume(),))], offers, view) == ["/app#0 agent-2"]
    refused = tally(ask(volumes=(old_volume(),)), [offers[0], offers[2]], view)
    assert refused.examples == {Refusal.PLATFORM: "agent-1.example does not reach platform ebs of volume old"}


@pytest.mark.parametrize(
    ("mode", "read_only", "given"),
    [
        (AccessMode.SINGLE_NODE_WRITER, (False, False), 1),
        (AccessMode.SINGLE_NODE_READER_ONLY, (True, True), 1),
        (AccessMode.MULTI_NODE_READER_ONLY, (True, True, False), 2),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, (False, True, False), 2),
        (AccessMode.MULTI_NODE_MULTI_WRITER, (False, False, True), 3),
    ],
)
def test_a_volume_is_given_as_often_as_its_access_mode_allows(mode: AccessMode, read_only: tuple[bool, ...], given: int) -> None:
    asks = [ask(f"/app{n}#0", volumes=(old_volume(read_only=only_read, access_mode=mode),)) for n, only_read in enumerate(read_only)]
    assert len(match(asks, [simple("1")]).matches) == given


def refusal_of(volume: VolumeAsk, *before: VolumeAsk, storage: StorageView = NO_STORAGE, role: str = "polly") -> tuple[Refusal, str]:
    first = [ask(f"/first#{n}", volumes=(one,)) for n, one in enumerate(before)]
    refused = tally(
        ask(volumes=(volume,), role=role),
        [simple("1", role=role), simple("2", role="polly")][: 1 if role == "polly" else 2],
        storage,
        *first,
    )
    return next((name, refused.examples[name]) for name in refused.counts if name is not Refusal.ROLE)


def test_what_no_offer_can_mend_is_said_of_the_volume() -> None:
    assert refusal_of(old_volume(), old_volume()) == (Refusal.VOLUME_IN_USE, "volume old was given to another task just now")
    assert refusal_of(old_volume(state=VolumeState.FAULTED)) == (Refusal.VOLUME_STATE, "volume old is FAULTED")
    assert refusal_of(old_volume(access_mode=AccessMode.MULTI_NODE_READER_ONLY)) == (
        Refusal.VOLUME_ACCESS,
        "volume old is MULTI_NODE_READER_ONLY, the task wants to write",
    )
    assert refusal_of(old_volume(role="polly"), role="other") == (Refusal.VOLUME_ROLE, "volume old is not for role other")
    private = new_volume(1, Profile(name="p", roles=("other",)))
    assert refusal_of(private, storage=one_pool()) == (Refusal.VOLUME_ROLE, "volume data is not for role polly")
    small = new_volume(10, Profile(name="p", max_mib=5))
    assert refusal_of(small, storage=one_pool()) == (
        Refusal.VOLUME_SIZE,
        "10 MiB for volume data is more than profile and platform allow",
    )
    coarse = replace(one_pool(), platforms={"ebs": PlatformView(name="ebs", sizes_in=lambda *_: Sizes(min_mib=64))})
    assert refusal_of(small_enough := new_volume(5, small.profile), storage=coarse) == (
        Refusal.VOLUME_SIZE,
        "5 MiB for volume data would be 64 MiB in ebs/p, and that is more than profile and platform allow",
    )
    none = replace(one_pool(), platforms={"ebs": PlatformView(name="ebs", sizes_in=lambda *_: None)})
    assert refusal_of(small_enough, storage=none) == (Refusal.NO_POOL, "no pool qualifies by profile p for volume data")
    tagged = new_volume(1, Profile(name="p", pool_labels={"tier": "x"}))
    assert refusal_of(tagged, storage=one_pool()) == (Refusal.NO_POOL, "no pool qualifies by profile p for volume data")
    far = new_volume(1, name="far")
    assert refusal_of(far, storage=one_pool(zone="z9")) == (
        Refusal.ZONE,
        "no pool for volume far is where agent-1.example is in no zone",
    )


def test_a_name_is_given_to_one_new_volume_only() -> None:
    asks = [ask(f"/app#{n}", volumes=(new_volume(1, name="shared"),)) for n in range(2)]
    assert places(asks, [simple("1")], one_pool()) == ["/app#0 agent-1"]


def test_a_profile_that_the_platform_cannot_serve_has_no_pool() -> None:
    view = replace(one_pool(), platforms={"ebs": PlatformView(name="ebs", access_modes=frozenset({AccessMode.SINGLE_NODE_WRITER}))})
    many = Profile(name="many", access_mode=AccessMode.MULTI_NODE_MULTI_WRITER)
    assert places([ask(volumes=(new_volume(1, FAST),))], [simple("1")], view) == ["/app#0 agent-1"]
    assert tally(ask(volumes=(new_volume(1, many),)), [simple("1")], view).counts == {Refusal.NO_POOL: 1}


# --- tallies -----------------------------------------------------------------------------------------


def test_a_tally_counts_each_offer_under_its_first_reason() -> None:
    offers = [simple("1", cpus=1), simple("2", mem=100), simple("3", agent="big", cpus=9), simple("4", role="other"), simple("5", cpus=0.5)]
    refused = tally(ask(cpus=2, ports=PortAsk(wanted=(80,), required=True)), offers)
    assert str(refused) == "5 offers: 2 with too few cpus, 1 with too little memory, 1 without the ports, 1 for another role"
    assert refused.examples[Refusal.CPUS] == "2 cpus wanted (executor included), agent-1.example has 1 left"
    assert refused.examples[Refusal.PORTS] == "port 80 wanted, big.example offers 31000-31099"


def test_resources_that_a_task_may_not_use_are_told_apart() -> None:
    lines = [scalar("cpus", 4, reservations=reserved("polly")), scalar("mem", 500)]
    refused = tally(ask(accepted_roles=frozenset({"*"})), decoded(offer_json("1", lines)))
    assert refused.examples[Refusal.CPUS] == "1 cpus wanted (executor included), agent-1.example has 0 left and 4 that it may not use"


def test_without_offers_a_tally_is_empty() -> None:
    assert str(tally(ask(), [])) == "0 offers"


def test_equal_tasks_share_a_tally_and_tasks_with_volumes_what_is_counted() -> None:
    asks = [ask(f"/app#{n}", cpus=9) for n in range(2)] + [
        ask(f"/db#{n}", cpus=9, volumes=(old_volume(f"v{n}", zone="z9"),)) for n in range(2)
    ]
    tallies = match(asks, [simple("1")]).tallies
    assert tallies["/app#0"] is tallies["/app#1"]
    assert [f"v{n}" in tallies[f"/db#{n}"].examples[Refusal.ZONE] for n in range(2)] == [True, True]
    assert tallies["/db#0"].counts is tallies["/db#1"].counts, "the offers are counted once for tasks that differ in their volumes' names"
    assert len(tallies) == 4


def test_a_volume_that_was_given_away_is_told_of_its_task_and_not_of_those_alike() -> None:
    given = old_volume("v0")
    asks = [ask(f"/db#{n}", cpus=3, volumes=(volume,)) for n, volume in enumerate((given, given, old_volume("v2")))]
    tallies = match(asks, [simple("1")]).tallies
    assert {key: list(tally.counts) for key, tally in tallies.items()} == {"/db#1": [Refusal.VOLUME_IN_USE], "/db#2": [Refusal.CPUS]}


def test_pools_that_share_a_room_give_no_more_of_it_than_there_is() -> None:
    first = Pool(platform="ebs", name="a", capacity_mib=100, zone="z1", room="quota", room_capacity_mib=100)
    pools = (first, structs.replace(first, name="b", zone="z2"))
    offers = [simple("one", zone="z1"), simple("two", zone="z2")]
    asks = [ask(f"/app#{number}", volumes=(new_volume(40),)) for number in range(3)]
    made = match(asks, offers, StorageView(pools=pools), {})
    assert [chosen.size_mib for one in made.matches for chosen in one.volumes] == [40, 40]
    assert made.tallies["/app#2"].counts == {Refusal.POOL_FULL: 2}
    assert "has 20 MiB free" in made.tallies["/app#2"].examples[Refusal.POOL_FULL]
    together = StorageView(pools=(first, structs.replace(first, name="b")))
    for size_mib, fits in ((50, True), (51, False)):
        made = match([ask(volumes=(new_volume(size_mib), new_volume(size_mib)))], offers, together, {})
        assert bool(made.matches) is fits
