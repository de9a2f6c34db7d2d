"""Whose turn it is to do on a platform what the ledger intends: one broker's at a time, however long that takes.

Each broker on a ledger goes on with every stored intent, for the one that stored it may be dead. A turn is no lease: it is a lock that
dies with its process, on bytes of a file beside a SQLite ledger, and of a session on PostgreSQL. A session may end while its process
lives (the server restarts): so its holder asks whether it has its turn still before each thing that it does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import text

from storage.errors import PollyError
from storage.ledger.engine import Database
from storage.ledger.leadership import own_session

SPREAD: Final = 62
"""Bits of a lock's number: what a file's offsets and PostgreSQL's keys both have room for."""


class _Locks(Protocol):
    """Locks by numbers, all of one holder."""

    def lock(self, number: int) -> bool:
        """False if somebody else has it."""

    def unlock(self, number: int) -> None: ...

    def check(self) -> None:
        """Raises LedgerUnavailable where all of them are gone."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What was taken; to be ended once the result is stored."""

    end: Callable[[], None]
    is_held: Callable[[], bool]
    """Whether it has not ended by itself."""


class Turns:
    """Threads may share it. To this process itself a turn is no obstacle: its workers do one thing at a time for each volume."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._held: _Held | None = None

    def take(self, subject: str) -> Turn | None:
        """None if another process is at it. Raises LedgerUnavailable."""
        with self._guard:
            if self._held is not None:
                with suppress(PollyError):  # the session may have ended long ago; then a new one is begun
                    return self._take(subject)
            return self._take(subject)

    def _take(self, subject: str) -> Turn | None:
        held = self._held = self._held or _Held(_locks(self._database))
        try:
            taken = held.take(subject)
        except PollyError:
            self._drop(held)
            raise
        return Turn(end=lambda: self._end(held, subject), is_held=lambda: self._is_held(held)) if taken else None

    def _is_held(self, held: _Held) -> bool:
        with self._guard:
            if held is not self._held:
                return False  # the session has ended, and its locks with it
            try:
                held.locks.check()
            except PollyError:
                self._drop(held)
                return False
            return True

    def _end(self, held: _Held, subject: str) -> None:
        with self._guard:
            if held is not self._held:
                return
            try:
                held.give_back(subject)
            except PollyError:
                self._drop(held)

    def _drop(self, held: _Held) -> None:
        self._held = None
        held.locks.close()

    def close(self) -> None:
        """Ends every turn."""
        with self._guard:
            if self._held:
                self._drop(self._held)


class _Held:
    """How often each subject was taken with these locks."""

    def __init__(self, locks: _Locks) -> None:
        self.locks = locks
        self._times: Counter[str] = Counter()

    def take(self, subject: str) -> bool:
        if not self._times[subject] and not self.locks.lock(_number(subject)):
            return False
        self._times[subject] += 1
        return True

    def give_back(self, subject: str) -> None:
        self._times[subject] -= 1
        if not self._times[subject]:
            del self._times[subject]
            self.locks.unlock(_number(subject))


def _number(subject: str) -> int:
    return int.from_bytes(hashlib.sha256(f"polly turn {subject}".encode()).digest()[:8]) >> (64 - SPREAD)


def _locks(database: Database) -> _Locks:
    return _FileLocks(database) if database.path else _SessionLocks(database)


class _FileLocks:
    """Locks of single bytes of a file that stays empty. They belong to the open file, so two ledgers in one process are two holders."""

    def __init__(self, database: Database) -> None:
        path = f"{database.path}.turns"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            database.fail(f"{path}: {error.strerror}")

    def lock(self, number: int) -> bool:
        try:
            self._set(fcntl.F_WRLCK, number)
        except BlockingIOError:
            return False
        return True

    def unlock(self, number: int) -> None:
        self._set(fcntl.F_UNLCK, number)

    def check(self) -> None:
        """Nothing ends them but this process."""

    def _set(self, kind: int, number: int) -> None:
        """struct flock: type, whence, start, length, process."""
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, number, 1, 0))

    def close(self) -> None:
        os.close(self._descriptor)


class _SessionLocks:
    def __init__(self, database: Database) -> None:
        self._database = database
        with database.translated():
            self._connection = own_session(database)

    def lock(self, number: int) -> bool:
        return self._ask("SELECT pg_try_advisory_lock(:number)", number)

    def unlock(self, number: int) -> None:
        self._ask("SELECT pg_advisory_unlock(:number)", number)

    def check(self) -> None:
        """They live as long as the session answers."""
        with self._database.translated():
            self._connection.exec_driver_sql("SELECT 1")

    def _ask(self, question: str, number: int) -> bool:
        with self._database.translated():
            return bool(self._connection.execute(text(question), {"number": number}).scalar())

    def close(self) -> None:
        with suppress(*self._database.errors):
            self._connection.close()
