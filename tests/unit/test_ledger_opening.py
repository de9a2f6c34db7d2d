"""Opening a ledger: what is made, what is refused with a sentence, what is never shown, and that migrations make the schema."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

import storage.ledger.migrate
import storage.migrations
from storage import schema
from storage.errors import LedgerUnavailable
from storage.inventory import Ledger, open_ledger
from storage.ledger.migrate import upgrade
from tests.ledgers import assert_sound, furnish


def refused(url: str, **options: Any) -> LedgerUnavailable:
    with pytest.raises(LedgerUnavailable) as caught:
        open_ledger(url, **options)
    return caught.value


def test_a_new_file_is_its_owners_only(tmp_path: Path) -> None:
    was = os.umask(0)
    try:
        ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
        furnish(ledger)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(was)
    ledger.close()
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"), 0o600)


def test_it_survives_a_power_cut_as_far_as_sqlite_can(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    with ledger._database.writing() as session:
        settings = {
            name: session.connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    ledger.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_path_may_have_any_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "100% odd & strange é"
    folder.mkdir()
    monkeypatch.chdir(folder)
    ledger = open_ledger("sqlite:///led ger#1.db")
    furnish(ledger)
    ledger.close()
    again = open_ledger(f"sqlite:///{folder}/led ger#1.db", read_only=True)
    assert len(again.pools()) == 1
    again.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "no database URL"),
        ("", "no database URL"),
        ("mysql://polly:secret@db/polly", "a ledger is in SQLite"),
        ("sqlite://", "a ledger is a file"),
        ("sqlite:///:memory:", "a ledger is a file"),
        ("sqlite:///file:x?mode=memory", "a ledger is a file"),
        ("sqlite:////ledger.db?mode=ro", "nothing else"),
        ("sqlite:////no/such/folder/ledger.db", "No such file or directory"),
        ("sqlite:////proc/ledger.db", "No such file or directory"),
        ("postgresql://polly:secret@127.0.0.1:1/polly", "refused"),
        ("postgresql://polly@127.0.0.1:1/polly?password=secret", "refused"),
        ("postgresql://polly:s%65cret@/polly?host=/no/such/socket", "No such file"),
        ("postgresql://polly:secret@127.0.0.1:1/polly?nonsense=secret", "nonsense"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(url: str, reason: str) -> None:
    error = refused(url)
    assert reason in str(error)
    assert "\n" not in str(error)
    assert "secret" not in str(error).replace("nonsense=secret", "")
    assert error.advice.startswith("Check the --database URL")


def test_a_password_is_never_shown(postgresql_url: str) -> None:
    with_password = postgresql_url.replace("polly@", "polly:s3cr%23t@")
    ledger = open_ledger(with_password)
    try:
        shown = [ledger.url, repr(ledger), repr(ledger._database), repr(ledger._database.writer), repr(ledger._database.reader)]
    finally:
        ledger.close()
    assert all("s3cr" not in text and "127.0.0.1" in text for text in shown)
    error = refused(re.sub(r"/polly_\d+$", "/absent", with_password))
    assert "s3cr" not in f"{error} {error!r} {error.fields}"
    assert "does not exist" in str(error)


def test_a_folder_or_a_strange_file_is_no_ledger(tmp_path: Path) -> None:
    assert "Is a directory" in str(refused(f"sqlite:///{tmp_path}")) or "unable to open" in str(refused(f"sqlite:///{tmp_path}"))
    (tmp_path / "text.db").write_text("this is not a database, however long it is" * 100)
    assert "not a database" in str(refused(f"sqlite:///{tmp_path}/text.db"))
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    assert "another program's" in str(refused(f"sqlite:///{tmp_path}/other.db"))
    assert "another program's" in str(refused(f"sqlite:///{tmp_path}/other.db", read_only=True))


def test_without_permission_it_says_so(tmp_path: Path) -> None:
    """In a process that is not root, which may do everything."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.close()
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    program = (
        "import os, sys\n"
        "from storage.inventory import open_ledger\n"
        "from storage.errors import LedgerUnavailable\n"
        "if os.geteuid() == 0:\n    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    open_ledger(sys.argv[1])\n"
        "except LedgerUnavailable as error:\n    print(error)\n"
    )
    for parent in tmp_path.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    said = subprocess.run([sys.executable, "-c", program, f"sqlite:///{tmp_path}/ledger.db"], capture_output=True, text=True, check=True)
    tmp_path.chmod(0o755)
    assert "ermission" in said.stdout, said


