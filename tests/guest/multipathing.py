"""A real udevd and a real multipathd. All here runs in the guest."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from storage.node import multipath
from storage.node.devices import Roots
from storage.node.multipath_findings import multipath_findings
from storage.node.multipathd import Multipathd
from tests.guest import inside
from tests.support import EMULATED_S, eventually

MODULES: Final = ("dm-mod", "dm-multipath", "dm-service-time", "scsi_dh_alua")
TOOLS: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
UDEVD: Final = (["/lib/systemd/systemd-udevd"], TOOLS, "/run/udevd.log")
MULTIPATHD: Final = (["multipathd", "-d", "-s"], TOOLS, "/run/multipathd.log")
CONFIGURATION: Final = Path("/etc/multipath.conf")
PID: Final = Path("/run/multipathd.pid")
MEMORY: Final = Path("/etc/multipath")
"""Which names it has seen and given, kept by the daemon from one start to the next."""
GROUP: Final = Path("/sys/fs/cgroup/daemons")
"""Both daemons, and all that they have begun."""


def daemon(command: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """As inside.program, until `end_daemons`."""
    GROUP.mkdir(exist_ok=True)
    (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    inside.program(command, environment, log)


def configure(text: str) -> None:
    """What the daemon reads when it is started next; what it has kept of before is gone."""
    CONFIGURATION.write_text(text)
    MEMORY.mkdir(exist_ok=True)
    for kept in MEMORY.iterdir():
        kept.unlink()


def take(path: str) -> None:
    """Puts a map over the one path, as the daemon would, unless it is a map itself."""
    name = Path(path).name
    if not name.startswith("dm-"):
        sectors = (Path("/sys/block") / name / "size").read_text().strip()
        table = f"0 {sectors} multipath 0 0 1 1 service-time 0 1 2 {path} 1 1"
        uuid = multipath.MAP + "3" + multipath.wwid(name, Path("/sys")).removeprefix("naa.")
        subprocess.run(["dmsetup", "create", "taken", "--noudevsync", "--uuid", uuid, "--table", table], check=True)


def await_udevd() -> None:
    eventually(
        lambda: subprocess.run(["udevadm", "control", "--ping"], check=False, capture_output=True).returncode == 0, EMULATED_S, "udevd"
    )


def await_daemon() -> None:
    eventually(lambda: said("show", "daemon").endswith(("idle", "running")), EMULATED_S, "multipathd")


def said(*words: str) -> str:
    return subprocess.run(["multipathd", *words], check=False, capture_output=True, text=True).stdout.strip()


def kill_daemon() -> None:
    os.kill(int(PID.read_text()), signal.SIGKILL)
    eventually(lambda: not Multipathd().answers(), EMULATED_S, "the death of multipathd")


def end_daemons() -> None:
    """Both get SIGKILL, for told to end udevd waits for what it has begun, half a minute."""
    (GROUP / "cgroup.kill").write_text("1")
    eventually(lambda: "populated 0" in (GROUP / "cgroup.events").read_text(), EMULATED_S, "the end of udevd and multipathd")
    PID.unlink(missing_ok=True)
    shutil.rmtree("/run/udev")  # by what is in it device-mapper's tools would go on waiting for udev


def findings() -> list[str]:
    """What `polly doctor` would have mended on this node."""
    return [finding.message for finding in multipath_findings(("LIO-ORG", "IBLOCK"), Roots()) if not finding.ok]


def paths() -> dict[str, str]:
    """What the daemon thinks of each path under a map: `active` or `failed`."""
    lines = (line.split() for line in said("show", "paths", "raw", "format", "%d %t").splitlines())
    return {name: state for name, state in lines if state != "undef"}


def maps() -> dict[str, str]:
    """The maps that the kernel has: their names, and which devices they are."""
    blocks = (block for block in Path("/sys/block").glob("dm-*") if (block / "dm" / "uuid").read_text().startswith("mpath-"))
    return {(block / "dm" / "name").read_text().strip(): block.name for block in blocks}


def disks() -> list[str]:
    """All SCSI disks and all maps."""
    return sorted(block.name for block in Path("/sys/block").iterdir() if block.name.startswith(("sd", "dm-")))
