"""A real Apache Mesos cluster on this machine, for tests and demos: one master and any number of agents.

    with MesosCluster(agents=2) as cluster:
        ... MesosSchedulerDriver(scheduler, framework, cluster.master.address) ...
        cluster.agents[0].kill(); cluster.agents[0].start()

From a shell, in the project's folder: `python -m tests.cluster.mesos_cluster --agents 2` runs one until Ctrl-C.

What differs from a packaged cluster: an executor's container is a plain process (containerizer.py stands in for the helper
program and isolates nothing), there is no built-in command executor, no fetcher (a CommandInfo must have no uris), no TLS, and a
master that never stands for election in ZooKeeper. Everything that the master decides (offers, allocation, operations,
reconciliation, failover, operator API) is Mesos itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.cluster.mesos_install import DEFAULT_VERSION, VERSIONS, Installed, install
from tests.cluster.processes import Processes, kill_all
from tests.ports import free_port, give_back
from tests.support import eventually

__all__ = ["DEFAULT_VERSION", "VERSIONS", "Agent", "AgentSpec", "MesosCluster", "Node", "install"]

RESOURCES = "cpus:8;mem:8192;disk:20480;ports:[31000-32000]"
COMMON = {
    "ip": "127.0.0.1",
    "logging_level": "INFO",
    "systemd_enable_support": "false",
    "registration_backoff_factor": "10ms",  # else each agent waits up to a second before it registers
    "agent_ping_timeout": "1secs",
    "max_agent_ping_timeouts": "3",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """How one agent differs from the others; `flags` are any Mesos flags by their names and win over the rest."""

    attributes: Mapping[str, str] = field(default_factory=dict)
    region: str | None = None
    zone: str | None = None
    resources: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    machine: Sequence[str] = ()
    """A command that makes a machine of the agent's own, such as namespaces, and ends by executing what comes after it."""

    def all_flags(self) -> dict[str, str]:
        flags = {"attributes": ";".join(f"{name}:{value}" for name, value in self.attributes.items()), "resources": self.resources}
        if self.region and self.zone:
            flags["domain"] = fault_domain(self.region, self.zone)
        return {name: value for name, value in flags.items() if value} | dict(self.flags)


def fault_domain(region: str, zone: str) -> str:
    """The value of the flag `domain`, for masters and agents."""
    return json.dumps({"fault_domain": {"region": {"name": region}, "zone": {"name": zone}}})


