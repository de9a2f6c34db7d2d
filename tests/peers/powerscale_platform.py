"""The platform API of a simulated OneFS: its paths, and what each does on the cluster."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tests.peers import powerscale_shapes as shapes
from tests.peers.powerscale_ifs import Refused

if TYPE_CHECKING:
    from tests.peers.powerscale_onefs import Call, OneFs

Said = tuple[int, Any]
Route = Callable[["OneFs", "Call", str], Said]
PRIVILEGE: Final = {
    "quota": "ISI_PRIV_QUOTA",
    "protocols/nfs": "ISI_PRIV_NFS",
    "snapshot": "ISI_PRIV_SNAPSHOT",
    "job": "ISI_PRIV_JOB_ENGINE",
}
PATH: Final = re.compile(r"/platform/(\d+)/(.+?)/?")


def act(front: OneFs, call: Call) -> Said:
    if call.path == "/platform/latest":
        return 200, {"latest": str(front.latest)}
    found = PATH.fullmatch(call.path)
    if found is None or not 1 <= int(found[1]) <= front.latest:
        raise Refused("AEC_NOT_FOUND", f"Path not found: {call.path}")
    for begin, privilege in PRIVILEGE.items():
        if found[2].startswith(begin) and not _may(front, privilege, call.method):
            raise Refused("AEC_FORBIDDEN", f"{privilege} privilege is required")
    for pattern, route in ROUTES:
        if match := pattern.fullmatch(found[2]):
            return route(front, call, match["id"] if "id" in match.groupdict() else "")
    raise Refused("AEC_NOT_FOUND", f"Path not found: {call.path}")


def _may(front: OneFs, privilege: str, method: str) -> bool:
    held = front.privileges.get(privilege, "")
    return held == "w" or (held == "r" and method in ("GET", "HEAD"))


def _not_allowed(call: Call) -> Refused:
    return Refused("AEC_METHOD_NOT_ALLOWED", f"Method {call.method} not allowed")


def _quotas(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "POST":
        return 201, front.cluster.make_quota(call.body)
    if call.method != "GET":
        raise _not_allowed(call)
    wanted, below = call.query.get("path", "").rstrip("/"), call.says("recurse_path_children")
    found = [
        quota
        for quota in sorted(front.cluster.quotas.values(), key=lambda one: str(one["id"]))
        if (not wanted or quota["path"] == wanted or (below and quota["path"].startswith(f"{wanted}/")))
        and call.query.get("type", "directory") == quota["type"]
    ]
    said = front.page(call, "quotas", found)
    return 200, {**said, "quotas": [front.cluster.seen_quota(quota) for quota in said["quotas"]]}


def _quota(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "GET":
        return 200, {"quotas": [front.cluster.seen_quota(front.cluster.quota(key))]}
    if call.method == "PUT":
        front.cluster.change_quota(key, call.body)
    elif call.method == "DELETE":
        front.cluster.delete_quota(key)
    else:
        raise _not_allowed(call)
    return 204, None


def _exports(front: OneFs, call: Call, key: str) -> Said:
    zone = call.query.get("zone", "System")
    if call.method == "POST":
        return 201, front.cluster.make_export(call.body, zone=zone, force=call.says("force"))
    if call.method != "GET":
        raise _not_allowed(call)
    path = call.query.get("path", "")
    found = [one for one in front.cluster.exports.values() if one["zone"] == zone and (not path or path in one["paths"])]
    return 200, {**front.page(call, "exports", found), "digest": "0f1e2d3c"}


def _export(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "GET":
        return 200, {"exports": [front.cluster.export(key)]}
    if call.method == "PUT":
        front.cluster.change_export(key, call.body, force=call.says("force"))
    elif call.method == "DELETE":
        front.cluster.delete_export(key)
    else:
        raise _not_allowed(call)
    return 204, None


def _snapshots(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "POST":
        return 201, front.cluster.make_snapshot(call.body)
    if call.method != "GET":
        raise _not_allowed(call)
    return 200, front.page(call, "snapshots", sorted(front.cluster.snapshots.values(), key=lambda one: int(one["id"])))


def _snapshot(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "GET":
        return 200, {"snapshots": [front.cluster.snapshot(key)]}
    if call.method != "DELETE":
        raise _not_allowed(call)
    front.cluster.delete_snapshot(key)
    return 204, None


def _jobs(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "POST":
        return 201, front.cluster.begin(call.body)
    found = [shapes.job(job.id, job.type, job.state, job.params["paths"]) for job in front.cluster.jobs.values()]
    return 200, front.page(call, "jobs", found)


def _job(front: OneFs, call: Call, key: str) -> Said:
    job = front.cluster.job(key)
    if call.method == "PUT":
        if call.body.get("state") != "cancel":
            raise Refused("AEC_BAD_REQUEST", "Invalid state", field="state")
        job.state = "cancelled_user"
        return 204, None
    return 200, {"jobs": [shapes.job(job.id, job.type, job.state, job.params["paths"])]}


def _statistics(front: OneFs, call: Call, key: str) -> Said:
    cluster = front.cluster
    used = cluster.bytes_used()
    values = {"total": cluster.bytes_total, "used": used, "free": cluster.bytes_total - used, "avail": cluster.bytes_total - used}
    wanted = call.query.get("keys", "").split(",")
    return 200, {"stats": [shapes.stat(name, values[name.removeprefix("ifs.bytes.")]) for name in wanted]}


def _version(front: OneFs, call: Call, key: str) -> Said:
    node = {
        "build": "B_9_12_0_0",
        "devid": 1,
        "lnn": 1,
        "release": "9.12.0.0",
        "revision": "1",
        "type": "Isilon OneFS",
        "version": "9.12.0.0",
    }
    return 200, {"errors": [], "nodes": [node], "total": 1}


def _zone(front: OneFs, call: Call, key: str) -> Said:
    if key not in front.cluster.zones:
        raise Refused("AEC_NOT_FOUND", f"Access zone '{key}' does not exist", field="id")
    return 200, {"zones": [{"id": key, "name": key, "path": front.cluster.zones[key], "system": key == "System", "zone_id": 1}]}


def _license(front: OneFs, call: Call, key: str) -> Said:
    status = "Activated" if key in front.cluster.licensed else "Unlicensed"
    return 200, {"licenses": [{"id": key, "name": key, "status": status, "expiration": None}]}


def _identity(front: OneFs, call: Call, key: str) -> Said:
    held = [{"id": name, "name": name, "read_only": kind == "r"} for name, kind in front.privileges.items()]
    return 200, {"ntoken": {"uid": "UID:2000", "privilege": held}}


def _user(front: OneFs, call: Call, key: str) -> Said:
    if call.query.get("user") != front.user:
        raise Refused("AEC_NOT_FOUND", f"Failed to find user '{call.query.get('user')}'")
    sid = {"id": "SID:S-1-5-21-1", "name": front.user, "type": "user"}
    return 200, {"mapping": [{"user": {"name": front.user, "sid": sid, "uid": {"id": "UID:2000"}}, "zid": 1, "zone": "System"}]}


def _named(table: str, answer: str) -> tuple[Route, Route]:
    """A list of things with names of their own, and one of them."""

    def many(front: OneFs, call: Call, key: str) -> Said:
        things, body = getattr(front, table), call.body
        if call.method != "POST":
            return 200, front.page(call, answer, list(things.values()))
        if body["name"] in things:
            raise Refused("AEC_CONFLICT", f"{body['name']} exists already", field="name")
        front.cluster.ifs.known(str(body["path"]))
        things[body["name"]] = shapes.share(body) if table == "shares" else {**body, "id": body["name"], "health": "good", "zone": "System"}
        return 201, {"id": body["name"]}

    def one(front: OneFs, call: Call, key: str) -> Said:
        things = getattr(front, table)
        if key not in things:
            raise Refused("AEC_NOT_FOUND", f"{key} does not exist", field="id")
        if call.method == "GET":
            return 200, {answer: [things[key]]}
        if call.method == "PUT":
            things[key].update(call.body)
        else:
            del things[key]
        return 204, None

    return many, one


def _dedupe(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "PUT":
        front.dedupe.update(call.body)
        return 204, None
    return 200, {"settings": front.dedupe}


def _job_type(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "PUT":
        front.schedule.update(call.body)
        return 204, None
    return 200, {"types": [{"id": key, "enabled": True, "policy": "LOW", "priority": 4, "schedule": None, **front.schedule}]}


def _datasets(front: OneFs, call: Call, key: str) -> Said:
    return 200, {"datasets": [{"id": 1, "name": "polly", "metrics": ["path", "protocol"], "statkey": "cluster.performance.dataset.1"}]}


def _workloads(front: OneFs, call: Call, key: str) -> Said:
    if call.method == "POST":
        number = len(front.workloads) + 1
        front.workloads[number] = {"id": number, **call.body}
        return 201, {"id": number}
    return 200, front.page(call, "workloads", list(front.workloads.values()))


def _workload(front: OneFs, call: Call, key: str) -> Said:
    if int(key) not in front.workloads:
        raise Refused("AEC_NOT_FOUND", f"Workload {key} does not exist")
    if call.method == "DELETE":
        del front.workloads[int(key)]
    else:
        front.workloads[int(key)].update(call.body)
    return 204, None


_ALIASES, _ALIAS = _named("aliases", "aliases")
_SHARES, _SHARE = _named("shares", "shares")
ONE: Final = r"/(?P<id>.+)"
ROUTES: Final[list[tuple[re.Pattern[str], Route]]] = [
    (re.compile(pattern), route)
    for pattern, route in (
        ("quota/quotas", _quotas),
        ("quota/quotas" + ONE, _quota),
        ("protocols/nfs/exports", _exports),
        ("protocols/nfs/exports" + ONE, _export),
        ("protocols/nfs/aliases", _ALIASES),
        ("protocols/nfs/aliases" + ONE, _ALIAS),
        ("protocols/smb/shares", _SHARES),
        ("protocols/smb/shares" + ONE, _SHARE),
        ("snapshot/snapshots", _snapshots),
        ("snapshot/snapshots" + ONE, _snapshot),
        ("job/jobs", _jobs),
        ("job/jobs" + ONE, _job),
        ("job/types" + ONE, _job_type),
        ("statistics/current", _statistics),
        ("cluster/version", _version),
        ("zones" + ONE, _zone),
        ("license/licenses" + ONE, _license),
        ("auth/id", _identity),
        ("auth/mapping/users/lookup", _user),
        ("dedupe/settings", _dedupe),
        ("performance/datasets", _datasets),
        (r"performance/datasets/\d+/workloads", _workloads),
        (r"performance/datasets/\d+/workloads" + ONE, _workload),
    )
]
