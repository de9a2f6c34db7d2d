"""Unisphere's REST API: one array's resources by their paths, jobs that are waited for, lists that come in pages, and what refusals mean.

Unisphere answers most refusals with status 500 and a sentence, and accepts what it then fails at in a job. Both become Refused
here, with the array's own sentence; locks that others hold are waited for.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from storage.errors import PlatformError, PlatformUnavailable
from storage.platforms.restapi import Answer, RestApi

logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each call says nothing that an operator would want to have seen

ROOT: Final = "/univmax/restapi"
NEWER, OLDER = "100", "92"
"""The API versions that are spoken: that of Unisphere 10, and of 9.2."""
ASYNC: Final = {"executionOption": "ASYNCHRONOUS"}
LOCK_TRIES, LOCK_WAIT_S = 12, 5.0
LISTING_TRIES: Final = 3
JOB_S, FIRST_LOOK_S, LONGEST_LOOK_S = 900.0, 0.5, 5.0
UNFINISHED: Final = ("created", "unscheduled", "scheduled", "running", "validating", "validated")
LOCKED: Final = ("device lock", "is locked", "lock on", "currently locked", "in use by another process", "please try again later")
MISSING: Final = ("cannot find", "could not find", "not found", "does not exist")
NO_SNAPSHOT: Final = "no snapshot was found"
"""What is said of a snapshot that is gone, with status 500."""
EXISTS: Final = ("already exists",)
MEMBER: Final = ("already a member", "already in the storage group")
NO_MEMBER: Final = ("is not a member", "not in the storage group", "not in storage group")
GROUP_FULL: Final = ("maximum allowed devices for a storage group",)
FULL: Final = ("insufficient capacity", "insufficient free", "not enough free", "exceeds the reserved capacity", "maximum number of")
Object = Mapping[str, Any]


class Refused(PlatformError):
    """Platform {platform} failed to {action}: {reason}."""

    def says(self, sentences: tuple[str, ...]) -> bool:
        """Whether the array's words are of this kind."""
        said = str(self.fields["reason"]).lower()
        return any(words in said for words in sentences)


class NotThere(Refused):
    """Platform {platform} failed to {action}: {reason}."""


