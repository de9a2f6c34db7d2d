"""From a Marathon app definition to an App, read whole: every field is known and held to its rules, or named in one error.

Deprecated forms (ports, uris, ipAddress, container.docker.network and .portMappings, residency, nulls) are read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from framework.marathon import later
from framework.marathon.model import (
    App,
    AppVolume,
    Backoff,
    Constraint,
    ExternalVolume,
    HostVolume,
    KillSelection,
    PersistentVolume,
    Port,
    UnreachableStrategy,
    UpgradeStrategy,
)
from framework.marathon.problems import Report
from framework.marathon.rules import SINGLE_INSTANCE, check_app
from framework.marathon.section import INT64, Section, as_whole, check_text, show
from framework.marathon.volumes import read_volumes, regex_problem
from offers.ask import Operator
from storage.errors import Invalid

_SEGMENT: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_RESERVED: Final = frozenset({"restart", "tasks", "versions", "explanation"})
_LONGEST_ID: Final = 180
"""So that a task id made from it stays within the 255 characters of a file name."""
EXPUNGE_WITH_VOLUMES_S: Final = 604_800.0
"""A week: an instance that keeps data is not given up for the want of a word in its definition."""
_PORT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def read_app(definition: object) -> App:
    """Reads a decoded JSON definition. Raises InvalidApp with all that is wrong, or NotYet for what is valid but not done yet."""
    report = Report()
    section = Section(definition, (), report)
    app = _read(section)
    section.close()
    if section.sound:
        check_app(app, section)
    if report:
        report.fail()
    return app


def parse_app(text: str | bytes) -> App:
    """Reads a definition's JSON text. Raises Invalid if it is none, and what read_app raises."""
    return read_app(parse_json(text))


