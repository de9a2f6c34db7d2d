"""EC2's error codes, and the SDK's own failures, as Polly's named errors. The code is kept in `reason`, whatever the error.

A code that is not here becomes a PlatformError. Texts of EC2's are cut and freed of key ids before anybody sees them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    UnauthorizedSSOTokenError,
)

from storage.errors import (
    Conflict,
    Invalid,
    NoSlot,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownPool,
    UnknownSnapshot,
    UnknownVolume,
    VolumeInUse,
)

THROTTLED: Final = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "SnapshotCreationPerVolumeRateExceeded",
    }
)
CREDENTIALS: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
FORBIDDEN: Final = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
_NO_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
    UnauthorizedSSOTokenError,
)
_LONGEST: Final = 300
_KEY_ID: Final = re.compile(r"\b(A[A-Z]{3})[A-Z0-9]{12,}\b")
_ENCODED: Final = re.compile(r"Encoded authorization failure message: *\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What was being done to what, so that an error can name it."""

    platform: str
    action: str
    volume: str = ""
    snapshot: str = ""
    node: str = ""
    pool: str = ""
    size_mib: int = 0
    slots: int = 0


class NameTaken(Invalid):
    """{field} is {value!r}: {reason}."""


Named = Callable[[Doing, str], PollyError]


