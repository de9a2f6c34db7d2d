"""What people and programs ask of a running broker: the protocol under the HTTP API, and the records that it answers with.

The broker fulfils it in framework/broker.py. What can be read from the ledger is no part of it: see framework/source.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from framework.marathon.model import App
from storage.drift import Drift
from storage.model import ClaimId, Snapshot, SnapshotId, Volume, VolumeId
from storage.platforms.base import Finding


class BrokerOptions(Struct, frozen=True, kw_only=True):
    """The command line of `polly broker`, parsed."""

    master: str
    """`HOST:PORT` or `zk://...`."""
    database: str
    config: Path
    roles: tuple[str, ...] = ()
    """Empty: as polly.toml says."""
    principal: str = ""
    secret_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7070
    token: str | None = None
    """What every request must bear; None only where the API listens on loopback."""
    restored: bool = False
    """The ledger was restored from a backup: what it does not know is learnt from the platforms first."""


class BrokerInfo(Struct, frozen=True, kw_only=True):
    version: str
    scheduler: str
    """The ledger's name for this framework, such as `mesos/polly`."""
    framework_name: str
    framework_id: str = ""
    """Empty before it was ever registered."""
    master: str = ""
    connected: bool = False
    away: str = ""
    """Why it is not registered with a master; empty while it is."""
    roles: tuple[str, ...] = ()
    hostname: str = ""


class VolumeOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume to be made by hand."""

    name: str
    profile: str
    size_mib: int | None = None
    """Needed unless a snapshot or a source gives it."""
    snapshot: SnapshotId | None = None
    source: str | None = None
    """The volume, by id or name, that it is to be a clone of."""


class ImportOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume of a platform that Polly did not make, to be taken over."""

    platform: str
    external_id: str
    name: str
    profile: str


class DriftOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be looked at."""

    platform: str | None = None
    """None: all."""
    apply: bool = False
    """Mend what is safe."""


class PlatformDrift(Struct, frozen=True, kw_only=True):
    """How far the look at one platform has come."""

    platform: str
    state: str = "LISTING"
    """LISTING, COMPARING, DONE or FAILED."""
    listed: int = 0
    """Volumes that the platform has listed so far."""
    compared: int = 0
    """Volumes of the ledger that were compared so far."""
    error: str = ""
    """Why it FAILED: the platform's volumes were not, or not all, looked at."""
    more: int = 0
    """Differences beyond those that are shown."""
    found: tuple[Drift, ...] = ()


class DriftReport(Struct, frozen=True, kw_only=True):
    """The latest look, or the one under way."""

    running: bool = False
    started_at: float = 0.0
    """0: nobody has looked yet."""
    ended_at: float = 0.0
    apply: bool = False
    platforms: tuple[PlatformDrift, ...] = ()


class RefusalCount(Struct, frozen=True, kw_only=True):
    """How many offers were refused for one reason."""

    reason: str
    """The refusal's name, such as ZONE."""
    words: str
    """The same for people: `in the wrong zone`."""
    count: int
    example: str = ""
    """One such offer, in a sentence."""


class Hold(Struct, frozen=True, kw_only=True):
    """What keeps a volume from the instance that wants it, or from being let go of."""

    volume: str
    """Its name."""
    volume_id: VolumeId
    state: str
    """The claim's state, or DELETING, which is the volume's own."""
    since: float = 0.0
    """When it came into that state; 0 where nobody knows any more."""
    claim_id: str = ""
    node: str = ""
    hostname: str = ""
    reason: str = ""
    """What was heard last, such as the platform's last error in its own words."""


class WaitingInstance(Struct, frozen=True, kw_only=True):
    slot: int
    since: float
    offers_seen: int = 0
    """Since it began to wait."""
    offers_refused: int = 0
    """Of the latest offers; `refusals` adds up to it."""
    refusals: tuple[RefusalCount, ...] = ()
    failures: int = 0
    """Of its tasks, one after the other."""
    next_try_at: float = 0.0
    """The end of its back-off; in the past if it only waits for an offer."""
    blocked: str = ""
    """What stands in the way whatever is offered; empty if only offers are wanting."""
    phase: str = ""
    """Of its task, where that only takes long to start or to end; empty if it has none."""
    holds: tuple[Hold, ...] = ()
    """Of the volumes that stand in the way."""
    remedies: tuple[str, ...] = ()
    """What a person can do where that does not end by itself."""
    last_message: str = ""
    """How its last task ended; of one that starts or ends, what was heard of it last."""


