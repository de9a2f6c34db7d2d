"""A running broker as seen over HTTP: the source of what is shown, and the way to what only a broker can do."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from framework.failures import from_answer
from framework.fetching import Fetcher, read_url
from framework.records import plain, revive, revive_page
from framework.service import BrokerInfo, DriftOrder, DriftReport, Explanation, ImportOrder, OfferView, VolumeOrder
from framework.views import PAGE, AppView, EventFilter, HeldVolume, PlatformView, PoolView
from storage.filters import ClaimFilter, VolumeFilter
from storage.model import Claim, Event, EventPage, Hearing, Node, Page, Profile, Snapshot, Volume
from storage.platforms.base import Finding, VolumeReport

T = TypeVar("T")
USER_HEADER = "X-Polly-User"


class BrokerClient:
    """Fulfils framework.views.Source, and asks the broker for everything else.

    All methods raise BrokerUnavailable, BrokerBusy, and what the broker says.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        """Raises Invalid for what is no URL."""
        read_url(url)
        headers = {USER_HEADER: _user()} | ({"Authorization": f"Bearer {token}"} if token else {})
        self.url = url.rstrip("/")
        self._fetcher = Fetcher(url=self.url, headers=headers)

    def close(self) -> None:
        """Nothing is kept open."""

    # --- apps ---------------------------------------------------------------------------------------

    def run_app(self, definition: object) -> dict[str, Any]:
        return revive(dict[str, Any], self._send("POST", "/v2/apps", json=definition), "app")

    def scale(self, app_id: str, instances: int) -> None:
        self._send("PUT", f"/v2/apps/{_path(app_id)}", json={"instances": instances})

    def delete_app(self, app_id: str) -> None:
        self._send("DELETE", f"/v2/apps/{_path(app_id)}")

    def apps(self) -> list[AppView]:
        return self._items(AppView, "/v1/apps")

    def app(self, app_id: str) -> AppView:
        return self._one(AppView, f"/v1/apps/{_path(app_id)}")

    def explain(self, app_id: str) -> Explanation:
        return self._one(Explanation, f"/v1/apps/{_path(app_id)}/explanation")

    def explain_all(self) -> list[Explanation]:
        return self._items(Explanation, "/v1/explanations")

    def offers(self) -> list[OfferView]:
        return self._items(OfferView, "/v1/offers")

    # --- what the ledger has --------------------------------------------------------------------------

    def pools(self, platform: str | None = None) -> list[PoolView]:
        return self._items(PoolView, "/v1/pools", {"platform": platform})

    def hearings(self) -> list[Hearing]:
        return [platform.hearing for platform in self._items(PlatformView, "/v1/platforms")]

    def profiles(self) -> list[Profile]:
        return self._items(Profile, "/v1/profiles")

    def nodes(self) -> list[Node]:
        return self._items(Node, "/v1/nodes")

    def volume(self, volume: str) -> Volume:
        return self._one(Volume, f"/v1/volumes/{_part(volume)}")

    def volumes(self, only: VolumeFilter, *, after: str | None = None, limit: int = PAGE) -> Page[Volume]:
        return self._page(Volume, "/v1/volumes", _volumes_asked(only), after, limit)

    def held_volumes(self, only: VolumeFilter, *, after: str | None = None, limit: int = PAGE) -> Page[HeldVolume]:
        return self._page(HeldVolume, "/v1/volumes", {**_volumes_asked(only), "claims": True}, after, limit)

    def foreign(self, platform: str, *, after: str | None = None, limit: int = PAGE) -> Page[VolumeReport]:
        return self._page(VolumeReport, "/v1/foreign", {"platform": platform}, after, limit)

    def claim(self, claim: str) -> Claim:
        return self._one(Claim, f"/v1/claims/{_part(claim)}")

    def claims(self, only: ClaimFilter, *, after: str | None = None, limit: int = PAGE) -> Page[Claim]:
        return self._page(Claim, "/v1/claims", _asked(only), after, limit)

    def snapshots(
        self, volume: str | None = None, *, external_id: str | None = None, after: str | None = None, limit: int = PAGE
    ) -> Page[Snapshot]:
        return self._page(Snapshot, "/v1/snapshots", {"volume": volume, "external_id": external_id}, after, limit)

    def events(self, only: EventFilter, *, after: str | None = None, limit: int = PAGE, newest_first: bool = False) -> EventPage:
        path = "/v1/events"
        answer = self._part_of(path, {**_asked(only), "newest_first": newest_first}, after, limit)
        found = revive_page(Event, answer, path)
        return EventPage(items=found.items, after=found.after, kept_since=revive(float, answer.get("kept_since", 0.0), path))

    # --- what only a broker does ------------------------------------------------------------------------

    def info(self) -> BrokerInfo:
        return self._one(BrokerInfo, "/v1/broker")

    def doctor(self) -> list[Finding]:
        return self._items(Finding, "/v1/doctor")

    def look_for_drift(self, order: DriftOrder) -> DriftReport:
        return revive(DriftReport, self._send("POST", "/v1/drift", json=plain(order)), "drift")

    def drift(self) -> DriftReport:
        return self._one(DriftReport, "/v1/drift")

    def create_volume(self, order: VolumeOrder) -> Volume:
        return revive(Volume, self._send("POST", "/v1/volumes", json=plain(order)), "volume")

    def import_volume(self, order: ImportOrder) -> Volume:
        return revive(Volume, self._send("POST", "/v1/imports", json=plain(order)), "volume")

    def delete_volume(self, volume: str) -> None:
        self._send("DELETE", f"/v1/volumes/{_part(volume)}")

    def expand_volume(self, volume: str, size_mib: int) -> Volume:
        return revive(Volume, self._send("POST", f"/v1/volumes/{_part(volume)}/size", json={"size_mib": size_mib}), "volume")

    def snapshot_volume(self, volume: str, name: str) -> Snapshot:
        return revive(Snapshot, self._send("POST", f"/v1/volumes/{_part(volume)}/snapshots", json={"name": name}), "snapshot")

    def delete_snapshot(self, snapshot: str) -> None:
        self._send("DELETE", f"/v1/snapshots/{_part(snapshot)}")

    def release_claim(self, claim: str, reason: str) -> None:
        self._send("POST", f"/v1/claims/{_part(claim)}/release", json={"because": reason})

    # --- HTTP -----------------------------------------------------------------------------------------------

    def _one(self, kind: type[T], path: str) -> T:
        return revive(kind, self._send("GET", path), path)

    def _items(self, kind: type[T], path: str, params: Mapping[str, Any] | None = None) -> list[T]:
        return list(self._page(kind, path, params or {}, None, None).items)

    def _page(self, kind: type[T], path: str, params: Mapping[str, Any], after: str | None, limit: int | None) -> Page[T]:
        return revive_page(kind, self._part_of(path, params, after, limit), path)

    def _part_of(self, path: str, params: Mapping[str, Any], after: str | None, limit: int | None) -> Any:
        """A page as it was sent."""
        asked = {name: value for name, value in {**params, "after": after, "limit": limit}.items() if value is not None}
        return self._send("GET", path, params=asked)

    def _send(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: object = None) -> Any:
        status, answer = self._fetcher.fetch(method, path, params=params, body=json)
        if 200 <= status < 300:
            return answer
        raise from_answer(status, answer)


def _asked(only: object, *, but: str = "") -> dict[str, Any]:
    """A filter as query parameters, without those that ask for anything."""
    fields: dict[str, Any] = plain(only)
    return {name: value for name, value in fields.items() if value is not None and name != but}


def _volumes_asked(only: VolumeFilter) -> dict[str, Any]:
    return {**_asked(only, but="labels"), "label": [f"{name}={value}" for name, value in only.labels.items()]}


def _part(text: str) -> str:
    """One part of a path, whatever is in it."""
    return quote(text, safe="")


def _path(app_id: str) -> str:
    return quote(app_id.strip("/"), safe="/")


def _user() -> str:
    """Who asks, for the event log."""
    try:
        return quote(getpass.getuser())
    except (OSError, KeyError):
        return "unknown"
