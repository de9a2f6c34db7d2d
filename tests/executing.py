"""polly-executor as a real process beside a fake agent: what the tests of a whole run share."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executors.wire import Delivery, Launch, PlatformSettings, Progress, Receipt, VolumeProgress, decode_progress, encode
from storage.model import Access, Birth, ClaimId, ExternalId, VolumeId, VolumePlan
from tests.fake_agent import FakeAgent
from tests.support import eventually

REPOSITORY = Path(__file__).parents[1]
PROGRAM = "import sys; from executors.main import main; code = main(sys.argv[1:]); {last}sys.exit(code)"
TERMINAL = ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED")


@dataclass
class Status:
    state: str
    message: str
    progress: Progress

    @property
    def volume(self) -> VolumeProgress:
        (volume,) = self.progress.volumes
        return volume


@dataclass
class Running:
    """One executor. `births` says whether the agent's broker answers by itself."""

    folder: Path
    births: bool = True
    attaches: Callable[[VolumeProgress], Delivery | None] = lambda _: None
    """What the agent's broker answers to the wish of a volume; None: nothing."""
    variables: dict[str, str] = field(default_factory=dict)
    config: str = ""
    user: int | None = None
    last: str = ""
    """Python to run after the executor's main, before its exit."""
    command: list[str] = field(default_factory=list)
    """In place of this Python and this repository."""
    agent: FakeAgent = field(default_factory=FakeAgent)

    def __post_init__(self) -> None:
        self.sandbox = self.folder / "sandbox"
        self.staging = self.folder / "staging"
        self.sandbox.mkdir(exist_ok=True)
        self._answered = 0
        self._done = threading.Event()

    def start(self) -> Running:
        self.agent.start()
        config = self.folder / "agent.toml"
        config.write_text(self.config or f'staging_dir = "{self.staging}"\n')
        config.chmod(0o644)
        if self.user is not None:
            for path in (self.folder, self.sandbox):
                os.chown(path, self.user, self.user)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "MESOS_SANDBOX": str(self.sandbox)}
        with open(self.sandbox / "stdout", "ab") as stdout, open(self.sandbox / "stderr", "ab") as stderr:
            self.process = subprocess.Popen(
                [*self._as_user(), *(self.command or [sys.executable, "-c", PROGRAM.format(last=self.last)]), "--config", str(config)],
                cwd=self.sandbox,
                env=environment | self.agent.environment | self.variables,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        threading.Thread(target=self._answer, daemon=True).start()
        return self

    def _as_user(self) -> list[str]:
        """Another user than root, who may read what root may: the tests' own Python can lie in root's home."""
        if self.user is None:
            return []
        reads = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        return ["setpriv", "--reuid", str(self.user), "--regid", str(self.user), "--clear-groups", *reads]

    def _answer(self) -> None:
        """The broker's part: a receipt for each birth certificate, an attachment for each wish."""
        while not self._done.wait(0.005):
            self.answer() if self.births else None

    def answer(self) -> None:
        statuses = self.statuses
        for status in statuses[self._answered :]:
            volumes = status.progress.volumes
            births = tuple(volume.claim_id for volume in volumes if volume.birth)
            deliveries = tuple(found for volume in volumes if volume.wants and (found := self.attaches(volume)))
            if births or deliveries:
                self.agent.message(encode(Receipt(births=births, deliveries=deliveries)))
        self._answered = len(statuses)

    def stop(self) -> None:
        self._done.set()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.agent.stop()

    def __enter__(self) -> Running:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # --- what is done with it

    def launch(self, launch: Launch | bytes, task_id: str = "task-1") -> Running:
        self.agent.subscribed()
        self.agent.launch(task_id, launch if isinstance(launch, bytes) else encode(launch))
        return self

    def ends(self, timeout_s: float = 30) -> Status:
        """Waits for the executor's own end and returns the task's last status."""
        assert self.process.wait(timeout_s) == 0, self.stderr
        return self.statuses[-1]

    def reaches(self, state: str, times: int = 1) -> Status:
        """Waits for the n-th status of this state."""
        found = eventually(
            lambda: len(self._of(state)) >= times and self._of(state)[times - 1], what=f"{state} number {times}; {self.stderr}"
        )
        assert isinstance(found, Status)
        return found

    def says(self, words: str) -> None:
        eventually(lambda: words in self.stderr, what=f"{words!r} in the executor's log")

    def _of(self, state: str) -> list[Status]:
        return [status for status in self.statuses if status.state == state]

    # --- what is seen of it

    @property
    def statuses(self) -> list[Status]:
        return [_status(status) for status in self.agent.statuses]

    @property
    def states(self) -> list[str]:
        return [status.state for status in self.statuses]

    @property
    def stderr(self) -> str:
        return (self.sandbox / "stderr").read_text()

    @property
    def stdout(self) -> str:
        return (self.sandbox / "stdout").read_text()


def _status(said: dict[str, Any]) -> Status:
    return Status(state=said["state"], message=said["message"], progress=decode_progress(base64.b64decode(said["data"])))


# --- what is launched


@dataclass
class Disk:
    """A local platform and one volume's plans on it, claim after claim."""

    root: Path
    format: str = "image"
    platform: str = "rack"
    name: str = "data"

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.epoch = 0
        self.external_id: ExternalId | None = None
        self.birth: Birth | None = None
        self.token = ""

    @property
    def settings(self) -> dict[str, PlatformSettings]:
        return {self.platform: PlatformSettings(kind="local", settings={"root": str(self.root), "format": self.format})}

    def plan(self, path: str = "data", *, access: Access = Access.RW, **more: Any) -> VolumePlan:
        """The next claim's; the volume is new until `learn` was told otherwise, and starts over with each claim until then."""
        self.epoch += 1
        claim_id = ClaimId(f"claim-{self.name}-{self.epoch}")
        if self.birth is None:
            self.token, self.external_id = claim_id, None
        return VolumePlan(
            **{
                "claim_id": claim_id,
                "volume_id": VolumeId(f"volume-{self.name}"),
                "name": f"/shop/db#0/{self.name}",
                "epoch": self.epoch,
                "access": access,
                "platform": self.platform,
                "pool": "default",
                "size_mib": 16,
                "token": self.token,
                "external_id": self.external_id,
                "birth": self.birth,
                "container_path": path,
                **more,
            }
        )

    def learn(self, progress: VolumeProgress) -> None:
        """As the broker does from a status."""
        self.external_id = progress.external_id or self.external_id
        self.birth = progress.birth or self.birth


def launch(cmd: str, *plans: VolumePlan, disks: Sequence[Disk] = (), **more: Any) -> Launch:
    platforms = {name: settings for disk in disks for name, settings in disk.settings.items()}
    return Launch(**{"cmd": cmd, "lease_s": 60.0, "volumes": plans, "platforms": platforms, "node": "node-1", **more})
