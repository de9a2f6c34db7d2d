#!/usr/bin/env python3
"""A real Apache Mesos cluster on this machine, for tests and demos: one master and any number of agents.

Apache published its native library on the Python package index, as mesos.scheduler (x86-64 Linux; 1.8.1, 1.9.0,
1.10.0 and 1.11.0 run here, older ones want a libevent that is gone). This module fetches it by name, compiles a small launcher around it (mesos_node.cc; needs g++ and
binutils) and runs each master or agent as a process of its own, which a test can kill and start again.

    with MesosCluster(agents=2) as cluster:
        ... MesosSchedulerDriver(scheduler, framework, cluster.master.address) ...
        cluster.agents[0].kill(); cluster.agents[0].start()

From a shell: `python mesos_cluster.py --agents 2` runs one in the foreground until Ctrl-C.

What differs from a packaged cluster: an executor's container is a plain process (mesos-containerizer, beside
this file, stands in for the helper program and isolates nothing), there is no built-in command executor, no
fetcher (a CommandInfo must have no uris), and no TLS. Everything that the master decides (offers, allocation,
operations, reconciliation, failover, operator API) is Mesos itself.
Requires: pypi-simple.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mesos-cluster"
DEFAULT_VERSION = "1.11.0"

# Shared libraries that the published binary wants and a current system lacks: the library's name, what it
# calls there by symbol version or by prefix. TLS and the fetcher are never used, so each call does nothing.
ALWAYS_MISSING = {
    "libssl.so.1.0.0": re.compile(r"(SSL_|SSLv|TLSv)\w*@OPENSSL"),
    "libcrypto.so.1.0.0": re.compile(r"(?!SSL_|SSLv|TLSv)\w+@OPENSSL"),
    "libcurl.so.4": re.compile(r"\w+@CURL_OPENSSL"),
}
OFTEN_MISSING = {  # Debian: libapr1, libsvn1, libsasl2-2. Without libsvn1 use registry="in_memory" only.
    "libapr-1.so.0": re.compile(r"apr_\w+$"),
    "libsvn_delta-1.so.1": re.compile(r"svn_txdelta\w+$"),
    "libsvn_subr-1.so.1": re.compile(r"svn_(?!txdelta)\w+$"),
    "libsasl2.so.2": re.compile(r"sasl_\w+@SASL2"),
}
SYMBOL_VERSIONS = {
    "libssl.so.1.0.0": ["OPENSSL_1.0.0", "OPENSSL_1.0.1", "OPENSSL_1.0.2"],
    "libcrypto.so.1.0.0": ["OPENSSL_1.0.0", "OPENSSL_1.0.2"],
}


def install(version: str = DEFAULT_VERSION, cache: Path = CACHE) -> Path:
    """Fetches and prepares one Mesos version (about 27 MB, once) and returns its folder."""
    home = cache / version
    if (home / "ready").exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        build = Path(scratch) / version
        (build / "lib").mkdir(parents=True)
        _fetch(version, build / "libmesos.so")
        _build_stubs(build / "libmesos.so", build / "lib")
        subprocess.run(["g++", "-O1", "-w", "-rdynamic", "-o", build / "mesos_node", HERE / "mesos_node.cc", "-ldl"], check=True)
        (build / "launcher").mkdir()
        shutil.copy(HERE / "mesos-containerizer", build / "launcher")
        (build / "ready").touch()
        with contextlib.suppress(OSError):  # another process may have been first
            build.rename(home)
    return home


def _fetch(version: str, target: Path) -> None:
    from pypi_simple import PyPISimple

    name = f"mesos.scheduler-{version}.linux-x86_64.tar.gz"
    with PyPISimple() as index, tempfile.TemporaryDirectory() as folder:
        found = [p for p in index.get_project_page("mesos.scheduler").packages if p.filename == name]
        if not found:
            raise LookupError(f"the package index has no {name}")
        index.download_package(found[0], path=Path(folder) / name)
        with tarfile.open(Path(folder) / name) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith("/_scheduler.so"))
            with archive.extractfile(member) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)


def _build_stubs(library: Path, folder: Path) -> None:
    """Compiles an empty stand-in for each shared library that this system lacks."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", "--with-symbol-versions", library], check=True, capture_output=True, text=True
    ).stdout
    wanted = [line.split()[-1].replace("@@", "@") for line in listing.splitlines()]
    absent = {name: pattern for name, pattern in OFTEN_MISSING.items() if not _system_has(name)}
    for name, pattern in {**ALWAYS_MISSING, **absent}.items():
        versions: dict[str, list[str]] = {version: [] for version in SYMBOL_VERSIONS.get(name, [])}
        for symbol in filter(pattern.match, wanted):
            bare, _, version = symbol.partition("@")
            versions.setdefault(version, []).append(bare)
        source = folder / f"{name}.c"
        script = folder / f"{name}.map"
        source.write_text("".join(f"long {s}(void) {{ return 0; }}\n" for v in versions.values() for s in v))
        script.write_text(
            "".join(
                f"{v} {{ {'global: ' + ' '.join(s + ';' for s in symbols) if symbols else ''} }};\n"
                for v, symbols in sorted(versions.items())
                if v
            )
        )
        subprocess.run(
            [
                "gcc",
                "-shared",
                "-fPIC",
                "-w",
                "-o",
                folder / name,
                source,
                f"-Wl,-soname,{name}",
                *([f"-Wl,--version-script={script}"] if script.read_text() else []),
            ],
            check=True,
        )


