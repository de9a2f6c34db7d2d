"""`polly app`, `polly explain`: apps, and why their instances wait."""

from __future__ import annotations

import time
from typing import IO

import click

from framework.cli.options import asks, reads
from framework.cli.output import Column, Facts, Output
from framework.cli.words import age, count, moment, size, span
from framework.client import BrokerClient
from framework.marathon.model import App
from framework.marathon.reading import parse_json, read_app
from framework.service import Explanation, WaitingInstance
from framework.views import AppStatus, AppView, Source, TaskView

POOLS_WANTING = frozenset({"NO_POOL", "POOL_FULL"})
NO_APPS = "No app runs here. Start one with: polly app run FILE (examples/counter.json is one to try)"


@click.group()
def app() -> None:
    """Run, look at, scale and kill Marathon apps."""


@app.command("run", short_help="Submit an app definition.")
@click.argument("file", type=click.File("rb"))
@asks
def run(file: IO[bytes], broker: BrokerClient, out: Output) -> None:
    """Submit the app definition in FILE (Marathon's JSON; - reads it from standard input)."""
    definition = parse_json(file.read())
    read_app(definition)
    made = broker.run_app(definition)
    if not out.for_people:
        out.record(made, lambda: ())
        return
    out.say(f"App {made['id']} is taken up: {count(made['instances'], 'instance')} wanted.")
    out.hint(f"Look at it with: polly app show {made['id']}; while it waits: polly explain {made['id']}")


@app.command("list")
@reads
def list_apps(source: Source, out: Output) -> None:
    """List all apps.

    STATE is RUNNING, DEPLOYING (tasks are just started or killed), WAITING (an instance has no task), DELAYED (it is held back after
    failures; only a running broker knows), SUSPENDED (no instance is wanted) or DELETING.
    """
    now = time.time()
    columns: list[Column[AppView]] = [
        Column("APP", lambda view: view.app_id),
        Column("RUNNING", lambda view: f"{view.running}/{view.instances}", right=True),
        Column("STAGED", lambda view: str(view.staged), right=True),
        Column("STATE", lambda view: view.state),
        Column("CPUS", lambda view: f"{view.spec.get('cpus', 1):g}", right=True, rank=2),
        Column("MEM", lambda view: size(view.spec.get("mem", 128)), right=True, rank=3),
        Column("VOLUMES", lambda view: str(len(view.spec.get("container", {}).get("volumes", ()))), right=True, rank=4),
        Column("AGE", lambda view: age(view.created_at, now), right=True, rank=1),
    ]
    out.table(columns, [source.apps()], empty=NO_APPS)


@app.command("show")
@click.argument("app_id", metavar="ID")
@reads
def show(app_id: str, source: Source, out: Output) -> None:
    """Show one app and its tasks."""
    view = source.app(app_id)
    out.record(view, lambda: _facts(view))
    if out.for_people and view.tasks:
        click.echo()
        out.table(_task_columns(), [view.tasks], empty="")
    if out.for_people and view.state in (AppStatus.WAITING, AppStatus.DELAYED):
        out.hint(f"{count(view.missing, 'instance')} waiting; polly explain {view.app_id} says why.")


@app.command("scale")
@click.argument("app_id", metavar="ID")
@click.argument("instances", metavar="N", type=click.IntRange(0))
@asks
def scale(app_id: str, instances: int, broker: BrokerClient, out: Output) -> None:
    """Give the app N instances. Fewer keep the volumes of those that go."""
    broker.scale(app_id, instances)
    view = broker.app(app_id)
    out.record(view, lambda: [("app", view.app_id), ("instances", str(view.instances)), ("running", str(view.running))])


@app.command("kill")
@click.argument("app_id", metavar="ID")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks
def kill(app_id: str, yes: bool, broker: BrokerClient, out: Output) -> None:
    """Kill the app's tasks and forget it. Its own volumes are kept or deleted as their profiles say."""
    view = broker.app(app_id)
    if not yes:
        click.confirm(f"Kill {view.app_id} ({count(len(view.tasks), 'task')}) and reclaim its volumes?", abort=True, err=True)
    broker.delete_app(view.app_id)
    out.record({"id": view.app_id, "state": AppStatus.DELETING}, lambda: [("app", view.app_id), ("state", "its tasks are being killed")])


