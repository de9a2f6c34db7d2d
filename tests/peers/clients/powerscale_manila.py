"""A share's life through every call of the client of Manila's PowerScale driver: powerscale_manila.py URL USER PASSWORD CA_FILE.

Prints what it saw as JSON, with the calls that it did not make, beside the answers that Manila's own tests keep.
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

warnings.simplefilter("ignore")

import manila  # noqa: E402 - it warns while it is read
from manila import exception  # noqa: E402 - as above
from manila.share.drivers.dell_emc.plugins.powerscale import powerscale_api  # noqa: E402 - as above

SHARE, COPY, FILE = "/ifs/manila/share", "/ifs/manila/copy", "/ifs/manila/share/deep/file"
GIB = 1 << 30
KEPT = (
    "exports",
    "quotas",
    "snapshots",
    "stats",
    "jobs",
    "shares",
    "aliases",
    "children",
    "nodes",
    "settings",
    "mapping",
    "types",
    "workloads",
)
"""What OneFS calls its answers' contents."""


class Client(powerscale_api.PowerScaleApi):  # type: ignore[misc]  # Manila is not there where types are checked
    """The client, which remembers what was called and what was answered."""

    called: ClassVar[set[str]] = set()
    answers: ClassVar[dict[str, list[Any]]] = {}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            type(self).called.add(name)
        return super().__getattribute__(name)

    def _log_response(self, answer: Any) -> None:
        try:
            said = answer.json()
        except ValueError:
            return
        for kind in KEPT:
            if isinstance(said, dict) and said.get(kind):
                found = said[kind] if isinstance(said[kind], list) else [said[kind]]
                type(self).answers.setdefault(kind, []).extend(found)


def shares(client: Any) -> dict[str, Any]:
    """Folders, quotas and exports, and who may mount them."""
    made = client.create_directory(f"{SHARE}/deep", recursive=True)
    client.quota_set(SHARE, "directory", GIB)
    client.quota_set(SHARE, "directory", 2 * GIB)
    quota = client.quota_get(SHARE, "directory")
    exported = client.create_nfs_export(SHARE)
    again = client.create_nfs_export(SHARE)
    key = client.lookup_nfs_export(SHARE)
    client.modify_nfs_export_access(key, ro_ips=["10.0.0.1"], rw_ips=["10.0.0.2", "10.0.0.3"])
    export = client.get_nfs_export(key)
    client.send_put_request(f"{client.host_url}/namespace{FILE}", headers={"x-isi-ifs-target-type": "object"}, data="kept")
    return {
        "made": made,
        "there": [client.is_path_existent(SHARE), client.is_path_existent("/ifs/nowhere")],
        "hard_gib": quota["thresholds"]["hard"] // GIB,
        "advisory": quota["thresholds"]["advisory"] == 2 * GIB * 80 // 100,
        "exported": [exported, again],
        "clients": [export["clients"], export["read_only_clients"]],
        "allocated_gib": client.get_allocated_space(),
        "missing": [client.get_nfs_export(999999), client.lookup_nfs_export("/ifs/nowhere"), client.quota_get("/ifs/nowhere", "directory")],
    }


def snapshots(client: Any) -> dict[str, Any]:
    key = str(client.create_snapshot("manila-snap", SHARE))
    again = client.create_snapshot("manila-snap", SHARE)
    client.clone_snapshot("manila-snap", COPY, None)
    client.clone_snapshot("unused", f"{COPY}-by-id", key)
    listed = client.get_directory_listing(f"{COPY}/deep")["children"]
    shown = "/ifs/.snapshot/manila-snap/manila/share"
    exported = [client.create_snapshot_nfs_export(shown), client.create_snapshot_smb_export("manila-snap-share", shown)]
    client.delete_nfs_share(client.lookup_nfs_export(shown))
    client.delete_smb_share("manila-snap-share")
    client.create_job("Revert to SnapShot", {"type": "SnapRevert", "snaprevert_params": {"snapid": int(key)}}, True)
    names = [one["name"] for one in client.get_snapshots()["snapshots"]]
    left = [client.delete_snapshot_by_id(key), client.get_snapshot("manila-snap"), client.get_snapshot_id(key)]
    client.create_snapshot("manila-other", SHARE)
    return {
        "again": again,
        "copied": [[one["name"], one["type"]] for one in listed],
        "exported": exported,
        "names": names,
        "left": [*left, client.delete_snapshot("manila-other"), client.delete_snapshot("manila-other")],
    }


