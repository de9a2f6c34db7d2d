"""The connections to the ledger's database, and what may go wrong with them. Knows no table.

Every failure of the database itself comes out as LedgerUnavailable with the URL as it may be shown, and so does a lock that
does not come: it says nothing against what was to be stored. A broken constraint and a deadlock are a Conflict, what no
database can store is Invalid. After an error the connection is thrown away, so that nothing of a
broken transaction can reach the next one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote, quote_plus

from sqlalchemy import Connection, Engine, Executable, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from storage.errors import Conflict, Invalid, LedgerUnavailable, LostRace, PollyError
from storage.ledger.beside import Beside
from storage.ledger.bulk import Batch, Lookup

BUSY_S: Final = 10
"""How long a writer waits for another process that writes."""
STOPPED_S: Final = 30
"""How long PostgreSQL waits for a writer that has stopped in a transaction, such as one whose machine is suspended, before it ends that
session: others wait for its locks, and the kernel there may answer for it without end."""
CACHE_KIB: Final = 64 * 1024
CHECKPOINT_PAGES: Final = 16_384
"""How many pages (64 MiB) the write-ahead log may gather before they go to the database file: fewer, larger write-backs."""
UNSTORABLE: Final = (UnicodeEncodeError, OverflowError)
"""What a driver raises for half a surrogate pair, and for an integer of more than 64 bits."""
LOST_RACES: Final = {"40001", "40P01"}
"""PostgreSQL's codes of a serialisation failure and a deadlock: at once the same may go well."""
UNPREPARED: Final = {"prepare": False}
"""For psycopg after an error in a pipeline: what it has prepared there the server may have passed over."""


class Database:
    """One ledger's database: a pool of writing and one of reading connections."""

    def __init__(self, url: str, *, read_only: bool) -> None:
        self.url = _checked(url)
        self.shown = self.url.render_as_string(hide_password=True)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database or "").absolute() if self.is_sqlite else None
        self.read_only = read_only
        self._make()

    def __repr__(self) -> str:
        return f"Database({self.shown})"

    def _make(self) -> None:
        if self.path:
            mode = "ro" if self.read_only else "rw"
            self.writer = _sqlite_engine(self.path, mode, writes=True)
            self.reader = _sqlite_engine(self.path, mode, writes=False)
        else:
            waits = (f"lock_timeout = '{BUSY_S}s'", f"idle_in_transaction_session_timeout = {round(STOPPED_S * 1000)}")
            self.writer = _postgresql_engine(self.url, "READ COMMITTED", *waits)
            reader = _postgresql_engine(self.url, "REPEATABLE READ", "plan_cache_mode = force_custom_plan")
            self.reader = reader.execution_options(postgresql_readonly=True)
        self._driver: Any = self.writer.dialect.loaded_dbapi
        self.beside = Beside()
        self.errors: tuple[type[Exception], ...] = (exc.SQLAlchemyError, self._driver.Error)
        self.refusals = (*self.errors, *UNSTORABLE)
        """What a statement may raise."""

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction that writes: committed at the end, rolled back on any exception."""
        if self.read_only:
            self.fail("it was opened for reading only")
        with self._session(self.writer) as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that sees the ledger as of one moment and blocks nobody."""
        with self._session(self.reader) as session:
            yield session

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        with self.translated(), engine.connect() as connection:
            try:
                with connection.begin(), closing(Session(self, connection)) as session:
                    yield session
                    if session.failed:
                        raise session.failed
            except Exception as error:
                if isinstance(error, (*self.errors, LedgerUnavailable)):
                    connection.invalidate()
                raise
            if session.is_doubtful:
                connection.invalidate()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turns the database's errors into Polly's."""
        try:
            yield
        except self.errors as error:
            raise self.translate(error) from error

    def translate(self, error: Exception) -> PollyError:
        """The error to raise for one of the database's driver, or for one that SQLAlchemy has put around it."""
        reason, cause = self._scrubbed(error), getattr(error, "orig", None) or error
        if isinstance(cause, self._driver.IntegrityError):
            return Conflict(what="the ledger", expected="rows that its constraints allow", found=reason)
        if isinstance(cause, (self._driver.DataError, *UNSTORABLE)):
            return Invalid(field="a value", value="", reason=f"the ledger cannot store it: {reason}")
        if getattr(cause, "sqlstate", None) in LOST_RACES:
            return LostRace(url=self.shown, reason=reason)
        return LedgerUnavailable(url=self.shown, reason=reason)

    def fail(self, reason: str) -> NoReturn:
        raise LedgerUnavailable(url=self.shown, reason=reason)

    def _scrubbed(self, error: Exception) -> str:
        said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        reason = said.splitlines()[0]
        password = str(self.url.password or "")
        for form in {password, quote(password, safe=""), quote_plus(password)} - {""}:
            reason = reason.replace(form, "***")
        return reason

    def close(self) -> None:
        """Closes every connection; SQLite brings its statistics up to date first."""
        if self.is_sqlite and not self.read_only:
            with suppress(PollyError), self.writing() as session:
                session.connection.exec_driver_sql("PRAGMA analysis_limit = 400")
                session.connection.exec_driver_sql("PRAGMA optimize")
        self.beside.close()
        self.writer.dispose()
        self.reader.dispose()


