"""`polly app`, `polly explain`: apps, and why their instances wait."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

import click

from framework.cli.completing import APPS
from framework.cli.explaining import explanation_lines, summary
from framework.cli.options import asks, reads
from framework.cli.output import Facts, Output
from framework.cli.tables import Column
from framework.cli.words import age, count, size
from framework.client import BrokerClient
from framework.failures import exit_code, lines
from framework.marathon.ids import volume_name
from framework.marathon.model import App
from framework.marathon.problems import HeldApp
from framework.marathon.reading import parse_json, read_app
from framework.service import Explanation
from framework.views import AppStatus, AppView, Source, TaskView, pages
from storage.errors import PollyError, UnknownApp
from storage.filters import VolumeFilter
from storage.model import ReclaimPolicy

NO_APPS = "No app runs here. Start one with: polly app run FILE (examples/counter.json is one to try)"


@click.group()
def app() -> None:
    """Run, look at, scale and kill Marathon apps."""


@app.command("run", short_help="Submit an app definition.")
@click.argument("file", type=click.File("rb"))
@asks
def run(file: IO[bytes], broker: BrokerClient, out: Output) -> None:
    """Submit the app definition in FILE (Marathon's JSON; - reads it from standard input)."""
    name = str(getattr(file, "name", "<stdin>"))
    definition = parse_json(file.read(), "standard input" if name == "<stdin>" else name)
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
@click.argument("app_id", metavar="ID", shell_complete=APPS)
@reads
def show(app_id: str, source: Source, out: Output) -> None:
    """Show one app and its tasks."""
    view = source.app(app_id)
    out.record(view, lambda: _facts(view))
    if out.for_people and view.tasks:
        click.echo()
        out.table(_task_columns(view), [view.tasks], empty="")
    if out.for_people and view.state in (AppStatus.WAITING, AppStatus.DELAYED):
        out.hint(f"{count(view.missing, 'instance')} waiting; polly explain {view.app_id} says why.")


@app.command("scale")
@click.argument("app_id", metavar="ID", shell_complete=APPS)
@click.argument("instances", metavar="N", type=click.IntRange(0))
@asks
def scale(app_id: str, instances: int, broker: BrokerClient, out: Output) -> None:
    """Give the app N instances. Fewer keep the volumes of those that go."""
    broker.scale(app_id, instances)
    view = broker.app(app_id)
    out.record(view, lambda: [("app", view.app_id), ("instances", str(view.instances)), ("running", str(view.running))])


@app.command("kill")
@click.argument("app_id", metavar="ID", shell_complete=APPS)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks
def kill(app_id: str, yes: bool, broker: BrokerClient, out: Output) -> None:
    """Kill the app's tasks and forget it. Its own volumes are kept or deleted as their profiles say."""
    view = broker.app(app_id)
    if not yes:
        loss = "; ".join([count(len(view.tasks), "task"), *_fates(broker, view.app_id)])
        click.confirm(f"Kill {view.app_id} ({loss})?", abort=True, err=True)
    broker.delete_app(view.app_id)
    out.record({"id": view.app_id, "state": AppStatus.DELETING}, lambda: [("app", view.app_id), ("state", "its tasks are being killed")])


def _fates(source: Source, app_id: str) -> Iterator[str]:
    """What becomes of the app's own volumes, as their profiles say; one whose profile is gone is kept."""
    policies = {profile.name: profile.reclaim for profile in source.profiles()}
    owned = pages(lambda after, many: source.volumes(VolumeFilter(owner=app_id), after=after, limit=many))
    found = Counter(policies.get(volume.profile, ReclaimPolicy.RETAIN) for page in owned for volume in page.items)
    for policy, number in sorted(found.items()):
        data = "its data" if number == 1 else "their data"
        words = {
            ReclaimPolicy.DELETE: f"DELETED with {data}",
            ReclaimPolicy.RETAIN: "kept",
            ReclaimPolicy.SNAPSHOT_THEN_DELETE: "deleted after a last snapshot",
        }
        yield f"{count(number, 'volume')} {words[policy]}"


def _facts(view: AppView) -> Facts:
    head = [
        ("app", view.app_id),
        ("state", view.state),
        ("instances", f"{view.running} of {view.instances} running, {view.staged} staged"),
    ]
    try:
        app = read_app(view.spec)
    except PollyError as error:  # an earlier Polly took it
        held = HeldApp(app=view.app_id, reason=error)
        return [*head, ("held", str(held)), ("what to do", held.advice), ("version", view.version)]
    return [
        *head,
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


def _task_columns(view: AppView) -> list[Column[TaskView]]:
    now, named = time.time(), dict[str, str]()
    with suppress(PollyError):  # of one that is held
        named = {volume.container_path: volume.name for volume in read_app(view.spec).external_volumes}

    def name(task: TaskView, path: str) -> str:
        return named.get(path) or volume_name(view.app_id, task.slot, path)

    return [
        Column("#", lambda task: str(task.slot), right=True),
        Column("STATE", lambda task: task.state),
        Column("AGENT", lambda task: task.hostname),
        Column("ZONE", lambda task: task.zone, rank=3),
        Column("PORTS", lambda task: ",".join(map(str, task.ports)), rank=2),
        Column("RUNNING FOR", lambda task: age(task.started_at, now), right=True),
        Column("VOLUMES", lambda task: ", ".join(f"{path}={name(task, path)}" for path in task.volumes.values()), prose=True),
        Column("TASK", lambda task: task.task_id, rank=4),
    ]


@click.command(short_help="Say why instances wait.")
@click.argument("app_ids", metavar="[ID]...", nargs=-1, shell_complete=APPS)
@click.pass_context
@asks
def explain(ctx: click.Context, app_ids: tuple[str, ...], broker: BrokerClient, out: Output) -> None:
    """Say why the waiting instances of these apps wait; without an ID, those of all apps.

    What has been starting or ending for a minute is told too, with what there is to do about it, and why an app is held.
    A reason that many instances share is told once for each app. -o json has each instance: of one ID its app's explanation, else a list.
    An ID that is not known is named on standard error, with exit status 4, after the others were explained.
    """
    if len(app_ids) == 1:
        _explain([broker.explain(app_ids[0])], broker, out, only=True)
        return
    whys, unknown = _each(app_ids, broker) if app_ids else (broker.explain_all(), [])
    if whys or not unknown or not out.for_people:
        _explain(whys, broker, out, only=False)
    for error in unknown:
        for line in lines(error):
            out.hint(line)
    if unknown:
        ctx.exit(UnknownApp.exit_code)


def _each(app_ids: Sequence[str], broker: BrokerClient) -> tuple[list[Explanation], list[PollyError]]:
    """Of those that there are, and what is to be said of the others."""
    found, unknown = list[Explanation](), list[PollyError]()
    for app_id in app_ids:
        try:
            found.append(broker.explain(app_id))
        except PollyError as error:
            if exit_code(error) != UnknownApp.exit_code:
                raise
            unknown.append(error)
    return found, unknown


def _explain(whys: Sequence[Explanation], broker: BrokerClient, out: Output, *, only: bool) -> None:
    """`only`: of one app that was asked for alone."""
    if not out.for_people:
        out.record(whys[0] if only else whys, lambda: ())
        return
    now = time.time()
    if any(why.waiting for why in whys) and not (info := broker.info()).connected:
        out.hint(f"The broker is not registered with a Mesos master, so no offer comes ({info.away}). polly doctor looks further.")
    if not only:
        out.say(summary(whys))
    for at, why in enumerate(whys):
        if at or not only:
            out.say("")
        for line in explanation_lines(why, now):
            out.say(line)
