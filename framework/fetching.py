"""JSON over HTTP with the standard library alone, so that a command starts fast. No proxy, no redirect, one connection for each request:
a person may think about a question for longer than a server keeps an idle one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit

from framework.failures import BrokerBusy, BrokerUnavailable
from storage.errors import Invalid

SCHEMES: Final[Mapping[str, type[HTTPConnection]]] = {"http": HTTPConnection, "https": HTTPSConnection}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Speaks to one server; `url` is its base, `headers` go with each request."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0

    def fetch(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: object = None) -> tuple[int, Any]:
        """The status and the decoded answer, None where it is empty. `path` is encoded already.

        Raises BrokerUnavailable where nothing answers, or not in JSON, and BrokerBusy where nothing answers in time.
        """
        target = path + (f"?{urlencode(params, doseq=True)}" if params else "")
        try:
            status, answer = self._ask(method, target, None if body is None else json.dumps(body).encode())
        except TimeoutError as error:
            raise BrokerBusy(timeout_s=self.timeout_s) from error
        except (OSError, HTTPException) as error:
            raise BrokerUnavailable(url=self.url, reason=_reason(error)) from error
        try:
            return status, json.loads(answer) if answer else None
        except ValueError as error:
            reason = f"what answers there (HTTP status {status}) is not Polly's API"
            raise BrokerUnavailable(url=self.url, reason=reason) from error

    def _ask(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        base = read_url(self.url)
        more = {} if body is None else {"Content-Type": "application/json"}
        connection = SCHEMES[base.scheme](base.hostname or "", base.port, timeout=self.timeout_s)
        try:
            connection.request(method, base.path.rstrip("/") + target, body, {**self.headers, **more, "Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def read_url(url: str) -> SplitResult:
    """A server's URL in its parts. Raises Invalid."""
    try:
        found = urlsplit(url)
        if found.scheme in SCHEMES and found.hostname and found.port != 0 and url.isascii() and url.isprintable() and " " not in url:
            return found
    except ValueError:
        pass
    raise Invalid(field="--broker", value=url, reason="it is a URL such as http://127.0.0.1:7070")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
