"""Volumes and snapshots as Cinder keeps them: looked at one by one or many at once, listed in parts, waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from storage.errors import PlatformError, PlatformUnavailable, UnknownVolume
from storage.platforms.cinder import records, states
from storage.platforms.cinder.client import Client
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.records import Json
from storage.platforms.pacing import Poller

PAGE: Final = 1000
"""What Cinder gives at most in one answer, unless its operator allows more or fewer."""
ONE_BY_ONE: Final = 3
"""Up to so many are looked at one by one; of more, the list is read."""


class Things:
    """All volumes, or all snapshots, of the project: `noun` is what they are."""

    def __init__(self, client: Client, noun: str, *, platform: str, wait_s: float, every_s: float) -> None:
        self._client, self._noun, self._platform, self._wait_s = client, noun, platform, wait_s
        self._poller: Poller[str, Json] = Poller(self._look, every_s=every_s, most=PAGE)

    def get(self, key: str) -> Json | None:
        if not records.is_id(key):
            return None
        found = self._client.get_or_none(f"/{self._noun}s/{key}", action=f"look at {self._noun} {key}")
        return found[self._noun] if found else None

    def known(self, key: str) -> Json:
        """Raises UnknownVolume."""
        if (found := self.get(key)) is None:
            raise UnknownVolume(volume=key)
        return found

    def with_token(self, token: str) -> list[Json]:
        """Those that carry the token and stay, the oldest first. A database may take letters of other case for the same: we do not."""
        if not token:
            return []
        wanted = f"{{'{records.TOKEN}': {token!r}}}"
        found = self._client.get(f"/{self._noun}s/detail", action=f"look for a {self._noun}", metadata=wanted)[f"{self._noun}s"]
        ours = (one for one in found if records.token(one) == token and not records.is_passing(one))
        return sorted((one for one in ours if one["status"] != "deleting"), key=records.age)

    def of_volume(self, volume: str) -> list[Json]:
        """Snapshots only."""
        found: list[Json] = self._client.get(f"/{self._noun}s/detail", action=f"list {self._noun}s", volume_id=volume)[f"{self._noun}s"]
        return found

    def page(self, after: str | None, limit: int) -> tuple[list[Json], str | None]:
        """A part of the list, the oldest first, and what to ask the next with. The last of the part before may be gone meanwhile."""
        marker = after.rpartition("|")[2] if after else None
        try:
            found, more = self._part(marker, limit)
        except Refusal as refusal:
            if after is None or not (refusal.is_missing or refusal.status == 400):
                raise
            found, more = self._part_after(tuple(after.split("|")), limit)
        after = "|".join(records.age(found[-1])) if more else None
        return [one for one in found if not records.is_passing(one)], after

    def all(self) -> Iterator[Json]:
        after: str | None = None
        while True:
            found, after = self.page(after, PAGE)
            yield from found
            if after is None:
                return

    def until(self, key: str, ready: Callable[[Json | None], bool], *, action: str, timeout_s: float | None = None) -> Json | None:
        """What is there once `ready` holds of it. Raises PlatformUnavailable when that takes too long."""
        came, seen = self._poller.until(key, ready, timeout_s=self._wait_s if timeout_s is None else timeout_s)
        if came:
            return seen
        raise self._late(key, seen, action)

    def came(self, key: str, ready: Callable[[Json | None], bool], *, timeout_s: float) -> bool:
        """Whether `ready` came to hold in time."""
        return self._poller.until(key, ready, timeout_s=timeout_s)[0]

    def rested(self, key: str, *, action: str) -> Json | None:
        """Once nothing is being done with it, which may be now; None if it is gone. What only people end is not waited for."""
        seen = self.get(key)
        if seen is not None and seen["status"] == states.OFFERED:
            raise self._late(key, seen, action)
        return seen if _rests(seen) else self.until(key, _rests, action=action)

    def mark(self, key: str, more: Mapping[str, str]) -> None:
        """Adds to its metadata; what is there under other names stays."""
        action = f"write metadata of {self._noun} {key}"
        self._client.ask("POST", f"/{self._noun}s/{key}/metadata", action=action, body={"metadata": dict(more)})

    def unmark(self, key: str, name: str) -> None:
        try:
            self._client.ask("DELETE", f"/{self._noun}s/{key}/metadata/{name}", action=f"drop metadata of {self._noun} {key}")
        except Refusal as refusal:
            if not refusal.is_missing:
                raise

    def delete(self, key: str) -> None:
        """Returns when it is gone, or was already. Raises Refusal, PlatformError if Cinder could not, PlatformUnavailable if not yet."""
        action = f"delete {self._noun} {key}"
        try:
            self._client.ask("DELETE", f"/{self._noun}s/{key}", action=action)
        except Refusal:
            # Somebody else may delete it too.
            seen = self.get(key)
            if seen is not None and seen["status"] == states.ERROR_DELETING:
                raise self._not_deleted(seen, action) from None
            if seen is not None and seen["status"] != "deleting":
                raise
        left = self.until(key, lambda seen: seen is None or seen["status"] != "deleting", action=action)
        if left is not None:
            raise self._not_deleted(left, action)

    def _not_deleted(self, left: Json, action: str) -> PlatformError:
        key, status = str(left["id"]), str(left["status"])
        if status == "available":
            reason = f"its backend was busy with it, and it is as before: {self.why(key)}"
            return PlatformUnavailable(platform=self._platform, action=action, reason=reason)
        reason = f"it is {status}: {self.why(key)}; {states.advice(self._noun, key, status)}"
        return PlatformError(platform=self._platform, action=action, reason=reason)

    def why(self, key: str) -> str:
        """What Cinder tells its users of the last thing that went wrong with it."""
        try:
            told = self._client.get("/messages", action=f"read why {self._noun} {key} failed", resource_uuid=key)["messages"]
        except Refusal as refusal:
            return f"Cinder does not say why ({refusal})"
        if not told:
            return "Cinder does not say why; its log does"
        last = max(told, key=lambda one: (str(one.get("created_at")), str(one.get("id"))))
        return f"{last['event_id']}: {last['user_message']} ({last.get('created_at')})"

    def _late(self, key: str, seen: Json | None, action: str) -> PlatformUnavailable:
        """For whoever waits for more than there is."""
        state = "it is gone"
        if seen is not None:
            since = seen.get("updated_at") or seen.get("created_at")
            state = f"it is {seen['status']} since {since}; {states.advice(self._noun, key, seen['status'])}"
        return PlatformUnavailable(platform=self._platform, action=action, reason=f"{self._noun} {key}: {state}")

    def _part(self, marker: str | None, limit: int) -> tuple[list[Json], bool]:
        """Up to `limit` of them, or fewer where the cloud's operator allows fewer in one answer; and whether there may be more."""
        query = {"sort": "created_at:asc,id:asc", "limit": min(limit, PAGE), **({"marker": marker} if marker else {})}
        path, action = f"/{self._noun}s/detail", f"list {self._noun}s"
        answer = self._client.ask("GET", path, action=action, query=query)
        return answer[f"{self._noun}s"], any(link["rel"] == "next" for link in answer.get(f"{self._noun}s_links") or ())

    def _part_after(self, age: tuple[str, ...], limit: int) -> tuple[list[Json], bool]:
        """Without a marker: from the beginning, up to what comes after `age`."""
        found: list[Json] = []
        marker, more = None, True
        while more and len(found) < limit:
            part, more = self._part(marker, PAGE)
            found += [one for one in part if records.age(one) > age]
            marker = part[-1]["id"] if part else None
        return found[:limit], more or len(found) > limit

    def _look(self, keys: Sequence[str]) -> Mapping[str, Json]:
        if len(keys) <= ONE_BY_ONE:
            return {key: found for key in keys if (found := self.get(key)) is not None}
        wanted, found = set(keys), dict[str, Json]()
        for one in self.all():
            if one["id"] in wanted:
                found[one["id"]] = one
            if len(found) == len(wanted):
                break
        return found


def _rests(seen: Json | None) -> bool:
    return seen is None or seen["status"] not in states.MOVING
