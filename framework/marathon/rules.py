"""The rules that join several fields of an app, and those that join an app with all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from framework.marathon.model import App, ExternalVolume
from framework.marathon.problems import InvalidApp, Path, Problem
from framework.marathon.section import Section
from storage.model import Access, AccessMode

SINGLE_INSTANCE = "MARATHON_SINGLE_INSTANCE_APP"
_MANY_NODES = frozenset({AccessMode.MULTI_NODE_READER_ONLY, AccessMode.MULTI_NODE_SINGLE_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER})


def check_app(app: App, section: Section) -> None:
    """Reports what is wrong with the app as a whole."""
    _check_command(app, section)
    _check_ports(app, section)
    _check_roles(app, section)
    _check_single_instance(app, section)
    _check_upgrade(app, section)
    for index, volume in enumerate(app.volumes):
        if isinstance(volume, ExternalVolume) and (problem := _too_many_instances(app, volume)):
            section.report.wrong((*_volume_path(index), "external"), problem)


def _check_command(app: App, section: Section) -> None:
    if section.has("cmd") and app.args:
        section.wrong("", "must have either cmd or args, not both")
    elif not section.has("cmd") and not section.items("args") and not _has_image(section):
        section.wrong("", "must have cmd or args")
    elif app.args and not app.args[0]:
        section.report.wrong(section.at("args", 0), "must name a program")


def _has_image(section: Section) -> bool:
    container = section.get("container")
    return isinstance(container, dict) and any(isinstance(container.get(kind), dict) for kind in ("docker", "appc"))


def _check_ports(app: App, section: Section) -> None:
    field = "portDefinitions" if section.has("portDefinitions") else "ports"
    for what, values in (("name", [port.name for port in app.ports]), ("number", [port.port for port in app.ports])):
        for value, times in Counter(value for value in values if value).items():
            if times > 1:
                section.wrong(field, f"must be unique; the {what} {value!r} is there {times} times")
    if section.has("ipAddress") and app.ports:
        section.wrong("ipAddress", "must not be set together with ports")
    if section.has("ipAddress") and section.items("networks"):
        section.wrong("ipAddress", "must not be set together with networks")


def _check_roles(app: App, section: Section) -> None:
    for index, role in enumerate(app.accepted_roles):
        if app.role is not None and role not in ("*", app.role):
            section.report.wrong(section.at("acceptedResourceRoles", index), f"must be '*' or the app's role, {app.role!r}, not {role!r}")


def _check_single_instance(app: App, section: Section) -> None:
    if app.labels.get(SINGLE_INSTANCE) != "true":
        return
    if app.instances > 1:
        section.wrong("instances", f"must be at most 1 for an app with the label {SINGLE_INSTANCE}, not {app.instances}")
    if app.upgrade.minimum_health_capacity or app.upgrade.maximum_over_capacity:
        section.wrong("upgradeStrategy", f"must be 0 and 0 for an app with the label {SINGLE_INSTANCE}")


def _check_upgrade(app: App, section: Section) -> None:
    if (app.stateful or app.external_volumes) and app.upgrade.maximum_over_capacity:
        message = f"must be 0 for an app with volumes of its own or external ones, not {app.upgrade.maximum_over_capacity:g}"
        section.report.wrong(("upgradeStrategy", "maximumOverCapacity"), message)


def _too_many_instances(app: App, volume: ExternalVolume) -> str:
    if app.instances <= 1:
        return ""
    if volume.provider == "dvdi":
        return f"an app with a dvdi volume can have only 1 instance, not {app.instances}"
    if volume.access_mode not in _MANY_NODES:
        return f"accessMode {volume.access_mode} allows only 1 instance, not {app.instances}"
    if volume.access_mode is AccessMode.MULTI_NODE_SINGLE_WRITER and volume.access is Access.RW:
        return f"accessMode {volume.access_mode} mounted RW allows only 1 instance, not {app.instances}"
    return ""


def check_instances(app: App) -> None:
    """What `instances` must keep to; for scaling. Raises InvalidApp."""
    problems = [
        Problem(path=(*_volume_path(index), "external"), message=message)
        for index, volume in enumerate(app.volumes)
        if isinstance(volume, ExternalVolume) and (message := _too_many_instances(app, volume))
    ]
    if app.instances > 1 and app.labels.get(SINGLE_INSTANCE) == "true":
        problems.append(Problem(path=("instances",), message=f"must be at most 1 for an app with the label {SINGLE_INSTANCE}"))
    if problems:
        raise InvalidApp.of(problems)


def check_against(app: App, others: Iterable[App]) -> None:
    """Names of external volumes are unique across all apps, unless every app that uses one says shared. Raises InvalidApp.

    A CSI volume is shared if its access mode lets several nodes use it. `others` may hold an earlier version of the app itself.
    """
    users: dict[str, list[tuple[App, ExternalVolume]]] = {}
    for other in others:
        if other.app_id != app.app_id:
            for theirs in other.external_volumes:
                users.setdefault(theirs.name, []).append((other, theirs))
    problems = []
    for index, volume in enumerate(app.volumes):
        if not isinstance(volume, ExternalVolume):
            continue
        unshared = next((o for o, v in users.get(volume.name, ()) if not (_is_shared(volume) and _is_shared(v))), None)
        if unshared is not None:
            message = f"volume {volume.name!r} is used by app {unshared.app_id} too, and not both apps share it"
            problems.append(Problem(path=(*_volume_path(index), "external", "name"), message=message))
    if problems:
        raise InvalidApp.of(problems)


def _is_shared(volume: ExternalVolume) -> bool:
    return volume.shared or volume.access_mode in _MANY_NODES


def _volume_path(index: int) -> Path:
    return ("container", "volumes", index)