def _system_has(name: str) -> bool:
    return name in (subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """One master or agent process. Killing it leaves its work folder, and an agent's executors, as a crash would."""

    def __init__(self, home: Path, folder: Path, arguments: list[str], flags: Mapping[str, str], port: int) -> None:
        self.home, self.folder, self.arguments, self.flags, self.port = home, folder, arguments, dict(flags), port
        self.address = f"127.0.0.1:{port}"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MESOS_", "LIBPROCESS_"))}
        environment |= {
            "LD_LIBRARY_PATH": str(self.home / "lib"),
            "MESOS_LIBRARY": str(self.home / "libmesos.so"),
            "LIBPROCESS_IP": "127.0.0.1",
            "LIBPROCESS_PORT": str(self.port),
            "LIBPROCESS_NUM_WORKER_THREADS": "4",
            "MESOS_WORK_DIR": str(self.folder / "work"),
        }
        environment |= {f"MESOS_{name.upper()}": value for name, value in self.flags.items()}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.home / "mesos_node", *self.arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait()

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
            return json.load(answer)


class MesosCluster:
    """A master and its agents, on free ports of the loopback interface, gone when the `with` block ends.

    agents: how many, or one mapping of agent flags each, such as {"attributes": "rack:a;zone:z1"}.
    registry: "replicated_log" lets the master be killed and started again; "in_memory" starts a little faster.
    master_flags, agent_flags: any Mesos flag by its name, for all nodes of the kind.
    """

    def __init__(
        self,
        agents: int | list[Mapping[str, str]] = 1,
        *,
        version: str = DEFAULT_VERSION,
        folder: Path | None = None,
        registry: str = "in_memory",
        port: int | None = None,
        resources: str = "cpus:8;mem:8192;disk:20480;ports:[31000-32000]",
        master_flags: Mapping[str, str] = {},
        agent_flags: Mapping[str, str] = {},
    ) -> None:
        home = install(version)
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="mesos-cluster-", ignore_cleanup_errors=True)
        self.folder = Path(folder or self._temporary.name).resolve()
        common = {
            "ip": "127.0.0.1",
            "logging_level": "INFO",
            "systemd_enable_support": "false",
            "agent_ping_timeout": "1secs",
            "max_agent_ping_timeouts": "3",
        }
        self.master = Node(
            home,
            self.folder / "master",
            ["master"],
            common | {"registry": registry, "quorum": "1", "hostname": "localhost"} | dict(master_flags),
            port or free_port(),
        )
        each = [{}] * agents if isinstance(agents, int) else agents
        launch = {
            "launcher": "posix",
            "isolation": "posix/cpu,posix/mem,filesystem/posix",
            "launcher_dir": str(home / "launcher"),
            "registry": "in_memory",
            "resources": resources,
        }
        self.agents = [
            Node(
                home,
                self.folder / f"agent{n}",
                ["agent", self.master.address],
                common | launch | {"hostname": f"agent{n}"} | dict(agent_flags) | dict(own),
                free_port(),
            )
            for n, own in enumerate(each, 1)
        ]

    def start(self, timeout: float = 30) -> MesosCluster:
        """Starts every node and returns once all agents have registered. Raises TimeoutError with the logs' ends."""
        for node in (self.master, *self.agents):
            node.start()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                if sum(agent["active"] for agent in self.master.get("/slaves")["slaves"]) >= len(self.agents):
                    return self
            time.sleep(0.05)
        logs = "\n".join(f"{node.log}:\n" + "".join(node.log.read_text().splitlines(True)[-10:]) for node in (self.master, *self.agents))
        self.stop()
        raise TimeoutError(f"Mesos did not come up in {timeout} s\n{logs}")

    def stop(self) -> None:
        """Kills every node, and every executor and task that was started in one of their sandboxes."""
        for node in (*self.agents, self.master):
            node.kill()
        for pid in self._sandboxed():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._temporary:
            self._temporary.cleanup()

    def _sandboxed(self) -> Iterator[int]:
        marker = f"MESOS_SANDBOX={self.folder}/".encode()
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if marker in entry.read_bytes():
                    yield int(entry.parent.name)

    def __enter__(self) -> MesosCluster:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--port", type=int, default=5050, help="the master's port")
    parser.add_argument("--version", default=DEFAULT_VERSION)
    parser.add_argument("--folder", type=Path, help="keep work folders and logs here")
    parser.add_argument("--registry", default="in_memory", choices=("in_memory", "replicated_log"))
    parser.add_argument("--install-only", action="store_true")
    options = parser.parse_args()
    if options.install_only:
        print(install(options.version))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with MesosCluster(
        options.agents, version=options.version, folder=options.folder, registry=options.registry, port=options.port
    ) as cluster:
        print(f"master http://{cluster.master.address}, {len(cluster.agents)} agents, logs under {cluster.folder}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
