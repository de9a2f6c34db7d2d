"""The instance metadata service of one EC2 instance, on loopback, that takes no call without its token: version 1 is switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.peers.loopback import Asked, Reply, served, written

TOKEN = "AQAEAGx0b2tlbg=="


@dataclass
class Metadata:
    name: str
    """The instance id that it tells."""
    stumbles: int = 0
    """How many of the next calls it fails."""
    calls: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str, ttl: str) -> tuple[int, str]:
        self.calls.append(f"{method} {path}")
        if self.stumbles:
            self.stumbles -= 1
            return 503, ""
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, TOKEN) if ttl.isdigit() else (400, "")
        if token != TOKEN:
            return 401, ""
        return (200, self.name) if path == "/latest/meta-data/instance-id" else (404, "")


@contextmanager
def serving(service: Metadata) -> Iterator[str]:
    """The address at which it answers meanwhile."""

    def answer(asked: Asked) -> Reply:
        token, ttl = (asked.headers.get(f"x-aws-ec2-metadata-token{end}", "") for end in ("", "-ttl-seconds"))
        status, text = service.answer(asked.method, asked.target, token, ttl)
        return written(status, text.encode(), kind="text/plain")

    with served(answer, name="imds") as url:
        yield url
