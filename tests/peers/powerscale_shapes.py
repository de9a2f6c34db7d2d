"""How a simulated OneFS writes what it has: the fields of each object with what they are when nobody says otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

NOBODY: Final[dict[str, Any]] = {"enabled": False, "primary_group": {}, "secondary_groups": [], "user": {"id": "USER:nobody"}}

EXPORT: Final[dict[str, Any]] = {
    "all_dirs": False,
    "block_size": 8192,
    "can_set_time": True,
    "case_insensitive": False,
    "case_preserving": True,
    "chown_restricted": False,
    "clients": [],
    "commit_asynchronous": False,
    "conflicting_paths": [],
    "description": "",
    "directory_transfer_size": 131072,
    "encoding": "DEFAULT",
    "id": 0,
    "link_max": 32767,
    "map_failure": NOBODY,
    "map_full": True,
    "map_lookup_uid": False,
    "map_non_root": NOBODY,
    "map_retry": True,
    "map_root": {**NOBODY, "enabled": True},
    "max_file_size": 9223372036854775807,
    "name_max_size": 255,
    "no_truncate": False,
    "paths": [],
    "read_only": False,
    "read_only_clients": [],
    "read_transfer_max_size": 1048576,
    "read_write_clients": [],
    "readdirplus": True,
    "return_32bit_file_ids": False,
    "root_clients": [],
    "security_flavors": ["unix"],
    "setattr_asynchronous": False,
    "snapshot": "-",
    "symlinks": True,
    "time_delta": 1e-09,
    "unresolved_clients": [],
    "write_transfer_max_size": 1048576,
    "zone": "System",
}
THRESHOLDS: Final[dict[str, Any]] = {
    "advisory": None,
    "advisory_exceeded": False,
    "advisory_last_exceeded": None,
    "hard": None,
    "hard_exceeded": False,
    "hard_last_exceeded": None,
    "percent_advisory": None,
    "percent_soft": None,
    "soft": None,
    "soft_exceeded": False,
    "soft_grace": None,
    "soft_last_exceeded": None,
}
QUOTA: Final[dict[str, Any]] = {
    "container": False,
    "enforced": False,
    "id": "",
    "include_snapshots": False,
    "linked": False,
    "notifications": "default",
    "path": "",
    "persona": None,
    "ready": True,
    "thresholds": THRESHOLDS,
    "thresholds_include_overhead": False,
    "type": "directory",
    "usage": {},
}
SNAPSHOT: Final[dict[str, Any]] = {
    "alias": None,
    "created": 0,
    "expires": None,
    "has_locks": False,
    "id": 0,
    "name": "",
    "path": "",
    "pct_filesystem": 0.0,
    "pct_reserve": 0.0,
    "schedule": None,
    "shadow_bytes": 0,
    "size": 0,
    "state": "active",
    "target_id": None,
    "target_name": None,
}
PRIVILEGES: Final = {
    "ISI_PRIV_LOGIN_PAPI": "r",
    "ISI_PRIV_NS_TRAVERSE": "r",
    "ISI_PRIV_NS_IFS_ACCESS": "r",
    "ISI_PRIV_IFS_BACKUP": "r",
    "ISI_PRIV_IFS_RESTORE": "r",
    "ISI_PRIV_NFS": "w",
    "ISI_PRIV_QUOTA": "w",
    "ISI_PRIV_SNAPSHOT": "w",
    "ISI_PRIV_JOB_ENGINE": "w",
    "ISI_PRIV_STATISTICS": "r",
    "ISI_PRIV_AUTH_ZONES": "r",
    "ISI_PRIV_LICENSE": "r",
}


def usage(used: int, inodes: int) -> dict[str, int]:
    return {
        "applogical": used,
        "applogical_ready": True,
        "fslogical": used,
        "fslogical_ready": True,
        "fsphysical": used,
        "fsphysical_ready": False,
        "inodes": inodes,
        "inodes_ready": True,
        "logical": used,
        "physical": used,
        "physical_ready": True,
        "shadow_refs": 0,
    }


def job(key: int, kind: str, state: str, paths: Iterable[str]) -> dict[str, Any]:
    return {
        "control_state": state,
        "create_time": 1606310000,
        "current_phase": 1,
        "description": "",
        "end_time": 1606310001 if state in ("succeeded", "failed") else None,
        "id": key,
        "impact": "Low",
        "paths": list(paths),
        "policy": "MEDIUM",
        "priority": 4,
        "progress": None,
        "state": state,
        "total_phases": 1,
        "type": kind,
    }


def stat(key: str, value: int) -> dict[str, Any]:
    return {"devid": 0, "error": None, "error_code": None, "key": key, "time": 1606310000, "value": value}


def share(body: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"browsable": True, "description": "", "host_acl": [], "permissions": [], "zid": 1}
    return {**defaults, **body, "id": body["name"]}
