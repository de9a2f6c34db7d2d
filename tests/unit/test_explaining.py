"""Why instances wait, as `polly explain` says it: alone, many of one reason, and of several apps."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from framework.cli.explaining import MOST_GROUPS, alike, explanation_lines, slots, summary
from framework.cli.words import moment
from framework.service import Explanation, Hold, RefusalCount, WaitingInstance
from storage.model import VolumeId
from tests.unit.front import NOW, WAITING, FakeBroker
from tests.unit.test_cli_doing import Polly, broker, polly

__all__ = ["broker", "polly"]


def waiting(*slots: int, **more: object) -> tuple[WaitingInstance, ...]:
    return tuple(replace(WAITING, slot=slot, **more) for slot in slots)


def hold(slot: int, host: str, *, state: str = "STRANDED", since: float = NOW) -> Hold:
    volume_id, node = VolumeId(f"v{slot}"), f"S-{host}"
    return Hold(volume=f"/db#{slot}/data", volume_id=volume_id, state=state, since=since, claim_id=f"c{slot}", node=node, hostname=host)


def stranded(slot: int, *, host: str = "agent1") -> WaitingInstance:
    """What a dead machine leaves of one instance: words that name its own volume, task and claim."""
    own = f"0198c2f0-7d3a-7c21-9f04-5b6e7a8c9{slot:03x}"
    return WaitingInstance(
        slot=slot,
        since=NOW,
        blocked=f"volume /db#{slot}/data is claimed by db.instance-{own}._app.1 (STRANDED: TASK_UNREACHABLE)",
        holds=(hold(slot, host),),
        remedies=(f"bring agent {host} back", f"polly claim release {own} --because x"),
    )


def why(*instances: WaitingInstance, app_id: str = "/db") -> Explanation:
    return Explanation(app_id=app_id, instances=50, running=50 - len(instances), staging=0, waiting=instances)


def test_one_instance_is_told_with_all_that_is_known_of_it() -> None:
    why = Explanation(app_id="/a", instances=3, running=1, staging=0, waiting=(WAITING,))
    assert explanation_lines(why, NOW + 300) == [
        "/a: 1 of 3 instances running, 0 starting, 1 waiting.",
        "",
        "/a#1 has waited for 5 min and seen 12 offers.",
        "  Of the latest 12 offers:",
        "    9 in the wrong zone; for example, agent1 is in z1, the volume in z2",
        "    3 with no attach slot left",
    ]
    held = WaitingInstance(
        slot=0,
        since=NOW,
        failures=3,
        next_try_at=NOW + 30,
        blocked="volume v is STRANDED",
        last_message="it failed",
        remedies=("bring it back",),
    )
    text = "\n".join(explanation_lines(Explanation(app_id="/a", instances=1, running=0, staging=0, waiting=(held,)), NOW + 10))
    assert "Its last task: it failed" in text
    assert "It has failed 3 times in a row." in text
    assert "next try in 20 s" in text
    assert "volume v is STRANDED\n  What you can do:\n    bring it back" in text
    fresh = Explanation(app_id="/a", instances=1, running=0, staging=0, waiting=(WaitingInstance(slot=0, since=NOW),))
    assert "No offer has come yet" in explanation_lines(fresh, NOW)[-1]


def test_a_reason_that_many_share_is_told_once_with_how_many_and_which() -> None:
    lines = explanation_lines(why(*waiting(*range(37), 39, since=NOW - 240), *waiting(40, offers_seen=15)), NOW + 60)
    assert lines[2] == "39 instances (#0 to #36, #39 to #40) have waited for 60 s to 5 min and seen 12 to 15 offers."
    assert [line for line in lines if "in the wrong zone" in line] == [
        "    9 in the wrong zone; for example, agent1 is in z1, the volume in z2"
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"refusals": WAITING.refusals[:1]},
        {"blocked": "volume db is FAULTED"},
        {"last_message": "exit 1"},
        {"failures": 1},
        {"next_try_at": NOW + 99},
        {"remedies": ("bring it back",)},
    ],
)
def test_other_reasons_are_told_apart_that_of_most_first(other: dict[str, object]) -> None:
    groups = alike((*waiting(0, **other), *waiting(1, 2)), NOW + 60)
    assert [[instance.slot for instance in group] for group in groups] == [[1, 2], [0]]


def test_instances_that_differ_in_the_names_of_their_own_things_only_are_told_once() -> None:
    lines = explanation_lines(why(*(stranded(slot) for slot in (3, 4, 5))), NOW)
    assert lines[2:] == [
        "3 instances (#3 to #5) have waited for 0 s and seen 0 offers.",
        f"  {stranded(3).blocked} (here of #3)",
        f"  STRANDED on agent agent1 (S-agent1) for 0 s, since {moment(NOW)}.",
        "  What you can do (here of #3):",
        "    bring agent agent1 back",
        f"    {stranded(3).remedies[1]}",
        "  The others' claims are in: polly claim list --state stranded",
    ]
    assert len(alike((stranded(0), stranded(1, host="agent2")), NOW)) == 2


def test_what_takes_long_is_told_with_since_when_and_where_and_is_no_instance_that_waits() -> None:
    held = [hold(slot, "a1", state="ATTACHING", since=NOW - 60 * slot) for slot in (1, 2)]
    slow = [
        WaitingInstance(slot=slot, since=NOW - 200, phase="STARTING", blocked="b", holds=(it,))
        for slot, it in zip((1, 2), held, strict=True)
    ]
    lines = explanation_lines(Explanation(app_id="/db", instances=2, running=0, staging=2, slow=tuple(slow)), NOW + 60)
    assert lines == [
        "/db: 0 of 2 instances running, 2 starting, 0 waiting.",
        "",
        "2 instances (#1 to #2) have been STARTING for 4 min.",
        "  b",
        f"  ATTACHING on agent a1 (S-a1) for 2 min to 3 min, since {moment(NOW - 120)}.",
    ]
    one = Explanation(app_id="/db", instances=1, running=0, staging=1, slow=tuple(slow[:1]))
    assert summary([one]) == "No instance waits. 1 task of 1 app takes long to start or to end."
    assert len(alike((slow[0], replace(slow[0], holds=(hold(1, "a2"),))), NOW)) == 2


def test_the_ids_of_a_volume_and_of_who_holds_it_make_no_other_reason() -> None:
    held = "volume /db#{0}/data is RELEASING: Volume vol-8fb8d29f85d1fc7b698a3a6a2dac486{0} is in use by node {1}, pid 18{0}0, epoch 1."
    on_one = waiting(0, blocked=held.format(0, "a1")) + waiting(1, blocked=held.format(1, "a1"))
    assert len(alike(on_one, NOW)) == 1
    assert len(alike((*on_one, *waiting(2, blocked=held.format(2, "a2"))), NOW)) == 2


def test_failures_and_the_next_try_of_many_are_told_from_the_least_to_the_most() -> None:
    text = "\n".join(
        explanation_lines(why(*waiting(0, failures=1, next_try_at=NOW + 30), *waiting(1, failures=4, next_try_at=NOW + 10)), NOW)
    )
    assert "  Each has failed 1 to 4 times in a row." in text
    assert "next try in 10 s to 30 s, at " in text


def test_a_long_list_is_cut_and_says_where_the_rest_is() -> None:
    others = [*waiting(0, 1, blocked="most")]
    others += [stranded(slot, host=f"agent{slot}") for slot in range(2, MOST_GROUPS + 4)]
    lines = explanation_lines(why(*others), NOW)
    assert sum("waited for" in line for line in lines) == MOST_GROUPS
    assert lines[-1] == "3 instances more, for 3 other reasons: polly explain /db -o json has all."


def test_runs_of_numbers_are_named_by_their_ends_and_not_without_end() -> None:
    assert slots(waiting(5, 0, 1, 2)) == "#0 to #2, #5"
    assert slots(waiting(*range(0, 20, 2))) == "#0, #2, #4, #6, #8, #10, #12, #14 and 2 more"


def test_several_apps_are_summed_up_first() -> None:
    assert summary([why(*waiting(0, 1)), why(*waiting(0), app_id="/web"), why(app_id="/idle")]) == "3 instances of 2 apps waiting."
    assert summary([why()]) == "No instance waits."


def test_without_an_id_all_apps_that_wait_are_explained(polly: Polly, broker: FakeBroker) -> None:
    assert polly("explain").stdout == "No instance waits.\n"
    broker.waiting = (WAITING,)
    lines = polly("explain").stdout.splitlines()
    assert lines[:3] == ["1 instance of 1 app waiting.", "", "/counter: 1 of 2 instances running, 0 starting, 1 waiting."]
    assert json.loads(polly("explain", "-o", "json").stdout)[0]["app_id"] == "/counter"


def test_several_apps_are_explained_one_below_the_other(polly: Polly, broker: FakeBroker) -> None:
    broker.waiting = (WAITING,)
    text = polly("explain", "counter", "/counter").stdout
    assert text.splitlines()[0] == "2 instances of 2 apps waiting."
    assert text.count("/counter: 1 of 2 instances running") == 2
    assert len(json.loads(polly("explain", "counter", "/counter", "-o", "json").stdout)) == 2


def test_of_several_apps_those_that_there_are_are_explained_and_the_others_named(polly: Polly, broker: FakeBroker) -> None:
    broker.waiting = (WAITING,)
    result = polly("explain", "countr", "counter", "none")
    assert result.exit_code == 4
    assert result.stdout.splitlines()[2] == "/counter: 1 of 2 instances running, 0 starting, 1 waiting."
    assert result.stderr.splitlines() == [
        "polly: There is no app /countr.",
        "Did you mean /counter? List what there is with: polly app list",
        "polly: There is no app /none.",
        "List what there is with: polly app list",
    ]
    as_json = polly("explain", "countr", "counter", "-o", "json")
    assert ([why["app_id"] for why in json.loads(as_json.stdout)], as_json.exit_code) == (["/counter"], 4)
    assert (polly("explain", "no", "none").stdout, polly("explain", "no", "none", "-o", "json").stdout) == ("", "[]\n")
    assert (polly("explain", "none", "-o", "json").stdout, polly("explain", "none").exit_code) == ("", 4)


def test_that_no_mesos_is_there_is_said_first(polly: Polly, broker: FakeBroker) -> None:
    broker.waiting = (WAITING,)
    assert polly("explain", "counter").stderr == ""
    broker.connected = False
    assert polly("explain", "counter").stderr.startswith(
        "The broker is not registered with a Mesos master, so no offer comes (127.0.0.1:5050: Connection refused)."
    )


def test_an_app_that_is_held_is_told_with_why_and_what_to_do() -> None:
    held = Explanation(app_id="/db", instances=1, running=1, staging=0, held="mems: is no field here.")
    assert explanation_lines(held, NOW) == [
        "/db: 1 of 1 instance running, 0 starting, 0 waiting.",
        "  App /db is held, so nothing of it is launched, replaced or killed: mems: is no field here.",
        "  Run the Polly that took it, or end it and run it again with a definition that is valid: "
        "polly app kill /db (its profiles say what becomes of its volumes).",
    ]
    assert summary([held]) == "No instance waits. 1 app held."


def test_an_offer_that_fits_but_for_its_storage_reads_as_a_sentence() -> None:
    full = RefusalCount(reason="POOL_FULL", words="but the pools are too full", count=2)
    (instance,) = waiting(0, offers_refused=2, refusals=(full,))
    assert "    2 would fit, but the pools are too full" in explanation_lines(why(instance), NOW)
