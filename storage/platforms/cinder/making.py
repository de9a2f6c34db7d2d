"""How a volume comes into being once, though Cinder takes no token of ours: what carries the token is looked for first.

Creators that come at once may make several. Each waits until its own is there, then all see all of them and keep the same: one
that is in use before one that is not, and of those the oldest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from storage.errors import Invalid, PlatformError, PlatformUnavailable, PollyError, PoolFull, UnknownPool, UnknownSnapshot, UnknownVolume
from storage.platforms.base import CreateRequest
from storage.platforms.cinder import failures, records
from storage.platforms.cinder.attaching import MULTI_ATTACH
from storage.platforms.cinder.client import Client
from storage.platforms.cinder.cloning import Cloning
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.pooling import Place, Pooling
from storage.platforms.cinder.records import Json
from storage.platforms.cinder.things import Things

NO_BACKEND, NO_QUOTA = "_003", "_006"
"""How the events end by which Cinder says that no backend had room, or that a quota was full."""
ACTION: Final = "create a volume"
FAILED: Final = frozenset({"error", "error_deleting", "error_restoring", "error_managing"})


class Making:
    def __init__(self, client: Client, volumes: Things, snapshots: Things, pooling: Pooling, cloning: Cloning, *, platform: str) -> None:
        self._client, self._volumes, self._snapshots = client, volumes, snapshots
        self._pooling, self._cloning, self._platform = pooling, cloning, platform

    def found(self, token: str) -> Json | None:
        """The one volume of the token, for whoever asks and whenever."""
        return _first(self._volumes.with_token(token))

    def create(self, request: CreateRequest, *, size_mib: int) -> Json:
        made = self._earlier(request) or self._make(request, size_mib)
        self._ready(made, request, size_mib)
        all_of_it = self._volumes.with_token(request.token)
        kept = _first(all_of_it)
        for other in all_of_it:
            if other is not kept:
                self._discard(str(other["id"]))
        ready = self._ready(kept, request, size_mib) if kept else None
        if ready is None:
            reason = f"the volume of token {request.token} was deleted meanwhile"
            raise PlatformUnavailable(platform=self._platform, action=ACTION, reason=reason)
        return ready

    def _discard(self, key: str) -> None:
        """A second volume of one token, by whichever of its creators. Cinder deletes none that is still being made."""
        seen = self._volumes.rested(key, action="delete a second volume")
        if seen is not None and not _is_used(seen):
            self._volumes.delete(key)

    def _earlier(self, request: CreateRequest) -> Json | None:
        """What an earlier try has made, unless Cinder has given up on it since; that is cleared away."""
        made = self.found(request.token)
        if made is None or made["status"] not in FAILED or _is_used(made):
            return made
        self._volumes.delete(made["id"])
        return self._earlier(request)

    def _make(self, request: CreateRequest, size_mib: int) -> Json:
        if request.source is None:
            return self._asked_for(request, size_mib, {}, {})
        source = self._cloning.source(request, size_mib)
        return self._asked_for(request, size_mib, {"source_volid": source["id"]}, self._cloning.begun(source))

    def _asked_for(self, request: CreateRequest, size_mib: int, origin: Mapping[str, object], more: Mapping[str, str]) -> Json:
        place = self._pooling.place(request.pool, request.parameters)
        wanted: dict[str, object] = {
            "size": records.size_gib(size_mib),
            "name": request.name,
            "description": "made by Polly",
            "volume_type": place.volume_type,
            "metadata": {**records.new_metadata(request), **more},
            **origin,
        }
        if place.zone is not None:
            wanted["availability_zone"] = place.zone
        if request.snapshot is not None:
            wanted["snapshot_id"] = self._origin(request, size_mib)
        try:
            made: Json = self._client.ask("POST", "/volumes", action=ACTION, body={"volume": wanted})["volume"]
        except Refusal as refusal:
            raise self._refused(refusal, request, place, size_mib) from refusal
        return made

    def _origin(self, request: CreateRequest, size_mib: int) -> str:
        snapshot = self._snapshots.get(request.snapshot or "")
        if snapshot is None:
            raise UnknownSnapshot(snapshot=request.snapshot)
        if size_mib < records.size_mib(snapshot):
            reason = f"snapshot {request.snapshot} has {records.size_mib(snapshot)} MiB, and a volume from it has as much or more"
            raise Invalid(field="size_mib", value=request.size_mib, reason=reason)
        return str(snapshot["id"])

    def _ready(self, made: Json, request: CreateRequest, size_mib: int) -> Json | None:
        """The volume once it can be used, None if it goes. One that Cinder could not make is taken away again: it never held anything."""
        key = str(made["id"])
        seen = made if _is_made(made) else self._volumes.until(key, _is_made, action=ACTION)
        if seen is None or seen["status"] == "deleting":
            return None
        if seen["status"] in FAILED and not _is_used(seen):
            why, torn = self._volumes.why(key), self._cloning.torn(seen)
            self._volumes.delete(key)
            raise torn or self._failed(why, request, size_mib)
        if not _is_used(seen) and (reason := self._unwanted(seen, request)):
            self._volumes.delete(key)
            raise PlatformError(platform=self._platform, action=f"create a volume in {request.pool}", reason=reason)
        self._make_sure_it_is_whole(seen)
        return seen

    def _make_sure_it_is_whole(self, made: Json) -> None:
        """A clone that may be torn is thrown away, also by whoever comes after one that has died before it could look."""
        if records.CLONE_OF not in records.metadata(made):
            return
        if not _is_used(made) and (torn := self._cloning.torn(made)):
            self._volumes.delete(str(made["id"]))
            raise torn
        self._volumes.unmark(str(made["id"]), records.CLONE_OF)

    def _unwanted(self, volume: Json, request: CreateRequest) -> str:
        """Why a volume that Cinder has made is not what was asked for: what its type says is not known before."""
        if volume.get("multiattach"):
            return f"volume type {volume.get('volume_type')} is multi-attach: {MULTI_ATTACH}"
        pool = self._pooling.pool_of(volume)
        if self._pooling.may_stray and pool != request.pool:
            return f"Cinder's scheduler put it into {pool}; its volume type leads there too"
        return ""

    def _failed(self, why: str, request: CreateRequest, size_mib: int) -> PollyError:
        event = why.partition(":")[0]
        # A clone has its source's backend; that there is no other is what Cinder says whatever that one has refused.
        if event.endswith(NO_QUOTA) or (event.endswith(NO_BACKEND) and request.source is None):
            return PoolFull(platform=self._platform, pool=request.pool, free_mib=0, size_mib=size_mib, reason=why)
        return PlatformError(platform=self._platform, action=ACTION, reason=why)

    def _refused(self, refusal: Refusal, request: CreateRequest, place: Place, size_mib: int) -> Exception:
        """What Cinder says of a type or a zone that is not there, and of a quota that is full."""
        said = refusal.message.lower()
        if refusal.is_quota:
            return failures.pool_full(refusal, platform=self._platform, pool=request.pool, size_mib=size_mib)
        if refusal.status == 400 and "specified volume size" in said:
            return Invalid(field="size_mib", value=request.size_mib, reason=str(refusal))
        if refusal.status in (400, 404) and ("volume type" in said or "availability zone" in said):
            return UnknownPool(pool=request.pool, platform=self._platform, reason=str(refusal))
        if refusal.status in (400, 404) and "snapshot" in said:
            return UnknownSnapshot(snapshot=request.snapshot, reason=str(refusal))
        if refusal.is_missing and request.source is not None:
            return UnknownVolume(volume=request.source, reason=str(refusal))
        return refusal


def _is_made(seen: Json | None) -> bool:
    return seen is None or seen["status"] not in ("creating", "downloading")


def _first(volumes: list[Json]) -> Json | None:
    return min(volumes, key=lambda one: (not _is_used(one), *records.age(one)), default=None)


def _is_used(volume: Json) -> bool:
    """Whether somebody has had it: then it is not ours to take away."""
    kept: Mapping[str, str] = records.metadata(volume)
    return bool(records.held_by(volume)) or records.mark(volume).epoch > 0 or records.BIRTH in kept
