"""A real VirtualBox: VBoxSVC, VBoxManage and vboxwebsrv of Debian's unstable release, unpacked into a folder and run below a chroot.

No kernel module is there, so no VM can be started; everything else is VirtualBox itself. The packages come from the mirror that
this machine's apt uses, with lists and state of their own; nothing is installed on the machine. What was found is recorded
beside it, and used from then on.

Where that release cannot be had, the run fails and says so; POLLY_TEST_WITHOUT=virtualbox lets it go on without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.peers.venvs import alone, cache
from tests.ports import free_port, give_back
from tests.support import eventually

RELEASE: Final = "sid"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LIBRARIES: Final = "/usr/lib/virtualbox"
NOT_USED: Final = {
    "virtualbox-dkms": "99:99",
    "systemd": "99:99",
    "python3": "3.14.99",
    "python3.14": "99:99",
    "python3-packaging": "99:99",
    "iproute2": "99:99",
    "procps": "99:99",
    "libgl1": "99:99",
    "libsdl2-2.0-0": "99:99",
    "libsystemd0": "99:99",
    "perl": "99:99",
    "debconf": "99:99",
}
"""What the package asks for and a VirtualBox without kernel module, window and installation does not: said to be there."""

USER: Final = "polly"
PASSWORD: Final = "correct horse battery staple"


class Unavailable(Exception):
    """Debian's release with VirtualBox cannot be had here."""


def left_out() -> bool:
    """Whether the run was told to go on without a real VirtualBox."""
    return "virtualbox" in os.environ.get("POLLY_TEST_WITHOUT", "").replace(",", " ").split()


def install() -> None:
    """Makes VirtualBox ready. Raises Unavailable, unless the run was told to go on without."""
    try:
        installed()
    except Unavailable as error:
        if not left_out():
            raise
        print(f"Going on WITHOUT VirtualBox, as told: {error}", flush=True)


def installed() -> Path:
    """The folder that VirtualBox and its libraries are unpacked in. Raises Unavailable."""
    with alone("virtualbox"):
        for folder in sorted(cache().glob("virtualbox-*/ready"), reverse=True):
            return folder.parent
        try:
            return _unpacked(cache() / ".virtualbox-apt")
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or str(error)
            raise Unavailable(
                f"VirtualBox is not to be had from Debian's {RELEASE}: {said.strip()[-600:]} "
                "(POLLY_TEST_WITHOUT=virtualbox lets the tests go on without it)"
            ) from error


def _unpacked(work: Path) -> Path:
    print(f"Fetching VirtualBox from Debian's {RELEASE}, about 50 MB", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    for part in ("state/lists/partial", "cache/archives/partial", "parts", "root"):
        (work / part).mkdir(parents=True)
    trust = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    (work / "sources.list").write_text("".join(f"deb {trust}{mirror} {RELEASE} main contrib\n" for mirror in mirrors()))
    (work / "status").write_text("".join(_stand_in(name, version) for name, version in NOT_USED.items()))
    _apt(work, "update")
    _apt(work, "install", "--download-only", "--no-install-recommends", "virtualbox")
    packages = sorted((work / "cache/archives").glob("*.deb"))
    for package in packages:
        _run("dpkg-deb", "--extract", str(package), str(work / "root"))
    (version,) = (package.name.split("_")[1] for package in packages if package.name.startswith("virtualbox_"))
    _furnish(work / "root")
    (work / "root/ready").write_text("".join(f"{package.name}\n" for package in packages))
    return (work / "root").rename(cache() / f"virtualbox-{version.replace('%3a', ':')}")


def mirrors() -> list[str]:
    """The mirrors of Debian that this machine's apt is configured with. Raises Unavailable where there is none."""
    if not shutil.which("apt-get"):
        raise Unavailable("VirtualBox comes from Debian's packages, and this machine has no apt")
    asked = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    found = dict.fromkeys(line for line in asked.split() if line.rstrip("/").endswith("/debian"))
    if not found:
        raise Unavailable("this machine's apt is configured with no mirror of Debian")
    return list(found)


def _stand_in(name: str, version: str) -> str:
    return (
        f"Package: {name}\nStatus: install ok installed\nPriority: optional\nSection: misc\nInstalled-Size: 1\n"
        f"Maintainer: nobody <nobody@localhost>\nArchitecture: {_run('dpkg', '--print-architecture').strip()}\nMulti-Arch: allowed\n"
        f"Version: {version}\nDescription: stands for what no test uses\n\n"
    )


def _apt(work: Path, *arguments: str) -> None:
    own = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": work / "parts",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "",
    }
    options = [word for key, value in own.items() for word in ("-o", f"{key}={value}")]
    _run("apt-get", "-qq", "-y", *options, *arguments)


