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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from tests.peers import gce
from tests.peers.gce import attaching, verbs
from tests.peers.gce.discovery import Discovery
from tests.peers.gce.errors import ApiError
from tests.peers.gce.world import World

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
        if self.worlds[project].faults.expired:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
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
        if bearer is None or (world is not None and world.faults.expired):
            raise ApiError(401, "authError", "Invalid Credentials")
        if world is None or bearer != project:
            raise ApiError(403, "forbidden", f"Required 'compute.projects.get' permission for 'projects/{project}'")
        if world.faults.throttled:
            world.faults.throttled -= 1
            raise ApiError(403, "rateLimitExceeded", "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'")
        return world


def _project(claims: Mapping[str, Any]) -> str:
    """The project of the account that signed: its address is `NAME@PROJECT.iam.gserviceaccount.com`."""
    return str(claims["iss"]).partition("@")[2].partition(".")[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    peer: Peer

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/token":
            self._answer(*self.peer.grant(parse_qs(body.decode())["assertion"][0]))
        elif path.startswith("/computeMetadata/") or path == "/":
            self._metadata(path)
        else:
            self._api(path, query, body)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve  # noqa: N815  # the names that http.server looks for

    def _api(self, path: str, query: str, body: bytes) -> None:
        try:
            status, answer, lost = self._called(path, query, body)
        except ApiError as error:
            status, answer, lost = error.status, error.body(), False
        if lost:
            self.close_connection = True
            return
        self._answer(status, answer)

    def _called(self, path: str, query: str, body: bytes) -> tuple[int, dict[str, Any], bool]:
        with self.peer.lock:
            parts = path.split("/")
            world = self.peer.world_of(
                parts[parts.index("projects") + 1] if "projects" in parts else "", self.headers["Authorization"] or ""
            )
            call = self.peer.discovery.read(self.command, path, query, body)
            world.calls.append(call.method)
        end = time.monotonic() + WAIT_S
        while verbs.wait(world, call) and time.monotonic() < end:
            time.sleep(0.01)
        with self.peer.lock:
            answer = verbs.run(world, call)
            self.peer.violations += [f"{call.method}: {text}" for text in self.peer.discovery.problems(answer, {"$ref": call.response})]
            lost = world.faults.losing == call.method
            world.faults.lost += lost
            text = json.dumps(answer)
        return 200, json.loads(text), lost

    def _metadata(self, path: str) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            self._answer(403, {"error": "Missing Metadata-Flavor:Google header."})
            return
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
            self._answer(200, texts[path])
        elif path == accounts:
            self._answer(200, {"email": f"polly@{project}", "scopes": ["https://www.googleapis.com/auth/compute"], "aliases": ["default"]})
        elif path == f"{accounts}token":
            self._answer(200, self.peer.token(project))
        else:
            self._answer(404, "")

    def _answer(self, status: int, answer: dict[str, Any] | str) -> None:
        text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/text" if isinstance(answer, str) else "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Metadata-Flavor", "Google")
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""


@contextlib.contextmanager
def serving() -> Iterator[Peer]:
    """A peer on a free port of loopback."""
    peer = Peer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"peer": peer}))
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
