"""Python packages of a peer in an environment of its own, made once and kept in the user's cache.

What is in it is pinned by `tests/peers/NAME.txt`; another content makes another environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

HERE = Path(__file__).parent
AUTHORITIES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""What requests, which most clients stand on, would trust instead of the authority that it is told."""


def cache() -> Path:
    """Where peers are installed; POLLY_PEERS names another folder."""
    folder = Path(os.environ.get("POLLY_PEERS") or Path.home() / ".cache" / "polly-peers")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One installation of a thing at a time, whichever process does it."""
    with open(cache() / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def venv(name: str) -> Path:
    """The environment with what `tests/peers/NAME.txt` lists, made if it is not there; its programs are in `bin`."""
    wanted = (HERE / f"{name}.txt").read_bytes() + sys.version.encode()
    folder = cache() / f"{name}-{hashlib.sha256(wanted).hexdigest()[:16]}"
    with alone(name):
        if not (folder / "ready").exists():
            print(f"Installing {name} into {folder}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(folder / "bin" / "pip"), "install", "-qq", "--disable-pip-version-check"]
            subprocess.run([*pip, "-r", str(HERE / f"{name}.txt")], check=True)
            (folder / "ready").touch()
    return folder


def seen(environment: str, client: str, *arguments: str) -> dict[str, Any]:
    """What a program of `tests/peers/clients` tells in its last line, run in an environment; what it could not do fails it."""
    command = [str(venv(environment) / "bin" / "python"), str(HERE / "clients" / f"{client}.py"), *arguments]
    around = {name: value for name, value in os.environ.items() if name not in AUTHORITIES}
    ended = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120)
    if ended.returncode:
        raise AssertionError(f"{client} ended with {ended.returncode}: {ended.stderr[-4000:]}")
    said: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return said
