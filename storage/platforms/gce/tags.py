"""What Polly keeps with a disk: who it is for in the description, which never changes, and the marks in labels, which are guarded.

Labels hold lower case letters, digits, `_` and `-`, 63 of them, so other text is written as hexadecimal there. A change of labels
names the fingerprint of those it read, and Google refuses it if they have changed meanwhile: that makes the marks a fence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from storage.errors import Conflict, Invalid
from storage.model import Birth
from storage.platforms.marks import Mark

OURS: Final = "polly"
"""The label of every disk that Polly made."""
MADE: Final = "volume"
EPOCH: Final = "polly-epoch"
FLOOR: Final = "polly-floor"
HOLD: Final = "polly-on-"
"""Begins a label for each node that a disk was given to: with which epoch, and for reading or writing."""
BIRTH: Final = {"serial": "polly-birth-serial", "filesystem": "polly-birth-filesystem", "filesystem_uuid": "polly-birth-uuid"}

LABEL_KEY: Final = re.compile(r"(?!polly(-|$))(?!goog)[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS: Final = 32
"""How many of the volume's own labels become Google's: a disk has 64 in all, and the marks need theirs."""
MOST_TEXT: Final = 2000

Labels = Mapping[str, str]


class Story(Struct, frozen=True, kw_only=True):
    """Whom a disk or a snapshot was made for."""

    token: str = ""
    name: str = ""
    volume: str = ""
    """Of a snapshot: the volume's external id."""
    labels: Labels = {}


def write_story(story: Story) -> str:
    """Raises Invalid for more than a description holds."""
    text = json.dumps({OURS: {key: value for key in story.__struct_fields__ if (value := getattr(story, key))}}, separators=(",", ":"))
    if len(text) > MOST_TEXT:
        raise Invalid(
            field="labels", value=dict(story.labels), reason=f"with the volume's name they are longer than {MOST_TEXT} characters"
        )
    return text


def read_story(description: str) -> Story:
    """An empty one for what Polly did not make."""
    try:
        told: Any = json.loads(description)[OURS]
        return Story(**{key: told[key] for key in Story.__struct_fields__ if key in told})
    except (ValueError, KeyError, TypeError):
        return Story()


def plain(labels: Labels) -> dict[str, str]:
    """Those of a volume's labels that can be Google's as they are: for bills and filters. The description has all."""
    fit = {key: value for key, value in sorted(labels.items()) if LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(value)}
    return dict(list(fit.items())[:MOST_LABELS])


def foreign(labels: Labels) -> dict[str, str]:
    """Google's labels without Polly's own."""
    return {key: value for key, value in labels.items() if key != OURS and not key.startswith(f"{OURS}-")}


# --- marks ---------------------------------------------------------------------------------------------


def read_mark(labels: Labels, volume: str) -> Mark:
    """Raises Conflict for labels that somebody has spoilt."""
    return Mark(epoch=_number(labels, EPOCH, volume), floor=_number(labels, FLOOR, volume))


def _number(labels: Labels, key: str, volume: str) -> int:
    text = labels.get(key, "0")
    if not text.isascii() or not text.isdigit():
        raise Conflict(what=f"the label {key} of {volume}", expected="a number", found=text)
    return int(text)


def with_mark(labels: Labels, mark: Mark) -> dict[str, str]:
    return {**labels, EPOCH: str(mark.epoch), FLOOR: str(mark.floor)}


def hold_key(node: str) -> str:
    return HOLD + sha256(node.encode()).hexdigest()[:16]


def hold_value(epoch: int, *, read_only: bool) -> str:
    return f"{epoch}-{'ro' if read_only else 'rw'}"


def without_holds(labels: Labels, *, of: set[str]) -> dict[str, str]:
    """Without the holds of all nodes but these, which have the disk no more."""
    kept = {hold_key(node) for node in of}
    return {key: value for key, value in labels.items() if not key.startswith(HOLD) or key in kept}


def read_birth(labels: Labels) -> Birth | None:
    if not all(key in labels for key in BIRTH.values()):
        return None
    return Birth(**{field: decode(labels[key]) for field, key in BIRTH.items()})


def with_birth(labels: Labels, birth: Birth) -> dict[str, str]:
    return {**labels, **{key: encode(f"birth.{field}", getattr(birth, field)) for field, key in BIRTH.items()}}


def encode(field: str, text: str) -> str:
    """Text as a label's value. Raises Invalid for text that is too long for one."""
    value = "".join(chr(byte) if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789-" else f"_{byte:02x}" for byte in text.encode())
    if not LABEL_VALUE.fullmatch(value):
        raise Invalid(field=field, value=text, reason=f"a label of Compute Engine holds 63 characters, this takes {len(value)}")
    return value


def decode(value: str) -> str:
    parts = re.split(r"_([0-9a-f]{2})", value)
    return b"".join(bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts)).decode(errors="replace")
