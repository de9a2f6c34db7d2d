"""A whole Polly on a real Mesos, for tests that break it: the broker as a process of its own, and the counts that must stay zero."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import httpx

from storage.filters import VolumeFilter
from storage.inventory import Ledger, open_ledger
from storage.model import Claim, Volume
from tests.cluster.mesos_cluster import Agent, MesosCluster
from tests.ports import free_port
from tests.support import eventually

START_S = 60.0
RUN_S = 60.0

COUNT = 'n=$(($(cat data/starts 2>/dev/null || echo 0) + 1)); echo $n > data/starts; sync; echo "start $n"; exec sleep 3600'
"""Counts its own starts in its volume, and says the number on its stdout."""


def counter(app_id: str = "/counter", *, instances: int = 1, cmd: str = COUNT, **fields: Any) -> dict[str, Any]:
    """An app whose every instance has a volume of 16 MiB at `data`."""
    volume = {"containerPath": "data", "mode": "RW", "persistent": {"size": 16, "type": "mount", "profileName": "fast"}}
    backoff = {"backoffSeconds": 0.1, "backoffFactor": 1.0, "maxLaunchDelaySeconds": 1}
    sizes = {"cpus": 0.1, "mem": 32, "instances": instances}
    return {"id": app_id, "cmd": cmd, **sizes, "container": {"type": "MESOS", "volumes": [volume]}, **backoff, **fields}


class Process(Protocol):
    """What is used here of subprocess.Popen."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


Starter = Callable[[str, Sequence[str], BinaryIO], Process]
"""Starts a broker that dies at a point of tests/cluster/dying_broker.py, or lives, with polly's arguments and a file for what it says."""


