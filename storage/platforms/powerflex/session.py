"""Being logged in: a token of either generation, got when it is needed, renewed before it ends and when it is refused.

Every gateway has `/api/login`; one of version 4 or later says so of itself, and then a Bearer token is got from it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final

import httpx
import msgspec

from storage.platforms.powerflex.failures import Unreachable
from storage.platforms.powerflex.objects import Bearer

EARLY_S: Final = 30
"""How long before its end a token is renewed, so that none ends on the way."""
TOKEN: Final = re.compile(r"[!-~]+")
VERSION: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
OLDEST: Final = (3, 0)
BEARERS: Final = (4, 0)
"""Since when there are Bearer tokens."""
FAREWELL_S: Final = 5.0
"""How long giving a login back may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    user: str
    text: str = field(repr=False)
    is_bearer: bool = False
    refresh: str = field(default="", repr=False)
    ends_at: float = float("inf")

    @property
    def auth(self) -> httpx.Auth:
        return _Bearer(self.text) if self.is_bearer else httpx.BasicAuth(self.user, self.text)


class _Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


Send = Callable[..., httpx.Response]
"""Makes one call and gives its answer, whatever its status. Raises Unreachable where none comes."""


class Session:
    """One login for all threads."""

    def __init__(self, user: str, password: Callable[[], str], ask: Send, tell: Send, *, now: Callable[[], float]) -> None:
        """`ask` is patient with a busy gateway; `tell` is not, for farewells."""
        self._user, self._password, self._ask, self._tell, self._now = user, password, ask, tell, now
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._version = ""

    def version(self) -> str:
        """What the gateway says of itself, such as `4.5`."""
        self.token()
        return self._version

    def token(self, *, but_not: Token | None = None) -> Token:
        """A token that should be good; never `but_not`, which was refused. Raises Unreachable."""
        with self._lock:
            held = self._token
            if held is None or held is but_not or self._now() >= held.ends_at:
                self._leave()
                self._token = held = self._enter()
            return held

    def close(self) -> None:
        with self._lock:
            self._leave()

    def _enter(self) -> Token:
        password = self._password()
        if _parts(self._version) < BEARERS:
            basic = Token(user=self._user, text=self._basic(password))
            self._version = self._ask_version(basic)
            if _parts(self._version) < BEARERS:
                return basic
            self._logout(basic)
        return self._bearer(password)

    def _basic(self, password: str) -> str:
        answer = self._let_in(self._ask("GET", "/api/login", auth=httpx.BasicAuth(self._user, password)))
        return _text(answer, TOKEN)

    def _bearer(self, password: str) -> Token:
        asked_at = self._now()
        answer = self._let_in(self._ask("POST", "/rest/auth/login", json={"username": self._user, "password": password}))
        try:
            said = msgspec.json.decode(answer.content, type=Bearer)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"the answer to the login is none: {error}") from error
        if not TOKEN.fullmatch(said.access_token):
            raise Unreachable("the answer to the login holds no token")
        ends_at = asked_at + max(said.expires_in - EARLY_S, said.expires_in / 2)
        return Token(user=self._user, text=said.access_token, is_bearer=True, refresh=said.refresh_token, ends_at=ends_at)

    def _ask_version(self, token: Token) -> str:
        version = _text(self._let_in(self._ask("GET", "/api/version", auth=token.auth)), VERSION)
        if _parts(version) < OLDEST:
            raise Unreachable(f"the gateway is of version {version or '?'}, and Polly needs 3.0 or later")
        return version

    def _let_in(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code in (401, 403):
            raise Unreachable(f"the gateway refuses user {self._user} (HTTP status {answer.status_code})")
        if answer.status_code != 200:
            raise Unreachable(f"the gateway answers the login with HTTP status {answer.status_code}")
        return answer

    def _leave(self) -> None:
        """Sessions are limited, so one that is over is given back; that it cannot be is no matter."""
        held, self._token = self._token, None
        if held is not None:
            self._logout(held)

    def _logout(self, token: Token) -> None:
        with contextlib.suppress(Exception):
            if token.is_bearer:
                self._tell("POST", "/rest/auth/logout", auth=token.auth, json={"refresh_token": token.refresh}, timeout_s=FAREWELL_S)
            else:
                self._tell("GET", "/api/logout", auth=token.auth, timeout_s=FAREWELL_S)


def _text(answer: httpx.Response, kind: re.Pattern[str]) -> str:
    """A JSON text; older gateways forget the quotes. Raises Unreachable for what is none of this kind, such as a page of a proxy's."""
    found = answer.text.strip().strip('"')
    if not kind.fullmatch(found):
        raise Unreachable(f"the answer to {answer.request.method} {answer.request.url.path} is not the gateway's")
    return found


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
