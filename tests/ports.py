"""Ports of the loopback interface that no other test process picks, however many run on this machine at once.

They lie below the kernel's range for outgoing connections and below the ports that Mesos agents offer, so a server
that is killed finds its port free when it starts again. Each is kept by an abstract Unix socket of its number, which the
kernel frees when this process ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

FIRST, LAST = 12000, 30900
WORKER_STEP = 1500

_kept: dict[int, socket.socket] = {}


def free_port() -> int:
    """A port that nobody listens on, kept for this process until it ends or `give_back` is called."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    start = (worker * WORKER_STEP + os.getpid() * 7) % (LAST - FIRST)
    for port in itertools.chain(range(FIRST + start, LAST), range(FIRST, FIRST + start)):
        if port not in _kept and _keep(port):
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")


def give_back(port: int) -> None:
    """Lets others have the port again; does nothing if it was not kept."""
    if keeper := _kept.pop(port, None):
        keeper.close()


def _keep(port: int) -> bool:
    keeper = socket.socket(socket.AF_UNIX)
    try:
        keeper.bind(f"\0polly-test-port-{port}")
    except OSError:
        keeper.close()
        return False
    if _in_use(port):
        keeper.close()
        return False
    _kept[port] = keeper
    return True


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return False
    return True
