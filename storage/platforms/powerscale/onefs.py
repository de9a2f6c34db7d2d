"""OneFS' REST API: sessions that end and are begun anew, lists by resume tokens, and what its codes mean.

Knows no volume. What the caller may know more about is Refused, or one of its kinds; `verb` makes errors of those that are left.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from storage.errors import Conflict, Invalid, PlatformError, PlatformUnavailable, PollyError, Unsupported
from storage.platforms.restapi import Answer, RestApi
from storage.platforms.verbs import verbs

PAPI: Final = "/platform/12"
SESSION: Final = "/session/1/session"
PAGE: Final = 1000
TRIES: Final = 4
"""How often a call is made that OneFS calls transient, and a list whose token has ended."""
AGAIN_S: Final = 1.0
MISSING: Final = frozenset({"AEC_NOT_FOUND"})
TAKEN: Final = frozenset({"AEC_CONFLICT"})
FULL: Final = frozenset({"AEC_NO_SPACE", "AEC_LIMIT_EXCEEDED"})
UNLICENSED: Final = frozenset({"AEC_INVALID_LICENSE"})
LATER: Final = frozenset({"AEC_UNAUTHORIZED", "AEC_SERVICE_UNAVAILABLE", "AEC_EXCEPTION", "AEC_SYSTEM_INTERNAL_ERROR", "AEC_TRANSIENT"})
WRONG: Final = frozenset(
    {"AEC_BAD_REQUEST", "AEC_ARG_REQUIRED", "AEC_ARG_SINGLE_ONLY", "AEC_NAMETOOLONG", "AEC_NAMEEMPTY", "AEC_NAMEILLEGAL"}
)
CHANGED: Final = frozenset({"AEC_PRE_CONDITION_FAILED"})
NO_ROOM: Final = ("quota exceeded", "no space left")
IN_THE_WAY: Final = ("already exists", "' exists", "is a directory and not empty", "conflict on '")
"""What OneFS says of what is there already, by whatever code."""
Object = Mapping[str, Any]


class Refused(Exception):
    """OneFS' no, before anybody has made an error of it. Never leaves the adapter."""

    def __init__(self, *, action: str, reason: str) -> None:
        super().__init__(f"{action}: {reason}")
        self.action, self.reason = action, reason


class NotThere(Refused):
    """What was named is not there."""


class Taken(Refused):
    """What was to be made is there, or stands against what is."""


class Full(Refused):
    """There is no room for it."""


class Forgotten(Refused):
    """OneFS does not know any more how a list goes on."""


def _as_error(error: Refused, platform: str, action: str) -> PollyError:
    """The error for a refusal of which nobody knew more."""
    return PlatformError(platform=platform, action=error.action, reason=error.reason)


