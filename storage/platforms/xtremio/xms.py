"""The XMS' REST API, version 2: objects of a type by their names, and what its refusals mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import httpx

from storage.errors import PlatformError, PlatformUnavailable
from storage.platforms.restapi import Answer, RestApi

TYPES: Final = "/api/json/v2/types"
BUSY: Final = "system_is_busy"
MISSING: Final = "obj_not_found"
"""How its word for what is not there ends; another 404 is somebody else's."""
BUSY_TRIES: Final = 6
BUSY_WAIT_S: Final = 5.0
Object = Mapping[str, Any]


class Refused(PlatformError):
    """Platform {platform} failed to {action}: {reason}."""

    @property
    def words(self) -> str:
        """What the XMS said, such as `vol_obj_name_not_unique`."""
        return str(self.fields["reason"])


class NotThere(Refused):
    """Platform {platform} failed to {action}: {reason}."""


class Xms:
    """One cluster of one XMS. `wait` lets time pass while the array is busy."""

    def __init__(self, api: RestApi, cluster: str, wait: Any) -> None:
        self._api, self._cluster, self._wait = api, cluster, wait

    @property
    def cluster(self) -> str:
        """The cluster's name. Raises Refused where the block names none and there are several."""
        if not self._cluster:
            names = [str(found["name"]) for found in self._listed("clusters", {})]
            if len(names) != 1:
                reason = f"the XMS manages the clusters {', '.join(names) or '(none)'}; name one of them as `cluster`"
                raise self._refusal("find its cluster", reason)
            self._cluster = names[0]
        return self._cluster

    def get(self, kind: str, name: str, *, action: str) -> Answer:
        """Raises NotThere, and PlatformUnavailable where the cluster itself is not there: then nothing can be said of what is in it."""
        if kind == "clusters":
            return self._get(kind, name, action)
        with self._sure_of_cluster(action):
            return self._get(kind, name, action)

    def _get(self, kind: str, name: str, action: str) -> Answer:
        return self._call(action, "GET", kind, params={"name": name, **self._here}).part("content")

    @contextlib.contextmanager
    def _sure_of_cluster(self, action: str) -> Iterator[None]:
        try:
            yield
        except NotThere as error:
            try:
                self._get("clusters", self.cluster, action)
            except NotThere:
                reason = f"the XMS has no cluster {self.cluster} ({error.words})"
                raise PlatformUnavailable(platform=self._api.platform, action=action, reason=reason) from error
            raise

    def all(self, kind: str, *filters: str, props: Sequence[str] = ()) -> list[Answer]:
        """All objects of a type that pass every filter, such as `vol-name:eq:polly-1`."""
        wanted: dict[str, Any] = {"full": 1, **self._here}
        if filters:
            wanted["filter"] = list(filters)
        if props:
            wanted["prop"] = list(props)
        with self._sure_of_cluster(f"list its {kind}"):
            return self._listed(kind, wanted)

    def _listed(self, kind: str, params: Mapping[str, Any]) -> list[Answer]:
        return self._call(f"list its {kind}", "GET", kind, params=params).objects(kind)

    def create(self, kind: str, values: Object, *, action: str) -> None:
        """Raises Refused."""
        self._call(action, "POST", kind, json={**values, "cluster-id": self.cluster})

    def change(self, kind: str, name: str, values: Object, *, action: str) -> None:
        """Raises NotThere, as `get` does, and Refused."""
        with self._sure_of_cluster(action):
            self._call(action, "PUT", kind, params={"name": name}, json={**values, "cluster-id": self.cluster})

    def delete(self, kind: str, name: str, *, action: str) -> None:
        """Raises NotThere, as `get` does, and Refused."""
        with self._sure_of_cluster(action):
            self._call(action, "DELETE", kind, params={"name": name, **self._here})

    @property
    def _here(self) -> Mapping[str, str]:
        return {"cluster-name": self.cluster}

    def _call(self, action: str, method: str, kind: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> Answer:
        auth = (self._api.options.username, self._api.password(action))
        for _ in range(BUSY_TRIES):
            answer = self._api.call(action, method, f"{TYPES}/{kind}", params=params, json=json, auth=auth)
            said = self._api.read(action, answer) if answer.is_success else None
            if said is not None and "error_code" not in said:
                return said
            if _words(answer) != BUSY:
                raise self._error(action, answer)
            self._wait(BUSY_WAIT_S)
        raise PlatformUnavailable(platform=self._api.platform, action=action, reason=f"{BUSY}, {BUSY_TRIES} times")

    def _error(self, action: str, answer: httpx.Response) -> PlatformError:
        if answer.status_code in (401, 403):
            reason = f"HTTP {answer.status_code}: the XMS does not accept user {self._api.options.username}, or not for this"
            return PlatformUnavailable(platform=self._api.platform, action=action, reason=reason)
        words = _words(answer)
        if not words:
            reason = f"HTTP {answer.status_code}, without a word of the XMS'"
            return PlatformUnavailable(platform=self._api.platform, action=action, reason=reason)
        if answer.status_code >= 500 or (answer.status_code == 404 and not words.endswith(MISSING)):
            return PlatformUnavailable(platform=self._api.platform, action=action, reason=f"HTTP {answer.status_code} {words}")
        return self._refusal(action, words)

    def _refusal(self, action: str, reason: str) -> Refused:
        kind = NotThere if reason.endswith(MISSING) else Refused
        return kind(platform=self._api.platform, action=action, reason=reason)


def named(found: Answer, key: str) -> str:
    """The name in a reference to another object: `[ID, NAME, INDEX]`."""
    reference = found[key]
    if not isinstance(reference, list) or len(reference) < 2:
        raise found.wrong(f"has {reference!r:.80} as {key!r}, which is no reference")
    return str(reference[1])


def _words(answer: httpx.Response) -> str:
    """The XMS' own word for what is wrong; empty where it gives none."""
    try:
        return str(answer.json().get("message", ""))
    except (ValueError, AttributeError):
        return ""