def jobs(client: Any) -> dict[str, Any]:
    params = {"type": "DomainMark", "allow_dup": True, "domainmark_params": {"root": SHARE, "type": "SnapRevert", "delete": False}}
    key = client.create_job("Domain Mark", params, False)
    seen = [client.get_job_status(key)]
    while not seen[-1][0]:
        seen.append(client.get_job_status(key))
    other = client.create_job("Domain Mark", params, False)
    try:
        client.create_job("Nothing", {"type": "NoSuchJob"}, False)
        refused = ""
    except exception.ShareBackendException as error:
        refused = str(error)
    return {"states": [state for _, state in seen], "cancelled": client._cancel_job(other), "refused": "does not exist" in refused}


def others(client: Any) -> dict[str, Any]:
    """What Polly does not use, and the client does."""
    client.create_smb_share("manila", SHARE)
    client.modify_smb_share_access("manila", host_acl=["allow:10.0.0.1"], permissions=[])
    client.create_nfs_export_aliases("/manila", SHARE)
    client.modify_dedupe_settings([SHARE], [])
    client.schedule_dedupe_job()
    workload = client.create_workload(1, {"path": SHARE, "protocol": "nfs3"}, 100).json()["id"]
    client.update_workload_limit(1, workload, 200)
    seen = {
        "version": client.get_cluster_version(),
        "space": sorted(client.get_space_stats()),
        "acl": client.lookup_smb_share("manila")["host_acl"],
        "alias": client.get_nfs_export_aliases("/manila")["path"],
        "dedupe": client.get_dedupe_settings()["settings"]["paths"],
        "schedule": client.get_dedupe_schedule()["types"][0]["schedule"],
        "limit": client.list_workloads(1).json()["workloads"][0]["limits"]["protocol_ops"],
        "datasets": len(client.list_datasets().json()["datasets"]),
        "sid": client.get_user_sid(client.username)["id"][:4],
    }
    client.delete_workload(1, workload)
    return {**seen, "gone": [client.delete_nfs_export_aliases("/manila"), client.delete_smb_share("manila")]}


def expiry(client: Any) -> list[Any]:
    """A session that has ended is begun anew by itself; the client still sends the old one once more."""
    client.send_delete_request(f"{client.host_url}/session/1/session")
    ended = client.session_token
    first = client.send_head_request(f"{client.host_url}/namespace{SHARE}").status_code
    return [first, client.session_token != ended, client.is_path_existent(SHARE)]


def clear(client: Any) -> list[Any]:
    left = [client.delete_nfs_share(client.lookup_nfs_export(SHARE)), client.delete_quota(client.quota_get(SHARE, "directory")["id"])]
    kept = client.delete_path("/ifs/manila", recursive=False)
    return [*left, kept, client.delete_path("/ifs/manila", recursive=True)]


def kept_answers() -> dict[str, list[Any]]:
    """Contents of the answers that Manila's tests give to the client."""
    folder = Path(manila.__file__).parent / "tests/share/drivers/dell_emc/plugins/powerscale"
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("test_*.py")):
        for said in _objects(ast.parse(file.read_text("utf-8"))):
            for kind in KEPT:
                items = said.get(kind)
                found.setdefault(kind, []).extend(items if isinstance(items, list) else [items] if isinstance(items, dict) else [])
    return found


def _objects(tree: ast.AST) -> Iterator[dict[str, Any]]:
    for node in ast.walk(tree):
        try:
            value = ast.literal_eval(node) if isinstance(node, (ast.Dict, ast.Constant)) else None
            said = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
        except (ValueError, TypeError, SyntaxError):
            continue
        if isinstance(said, dict):
            yield said


def main(url: str, user: str, password: str, ca_file: str) -> None:
    options = {"dir_permission": "0777", "threshold_limit": 80, "dedupe_schedule": "every 1 days", "job_retries": 5}
    client = Client(url, user, password, True, ca_file, **options)
    seen: dict[str, Any] = {"shares": shares(client), "snapshots": snapshots(client), "jobs": jobs(client), "others": others(client)}
    seen["again"] = expiry(client)
    seen["cleared"] = clear(client)
    public = {name for name in dir(powerscale_api.PowerScaleApi) if not name.startswith("_")}
    uncalled = sorted(public - Client.called - {"request"})  # by which all others go
    print(json.dumps({**seen, "uncalled": uncalled, "kept": kept_answers(), "answered": Client.answers}), flush=True)


main(*sys.argv[1:])
