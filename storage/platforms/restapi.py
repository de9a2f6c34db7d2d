"""A storage array's REST API over TLS: sessions, pacing, and every way in which a call can fail before the array has said anything.

Knows no array: what an answer means is the adapter's. A password comes from a file, is read when it is first needed, and is in
no error and no log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from storage.errors import Invalid, PlatformUnavailable
from storage.platforms.options import option
from storage.platforms.pacing import TokenBucket

CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0
TRIES: Final = 6
"""How often a call is made that the array refuses for its load."""
BUSY: Final = (429, 503)
LONGEST_WAIT_S: Final = 30.0
KEYS: Final = "Correct this key of the platform's block in polly.toml, or what it names."
"""What to do about an Invalid that a check meets."""


def is_host(name: str | None) -> bool:
    """Whether a resolver would look for it at all."""
    return name is not None and all(0 < len(label) < 64 for label in name.removesuffix(".").split("."))


def _https(endpoint: str) -> str:
    try:
        url = urlsplit(endpoint)
        bare = endpoint.isprintable() and "@" not in url.netloc and not url.query and not url.fragment and url.port != 0
        plain = url.scheme == "https" and is_host(url.hostname) and bare
    except ValueError:  # of an address or a port that cannot be
        plain = False
    return "" if plain else "it must be a URL such as https://array.example:443, without a user or password in it"


def _absolute(path: str) -> str:
    return "" if Path(path).is_absolute() else "it must be an absolute path"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOptions:
    """The keys that every array has."""

    endpoint: str = option(says="the URL of the array's management, `https://HOST:PORT`", check=_https, where=True)
    username: str = option(says="the user that Polly logs in as")
    password_file: str = option(says="the file that holds the user's password; on every machine that calls the array", check=_absolute)
    ca_file: str | None = option(
        None, says="the file with the certificate authority that signed the array's certificate; not given: the system's", check=_absolute
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How time passes and how fast the array is called."""

    bucket: TokenBucket
    wait: Callable[[float], None]
    parallel: int = 4
    """Calls that are under way at the same time, at most."""


class Answer(dict[str, Any]):
    """An object of an answer. What it lacks, or has only as null, where that is asked for by `[]` is PlatformUnavailable: it is another
    version's, or not the array's at all. `get` is for what may be missing."""

    def __init__(self, platform: str, action: str, said: Mapping[str, Any]) -> None:
        super().__init__(said)
        self._platform, self._action = platform, action

    def __getitem__(self, key: str) -> Any:
        if (found := self.get(key)) is None:
            raise self.wrong(f"lacks {key!r}")
        return found

    def whole(self, key: str) -> int:
        """A whole number, also where it is written as text."""
        try:
            return int(self[key])
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(f"has {self[key]!r} as {key!r}, which is no number") from None

    def number(self, key: str, *, otherwise: float | None = None) -> float:
        """`otherwise`: what it is where there is no such key."""
        if otherwise is not None and self.get(key) is None:
            return otherwise
        try:
            return float(self[key])
        except (TypeError, ValueError):
            raise self.wrong(f"has {self[key]!r} as {key!r}, which is no number") from None

    def part(self, key: str) -> Answer:
        """An object in this one."""
        found = self[key]
        if not isinstance(found, Answer):
            raise self.wrong(f"has {found!r:.80} as {key!r}, which is no object")
        return found

    def objects(self, key: str, *, optional: bool = False) -> list[Answer]:
        """`optional`: none where there is no such key."""
        if optional and self.get(key) is None:
            return []
        found = self[key]
        if not isinstance(found, list) or not all(isinstance(one, Answer) for one in found):
            raise self.wrong(f"has {found!r:.80} as {key!r}, which is no list of objects")
        return found

    def wrong(self, how: str) -> PlatformUnavailable:
        """The error for one that is not as it must be."""
        return PlatformUnavailable(platform=self._platform, action=self._action, reason=f"an object of its answer {how}")


class RestApi:
    """Calls to one array. Threads may share it; the connection is made with the first call."""

    def __init__(self, platform: str, options: RestOptions, timing: Timing) -> None:
        self.platform, self.options = platform, options
        self._timing = timing
        self._slots = threading.BoundedSemaphore(timing.parallel)
        self._making = threading.Lock()
        self._client: httpx.Client | None = None

    def password(self, action: str) -> str:
        """Raises PlatformUnavailable, naming the file, if it cannot be read or is empty: an empty password would lock the user out in the
        end. It is no refusal of the verb, which may have begun when the file was still good."""
        path = self.options.password_file
        try:
            found = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = f"password_file {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}"
            raise PlatformUnavailable(platform=self.platform, action=action, reason=reason) from error
        if not found:
            raise PlatformUnavailable(platform=self.platform, action=action, reason=f"password_file {path} is empty")
        return found

    def call(
        self,
        action: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        answer_s: float | None = None,
    ) -> httpx.Response:
        """The array's answer, whatever it is; again and slower while the array says that it has too much to do.

        `action` is what the caller is about, for the error; `answer_s` how long it may take, where that is not ANSWER_S.
        Raises PlatformUnavailable where no answer came: the call may have been done.
        """
        timeout = None if answer_s is None else httpx.Timeout(answer_s, connect=CONNECT_S)
        for _ in range(TRIES):
            self._timing.bucket.take()
            with self._slots:
                answer = self._ask(action, method, path, params=params, json=json, headers=headers, auth=auth, timeout=timeout)
            if answer.status_code not in BUSY:
                return answer
            self._timing.bucket.throttled()
            self._timing.wait(_asked_wait(answer))
        raise PlatformUnavailable(platform=self.platform, action=action, reason=f"it is too busy (HTTP {answer.status_code})")

    def read(self, action: str, answer: httpx.Response) -> Answer:
        """What an answer says; of one without a body nothing. Raises PlatformUnavailable for what is no JSON object: the array said
        something else, or somebody else answered."""
        if not answer.content.strip():
            return Answer(self.platform, action, {})
        try:
            found = answer.json(object_hook=partial(Answer, self.platform, action))
        except ValueError as error:
            raise PlatformUnavailable(platform=self.platform, action=action, reason="its answer is not JSON") from error
        if not isinstance(found, Answer):
            raise PlatformUnavailable(platform=self.platform, action=action, reason="its answer is no JSON object")
        return found

    def _ask(self, action: str, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._opened().request(method, path, **{name: value for name, value in more.items() if value is not None})
        except (httpx.LocalProtocolError, UnicodeError):  # they say what a header holds
            reason = "what it has given for a login is no header"
            raise PlatformUnavailable(platform=self.platform, action=action, reason=reason) from None
        except httpx.HTTPError as error:
            raise PlatformUnavailable(platform=self.platform, action=action, reason=_words(error)) from error

    def _opened(self) -> httpx.Client:
        with self._making:
            if self._client is None:
                timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
                self._client = httpx.Client(base_url=self.options.endpoint, verify=self._trusted(), timeout=timeout, trust_env=False)
            return self._client

    def _trusted(self) -> Any:
        import ssl

        path = self.options.ca_file
        try:
            return ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or "it holds no certificate"
            raise Invalid(field=f"platforms.{self.platform}.ca_file", value=path, reason=reason) from error

    def close(self) -> None:
        with self._making:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _asked_wait(answer: httpx.Response) -> float:
    """What the answer's Retry-After asks for, within reason."""
    asked = answer.headers.get("retry-after", "")
    return min(LONGEST_WAIT_S, float(asked)) if asked.isascii() and asked.isdigit() else 1.0


def _words(error: httpx.HTTPError) -> str:
    """What went wrong, without what was sent."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
