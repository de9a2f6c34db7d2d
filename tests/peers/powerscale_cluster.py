"""A PowerScale cluster as a state: /ifs, its quotas, NFS exports, snapshots and jobs, and what OneFS refuses. Knows no HTTP.

It is unkind where real ones may be: quotas of folders with files in them become ready later, exports of one folder must not have
clients in common, a folder with a quota does not move, and folders go by jobs that take their time.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.peers import powerscale_shapes as shapes
from tests.peers.powerscale_ifs import Ifs, Refused

Object = dict[str, Any]
LISTS: Final = ("clients", "root_clients", "read_write_clients", "read_only_clients")
LONGEST_DESCRIPTION: Final = 255
DONE: Final = ("succeeded", "failed", "cancelled_user")


@dataclass(kw_only=True)
class Job:
    id: int
    type: str
    params: Mapping[str, Any]
    looks_left: int
    state: str = "running"


@dataclass(kw_only=True)
class Cluster:
    """All verbs are called with `lock` held."""

    ifs: Ifs
    bytes_total: int = 100 << 40
    bytes_foreign: int = 10 << 40
    licensed: set[str] = field(default_factory=lambda: {"SmartQuotas", "SnapshotIQ"})
    zones: dict[str, str] = field(default_factory=lambda: {"System": "/ifs"})
    hosts: set[str] = field(default_factory=set)
    """Host names that the cluster can resolve."""
    most_exports: int = 40000
    most_snapshots: int = 20000
    job_looks: int = 1
    fail_jobs: bool = False
    scan_looks: int = 1
    """How often a quota of a folder with files in it is seen before it is ready."""
    quotas: dict[str, Object] = field(default_factory=dict)
    exports: dict[int, Object] = field(default_factory=dict)
    snapshots: dict[str, Object] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    scanning: dict[str, int] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._ids = itertools.count(1)

    # --- quotas -----------------------------------------------------------------------------------

    def make_quota(self, body: Object) -> Object:
        self._needs("SmartQuotas")
        path = str(body.get("path", "")).rstrip("/")
        only(body, (*shapes.QUOTA, "force"))
        if not self.ifs.is_folder(path):
            raise Refused("AEC_NOT_FOUND", f"Quota path '{path}' does not exist", field="path")
        if any(quota["path"] == path and quota["type"] == body.get("type") for quota in self.quotas.values()):
            raise Refused("AEC_CONFLICT", f"A quota of this type exists on '{path}' already", field="path")
        key = f"AAB{next(self._ids):06d}AAAAAAAAAAAAQA0AAAAAAAAA"
        thresholds = {**shapes.THRESHOLDS, **_thresholds(body.get("thresholds") or {})}
        self.quotas[key] = {**shapes.QUOTA, **body, "path": path, "id": key, "thresholds": thresholds}
        if self.ifs.used(path)[1] > 1:
            self.scanning[key] = self.scan_looks
        return {"id": key}

    def quota(self, key: str) -> Object:
        if key not in self.quotas:
            raise Refused("AEC_NOT_FOUND", f"Quota {key} does not exist", field="id")
        return self.quotas[key]

    def seen_quota(self, quota: Object) -> Object:
        left = self.scanning.pop(quota["id"], 0)
        if left:
            self.scanning[quota["id"]] = left - 1
        used, inodes = self.ifs.used(quota["path"])
        return {**quota, "ready": not left, "usage": shapes.usage(used, inodes)}

    def change_quota(self, key: str, body: Object) -> None:
        quota = self.quota(key)
        only(body, ("thresholds", "enforced", "container", "thresholds_include_overhead", "linked", "ignore_limit_checks"))
        quota["thresholds"] = {**quota["thresholds"], **_thresholds(body.get("thresholds") or {})}

    def delete_quota(self, key: str) -> None:
        self.quota(key)
        del self.quotas[key]

    def make_room(self, path: str, more: int) -> None:
        """What comes under the quota of a folder above. Nothing more always fits."""
        if not more:
            return
        if self.bytes_used() + more > self.bytes_total:
            raise Refused("AEC_NO_SPACE", f"Unable to write '{path}' -- No space left.")
        for quota in self.quotas.values():
            hard = quota["thresholds"]["hard"]
            if hard and quota["enforced"] and f"{path}/".startswith(f"{quota['path']}/") and self.ifs.used(quota["path"])[0] + more > hard:
                raise Refused("AEC_FORBIDDEN", f"Unable to write '{path}' -- Disc quota exceeded")

    def bytes_used(self) -> int:
        return self.bytes_foreign + self.ifs.used("/ifs")[0]

    # --- exports ------------------------------------------------------------------------------------

    def make_export(self, body: Object, *, zone: str, force: bool) -> Object:
        if zone not in self.zones:
            raise Refused("AEC_NOT_FOUND", f"Access zone '{zone}' does not exist", field="zone")
        if len(self.exports) >= self.most_exports:
            raise Refused("AEC_LIMIT_EXCEEDED", f"The maximum number of exports is {self.most_exports}")
        if not body.get("paths"):
            raise Refused("AEC_ARG_REQUIRED", "An export needs a path", field="paths")
        key = next(self._ids)
        made = self._checked({**shapes.EXPORT, **body, "id": key, "zone": zone}, body, force=force)
        self.exports[key] = made
        return {"id": key}

    def export(self, key: str) -> Object:
        number = int(key) if key.isascii() and key.isdigit() else 0
        if number not in self.exports:
            raise Refused("AEC_NOT_FOUND", f"Export id {key} does not exist", field="id")
        return self.exports[number]

    def change_export(self, key: str, body: Object, *, force: bool) -> None:
        export = self.export(key)
        self.exports[export["id"]] = self._checked({**export, **body}, body, force=force)

    def delete_export(self, key: str) -> None:
        del self.exports[self.export(key)["id"]]

    def _checked(self, export: Object, body: Object, *, force: bool) -> Object:
        only(body, [key for key in shapes.EXPORT if key not in ("id", "conflicting_paths", "unresolved_clients")])
        if len(str(export["description"])) > LONGEST_DESCRIPTION:
            raise Refused("AEC_BAD_REQUEST", "Value is longer than 255 characters", field="description")
        for path in export["paths"]:
            if not self.ifs.is_folder(path) or not f"{path}/".startswith(f"{self.zones[export['zone']].rstrip('/')}/"):
                raise Refused("AEC_BAD_REQUEST", f"bad path '{path}' in field 'paths'", field="paths")
        for name in LISTS:
            for host in export[name] or ():
                if not (_is_address(host) or host in self.hosts):
                    raise Refused("AEC_BAD_REQUEST", f"bad hostname '{host}' in field '{name}'", field=name)
        for other in () if force else self.exports.values():
            common = set(other["paths"]) & set(export["paths"])
            if other["id"] != export["id"] and common and _meet(hosts_of(other), hosts_of(export)):
                words = f"Export rules {other['id']} and {export['id']} conflict on '{min(common)}'"
                raise Refused("AEC_CONFLICT", words, field="paths")
        return export

    def may_mount(self, path: str, host: str) -> str:
        """`rw`, `ro`, or empty: what exports let this host do with the folder, as root."""
        for export in self.exports.values():
            hosts = hosts_of(export)
            if path not in export["paths"] or (hosts and host not in hosts) or not self.ifs.is_folder(path):
                continue
            reads_only = (export["read_only"] and host not in export["read_write_clients"]) or host in export["read_only_clients"]
            return "ro" if reads_only else "rw"
        return ""

    # --- snapshots ------------------------------------------------------------------------------------

    def make_snapshot(self, body: Object) -> Object:
        self._needs("SnapshotIQ")
        only(body, ("name", "path", "expires", "alias"))
        name, path = str(body.get("name") or ""), str(body.get("path") or "").rstrip("/")
        if not name or "/" in name or len(name) > 255:
            raise Refused("AEC_BAD_REQUEST", f"Invalid snapshot name '{name}'", field="name")
        if name in self.snapshots:
            raise Refused("AEC_CONFLICT", f"Snapshot {name} exists already", field="name")
        if len(self.snapshots) >= self.most_snapshots:
            raise Refused("AEC_LIMIT_EXCEEDED", f"The maximum number of snapshots is {self.most_snapshots}")
        self.ifs.snap(name, path)
        key = next(self._ids)
        made = {**shapes.SNAPSHOT, "id": key, "name": name, "path": path, "created": int(time.time()), "size": self.ifs.used(path)[0]}
        self.snapshots[name] = made
        return made

    def snapshot(self, key: str) -> Object:
        for found in self.snapshots.values():
            if key in (found["name"], str(found["id"])):
                return found
        raise Refused("AEC_NOT_FOUND", f"Snapshot '{key}' not found", field="id")

    def delete_snapshot(self, key: str) -> None:
        found = self.snapshot(key)
        if found["has_locks"]:
            raise Refused("AEC_CONFLICT", f"Snapshot '{found['name']}' has locks", field="id")
        self.ifs.unsnap(found["name"])
        del self.snapshots[found["name"]]

    # --- folders that have quotas, and jobs ---------------------------------------------------------------

    def move(self, source: str, target: str) -> None:
        if any(f"{quota['path']}/".startswith(f"{source}/") for quota in self.quotas.values()):
            raise Refused("AEC_FORBIDDEN", "The source and target don't have same protection domain.")
        self.ifs.move(source, target)

    def begin(self, body: Object) -> Object:
        kind = str(body.get("type", ""))
        only(body, ("type", "paths", "allow_dup", "policy", "priority", "domainmark_params", "snaprevert_params"))
        params = {"paths": body.get("paths") or (), **(body.get(f"{kind.lower()}_params") or {})}
        if kind not in ("TreeDelete", "DomainMark", "SnapRevert"):
            raise Refused("AEC_NOT_FOUND", f"Job type {kind} does not exist", field="type")
        if kind == "TreeDelete":
            for path in params["paths"]:
                self.ifs.known(path)
        job = Job(id=next(self._ids), type=kind, params=params, looks_left=self.job_looks)
        self.jobs[job.id] = job
        return {"id": job.id}

    def job(self, key: str) -> Job:
        """Looks at it, after which it may have been done."""
        number = int(key) if key.isascii() and key.isdigit() else 0
        if number not in self.jobs:
            raise Refused("AEC_NOT_FOUND", f"Job {key} not found", field="id")
        job = self.jobs[number]
        if job.state not in DONE:
            if job.looks_left <= 0:
                self._finish(job)
            job.looks_left -= 1
        return job

    def finish_jobs(self) -> None:
        for job in self.jobs.values():
            if job.state not in DONE:
                self._finish(job)

    def _finish(self, job: Job) -> None:
        job.state = "failed" if self.fail_jobs else "succeeded"
        if job.state == "succeeded" and job.type == "SnapRevert":
            found = self.snapshot(str(job.params["snapid"]))
            self.ifs.revert(found["name"], found["path"])
        for path in job.params.get("paths", ()) if job.state == "succeeded" else ():
            if os.path.lexists(self.ifs.real(path)):
                self.ifs.remove(path, recursive=True)

    def _needs(self, license_name: str) -> None:
        if license_name not in self.licensed:
            raise Refused("AEC_INVALID_LICENSE", f"The {license_name} license is not active")


def hosts_of(export: Object) -> set[str]:
    """Everybody who may mount it; nobody named is everybody."""
    return {host for name in LISTS for host in export[name] or ()}


def _meet(some: set[str], others: set[str]) -> bool:
    return not some or not others or bool(some & others)


def only(body: Mapping[str, Any], known: Iterable[str]) -> None:
    if unknown := sorted(set(body) - set(known)):
        raise Refused("AEC_BAD_REQUEST", f"Unknown field '{unknown[0]}'", field=unknown[0])


def _thresholds(given: Mapping[str, Any]) -> Object:
    only(given, shapes.THRESHOLDS)
    for name in ("hard", "soft", "advisory"):
        value = given.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value <= 0):
            raise Refused("AEC_BAD_REQUEST", f"Value '{value}' is not a positive integer", field=f"thresholds.{name}")
    return dict(given)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_network(host, strict=False)
    except ValueError:
        return False
    return True