def _facts(view: AppView) -> Facts:
    app = read_app(view.spec)
    return [
        ("app", view.app_id),
        ("state", view.state),
        ("instances", f"{view.running} of {view.instances} running, {view.staged} staged"),
        ("runs", app.cmd or " ".join(app.args)),
        ("each takes", f"{app.cpus:g} cpus, {size(app.mem_mib)} memory, {size(app.disk_mib)} disk, {count(len(app.ports), 'port')}"),
        *(("volume", line) for line in _volume_lines(app)),
        *(("constraint", " ".join(filter(None, (c.field, c.operator, c.value)))) for c in app.constraints),
        ("version", view.version),
    ]


def _volume_lines(app: App) -> list[str]:
    own = [f"{v.container_path}: {size(v.size_mib)} of profile {v.profile or '(default)'}, its own" for v in app.persistent_volumes]
    named = [f"{v.container_path}: {v.name} of {v.driver} ({v.access})" for v in app.external_volumes]
    return own + named + [f"{v.container_path}: folder {v.host_path} of the agent ({v.access})" for v in app.host_volumes]


def _task_columns() -> list[Column[TaskView]]:
    now = time.time()
    return [
        Column("#", lambda task: str(task.slot), right=True),
        Column("STATE", lambda task: task.state),
        Column("AGENT", lambda task: task.hostname),
        Column("ZONE", lambda task: task.zone, rank=3),
        Column("PORTS", lambda task: ",".join(map(str, task.ports)), rank=2),
        Column("RUNNING FOR", lambda task: age(task.started_at, now), right=True),
        Column("VOLUMES", lambda task: ", ".join(f"{path}={volume}" for volume, path in task.volumes.items()), rank=1),
        Column("TASK", lambda task: task.task_id, rank=4),
    ]


# --- explain --------------------------------------------------------------------------------------


@click.command()
@click.argument("app_id", metavar="ID")
@asks
def explain(app_id: str, broker: BrokerClient, out: Output) -> None:
    """Say why each waiting instance of the app waits."""
    why = broker.explain(app_id)
    if not out.for_people:
        out.record(why, lambda: ())
        return
    for line in explanation_lines(why, time.time()):
        out.say(line)


def explanation_lines(why: Explanation, now: float) -> list[str]:
    """What `polly explain` prints."""
    state = "being deleted" if why.deleting else f"{why.running} of {count(why.instances, 'instance')} running, {why.staging} starting"
    lines = [f"{why.app_id}: {state}, {len(why.waiting)} waiting."]
    for instance in why.waiting:
        lines += ["", *_waiting_lines(why.app_id, instance, now)]
    return lines


def _waiting_lines(app_id: str, waiting: WaitingInstance, now: float) -> list[str]:
    lines = [f"{app_id}#{waiting.slot} has waited for {span(now - waiting.since)} and seen {count(waiting.offers_seen, 'offer')}."]
    if waiting.last_message:
        lines.append(f"  Its last task: {waiting.last_message}")
    if waiting.failures:
        lines.append(f"  It has failed {count(waiting.failures, 'time')} in a row.")
    if waiting.next_try_at > now:
        lines.append(f"  It is held back after failures; next try in {span(waiting.next_try_at - now)}, at {moment(waiting.next_try_at)}.")
    if waiting.blocked:
        lines.append(f"  {waiting.blocked}")
    if waiting.remedies:
        lines += ["  What you can do:", *(f"    {way_out}" for way_out in waiting.remedies)]
    if waiting.refusals:
        lines.append(f"  Of the latest {count(waiting.offers_refused, 'offer')}:")
    for refusal in waiting.refusals:
        example = f"; for example, {refusal.example}" if refusal.example else ""
        lines.append(f"    {refusal.count} {refusal.words}{example}")
    if any(refusal.reason in POOLS_WANTING for refusal in waiting.refusals):
        lines.append("  polly inventory shows the pools and their room, polly doctor why a platform cannot be read.")
    if not (waiting.refusals or waiting.blocked or waiting.next_try_at > now):
        lines.append("  No offer has come yet; polly offers shows what Mesos has offered, polly doctor whether Mesos is reached.")
    return lines
