"""What Compute Engine refuses, in one vocabulary: HTTP errors write `resourceNotReady`, operations RESOURCE_NOT_READY.

Google's code stays in `reason` of every error that leaves the adapter.
"""

from __future__ import annotations

import re
from typing import Any, Final

from storage.errors import PlatformError, PlatformUnavailable
from storage.platforms.verbs import verbs
from storage.platforms.wording import in_brief

GONE: Final = frozenset({"NOT_FOUND", "RESOURCE_NOT_FOUND"})
TAKEN: Final = frozenset({"ALREADY_EXISTS", "RESOURCE_ALREADY_EXISTS", "DUPLICATE"})
IN_USE: Final = frozenset({"RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", "RESOURCE_IN_USE", "RESOURCE_IN_USE_BY_OTHER_RESOURCE"})
CHANGED: Final = frozenset({"CONDITION_NOT_MET"})
FULL: Final = frozenset(
    {
        "QUOTA_EXCEEDED",
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "RESOURCE_POOL_EXHAUSTED",
        "STOCKOUT",
    }
)
NO_SLOT: Final = frozenset({"LIMIT_EXCEEDED", "ATTACHED_DISK_LIMIT_EXCEEDED"})
THROTTLED: Final = frozenset({"RATE_LIMIT_EXCEEDED", "USER_RATE_LIMIT_EXCEEDED", "TOO_MANY_REQUESTS"})
"""Of the whole project. A rate of one resource (RESOURCE_OPERATION_RATE_EXCEEDED) slows nobody else down."""
STRANGE: Final = "UNEXPECTED_ANSWER"
"""No answer of Compute Engine's: a proxy's, perhaps, and whatever it says is not there may well be."""
PASSING: Final = frozenset(
    {
        "RESOURCE_NOT_READY",
        "RESOURCE_BUSY",
        "RESOURCE_OPERATION_RATE_EXCEEDED",
        "OPERATION_IN_PROGRESS",
        "BACKEND_ERROR",
        "INTERNAL_ERROR",
    }
)
SIGNED_OUT: Final = frozenset({"AUTH_ERROR", "UNAUTHENTICATED", "CREDENTIALS"})


class Fault(Exception):
    """What Google said, before anybody has judged what it means for the verb."""

    def __init__(self, code: str, message: str, *, status: int = 0) -> None:
        super().__init__(f"{code}: {' '.join(message.split()).rstrip('.')}")
        self.code, self.status = code, status

    @property
    def throttled(self) -> bool:
        return self.code in THROTTLED or self.status == 429

    @property
    def passing(self) -> bool:
        """Whether the same call may well succeed in a moment."""
        return self.code in PASSING or self.status >= 500

    @property
    def signed_out(self) -> bool:
        return self.code in SIGNED_OUT or self.status == 401


def fault_of(error: Exception) -> Fault | None:
    """What a call through Google's client ended with; None for what is no word of Google's or the network's."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError
    from google.auth.exceptions import TransportError as AuthTransportError
    from google.protobuf.json_format import ParseError
    from requests.exceptions import RequestException

    if isinstance(error, Fault):
        return error
    if isinstance(error, GoogleAPICallError):
        status, reason = int(error.code or 0), _said(error, "reason") or str(error.reason or "")
        if status == 404 and not reason:
            return Fault(STRANGE, "HTTP 404 without a reason")
        return Fault(snake(reason or f"HTTP_{status}"), _said(error, "message") or str(error.message), status=status)
    if isinstance(error, ParseError):
        return Fault(STRANGE, "it is no JSON, or not of the kind that was asked for")
    if isinstance(error, AuthTransportError | RequestException | RetryError):
        return Fault("BACKEND_ERROR", f"{type(error).__name__}: {in_brief(error)}")
    if isinstance(error, GoogleAuthError):
        return Fault("CREDENTIALS", f"{type(error).__name__}: {error.args[0] if error.args else ''}")
    return None


def _said(error: Any, key: str) -> str:
    """Of the first error in the body, which says more than the exception around it."""
    return next((text for one in error.errors if isinstance(one, dict) and (text := one.get(key))), "")


def snake(code: str) -> str:
    """`resourceNotReady` as RESOURCE_NOT_READY, which is what operations say of the same."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", code).upper()


def operation_fault(operation: Any) -> Fault | None:
    """The error inside an operation that is done: HTTP said 200."""
    errors = list(operation.error.errors)
    if not errors:
        return None
    return Fault(snake(errors[0].code), "; ".join(error.message for error in errors), status=int(operation.http_error_status_code or 0))


def _as_error(fault: Fault, platform: str, action: str) -> PlatformError:
    again = fault.passing or fault.throttled or fault.signed_out or fault.code == STRANGE
    kind = PlatformUnavailable if again else PlatformError
    return kind(platform=platform, action=action, reason=str(fault))


verb = verbs(Fault, _as_error)
"""For a Fault that the method has no better word for."""
