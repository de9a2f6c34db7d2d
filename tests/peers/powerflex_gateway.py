"""The REST gateway of a simulated PowerFlex array, over TLS on 127.0.0.1: logins of both generations, its paths, and faults on the wire.

A gateway of version 3 knows `/api/login` and Basic only; one of version 4 gives Bearer tokens at `/rest/auth/login` too, which live
for five minutes. What can be made to go wrong: lost replies, throttling, revoked logins, answers that are not the array's.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from storage.platforms.faulting import Fate, Faults
from tests.peers import powerflex_shapes as shapes
from tests.peers.certificates import certified
from tests.peers.loopback import Asked, Reply, basic, meeting, served, written
from tests.peers.powerflex_array import Array, Refused, small_array

USER: Final = "polly"
PASSWORD: Final = "Scaleio123!"
BEARER_S: Final = 300
IDLE_S: Final = 600

Answer = tuple[int, Any]
Route = Callable[["Gateway", "re.Match[str]", dict[str, Any]], Any]


@dataclass(kw_only=True)
class Gateway:
    """The front of one array, and what goes wrong with it."""

    array: Array
    url: str = ""
    ca_file: str = ""
    password: str = PASSWORD
    may_write: bool = True
    closed: bool = False
    """Logins are refused, and the tokens that there are no longer good."""
    faults: Faults = field(default_factory=Faults)
    """What goes wrong on the wire."""
    refuse: list[Answer] = field(default_factory=list)
    """Answers that the next calls get instead of being done, logins left out."""
    refuse_logins: list[Answer] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    sessions: dict[str, float] = field(default_factory=dict)
    """Tokens, with the time until which each is good."""
    refreshing: dict[str, str] = field(default_factory=dict)

    def revoke(self) -> None:
        self.sessions.clear()

    @property
    def newer(self) -> bool:
        return self.array.version >= "4.0"

    def answer(self, method: str, path: str, authorization: str, body: dict[str, Any]) -> Answer:
        """One call from its head to its answer."""
        with self.array.lock:
            self.calls[path.rpartition("/")[2].partition("::")[0]] += 1
            refusing = self.refuse_logins if path.endswith(("/login", "/logout", "/version")) else self.refuse
            if refusing:
                return refusing.pop(0)
            try:
                return self._answer(method, path, authorization, body)
            except Refused as refused:
                return refused.status, _error(refused.code, refused.message, refused.status, refused.details)

    def _answer(self, method: str, path: str, authorization: str, body: dict[str, Any]) -> Answer:
        if (method, path) == ("GET", "/api/login"):
            return self._basic_login(authorization)
        if self.newer and (method, path) == ("POST", "/rest/auth/login"):
            return self._bearer_login(body)
        if not self._is_open(authorization):
            return 401, _error(0, "Unauthorized", 401)
        if (method, path) == ("GET", "/api/logout"):
            self.sessions.pop(basic(authorization)[1], None)
            return 200, ""
        if self.newer and (method, path) == ("POST", "/rest/auth/logout"):
            self.sessions.pop(self.refreshing.pop(str(body.get("refresh_token")), ""), None)
            return 204, None
        for verb, pattern, route in ROUTES:
            if verb == method and (match := pattern.fullmatch(path)):
                if "/action/" in path and "query" not in path and not self.may_write:
                    raise Refused(168, "You do not have permission to perform this operation.", status=403)
                return 200, route(self, match, body)
        return 404, _error(0, f"There is nothing at {path}", 404)

    # --- logins ---------------------------------------------------------------------------------

    def _basic_login(self, authorization: str) -> Answer:
        if self.closed or basic(authorization) != (USER, self.password):
            return 401, _error(0, "Unauthorized", 401)
        return 200, self._session(IDLE_S)

    def _bearer_login(self, body: dict[str, Any]) -> Answer:
        if self.closed or (body.get("username"), body.get("password")) != (USER, self.password):
            return 401, {"messages": [{"code": "ERR_INVALID_CREDENTIALS", "messageL10n": "Invalid user credentials."}]}
        token, refresh = self._session(BEARER_S), secrets.token_urlsafe(24)
        self.refreshing[refresh] = token
        times = {"expires_in": BEARER_S, "refresh_expires_in": 1800}
        return 200, {"access_token": token, "refresh_token": refresh, "token_type": "Bearer", "scope": "openid profile email", **times}

    def _session(self, lives_s: float) -> str:
        token = secrets.token_urlsafe(24)
        self.sessions[token] = self.array.clock() + lives_s
        return token

    def _is_open(self, authorization: str) -> bool:
        if authorization.startswith("Bearer ") and not self.newer:
            return False
        is_bearer = authorization.startswith("Bearer ")
        token = authorization.removeprefix("Bearer ") if is_bearer else basic(authorization)[1]
        good = not self.closed and self.sessions.get(token, 0.0) > self.array.clock()
        if good and not is_bearer:
            self.sessions[token] = self.array.clock() + IDLE_S
        return good


def _error(code: int, message: str, status: int, details: tuple[int, ...] = ()) -> dict[str, Any]:
    said: list[dict[str, Any]] = [{"error": "", "rc": one, "errorMessage": message} for one in details]
    return {"message": message, "httpStatusCode": status, "errorCode": code, **({"details": said} if said else {})}


# --- its paths ----------------------------------------------------------------------------------


def _volumes(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    return [shapes.volume(gateway.array, one) for one in gateway.array.volumes.values()]


def _related(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    """The volumes of a pool, a tree or an SDC."""
    kind, key, array = match["kind"], match["key"], gateway.array
    if kind == "Sdc":
        array.sdc({"sdcId": key})
    belongs: dict[str, Callable[[Any], bool]] = {
        "StoragePool": lambda one: one.pool == key,
        "VTree": lambda one: one.vtree == key,
        "Sdc": lambda one: key in one.mapped,
    }
    return [shapes.volume(array, one) for one in array.volumes.values() if belongs[kind](one)]


def _one(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    array, key = gateway.array, match["key"]
    if match["kind"] == "Volume":
        return shapes.volume(array, array.volume(key))
    if match["kind"] == "StoragePool":
        return shapes.pool(array.pool(key))
    if match["kind"] == "ProtectionDomain":
        return shapes.domain(array.domain(key))
    if match["kind"] == "Sdc":
        return shapes.sdc(array.sdc({"sdcId": key}))
    if not array.tree(key):
        raise Refused(230, "Invalid VTree ID. Please try again with the correct ID.")
    return shapes.vtree(array, key)


def _all(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    array = gateway.array
    answers: dict[str, Callable[[], list[Any]]] = {
        "System": lambda: [shapes.system(array)],
        "ProtectionDomain": lambda: [shapes.domain(one) for one in array.domains.values()],
        "StoragePool": lambda: [shapes.pool(one) for one in array.pools.values()],
        "Sdc": lambda: [shapes.sdc(one) for one in array.sdcs.values()],
    }
    return answers[match["kind"]]()


def _selected(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    return [shapes.domain(gateway.array.domain(key)) for key in body["ids"]]


def _volume_id(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    return gateway.array.named(unquote(str(body.get("name", "")))).id


def _domain_by_name(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    for domain in gateway.array.domains.values():
        if domain.name == unquote(match["name"]):
            return domain.id
    raise Refused(142, "Could not find Protection Domain")


def _pool_by_name(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    for pool in gateway.array.pools.values():
        if (pool.domain, pool.name) == (match["domain"], unquote(match["name"])):
            return pool.id
    raise Refused(171, "Could not find Storage Pool")


def _statistics(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    return shapes.statistics(gateway.array, match["kind"], match["key"])


def _selected_statistics(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    array, kind = gateway.array, match["kind"]
    keys = body.get("ids") or list(array.pools if kind == "StoragePool" else array.volumes)
    answers = {key: shapes.statistics(array, kind, key) for key in keys}
    unknown = {name for name in body["properties"] for said in answers.values() if name not in said}
    if unknown:
        raise Refused(0, f"invalid property: {', '.join(sorted(unknown))}", status=400)
    return {key: {name: said[name] for name in body["properties"]} for key, said in answers.items()}


def _create(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    if not gateway.may_write:
        raise Refused(168, "You do not have permission to perform this operation.", status=403)
    return {"id": gateway.array.create(body).id}


def _snapshot(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    return {"volumeIdList": [one.id for one in gateway.array.snapshot(body)], "snapshotGroupId": secrets.token_hex(8)}


def _act(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    array, key, action = gateway.array, match["key"], match["action"]
    actions: dict[str, Callable[[], None]] = {
        "addMappedSdc": lambda: array.map(key, body),
        "removeMappedSdc": lambda: array.unmap(key, body),
        "setVolumeMappingAccessMode": lambda: array.set_mode(key, body),
        "setMappedSdcLimits": lambda: array.set_limits(key, body),
        "setVolumeSize": lambda: array.resize(key, int(body["sizeInGB"]) << 20),
        "setVolumeName": lambda: array.rename(key, str(body["newName"])),
        "overwriteVolumeContent": lambda: array.overwrite(key, str(body["srcVolumeId"])),
        "removeVolume": lambda: array.remove(key, str(body.get("removeMode"))),
    }
    if action not in actions:
        raise Refused(0, f"There is no action {action}", status=404)
    actions[action]()
    return {}


def _version(gateway: Gateway, match: re.Match[str], body: dict[str, Any]) -> Any:
    return gateway.array.version


_WITH_VOLUMES = r"(?P<kind>StoragePool|VTree|Sdc)::(?P<key>\w+)/relationships/Volume"
_WITH_STATISTICS = r"(?P<kind>StoragePool|VTree|Volume)::(?P<key>\w+)/relationships/Statistics"
ROUTES: Final[tuple[tuple[str, re.Pattern[str], Route], ...]] = tuple(
    (verb, re.compile("/api/" + pattern), route)
    for verb, pattern, route in (
        ("GET", "version", _version),
        ("GET", "types/Volume/instances", _volumes),
        ("GET", "types/(?P<kind>System|ProtectionDomain|StoragePool|Sdc)/instances", _all),
        ("GET", "types/Domain/instances/getByName::(?P<name>.+)", _domain_by_name),
        ("GET", r"types/Pool/instances/getByName::(?P<domain>\w+),(?P<name>.+)", _pool_by_name),
        ("GET", "instances/" + _WITH_VOLUMES, _related),
        ("GET", "instances/" + _WITH_STATISTICS, _statistics),
        ("GET", r"instances/(?P<kind>Volume|StoragePool|ProtectionDomain|Sdc|VTree)::(?P<key>[^/]+)", _one),
        ("POST", "types/Volume/instances", _create),
        ("POST", "types/Volume/instances/action/queryIdByKey", _volume_id),
        ("POST", "types/ProtectionDomain/instances/action/queryBySelectedIds", _selected),
        ("POST", "types/(?P<kind>StoragePool|Volume)/instances/action/querySelectedStatistics", _selected_statistics),
        ("POST", r"instances/System(?:::\w+)?/action/snapshotVolumes", _snapshot),
        ("POST", r"instances/Volume::(?P<key>[^/]+)/action/(?P<action>\w+)", _act),
    )
)


# --- on the wire --------------------------------------------------------------------------------


REFUSALS: Final = {Fate.THROTTLED: written(429, None), Fate.EXPIRED: written(401, _error(0, "Unauthorized", 401))}


@contextmanager
def serving(folder: Path, version: str) -> Iterator[Gateway]:
    """A gateway of this API version with a certificate of its own, whose authority is in `ca_file`."""
    ca_file = folder / f"powerflex-{version}.pem"
    gateway = Gateway(array=small_array(version), ca_file=str(ca_file))

    def reply(asked: Asked) -> Reply:
        return written(*gateway.answer(asked.method, asked.target, asked.authorization, asked.body))

    def answer(asked: Asked) -> Reply | None:
        return meeting(gateway.faults.fate(f"{asked.method} {asked.target}"), asked, reply, REFUSALS)

    with served(answer, name=f"powerflex-{version}", tls=certified(ca_file)) as gateway.url:
        yield gateway
