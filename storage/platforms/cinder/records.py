"""Cinder's JSON as Polly's reports, and what Polly keeps in a volume's metadata: token, epochs, birth, and who an attachment is for.

All other metadata are the volume's labels, as an operator sees and sets them.

Cinder has no compare-and-set on metadata, but it changes no key that a call does not name. So a number that must only grow is a key:
`polly-floor-7` says that a writer or a fence of epoch 7 came. Two who write at once never overwrite each other, and the highest stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from storage.errors import Invalid
from storage.model import Birth, ExternalId
from storage.platforms.base import CreateRequest, SnapshotReport
from storage.platforms.marks import Mark

GIB_MIB: Final = 1024
OURS: Final = "polly-"
TOKEN: Final = "polly-token"  # noqa: S105 - the name of a metadata key
EPOCH: Final = "polly-epoch-"
FLOOR: Final = "polly-floor-"
CAME: Final = "came"
"""The value of a mark, of which only the key counts."""
BIRTH: Final = "polly-birth"
INTENT: Final = f"{BIRTH}-intent-"
FOR: Final = "polly-for-"
"""With an attachment's id: the node that it is for."""
CLONE_OF: Final = "polly-clone-of"
"""Of a clone that may still be torn: its source's id, and the epoch that the source had when the clone was asked for."""
CINDERS_OWN: Final = frozenset({"readonly", "attached_mode"})
"""What Cinder shows among the metadata though nobody set it there."""
LONGEST: Final = 255
UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Json = Mapping[str, Any]


def is_id(text: str) -> bool:
    """Whether Cinder could have given this id; nothing else is ever put into a URL."""
    return UUID.fullmatch(text) is not None


def metadata(thing: Json) -> Mapping[str, str]:
    found: Mapping[str, str] | None = thing.get("metadata")
    return found or {}


def token(thing: Json) -> str:
    return metadata(thing).get(TOKEN, "")


def mark(volume: Json) -> Mark:
    epochs, floors = (_numbers(metadata(volume), kind).values() for kind in (EPOCH, FLOOR))
    return Mark(epoch=max([*epochs, *floors], default=0), floor=max(floors, default=0))


def marked(mark: Mark) -> dict[str, str]:
    """A floor says by itself that its epoch came."""
    above = {f"{EPOCH}{mark.epoch}": CAME} if mark.epoch > mark.floor else {}
    return above | ({f"{FLOOR}{mark.floor}": CAME} if mark.floor else {})


def outdated(kept: Mapping[str, str], *, attachment: str = "") -> list[str]:
    """The keys of marks that others, which are there beside them, have overtaken, and of attachments that are gone: all but one, if any."""
    epochs, floors = (_numbers(kept, kind) for kind in (EPOCH, FLOOR))
    highest, floor = max([*epochs.values(), *floors.values()], default=0), max(floors.values(), default=0)
    below = [key for key, number in epochs.items() if number < highest or number <= floor]
    gone = [key for key in kept if key.startswith(FOR) and key != FOR + attachment]
    return below + [key for key, number in floors.items() if number < floor] + gone


def _numbers(kept: Mapping[str, str], kind: str) -> dict[str, int]:
    """By their keys."""
    ends = {key: key.removeprefix(kind) for key in kept if key.startswith(kind)}
    return {key: int(end) for key, end in ends.items() if end.isascii() and end.isdigit()}


def birth(volume: Json) -> Birth | None:
    try:
        kept = json.loads(metadata(volume).get(BIRTH, ""))
        return Birth(serial=kept["serial"], filesystem=kept["filesystem"], filesystem_uuid=kept["uuid"])
    except (ValueError, KeyError, TypeError):
        return None


def born(birth: Birth) -> dict[str, str]:
    kept = {"serial": birth.serial, "filesystem": birth.filesystem, "uuid": birth.filesystem_uuid}
    return {BIRTH: json.dumps(kept, separators=(",", ":"))}


def intent(birth: Birth) -> str:
    """The name that says that this certificate is about to be kept."""
    return f"{INTENT}{sha256(born(birth)[BIRTH].encode()).hexdigest()[:32]}"


def intents(volume: Json) -> frozenset[str]:
    return frozenset(key for key in metadata(volume) if key.startswith(INTENT))


def clone_of(source: Json) -> dict[str, str]:
    return {CLONE_OF: f"{source['id']} {mark(source).epoch}"}


def labels(thing: Json) -> dict[str, str]:
    return {key: value for key, value in metadata(thing).items() if not key.startswith(OURS) and key not in CINDERS_OWN}


def new_metadata(request: CreateRequest) -> dict[str, str]:
    """Raises Invalid for what Cinder could not keep."""
    for key, value in request.labels.items():
        if key.startswith(OURS) or key in CINDERS_OWN:
            raise Invalid(field=f"labels.{key}", value=value, reason=f"Cinder's volumes have {key} for something else; take another name")
        if not 0 < len(key) <= LONGEST or len(value) > LONGEST:
            raise Invalid(field=f"labels.{key}", value=value, reason=f"Cinder keeps names and values of up to {LONGEST} characters")
    return {**request.labels, TOKEN: request.token}


def is_passing(volume: Json) -> bool:
    """Whether it is where Cinder is just moving another volume to: it has that one's metadata, and only administrators see it."""
    return str(volume.get("os-vol-mig-status-attr:migstat") or "").startswith("target:")


def size_mib(thing: Json) -> int:
    return int(thing["size"]) * GIB_MIB


def size_gib(size_mib: int) -> int:
    return -(-size_mib // GIB_MIB)


def held_by(volume: Json) -> tuple[str, ...]:
    """Who has the volume: a server's id, the node that an attachment was made for, or what else Cinder tells of it.

    While a volume is on its way to somebody or back, Cinder shows no attachment; its status is what is known then.
    """
    kept = metadata(volume)
    attached: Sequence[Json] = volume.get("attachments") or ()
    if not attached:
        named = tuple(value for key, value in kept.items() if key.startswith(FOR)) or (str(volume["status"]),)
        return named if volume["status"] in ON_THE_WAY else ()
    return tuple(dict.fromkeys(_holder(one, kept) for one in attached))


ON_THE_WAY: Final = frozenset({"reserved", "attaching", "detaching", "in-use"})


def _holder(attachment: Json, kept: Mapping[str, str]) -> str:
    named = kept.get(FOR + str(attachment["attachment_id"]))
    return str(attachment.get("server_id") or named or attachment.get("host_name") or f"attachment {attachment['attachment_id']}")


def snapshot_report(snapshot: Json) -> SnapshotReport:
    return SnapshotReport(
        external_id=ExternalId(snapshot["id"]),
        volume=ExternalId(snapshot["volume_id"]),
        size_mib=size_mib(snapshot),
        token=token(snapshot),
        created_at=_instant(snapshot.get("created_at") or ""),
    )


def age(thing: Json) -> tuple[str, str]:
    """What things of one kind are listed by, the oldest first."""
    return str(thing.get("created_at") or ""), str(thing["id"])


def _instant(text: str) -> float:
    """Cinder's times are UTC without saying so."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
