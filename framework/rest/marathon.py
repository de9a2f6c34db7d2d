"""`/v2`: apps in Marathon's JSON, so that what speaks to Marathon speaks to Polly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from fastapi import APIRouter, Header, Query, Response
from msgspec.structs import replace

from framework.marathon.ids import timestamp
from framework.marathon.problems import HeldApp
from framework.marathon.reading import parse_json, read_app
from framework.mesos.instances import Phase
from framework.rest.context import Actor, Body, Context, Polly, answer
from framework.views import AppView, TaskView
from storage.errors import Invalid, NotYet, PollyError, UnknownApp

router = APIRouter()

_STATES: Mapping[str, str] = {
    Phase.LAUNCHED: "TASK_STAGING",
    Phase.STARTING: "TASK_STARTING",
    Phase.RUNNING: "TASK_RUNNING",
    Phase.KILLING: "TASK_KILLING",
    Phase.UNREACHABLE: "TASK_UNREACHABLE",
}
"""A task that is SETTLING is over for Marathon."""
_READ_ONLY = frozenset({"version", "versionInfo", "tasks", "deployments", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy"})
"""What an answer holds beside the definition; a client may send it back."""


@router.get("/ping")
def ping(accept: Annotated[str, Header()] = "") -> Response:
    if "json" in accept:
        return answer("pong")
    return Response("pong", media_type="text/plain")


@router.get("/v2/info")
def info(polly: Polly) -> Response:
    broker = polly.broker.info()
    return answer(
        {
            "name": "polly",
            "version": broker.version,
            "frameworkId": broker.framework_id or None,
            "elected": True,
            "leader": broker.hostname,
            "marathon_config": {
                "master": broker.master,
                "framework_name": broker.framework_name,
                "mesos_role": broker.roles[0] if broker.roles else "*",
                "hostname": broker.hostname,
                "checkpoint": True,
                "features": ["external_volumes"],
            },
            "zookeeper_config": {},
            "http_config": {},
        }
    )


@router.get("/v2/apps")
@router.get("/v2/apps/", include_in_schema=False)
def list_apps(polly: Polly, embed: Annotated[list[str], Query()] = [], id: str = "", cmd: str = "") -> Response:  # noqa: A002, B006 - Marathon's names
    found = [app for app in polly.source.apps() if id in app.app_id and cmd in app.spec.get("cmd", "")]
    with_tasks = bool({"apps.tasks", "app.tasks"} & set(embed))
    return answer({"apps": [_app_json(app, with_tasks=with_tasks) for app in found]})


@router.post("/v2/apps")
@router.post("/v2/apps/", include_in_schema=False)
def create_app(polly: Polly, actor: Actor, body: Body) -> Response:
    return _create(polly, actor, _object(body))


@router.get("/v2/tasks")
def list_tasks(polly: Polly) -> Response:
    return answer({"tasks": [task for app in polly.source.apps() for task in _tasks_json(app)]})


@router.get("/v2/deployments")
def list_deployments() -> Response:
    """None is ever under way: what is asked is taken up at once, and instances come as offers do."""
    return answer([])


@router.get("/v2/apps/{app_id:path}/tasks")
def list_app_tasks(polly: Polly, app_id: str) -> Response:
    return answer({"tasks": _tasks_json(polly.source.app(app_id))})


@router.get("/v2/apps/{app_id:path}")
def get_app(polly: Polly, app_id: str) -> Response:
    return answer({"app": _app_json(polly.source.app(app_id), with_tasks=True)})


@router.put("/v2/apps/{app_id:path}")
@router.patch("/v2/apps/{app_id:path}")
def update_app(polly: Polly, actor: Actor, app_id: str, body: Body) -> Response:
    """Scales. An unknown app is created, as Marathon does; any other change is not done yet, and null is none."""
    change = {name: value for name, value in _object(body).items() if name not in _READ_ONLY and value is not None}
    change["id"] = "/" + app_id.strip("/")
    try:
        app = polly.source.app(app_id)
    except UnknownApp:
        if change.keys() <= {"id", "instances"}:
            raise
        return _create(polly, actor, change)
    instances = _only_instances(app, change)
    polly.broker.scale(app.app_id, instances, actor)
    return answer(_deployment(polly.source.app(app_id)))


@router.delete("/v2/apps/{app_id:path}")
def delete_app(polly: Polly, actor: Actor, app_id: str) -> Response:
    app = polly.source.app(app_id)
    polly.broker.delete_app(app.app_id, actor)
    return answer(_deployment(app))


def _create(polly: Context, actor: str, definition: Mapping[str, Any]) -> Response:
    app = polly.broker.run_app({name: value for name, value in definition.items() if name not in _READ_ONLY}, actor)
    view = polly.source.app(app.app_id)
    deployment = _deployment(view)["deploymentId"]
    return answer({**_app_json(view, with_tasks=True), "deployments": [{"id": deployment}]}, 201, Location=f"/v2/apps{app.app_id}")


def _only_instances(app: AppView, change: Mapping[str, Any]) -> int:
    """How many instances the changed app has. Raises NotYet for any other change, and what reading it raises."""
    try:
        before = read_app(app.spec)
    except PollyError as error:
        raise HeldApp(app=app.app_id, reason=error) from error
    after = read_app({**app.spec, **change})
    if replace(after, instances=before.instances, version=before.version) != before:
        raise NotYet(field=app.app_id, what="a change of more than its instances")
    return after.instances


def _object(body: bytes) -> dict[str, Any]:
    found = parse_json(body)
    if not isinstance(found, dict):
        raise Invalid(field="the request", value=found, reason="it must be one JSON object")
    return found


def _deployment(app: AppView) -> dict[str, str]:
    return {"version": app.version, "deploymentId": str(uuid5(NAMESPACE_URL, f"{app.app_id}@{app.version}"))}


# --- Marathon's JSON ----------------------------------------------------------------------------------


def _app_json(app: AppView, *, with_tasks: bool) -> dict[str, Any]:
    found = {
        **app.spec,
        "instances": app.instances,
        "version": app.version,
        "versionInfo": {"lastScalingAt": app.version, "lastConfigChangeAt": app.version},
        "tasksStaged": app.staged,
        "tasksRunning": app.running,
        "tasksHealthy": 0,
        "tasksUnhealthy": 0,
        "deployments": [],
    }
    return {**found, "tasks": _tasks_json(app)} if with_tasks else found


def _tasks_json(app: AppView) -> list[dict[str, Any]]:
    return [_task_json(task, app.spec.get("role")) for task in app.tasks if task.state in _STATES]


def _task_json(task: TaskView, role: str | None) -> dict[str, Any]:
    found = {
        "id": task.task_id,
        "appId": task.app_id,
        "host": task.hostname,
        "slaveId": task.node,
        "state": _STATES[task.state],
        "ports": list(task.ports),
        "servicePorts": [],
        "ipAddresses": [],
        "version": task.version,
        "stagedAt": timestamp(task.launched_at) if task.launched_at else None,
        "startedAt": timestamp(task.started_at) if task.started_at else None,
        "localVolumes": [{"containerPath": path, "persistenceId": volume} for volume, path in task.volumes.items()],
        "region": task.region or None,
        "zone": task.zone or None,
        "role": role,
    }
    return {name: value for name, value in found.items() if value is not None}
