"""Which offers people see, and what became of each."""

from __future__ import annotations

from framework.mesos.latest import LatestOffers
from offers.records import decode_offers
from tests.offering import event, offer_json, scalar


def offers(*names: str, agent: str = "") -> bytes:
    return event(offer_json(name, [scalar("cpus", 1)], agent=agent or f"agent-{name}") for name in names)


def note(latest: LatestOffers, data: bytes, at: float, **used: tuple[str, ...]) -> None:
    latest.note(decode_offers(data), [data], at).used = {f"offer-{name}": tasks for name, tasks in used.items()}


def shown(latest: LatestOffers) -> list[tuple[str, float, str, tuple[str, ...]]]:
    return [(seen.offer.id, seen.at, seen.fate, seen.tasks) for seen in latest]


def test_each_offer_is_shown_with_what_became_of_it() -> None:
    latest = LatestOffers()
    note(latest, offers("1", "2"), 5.0, **{"2": ("t1", "t2")})
    assert shown(latest) == [("offer-1", 5.0, "declined", ()), ("offer-2", 5.0, "accepted", ("t1", "t2"))]


def test_the_latest_offer_of_an_agent_takes_the_place_of_the_one_before() -> None:
    latest = LatestOffers()
    note(latest, offers("1", "2"), 5.0)
    note(latest, offers("3", agent="agent-1"), 6.0)
    assert sorted(shown(latest)) == [("offer-2", 5.0, "declined", ()), ("offer-3", 6.0, "declined", ())]
    assert len(latest) == 2


def test_agents_that_fill_up_one_by_one_do_not_keep_every_round_in_memory() -> None:
    """Each is in one round for the last time, and that round's event is as large as those of all agents that were free then."""
    names = [str(number) for number in range(60)]
    events = [offers(*names[first:]) for first in range(60)]
    most = 5 * len(events[0])
    latest = LatestOffers(most_bytes=most)
    for at, data in enumerate(events):
        note(latest, data, float(at))
        assert sum(len(events[int(at)]) for at in {seen.at for seen in latest}) <= 2 * most
    assert next(iter(latest)).at > 0.0, "the oldest go first"
    assert latest.hostname("agent-0") is None
    assert latest.hostname("agent-59") == "agent-59.example"


def test_an_agents_name_is_known_without_a_look_at_its_offers() -> None:
    """It is asked for with each executor that fails, and may be with thousands at once."""
    latest = LatestOffers()
    latest.note(decode_offers(offers("1", "2")), [b"not read again"], 5.0)
    assert (latest.hostname("agent-2"), latest.hostname("agent-9")) == ("agent-2.example", None)


def test_an_offer_that_was_rescinded_before_its_round_is_not_shown() -> None:
    latest, data = LatestOffers(), offers("1", "2")
    latest.note(decode_offers(data)[1:], [data], 5.0)
    assert [seen.offer.id for seen in latest] == ["offer-2"]


def test_a_forgotten_agent_is_not_shown() -> None:
    latest = LatestOffers()
    note(latest, offers("1", "2"), 5.0)
    latest.forget_agent("agent-1")
    assert [seen.offer.agent_id for seen in latest] == ["agent-2"]
