"""The main job, to watch: a stateful app on a real Mesos loses its machine and comes up on another with its data.

`make demo` runs it and stays up until Ctrl-C; `make demo ONCE=1` ends by itself, with status 0 only if the data survived.
Everything it makes is in one folder, which is removed at the end unless something went wrong; nothing else is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.cluster.mesos_cluster import MesosCluster  # noqa: E402  # the checkout's root must be on the path first

APP = ROOT / "examples" / "counter.json"
USUAL_PORT = 7070
LISTENS = "the HTTP API listens on "
ROOT_WORDS = "Volumes are ext4 images on loop devices, mounted in each executor's own mount namespace."
FOLDER_WORDS = (
    "You are not root, so volumes are plain folders: what Polly decides is the same, but nothing is formatted or mounted, sizes are not\n"
    "enforced, and a task that daemonises can outlive its executor. Run it as root to see the real thing."
)


class Broken(Exception):
    """The demo did not come to its end; the text says at which step."""


def step(words: str) -> None:
    bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(f"\n\033[1m== {words}\033[0m" if bold else f"\n== {words}", flush=True)


class Demo:
    def __init__(self, folder: Path, *, port: int | None) -> None:
        self.folder, self.port = folder, port
        self.url = ""
        """The broker's HTTP API, once the broker has said where it is."""
        self.broker: subprocess.Popen[str] | None = None
        self.polly = [str(Path(sys.executable).parent / "polly")]

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'polly.db'}"

    def configure(self) -> Path:
        is_root = os.geteuid() == 0
        (self.folder / "images").mkdir(parents=True)
        config = self.folder / "polly.toml"
        executor = json.dumps([str(Path(sys.executable).parent / "polly-executor")])
        config.write_text(
            f'[framework]\nname = "demo"\n\n[executor]\ncommand = {executor}\n'
            f'environment = {{ POLLY_STAGING_DIR = "{self.folder / "staging"}" }}\n\n'
            f'[platforms.disks]\nkind = "local"\nroot = "{self.folder / "images"}"\nformat = "{"image" if is_root else "folder"}"\n\n'
            '[profiles.fast]\nplatforms = ["disks"]\nfilesystem = "ext4"\nreclaim = "delete"\n'
        )
        print(f"{config}:", *(f"    {line}" for line in config.read_text().splitlines()), ROOT_WORDS if is_root else FOLDER_WORDS, sep="\n")
        return config

    def start_broker(self, master: str, config: Path) -> None:
        command = [*self.polly, "broker", "--master", master, "--database", self.database, "--config", str(config)]
        try:
            self._start([*command, "--listen", f"127.0.0.1:{self.port or USUAL_PORT}"])
        except Broken:
            if self.port or not self.broker or self.broker.poll() is None:
                raise
            print("Another demo or broker may have that port; this one takes any that is free.")
            self._start([*command, "--listen", "127.0.0.1:0"])

    def _start(self, command: list[str]) -> None:
        print("$ " + " ".join(command), flush=True)
        self.broker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        threading.Thread(target=self._relay, args=(self.broker,), daemon=True).start()
        self.until("the broker answers", lambda: self.url and self.get("/v2/info") is not None)

    def _relay(self, broker: subprocess.Popen[str]) -> None:
        for line in broker.stderr or ():
            print(f"   | {line}", end="", flush=True)
            if LISTENS in line:
                self.url = line.partition(LISTENS)[2].strip()

    def get(self, path: str) -> Any:
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310  # loopback http
            return json.load(answer)
        return None

    def run(self, *arguments: str) -> None:
        print("$ polly " + " ".join(arguments), flush=True)
        environment = os.environ | {"POLLY_BROKER": self.url}
        if status := subprocess.run([*self.polly, *arguments], env=environment).returncode:
            raise Broken(f"polly {arguments[0]} ended with status {status}")

    def until(self, what: str, ready: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.broker and self.broker.poll() is not None:
                raise Broken(f"the broker ended with status {self.broker.returncode}")
            if found := ready():
                return found
            threading.Event().wait(0.1)
        raise Broken(f"waited {timeout_s:.0f} s in vain until {what}")

    def running(self, *, but: str = "") -> dict[str, Any] | None:
        app = self.get("/v2/apps/counter") or {}
        tasks = app.get("app", {}).get("tasks", [])
        return next((task for task in tasks if task["state"] == "TASK_RUNNING" and task["id"] != but), None)

    def count(self, task_id: str) -> int:
        """What the app itself says: `start number N on HOST`, on its stdout."""
        for stdout in self.folder.glob(f"mesos/agent*/work/agents/*/work/slaves/*/frameworks/*/executors/{task_id}/runs/latest/stdout"):
            numbers = [line.split()[2] for line in stdout.read_text().splitlines() if line.startswith("start number ")]
            if numbers:
                return int(numbers[-1])
        return 0

    def wait_for_kernel(self, timeout_s: float = 15.0) -> None:
        """The kernel clears the loop devices of processes that were killed a moment after they are gone."""
        deadline = time.monotonic() + timeout_s
        while loop_devices(self.folder) and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        if left := loop_devices(self.folder):
            print(f"Left behind: {', '.join(left)}; they are cleared with: losetup -d", file=sys.stderr)

    def stop(self) -> None:
        if self.broker and self.broker.poll() is None:
            self.broker.terminate()
            try:
                self.broker.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.broker.kill()
                self.broker.wait()


def survive(demo: Demo, cluster: MesosCluster) -> bool:
    """The story itself. Returns whether the data survived."""
    step("Run a Marathon app with one 64 MiB volume that counts its own starts in it")
    demo.run("app", "run", str(APP))
    first = demo.until("the app runs", demo.running)
    before = demo.until("it has counted", lambda: demo.count(first["id"]))
    print(f"It runs on {first['host']} and has counted to {before}.")

    number = next(n for n, agent in enumerate(cluster.agents) if agent.flags.get("hostname") == first["host"])
    step(f"Kill {first['host']} with SIGKILL: the agent, the executor and the task, as a machine's death would")
    cluster.kill_machine(number)
    print("Mesos will call the agent unreachable in a few seconds. That is no proof; Polly asks the platform for one.")
    second = demo.until("the app runs again", lambda: demo.running(but=first["id"]))
    after = demo.until("it has counted", lambda: demo.count(second["id"]))

    step("What the ledger's event log says of the volume")
    demo.run("events", "--volume", "/counter#0/data")
    survived: bool = after == before + 1 and second["host"] != first["host"]
    verdict = "survived" if survived else "is LOST"
    step(f"The count went from {before} on {first['host']} to {after} on {second['host']}: the data {verdict}")
    return survived


def what_next(demo: Demo, master: str) -> None:
    step("Try next, in another terminal")
    lines = [f"export POLLY_BROKER={demo.url} PATH={Path(demo.polly[0]).parent}:$PATH"]
    commands = (
        "inventory",
        "volume list",
        "claim list",
        "offers",
        "node list",
        "explain counter",
        "app scale counter 2",
        "app kill counter",
    )
    lines += [f"polly {command}" for command in commands]
    print("\n".join(lines), f"\nThe Mesos master is http://{master}. Ctrl-C ends everything.", sep="\n", flush=True)


def loop_devices(folder: Path) -> list[str]:
    """The loop devices of images below the folder."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if file.read_text().startswith(f"{folder}/"):
                found.append(f"/dev/{file.parts[3]}")
    return found


def make_fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise Broken(f"{folder} cannot be replaced ({error.strerror}); remove it, or name another with --folder") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="end when the story has been told")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="everything is made in here (and replaced)")
    parser.add_argument("--port", type=int, help=f"the broker's HTTP port on 127.0.0.1 ({USUAL_PORT}, or any free one while that is taken)")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C ends it, also where whoever started it ignores that
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = options.folder.resolve()
    try:
        make_fresh(folder)
        demo = Demo(folder, port=options.port)
    except Broken as error:
        print(f"The demo cannot begin: {error}.", file=sys.stderr)
        return 1
    status = play(demo, once=options.once)
    if status == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return status


def play(demo: Demo, *, once: bool) -> int:
    try:
        step("Start a Mesos master and two agents (a real Apache Mesos, on loopback)")
        with MesosCluster(2, folder=demo.folder / "mesos", registry="replicated_log") as cluster:
            print(f"master http://{cluster.master.address}, agents {', '.join(agent.address for agent in cluster.agents)}")
            return tell(demo, cluster, once=once)
    except Broken as error:
        print(f"\nThe demo failed: {error}. Logs are under {demo.folder}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        demo.stop()
        demo.wait_for_kernel()


def tell(demo: Demo, cluster: MesosCluster, *, once: bool) -> int:
    try:
        step("Start the broker")
        demo.start_broker(cluster.master.address, demo.configure())
        survived = survive(demo, cluster)
        if survived and not once:
            what_next(demo, cluster.master.address)
            signal.pause()
        return 0 if survived else 1
    finally:
        step("Stop everything")
        demo.stop()


if __name__ == "__main__":
    sys.exit(main())