def code_of(error: Exception) -> str:
    """EC2's code of a failure; empty where there is none."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def message_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message") or "")


def said(code: str, message: str) -> str:
    """A code and its text as they may be shown."""
    text = _KEY_ID.sub(r"\1...", _ENCODED.sub("", message)).strip()
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{code}: {short}" if short else code


def named(error: Exception, doing: Doing) -> PollyError:
    """The error as Polly names it."""
    if isinstance(error, ClientError):
        if code := code_of(error):
            return _of_code(code, said(code, message_of(error)), doing)
        return _ask_again(doing, f"HTTP {error.response.get('ResponseMetadata', {}).get('HTTPStatusCode', '')} without a word of EC2's")
    if isinstance(error, _NO_CREDENTIALS):
        words = f"no credentials were found ({said(type(error).__name__, str(error))}); {_WHERE}"
        return PlatformUnavailable(platform=doing.platform, action=doing.action, reason=words)
    words = said(type(error).__name__, str(error))
    if isinstance(error, BotoCoreError):
        return PlatformUnavailable(platform=doing.platform, action=doing.action, reason=words)
    return PlatformUnavailable(platform=doing.platform, action=doing.action, reason=f"the answer makes no sense, {words}")


def _of_code(code: str, reason: str, doing: Doing) -> PollyError:
    if code in CREDENTIALS:
        words = f"{reason} (the credentials are not, or no longer, good; {_WHERE})"
        return PlatformUnavailable(platform=doing.platform, action=doing.action, reason=words)
    if code in THROTTLED:
        words = f"{reason} (the API refused the call for its rate, for too long)"
        return PlatformUnavailable(platform=doing.platform, action=doing.action, reason=words)
    if code in FORBIDDEN:
        words = f"{reason} (the credentials may not do this; docs/platforms/ebs.md has the policy that they need)"
        return PlatformError(platform=doing.platform, action=doing.action, reason=words)
    if code in CODES:
        return CODES[code](doing, reason)
    if code in UNAVAILABLE or (code.isdigit() and int(code) >= 500):
        return PlatformUnavailable(platform=doing.platform, action=doing.action, reason=reason)
    return PlatformError(platform=doing.platform, action=doing.action, reason=reason)


_WHERE: Final = "they come from the environment, the shared credentials file, or the instance's role"


def _unknown_volume(doing: Doing, reason: str) -> PollyError:
    return UnknownVolume(volume=doing.volume, reason=reason)


def _unknown_snapshot(doing: Doing, reason: str) -> PollyError:
    return UnknownSnapshot(snapshot=doing.snapshot, reason=reason)


def _unknown_node(doing: Doing, reason: str) -> PollyError:
    return Invalid(field="node", value=doing.node, reason=reason)


def _unknown_pool(doing: Doing, reason: str) -> PollyError:
    return UnknownPool(pool=doing.pool, platform=doing.platform, reason=reason)


def _in_use(doing: Doing, reason: str) -> PollyError:
    return VolumeInUse(volume=doing.volume, holder=f"another holder ({reason})", reason=reason)


def _full(doing: Doing, reason: str) -> PollyError:
    return PoolFull(pool=doing.pool or "of the region", platform=doing.platform, free_mib=0, size_mib=doing.size_mib, reason=reason)


def _no_slot(doing: Doing, reason: str) -> PollyError:
    return NoSlot(node=doing.node, slots=doing.slots or "its", platform=doing.platform, reason=reason)


def _invalid(doing: Doing, reason: str) -> PollyError:
    kind = NameTaken if "already in use" in reason and doing.node else Invalid
    return kind(field=f"what EC2 was asked to {doing.action}", value=doing.volume or doing.pool or doing.snapshot, reason=reason)


def _other_zone(doing: Doing, reason: str) -> PollyError:
    return Invalid(field="node", value=doing.node, reason=f"{reason} (volume {doing.volume} is in another availability zone)")


def _wrong_state(doing: Doing, reason: str) -> PollyError:
    what = doing.volume or doing.snapshot or doing.node
    return Conflict(what=what, expected=f"a state that lets EC2 {doing.action}", found=reason, reason=reason)


def _snapshot_in_use(doing: Doing, reason: str) -> PollyError:
    return Conflict(what=f"snapshot {doing.snapshot}", expected="used by no image", found=reason, reason=reason)


def _cooling_down(doing: Doing, reason: str) -> PollyError:
    words = f"{reason} (EC2 lets one volume be grown again only some hours after the last time)"
    return PlatformError(platform=doing.platform, action=doing.action, reason=words)


def _ask_again(doing: Doing, reason: str) -> PollyError:
    return PlatformUnavailable(platform=doing.platform, action=doing.action, reason=reason)


CODES: Final[Mapping[str, Named]] = {
    **dict.fromkeys(("InvalidVolume.NotFound", "InvalidVolumeID.Malformed", "InvalidVolumeID.Duplicate"), _unknown_volume),
    **dict.fromkeys(("InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed"), _unknown_snapshot),
    **dict.fromkeys(("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidInstanceID"), _unknown_node),
    **dict.fromkeys(("InvalidZone.NotFound", "InvalidAvailabilityZone"), _unknown_pool),
    "VolumeInUse": _in_use,
    **dict.fromkeys(
        (
            "VolumeLimitExceeded",
            "MaxIOPSLimitExceeded",
            "MaxThroughputLimitExceeded",
            "InsufficientVolumeCapacity",
            "SnapshotLimitExceeded",
            "VolumeModificationSizeLimitExceeded",
            "ResourceLimitExceeded",
        ),
        _full,
    ),
    **dict.fromkeys(("AttachmentLimitExceeded", "InstanceLimitExceeded"), _no_slot),
    **dict.fromkeys(
        (
            "InvalidParameterValue",
            "InvalidParameterCombination",
            "InvalidParameterDependency",
            "InvalidParameter",
            "InvalidRequest",
            "InvalidFilter",
            "InvalidNextToken",
            "MissingParameter",
            "UnknownParameter",
            "UnknownVolumeType",
            "UnsupportedOperation",
            "UnsupportedOperationException",
            "TagLimitExceeded",
            "ValidationError",
        ),
        _invalid,
    ),
    "InvalidVolume.ZoneMismatch": _other_zone,
    **dict.fromkeys(
        (
            "IncorrectState",
            "IncorrectInstanceState",
            "IncorrectModificationState",
            "IncorrectStateException",
            "InvalidAttachment.NotFound",
            "IdempotentParameterMismatch",
        ),
        _wrong_state,
    ),
    **dict.fromkeys(("InvalidSnapshot.InUse", "SnapshotLocked"), _snapshot_in_use),
    "VolumeModificationRateExceeded": _cooling_down,
    **dict.fromkeys(
        ("ConcurrentSnapshotLimitExceeded", "ConcurrentCopyVolumeLimitExceeded", "PendingSnapshotLimitExceeded", "ConcurrentTagAccess"),
        _ask_again,
    ),
}
UNAVAILABLE: Final = frozenset({"InternalError", "InternalFailure", "ServerInternal", "ServiceUnavailable", "Unavailable"})
