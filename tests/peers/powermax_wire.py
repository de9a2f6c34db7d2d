"""A simulated Unisphere over TLS on 127.0.0.1, and replies that get lost there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from storage.platforms.faulting import Fate
from tests.peers.certificates import certified
from tests.peers.loopback import Asked, Reply, meeting, served, written
from tests.peers.powermax_array import small_array
from tests.peers.powermax_unisphere import Unisphere

REFUSALS: Final = {Fate.THROTTLED: written(429, None), Fate.EXPIRED: written(401, {"message": "Unauthorized"})}


@contextmanager
def serving(folder: Path) -> Iterator[Unisphere]:
    """Unisphere with a certificate of its own, whose authority is in `ca_file`."""
    ca_file = folder / "powermax.pem"
    front = Unisphere(array=small_array(), ca_file=str(ca_file))

    def reply(asked: Asked) -> Reply | None:
        status, said = front.answer(asked.method, asked.target, asked.authorization, asked.body)
        if asked.is_meant(front.lose):
            front.lose = None
            return None
        return written(status, said)

    def answer(asked: Asked) -> Reply | None:
        return meeting(front.faults.fate(f"{asked.method} {asked.target.partition('?')[0]}"), asked, reply, REFUSALS)

    with served(answer, name="unisphere", tls=certified(ca_file)) as front.url:
        yield front
