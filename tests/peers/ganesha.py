"""A real NFS server, nfs-ganesha from Debian, on loopback: folders exported to some clients, by NFS 4 and in user space.

What it exports may change while it runs. A client that no export names does not even see the export's path.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.ports import free_port, give_back
from tests.servers import Missing
from tests.support import eventually

PROGRAM: Final = "ganesha.nfsd"
MODULE: Final = "/usr/lib/*/ganesha/libfsalvfs.so"
PR_SET_PDEATHSIG: Final = 1
SETTINGS: Final = """
NFS_CORE_PARAM {{
    NFS_Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; mount_path_pseudo = true;
    Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false; Rquota_Port = 0;
}}
NFSV4 {{
    RecoveryBackend = fs; RecoveryRoot = "{folder}/recovery"; Graceless = true; Minor_Versions = 0, 1, 2;
    Only_Numeric_Owners = true;
}}
"""
STARTED, RELOADED = "NFS SERVER INITIALIZED", "Reread exports complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    address: str
    may_write: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A folder of this machine that some clients may mount; root stays root on it."""

    number: int
    """As long as it is exported it keeps its number, 1 to 65535."""
    folder: Path
    path: str
    """What clients mount: `127.0.0.1:PATH`."""
    clients: tuple[Client, ...]

    @property
    def block(self) -> str:
        clients = " ".join(_client(one) for one in self.clients)
        return (
            f'EXPORT {{ Export_Id = {self.number}; Path = "{self.folder}"; Pseudo = "{self.path}"; Access_Type = NONE; '
            f"Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }} {clients} }}\n"
        )


def _client(client: Client) -> str:
    access = "RW" if client.may_write else "RO"
    return f"CLIENT {{ Clients = {client.address}; Access_Type = {access}; Squash = No_Root_Squash; Protocols = 4; }}"


class Ganesha:
    """One server, which needs root. Dies with the thread that starts it. `folder` is for its own files."""

    def __init__(self, folder: Path, *, on_start: Callable[[int], None] = lambda pid: None) -> None:
        """Raises Missing where Debian's packages are not there."""
        if not shutil.which(PROGRAM) or not list(Path("/").glob(MODULE.lstrip("/"))):
            raise Missing("nfs-ganesha (Debian: nfs-ganesha, nfs-ganesha-vfs)")
        self._folder, self._on_start = folder, on_start
        self._settings, self._log = folder / "ganesha.conf", folder / "ganesha.log"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def start(self, exports: Sequence[Export] = ()) -> Ganesha:
        """Returns when it serves."""
        (self._folder / "recovery").mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        self._write(exports)
        files = ["-f", str(self._settings), "-L", str(self._log), "-p", str(self._folder / "ganesha.pid")]
        libc = ctypes.CDLL(None)
        self._process = subprocess.Popen(
            [PROGRAM, "-F", "-N", "NIV_EVENT", *files],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )
        self._on_start(self._process.pid)
        eventually(lambda: self._said(STARTED), 30, f"{PROGRAM} serves")
        return self

    def serve(self, exports: Sequence[Export]) -> None:
        """These exports and no others from now on; returns when it is so. Who has mounted another is cut off."""
        with self._lock:
            seen = self._said(RELOADED)
            self._write(exports)
            if self._process is not None:
                os.kill(self._process.pid, signal.SIGHUP)
                eventually(lambda: self._said(RELOADED) > seen, 30, f"{PROGRAM} has read its exports")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        give_back(self.port)

    def url(self, path: str) -> str:
        """The export as libnfs' programs name it."""
        return f"nfs://127.0.0.1{path}?version=4&nfsport={self.port}"

    def _write(self, exports: Sequence[Export]) -> None:
        text = SETTINGS.format(port=self.port, folder=self._folder) + "".join(export.block for export in exports)
        new = self._settings.with_suffix(".new")
        new.write_text(text)
        new.rename(self._settings)

    def _said(self, words: str) -> int:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"{PROGRAM} ended: {self._last_words()}")
        return self._last_words(None).count(words)

    def _last_words(self, number: int | None = 10) -> str:
        if not self._log.exists():
            return ""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines if number is None else lines[-number:])
