"""Decoding OFFERS events: one that a real Mesos 1.11.0 master sent, the forms around it, and what is no such event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offers.constraints import attribute_text
from offers.records import decode_offers, decode_sound_offers
from offers.resources import reserved_for
from storage.errors import Invalid

EVENT = (Path(__file__).parent / "offers_event.json").read_bytes()


def test_a_real_event_is_read_whole() -> None:
    first, second = decode_offers(EVENT)
    assert (first.id, first.framework_id, first.agent_id) == tuple(
        f"db6decd1-b12f-41c3-ac8a-5bd9f8cbc543-{end}" for end in ("O0", "0000", "S1")
    )
    assert (first.hostname, first.role, first.region, first.zone) == ("agent1", "shop", "r1", "z1")
    assert (second.hostname, second.role, second.region, second.zone) == ("agent2", "other", "", "")
    assert [(line.name, reserved_for(line)) for line in first.resources] == [
        ("ports", "*"),
        ("cpus", "shop"),
        ("mem", "shop"),
        ("gold", "shop"),
        ("cpus", "*"),
        ("mem", "*"),
        ("disk", "*"),
    ]
    assert [attribute_text(attribute) for attribute in first.attributes] == ["a", "2.5", "[1-2]"]


def test_what_an_event_holds_is_read_without_the_event() -> None:
    whole = json.loads(EVENT)
    inner: list[Any] = [whole["offers"], whole["offers"]["offers"], {"offers": whole["offers"]["offers"]}]
    assert [decode_offers(json.dumps(form).encode()) for form in inner] == [decode_offers(json.dumps(whole).encode())] * 3


def test_an_offer_without_attributes_has_none() -> None:
    raw = json.loads(EVENT)["offers"]["offers"][0]
    del raw["attributes"]
    assert decode_offers(json.dumps([raw]).encode())[0].attributes == ()


BAD = [
    ({"attributes": [{"type": "TEXT"}]}, "name"),
    ({"attributes": [{"name": "rack", "type": "SCALAR", "scalar": {"value": "2"}}]}, "float"),
    ({"attributes": {"rack": "a"}}, "array"),
    ({"resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1e400}}]}, "out of range"),
    ({"hostname": 5}, "str"),
]


@pytest.mark.parametrize(("wrong", "said"), BAD)
def test_a_malformed_offer_costs_nobody_the_others_of_its_event(wrong: dict[str, Any], said: str) -> None:
    whole = json.loads(EVENT)
    first = whole["offers"]["offers"][0]
    first |= wrong
    data = json.dumps(whole).replace("Infinity", "1e400").encode()
    with pytest.raises(Invalid, match="OFFERS event is"):
        decode_offers(data)
    sound, (malformed,) = decode_sound_offers(data)
    assert [offer.id for offer in sound] == [whole["offers"]["offers"][1]["id"]["value"]]
    assert malformed.offer_id == first["id"]["value"]
    assert malformed.agent == (first["agent_id"]["value"] if "hostname" in wrong else "agent1")
    assert f"offer {malformed.offer_id} of agent {malformed.agent} is" in str(malformed.error)
    assert said in str(malformed.error)


def test_an_offer_of_which_nothing_can_be_told_is_malformed_too() -> None:
    sound, malformed = decode_sound_offers(b'[3, {"id": 4}]')
    assert (sound, [(it.offer_id, it.agent) for it in malformed]) == ([], [("", ""), ("", "")])


def test_an_event_without_offers_has_none() -> None:
    assert decode_offers(b'{"type":"OFFERS","offers":{}}') == []
    assert decode_offers(b" []") == []


def test_maintenance_and_executors_are_kept() -> None:
    raw = json.loads(EVENT)["offers"]["offers"][1]
    raw |= {"unavailability": {"start": {"nanoseconds": 1_500_000_000}}, "executor_ids": [{"value": "e1"}]}
    (offer,) = decode_offers(json.dumps([raw]).encode())
    assert (offer.unavailable_at, offer.executor_ids) == (1.5, ("e1",))
    assert decode_offers(EVENT)[0].unavailable_at is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"offers": 3}', b'[{"id": {"value": "o"}}]', b'[{"id": "o"}]', b'{"offers": {"offers": [{}]}}']
)
def test_anything_else_is_refused_with_what_is_wrong(data: bytes) -> None:
    with pytest.raises(Invalid, match="OFFERS event is"):
        decode_offers(data)


@pytest.mark.parametrize("data", [b"", b"{", b'{"offers": 3}'])
def test_an_event_that_has_no_list_of_offers_is_refused_whole(data: bytes) -> None:
    with pytest.raises(Invalid, match="OFFERS event is"):
        decode_sound_offers(data)
