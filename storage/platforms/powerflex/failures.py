"""What the array refuses, in Polly's words: its codes, and its sentences where the numbers of versions differ.

The numbers up to 226 are the same in all versions, with those for mappings renumbered in version 4; later ones are told by what
they say. The code is kept in the error's `reason`.
"""

from __future__ import annotations

from typing import Final

from storage.errors import Invalid, PlatformError, PlatformUnavailable, PollyError, UnknownPool, UnknownVolume
from storage.platforms.powerflex.objects import Failure
from storage.platforms.verbs import verbs

GONE: Final = frozenset({3, 78, 79, 88, 231})
MAPPED: Final = frozenset({104})
NAME_TAKEN: Final = frozenset({99})
NOT_MAPPED: Final = frozenset({84, 4039})
NO_POOL: Final = frozenset({142, 171, 174})
FULL: Final = frozenset({67, 132, 191})
TOO_MANY_ON_NODE: Final = frozenset({87})
SHRINKS: Final = frozenset({133})
SIZES: Final = frozenset({190, 225})
DENIED: Final = frozenset({168, 247})
NO_SESSION: Final = frozenset({248})
BUSY: Final = frozenset({28, 32, 33, 145, 164, 212})
"""The array asks to come again: it is busy, or the object is being removed."""

_SAYS: Final = (
    (FULL, ("exceeds the volume allocation limit", "violates thick volume reservation", "critical capacity utilization")),
    (TOO_MANY_ON_NODE, ("mapped to too many volumes",)),
    (MAPPED, ("volume is mapped",)),
    (BUSY, ("retry later", "in progress. please wait", "removal operation is currently in progress")),
    (DENIED, ("do not have permission", "permission denied")),
    (GONE, ("could not find the volume",)),
)


class Trouble(Exception):
    """What went wrong with a call, before anybody has made an error of it. Never leaves the adapter."""


class Refused(Trouble):
    """The array's no."""

    def __init__(self, failure: Failure, *, status: int, volume: str = "") -> None:
        super().__init__(f"{failure.codes[0]}: {failure.message}")
        self.codes, self.said, self.status, self.volume = failure.codes, failure.message, status, volume

    def means(self, kind: frozenset[int]) -> bool:
        """Whether it is of this kind: by its code, or by what it says."""
        if not kind.isdisjoint(self.codes):
            return True
        said = self.said.lower()
        return any(kind is known and any(words in said for words in sentences) for known, sentences in _SAYS)

    @property
    def reason(self) -> str:
        return f"{', '.join(map(str, self.codes))}: {self.said or f'HTTP status {self.status}'}"


class Unreachable(Trouble):
    """No answer that could be believed: the wire, the login, or something that is not the gateway."""


def as_error(trouble: Trouble, platform: str, action: str) -> PollyError:
    """The error for what nobody knew more of."""
    if isinstance(trouble, Refused):
        return _refusal(trouble, platform, action)
    return PlatformUnavailable(platform=platform, action=action, reason=str(trouble))


def _refusal(refused: Refused, platform: str, action: str) -> PollyError:
    reason = refused.reason
    if refused.means(GONE) and refused.volume:
        return UnknownVolume(volume=refused.volume, reason=reason)
    if refused.means(NO_POOL):
        return UnknownPool(pool="that was asked for", platform=platform, reason=reason)
    if refused.means(BUSY):
        return PlatformUnavailable(platform=platform, action=action, reason=reason)
    if refused.means(SIZES) or refused.means(SHRINKS):
        return Invalid(field="size_mib", value="", reason=reason)
    if refused.status == 403 or refused.means(DENIED):
        return PlatformError(platform=platform, action=action, reason=f"the user lacks the right to ({reason})")
    return PlatformError(platform=platform, action=action, reason=reason)


verb = verbs(Trouble, as_error)
