"""A guest of QEMU: a machine with a kernel of Debian's, this machine's files for its root, and disks that come and go while it runs.

It runs this very repository with this very Python: `call` runs any function of it inside, as root, in a process of its own. What it
writes stays in its memory. QEMU and the guest end with the thread that started them. KVM is used where it works, else QEMU computes.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import platform
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from tests.peers import _guest_kernel
from tests.peers._guest_agent import NUMBER
from tests.peers._guest_qmp import Qmp
from tests.peers.venvs import cache
from tests.servers import Missing
from tests.support import eventually

QEMU: Final = "qemu-system-x86_64"
REPOSITORY: Final = Path(__file__).parents[2]
HOST: Final = "10.0.2.2"
"""What the guest calls this machine's loopback interface."""
ADDRESS: Final = "10.0.2.15"
"""The guest's network card. What listens on its own loopback interface is seen by nobody outside."""
MEMORY_MIB: Final = 1536
PLUGS: Final = 12
"""How many disks there can be at a time."""
PROCESSORS: Final = {"kvm": "2", "tcg": "1"}
"""Of two that QEMU computes, now and then the second gets no more timer interrupts, and the guest stands still."""
TRIAL_S: Final = 20.0
"""How long a guest may take to come up on KVM before KVM counts as useless here."""
START_S: Final = 120.0
KINDS: Final = {"nvme": "nvme", "virtio": "virtio-blk-pci", "scsi": "scsi-hd"}

T = TypeVar("T")


class Down(Exception):
    """The guest is not there any more, or did not come up; the message ends with what its console said last."""


class Died(Exception):
    """The process of a call ended without an answer."""


def install() -> None:
    """Makes the guest's kernel ready."""
    _guest_kernel.installed()


