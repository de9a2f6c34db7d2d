"""The latest offer of each agent and role, for people to look at afterwards.

The events are kept as they came and read again when somebody looks: few ever do, and a thousand decoded offers would cost
every round the time and the memory to hold them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from offers.records import Offer, decode_sound_offers

MOST_BYTES: Final = 64 << 20
"""Of events. A round's are kept while one of its offers is an agent's latest, so agents that fill up one by one would keep them all."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An offer as it came, and what became of it."""

    offer: Offer
    at: float
    fate: str
    tasks: tuple[str, ...]


@dataclass(slots=True, eq=False)
class SeenRound:
    """The offers of one round."""

    events: Sequence[bytes]
    at: float
    used: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The offers that were accepted, each with the tasks that were launched on it."""


class LatestOffers:
    """Which round's offer is the latest of each agent and role. A round is forgotten once none of its offers is, or more than `most_bytes`
    have come since."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._noted_bytes = most_bytes, 0
        self._latest: dict[tuple[str, str], tuple[str, SeenRound, str]] = {}
        """By agent and role: the offer, its round, and what the agent is called."""

    def copy(self) -> LatestOffers:
        """As it is now, for another thread to look at: rounds are never changed once they are over."""
        made = LatestOffers()
        made._latest = dict(self._latest)
        return made

    def note(self, offers: Iterable[Offer], events: Sequence[bytes], at: float) -> SeenRound:
        """Notes the offers of a round; the caller says in `used` what became of them."""
        seen = SeenRound(events, at)
        self._latest.update(
            [((offer.agent.value, offer.allocation_info.role), (offer.offer.value, seen, offer.hostname)) for offer in offers]
        )
        self._noted_bytes += sum(map(len, events))
        if self._noted_bytes >= self._most_bytes:
            self._forget_oldest()
        return seen

    def _forget_oldest(self) -> None:
        """All but the youngest rounds that are `most_bytes` together."""
        left, kept = self._most_bytes, set[SeenRound]()
        for seen in sorted({seen for _, seen, _ in self._latest.values()}, key=lambda seen: seen.at, reverse=True):
            left -= sum(map(len, seen.events))
            if left >= 0:
                kept.add(seen)
        self._latest = {key: it for key, it in self._latest.items() if it[1] in kept}
        self._noted_bytes = 0

    def forget_agent(self, agent_id: str) -> None:
        for key in [key for key in self._latest if key[0] == agent_id]:
            del self._latest[key]

    def hostname(self, agent_id: str) -> str | None:
        """What the agent is called, if an offer of it is known."""
        return next((hostname for (agent, _), (_, _, hostname) in self._latest.items() if agent == agent_id), None)

    def __len__(self) -> int:
        return len(self._latest)

    def __iter__(self) -> Iterator[Seen]:
        rounds: dict[SeenRound, list[str]] = {}
        for offer_id, seen, _ in self._latest.values():
            rounds.setdefault(seen, []).append(offer_id)
        for seen, offer_ids in rounds.items():
            found = {offer.id: offer for data in seen.events for offer in decode_sound_offers(data)[0]}
            yield from (_as_it_was(found[offer_id], seen) for offer_id in offer_ids)


def _as_it_was(offer: Offer, seen: SeenRound) -> Seen:
    tasks = seen.used.get(offer.id)
    return Seen(offer, seen.at, "declined" if tasks is None else "accepted", tasks or ())