class Explanation(Struct, frozen=True, kw_only=True):
    """Why the instances of an app that do not run wait."""

    app_id: str
    instances: int
    running: int
    staging: int
    waiting: tuple[WaitingInstance, ...] = ()
    slow: tuple[WaitingInstance, ...] = ()
    """Those whose task takes long to start or to end."""
    deleting: bool = False
    held: str = ""
    """Why this Polly cannot read its definition: nothing of it is launched, replaced or killed."""


class OfferView(Struct, frozen=True, kw_only=True):
    """One of the latest offers, with what Polly would add to it."""

    offer: Mapping[str, Any]
    """As Mesos sent it, decoded."""
    overlay: tuple[Mapping[str, Any], ...] = ()
    """Mesos resources that are Polly's own."""
    received_at: float = 0.0
    fate: str = ""
    """What became of it: accepted, declined, rescinded; empty while it is looked at."""
    tasks: tuple[str, ...] = ()
    """The tasks launched on it."""

    def with_overlay(self) -> dict[str, Any]:
        """The offer as Mesos JSON, the overlay among its resources."""
        found: dict[str, Any] = _filled({**self.offer, "resources": [*self.offer.get("resources", ()), *self.overlay]})
        return found


def _filled(value: Any) -> Any:
    """Without the fields that are absent or empty."""
    if isinstance(value, Mapping):
        filled = {name: _filled(item) for name, item in value.items()}
        return {name: item for name, item in filled.items() if item is not None and item not in ("", {}, [])}
    return [_filled(item) for item in value] if isinstance(value, list | tuple) else value


class Broker(Protocol):
    """Every method may be called from any thread and blocks until the broker's thread has answered, for a bounded time.

    All raise PollyError: what each says, LedgerUnavailable, and BrokerBusy when no answer came in time. `actor` is who
    asks, such as `operator:jane`, for the event log.
    """

    def info(self) -> BrokerInfo: ...

    def run_app(self, definition: Mapping[str, Any], actor: str) -> App:
        """Takes up a new app. Raises InvalidApp, NotYet, Invalid, AlreadyExists, UnknownProfile."""

    def scale(self, app_id: str, instances: int, actor: str) -> App:
        """Raises UnknownApp, InvalidApp, Invalid."""

    def delete_app(self, app_id: str, actor: str) -> None:
        """Kills all its tasks; its volumes are reclaimed as their profiles say. Raises UnknownApp."""

    def explain(self, app_id: str) -> Explanation:
        """Raises UnknownApp."""

    def explain_all(self) -> Sequence[Explanation]:
        """Of all apps that are held, or with instances that wait, or take long to start or to end, by their ids."""

    def delayed(self) -> Mapping[str, int]:
        """By app id, how many instances are held back after failures; only apps that have such."""

    def offers(self) -> Sequence[OfferView]:
        """The latest offer of each agent."""

    def create_volume(self, order: VolumeOrder, actor: str) -> Volume:
        """Raises UnknownProfile, UnknownSnapshot, UnknownVolume, Unsupported, Conflict, Invalid, AlreadyExists, PoolFull."""

    def import_volume(self, order: ImportOrder, actor: str) -> Volume:
        """Raises UnknownPlatform, UnknownProfile, UnknownVolume, AlreadyExists."""

    def delete_volume(self, volume: str, actor: str) -> None:
        """By id or name. Raises UnknownVolume, VolumeInUse, HasSnapshots, PlatformError."""

    def expand_volume(self, volume: str, size_mib: int, actor: str) -> Volume:
        """By id or name. Raises UnknownVolume, PoolFull, Invalid, PlatformError."""

    def snapshot_volume(self, volume: str, name: str, actor: str) -> Snapshot:
        """By id or name. Raises UnknownVolume, Unsupported, PlatformError."""

    def delete_snapshot(self, snapshot: SnapshotId, actor: str) -> None:
        """Raises UnknownSnapshot, PlatformError."""

    def release_claim(self, claim: ClaimId, reason: str, actor: str) -> None:
        """A person says that the holder of a STRANDED claim is gone, and why. Raises UnknownClaim, Conflict."""

    def look_for_drift(self, order: DriftOrder, actor: str) -> DriftReport:
        """Begins to compare the ledger with the platforms. Raises UnknownPlatform, Conflict while a look is under way."""

    def drift(self) -> DriftReport:
        """The look that is under way, or the latest."""

    def doctor(self) -> Sequence[Finding]:
        """What is right and wrong with the running broker, its Mesos, its ledger and its platforms."""
