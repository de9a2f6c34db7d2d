"""What OpenStack refuses, in Polly's words. A refusal is kept as it came until somebody knows what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from storage.errors import NoSlot, PlatformError, PlatformUnavailable, PollyError, PoolFull
from storage.platforms.cinder.records import GIB_MIB, UUID
from storage.platforms.verbs import verbs

QUOTA: Final = re.compile(r"quota is (\d+)G and (\d+)G has been consumed")
COMES_AGAIN: Final = frozenset({401, 408, 409, 500, 502, 503, 504})
"""What the services answer while one of their own (database, message broker, backend) is away, and to a token that has ended."""

LONGEST: Final = 500
"""Characters of a message that are kept."""
MISSING: Final = "itemNotFound"
"""What Cinder and Nova call a 404 of their own."""


class Refusal(Exception):
    """An answer of the API that says no."""

    def __init__(self, status: int, message: str, *, kind: str = "", request_id: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(f"HTTP {status}: {message}{f' ({request_id})' if request_id else ''}")
        self.status, self.message, self.kind, self.retry_after_s = status, message, kind, retry_after_s

    @property
    def is_throttle(self) -> bool:
        """Too many calls. A full quota is a 413 too, with no time to wait."""
        return self.status == 429 or (self.status == 413 and self.retry_after_s > 0)

    @property
    def is_quota(self) -> bool:
        return (self.status == 413 and not self.is_throttle) or (self.status == 403 and "quota" in self.message.lower())

    @property
    def is_missing(self) -> bool:
        """The service says by its id what is not there. Whoever knows no such page, a proxy or another service, says nothing of that."""
        return self.status == 404 and self.kind == MISSING and UUID.search(self.message) is not None

    @classmethod
    def read(cls, status: int, body: Any, headers: Mapping[str, str]) -> Refusal:
        """From an answer: its body is `{"badRequest": {"code": 400, "message": "..."}}` or anything that a proxy has made of it."""
        found = ((key, one) for key, one in body.items() if isinstance(one, dict)) if isinstance(body, dict) else iter(())
        kind, inner = next(found, ("", {}))
        message = str(inner.get("message") or (body if isinstance(body, str) else "") or "no reason was given")
        return cls(
            status,
            _shortened(" ".join(message.split())),
            kind=kind,
            request_id=headers.get("x-openstack-request-id", ""),
            retry_after_s=retry_after_s(headers),
        )


def _shortened(message: str) -> str:
    """Its beginning and its end: a backend's own words come last."""
    return message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"


def retry_after_s(headers: Mapping[str, str]) -> float:
    """How long an answer asks its caller to wait: seconds, or a moment, which counts from the answer's own date (RFC 9110, 10.2.3)."""
    after = headers.get("Retry-After", "")
    if after.isascii() and after.isdigit():
        return float(after)
    try:
        until, now = (parsedate_to_datetime(text) for text in (after, headers.get("Date", "")))
        return max(1.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def as_error(refusal: Refusal, platform: str, action: str) -> PollyError:
    """What a proxy answers by itself, a page or a 404 without a name, comes while the service behind it is being started or moved."""
    by_a_proxy = refusal.status < 300 or (refusal.status == 404 and not refusal.kind)
    comes_again = refusal.status in COMES_AGAIN or refusal.is_throttle or by_a_proxy
    kind = PlatformUnavailable if comes_again else PlatformError
    return kind(platform=platform, action=action, reason=str(refusal))


verb = verbs(Refusal, as_error)
"""For a refusal that nobody understood."""


def pool_full(refusal: Refusal, *, platform: str, pool: str, size_mib: int) -> PoolFull:
    found = QUOTA.search(refusal.message)
    free_mib = max(0, int(found[1]) - int(found[2])) * GIB_MIB if found else 0
    return PoolFull(platform=platform, pool=pool, free_mib=free_mib, size_mib=size_mib, reason=str(refusal))


def no_slot(refusal: Refusal, *, platform: str, node: str, slots: int | None) -> NoSlot:
    return NoSlot(platform=platform, node=node, slots=slots if slots is not None else "its", reason=str(refusal))