class Unisphere:
    """One array behind one Unisphere. Safe to use from many threads; `wait` lets time pass."""

    def __init__(self, api: RestApi, array: str, wait: Callable[[float], None]) -> None:
        self._api, self._array, self._wait = api, array, wait
        self._version = ""

    # --- calls --------------------------------------------------------------------------------

    def version(self) -> str:
        """What Unisphere says of itself, such as `V10.4.0.5`. Raises Refused for one that is too old."""
        said = str(self._call("ask for its version", "GET", f"{ROOT}/version").get("version", ""))
        parts = said[1:].split(".")
        number = int(parts[0] + parts[1]) if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() else 0
        if number < int(OLDER):
            raise self._refusal("speak to it", f"Unisphere is of version {said or '?'}, and Polly needs 9.2 or later")
        self._version = NEWER if number >= int(NEWER) else OLDER
        return said

    def get(self, action: str, *path: str, category: str = "sloprovisioning", private: bool = False, **params: str) -> Answer:
        """Raises NotThere."""
        return self._call(action, "GET", self._path(category, path, private=private), params=params or None)

    def change(
        self, action: str, method: str, *path: str, body: Object | None = None, category: str = "sloprovisioning", private: bool = False
    ) -> Answer:
        """What the call, or the job that it began, ended with. Again while somebody else holds a lock. Raises NotThere, Refused."""
        for _ in range(LOCK_TRIES):
            try:
                said = self._call(action, method, self._path(category, path, private=private), json=body)
                return self._ended(action, said) if "jobId" in said else said
            except Refused as error:
                if not error.says(LOCKED):
                    raise
                reason = str(error.fields["reason"])
            self._wait(LOCK_WAIT_S)
        raise PlatformUnavailable(platform=self._api.platform, action=action, reason=f"{reason} ({LOCK_TRIES} times)")

    def begin(self, action: str, method: str, *path: str, body: Object) -> Answer:
        """As `change`, as a job."""
        return self.change(action, method, *path, body={**body, **ASYNC})

    def all(self, action: str, *path: str, private: bool = False, **params: str) -> list[Answer]:
        """A whole list, page after page; from the start where its iterator has ended on the way, or a page was cut off."""
        for _ in range(LISTING_TRIES):
            if (first := self.some(action, *path, private=private, **params)) is None:
                return []
            with contextlib.suppress(NotThere):
                found = list(self._pages(action, first))
                if len(found) == first.whole("count"):
                    return found
        raise PlatformUnavailable(platform=self._api.platform, action=action, reason="its iterators end before they are read")

    def some(self, action: str, *path: str, private: bool = False, **params: str) -> Answer | None:
        """A list of the array's. None where there is nothing on it: some versions say of that that they have not found it."""
        try:
            return self.get(action, *path, private=private, **params)
        except NotThere:
            self.make_sure_of_array(action)
            return None

    def names(self, action: str, kind: str, key: str, **params: str) -> list[str]:
        """A list of the array's that comes whole, such as that of its storage groups."""
        listed = self.some(action, kind, private=False, **params)
        return [] if listed is None else [str(one) for one in listed.get(key) or ()]

    def _pages(self, action: str, first: Answer) -> Iterator[Answer]:
        yield from first.part("resultList").objects("result")
        count, size = first.whole("count"), max(1, first.whole("maxPageSize"))
        if count <= size:
            return
        iterator = f"{ROOT}/common/Iterator/{quote(str(first['id']), safe='')}"
        for begin in range(size + 1, count + 1, size):
            page = {"from": str(begin), "to": str(min(begin + size - 1, count))}
            yield from self._call(action, "GET", f"{iterator}/page", params=page).objects("result")
        with contextlib.suppress(PlatformError):  # it ends by itself
            self._call(action, "DELETE", iterator)

    def make_sure_of_array(self, action: str) -> None:
        """Of an array that Unisphere does not know nothing can be said. Raises PlatformUnavailable."""
        try:
            self.get(action, category="system")
        except NotThere as error:
            reason = f"Unisphere does not know array {self._array} ({error.fields['reason']})"
            raise PlatformUnavailable(platform=self._api.platform, action=action, reason=reason) from error

    def _path(self, category: str, path: tuple[str, ...], *, private: bool) -> str:
        if not self._version:
            self.version()
        parts = "/".join(quote(part, safe="") for part in path)
        return f"{ROOT}{'/private' if private else ''}/{self._version}/{category}/symmetrix/{self._array}/{parts}".rstrip("/")

    # --- jobs ---------------------------------------------------------------------------------

    def _ended(self, action: str, job: Answer) -> Answer:
        waited_s, look_s = 0.0, FIRST_LOOK_S
        while str(job.get("status", "")).lower() in UNFINISHED:
            if waited_s >= JOB_S:
                reason = f"job {job['jobId']} is still {job['status']} after {waited_s:.0f} s"
                raise PlatformUnavailable(platform=self._api.platform, action=action, reason=reason)
            self._wait(look_s)
            waited_s, look_s = waited_s + look_s, min(2 * look_s, LONGEST_LOOK_S)
            job = self._job(action, str(job["jobId"]))
        if str(job.get("status", "")).lower() != "succeeded":
            said = str(job.get("result") or "it does not say why")
            is_missing = any(words in said.lower() for words in MISSING)
            raise self._refusal(action, f"job {job['jobId']} {job.get('status', '?')}: {said}", is_missing=is_missing)
        return job

    def _job(self, action: str, key: str) -> Answer:
        """That a job is forgotten says nothing of what it was about."""
        try:
            return self._call(action, "GET", f"{ROOT}/{self._version}/system/job/{quote(key, safe='')}")
        except NotThere as error:
            reason = f"Unisphere has forgotten job {key} before it told its end ({error.fields['reason']})"
            raise PlatformUnavailable(platform=self._api.platform, action=action, reason=reason) from error

    # --- one call -----------------------------------------------------------------------------

    def _call(self, action: str, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None) -> Answer:
        auth = (self._api.options.username, self._api.password(action))
        answer = self._api.call(action, method, path, params=params, json=json, headers={"Accept": "application/json"}, auth=auth)
        if not answer.is_success:
            raise self._error(action, answer)
        said = self._api.read(action, answer)
        if said.get("success") is False:
            raise self._refusal(action, str(said.get("message") or "it does not say why"))
        return said

    def _error(self, action: str, answer: httpx.Response) -> PlatformError:
        words, status = _words(answer), answer.status_code
        platform, user = self._api.platform, self._api.options.username
        if status == 401:
            return PlatformUnavailable(platform=platform, action=action, reason=f"HTTP 401: Unisphere does not accept user {user}")
        if status == 403:
            return PlatformError(platform=platform, action=action, reason=f"HTTP 403: user {user} lacks the right to ({words})")
        if not words:
            return PlatformUnavailable(platform=platform, action=action, reason=f"HTTP {status}, without a word of the array's")
        return self._refusal(action, words, is_missing=status == 404 or NO_SNAPSHOT in words.lower())

    def _refusal(self, action: str, reason: str, *, is_missing: bool = False) -> Refused:
        return (NotThere if is_missing else Refused)(platform=self._api.platform, action=action, reason=reason)


def _words(answer: httpx.Response) -> str:
    """The array's own sentence; empty where it gives none."""
    try:
        return str(answer.json().get("message", ""))
    except (ValueError, AttributeError):
        return ""


class Locks:
    """One change of a storage group at a time in this process: the array refuses a second one, after a while."""

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)

    @contextlib.contextmanager
    def hold(self, array: str, group: str) -> Iterator[None]:
        with self._making:
            lock = self._locks[array, group]
        with lock:
            yield


LOCKS: Final = Locks()
