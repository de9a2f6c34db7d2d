"""One leader for each scheduler of a ledger. The lock dies with its holder; a term keeps out a leader that has lost it.

The lock is flock on a file beside a SQLite ledger and an advisory lock of a session on PostgreSQL. A session can end
while its process lives (the server restarts, the network fails), so each leader also takes the next term, and every
transaction of a leader checks that its term is still the newest.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, exc, select, text
from sqlalchemy.pool import NullPool

from storage import schema
from storage.errors import AlreadyLed
from storage.ledger.bulk import Lookup, insert
from storage.ledger.engine import BUSY_S, Database, Session

TAKE: Final = insert(
    "leaders",
    ("scheduler", "who", "since"),
    fixed={"term": "1"},
    tail="ON CONFLICT (scheduler) DO UPDATE SET term = leaders.term + 1, who = excluded.who, since = excluded.since",
)
TERM: Final = Lookup("SELECT scheduler, term, who FROM leaders WHERE scheduler {among} {share}")


@contextmanager
def led(database: Database, scheduler: str, who: str, now: float) -> Iterator[int]:
    """Leads the scheduler for as long as the block lasts; gives the term. Raises AlreadyLed."""
    lock = _file_lock(database, scheduler) if database.path else _session_lock(database, scheduler)
    with lock:
        with database.writing() as session:
            session.run(TAKE, [(scheduler, who, now)])
            term, _ = _newest(session, [scheduler])[scheduler]
        yield term


def check_terms(session: Session, terms: dict[str, int]) -> None:
    """Raises AlreadyLed if another leader has come; until the transaction ends none can come."""
    if not terms:
        return
    newest = _newest(session, list(terms))
    for scheduler, term in terms.items():
        found, who = newest[scheduler]
        if found != term:
            raise AlreadyLed(scheduler=scheduler, holder=who)


def _newest(session: Session, schedulers: list[str]) -> dict[str, tuple[int, str]]:
    return {scheduler: (term, who) for scheduler, term, who in session.find(TERM, schedulers)}


def _refused(database: Database, scheduler: str) -> AlreadyLed:
    with database.reading() as session:
        row = session.first(select(schema.leaders.c.who).where(schema.leaders.c.scheduler == scheduler))
    return AlreadyLed(scheduler=scheduler, holder=row.who if row else "just starting")


@contextmanager
def _file_lock(database: Database, scheduler: str) -> Iterator[None]:
    path = Path(f"{database.path}.{quote(scheduler, safe='')}.leader")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        database.fail(f"{path}: {error.strerror}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise _refused(database, scheduler) from None
    finally:
        os.close(descriptor)


@contextmanager
def _session_lock(database: Database, scheduler: str) -> Iterator[None]:
    key = int.from_bytes(hashlib.sha256(f"polly leader {scheduler}".encode()).digest()[:8], "big", signed=True)
    try:
        with database.translated(), own_session(database) as connection:
            if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
                raise _refused(database, scheduler)
            yield
    except exc.SQLAlchemyError as error:
        raise database.translate(error) from error


def own_session(database: Database) -> Connection:
    """A session of PostgreSQL's for locks that live as long as it; the server notices within half a minute when its machine is gone.

    Raises the driver's errors.
    """
    waits = {} if "connect_timeout" in database.url.query else {"connect_timeout": BUSY_S}
    engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=waits)
    connection = engine.connect()
    try:
        for setting in ("tcp_keepalives_idle = 10", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3"):
            connection.exec_driver_sql(f"SET {setting}")
    except BaseException:
        connection.close()
        raise
    return connection