verb: Final = verbs(Refused, _as_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What OneFS says is wrong, in its own words."""

    code: str
    message: str
    field: str

    @property
    def reason(self) -> str:
        return f"{self.code}: {self.message}" if self.code else self.message


class OneFs:
    """One cluster. Threads may share it; a session is begun with the first call."""

    def __init__(self, api: RestApi, wait: Any) -> None:
        self._api, self._wait = api, wait
        self._lock = threading.Lock()
        self._session: Mapping[str, str] | None = None

    @property
    def platform(self) -> str:
        return self._api.platform

    # --- the platform API -------------------------------------------------------------------------

    def get(self, action: str, path: str, /, **params: Any) -> Answer:
        return self._call(action, "GET", f"{PAPI}/{path}", params=params)

    def post(self, action: str, path: str, body: Object, /, **params: Any) -> Answer:
        return self._call(action, "POST", f"{PAPI}/{path}", params=params, json=body)

    def put(self, action: str, path: str, body: Object, /, **params: Any) -> None:
        self._call(action, "PUT", f"{PAPI}/{path}", params=params, json=body)

    def delete(self, action: str, path: str, /, **params: Any) -> None:
        """Gone already is fine."""
        with contextlib.suppress(NotThere):
            self._call(action, "DELETE", f"{PAPI}/{path}", params=params)

    def all(self, action: str, path: str, kind: str, /, **params: Any) -> list[Answer]:
        return self._all(action, f"{PAPI}/{path}", kind, params)

    def _all(self, action: str, path: str, kind: str, params: Mapping[str, Any]) -> list[Answer]:
        """A list to its end; begun anew where OneFS has forgotten in the middle of it how it goes on."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(Forgotten):
                return list(self._pages(action, path, kind, params))
        return list(self._pages(action, path, kind, params))

    def _pages(self, action: str, path: str, kind: str, params: Mapping[str, Any]) -> Iterator[Answer]:
        wanted: Mapping[str, Any] = {**params, "limit": PAGE}
        while True:
            said = self._call(action, "GET", path, params=wanted)
            yield from said.objects(kind)
            if not said.get("resume"):
                return
            wanted = {"resume": said["resume"]}

    def latest(self) -> int:
        """The newest version of the platform API."""
        return self._call("look at the API", "GET", "/platform/latest").whole("latest")

    # --- the namespace ----------------------------------------------------------------------------------

    def is_there(self, action: str, path: str) -> bool:
        """By its metadata: a HEAD of what is not there has no body, and so no word of OneFS'."""
        try:
            self._call(action, "GET", f"/namespace{quote(path)}", params={"metadata": "true"}).objects("attrs")
        except NotThere:
            return False
        return True

    def children(self, action: str, path: str) -> list[str]:
        """Names of what is in a folder; none where there is no folder."""
        with contextlib.suppress(NotThere):
            return [str(one["name"]) for one in self._all(action, f"/namespace{quote(path)}", "children", {})]
        return []

    def make_folder(self, action: str, path: str, *, mode: str, recursive: bool = False) -> None:
        """There already is fine."""
        headers = {"x-isi-ifs-target-type": "container", "x-isi-ifs-access-control": mode}
        params = {"recursive": str(recursive).lower(), "overwrite": "false"}  # which would give one that is there another mode
        with contextlib.suppress(Taken):
            self._call(action, "PUT", f"/namespace{quote(path)}", params=params, headers=headers)

    def move(self, action: str, source: str, target: str) -> None:
        """Raises NotThere, Taken."""
        self._call(action, "POST", f"/namespace{quote(source)}", headers={"x-isi-ifs-set-location": f"/namespace{quote(target)}"})

    def copy(self, action: str, source: str, target: str, *, answer_s: float) -> None:
        """A folder with all that is in it, to one that is not there yet. Raises NotThere, Full."""
        headers = {"x-isi-ifs-copy-source": f"/namespace{quote(source)}", "x-isi-ifs-mode-mask": "preserve"}
        said = self._call(action, "PUT", f"/namespace{quote(target)}", headers=headers, answer_s=answer_s)
        if said.get("success") is False:
            failures = [str(one.get("message", "")) for one in said.objects("copy_errors", optional=True)]
            reason = f"{len(failures)} files were not copied, the first of them: {''.join(failures[:1]) or 'it does not say why'}"
            raise (Full if _has(NO_ROOM, reason) else Refused)(action=action, reason=reason)

    # --- one call ---------------------------------------------------------------------------------------

    def _call(self, action: str, method: str, path: str, **more: Any) -> Answer:
        session = self._logged_in(action)
        for _ in range(TRIES):
            answer = self._ask(action, method, path, session, more)
            if _is_over(answer):
                session = self._logged_in(action, instead_of=session)
                answer = self._ask(action, method, path, session, more)
            if not answer.is_success:
                raise self._error(action, answer)
            said = self._api.read(action, answer)
            if not said.get("errors"):
                return said
            if _said(said).code != "AEC_TRANSIENT":
                raise self._error(action, answer)
            self._wait(AGAIN_S)
        raise PlatformUnavailable(platform=self.platform, action=action, reason=_said(said).reason)

    def _ask(self, action: str, method: str, path: str, session: Mapping[str, str], more: Mapping[str, Any]) -> httpx.Response:
        headers = {**session, **more.get("headers", {})}
        return self._api.call(action, method, path, **{**more, "headers": headers})

    def _logged_in(self, action: str, instead_of: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """The session's headers; a new one in place of `instead_of`, which only the first who notices begins."""
        with self._lock:
            if self._session is None or self._session is instead_of:
                self._session = None
                self._session = self._log_in(action)
            return self._session

    def _log_in(self, action: str) -> Mapping[str, str]:
        user = self._api.options.username
        body = {"username": user, "password": self._api.password(action), "services": ["platform", "namespace"]}
        answer = self._api.call(action, "POST", SESSION, json=body)
        cookies = answer.cookies
        if answer.status_code in (401, 403):
            reason = f"HTTP {answer.status_code}: OneFS does not accept user {user}"
            raise PlatformUnavailable(platform=self.platform, action=action, reason=reason)
        if not answer.is_success or "isisessid" not in cookies:
            raise PlatformUnavailable(platform=self.platform, action=action, reason=f"HTTP {answer.status_code} instead of a session")
        headers = {"Cookie": f"isisessid={cookies['isisessid']}", "Referer": self._api.options.endpoint}
        return {**headers, "X-CSRF-Token": cookies["isicsrf"]} if "isicsrf" in cookies else headers

    def close(self) -> None:
        """Ends the session, of which a cluster holds only so many."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(PlatformUnavailable):
                self._api.call("log out", "DELETE", SESSION, headers=session)
        self._api.close()

    def _error(self, action: str, answer: httpx.Response) -> PollyError | Refused:
        said, status, platform = _words(answer), answer.status_code, self.platform
        code, reason = said.code or _usual(status), said.reason or f"HTTP {status}"
        if not code and not said.message:
            return PlatformUnavailable(platform=platform, action=action, reason=f"HTTP {status}, without a word of OneFS'")
        if code in TAKEN or _has(IN_THE_WAY, said.message):
            return Taken(action=action, reason=reason)
        if code in WRONG:
            if said.field == "resume":
                return Forgotten(action=action, reason=reason)
            return Invalid(field=said.field or "request", value="", reason=reason)
        if code in LATER or status >= 500:
            return PlatformUnavailable(platform=platform, action=action, reason=reason)
        if code in CHANGED:
            return Conflict(what=f"what Polly asked {platform} to {action}", expected="unchanged", found=reason)
        if code in UNLICENSED:
            return Unsupported(platform=platform, action=action, reason=reason)
        if code in FULL or _has(NO_ROOM, said.message):
            return Full(action=action, reason=reason)
        if code == "AEC_FORBIDDEN":
            reason = f"user {self._api.options.username} may not ({reason})"
        return (NotThere if code in MISSING else Refused)(action=action, reason=reason)


def _has(sentences: tuple[str, ...], text: str) -> bool:
    return any(words in text.lower() for words in sentences)


def _usual(status: int) -> str:
    """What a status stands for that comes without a code. That something is not there, or there already, only OneFS itself can say."""
    return {401: "AEC_UNAUTHORIZED", 403: "AEC_FORBIDDEN"}.get(status, "")


def _is_over(answer: httpx.Response) -> bool:
    """Whether the session has ended: OneFS says so by 401, or by a 403 that has none of its codes."""
    return answer.status_code == 401 or (answer.status_code == 403 and not _words(answer).code)


def _words(answer: httpx.Response) -> Said:
    try:
        return _said(answer.json())
    except ValueError:
        return Said(code="", message="", field="")


def _said(body: object) -> Said:
    errors = body.get("errors") if isinstance(body, dict) else None
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    return Said(code=str(first.get("code", "")), message=str(first.get("message", "")), field=str(first.get("field", "")))