class Guest:
    """One guest. Its console is in `folder`/console."""

    def __init__(self, folder: Path, *, on_start: Callable[[int], None] = lambda pid: None) -> None:
        """Raises Missing where QEMU or the kernel cannot be had."""
        if not shutil.which(QEMU):
            raise Missing(f"{QEMU} (Debian: qemu-system-x86)")
        self._kernel, self._folder = _guest_kernel.installed(), folder
        self._on_start = on_start
        self._numbers = itertools.count(1)
        self._plugs = [f"plug{number}" for number in range(PLUGS)]
        self._plugged: dict[str, str] = {}

    def start(self) -> Guest:
        doubts = cache() / f"guest-kvm-{platform.release()}"
        if os.access("/dev/kvm", os.R_OK | os.W_OK) and not doubts.exists():
            try:
                return self._start("kvm", "host", TRIAL_S)
            except Down as down:
                doubts.write_text(f"A guest does not come up on KVM here. Remove this file to try again.\n{down}\n")
        return self._start("tcg", "max", START_S)

    # --- what is done inside -----------------------------------------------------------------------------

    def call(self, function: Callable[..., T], *arguments: Any, answering: object = None, within_s: float = 60.0, **named: Any) -> T:
        """Runs the function in the guest and returns what it returned, or raises what it raised.

        What it asks (`_guest_agent.ask`) the object `answering` answers, out here. Raises Died, Down, and TimeoutError after `within_s`.
        """
        return self.begin(function, *arguments, answering=answering, **named).result(within_s)

    def begin(self, function: Callable[..., T], *arguments: Any, answering: object = None, **named: Any) -> Call[T]:
        """Has the function begun in the guest."""
        call: Call[T] = Call(self, next(self._numbers), answering)
        self._calls[call.number] = call
        self.send(call.number, bytes(ForkingPickler.dumps((function, arguments, named))))
        return call

    def forward(self, port: int) -> None:
        """Has a port of this machine's loopback interface lead to the same port of the guest's network card, from now on."""
        self.qmp.execute("human-monitor-command", command_line=f"hostfwd_add net tcp:127.0.0.1:{port}-{ADDRESS}:{port}")

    def load(self, module: str) -> None:
        """Loads a module of the kernel; it must be one of _guest_kernel.MODULES."""
        self.run("/run/guest/modprobe", module)

    def run(self, *command: str, check: bool = True, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a program in the guest."""
        options = {"check": check, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        return self.call(subprocess.run, list(command), within_s=within_s, **options)

    # --- its disks ---------------------------------------------------------------------------------------

    def plug(self, name: str, image: Path, serial: str, *, kind: str = "nvme", **options: Any) -> None:
        """Plugs the image in as a disk of this kind with this serial; `name` is how it is called from then on."""
        drive = f"disk-{name}"
        self.qmp.execute("blockdev-add", node_name=drive, driver="raw", file={"driver": "file", "filename": str(image)})
        place = {"bus": "scsi0.0"} if kind == "scsi" else {"bus": self._plugs[-1]}
        try:
            self.qmp.execute("device_add", driver=KINDS[kind], id=name, drive=drive, serial=serial, **place, **options)
        except BaseException:
            self.qmp.execute("blockdev-del", node_name=drive)
            raise
        self._plugged[name] = "" if kind == "scsi" else self._plugs.pop()

    def unplug(self, name: str, *, timeout_s: float = 20.0) -> None:
        """Takes the disk away, also from under those who use it. Gone already is fine."""
        if name not in self._plugged:
            return
        self.qmp.execute("device_del", id=name)
        self.qmp.await_event("DEVICE_DELETED", name, timeout_s)
        self.qmp.execute("blockdev-del", node_name=f"disk-{name}")
        if plug := self._plugged.pop(name):
            self._plugs.append(plug)

    def resize(self, name: str, size_mib: int) -> None:
        """Gives the disk another size, while it is used. QEMU's NVMe disks cannot."""
        self.qmp.execute("block_resize", node_name=f"disk-{name}", size=size_mib << 20)

    @property
    def plugged(self) -> frozenset[str]:
        return frozenset(self._plugged)

    # --- its life ----------------------------------------------------------------------------------------

    def _start(self, accelerator: str, cpu: str, timeout_s: float) -> Guest:
        calls, qemu_calls = socket.socketpair()
        monitor, qemu_monitor = socket.socketpair()
        with qemu_calls, qemu_monitor, (self._folder / "qemu.log").open("ab") as log:
            ends = (qemu_calls.fileno(), qemu_monitor.fileno())
            command = ["setpriv", "--pdeathsig", "KILL", "--", QEMU, *self._machine(accelerator, cpu), *_channels(*ends)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=ends)
        self._on_start(self.process.pid)
        self.accelerator, self.qmp = accelerator, Qmp(monitor)
        self._connection, self._sending = Connection(calls.detach()), threading.Lock()
        self._calls: dict[int, Call[Any]] = {}
        self._up = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._listen, name="guest", daemon=True).start()
        try:
            self.qmp.greet(timeout_s)
            eventually(lambda: self._up.is_set() or self._ended.is_set(), timeout_s, "the guest")
        except (OSError, TimeoutError):
            self._ended.set()
        if self._ended.is_set():
            self.stop()
            raise Down(self.last_words())
        return self

    def _machine(self, accelerator: str, cpu: str) -> list[str]:
        told = {"folder": str(REPOSITORY), "python": sys.executable}
        words = " ".join(f"polly.{key}={base64.b64encode(value.encode()).decode()}" for key, value in told.items())
        ports = [word for slot, plug in enumerate(self._plugs, 1) for word in ("-device", f"pcie-root-port,id={plug},chassis={slot}")]
        return [
            *("-accel", accelerator, "-cpu", cpu, "-machine", "q35,sata=off", "-smp", PROCESSORS[accelerator], "-m", str(MEMORY_MIB)),
            *("-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{self._folder}/console"),
            *("-kernel", str(self._kernel / "vmlinuz"), "-initrd", str(self._kernel / "initrd")),
            # A kernel that tries its timer panics where this machine is too busy to give QEMU a tick in time.
            *("-append", f"console=ttyS0 quiet panic=-1 no_timer_check {words} "),
            *("-virtfs", "local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-scsi-pci,id=scsi0", *ports),
        ]

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                frame = self._connection.recv_bytes()
                number, words = NUMBER.unpack_from(frame)[0], frame[NUMBER.size :]
                if call := self._calls.get(number):
                    call.hear(words)
                else:
                    self._up.set()
        self._ended.set()
        for call in list(self._calls.values()):
            call.hear(b"")

    def send(self, number: int, words: bytes) -> None:
        """For calls: hands the words to the process in the guest. Raises Down."""
        if self._ended.is_set():
            raise Down(self.last_words())
        try:
            with self._sending:
                self._connection.send_bytes(NUMBER.pack(number) + words)
        except OSError as error:
            raise Down(self.last_words()) from error

    def forget(self, number: int) -> None:
        """For calls: this one is over. Raises Down if the guest is."""
        self._calls.pop(number, None)
        if self._ended.is_set():
            raise Down(self.last_words())

    def last_words(self) -> str:
        """The end of what QEMU and the guest's kernel have said."""
        said = [
            file.read_bytes()[-2000:].decode(errors="replace") for name in ("qemu.log", "console") if (file := self._folder / name).exists()
        ]
        return "\n".join(said)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)
        self._ended.wait(timeout=10)
        self.qmp.close()

    def __enter__(self) -> Guest:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _channels(calls: int, monitor: int) -> Sequence[str]:
    return (
        *("-chardev", f"socket,id=calls,fd={calls}", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=calls"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
    )


class Call(Generic[T]):
    """A function that runs in the guest."""

    def __init__(self, guest: Guest, number: int, answering: object) -> None:
        self.number, self._guest, self._answering = number, guest, answering
        self._heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._open: tuple[Any, ...] | None = None

    def hear(self, words: bytes) -> None:
        self._heard.put(words)

    def kill(self) -> None:
        """The process in the guest gets SIGKILL, and what it has begun stays as it is."""
        self._open = None
        self._guest.send(self.number, b"")

    def stop(self) -> None:
        """Kills the process and waits until it is gone."""
        self.kill()
        with contextlib.suppress(Died):
            self.result(10.0)

    def result(self, timeout_s: float = 60.0) -> T:
        """What the function returned, answering meanwhile what it asks. Raises what it raised, Died, Down, TimeoutError."""
        deadline, answer = time.monotonic() + timeout_s, None
        while (said := self._next(deadline)) is not None:
            if said[0] == "ask":
                self.answer()
            else:
                answer = said
        self._guest.forget(self.number)
        if answer is None:
            raise Died(f"call {self.number}")
        _, is_well, value, trace = answer
        if not is_well:
            value.add_note(f"In the guest: {trace}")
            raise value
        result: T = value
        return result

    def until(self, verb: str, timeout_s: float = 60.0) -> None:
        """Answers what the function asks until it asks for this verb, which stays open until `answer` or `result`.

        Raises Died, TimeoutError.
        """
        deadline = time.monotonic() + timeout_s
        while (said := self._next(deadline)) is not None:
            if said[:2] == ("ask", verb):
                return
            if said[0] == "ask":
                self.answer()
        raise Died(f"call {self.number} ended before it asked for {verb}")

    def answer(self) -> None:
        """Answers what is open."""
        assert self._open is not None
        _, verb, arguments, named = self._open
        self._open = None
        try:
            answer: tuple[bool, Any] = (True, getattr(self._answering, verb)(*arguments, **named))
        except Exception as error:
            answer = (False, error)
        self._guest.send(self.number, bytes(ForkingPickler.dumps(answer)))

    def _next(self, deadline: float) -> tuple[Any, ...] | None:
        """What the function says next: what it asks, or how it ended; None once its process is gone."""
        if self._open is not None:
            return self._open
        try:
            words = self._heard.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            self.kill()
            console = self._guest.last_words()
            raise TimeoutError(f"call {self.number} did not end in the guest in time, and was killed\n{console}") from None
        said: tuple[Any, ...] | None = ForkingPickler.loads(words) if words else None
        self._open = said if said and said[0] == "ask" else None
        return said
