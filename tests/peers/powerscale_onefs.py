"""OneFS' REST API before a simulated PowerScale cluster: sessions, pages with resume tokens, and what goes wrong with them.

Paths of the platform API are in `powerscale_platform`, those of the namespace API here.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from storage.platforms.faulting import Faults
from tests.peers.powerscale_cluster import Cluster
from tests.peers.powerscale_ifs import Refused
from tests.peers.powerscale_platform import act

USER: Final = "polly"
PASSWORD: Final = "not-a-real-secret"
LATEST: Final = 23
Answer = tuple[int, Any, dict[str, str]]
"""Status, what is said, and more headers."""
COOKIE: Final = re.compile(r"isisessid=([^;\s]+)")
YES: Final = ("true", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    """Their names in small letters."""
    sent: bytes

    @property
    def body(self) -> dict[str, Any]:
        try:
            found = json.loads(self.sent) if self.sent.strip() else {}
        except ValueError as error:
            raise Refused("AEC_BAD_REQUEST", "Unable to parse JSON") from error
        if not isinstance(found, dict):
            raise Refused("AEC_BAD_REQUEST", "The body is not an object")
        return found

    def says(self, name: str) -> bool:
        return self.query.get(name, "").lower() in YES


@dataclass(kw_only=True)
class OneFs:
    """The front of one cluster, and what goes wrong with it."""

    cluster: Cluster
    url: str = ""
    ca_file: str = ""
    user: str = USER
    password: str = PASSWORD
    page_size: int = 1000
    latest: int = LATEST
    privileges: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    """Session to its token against forgery."""
    faults: Faults = field(default_factory=Faults)
    """What goes wrong on the wire."""
    lose: tuple[str, str] | None = None
    """The next answer to this method and a path that holds these words is lost: it is done, and the connection ends."""
    meet: list[tuple[str, str, Callable[[], object]]] = field(default_factory=list)
    """What happens right before the next call of this method (`*`: any) and a path that holds these words; each once, in this order."""
    refuse: list[tuple[int, Any]] = field(default_factory=list)
    """Answers that the next calls get instead of being done; a text is one of HTML."""
    calls: Counter[str] = field(default_factory=Counter)
    resumes: dict[str, list[Any]] = field(default_factory=dict)
    on_exports: Callable[[], None] | None = None
    """Called when exports may have changed, before the answer is sent."""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self.aliases: dict[str, Any] = {}
        self.shares: dict[str, Any] = {}
        self.dedupe: dict[str, Any] = {"paths": [], "assess_paths": []}
        self.schedule: dict[str, Any] = {}
        self.workloads: dict[int, Any] = {}

    def answer(self, method: str, target: str, headers: Mapping[str, str], sent: bytes) -> Answer:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        call = Call(method=method, path=unquote(url.path), query=query, headers=headers, sent=sent)
        if self.meet and self.meet[0][0] in ("*", method) and self.meet[0][1] in call.path:
            self.meet.pop(0)[2]()
        with self.cluster.lock:
            self.calls[f"{method} {call.path}"] += 1
            try:
                if self.refuse:
                    status, said = self.refuse.pop(0)
                    return status, said, {}
                if call.path == "/session/1/session":
                    return self._session(call)
                self._admit(call)
                return self._act(call)
            except Refused as refused:
                return refused.status, refused.body, {}

    def _act(self, call: Call) -> Answer:
        if call.path.startswith("/namespace/"):
            status, said = self._namespace(call, call.path.removeprefix("/namespace").rstrip("/"))
        else:
            status, said = act(self, call)
        if self.on_exports and call.method != "GET":
            self.on_exports()
        return status, said, {}

    # --- sessions -----------------------------------------------------------------------------------

    def _session(self, call: Call) -> Answer:
        if call.method == "POST":
            given = call.body
            if (given.get("username"), given.get("password")) != (self.user, self.password):
                raise Refused("AEC_UNAUTHORIZED", "Username or password is incorrect.")
            key, token = f"sid-{next(self._numbers)}", f"csrf-{next(self._numbers)}"
            self.sessions[key] = token
            cookies = f"isisessid={key}; path=/; HttpOnly; Secure\nisicsrf={token}; path=/; Secure"
            said = {"services": given.get("services"), "timeout_absolute": 14400, "timeout_inactive": 900, "username": self.user}
            return 201, said, {"Set-Cookie": cookies}
        key = self._admit(call)
        if call.method == "DELETE":
            del self.sessions[key]
            return 204, None, {}
        return 200, {"services": ["platform", "namespace"], "username": self.user}, {}

    def _admit(self, call: Call) -> str:
        found = COOKIE.search(call.headers.get("cookie", ""))
        token = self.sessions.get(found[1]) if found else None
        if found is None or token is None:
            raise Refused("AEC_UNAUTHORIZED", "Authorization required")
        if call.headers.get("x-csrf-token") != token or not call.headers.get("referer", "").startswith(self.url):
            raise Refused("AEC_UNAUTHORIZED", "Anti-CSRF token or referer is missing")
        return found[1]

    # --- lists ---------------------------------------------------------------------------------------

    def page(self, call: Call, name: str, found: Sequence[Any]) -> dict[str, Any]:
        """A part of a list, with a token for the rest; a token comes alone."""
        rest = list(found)
        if token := call.query.get("resume"):
            if set(call.query) - {"resume", "limit"} or token not in self.resumes:
                raise Refused("AEC_BAD_REQUEST", "Invalid resume token", field="resume")
            rest = self.resumes.pop(token)
        limit = min(self.page_size, int(call.query.get("limit") or self.page_size))
        more = None
        if len(rest) > limit:
            more = f"1-{next(self._numbers)}-MAAA1"
            self.resumes[more] = rest[limit:]
        return {name: rest[:limit], "resume": more, "total": len(rest)}

    # --- the namespace -------------------------------------------------------------------------------

    def _namespace(self, call: Call, path: str) -> tuple[int, Any]:
        acts = {"GET": self._look, "HEAD": self._look, "PUT": self._put, "POST": self._move, "DELETE": self._remove}
        if call.method not in acts:
            raise Refused("AEC_METHOD_NOT_ALLOWED", f"Method {call.method} not allowed")
        return acts[call.method](call, path)

    def _look(self, call: Call, path: str) -> tuple[int, Any]:
        ifs = self.cluster.ifs
        place = ifs.known(path)
        if "metadata" in call.query:
            return 200, {"attrs": [{"name": key, "namespace": None, "value": value} for key, value in ifs.child(place).items()]}
        if not place.is_dir():
            return 200, place.read_bytes()
        if call.method == "HEAD":
            return 200, None
        wanted = call.query.get("detail", "")
        shown = [child if wanted == "default" else {key: child[key] for key in ("name", "type")} for child in ifs.children(path)]
        said = self.page(call, "children", shown)
        return 200, {key: value for key, value in said.items() if key == "children" or (key == "resume" and value)}

    def _put(self, call: Call, path: str) -> tuple[int, Any]:
        cluster, source = self.cluster, call.headers.get("x-isi-ifs-copy-source", "")
        if source:
            return self._copy(call, unquote(source).removeprefix("/namespace").rstrip("/"), path)
        if call.headers.get("x-isi-ifs-target-type") == "container":
            cluster.make_room(path, 0)
            overwrite = call.query.get("overwrite", "true").lower() in YES
            mode = call.headers.get("x-isi-ifs-access-control", "")
            cluster.ifs.make(path, recursive=call.says("recursive"), overwrite=overwrite, mode=mode)
            return 200, None
        cluster.make_room(path, len(call.sent))
        cluster.ifs.write(path, call.sent, overwrite=call.query.get("overwrite", "true").lower() in YES)
        return 200, None

    def _copy(self, call: Call, source: str, path: str) -> tuple[int, Any]:
        ifs = self.cluster.ifs
        if call.says("clone"):
            ifs.clone(source, path, snapshot=call.query.get("snapshot", ""))
            return 200, None
        ifs.known(source)
        try:
            self.cluster.make_room(path, ifs.used(source)[0])
            ifs.copy(source, path, merge=call.says("merge"))
        except Refused as refused:
            failed = {"source": source, "target": path, "error_src": "target side", "message": refused.message}
            return 200, {"copy_errors": [failed], "success": False}
        return 200, None

    def _move(self, call: Call, path: str) -> tuple[int, Any]:
        target = unquote(call.headers.get("x-isi-ifs-set-location", "")).removeprefix("/namespace").rstrip("/")
        if not target:
            raise Refused("AEC_ARG_REQUIRED", "x-isi-ifs-set-location is missing")
        self.cluster.move(path, target)
        return 204, None

    def _remove(self, call: Call, path: str) -> tuple[int, Any]:
        self.cluster.ifs.remove(path, recursive=call.says("recursive"))
        return 204, None
