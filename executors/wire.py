"""What travels between the broker and an executor: the launch in TaskInfo.data, the progress in TaskStatus.data, and
the broker's receipts and deliveries in framework messages.

All are JSON, versioned, and hold no secret. Mesos carries them; neither side needs a way to the other.

Why a receipt: an executor's update is acknowledged to it by its own agent, as soon as the agent has stored it, whatever
the broker did (tried on Mesos 1.11.0). So Mesos' acknowledgement says nothing about the ledger, and the broker says
itself, with a MESSAGE to the executor, that the birth certificate is committed. Such messages may be lost: the executor
repeats its update until the receipt comes, and the broker answers each update that carries a birth certificate.

Where the broker attaches (`attach_by = "broker"`), a volume's wish to be attached goes the same way, and is answered by a delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from storage.errors import Invalid, PollyError
from storage.lifecycle import ClaimState
from storage.model import Birth, ClaimId, ExternalId, VolumePlan
from storage.platforms.base import Attachment

VERSION: Final = 1


def _this_version() -> int:
    """Made, so that it is written: what equals a plain default is left out, and an absent version would mean the reader's own."""
    return VERSION


RELEASED: Final = "RELEASED"
"""The last step of a claim as its executor reports it: unmounted and detached, nothing is held any more."""
FAILED: Final = "FAILED"
"""The step that failed is named in `error`; whether the volume is still held is said by `held`."""


EXECUTOR: Final = "executor"
BROKER: Final = "broker"
"""Who attaches a platform's volumes."""
ATTACH: Final = "attach"
"""What an executor wants of the broker."""


class PlatformSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an executor builds the adapter of one platform, or does without it."""

    kind: str
    settings: Mapping[str, str] = {}
    identity: str = "hostname"
    """How the node learns what the platform calls it: Capabilities.identity."""
    attach_by: str = EXECUTOR
    """EXECUTOR, or BROKER: then the executor builds no adapter, and has no settings to build it from."""
    device: str = "block"
    """What an attachment brings: Capabilities.device. For BROKER only."""


class HostVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A folder of the node, bound into the task's sandbox."""

    host_path: str
    container_path: str
    read_only: bool = False


class Launch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task: what to run, as whom, and with which volumes."""

    version: int = msgspec.field(default_factory=_this_version)
    node: str = ""
    """What the broker and the platforms call this node: the agent's hostname. Empty: the node's own hostname."""
    cmd: str | None = None
    """A line for /bin/sh; None where `args` says what to run."""
    args: tuple[str, ...] = ()
    """The program and its arguments, run without a shell."""
    user: str | None = None
    """Whom the task runs as; None: whom the executor runs as."""
    env: Mapping[str, str] = {}
    kill_grace_s: float = 3.0
    """Between SIGTERM and SIGKILL."""
    lease_s: float
    """How long after its receipt the executor may begin to touch the volumes; counted on its own monotonic clock."""
    volumes: tuple[VolumePlan, ...] = ()
    host_volumes: tuple[HostVolume, ...] = ()
    platforms: Mapping[str, PlatformSettings] = {}


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    """The name of an error of storage.errors, such as `NotBlank`."""
    message: str
    advice: str = ""


class VolumeProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one claim has come on its node."""

    claim_id: ClaimId
    epoch: int
    step: str
    """A ClaimState (ATTACHING, MOUNTED, RELEASING), RELEASED or FAILED."""
    external_id: ExternalId | None = None
    size_mib: int | None = None
    device: str = ""
    birth: Birth | None = None
    formatted: bool = False
    """This very claim has made the filesystem."""
    held: bool = True
    """With FAILED: whether this node may still hold the volume."""
    wants: str = ""
    """ATTACH while the broker is to bring the volume to the node and has not said that it did."""
    took_ms: Mapping[str, float] = {}
    """Milliseconds of each step done: create, attach, probe, mkfs, fsck, mount, unmount, detach."""
    error: Failure | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The data of one status update."""

    version: int = msgspec.field(default_factory=_this_version)
    volumes: tuple[VolumeProgress, ...] = ()
    identities: Mapping[str, str] = {}
    """What each of the task's platforms calls this node: platform name to identity. Said also where it is the launch's `node`: the
    broker may know the node by a name that it had before."""
    exit_code: int | None = None
    """The task's own, with its terminal status; negative: the signal that ended it."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to the wish of one claim: the volume is attached, or why not."""

    claim_id: ClaimId
    epoch: int
    external_id: ExternalId | None = None
    size_mib: int = 0
    birth: Birth | None = None
    """The birth certificate that the platform keeps."""
    attachment: Attachment | None = None
    error: Failure | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Broker to executor: what it has done for the task's volumes."""

    version: int = msgspec.field(default_factory=_this_version)
    births: tuple[ClaimId, ...] = ()
    """These claims' birth certificates are committed in the ledger; their volumes may take data."""
    deliveries: tuple[Delivery, ...] = ()


def failure(error: PollyError) -> Failure:
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return Failure(code=error.code, message=f"{error}{notes}", advice=error.advice)


MOST_MIB: Final = 2**43
"""8 EiB: more is no size."""
STEPS: Final = frozenset({ClaimState.ATTACHING, ClaimState.MOUNTED, ClaimState.RELEASING, RELEASED, FAILED})

_launch = msgspec.json.Decoder(Launch)
_progress = msgspec.json.Decoder(Progress)
_receipt = msgspec.json.Decoder(Receipt)


def encode(message: Launch | Progress | Receipt) -> bytes:
    return msgspec.json.encode(message)


def decode_launch(data: bytes) -> Launch:
    """Raises Invalid, naming what is wrong, for anything but a launch of this version."""
    return _checked("TaskInfo.data", data, _launch)


def decode_progress(data: bytes) -> Progress:
    """Raises Invalid, naming what is wrong, for anything but a progress of this version."""
    progress = _checked("TaskStatus.data", data, _progress)
    for volume in progress.volumes:
        if volume.step not in STEPS:
            raise Invalid(field="TaskStatus.data.step", value=volume.step, reason=f"it is one of {', '.join(sorted(STEPS))}")
        if volume.size_mib is not None and not 0 < volume.size_mib <= MOST_MIB:
            raise Invalid(field="TaskStatus.data.size_mib", value=volume.size_mib, reason="this is no volume's size")
    return progress


def decode_receipt(data: bytes) -> Receipt:
    """Raises Invalid, naming what is wrong, for anything but a receipt of this version."""
    receipt = _checked("MESSAGE.data", data, _receipt)
    if not (receipt.births or receipt.deliveries):
        raise Invalid(field="MESSAGE.data", value=data[:80], reason="it confirms no birth and delivers no volume")
    return receipt


T = TypeVar("T", Launch, Progress, Receipt)


def _checked(field: str, data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        message = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(field=field, value=data[:80], reason=str(error)) from error
    if message.version != VERSION:
        raise Invalid(field=f"{field}.version", value=message.version, reason=f"this executor and broker speak version {VERSION}")
    return message
