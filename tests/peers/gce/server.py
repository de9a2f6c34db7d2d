"""Compute Engine's API over HTTP on loopback, with the token server that service accounts ask and the metadata server that instances ask.

One server serves any number of projects, each a world of its own. What it answers is held to the discovery document: what is not as
the document says is kept in `violations`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from storage.platforms.faulting import Fate
from tests.peers import gce
from tests.peers.gce import attaching, verbs
from tests.peers.gce.discovery import Discovery
from tests.peers.gce.errors import ApiError
from tests.peers.gce.world import World
from tests.peers.loopback import Asked, Reply, meeting, served, written

TOO_FAST = ApiError(403, "rateLimitExceeded", "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'")
UNKNOWN_BEARER = ApiError(401, "authError", "Invalid Credentials")
WAIT_S = 5.0
"""How long `wait` holds a call; Google's: two minutes."""


class Peer:
    """The server's state, shared by all of its connections."""

    def __init__(self) -> None:
        self.discovery = Discovery(gce.document(), tuple(verbs.VERBS))
        self.worlds: dict[str, World] = {}
        self.tokens: dict[str, str] = {}
        self.violations: list[str] = []
        self.here = ("", "", "")
        """Project, zone and name of the instance that asks for metadata."""
        self.url = ""
        self.lock = threading.RLock()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.private_key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self._public_key = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def project(self, **settings: Any) -> World:
        """A new project with two instances in its first zone and one in its second."""
        world = World(project=f"polly-{uuid.uuid4().hex[:12]}", **settings)
        first, second, *_ = world.zones
        for zone, name in ((first, "node-a"), (first, "node-b"), (second, "node-c")):
            attaching.boot(world, zone, name)
        while any(disk["status"] != "READY" for disk in world.disks.values()):
            world.settle()
        self.worlds[world.project] = world
        return world

    def account(self, project: str) -> dict[str, str]:
        """A service account's key, as the file that Google gives for one."""
        return {
            "type": "service_account",
            "project_id": project,
            "private_key_id": "1",
            "private_key": self.private_key,
            "client_email": f"polly@{project}.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }

    def token(self, project: str) -> dict[str, Any]:
        made = f"ya29.{uuid.uuid4().hex}"
        self.tokens[made] = project
        return {"access_token": made, "expires_in": 3599, "token_type": "Bearer"}

    def grant(self, assertion: str) -> tuple[int, dict[str, Any]]:
        """A token for a signed assertion."""
        try:
            claims = jwt.decode(assertion, certs=self._public_key)
        except ValueError as error:
            return 400, {"error": "invalid_grant", "error_description": str(error)}
        project = _project(claims)
        return 200, self.token(project)

    def _project_of(self, token: str) -> str | None:
        """Whose a token is: one that was granted here, or one that an account has signed for itself."""
        if token not in self.tokens and token.count(".") == 2:
            with contextlib.suppress(ValueError):
                self.tokens[token] = _project(jwt.decode(token, certs=self._public_key))
        return self.tokens.get(token)

    def world_of(self, project: str, authorization: str) -> World:
        """The project of a call, if its bearer may see it. Raises ApiError."""
        world = self.worlds.get(project)
        bearer = self._project_of(authorization.removeprefix("Bearer "))
        if bearer is None:
            raise UNKNOWN_BEARER
        if world is None or bearer != project:
            raise ApiError(403, "forbidden", f"Required 'compute.projects.get' permission for 'projects/{project}'")
        if world.faults.throttled:
            world.faults.throttled -= 1
            raise TOO_FAST
        return world


def _project(claims: Mapping[str, Any]) -> str:
    """The project of the account that signed: its address is `NAME@PROJECT.iam.gserviceaccount.com`."""
    return str(claims["iss"]).partition("@")[2].partition(".")[0]


def _assertion(asked: Asked) -> str:
    return parse_qs(asked.sent.decode())["assertion"][0]


class Answers:
    """What is asked of the peer, by the server that a path belongs to."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def __call__(self, asked: Asked) -> Reply | None:
        path, world = asked.target.partition("?")[0], self._world(asked)
        fate = world.faults.at_call.fate(f"{asked.method} {path}") if world else Fate.DO
        return meeting(fate, asked, self._answer, REFUSALS_OF_TOKENS if path == "/token" else REFUSALS)

    def _world(self, asked: Asked) -> World | None:
        """The project that a call is for, where it is for one. It decides only whose faults are met: `grant` proves who asks."""
        path = asked.target.partition("?")[0]
        if path == "/token":
            with contextlib.suppress(ValueError):
                return self.peer.worlds.get(_project(jwt.decode(_assertion(asked), verify=False)))
        after = path.partition("/projects/")[2]
        return self.peer.worlds.get(after.partition("/")[0])

    def _answer(self, asked: Asked) -> Reply | None:
        path, _, query = asked.target.partition("?")
        if path == "/token":
            return _written(*self.peer.grant(_assertion(asked)))
        if path.startswith("/computeMetadata/") or path == "/":
            return _written(*self._metadata(asked, path))
        return self._api(asked, path, query)

    def _api(self, asked: Asked, path: str, query: str) -> Reply:
        try:
            return _written(200, self._called(asked, path, query))
        except ApiError as error:
            return _refused(error)

    def _called(self, asked: Asked, path: str, query: str) -> dict[str, Any]:
        with self.peer.lock:
            parts = path.split("/")
            world = self.peer.world_of(parts[parts.index("projects") + 1] if "projects" in parts else "", asked.authorization)
            call = self.peer.discovery.read(asked.method, path, query, asked.sent)
            world.calls.append(call.method)
        end = time.monotonic() + WAIT_S
        while verbs.wait(world, call) and time.monotonic() < end:
            time.sleep(0.01)
        with self.peer.lock:
            answer = verbs.run(world, call)
            self.peer.violations += [f"{call.method}: {text}" for text in self.peer.discovery.problems(answer, {"$ref": call.response})]
            text = json.dumps(answer)
        copied: dict[str, Any] = json.loads(text)
        return copied

    def _metadata(self, asked: Asked, path: str) -> tuple[int, dict[str, Any] | str]:
        if asked.headers.get("metadata-flavor") != "Google":
            return 403, {"error": "Missing Metadata-Flavor:Google header."}
        project, zone, name = self.peer.here
        texts = {
            "/": "computeMetadata/\n",
            "/computeMetadata/v1/instance/name": name,
            "/computeMetadata/v1/instance/zone": f"projects/123456789012/zones/{zone}",
            "/computeMetadata/v1/project/project-id": project,
            "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
        }
        accounts = "/computeMetadata/v1/instance/service-accounts/default/"
        if path in texts:
            return 200, texts[path]
        if path == accounts:
            return 200, {"email": f"polly@{project}", "scopes": ["https://www.googleapis.com/auth/compute"], "aliases": ["default"]}
        return (200, self.peer.token(project)) if path == f"{accounts}token" else (404, "")


def _written(status: int, said: dict[str, Any] | str) -> Reply:
    google = [("Metadata-Flavor", "Google")]
    if isinstance(said, str):
        return written(status, said.encode(), kind="application/text", headers=google)
    return written(status, said, kind="application/json; charset=UTF-8", headers=google)


def _refused(error: ApiError) -> Reply:
    return _written(error.status, error.body())


REFUSALS = {Fate.THROTTLED: _refused(TOO_FAST), Fate.EXPIRED: _refused(UNKNOWN_BEARER)}
REFUSALS_OF_TOKENS = {
    Fate.THROTTLED: _written(429, {"error": "rate_limit_exceeded", "error_description": "Too many requests."}),
    Fate.EXPIRED: _written(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}),
}


@contextlib.contextmanager
def serving() -> Iterator[Peer]:
    """A peer on a free port of loopback."""
    peer = Peer()
    with served(Answers(peer), name="compute-engine") as peer.url:
        yield peer
