"""Processes that die at a call of their own to the kernel: what a lost reply is to a platform on a network, for one that has none."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from storage.errors import PlatformUnavailable
from storage.platforms.base import Platform
from storage.platforms.faulting import Fate, Fault, Faults

CHANGES: Final = frozenset(
    {"open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate", "os.setxattr", "fcntl.ioctl"}
)
"""Python's audit events of calls that may leave something half done; `open` also of what is only read."""
ENDED, DIED, FAILED = 0, 3, 4
A = TypeVar("A")


class Mortal(Faults):
    """A child does what an adapter does, up to the chosen call and not beyond it. `make` gives the child an adapter of its own."""

    def __init__(self, make: Callable[[], Platform]) -> None:
        super().__init__(Fault.DIED)
        self._make = make
        self._died = False

    @property
    def met(self) -> bool:
        return self._died

    def attempt(self, platform: Platform, fault: Fault, nth: int, before: Callable[[Platform], object], run: Callable[[Platform], A]) -> A:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pytest's own threads hold nothing that the child needs
            child = os.fork()
        if child == 0:
            self._live(fault, nth, before, run)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (ENDED, DIED), "the process has failed by itself: its words are above"
        self._died = status == DIED
        if self._died:
            raise PlatformUnavailable(platform=platform.name, action="go on", reason="the process is no more")
        return super().attempt(platform, fault, nth, before, run)

    def _live(self, fault: Fault, nth: int, before: Callable[[Platform], object], run: Callable[[Platform], object]) -> NoReturn:
        try:
            mine = self._make()
            before(mine)
            self.arrange(fault, nth)
            sys.addaudithook(self._meet)
            run(mine)
            os._exit(DIED if self.calls >= nth else ENDED)
        except BaseException:
            traceback.print_exc()
            os._exit(FAILED)

    def _meet(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and self.fate(f"{event} {arguments[0]}") is Fate.CUT:
            os._exit(DIED)
