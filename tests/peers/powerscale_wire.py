"""A simulated OneFS over TLS on 127.0.0.1, and replies that get lost there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from storage.platforms.faulting import Fate
from tests.peers.certificates import certified
from tests.peers.loopback import JSON, Asked, Reply, meeting, served, written
from tests.peers.powerscale_cluster import Cluster
from tests.peers.powerscale_ifs import Ifs, Refused
from tests.peers.powerscale_onefs import OneFs
from tests.peers.powerscale_shapes import PRIVILEGES

EXPIRED: Final = Refused("AEC_UNAUTHORIZED", "Authorization required")
REFUSALS: Final = {Fate.THROTTLED: written(429, None), Fate.EXPIRED: written(EXPIRED.status, EXPIRED.body)}


@contextmanager
def serving(folder: Path) -> Iterator[OneFs]:
    """OneFS with a certificate of its own, whose authority is in `ca_file`; its /ifs is below the folder."""
    ca_file = folder / "powerscale.pem"
    front = OneFs(cluster=Cluster(ifs=Ifs(folder=folder / "cluster")), ca_file=str(ca_file), privileges=dict(PRIVILEGES))

    def reply(asked: Asked) -> Reply | None:
        status, said, more = front.answer(asked.method, asked.target, asked.headers, asked.sent)
        if asked.is_meant(front.lose):
            front.lose = None
            return None
        cookies = [("Set-Cookie", cookie) for cookie in more.get("Set-Cookie", "").splitlines()]
        return written(status, said.encode() if isinstance(said, str) else said, kind=_kind(said), headers=cookies)

    def answer(asked: Asked) -> Reply | None:
        return meeting(front.faults.fate(f"{asked.method} {asked.target.partition('?')[0]}"), asked, reply, REFUSALS)

    with served(answer, name="onefs", tls=certified(ca_file)) as front.url:
        yield front


def _kind(said: Any) -> str:
    """Of files, of words that are not the API's, and of all else that is said."""
    kinds = {bytes: "application/octet-stream", str: "text/html", type(None): "text/plain"}
    return kinds.get(type(said), JSON)