def test_reading_only_makes_and_migrates_nothing(ledger_url: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    error = refused(ledger_url, read_only=True)
    assert "no such file" in str(error) or "holds no ledger yet" in str(error)
    assert sorted(tmp_path.iterdir()) == before


def test_reading_only_writes_nothing(ledger_url: str) -> None:
    writer = open_ledger(ledger_url)
    furnish(writer)
    reader = open_ledger(ledger_url, read_only=True)
    assert [pool.name for pool in reader.pools()] == ["p"]
    with pytest.raises(LedgerUnavailable, match="reading only"), reader.begin("me"):
        pytest.fail("a transaction was opened")
    with pytest.raises(LedgerUnavailable), reader._database.reading() as session:
        session.execute(text("DELETE FROM pools"))
    assert len(writer.pools()) == 1
    reader.close()
    writer.close()


@pytest.mark.parametrize(("found", "reason"), [("9999", "newer than this Polly"), ("0000", "older than this Polly")])
def test_a_ledger_of_another_polly_is_not_read(ledger: Ledger, ledger_url: str, found: str, reason: str) -> None:
    with ledger._database.writing() as session:
        session.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{found}'"))  # noqa: S608  # names of our own
    assert reason in str(refused(ledger_url, read_only=True))
    if found > schema.REVISION:
        assert reason in str(refused(ledger_url))


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    assert_sound(ledger)
    ledger.close()
    ledger.close()


def test_a_migration_that_fails_leaves_nothing(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(connection: Connection) -> None:
        upgrade(connection)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(storage.ledger.migrate, "upgrade", fails)
        with pytest.raises(ZeroDivisionError):
            open_ledger(ledger_url)
    assert "holds no ledger yet" in str(refused(ledger_url, read_only=True))
    ledger = open_ledger(ledger_url)
    assert_sound(ledger)
    ledger.close()


def test_many_open_a_new_ledger_at_once(ledger_url: str) -> None:
    """Each in a process of its own; all get the same one."""
    program = (
        "import sys\nfrom storage.inventory import open_ledger\n"
        "sys.stdin.read()\nledger = open_ledger(sys.argv[1])\n"
        "with ledger.begin(sys.argv[2]) as tx:\n    tx.note('opened')\nledger.close()\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, ledger_url, str(number)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    for process in started:
        process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
    errors = [process.stderr.read() for process in started if process.stderr]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0], errors
    ledger = open_ledger(ledger_url, read_only=True)
    assert sorted(event.actor for event in ledger.events().items) == ["0", "1", "2", "3"]
    ledger.close()
    for process in started:
        process.stderr.close()  # type: ignore[union-attr]  # it is a pipe


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    def write(number: int) -> None:
        for turn in range(10):
            with ledger.begin(f"thread {number}") as tx:
                tx.note(f"turn {turn}")
            ledger.events(limit=1)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.events().items) == 40


def test_the_newest_migration_is_the_schemas() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(storage.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_migrations_make_what_the_models_say(ledger_url: str) -> None:
    """Not only as Alembic sees it: constraints, partial indexes and collations too, as the database itself tells them."""
    url = ledger_url.replace("sqlite:///", "sqlite+pysqlite:///")
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, schema.metadata) == []
        migrated = structure(connection)
        for table in inspect(connection).get_table_names():
            connection.execute(text(f"DROP TABLE {table} CASCADE" if engine.name == "postgresql" else f"DROP TABLE {table}"))
        schema.metadata.create_all(connection)
        assert structure(connection) == migrated
    engine.dispose()


def structure(connection: Connection) -> list[str]:
    """Every table, index and constraint in the database's own words."""
    if connection.dialect.name == "sqlite":
        found = connection.execute(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")).scalars()
        made = [_parts(" ".join(sql.split())) for sql in found if schema.VERSION_TABLE not in sql]
        return sorted(made)
    found = connection.execute(
        text(
            "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' "
            "UNION ALL SELECT table_name || ' ' || column_name || ' ' || data_type || coalesce(collation_name, '') || is_nullable "
            "FROM information_schema.columns WHERE table_schema = 'public'"
        )
    ).scalars()
    return sorted(line for line in found if schema.VERSION_TABLE not in line)


def _parts(sql: str) -> str:
    """A table's parts in one order, for the order of its constraints means nothing."""
    head, _, body = sql.partition(" ( ")
    parts = (part.strip() for part in re.split(r", (?=CONSTRAINT|[a-z_]+ [A-Z])", body.rpartition(")")[0]))
    return " ".join([head, *sorted(parts), sql.rpartition(")")[2]])


def test_postgresql_leaves_room_for_the_next_version_of_what_claims_change(postgresql_url: str) -> None:
    ledger = open_ledger(postgresql_url)
    try:
        with ledger._database.reading() as session:
            query = text("SELECT relname, reloptions FROM pg_class WHERE relname IN ('volumes', 'claims', 'placements') ORDER BY 1")
            found = {row[0]: row[1] for row in session.all(query)}
    finally:
        ledger.close()
    assert found == {table: ["fillfactor=50"] for table in ("claims", "placements", "volumes")}
