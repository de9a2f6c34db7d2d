"""Cinder's in-memory XMS as a server over TLS on loopback, in a process of its own; and Cinder's own client, to try it with."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import trustme

from storage.platforms.faulting import Fault, Faults
from tests.peers.venvs import venv
from tests.ports import free_port

HERE = Path(__file__).parent
USER, PASSWORD = "polly", "not-a-real-secret"


def install() -> None:
    venv("xtremio")


class FarFaults(Faults):
    """Faults that the server's own process keeps."""

    def __init__(self, server: XmsServer, *kinds: Fault, codes: Mapping[Fault, str]) -> None:
        super().__init__(*kinds, codes=codes)
        self._server = server

    @property
    def calls(self) -> int:
        return int(self._server.faults()["calls"])

    @property
    def met(self) -> bool:
        return bool(self._server.faults()["met"])

    def arrange(self, fault: Fault, nth: int) -> None:
        self._server.faults(arrange=[fault.name, nth])

    def heal(self) -> None:
        self._server.faults(heal=True)


class XmsServer:
    """A running XMS; `faults` sets what goes wrong next."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca_file, self.password_file = folder / "ca.pem", folder / "password"
        self._certificate, self._key = folder / "cert.pem", folder / "key.pem"
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(str(self.ca_file))
        issued.private_key_pem.write_to_path(str(self._key))
        for part in issued.cert_chain_pems:
            part.write_to_path(str(self._certificate), append=True)
        self.password_file.touch(0o600)
        self.password_file.write_text(PASSWORD + "\n")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> XmsServer:
        command = [str(venv("xtremio") / "bin/python"), "-W", "ignore", str(HERE / "_xms_server.py")]
        command += [str(self.port), str(self._certificate), str(self._key)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError("the XMS did not start")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def faults(self, **faults: Any) -> Any:
        """What calls there were, and all that is there."""
        return self._teller().post("/faults", json=faults).raise_for_status().json()

    @cache  # noqa: B019 - there is one server for a run
    def _teller(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=ssl.create_default_context(cafile=str(self.ca_file)), trust_env=False)

    @contextlib.contextmanager
    def failing(self, **faults: Any) -> Iterator[None]:
        """What is set goes back to nothing afterwards."""
        self.faults(**faults)
        try:
            yield
        finally:
            self.faults(**dict.fromkeys(faults, False))

    def settings(self, **more: object) -> dict[str, object]:
        """A block of polly.toml for it."""
        files = {"password_file": str(self.password_file), "ca_file": str(self.ca_file)}
        return {"endpoint": self.url, "username": USER, **files, **more}

    def cinder(self) -> list[str]:
        """What Cinder's own driver has to say of this server: one line for each thing that it did."""
        command = [str(venv("xtremio") / "bin/python"), "-W", "ignore", str(HERE / "_xms_cinder.py")]
        asked = [*command, f"127.0.0.1:{self.port}", str(self.ca_file), USER, str(self.password_file)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise AssertionError(done.stderr[-2000:])
        return done.stdout.splitlines()
