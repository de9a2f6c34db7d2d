"""A VBoxManage that asks the test before each of its runs, and is killed before or after one where the test says so."""

from __future__ import annotations

import shlex
import socketserver
import threading
from pathlib import Path
from typing import Final

from storage.platforms.faulting import Fate, Fault, Faults

READS: Final = ("--version", "list", "show", "getextradata")
SCRIPT: Final = """#!/bin/bash
exec {{asked}}<>/dev/tcp/127.0.0.1/{port}
printf '%s\\n' "$*" >&$asked
read -r fate <&$asked
exec {{asked}}>&-
case $fate in
  CUT) kill -KILL $$ ;;
  UNHEARD) {program} "$@" >/dev/null 2>&1; kill -KILL $$ ;;
esac
exec {program} "$@"
"""


class Runs(Faults):
    """Runs that change something, or with `looks` all: one that only looks leaves nothing half done.

    `program` is what the adapter is to run.
    """

    def __init__(self, folder: Path, vboxmanage: Path, *, looks: bool) -> None:
        super().__init__(Fault.LOST, Fault.DIED, midway=(Fault.LOST, Fault.DIED) if looks else (Fault.DIED,))
        runs = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                what = self.rfile.readline().decode().strip()
                fate = Fate.DO if what.startswith(READS) and not looks else runs.fate(what)
                self.wfile.write(f"{fate.name}\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.program = folder / "VBoxManage-asking"
        self.program.write_text(SCRIPT.format(port=self._server.server_address[1], program=shlex.quote(str(vboxmanage))))
        self.program.chmod(0o700)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
