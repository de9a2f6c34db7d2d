"""Calls to the gateway: over TLS, with a login, at a pace, again where the gateway asks for it, and no answer but a checked one.

Knows the wire and no volume. What the array refuses is Refused; that no answer can be had is Unreachable.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping as Body
from typing import Any, Final, TypeVar

import httpx
import msgspec

from storage.errors import Invalid
from storage.platforms.pacing import TokenBucket
from storage.platforms.powerflex import options as settings
from storage.platforms.powerflex.failures import BUSY, NO_SESSION, Refused, Unreachable
from storage.platforms.powerflex.objects import Failure
from storage.platforms.powerflex.options import PowerFlexOptions
from storage.platforms.powerflex.session import Session

logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each call says nothing that an operator would want to have seen

T = TypeVar("T")
TRIES: Final = 6
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 10.0
PUT_OFF: Final = (429, 503)
"""The gateway's rate limit, and an MDM that is changing over."""


class Client:
    """Connects at its first call; safe to use from many threads."""

    def __init__(
        self, options: PowerFlexOptions, *, now: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._options, self._wait = options, wait
        self._bucket = TokenBucket(options.calls_per_s, options.calls_per_s, now=now, wait=wait)
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._session = Session(options.username, self._password, self._log_in, self._send, now=now)

    def version(self) -> str:
        """What the gateway says of itself, such as `4.5`; logs in if it must."""
        return self._session.version()

    def get(self, path: str, kind: type[T], *, volume: str = "") -> T:
        return _decoded(self._call("GET", path, None, volume), kind)

    def post(self, path: str, body: Body[str, Any], kind: type[T], *, volume: str = "") -> T:
        return _decoded(self._call("POST", path, body, volume), kind)

    def act(self, path: str, body: Body[str, Any], *, volume: str = "") -> None:
        """A call that says nothing when it is done, or an object without a meaning."""
        answer = self._call("POST", path, body, volume)
        if answer.content.strip():
            _decoded(answer, dict)

    def close(self) -> None:
        self._session.close()
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    # --- one call -------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: Body[str, Any] | None, volume: str) -> httpx.Response:
        answer = self._patiently(lambda: self._authorized(method, path, body))
        failure = _read_failure(answer)
        if answer.is_success and not (failure and failure.error_code):
            return answer
        # The array gives a code with each of its refusals; that there is no such route may be the word of something in its place.
        if failure is None or answer.status_code in PUT_OFF or (answer.status_code == 404 and failure.codes == (0,)):
            raise Unreachable(f"HTTP status {answer.status_code} to {method} {path}, which is no answer of the array's")
        raise Refused(failure, status=answer.status_code, volume=volume)

    def _patiently(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer, after as many tries as the gateway asks for."""
        answer = ask()
        for number in range(1, TRIES):
            if not _is_put_off(answer):
                break
            self._bucket.throttled()
            self._wait(_wait_s(answer, number))
            answer = ask()
        return answer

    def _log_in(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._patiently(lambda: self._send(method, path, **more))

    def _authorized(self, method: str, path: str, body: Body[str, Any] | None) -> httpx.Response:
        """A login that has ended on the way is renewed once."""
        token = self._session.token()
        answer = self._send(method, path, auth=token.auth, json=body)
        if not _lacks_session(answer):
            return answer
        answer = self._send(method, path, auth=self._session.token(but_not=token).auth, json=body)
        if _lacks_session(answer):
            raise Unreachable(f"the gateway refuses the login that it has just given (HTTP status {answer.status_code})")
        return answer

    def _send(
        self,
        method: str,
        path: str,
        *,
        auth: httpx.Auth | None = None,
        json: Body[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        self._bucket.take()
        try:
            return self._connected().request(method, path, auth=auth, json=json, timeout=timeout_s or self._options.timeout_s)
        except httpx.HTTPError as error:
            raise Unreachable(f"{method} {path} got no answer: {error or type(error).__name__}") from error

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                self._http = httpx.Client(base_url=self._options.gateway, verify=self._trust(), trust_env=False)
            return self._http

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._options.ca_file or None)
        except OSError as error:
            raise Unreachable(f"ca_file {self._options.ca_file} cannot be used: {error}") from error

    def _password(self) -> str:
        try:
            return settings.password(self._options)
        except OSError as error:
            raise Unreachable(f"password_file {self._options.password_file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise Unreachable(f"password_file {self._options.password_file} cannot be read: it is not text") from error
        except Invalid as error:
            raise Unreachable(str(error.fields["reason"])) from error


def _decoded(answer: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the answer to {answer.request.method} {answer.request.url.path} is not the gateway's: {error}") from error


def _read_failure(answer: httpx.Response) -> Failure | None:
    """The array's own words; None for an error page of something between us and the gateway. A lack of rights needs no words."""
    try:
        failure = msgspec.json.decode(answer.content, type=Failure, strict=False)
    except msgspec.MsgspecError:
        failure = Failure()
    if answer.status_code != 403 and not failure.message and not failure.error_code:
        return None
    return failure


def _says(answer: httpx.Response, codes: frozenset[int]) -> bool:
    failure = None if answer.is_success else _read_failure(answer)
    return failure is not None and not codes.isdisjoint(failure.codes)


def _is_put_off(answer: httpx.Response) -> bool:
    return answer.status_code in PUT_OFF or _says(answer, BUSY)


def _lacks_session(answer: httpx.Response) -> bool:
    return answer.status_code == 401 or _says(answer, NO_SESSION)


def _wait_s(answer: httpx.Response, number: int) -> float:
    """As long as the gateway says, or twice as long each time."""
    said = answer.headers.get("Retry-After", "")
    wait_s = float(said) if said.isascii() and said.isdigit() else FIRST_WAIT_S * 2 ** (number - 1)
    return min(wait_s, LONGEST_WAIT_S)
