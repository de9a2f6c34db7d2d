"""The cluster that other tests stand on: does it start, die and end as real machines do, and leave nothing?"""

from __future__ import annotations

import base64
import http.client
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.mesos_cluster import VERSIONS, Agent, AgentSpec, MesosCluster, install
from tests.cluster.mesos_install import DEFAULT_VERSION, pip_setting
from tests.cluster.processes import Processes, kill_all
from tests.support import eventually

pytestmark = pytest.mark.cluster

Mesos = Callable[..., MesosCluster]


class Framework:
    """The least that a scheduler can be: it subscribes, and launches one command as an executor."""

    def __init__(self, address: str, headers: Mapping[str, str] | None = None) -> None:
        self._address, self._headers = address, {"Content-Type": "application/json"} | dict(headers or {})
        self._connection = http.client.HTTPConnection(address, timeout=20)
        info = {"user": pwd.getpwuid(os.geteuid()).pw_name, "name": "fixture", "checkpoint": True}
        body = json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}})
        self._connection.request("POST", "/api/v1/scheduler", body, self._headers)
        self.answer = self._connection.getresponse()
        if self.answer.status == 200:
            self.id = self.await_event("SUBSCRIBED")["framework_id"]

    def events(self) -> Iterator[dict[str, Any]]:
        while length := self.answer.readline():
            yield json.loads(self.answer.read(int(length)))

    def await_event(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = next(event[kind.lower()] for event in self.events() if event["type"] == kind)
        return found

    def launch(self, command: Mapping[str, Any], name: str = "e1") -> None:
        """Launches a task of an executor that is this command, on the first offer."""
        offer = self.await_event("OFFERS")["offers"][0]
        resources = [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
        ]
        executor = {"executor_id": {"value": name}, "framework_id": self.id, "type": "CUSTOM", "command": command, "resources": resources}
        task = {"name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"], "executor": executor, "resources": resources}
        operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        self.call({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "operations": [operation]}})

    def call(self, message: Mapping[str, Any]) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=20)
        headers = self._headers | {"Mesos-Stream-Id": self.answer.headers["Mesos-Stream-Id"]}
        connection.request("POST", "/api/v1/scheduler", json.dumps({"framework_id": self.id, **message}), headers)
        answer = connection.getresponse()
        assert answer.status == 202, answer.read()
        connection.close()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def framework() -> Iterator[Callable[..., Framework]]:
    opened: list[Framework] = []

    def open_one(address: str, headers: Mapping[str, str] | None = None) -> Framework:
        opened.append(Framework(address, headers))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def alive(pids: set[int]) -> set[int]:
    return pids & Processes.look().parents.keys()


def executor_on(agent: Agent) -> int:
    return eventually(agent.executors, 20, "an executor runs")["e1"]


def said(sandbox: Path, last: str) -> str:
    """All that a container has written on its stdout, once `last` is there."""
    stdout = sandbox / "stdout"
    eventually(lambda: last in stdout.read_text(), 10, f"the container says {last!r}")
    return stdout.read_text()


def shell(command: str) -> dict[str, Any]:
    return {"shell": True, "value": command}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_starts_and_says_which_it_is(mesos: Mesos, version: str) -> None:
    cluster = mesos(2, version=version)
    assert cluster.state()["version"] == version
    assert cluster.active_agents() == ["agent1", "agent2"]


def test_agents_show_their_attributes_domains_and_resources(mesos: Mesos) -> None:
    specs = [
        AgentSpec(
            attributes={"rack": "a", "disk": "ssd"}, region="north", zone="n1", resources="cpus:3;mem:512;disk:64;ports:[31000-31001]"
        ),
        AgentSpec(region="north", zone="n2", flags={"default_role": "web"}),
    ]
    cluster = mesos(specs, region="north", zone="n0")
    first, second = sorted(cluster.state()["slaves"], key=lambda agent: agent["hostname"])
    assert first["attributes"] == {"rack": "a", "disk": "ssd"}
    assert first["resources"]["cpus"] == 3
    assert [agent["domain"]["fault_domain"]["zone"]["name"] for agent in (first, second)] == ["n1", "n2"]
    assert second["reserved_resources"].keys() == {"web"}
    assert cluster.state()["domain"]["fault_domain"]["region"]["name"] == "north"


