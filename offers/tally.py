"""Why a pending task was not placed: refusals with names, counted over the offers, each with an example in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Refusal(StrEnum):
    """The reasons for a no. The value is what programs see; `words` is for people."""

    ROLE = "ROLE"
    ATTRIBUTE = "ATTRIBUTE"
    UNIQUE = "UNIQUE"
    CLUSTER = "CLUSTER"
    GROUP_BY = "GROUP_BY"
    LIKE = "LIKE"
    UNLIKE = "UNLIKE"
    MAX_PER = "MAX_PER"
    IS = "IS"
    VOLUME_IN_USE = "VOLUME_IN_USE"
    VOLUME_STATE = "VOLUME_STATE"
    VOLUME_ACCESS = "VOLUME_ACCESS"
    VOLUME_ROLE = "VOLUME_ROLE"
    VOLUME_SIZE = "VOLUME_SIZE"
    PLATFORM = "PLATFORM"
    ZONE = "ZONE"
    NO_POOL = "NO_POOL"
    POOL_OFFLINE = "POOL_OFFLINE"
    POOL_FULL = "POOL_FULL"
    SLOTS = "SLOTS"
    CPUS = "CPUS"
    MEM = "MEM"
    DISK = "DISK"
    GPUS = "GPUS"
    PORTS = "PORTS"

    @property
    def words(self) -> str:
        return _WORDS.get(self, f"against constraint {self}")


_WORDS: Mapping[Refusal, str] = {
    Refusal.ROLE: "for another role",
    Refusal.ATTRIBUTE: "without the constraint's attribute",
    Refusal.VOLUME_IN_USE: "but the volume goes to another task",
    Refusal.VOLUME_STATE: "but the volume cannot be used",
    Refusal.VOLUME_ACCESS: "but the volume's access mode forbids it",
    Refusal.VOLUME_ROLE: "but the volume or its profile is for another role",
    Refusal.VOLUME_SIZE: "but the volume would be too large",
    Refusal.PLATFORM: "out of the platform's reach",
    Refusal.ZONE: "in the wrong zone",
    Refusal.NO_POOL: "but no pool qualifies",
    Refusal.POOL_OFFLINE: "but the platform does not answer or has no such pool any more",
    Refusal.POOL_FULL: "but the pools are too full",
    Refusal.SLOTS: "with no attach slot left",
    Refusal.CPUS: "with too few cpus",
    Refusal.MEM: "with too little memory",
    Refusal.DISK: "with too little disk",
    Refusal.GPUS: "with too few gpus",
    Refusal.PORTS: "without the ports",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How the offers of one call were refused to one task, by what is left once all others were served."""

    offers: int
    counts: Mapping[Refusal, int]
    """How many offers each reason refused, the most frequent first; they add up to `offers`."""
    examples: Mapping[Refusal, str]

    def __str__(self) -> str:
        seen = f"{self.offers} offer" if self.offers == 1 else f"{self.offers} offers"
        return ": ".join(filter(None, (seen, ", ".join(f"{count} {refusal.words}" for refusal, count in self.counts.items()))))


class Tallies(Mapping[str, Tally]):
    """The tallies of the tasks that wait, by the ask's key. Each is counted when it is first looked at, once for all tasks alike."""

    __slots__ = ("_count", "_counted", "_likeness")

    def __init__(self, likeness: Mapping[str, Hashable], count: Callable[[str], Tally]) -> None:
        """likeness: for each key what it has in common with the tasks that have the same tally; count: counts one key's tally."""
        self._likeness, self._count = likeness, count
        self._counted: dict[Hashable, Tally] = {}

    def __getitem__(self, key: str) -> Tally:
        like = self._likeness[key]
        if like not in self._counted:
            self._counted[like] = self._count(key)
        return self._counted[like]

    def __iter__(self) -> Iterator[str]:
        return iter(self._likeness)

    def __len__(self) -> int:
        return len(self._likeness)