def cold(die_at: str, arguments: Sequence[str], log: BinaryIO) -> Process:
    """The command itself."""
    module = ["-m", "tests.cluster.dying_broker", die_at] if die_at else ["-c", "from framework.cli import main; main()"]
    return subprocess.Popen([sys.executable, *module, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Rig:
    """One cluster, one ledger, one folder of images, and at most one broker at a time. In `settings` None takes a key away."""

    def __init__(
        self,
        cluster: MesosCluster,
        folder: Path,
        *,
        database: str = "",
        settings: Mapping[str, Any] | None = None,
        start: Starter = cold,
    ) -> None:
        self.cluster, self.folder, self._start = cluster, folder, start
        self.images = folder / "images"
        self.images.mkdir(parents=True, exist_ok=True)
        self.database = database or f"sqlite:///{folder}/polly.db"
        if not database:
            file = folder / "polly.db"
            file.touch(mode=0o600)
            file.write_bytes(_migrated_ledger())
        self.config = folder / "polly.toml"
        self.config.write_text(self._toml(settings or {}))
        self.port = free_port()
        self.log = folder / "broker.log"
        self.process: Process | None = None
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=40)

    @property
    def environment(self) -> dict[str, str]:
        """Of every executor: this checkout's code, and a staging folder of the test's own."""
        return {"PYTHONPATH": os.getcwd(), "POLLY_STAGING_DIR": str(self.folder / "staging")}

    def _toml(self, settings: Mapping[str, Any]) -> str:
        blocks: dict[str, dict[str, Any]] = {
            "framework": {"name": "rig", "failover_timeout_s": 600.0},
            "executor": {"command": [sys.executable, "-m", "executors.main"], "environment": self.environment},
            "claims": {"lease_s": 20.0, "fence_retry_s": 0.3},
            "platforms.disks": {"kind": "local", "root": str(self.images), "format": "image"},
            "profiles.fast": {"platforms": ["disks"], "filesystem": "ext4", "reclaim": "delete"},
        }
        for name, block in settings.items():
            blocks[name] = {key: value for key, value in {**blocks.get(name, {}), **block}.items() if value is not None}
        return "\n".join(
            f"[{name}]\n" + "".join(f"{key} = {_toml_value(value)}\n" for key, value in block.items()) for name, block in blocks.items()
        )

    # --- the broker -----------------------------------------------------------------------------

    def start_broker(self, *options: str, die_at: str = "", master: str = "", wait: bool = True) -> None:
        """`die_at` names a point of tests/cluster/dying_broker.py at which the broker kills or stops itself.

        `options` are more of `polly broker`; `master` is where it looks for Mesos, the cluster's master unless given.
        """
        arguments = ["broker", "--master", master or self.cluster.master.address, "--database", self.database, "--config", str(self.config)]
        with open(self.log, "ab") as log:
            self.process = self._start(die_at, [*arguments, "--listen", f"127.0.0.1:{self.port}", *options], log)
        if wait:
            eventually(self.answers, START_S, f"the broker answers; see {self.log}")

    def answers(self) -> bool:
        if self.process and self.process.poll() is not None:
            raise RuntimeError(f"the broker ended with status {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/ping").status_code == 200
        return False

    def kill_broker(self, how: int = signal.SIGKILL) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(how)
            self.process.wait(timeout=30)
            self.process = None

    def died(self) -> int:
        """Waits until the broker has ended by itself, and returns its status."""
        assert self.process
        status = self.process.wait(timeout=60)
        self.process = None
        return status

    def stopped(self) -> None:
        """Waits until the broker has stopped itself, as `die_at` told it."""
        assert self.process
        stat = Path(f"/proc/{self.process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", RUN_S, "the broker stops itself")

    def go_on(self) -> None:
        """Lets a stopped broker go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def restart_broker(self) -> None:
        self.kill_broker()
        self.start_broker()

    # --- apps -----------------------------------------------------------------------------------

    def run(self, definition: Mapping[str, Any]) -> None:
        answer = self.http.post("/v2/apps", json=definition)
        assert answer.status_code == 201, answer.text

    def run_until_stopped(self, definition: Mapping[str, Any]) -> None:
        """Runs an app on a broker that stops itself on the way; its answer may be stopped too."""
        with contextlib.suppress(httpx.ReadTimeout):
            self.http.post("/v2/apps", json=definition, timeout=5)
        self.stopped()

    def scale(self, app_id: str, instances: int) -> None:
        answer = self.http.put(f"/v2/apps{app_id}", json={"instances": instances})
        assert answer.status_code == 200, answer.text

    def delete(self, app_id: str) -> None:
        answer = self.http.delete(f"/v2/apps{app_id}")
        assert answer.status_code == 200, answer.text

    def tasks(self, app_id: str = "/counter", *, state: str = "TASK_RUNNING") -> list[dict[str, Any]]:
        with contextlib.suppress(httpx.TransportError):
            answer = self.http.get(f"/v2/apps{app_id}")
            if answer.status_code == 200:
                return [task for task in answer.json()["app"]["tasks"] if task["state"] == state]
        return []

    def running(
        self, app_id: str = "/counter", *, number: int = 1, but: Sequence[str] = (), timeout_s: float = RUN_S
    ) -> list[dict[str, Any]]:
        """Waits until this many tasks run whose ids are not among `but`."""
        tasks: list[dict[str, Any]] = []

        def found() -> bool:
            tasks[:] = [task for task in self.tasks(app_id) if task["id"] not in but]
            return len(tasks) == number

        try:
            eventually(found, timeout_s, f"{number} tasks of {app_id} run")
        except TimeoutError as error:
            explanation = self.http.get(f"/v1/apps{app_id}/explanation").text
            raise AssertionError(f"{error}\n{explanation}\n{self.log.read_text()[-6000:]}") from error
        return tasks

    def gone(self, app_id: str = "/counter", timeout_s: float = RUN_S) -> None:
        eventually(lambda: self.http.get(f"/v2/apps{app_id}").status_code == 404, timeout_s, f"{app_id} is gone")

    def count(self, task_id: str) -> int:
        """Waits for what the task says it has counted to."""
        pattern = f"agent*/work/agents/*/work/slaves/*/frameworks/*/executors/{task_id}/runs/latest/stdout"

        def said() -> int:
            lines = [
                line for path in self.cluster.folder.glob(pattern) for line in path.read_text().splitlines() if line.startswith("start ")
            ]
            return int(lines[-1].split()[1]) if lines else 0

        return eventually(said, 15, f"task {task_id} has counted")

    def agent_of(self, task: Mapping[str, Any]) -> Agent:
        return next(agent for agent in self.cluster.agents if agent.flags["hostname"] == task["host"])

    def executor_pid(self, task_id: str) -> int:
        return next(pid for agent in self.cluster.agents for executor, pid in agent.executors().items() if executor == task_id)

    # --- the counts -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        opened = open_ledger(self.database, read_only=True)
        try:
            yield opened
        finally:
            opened.close()

    def volumes(self) -> Sequence[Volume]:
        with self.ledger() as ledger:
            return ledger.volumes(VolumeFilter(), limit=10_000).items

    def claims(self) -> Sequence[Claim]:
        with self.ledger() as ledger:
            return ledger.claims(limit=10_000).items

    def bad_counts(self) -> dict[str, int]:
        """The ledger's own counters and the machine's: empty when nothing is held twice, lost or leaked."""
        with self.ledger() as ledger:
            counts = dict(ledger.counters())
            claimed = {claim.volume_id for claim in ledger.claims(limit=10_000).items}
            images = {v.external_id for v in ledger.volumes(VolumeFilter(), limit=10_000).items if v.volume_id in claimed}
        attached = self.attached()
        counts["images held twice"] = sum(number > 1 for number in attached.values())
        counts["images attached without a claim"] = sum(
            1 for image in attached if not any(external and external in image for external in images)
        )
        return {name: number for name, number in counts.items() if number}

    def attached(self) -> Mapping[str, int]:
        """Image file to the number of loop devices on it, as the kernel has it."""
        return Counter(self.loop_devices().values())

    def loop_devices(self) -> dict[str, str]:
        """Device to the image file that it is on. Other tests' devices come and go meanwhile."""
        found: dict[str, str] = {}
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                backing = file.read_text().strip()
                if backing.startswith(f"{self.images}/"):
                    found[f"/dev/{file.parts[3]}"] = backing
        return found

    def settle(self, timeout_s: float = RUN_S) -> None:
        """Waits until every count is zero; the message says which is not."""
        try:
            eventually(lambda: not self.bad_counts(), timeout_s, "all counts are zero")
        except TimeoutError as error:
            raise AssertionError(f"{self.bad_counts()}\n{self.log.read_text()[-4000:]}") from error

    def nothing_left(self, timeout_s: float = RUN_S) -> None:
        """Waits until the ledger has no volume and no orphan, the folder no image, the kernel no loop device."""

        def left() -> list[object]:
            with self.ledger() as ledger:
                return [*self.volumes(), *ledger.orphans(), *self.images.rglob("*.img"), *self.attached()]

        try:
            eventually(lambda: not left(), timeout_s, "nothing is left")
        except TimeoutError as error:
            raise AssertionError(f"{left()}\n{self.log.read_text()[-4000:]}") from error

    def stop(self) -> None:
        """Ends the apps through the broker where one answers, then the broker."""
        if self.process and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                for app in self.http.get("/v2/apps").json().get("apps", []):
                    self.http.delete(f"/v2/apps{app['id']}")
            self.kill_broker(signal.SIGTERM)
        self.http.close()


@functools.cache
def _migrated_ledger() -> bytes:
    """An empty ledger's file. To make one takes a broker a third of a second, and each test starts with its first broker."""
    with tempfile.TemporaryDirectory(prefix="polly-ledger-") as folder:
        open_ledger(f"sqlite:///{folder}/polly.db").close()
        return Path(folder, "polly.db").read_bytes()


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