def parse_json(text: str | bytes, what: str = "the app definition") -> Any:
    """Raises Invalid, with the line, for a text that is no JSON; `what` the text is, in the words of whoever wrote it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        start = text[:60].decode("utf-8", "replace") if isinstance(text, bytes) else text[:60]
        raise Invalid(field=what, value=start, reason=f"not JSON: {error}") from error


def _read(app: Section) -> App:
    app.need("id")
    app_id = _read_id(app)
    env = later.read_env(app)
    labels = app.pairs("labels")
    volumes = _read_container(app)
    later.refuse_later_parts(app)
    _read_what_has_no_effect(app)
    return App(
        app_id=app_id,
        cmd=app.text("cmd"),
        args=app.texts("args", empty=True),
        env=env,
        user=app.text("user"),
        cpus=app.number("cpus", 1.0, least=0.001),
        mem_mib=app.number("mem", 128.0),
        disk_mib=app.number("disk", 0.0),
        gpus=app.whole("gpus", 0),
        instances=app.whole("instances", 1),
        ports=_read_ports(app),
        require_ports=app.flag("requirePorts"),
        constraints=_read_constraints(app),
        volumes=volumes,
        backoff=_read_backoff(app),
        kill_grace_s=app.number("taskKillGracePeriodSeconds", 0.0) if app.has("taskKillGracePeriodSeconds") else None,
        unreachable=_read_unreachable(app, volumes),
        upgrade=_read_upgrade(app, _usual_upgrade(labels, volumes)),
        kill_selection=_read_kill_selection(app),
        labels=labels,
        role=_read_role(app),
        accepted_roles=_read_accepted_roles(app),
        version=app.text("version"),
    )


def _read_id(app: Section) -> str:
    text = app.text("id")
    if text is None:
        return "/"
    parts = text.strip("/").split("/")
    if not all(_SEGMENT.fullmatch(part) for part in parts):
        app.wrong("id", f"must be names of lower-case letters, digits, '-' and '.', separated by '/', not {show(text)}")
    elif parts[-1] in _RESERVED:
        app.wrong("id", f"must not end with {parts[-1]!r}")
    elif len(text) > _LONGEST_ID:
        app.wrong("id", f"must have at most {_LONGEST_ID} characters, not {len(text)}")
    return "/" + "/".join(parts)


def _read_container(app: Section) -> tuple[AppVolume, ...]:
    container = app.section("container")
    if container is None:
        return ()
    given = container.choice("type", ("MESOS", "DOCKER"), "MESOS")
    later.refuse_image_parts(container, docker=given == "DOCKER")
    volumes = read_volumes(container, docker=given == "DOCKER")
    container.close()
    return volumes


def _read_what_has_no_effect(app: Section) -> None:
    if residency := app.section("residency"):
        residency.whole("relaunchEscalationTimeoutSeconds", 3600)
        residency.choice("taskLostBehavior", ("WAIT_FOREVER", "RELAUNCH_AFTER_TIMEOUT"), "WAIT_FOREVER")
        residency.close()
    if info := app.section("versionInfo"):
        info.text("lastScalingAt")
        info.text("lastConfigChangeAt")
        info.close()


# --- ports ----------------------------------------------------------------------------------------


def _read_ports(app: Section) -> tuple[Port, ...]:
    old = _read_old_ports(app)
    if not app.has("portDefinitions"):
        if app.has("ports"):
            return old
        return () if app.has("ipAddress") else (Port(name="default"),)
    ports = tuple(_read_port(section) for section in app.sections("portDefinitions"))
    if old and tuple(port.port for port in old) != tuple(port.port for port in ports):
        app.wrong("ports", "must not be set together with portDefinitions")
    return ports


def _read_old_ports(app: Section) -> tuple[Port, ...]:
    ports = []
    for index, value in enumerate(app.items("ports")):
        number = as_whole(value)
        if number is None or not 0 <= number <= 65535:
            app.report.wrong(app.at("ports", index), f"must be a port number, not {show(value)}")
        else:
            ports.append(Port(port=number))
    return tuple(ports)


def _read_port(section: Section) -> Port:
    port = Port(
        port=section.whole("port", 0, most=65535),
        name=section.text("name", pattern=_PORT_NAME, rule="must be letters, digits, '-', '_' and '.'"),
        protocol=section.choice("protocol", later.PROTOCOLS, "tcp"),
        labels=section.pairs("labels"),
    )
    section.close()
    return replace(port, protocol="tcp,udp") if port.protocol == "udp,tcp" else port


# --- where it may run -------------------------------------------------------------------------------


def _read_constraints(app: Section) -> tuple[Constraint, ...]:
    found = (_read_constraint(app, index, item) for index, item in enumerate(app.items("constraints")))
    return tuple(constraint for constraint in found if constraint is not None)


def _read_constraint(app: Section, index: int, item: Any) -> Constraint | None:
    where = app.at("constraints", index)
    if not isinstance(item, list | tuple) or not 2 <= len(item) <= 3:
        app.report.wrong(where, f"must be [field, operator] or [field, operator, value], not {show(item)}")
        return None
    texts = [check_text(app.report, (*where, at), part, empty=at == 2) for at, part in enumerate(item)]
    name, operator, value = texts[0], texts[1], (texts[2] or None if len(texts) == 3 else None)
    if name is None or operator is None or (len(texts) == 3 and texts[2] is None):
        return None
    if operator.upper() not in Operator.__members__:
        app.report.wrong((*where, 1), f"must be one of {', '.join(Operator)}, not {show(operator)}")
        return None
    constraint = Constraint(field=name, operator=Operator(operator.upper()), value=value)
    if problem := _constraint_problem(constraint):
        app.report.wrong(where, problem)
    return constraint


def _constraint_problem(constraint: Constraint) -> str:
    operator, value = constraint.operator, constraint.value
    if operator is Operator.UNIQUE and value is not None:
        return f"UNIQUE takes no value; it has {show(value)}"
    if operator in (Operator.LIKE, Operator.UNLIKE):
        return regex_problem(value) if value else f"{operator} needs a regular expression"
    if operator is Operator.IS and value is None:
        return "IS needs a value"
    counts = operator is Operator.MAX_PER or (operator is Operator.GROUP_BY and value is not None)
    if counts and not re.fullmatch(r"0*[1-9][0-9]{0,8}", value or "", re.ASCII):
        return f"{operator} needs a whole number above 0, not {show(value)}"
    return ""


def _read_role(app: Section) -> str | None:
    role = app.text("role")
    parts = () if role in (None, "*") else role.split("/")
    if any(part in ("", ".", "..", "*") or part.startswith("-") or re.search(r"[\s\x08\x7f]", part) for part in parts):
        app.wrong("role", f"must be a Mesos role, not {show(role)}")
    return role


def _read_accepted_roles(app: Section) -> tuple[str, ...]:
    roles = app.texts("acceptedResourceRoles")
    if app.has("acceptedResourceRoles") and not app.items("acceptedResourceRoles"):
        app.wrong("acceptedResourceRoles", "must not be empty")
    if len(set(roles)) != len(roles):
        app.wrong("acceptedResourceRoles", "must not name a role twice")
    return roles


# --- how it is kept running ---------------------------------------------------------------------------


def _read_backoff(app: Section) -> Backoff:
    return Backoff(
        seconds=app.number("backoffSeconds", 1.0),
        factor=app.number("backoffFactor", 1.15, least=1.0),
        max_delay_s=app.number("maxLaunchDelaySeconds", 300.0),
    )


def _read_unreachable(app: Section, volumes: Sequence[AppVolume]) -> UnreachableStrategy | None:
    if app.get("unreachableStrategy") == "disabled":
        return None
    keeps_data = any(not isinstance(volume, HostVolume) for volume in volumes)
    usual = EXPUNGE_WITH_VOLUMES_S if keeps_data else 0.0
    section = app.section("unreachableStrategy")
    if section is None:
        return UnreachableStrategy(expunge_after_s=usual)
    inactive = section.number("inactiveAfterSeconds", 0.0)
    expunge = section.number("expungeAfterSeconds", max(inactive, usual), most=float(INT64))
    if expunge < inactive:
        section.wrong("expungeAfterSeconds", f"must be at least inactiveAfterSeconds, {inactive:g}; it is {expunge:g}")
    section.close()
    return UnreachableStrategy(inactive_after_s=inactive, expunge_after_s=expunge)


def _usual_upgrade(labels: Mapping[str, str], volumes: Sequence[AppVolume]) -> UpgradeStrategy:
    """An app with volumes cannot have more instances than it has, not even for a moment."""
    if labels.get(SINGLE_INSTANCE) == "true":
        return UpgradeStrategy(minimum_health_capacity=0.0, maximum_over_capacity=0.0)
    if any(isinstance(volume, PersistentVolume | ExternalVolume) for volume in volumes):
        return UpgradeStrategy(minimum_health_capacity=0.5, maximum_over_capacity=0.0)
    return UpgradeStrategy()


def _read_upgrade(app: Section, default: UpgradeStrategy) -> UpgradeStrategy:
    section = app.section("upgradeStrategy")
    if section is None:
        return default
    strategy = UpgradeStrategy(
        minimum_health_capacity=section.number("minimumHealthCapacity", default.minimum_health_capacity, most=1.0),
        maximum_over_capacity=section.number("maximumOverCapacity", default.maximum_over_capacity, most=1.0),
    )
    section.close()
    return strategy


def _read_kill_selection(app: Section) -> KillSelection:
    names = {"YoungestFirst": KillSelection.YOUNGEST_FIRST, "OldestFirst": KillSelection.OLDEST_FIRST}
    given = app.choice("killSelection", (*KillSelection, *names), KillSelection.YOUNGEST_FIRST)
    return names.get(given) or KillSelection(given)
