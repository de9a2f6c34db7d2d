"""Faults at a chosen call: what a peer of an adapter's tests asks before it answers, and the rules of the contract arrange.

Knows no platform and no peer. A peer asks `fate` once for each call that reaches it, sign-ins included, and does what that says. Needs
nothing but Python's own library, so that a peer in an environment of its own can use it, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from storage.platforms.base import Platform

A = TypeVar("A")


class Fault(Enum):
    """What can go wrong at one call of a verb."""

    LOST = "its reply is lost"
    """It is done, and whoever made it is not told. Made again it is answered."""
    THROTTLED = "it is throttled"
    """It is refused for the rate of calls, and so is each one after it, once. Made again it is answered."""
    EXPIRED = "the credentials expire"
    """It is refused, and so are all after it, until the credentials are good again."""
    DIED = "the process dies"
    """It is done, and neither its reply nor anything after it gets through, as when whoever made it is no more."""
    NO_PAGE = "somebody else has no such page"
    """A proxy, or whoever else is where the platform should be, answers it and all after it with a page that says 404."""
    NO_ROUTE = "somebody else has no such route"
    """As that, with an object that has a message, as gateways before APIs do."""
    PAGE = "somebody else has a page"
    """As NO_PAGE, with status 200."""
    SILENCE = "somebody else says nothing"
    """As that, with status 200 and nothing in it."""
    EMPTY = "somebody else has an empty object"
    """As that, with status 200 and JSON's `{}`."""


class Fate(Enum):
    """What a peer does with a call."""

    DO = "do it and answer"
    UNHEARD = "do it, and break the connection off in place of an answer"
    CUT = "do nothing, and break the connection off"
    THROTTLED = "do nothing, and refuse it for the rate of calls"
    EXPIRED = "do nothing, and refuse its credentials"
    NO_PAGE = "do nothing, and answer with a page that says 404"
    NO_ROUTE = "do nothing, and answer with an object that says 404"
    PAGE = "do nothing, and answer with a page"
    SILENCE = "do nothing, and answer with status 200 alone"
    EMPTY = "do nothing, and answer with an empty object"


STRANGERS: Final = (Fault.NO_PAGE, Fault.NO_ROUTE, Fault.PAGE, Fault.SILENCE, Fault.EMPTY)
"""Faults that are no word of the platform's."""
HTML: Final = b"<html><head><title>Not here</title></head><body><h1>Not here</h1><p>Try again later.</p></body></html>"
ANSWERS: Final = {
    Fate.NO_PAGE: (404, HTML),
    Fate.NO_ROUTE: (404, b'{"message": "no Route matched with those values"}'),
    Fate.PAGE: (200, HTML),
    Fate.SILENCE: (200, b""),
    Fate.EMPTY: (200, b"{}"),
}
"""Status and body of what somebody else answers."""

_FATES: Final = {
    Fault.LOST: (Fate.UNHEARD, Fate.DO, Fate.DO),
    Fault.THROTTLED: (Fate.THROTTLED, Fate.DO, Fate.THROTTLED),
    Fault.EXPIRED: (Fate.EXPIRED, Fate.EXPIRED, Fate.EXPIRED),
    Fault.DIED: (Fate.UNHEARD, Fate.CUT, Fate.CUT),
    Fault.NO_PAGE: (Fate.NO_PAGE, Fate.NO_PAGE, Fate.NO_PAGE),
    Fault.NO_ROUTE: (Fate.NO_ROUTE, Fate.NO_ROUTE, Fate.NO_ROUTE),
    Fault.PAGE: (Fate.PAGE, Fate.PAGE, Fate.PAGE),
    Fault.SILENCE: (Fate.SILENCE, Fate.SILENCE, Fate.SILENCE),
    Fault.EMPTY: (Fate.EMPTY, Fate.EMPTY, Fate.EMPTY),
}
"""What becomes of the call that a fault is for, of the same one made again, and of others after it when they are made first."""


class Faults:
    """What a peer can make go wrong, and when. Safe to use from many threads.

    `kinds` are the faults that the peer can make. `midway` are those of them that are made at one call only, in the middle of a verb,
    where each call costs too much time. `codes` are the vendor's words that an error after a fault must have kept.
    """

    def __init__(self, *kinds: Fault, midway: Collection[Fault] = (), codes: Mapping[Fault, str] | None = None) -> None:
        self.kinds, self.midway = kinds, midway
        self.codes = dict(codes or {})
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._nth, self._number, self._last = 0, 0, ""

    @property
    def calls(self) -> int:
        """How many different calls there were since the last `arrange` or `heal`: one that follows itself, as a look does, is one."""
        return self._number

    @property
    def met(self) -> bool:
        """Whether the call that a fault was arranged for was made."""
        return self._fault is not None and self._number >= self._nth

    def attempt(self, platform: Platform, fault: Fault, nth: int, before: Callable[[Platform], object], run: Callable[[Platform], A]) -> A:
        """Does `before`, and then `run` with the fault at the nth call, in the process that meets it: here that of `platform`.

        Whoever is no more has raised PlatformUnavailable.
        """
        before(platform)
        self.arrange(fault, nth)
        return run(platform)

    def arrange(self, fault: Fault, nth: int) -> None:
        """From now on: the fault at the nth call, counted from 1, until `heal`."""
        with self._lock:
            self._fault, self._nth, self._number, self._last = fault, nth, 0, ""

    def heal(self) -> None:
        """All calls pass again."""
        with self._lock:
            self._fault, self._number, self._last = None, 0, ""

    def fate(self, call: str) -> Fate:
        """What the peer is to do with this call. `call` names it with what it is about, such as `DELETE /volumes/7`."""
        with self._lock:
            first, self._last = call != self._last, call
            self._number += first
            if self._fault is None or self._number < self._nth:
                return Fate.DO
            at, again, later = _FATES[self._fault]
            return again if not first else at if self._number == self._nth else later