def test_a_master_with_a_replicated_log_comes_back_at_its_port_and_knows_its_agents(mesos: Mesos) -> None:
    cluster = mesos(2, registry="replicated_log")
    before = {agent["id"] for agent in cluster.state()["slaves"]}
    cluster.master.kill()
    with pytest.raises(OSError, match="refused"):
        cluster.state()
    cluster.master.start()
    cluster.wait_agents()
    assert {agent["id"] for agent in cluster.state()["slaves"]} == before


def test_an_agent_alone_is_killed_and_is_the_same_agent_when_it_starts_again(mesos: Mesos) -> None:
    cluster = mesos(2)
    before = {agent["id"] for agent in cluster.state()["slaves"]}
    assert {agent.stored_id() for agent in cluster.agents} == before
    cluster.agents[0].kill()
    cluster.wait_agents(1)
    assert cluster.active_agents() == ["agent2"]
    cluster.agents[0].start()
    cluster.wait_agents()
    assert {agent["id"] for agent in cluster.state()["slaves"]} == before


def test_only_the_principals_with_their_secrets_may_register(mesos: Mesos, framework: Callable[..., Framework]) -> None:
    cluster = mesos(1, credentials={"polly": "hush"})

    def status(user: str, secret: str) -> int:
        return int(framework(cluster.master.address, basic(user, secret)).answer.status)

    assert framework(cluster.master.address).answer.status == 401
    assert status("polly", "wrong") == 401
    assert status("polly", "hush") == 200


def basic(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"}


def test_a_container_starts_in_its_sandbox_with_its_output_and_without_the_agents_libraries(
    mesos: Mesos, framework: Callable[..., Framework]
) -> None:
    cluster = mesos(1)
    framework(cluster.master.address).launch(shell("echo oops >&2; env; pwd; echo all said; exec sleep 600"))
    executor = executor_on(cluster.agents[0])
    sandbox = Path(os.readlink(f"/proc/{executor}/cwd"))
    output = said(sandbox, "all said")
    assert f"MESOS_SANDBOX={sandbox}" in output
    assert output.endswith(f"{sandbox}\nall said\n")
    assert "LD_LIBRARY_PATH" not in output
    assert "MESOS_STUBS" not in output
    assert (sandbox / "stderr").read_text() == "oops\n"


def test_the_containerizer_passes_signals_on_and_leaves_the_wait_status(mesos: Mesos, framework: Callable[..., Framework]) -> None:
    cluster = mesos(1)
    scheduler = framework(cluster.master.address)
    scheduler.launch(shell("trap 'echo told; exit 7' TERM; echo listening; while :; do sleep 0.05; done"))
    executor = executor_on(cluster.agents[0])
    sandbox = Path(os.readlink(f"/proc/{executor}/cwd"))
    stand_in = Processes.look().parents[executor]
    said(sandbox, "listening")
    os.kill(stand_in, 15)
    eventually(lambda: not alive({executor, stand_in}), 10, "both are gone")
    assert (sandbox / "stdout").read_text() == "listening\ntold\n"
    assert scheduler.await_event("FAILURE")["status"] == 7 << 8


@pytest.mark.root
def test_a_container_runs_as_its_user(public_folder: Path, mesos: Mesos, framework: Callable[..., Framework]) -> None:
    cluster = mesos(1, folder=public_folder)
    framework(cluster.master.address).launch(shell("id -un; exec sleep 600") | {"user": "nobody"})
    executor = executor_on(cluster.agents[0])
    sandbox = Path(os.readlink(f"/proc/{executor}/cwd"))
    assert said(sandbox, "\n") == "nobody\n"


DAEMONS = "setsid sh -c 'cd /; exec env -i sleep 601' & (sleep 602 & ) ; exec sleep 600"


def sleepers(pids: set[int]) -> set[str]:
    found = set()
    for pid in pids:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0].endswith(b"sleep"):
            found.add(words[1].decode())
    return found


def test_the_death_of_a_machine_is_the_death_of_all_that_ran_on_it_and_of_nothing_else(
    mesos: Mesos, framework: Callable[..., Framework]
) -> None:
    cluster = mesos(1)
    agent = cluster.agents[0]
    framework(cluster.master.address).launch(shell(DAEMONS))
    eventually(lambda: sleepers(agent.tenants()) == {"600", "601", "602"}, 20, "the executor and its daemons run")
    running = agent.tenants()
    cluster.kill_machine(0)
    assert alive(running) == set()
    assert not agent.running
    assert cluster.master.running
    eventually(lambda: cluster.active_agents() == [], 20, "the master misses it")
    agent.start()
    cluster.wait_agents()
    assert agent.executors() == {}


