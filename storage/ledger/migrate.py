"""Bringing a ledger's schema up to date before it is used, one process at a time. Alembic is loaded only if there is something to do."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

import storage.migrations
from storage.ledger.engine import Database
from storage.schema import REVISION, VERSION_TABLE

LOCK_KEY: Final = int.from_bytes(hashlib.sha256(b"polly ledger migration").digest()[:8], "big", signed=True)
PATIENCE: Final = "120s"


def prepare(database: Database) -> None:
    """Makes or migrates the schema; of a ledger opened for reading it only checks it. Raises LedgerUnavailable."""
    if database.path and not database.read_only:
        with _alone(database, Path(f"{database.path}.lock")):
            _make_file(database, database.path)
            _bring_up(database)
    elif database.read_only:
        _check(database)
    else:
        _bring_up(database)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Runs the migrations inside the connection's open transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(storage.migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _bring_up(database: Database) -> None:
    with database.writing() as session:
        found = _revision(session.connection)
        if found == REVISION:
            return
    with database.writing() as session, database.translated():
        connection = session.connection
        if not database.is_sqlite:
            connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        _refuse_strange(database, connection, _revision(connection))
        upgrade(connection)


def _check(database: Database) -> None:
    if database.path and not database.path.exists():
        database.fail("there is no such file")
    with database.reading() as session, database.translated():
        found = _revision(session.connection)
        _refuse_strange(database, session.connection, found)
    if found is None:
        database.fail("it holds no ledger yet; a broker that is started on it makes one")
    if found != REVISION:
        database.fail(f"its schema {found} is older than this Polly's {REVISION}; a broker that is started on it brings it up to date")


def _refuse_strange(database: Database, connection: Connection, found: str | None) -> None:
    if found is not None and found > REVISION:
        database.fail(f"its schema {found} is newer than this Polly's {REVISION}; use the Polly that made it")
    if found is None and database.is_sqlite and inspect(connection).get_table_names():
        database.fail("it is another program's database")


def _revision(connection: Connection) -> str | None:
    """The revision of the schema; None where there is no ledger."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608  # a constant of ours


@contextmanager
def _alone(database: Database, path: Path) -> Iterator[None]:
    """Waits for other processes that are just opening this ledger. The kernel drops the lock of one that dies."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        database.fail(f"{path}: {error.strerror}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_file(database: Database, path: Path) -> None:
    """The file, for its owner only from the first moment on, in write-ahead mode."""
    try:
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        elif not os.access(path, os.R_OK | os.W_OK):
            database.fail(f"{path}: no permission to read and write it")
    except OSError as error:
        database.fail(f"{path}: {error.strerror}")
    try:
        connection = sqlite3.connect(path, timeout=10, isolation_level=None)
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        database.fail(str(error))
    if mode != "wal":
        database.fail(f"its filesystem does not allow SQLite's write-ahead log (journal mode {mode})")
