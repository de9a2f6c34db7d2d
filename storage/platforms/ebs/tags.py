"""What Polly keeps with a volume in its tags, and how it is read back.

EC2 has no compare-and-set on tags, so a number that must only grow is kept as a set of keys: `polly:epoch:7` says that epoch 7
came. Two writers at once then never overwrite each other, and the mark is the highest number that is there. Who writes a birth
certificate says so first under a key of its own, looks whether somebody else has, and then gives up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec

from storage.errors import Invalid
from storage.model import Birth
from storage.platforms.marks import Mark

OURS: Final = "polly:"
TOKEN: Final = f"{OURS}token"
NAME: Final = "Name"
BIRTH: Final = f"{OURS}birth"
INTENT: Final = f"{BIRTH}:"
EPOCH: Final = f"{OURS}epoch:"
FLOOR: Final = f"{OURS}floor:"
HOLDER: Final = f"{OURS}holder:"

MOST_LABELS: Final = 30
"""EC2 has 50 tags for a resource; the rest is for marks."""
MOST_KEY: Final = 128
MOST_VALUE: Final = 256
MOST_MARKS: Final = 6
"""So many keys of outdated marks are left before they are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Under which epoch, and how, a node was given a volume."""

    epoch: int
    read_only: bool

    @property
    def text(self) -> str:
        return f"a {'reader' if self.read_only else 'writer'} of epoch {self.epoch}"


def of(described: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a volume or snapshot as EC2 describes it."""
    return {tag["Key"]: tag.get("Value", "") for tag in described.get("Tags", ())}


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def mark(tags: Mapping[str, str]) -> Mark:
    return Mark(epoch=max(_numbers(tags, EPOCH), default=0), floor=max(_numbers(tags, FLOOR), default=0))


def of_mark(wanted: Mark) -> dict[str, str]:
    keys = [f"{EPOCH}{wanted.epoch}"] if wanted.epoch else []
    return dict.fromkeys(keys + ([f"{FLOOR}{wanted.floor}"] if wanted.floor else []), "")


def overtaken(tags: Mapping[str, str]) -> list[str]:
    """The keys of marks that a higher one has overtaken, once there are many."""
    return _if_many(_lower(tags))


def outdated(tags: Mapping[str, str], now_on: Collection[str]) -> list[str]:
    """Those, and the keys of nodes that hold it no more."""
    return _if_many([*_lower(tags), *(key for key in tags if key.startswith(HOLDER) and _node(key) not in now_on)])


def _lower(tags: Mapping[str, str]) -> list[str]:
    now = mark(tags)
    epochs = [f"{EPOCH}{number}" for number in _numbers(tags, EPOCH) if number < now.epoch]
    return epochs + [f"{FLOOR}{number}" for number in _numbers(tags, FLOOR) if number < now.floor]


def _if_many(keys: list[str]) -> list[str]:
    return keys if len(keys) > MOST_MARKS else []


def _node(key: str) -> str:
    return key.removeprefix(HOLDER).partition(":")[0]


def holder(node: str, holding: Holding) -> dict[str, str]:
    """The tag of one attachment. Its key has the epoch, so that a late detach of an older one does not take it away."""
    return {f"{HOLDER}{node}:{holding.epoch}": "reader" if holding.read_only else "writer"}


def holders(tags: Mapping[str, str], node: str) -> list[str]:
    """The keys that say that this node was given the volume."""
    return [key for key in tags if key.startswith(f"{HOLDER}{node}:")]


def holdings(tags: Mapping[str, str], node: str) -> list[Holding]:
    """How the node was given the volume, the latest epoch first; nothing where it was not, or not by Polly."""
    epochs = sorted(_numbers(tags, f"{HOLDER}{node}:"), reverse=True)
    return [Holding(epoch=epoch, read_only=tags[f"{HOLDER}{node}:{epoch}"] == "reader") for epoch in epochs]


def birth(tags: Mapping[str, str]) -> Birth | None:
    try:
        return msgspec.json.decode(tags.get(BIRTH, ""), type=Birth)
    except msgspec.DecodeError:
        return None


def of_birth(certificate: Birth) -> str:
    return msgspec.json.encode(certificate).decode()


def intent(certificate: str) -> str:
    """The key that says that this certificate is about to be kept."""
    return f"{INTENT}{sha256(certificate.encode()).hexdigest()[:32]}"


def intents(tags: Mapping[str, str]) -> frozenset[str]:
    return frozenset(key for key in tags if key.startswith(INTENT))


def labels(tags: Mapping[str, str]) -> dict[str, str]:
    """All that is neither Polly's nor Amazon's."""
    return {key: value for key, value in tags.items() if key != NAME and not key.startswith((OURS, "aws:"))}


def at_creation(*, token: str, name: str, labels: Mapping[str, str]) -> dict[str, str]:
    """The tags of a new volume or snapshot. Raises Invalid for what EC2 cannot hold."""
    for field, value in (("token", token), ("name", name)):
        _check_text(field, value, MOST_VALUE)
    if not token:
        raise Invalid(field="token", value=token, reason="it must not be empty")
    if len(labels) > MOST_LABELS:
        raise Invalid(field="labels", value=len(labels), reason=f"a volume has at most {MOST_LABELS} labels on EBS")
    for key, value in labels.items():
        _check_label(key, value)
    return {TOKEN: token, **({NAME: name} if name else {}), **labels}


def _check_label(key: str, value: str) -> None:
    _check_text(f"labels.{key}", value, MOST_VALUE)
    if not key or len(key) > MOST_KEY or not key.isprintable():
        raise Invalid(field="labels", value=key, reason=f"a label's name has 1 to {MOST_KEY} printable characters on EBS")
    if key == NAME or key.lower().startswith((OURS, "aws:")):
        raise Invalid(field="labels", value=key, reason=f"a label becomes a tag, and {NAME}, {OURS}* and aws:* are not free")


def _check_text(field: str, value: str, most: int) -> None:
    if len(value) > most or not value.isprintable():
        raise Invalid(field=field, value=value, reason=f"it becomes a tag: at most {most} printable characters")


def _numbers(tags: Iterable[str], prefix: str) -> Sequence[int]:
    texts = [key.removeprefix(prefix) for key in tags if key.startswith(prefix)]
    return [int(text) for text in texts if text.isascii() and text.isdigit()]
