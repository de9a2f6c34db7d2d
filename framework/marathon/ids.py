"""Names that are made from an app's id: Mesos task ids, as Marathon writes them, and the names of an app's own volumes.

`/shop/db` runs as `shop_db.instance-<uuid>._app.1`: an app id has no underscore, so the way back is sure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from storage.model import PlacementId, WorkloadId

_TASK = re.compile(r"(?P<app>[a-z0-9.\-]+(?:_[a-z0-9.\-]+)*)\.instance-(?P<instance>[0-9a-f-]{36})\._app\.(?P<run>[1-9][0-9]*)")


def task_id(app_id: str, instance: str, run: int = 1) -> PlacementId:
    """The Mesos task id of a run of an instance; `instance` is a UUID."""
    return PlacementId(f"{app_id.strip('/').replace('/', '_')}.instance-{instance}._app.{run}")


def app_of(task: str) -> WorkloadId | None:
    """The app that a task id belongs to; None if it is not of this form."""
    found = _TASK.fullmatch(task)
    return WorkloadId("/" + found["app"].replace("_", "/")) if found else None


def volume_name(app_id: str, slot: int, container_path: str) -> str:
    """The name of an instance's own volume, such as `/shop/db#0/data`. `slot` counts from 0."""
    return f"{app_id}#{slot}/{container_path}"


def timestamp(at: float) -> str:
    """An instant as Marathon writes it: `2015-04-02T09:37:00.596Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