class Node:
    """One master or agent process. It dies with this process. Started again it has the same port and the same files."""

    def __init__(
        self, installed: Installed, folder: Path, arguments: list[str], flags: Mapping[str, str], port: int, *, machine: Sequence[str] = ()
    ) -> None:
        self.installed, self.folder, self.arguments, self.flags, self.port = installed, folder, arguments, dict(flags), port
        self.machine = machine
        self.address = f"127.0.0.1:{port}"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Starts the process and does not wait for it to answer. Does nothing if it runs."""
        if self.running:
            return
        self._let_go()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.machine, self.installed.node, *self.arguments],
                env=self.environment(),
                stdin=subprocess.PIPE,  # it ends when nobody holds the other end any more
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Ends the process alone, as a crash would: its files stay, and so do an agent's executors."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait()
        self._let_go()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pids(self) -> set[int]:
        """The process' id, or nothing when it does not run."""
        return {self.process.pid} if self.process and self.running else set()

    def get(self, path: str, timeout_s: float = 5) -> Any:
        """The JSON that the node answers. Raises OSError (urllib's URLError is one) when it does not."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=timeout_s) as answer:
            return json.load(answer)

    def last_lines(self, number: int = 10) -> str:
        """The end of the node's log, under its path, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines(keepends=True) if self.log.exists() else []
        return f"{self.log}:\n{''.join(lines[-number:])}"

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MESOS_", "LIBPROCESS_"))}
        ours = {
            "MESOS_LIBRARY": str(self.installed.library),
            "MESOS_STUBS": str(self.installed.stubs),
            "LIBPROCESS_IP": "127.0.0.1",
            "LIBPROCESS_PORT": str(self.port),
            "LIBPROCESS_NUM_WORKER_THREADS": "4",
            "MESOS_WORK_DIR": str(self.folder / "work"),
        }
        return inherited | ours | {f"MESOS_{name.upper()}": value for name, value in self.flags.items()}

    def _let_go(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()


class Agent(Node):
    """One agent, which is one machine to Mesos: what runs in its sandboxes is what runs on that machine."""

    def executors(self) -> dict[str, int]:
        """The process id of each executor that runs on this agent, by the executor's id."""
        now, containers = Processes.look(), self._containers()
        started = (pid for pid, parent in now.parents.items() if parent in containers)
        return {name: pid for pid in started if (name := _variable(pid, "MESOS_EXECUTOR_ID"))}

    def _containers(self) -> set[int]:
        """The process id of each container. The agent makes and removes them meanwhile: one that goes while it is looked at is none."""
        found = set()
        for place in self.folder.glob("work/agents/*/run/containers"):
            for container in _entries(place):
                with contextlib.suppress(OSError, ValueError):
                    found.add(int((container / "pid").read_text()))
        return found

    def stored_id(self) -> str | None:
        """The agent id that this agent is to have when it starts again; None until it has stored it.

        The master lists an agent before the agent hears of its id. Killed between the two, it comes back as a new one.
        """
        for latest in self.folder.glob("work/agents/*/work/meta/slaves/latest"):
            if (latest / "slave.info").exists():
                return latest.resolve().name
        return None

    def tenants(self) -> set[int]:
        """All processes on this machine: containers, executors, their tasks, and what these have started, daemons too."""
        now = Processes.look()
        found = now.at_home_in(self.folder) | now.descendants(self.pids)
        found |= now.descendants(found)
        return (found | now.in_sessions_of(found) | now.in_namespaces_of(found)) - self.pids

    def kill_machine(self) -> None:
        """Ends the agent and every executor and task of it at once, as the machine's death would: none sees another die."""
        self._stop_acting()
        kill_all(lambda: self.tenants() | self.pids)
        self.kill()

    def _stop_acting(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [folder / name for name in os.listdir(folder)]
    return []


def _variable(pid: int, name: str) -> str | None:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(f"{name}=".encode()):
                return entry.partition(b"=")[2].decode()
    return None


class MesosCluster:
    """A master and its agents, on free ports of the loopback interface, gone when the `with` block ends.

    agents: how many, or a specification of each.
    folder: keeps work folders and logs there; without it they are gone at the end.
    registry: "replicated_log" lets the master be killed and started again; "in_memory" starts a little faster.
    port: the master's.
    resources: of each agent, in Mesos' text form.
    region, zone: the master's fault domain; agents that name theirs are refused by a master that has none.
    credentials: principals and their secrets; if there are any, frameworks must authenticate themselves by HTTP basic.
    master_flags, agent_flags: any Mesos flags by their names, for all nodes of the kind.
    """

    def __init__(
        self,
        agents: int | Sequence[AgentSpec] = 1,
        *,
        version: str = DEFAULT_VERSION,
        folder: Path | None = None,
        registry: str = "in_memory",
        port: int | None = None,
        resources: str = RESOURCES,
        region: str | None = None,
        zone: str | None = None,
        credentials: Mapping[str, str] | None = None,
        master_flags: Mapping[str, str] | None = None,
        agent_flags: Mapping[str, str] | None = None,
    ) -> None:
        self.installed = install(version)
        if registry == "replicated_log" and not self.installed.has_replicated_log:
            raise LookupError("a replicated log needs libapr1 and libsvn1 (Debian's names)")
        self._temporary = contextlib.ExitStack()
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="mesos-cluster-", ignore_cleanup_errors=True)
            folder = Path(self._temporary.enter_context(made))
            folder.chmod(0o711)  # tasks run as other users too, below it
        self.folder = folder.resolve()
        self._ports: list[int] = []
        flags = {"registry": registry, "quorum": "1", "hostname": "localhost"}
        if region and zone:
            flags["domain"] = fault_domain(region, zone)
        flags |= self._authentication(credentials or {})
        self.master = Node(
            self.installed, self.folder / "master", ["master"], COMMON | flags | dict(master_flags or {}), port or self._free_port()
        )
        specs = [AgentSpec()] * agents if isinstance(agents, int) else agents
        shared = self._launching() | {"resources": resources} | dict(agent_flags or {})
        self.agents = [self._agent(number, shared | spec.all_flags(), spec.machine) for number, spec in enumerate(specs, 1)]

    def start(self, timeout_s: float = 30) -> Self:
        """Starts every node and returns once all agents are there to stay: see wait_agents."""
        try:
            for node in (self.master, *self.agents):
                node.start()
            self.wait_agents(timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends every node and all that was started in their sandboxes, at once, and leaves no process."""
        for agent in self.agents:
            agent._stop_acting()
        kill_all(lambda: self.master.pids.union(*(agent.tenants() | agent.pids for agent in self.agents)))
        for node in (*self.agents, self.master):
            node.kill()
        for port in self._ports:
            give_back(port)
        self._temporary.close()

    def state(self) -> dict[str, Any]:
        """What the master knows: its /state. Raises OSError when it does not answer."""
        state: dict[str, Any] = self.master.get("/state")
        return state

    def active_agents(self) -> list[str]:
        """The names of the agents that are registered and connected: agent1, agent2, ..."""
        return sorted(name for name, _ in self._active())

    def _active(self) -> list[tuple[str, str]]:
        """(name, agent id) of each."""
        return [(agent["hostname"], agent["id"]) for agent in self.master.get("/slaves")["slaves"] if agent["active"]]

    def wait_agents(self, number: int | None = None, timeout_s: float = 30) -> None:
        """Returns once exactly this many agents are active (all, if no number is given) and have stored who they are.

        From then on an agent that is killed is the same when it starts again. Raises TimeoutError with the ends of the logs.
        """
        wanted = len(self.agents) if number is None else number
        stored = {agent.flags["hostname"]: agent.stored_id for agent in self.agents}

        def are_there() -> bool:
            active = self._active()
            return len(active) == wanted and all(stored[name]() == agent_id for name, agent_id in active)

        try:
            eventually(are_there, timeout_s, f"{wanted} agents are active and have stored their ids")
        except TimeoutError as error:
            logs = "\n".join(node.last_lines() for node in (self.master, *self.agents))
            raise TimeoutError(f"{error}\n{logs}") from error

    def kill_machine(self, index: int) -> None:
        """Ends `agents[index]` with every executor and task on it, at once."""
        self.agents[index].kill_machine()

    def mark_gone(self, agent_id: str) -> None:
        """As an operator does who knows that the machine will never come back."""
        call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}}
        url, headers = f"http://{self.master.address}/api/v1", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(call).encode(), headers), timeout=10) as answer:
            answer.read()

    def _agent(self, number: int, flags: Mapping[str, str], machine: Sequence[str]) -> Agent:
        name = f"agent{number}"
        own = {"hostname": name, "runtime_dir": str(self.folder / name / "run")}
        arguments, all_flags = ["agent", self.master.address], COMMON | own | dict(flags)
        return Agent(self.installed, self.folder / name, arguments, all_flags, self._free_port(), machine=machine)

    def _launching(self) -> dict[str, str]:
        isolation = "posix/cpu,posix/mem,filesystem/posix"
        return {
            "launcher": "posix",
            "isolation": isolation,
            "launcher_dir": str(self.installed.launcher_dir),
            "registry": "in_memory",
            "switch_user": "true" if os.geteuid() == 0 else "false",  # only root can
        }

    def _authentication(self, credentials: Mapping[str, str]) -> dict[str, str]:
        if not credentials:
            return {}
        file = self.folder / "credentials.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps({"credentials": [{"principal": name, "secret": secret} for name, secret in credentials.items()]}))
        return {"authenticate_http_frameworks": "true", "http_framework_authenticators": "basic", "credentials": f"file://{file}"}

    def _free_port(self) -> int:
        self._ports.append(free_port())
        return self._ports[-1]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _made_ready(version: str) -> Path:
    """Where it is. Ends the process with a sentence where it cannot be had: no network, no index, no compiler."""
    try:
        return install(version).library.parent
    except (LookupError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"Mesos {version} cannot be made ready: {error}")


def main(wait: Callable[[], object] = signal.pause) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--port", type=int, default=5050, help="the master's port")
    parser.add_argument("--version", default=DEFAULT_VERSION, choices=VERSIONS)
    parser.add_argument("--folder", type=Path, help="keep work folders and logs here")
    parser.add_argument("--registry", default="in_memory", choices=("in_memory", "replicated_log"))
    parser.add_argument("--install-only", action="store_true", help="prepare this version, or all with --all, and end")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    if options.install_only:
        for version in VERSIONS if options.all else [options.version]:
            print(f"Mesos {version}: {_made_ready(version)}", flush=True)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with MesosCluster(
        options.agents, version=options.version, folder=options.folder, registry=options.registry, port=options.port
    ) as cluster:
        print(f"master http://{cluster.master.address}, {len(cluster.agents)} agents, logs under {cluster.folder}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            wait()


if __name__ == "__main__":
    main()
