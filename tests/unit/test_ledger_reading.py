"""Lists, filters, paging, and what stands around volumes: pools, nodes, profiles, workloads, placements, settings."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from storage.errors import Conflict, PoolFull, UnknownVolume
from storage.filters import VolumeFilter
from storage.inventory import Ledger, Placement, PoolUse, Workload
from storage.ledger.sightings import written
from storage.lifecycle import VolumeState
from storage.model import AccessMode, ExternalId, Node, NodeId, PlacementId, Profile, ReclaimPolicy, VolumeId, WorkloadId
from storage.platforms.base import PoolReport, VolumeReport
from tests.ledgers import SCHEDULER, Clock, bear, end, fresh, furnish, make, new, old, placed, refusal, task


def names(ledger: Ledger, **wanted: object) -> list[str]:
    return [volume.name for volume in ledger.volumes(VolumeFilter(**wanted)).items]  # type: ignore[arg-type]  # fields as they come


def test_volumes_are_found_by_what_they_are(ledger: Ledger) -> None:
    furnish(ledger)
    with ledger.begin("test") as tx:
        tx.sync_pools("san", [PoolReport(name="q", capacity_mib=900)])
        tx.plan(new("a", profile="fast", role="r1", labels={"tier": "gold", "app": "db"}), "1")
        tx.plan(new("b", profile="slow", owner="", labels={"tier": "gold"}), "2")
        tx.plan(new("c", platform="san", pool="q", zone="", role="r2", owner="/other"), "3")
    make(ledger, "d")
    assert names(ledger) == ["a", "b", "c", "d"]
    assert names(ledger, platform="local") == ["a", "b", "d"]
    assert names(ledger, platform="san", pool="q") == ["c"]
    assert names(ledger, profile="slow") == ["b"]
    assert names(ledger, zone="z1") == ["a", "b", "d"]
    assert names(ledger, zone="") == ["c"]
    assert names(ledger, state=VolumeState.AVAILABLE) == ["d"]
    assert names(ledger, state=VolumeState.PLANNED) == ["a", "b", "c"]
    assert names(ledger, owner="/app") == ["a", "d"]
    assert names(ledger, owner="") == ["b"]
    assert names(ledger, role="r2") == ["c"]
    assert names(ledger, name="b") == ["b"]
    assert names(ledger, labels={"tier": "gold"}) == ["a", "b"]
    assert names(ledger, labels={"tier": "gold", "app": "db"}) == ["a"]
    assert names(ledger, labels={"tier": "silver"}) == []
    assert names(ledger, labels={"tier": "gold"}, profile="slow") == ["b"]


def test_pages_join_without_gap_or_double(ledger: Ledger) -> None:
    furnish(ledger)
    with ledger.begin("test") as tx:
        for n in range(25):
            tx.plan(new(f"a{n}", size_mib=1), f"token-{n}")
    found, after = [], None
    while True:
        page = ledger.volumes(VolumeFilter(owner="/app"), after=after, limit=10)
        found += [volume.name for volume in page.items]
        after = page.after
        if after is None:
            break
    assert found == [f"a{n}" for n in range(25)]
    assert ledger.volumes(limit=25).after is None
    assert ledger.volumes(limit=24).after is not None


def test_volumes_are_found_by_name_many_at_once(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "a")
    asked = ["a", *(f"nothing-{n}" for n in range(1200))]
    assert list(ledger.volumes_named(asked)) == ["a"]
    assert ledger.volumes_named([]) == {}
    with pytest.raises(UnknownVolume):
        ledger.volume("nothing-1")


def test_events_come_oldest_or_newest_first_in_parts(ledger: Ledger) -> None:
    with ledger.begin("op") as tx:
        for n in range(5):
            tx.note(f"n{n}", volume_id=VolumeId("v") if n % 2 else None, placement_id=PlacementId("p") if n == 3 else None)
    oldest = ledger.events(limit=2)
    assert [event.what for event in oldest.items] == ["n0", "n1"]
    assert [event.what for event in ledger.events(after=oldest.after).items] == ["n2", "n3", "n4"]
    newest = ledger.events(limit=2, newest_first=True)
    assert [event.what for event in newest.items] == ["n4", "n3"]
    assert [event.what for event in ledger.events(after=newest.after, newest_first=True).items] == ["n2", "n1", "n0"]
    assert [event.what for event in ledger.events(volume_id=VolumeId("v")).items] == ["n1", "n3"]
    assert [event.what for event in ledger.events(placement_id=PlacementId("p")).items] == ["n3"]


def test_what_is_rolled_back_leaves_no_line(ledger: Ledger) -> None:
    def broken() -> None:
        with ledger.begin("op") as tx:
            tx.note("never")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert ledger.events().items == []


def test_pools_follow_what_the_platform_says(ledger: Ledger, clock: Clock) -> None:
    report = PoolReport(name="p", capacity_mib=1000, foreign_mib=100, region="r", zone="z1", labels={"disk": "ssd"})
    with ledger.begin("broker") as tx:
        tx.sync_pools("local", [report, replace(report, name="q")], reserve_mib={"p": 100}, overcommit={"p": 1.5})
    p, q = ledger.pools("local")
    assert (p.limit_mib, p.free_mib, p.labels, p.seen_at, p.zone) == (1200, 1200, {"disk": "ssd"}, clock.now, "z1")
    assert (q.limit_mib, q.overcommit) == (900, 1.0)
    placed(ledger, task("t1", fresh("c1", new("a", size_mib=1100))))
    with ledger.begin("broker") as tx:
        tx.sync_pools("local", [replace(report, foreign_mib=500)])
    p, q = ledger.pools()
    assert (p.provisioned_mib, p.limit_mib, p.free_mib, p.online, q.online) == (1100, 500, 0, True, False)
    assert isinstance(refusal(ledger, task("t2", fresh("c2", new("b", size_mib=1)))), PoolFull)
    assert isinstance(refusal(ledger, task("t2", fresh("c2", new("b", size_mib=1, pool="q")))), PoolFull)
    with ledger.begin("broker") as tx:
        tx.sync_pools("local", [report, replace(report, name="q")])
    placed(ledger, task("t2", fresh("c2", new("b", size_mib=1, pool="q"))))
    story = [(event.what, event.why.split()[0]) for event in ledger.events().items if event.what.startswith("pool.")]
    assert story == [("pool.online", "p"), ("pool.online", "q"), ("pool.offline", "q"), ("pool.online", "q")]
    assert ledger.pools("elsewhere") == []


def test_nodes_keep_the_count_of_what_they_use(ledger: Ledger) -> None:
    furnish(ledger, slots=5)
    placed(ledger, task("t1", fresh("c1", new("a"))))
    node = Node(
        node_id=NodeId("node1"),
        scheduler=SCHEDULER,
        hostname="other.test",
        zone="z9",
        state="UNREACHABLE",
        identities={"san": "iqn"},
        slots={"san": 3},
    )
    with ledger.begin("mesos") as tx:
        tx.name_node(SCHEDULER, NodeId("node1"), {"san": "old"})
        tx.name_node(SCHEDULER, NodeId("node1"), {"san": "iqn"})
        tx.name_node(SCHEDULER, NodeId("never seen"), {"san": "iqn"})
        tx.put_nodes([replace(node, identities={"san": "what an offer cannot know"})])
    assert ledger.nodes(SCHEDULER)[0] == replace(node, used={"local": 1})
    assert ledger.nodes("csi") == []
    with ledger.begin("mesos") as tx:
        tx.node_state(SCHEDULER, NodeId("node1"), "GONE")
        tx.node_state(SCHEDULER, NodeId("never seen"), "GONE")
        tx.node_state(SCHEDULER, NodeId("node1"), "UNREACHABLE")
    gone, *_ = ledger.nodes()
    assert gone == replace(node, state="GONE", used={"local": 1}, seen_at=gone.seen_at)
    assert gone.seen_at > node.seen_at
    assert "never seen" not in {known.node_id for known in ledger.nodes()}
    with pytest.raises(Conflict), ledger.begin("mesos") as tx:
        tx.drop_node(SCHEDULER, NodeId("node1"))
    with ledger.begin("mesos") as tx:
        tx.drop_node(SCHEDULER, NodeId("node2"))
    assert [node.node_id for node in ledger.nodes()] == ["node1"]


def test_profiles_are_replaced_as_a_whole(ledger: Ledger) -> None:
    fast = Profile(
        name="fast", platforms=("local",), pool_labels={"disk": "ssd"}, reclaim=ReclaimPolicy.DELETE, max_mib=9, parameters={"a": "b"}
    )
    for profiles in ([fast, Profile(name="slow")], [replace(fast, filesystem="xfs")], []):
        with ledger.begin("broker") as tx:
            tx.put_profiles(profiles)
        assert ledger.profiles() == profiles


def test_workloads_and_placements_keep_their_first_instant(ledger: Ledger) -> None:
    workload = Workload(scheduler=SCHEDULER, workload_id=WorkloadId("/app"), spec="{}", instances=1, created_at=1.0, updated_at=1.0)
    placement = Placement(
        placement_id=PlacementId("t1"),
        scheduler=SCHEDULER,
        workload=WorkloadId("/app"),
        slot=0,
        node=NodeId("n"),
        state="A",
        created_at=1.0,
    )
    for instances, now in ((1, 1.0), (3, 2.0)):
        with ledger.begin("broker") as tx:
            tx.put_workload(replace(workload, instances=instances, created_at=now, updated_at=now))
            tx.put_placements([replace(placement, state="A"), replace(placement, state=f"S{instances}", created_at=now, updated_at=now)])
    assert ledger.workloads(SCHEDULER) == [replace(workload, instances=3, updated_at=2.0)]
    assert ledger.placements(SCHEDULER, WorkloadId("/app")) == [replace(placement, state="S3", updated_at=2.0)]
    assert (ledger.workloads("csi"), ledger.placements("csi")) == ([], [])
    for _ in range(2):
        with ledger.begin("broker") as tx:
            tx.drop_workload(SCHEDULER, WorkloadId("/app"))
            tx.drop_placement(PlacementId("t1"))
    assert (ledger.workloads(), ledger.placements()) == ([], [])


def test_a_placement_with_a_claim_stays_through_its_updates(ledger: Ledger) -> None:
    furnish(ledger)
    wanted = task("t1", fresh("c1", new("a")))
    placed(ledger, wanted)
    with ledger.begin("mesos") as tx:
        tx.put_placement(replace(wanted.placement, state="RUNNING"))
    with pytest.raises(Conflict, match="1 of them"), ledger.begin("mesos") as tx:
        tx.drop_placements([PlacementId("never"), PlacementId("t1")])
    assert ledger.placements()[0].state == "RUNNING"


def test_settings(ledger: Ledger) -> None:
    assert ledger.setting("framework id") is None
    for value in ("one", "two"):
        with ledger.begin("mesos") as tx:
            tx.put_setting("framework id", value)
        assert ledger.setting("framework id") == value


def test_restore_brings_everything_of_one_scheduler(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "idle")
    claims = [placed(ledger, task(f"t{n}", fresh(f"c{n}", new(f"a{n}"))))[0] for n in range(3)]
    placed(ledger, task("other", fresh("c9", new("a9")), scheduler="csi"))
    with ledger.begin("broker") as tx:
        tx.put_workload(Workload(scheduler=SCHEDULER, workload_id=WorkloadId("/app"), spec="{}", instances=3))
    restored = ledger.restore(SCHEDULER)
    assert [workload.workload_id for workload in restored.workloads] == ["/app"]
    assert sorted(placement.placement_id for placement in restored.placements) == ["t0", "t1", "t2"]
    assert sorted(restored.claims, key=lambda pair: pair[0].claim_id) == [(claim, ledger.volume(claim.volume_id)) for claim in claims]
    assert [node.node_id for node in restored.nodes] == ["node1", "node2"]


def test_text_of_any_kind_comes_back_as_it_was(ledger: Ledger) -> None:
    furnish(ledger)
    strange = "a'b\"c%s%(x)s:name{}\\ \n\t\u00e9\u4e16\U0001f600 ?1 $1 --"
    placed(ledger, task(strange, fresh(strange, new(strange, labels={strange: strange}))))
    volume = ledger.volume(strange)
    assert (volume.token, dict(volume.labels)) == (strange, {strange: strange})
    assert [found.name for found in ledger.volumes(VolumeFilter(labels={strange: strange})).items] == [strange]


def test_what_one_platform_lists_says_nothing_of_anothers(ledger: Ledger) -> None:
    """Platforms that know nothing of each other may give the same ids; a token is in both lists where one was copied."""
    furnish(ledger)
    make(ledger, "known")
    (first,) = placed(ledger, task("t1", fresh("doomed", new("begun"))))
    end(ledger, [first])
    placed(ledger, task("t2", old("planned", "begun", 1, renew=True)))
    tokens = {"ext-maker-known": "maker-known", "e-doomed": "doomed", "e-planned": "planned", "e-stray": "stray", "e-strange": ""}
    reports = [VolumeReport(external_id=ExternalId(it), pool="p", size_mib=1, serial="", token=token) for it, token in tokens.items()]
    with ledger.begin("test") as tx:
        for platform in ("local", "san"):
            tx.sight(platform, [(report, written(report)) for report in reports])
    assert [it.token for it in ledger.strays("local")] == ["stray"]
    assert [it.token for it in ledger.strays("san", 3)] == ["doomed", "maker-known", "planned"]
    assert [it.external_id for it in ledger.foreign("local").items] == ["e-doomed", "e-planned", "e-strange", "e-stray"]
    whole = ledger.foreign("san", limit=5)
    assert ([it.external_id for it in whole.items], whole.after) == (sorted(tokens), None)
    with ledger.begin("test") as tx:
        tx.drop_orphan("san", "doomed")
    assert [it.token for it in ledger.orphans()] == ["doomed"]
    for _ in range(2):
        with ledger.begin("test") as tx:
            tx.drop_orphan("local", "doomed")
    assert [event.why for event in ledger.events().items if event.what == "orphan.gone"] == ["doomed on local"]


def test_slots_that_others_use_are_theirs_alone(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "free")
    placed(ledger, task("t1", fresh("c1", new("a"))))
    for number, other in enumerate(("kubernetes/a", "mesos/zebra")):
        with ledger.begin("test") as tx:
            tx.put_nodes([Node(node_id=NodeId("other"), scheduler=other, hostname="other.test")])
            tx.name_node(other, NodeId("other"), {"local": f"machine {number}"})
        placed(ledger, task(f"o{number}", fresh(f"o{number}", new(f"o{number}")), node="other", scheduler=other))
    used = [(it.node, it.name, it.used) for it in ledger.slots_elsewhere(SCHEDULER)]
    assert sorted(used) == [("other", "machine 0", 1), ("other", "machine 1", 1)]


def test_a_pool_in_use_counts_what_is_claimed_in_it_alone(ledger: Ledger) -> None:
    furnish(ledger)
    make(ledger, "free")
    shared = new("s", size_mib=50, mode=AccessMode.MULTI_NODE_MULTI_WRITER)
    (first,) = placed(ledger, task("t0", fresh("c0", shared)))
    bear(ledger, first, size_mib=50)
    placed(ledger, task("t1", old("c1", "s", 1), fresh("c2", new("a", size_mib=7))))
    assert ledger.in_use() == [PoolUse(platform="local", pool="p", claims=3, volumes_mib=57)]
