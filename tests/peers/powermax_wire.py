"""A simulated Unisphere over TLS on 127.0.0.1, and replies that get lost there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers.certificates import certified
from tests.peers.loopback import Asked, Reply, served, written
from tests.peers.powermax_array import small_array
from tests.peers.powermax_unisphere import Unisphere


@contextmanager
def serving(folder: Path) -> Iterator[Unisphere]:
    """Unisphere with a certificate of its own, whose authority is in `ca_file`."""
    ca_file = folder / "powermax.pem"
    front = Unisphere(array=small_array(), ca_file=str(ca_file))

    def answer(asked: Asked) -> Reply | None:
        status, said = front.answer(asked.method, asked.target, asked.authorization, asked.body)
        if asked.is_meant(front.lose):
            front.lose = None
            return None
        return written(status, said)

    with served(answer, name="unisphere", tls=certified(ca_file)) as front.url:
        yield front