class Session:
    """What the ledger's code does with one open transaction. Raises Polly's errors only.

    Once something has `failed` outside a savepoint, the transaction is not committed, even if the caller swallows the error.
    """

    __slots__ = ("_cursor", "_database", "_options", "_saved", "_sent", "_unmet", "connection", "failed", "is_sqlite")

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._saved = 0
        self._unmet = False
        self._sent: list[tuple[Any, int]] | None = None
        """Within `ahead` on PostgreSQL: the cursors of statements that are on their way, and how many rows each must change."""
        self.connection = connection
        self._cursor: Any = connection.connection.cursor()
        self.is_sqlite = database.is_sqlite
        self.failed: PollyError | None = None
        self._options: dict[str, bool] = {}
        """For the driver's `execute`, of statements that may be sent ahead too."""

    @property
    def is_doubtful(self) -> bool:
        """Whether the connection must not be used for another transaction, for the driver does not know what is prepared on it."""
        return bool(self._options)

    def close(self) -> None:
        """A statement that an error's traceback keeps alive would keep its connection, and so the file, open."""
        self._cursor.close()

    def _raise(self, error: Exception) -> NoReturn:
        translated = self._database.translate(error)
        if not self._saved:
            self.failed = translated
        raise translated from error

    def run(self, batch: Batch, rows: Sequence[tuple[Any, ...]]) -> int:
        """Runs one statement for many rows, each in the order of the batch's columns; the number of rows that it changed."""
        if not rows:
            return 0
        try:
            if self.is_sqlite:
                if at_once := batch.sqlite_at_once(rows):
                    return int(self._cursor.execute(*at_once).rowcount)
                return int(self._cursor.executemany(batch.sqlite, rows).rowcount)
            return int(self._cursor.execute(*batch.postgresql_at_once(rows), **self._options).rowcount)
        except self._database.refusals as error:
            self._raise(error)

    def expect(self, batch: Batch, rows: Sequence[tuple[Any, ...]]) -> None:
        """Runs a statement that must change as many rows as it is given; whether all did, `is_as_expected` tells after `ahead`."""
        if self._sent is None:
            self._unmet |= self.run(batch, rows) != len(rows)
        elif rows:
            try:
                self._send(self._sent, *batch.postgresql_at_once(rows), len(rows))
            except self._database.refusals as error:  # maybe of a statement before
                self._raise(error)

    def _send(self, sent: list[tuple[Any, int]], sql: str, parameters: Any, rows: int) -> None:
        sent.append((self.connection.connection.cursor().execute(sql, parameters, **self._options), rows))

    @property
    def is_as_expected(self) -> bool:
        """Whether every statement since `ahead` began has changed as many rows as it was to."""
        return not self._unmet

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Within it PostgreSQL is sent what is expected without a wait for the answer to the statement before, so that it never waits
        for this program's turn either (libpq's pipeline mode). An error may be raised by a later statement, or by the end.
        """
        self._unmet = False
        if self.is_sqlite:
            yield
            return
        failed: Exception | None = None
        sent: list[tuple[Any, int]] = []
        self._sent = sent
        try:
            with self.connection.connection.dbapi_connection.pipeline():  # type: ignore[union-attr]  # psycopg's, while it is open
                try:
                    yield
                except Exception as error:
                    failed = error  # the pipeline's own end may fail for the same reason, and would hide it
                    self._options = UNPREPARED
        except self._database.refusals as error:
            self._options = UNPREPARED
            if failed is None:
                self._raise(error)
        finally:
            self._sent = None
        if failed is not None:
            raise failed
        self._unmet |= any(cursor.rowcount != rows for cursor, rows in sent)

    def find(self, lookup: Lookup, keys: Sequence[str]) -> list[Any]:
        """The rows that a lookup finds for these keys, as tuples."""
        found: list[Any] = []
        try:
            for sql, parameters in lookup.calls(keys, sqlite=self.is_sqlite):
                found.extend(self._cursor.execute(sql, parameters, **self._options).fetchall())
        except self._database.refusals as error:
            self._raise(error)
        return found

    def lock(self, lookup: Lookup, keys: Sequence[str]) -> None:
        """Locks the rows that a lookup finds for these keys. On SQLite the whole ledger is the transaction's already."""
        if keys and not self.is_sqlite:
            if self._sent is None:
                self.find(lookup, keys)
            else:
                try:
                    for sql, parameters in lookup.calls(keys, sqlite=False):
                        self._send(self._sent, sql, parameters, 1)
                except self._database.refusals as error:
                    self._raise(error)

    def alone_in(self, table: str) -> None:
        """Until the transaction ends nobody else writes to the table. On SQLite nobody does anyway."""
        if not self.is_sqlite:
            self._plainly(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")

    def execute(self, statement: Executable) -> int:
        """Runs a statement; the number of rows that it changed."""
        try:
            return self.connection.execute(statement).rowcount
        except self._database.refusals as error:
            self._raise(error)

    def all(self, statement: Executable) -> Sequence[Any]:
        try:
            return self.connection.execute(statement).all()
        except self._database.refusals as error:
            self._raise(error)

    def first(self, statement: Executable) -> Any:
        rows = self.all(statement)
        return rows[0] if rows else None

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is done inside is undone when it raises; what was before stays."""
        self._saved += 1
        name = f"saved_{self._saved}"
        try:
            self._plainly(f"SAVEPOINT {name}")
            try:
                yield
            except Exception:
                self._plainly(f"ROLLBACK TO SAVEPOINT {name}")
                raise
            finally:
                self._plainly(f"RELEASE SAVEPOINT {name}")
        finally:
            self._saved -= 1

    def _plainly(self, sql: str) -> None:
        try:
            self._cursor.execute(sql)
        except self._database.refusals as error:
            self._raise(error)


def _checked(url: str) -> URL:
    """The URL with its driver, and with a password only where it is hidden when shown."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        shown = url.partition("://")[0] + "://..." if "://" in url else "named"
        reason = "it is no database URL, such as sqlite:////var/lib/polly/polly.db"
        if url.startswith(("/", "./", "../")):
            shown, reason = url, f"a file is named by sqlite:///{Path(url).absolute()}"
        raise LedgerUnavailable(url=shown, reason=reason) from error
    backend = parsed.drivername.partition("+")[0]
    if backend == "sqlite":
        return _checked_sqlite(parsed)
    if backend not in ("postgresql", "postgres"):
        raise LedgerUnavailable(
            url=parsed.render_as_string(), reason="a ledger is in SQLite (sqlite:///FILE) or PostgreSQL (postgresql://...)"
        )
    if password := parsed.query.get("password"):
        parsed = parsed.set(password=password if isinstance(password, str) else password[0]).difference_update_query(["password"])
    return parsed.set(drivername="postgresql+psycopg")


def _checked_sqlite(url: URL) -> URL:
    shown = url.render_as_string()
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise LedgerUnavailable(url=shown, reason="a ledger is a file: sqlite:///FILE, or sqlite:////ABSOLUTE/FILE")
    if url.host or url.username or url.query:
        raise LedgerUnavailable(url=shown, reason="a SQLite URL has a file and nothing else: sqlite:///FILE")
    return url.set(drivername="sqlite")


def _sqlite_engine(path: Path, mode: str, *, writes: bool) -> Engine:
    address = f"file:{quote(os.fspath(path))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        settings = [f"cache_size = -{CACHE_KIB}", "temp_store = MEMORY"]
        settings += (
            ["synchronous = FULL", "foreign_keys = ON", f"wal_autocheckpoint = {CHECKPOINT_PAGES}"] if writes else ["query_only = ON"]
        )
        for setting in settings:
            connection.execute(f"PRAGMA {setting}")
        return connection

    size = {"pool_size": 1, "max_overflow": 0} if writes else {"pool_size": 4, "max_overflow": 28}
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_timeout=BUSY_S, hide_parameters=True, **size)
    _begin_with(engine, "BEGIN IMMEDIATE" if writes else "BEGIN")
    return engine


def _begin_with(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)


def _postgresql_engine(url: URL, isolation: Any, *settings: str) -> Engine:
    """`settings` are each connection's. Readers plan every query anew: a page's plan must know its limit and where it begins."""
    waits = {} if "connect_timeout" in url.query else {"connect_timeout": BUSY_S}
    try:
        engine = create_engine(url, isolation_level=isolation, pool_pre_ping=True, hide_parameters=True, connect_args=waits)
    except ImportError as error:
        reason = "PostgreSQL needs the Python package psycopg; install it with: pip install 'polly-broker[postgresql]'"
        raise LedgerUnavailable(url=url.render_as_string(), reason=reason) from error

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            for setting in settings:
                cursor.execute(f"SET {setting}")
        connection.commit()

    return engine
