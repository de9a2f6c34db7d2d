"""The real servers that tests talk to, from Debian's packages, on the loopback interface: PostgreSQL and ZooKeeper.

Each dies with the thread that started it, whatever ends that, and keeps its files in a folder of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
from kazoo.client import KazooClient
from psycopg import sql

from tests.ports import free_port, give_back
from tests.support import eventually

PR_SET_PDEATHSIG = 1
ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")


class Missing(Exception):
    """The server's program is not on this machine; the message names the Debian package that has it."""


class Postgres:
    """A PostgreSQL server with any number of empty databases. Unless it is `durable`, it takes no care to survive a power cut."""

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self._bin = self.programs()
        self._user = None if os.geteuid() else _first_user("postgres", "nobody")
        self._folder = Path(tempfile.mkdtemp(prefix="polly-postgres-"))
        self._names = itertools.count(1)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def programs() -> Path:
        """The folder of the newest version that is installed. Raises Missing."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
        if found := versions[-1] if versions else shutil.which("initdb"):
            return Path(found).parent
        raise Missing("PostgreSQL's initdb (Debian: postgresql)")

    def start(self) -> Postgres:
        """Makes the database cluster and returns when the server answers."""
        if self._user:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        options = ["--username=polly", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._popen("initdb", "-D", self._folder / "data", *options).communicate()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            "shared_buffers": "256MB" if self._durable else "32MB",
            "max_connections": 60,
            **dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit"), "on" if self._durable else "off"),
        }
        self._process = self._popen("postgres", "-D", self._folder / "data", *(f"--{name}={value}" for name, value in settings.items()))
        eventually(self._answers, 30, f"PostgreSQL starts, {self._log()}")
        return self

    def stop(self) -> None:
        """Ends the server and removes its folder."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        give_back(self.port)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def create_database(self, template: str = "template0") -> str:
        """Makes a database of a new name and returns the name."""
        name = f"polly_{next(self._names)}"
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drops it under whoever is still connected."""
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def dump(self, name: str) -> str:
        """The database as SQL, for `load`."""
        return self._client("pg_dump", name, "--no-owner", "--no-privileges")

    def load(self, name: str, text: str, **variables: str) -> None:
        """Runs SQL in the database, with psql's variables."""
        given = [f"--set={key}={value}" for key, value in {"ON_ERROR_STOP": "1", **variables}.items()]
        self._client("psql", name, "--no-psqlrc", "--quiet", *given, "--file=-", text=text)

    def url(self, name: str) -> str:
        """What SQLAlchemy calls the database."""
        return f"postgresql+psycopg://polly@127.0.0.1:{self.port}/{name}"

    def _client(self, program: str, database: str, *options: str, text: str = "") -> str:
        where = ["--host=127.0.0.1", f"--port={self.port}", "--username=polly", f"--dbname={database}"]
        return subprocess.run([self._bin / program, *where, *options], input=text, capture_output=True, text=True, check=True).stdout

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(host="127.0.0.1", port=self.port, user="polly", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    def _answers(self) -> bool:
        if self._process and self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {self._log()}")
        with contextlib.suppress(psycopg.OperationalError):
            self._run(sql.SQL("{}").format(sql.SQL("SELECT 1")))
            return True
        return False

    def _log(self) -> str:
        log = self._folder / "log"
        return "".join(log.read_text().splitlines(keepends=True)[-10:]) if log.exists() else "no log"

    def _popen(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen(
                [self._bin / program, *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent(signal.SIGQUIT),
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )


class ZooKeeper:
    """A ZooKeeper server of one node; `address` stays the same when it is killed and started again."""

    def __init__(self) -> None:
        if not shutil.which("java"):
            raise Missing("java (Debian: default-jre-headless)")
        if not ZOOKEEPER_JAR.exists():
            raise Missing("ZooKeeper (Debian: zookeeper)")
        self._folder = Path(tempfile.mkdtemp(prefix="polly-zookeeper-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._configuration = self._folder / "zoo.cfg"
        self._configuration.write_text(
            f"dataDir={self._folder}/data\nclientPort={self._port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
            "4lw.commands.whitelist=ruok,envi,stat,srvr\ntickTime=500\nmaxClientCnxns=0\nforceSync=no\n"
        )

    def start(self) -> ZooKeeper:
        """Returns when the server serves clients; it listens a moment earlier, and a client that comes then is left to wait."""
        arguments = ["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{self._folder}:{ZOOKEEPER_JAR}"]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["java", *arguments, "org.apache.zookeeper.server.quorum.QuorumPeerMain", self._configuration],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent(signal.SIGKILL),
            )
        eventually(self._serves, 30, "ZooKeeper serves")
        return self

    def kill(self) -> None:
        """Ends it as a crash would; what was written is there when it starts again."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def announce(self, master: str, path: str = "/mesos") -> str:
        """Writes down a Mesos master (HOST:PORT) as the leader, as it would itself; returns the zk:// address to look there.

        Masters that were announced before lose to it, as those whose session ended.
        """
        host, _, port = master.rpartition(":")
        info = {"address": {"ip": host, "port": int(port), "hostname": host}, "hostname": host, "port": int(port), "id": master}
        client = KazooClient(self.address)
        client.start(timeout=10)
        try:
            client.ensure_path(path)
            for name in client.get_children(path):
                client.delete(f"{path}/{name}")
            client.create(f"{path}/json.info_", json.dumps(info).encode(), sequence=True)
        finally:
            client.stop()
            client.close()
        return f"zk://{self.address}{path}"

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        give_back(self._port)

    def _serves(self) -> bool:
        with socket.create_connection(("127.0.0.1", self._port), timeout=2) as connection, connection.makefile("rb") as answer:
            connection.sendall(b"srvr")
            return b"Mode: standalone" in answer.read()


def _first_user(*names: str) -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in names if name in known)


def _die_with_parent(how: signal.Signals) -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def before_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, how, 0, 0, 0)

    return before_exec