def test_the_death_of_an_agent_alone_leaves_its_executors(mesos: Mesos, framework: Callable[..., Framework]) -> None:
    cluster = mesos(1)
    agent = cluster.agents[0]
    framework(cluster.master.address).launch(shell("exec sleep 600"))
    executor = executor_on(agent)
    agent.kill()
    assert alive({executor}) == {executor}
    assert agent.executors() == {"e1": executor}


def test_the_end_of_a_cluster_leaves_no_process_and_no_file(framework: Callable[..., Framework]) -> None:
    with MesosCluster(2) as cluster:
        one = framework(cluster.master.address)
        one.launch(shell(DAEMONS))
        eventually(lambda: any(sleepers(agent.tenants()) == {"600", "601", "602"} for agent in cluster.agents), 20, "daemons run")
        running = cluster.master.pids.union(*(agent.tenants() | agent.pids for agent in cluster.agents))
        folder = cluster.folder
    assert alive(running) == set()
    assert not folder.exists()


def test_the_nodes_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.cluster.mesos_cluster import MesosCluster\n"
        "cluster = MesosCluster(1, folder=Path(sys.argv[1])).start()\n"
        "print(*cluster.master.pids, *cluster.agents[0].pids, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    started = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    nodes = {int(word) for word in started.stdout.split()}
    assert len(nodes) == 2, started.stderr
    eventually(lambda: not alive(nodes), 10, "the nodes are gone")


def test_processes_that_are_to_die_together_do_not_see_each_other_die(tmp_path: Path) -> None:
    witness = f"sleep 600 & wait $!; echo seen > {tmp_path}/seen"
    family = subprocess.Popen(["sh", "-c", witness], start_new_session=True)
    eventually(lambda: Processes.look().descendants({family.pid}), 10, "the child runs")
    child = Processes.look().descendants({family.pid})
    assert kill_all(lambda: (child | {family.pid}) & Processes.look().parents.keys()) == child | {family.pid}
    family.wait()
    assert not (tmp_path / "seen").exists()


def test_an_unknown_version_is_named_with_those_that_run() -> None:
    with pytest.raises(LookupError, match=r"no Mesos 1\.7\.0 runs here, only 1\.8\.1, 1\.9\.0"):
        install("1.7.0")


def test_tasks_of_other_users_reach_their_sandboxes_below_a_folder_of_the_clusters_own() -> None:
    cluster = MesosCluster(1)
    try:
        assert cluster.folder.stat().st_mode & 0o777 == 0o711
    finally:
        cluster.stop()
    assert not cluster.folder.exists()


def test_what_cannot_be_fetched_is_said_in_one_line(tmp_path: Path) -> None:
    nowhere = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}
    command = [sys.executable, "-m", "tests.cluster.mesos_cluster", "--install-only"]
    done = subprocess.run(command, env=nowhere, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Mesos {DEFAULT_VERSION} cannot be made ready: ")
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_pips_own_settings_count_for_mesos_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\ncert = /etc/of-the-file.pem\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.delenv("PIP_CERT", raising=False)
    assert pip_setting("cert") == "/etc/of-the-file.pem"
    monkeypatch.setenv("PIP_CERT", "/etc/of-the-environment.pem")
    assert pip_setting("cert") == "/etc/of-the-environment.pem"


def test_two_processes_that_install_at_once_build_once(tmp_path: Path) -> None:
    ready = install()
    cache = tmp_path / "cache" / ready.version
    cache.mkdir(parents=True)
    (cache / "libmesos.so").symlink_to(ready.library)
    program = (
        "import sys; from pathlib import Path; from tests.cluster.mesos_install import install\n"
        "print(install(cache=Path(sys.argv[1])).node)"
    )
    command = [sys.executable, "-c", program, str(cache.parent)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert {Path(output.strip()) for output, _ in outputs} == {next(cache.glob("built-*")) / "mesos_node"}
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == ["built", "libmesos.so", "lock"]