def _furnish(root: Path) -> None:
    """What the packages' scripts would have made."""
    for folder in ("lib", "lib64", "bin", "sbin"):
        if not (root / folder).exists():
            (root / folder).symlink_to(f"usr/{folder}")
    for folder in ("proc", "dev", "tmp", "etc"):
        (root / folder).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class VirtualBox:
    """One VirtualBox of its own: its settings, its sockets and its disks are in `work`, which has the same path inside."""

    def __init__(self, work: Path) -> None:
        self.root, self.work = installed(), work
        self.disks, self.home = work / "disks", work / "home"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.program = work / "VBoxManage"
        self.service: subprocess.Popen[bytes] | None = None
        self._svc: subprocess.Popen[bytes] | None = None
        self._holder: subprocess.Popen[bytes] | None = None

    def start(self) -> VirtualBox:
        for folder in (self.disks, self.home, self.work / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        alone_here = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        hold = [sys.executable, "-m", "tests.peers.virtualbox", str(self.root), str(self.work)]
        self._holder = subprocess.Popen([*alone_here, *hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise Unavailable("this machine does not let us make a mount namespace for VirtualBox's folder")
        run = [*self._hurry(), f"LOCPATH={self._locales()}", *self.command("VBoxManage")[2:]]
        self.program.write_text(f'#!/bin/sh\nexec env -i LC_ALL="$LC_ALL" {shlex.join(run)} "$@"\n')
        self.program.chmod(0o755)
        self._start_svc()
        self.set_password(PASSWORD)
        return self

    def _start_svc(self) -> None:
        ipc = self.work / "tmp/.vbox-root-ipc/ipcd"
        ipc.unlink(missing_ok=True)  # of one that was killed
        self._svc = self._spawn("VBoxSVC")
        eventually(ipc.is_socket, 20, "VBoxSVC")  # earlier, VBoxManage would start another
        eventually(lambda: subprocess.run([self.program, "list", "vms"], capture_output=True, check=False).returncode == 0, 20, "VBoxSVC")

    def restart(self) -> None:
        """All of VirtualBox ends and starts again: what it had only in its memory is gone."""
        self.end()
        self._start_svc()
        self.serve()

    def command(self, program: str, *arguments: str) -> list[str]:
        """The program inside, as a command of this machine: in the holder's mounts and root."""
        assert self._holder is not None
        names = {"HOME": self.home, "VBOX_USER_HOME": self.home, "LOGNAME": "root", "USER": "root", "PATH": "/usr/bin:/usr/sbin"}
        enter = ["nsenter", "--target", str(self._holder.pid), "--mount", "--root", "--wd=/"]
        if os.geteuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        return ["env", "-i", *(f"{key}={value}" for key, value in names.items()), *enter, f"{LIBRARIES}/{program}", *arguments]

    def _hurry(self) -> list[str]:
        """How VBoxManage is kept from lingering (see virtualbox_hurry.c); where nothing can be compiled it lingers now and then."""
        source, library = Path(__file__).with_name("virtualbox_hurry.c"), self.work / "hurry.so"
        if not shutil.which("gcc"):
            return []
        _run("gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl")
        return [f"LD_PRELOAD={library}"]

    def _locales(self) -> Path:
        """Where VirtualBox, which has no C library's data, finds what this machine has of the locale that all machines have."""
        locales = self.work / "locales"
        shutil.copytree("/usr/lib/locale/C.utf8", locales / "C.utf8")
        return locales

    def manage(self, *arguments: str) -> str:
        return _run(str(self.program), *arguments)

    def machine(self, name: str, *, ports: int = 30) -> str:
        """A VM with a SATA controller; returns its UUID."""
        self.manage("createvm", "--name", name, "--ostype", "Debian_64", "--register")
        self.manage("storagectl", name, "--name", "SATA", "--add", "sata", "--controller", "IntelAhci", "--portcount", str(ports))
        said = self.manage("showvminfo", name, "--machinereadable")
        return next(line.split('"')[1] for line in said.splitlines() if line.startswith("UUID="))

    @contextlib.contextmanager
    def tiny(self, folder: Path, *, size_mib: int) -> Iterator[None]:
        """While it lasts VirtualBox finds the folder on a disk of this size."""
        assert self._holder is not None
        enter = ["nsenter", "--target", str(self._holder.pid), "--mount"]
        enter += [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        inside = str(self.root / folder.relative_to("/"))
        _run(*enter, "mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", inside)
        try:
            yield
        finally:
            _run(*enter, "umount", "--lazy", inside)

    def set_password(self, password: str) -> None:
        """Of the user that the web service lets in; VBoxAuthSimple keeps its hash in VirtualBox's own settings."""
        self.manage("setextradata", "global", f"VBoxAuthSimple/users/{USER}", hashlib.sha256(password.encode()).hexdigest())

    def serve(self, *arguments: str) -> None:
        """Starts the web service, with VirtualBox's own check of user and password."""
        give_back(self.port)
        self.service = self._spawn("vboxwebsrv", "-H", "127.0.0.1", "-p", str(self.port), "-A", "VBoxAuthSimple", *arguments)
        eventually(self._answers, 20, "vboxwebsrv")

    def stop_serving(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.service:
            _end(self.service, how)
            self.service = None

    def stop(self) -> None:
        self.end()
        if self._holder:
            assert self._holder.stdin is not None
            self._holder.stdin.close()
            self._holder.wait(timeout=10)
        give_back(self.port)

    def end_svc(self) -> None:
        """What the web service and VBoxManage call; the latter starts it where it needs it."""
        if self._svc:
            _end(self._svc, signal.SIGKILL)

    def end(self) -> None:
        """All of VirtualBox."""
        self.stop_serving()
        self.end_svc()
        for pid in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.work / f"{program}.log", "ab") as log:
            return subprocess.Popen(self.command(program, *arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def _left(self) -> Iterator[int]:
        """Processes of this VirtualBox, by the settings folder in their environment."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"VBOX_USER_HOME={self.home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    yield int(process.name)


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)


def hold(root: Path, work: Path) -> None:
    """Puts the machine's trees and the work folder below the root, in this process' mounts only, and waits for the end of its input."""
    inside = root / work.relative_to("/")
    for tree in ("proc", "dev"):
        _run("mount", "--rbind", f"/{tree}", str(root / tree))
    _run("mount", "--bind", str(work / "tmp"), str(root / "tmp"))
    inside.mkdir(parents=True, exist_ok=True)
    _run("mount", "--bind", str(work), str(inside))
    os.chroot(root)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    hold(Path(sys.argv[1]), Path(sys.argv[2]))
