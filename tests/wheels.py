"""What a third party does: Polly's wheels in an empty environment, and the example of docs/adapters.md as a distribution beside them.

    python -m tests.wheels DIST

The documented commands install both and run the contract suite; then `polly` itself has to find the adapter by its entry point.
Packages come from pip's index. Nothing of this folder but the documents is on that environment's path.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fake_master import FakeMaster
from tests.ports import free_port
from tests.support import eventually

DOCUMENT = (Path(__file__).parents[1] / "docs" / "adapters.md").read_text("utf-8")
STARTING_S = 30.0


class Failed(Exception):
    """A command did not end as it should; says which, and what it printed."""


def blocks(kind: str) -> list[str]:
    """The document's blocks of code of this kind, in their order; "" for commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [text for its_kind, text in found if its_kind == kind]


class Environment:
    """An empty virtual environment below `folder`, and the example's distribution beside it."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.source = folder / "shelf"
        self.config = folder / "polly.toml"
        self.database = f"sqlite:///{folder}/ledger.db"
        venv.create(folder / "venv", with_pip=True)
        self._write(folder / "srv")

    def _write(self, storage: Path) -> None:
        storage.mkdir()
        self.source.mkdir()
        adapter, test = blocks("python")
        project, platform = blocks("toml")
        (self.source / "shelf_adapter.py").write_text(adapter)
        (self.source / "test_shelf.py").write_text(test)
        (self.source / "pyproject.toml").write_text(project)
        self.config.write_text(platform.replace("/srv/shelf", str(storage)))

    def documented(self, dist: Path) -> tuple[str, str]:
        """The document's `pip install` and `pytest`, with the folder of Polly's wheels in the place of its own."""
        install, suite = blocks("")[0].replace("POLLY/dist", str(dist)).splitlines()
        return install, suite

    def run(self, command: str, cwd: Path) -> str:
        """What the command prints. Raises Failed unless it ends with 0."""
        done = subprocess.run(command.split(), cwd=cwd, env=self._variables(), capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def read(self, command: str) -> Any:
        """What a command of `polly` says in JSON."""
        return json.loads(self.run(f"polly {command} -o json", self.config.parent))

    @contextlib.contextmanager
    def broker(self) -> Iterator[str]:
        """A broker for as long as the block runs, of a master that offers nothing; the address of its API."""
        port = free_port()
        with FakeMaster() as master:
            listen = f"--listen 127.0.0.1:{port}".split()
            command = ["polly", "broker", "--master", master.address, "--database", self.database, "--config", str(self.config), *listen]
            log = self.config.with_name("broker.log")
            with log.open("w") as stderr:
                broker = subprocess.Popen(command, cwd=self.config.parent, env=self._variables(), stderr=stderr)
            try:
                eventually(lambda: _pong(f"http://127.0.0.1:{port}") or broker.poll() is not None, STARTING_S, "the broker answers")
                if broker.poll() is not None:
                    raise Failed(f"{' '.join(command)}: exit status {broker.returncode}\n{log.read_text()}")
                yield f"http://127.0.0.1:{port}"
            finally:
                broker.send_signal(signal.SIGTERM)
                broker.wait()

    def _variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "POLLY"))}
        return kept | {"PATH": f"{self.bin}:{os.environ['PATH']}"}


def _pong(url: str) -> bool:
    with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{url}/ping") as answer:  # noqa: S310  # a port of ours
        return bool(answer.read())
    return False


def build_wheel(source: Path, target: Path) -> str:
    """Without a network and without a C compiler, with the tools that are installed. What the build says."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "CC": "/none/cc"})
    return done.stdout + done.stderr


def try_out(environment: Environment, suite: str) -> str:
    """What pytest says of the contract suite in the end, once both are installed. Raises Failed, or AssertionError with the answer."""
    environment.run("pip check", environment.source)
    environment.run("polly-executor --version", environment.source)
    passed = environment.run(suite, environment.source).splitlines()[-1]
    found = environment.read(f"doctor --config {environment.config}")
    assert {"ok": True, "subject": "platform cellar", "message": "pools: shelf", "mend": ""} in found, found
    with environment.broker() as url:
        pools = environment.read(f"inventory --broker {url}")["pools"]
    assert [(view["pool"]["platform"], view["pool"]["name"], view["pool"]["capacity_mib"]) for view in pools] == [("cellar", "shelf", 1024)]
    return passed


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder))
        install, suite = environment.documented(Path(sys.argv[1]).resolve())
        environment.run(install, environment.source)
        print(try_out(environment, suite).strip("= "))


if __name__ == "__main__":
    main()
