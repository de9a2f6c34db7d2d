"""The parts of a definition that Polly does not do yet: read whole, so that a slip in them is named, then refused by name.

Nothing of them becomes part of an App.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from framework.marathon.section import INT64, Section, check_text, show

_PORT: Final = 65535
_NETWORK_MODES: Final = ("container", "container/bridge", "host")
_HEALTH_PROTOCOLS: Final = ("HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_TCP", "MESOS_HTTP", "MESOS_HTTPS")
_PORT_NAME: Final = re.compile(r"[a-z][-a-z0-9]*")
PROTOCOLS: Final = ("tcp", "udp", "tcp,udp", "udp,tcp")


def refuse_later_parts(app: Section) -> None:
    """Everything of an app beside its container that is valid but not done yet."""
    _each(app, "healthChecks", "health checks", _read_health_check)
    _each(app, "readinessChecks", "readiness checks", _read_readiness_check)
    _one(app, "check", "checks", _read_check)
    _each(app, "fetch", "files to fetch", _read_fetch)
    _refuse_uris(app)
    _refuse_secrets(app)
    _each(app, "networks", "container networks", _read_network, fine=_is_host_network)
    _one(app, "ipAddress", "an IP address per task", _read_ip_address)
    _one(app, "executorResources", "resources for the executor", _read_resources)
    _one(app, "resourceLimits", "resource limits", _read_limits)
    _refuse_simple(app)


def refuse_image_parts(container: Section, *, docker: bool) -> None:
    """Everything of a container that is valid but not done yet. `docker`: its type is DOCKER."""
    if docker:
        container.need("docker")
        container.not_yet("type", "the Docker engine")
    _one(container, "docker", "Docker images", lambda section: _read_docker(section, docker=docker))
    _one(container, "appc", "AppC images", _read_appc)
    _one(container, "linuxInfo", "Linux container settings", _read_linux_info)
    _each(container, "portMappings", "port mappings", _read_port_mapping)


# --- how a part is refused --------------------------------------------------------------------------


def _one(parent: Section, name: str, what: str, read: Callable[[Section], None]) -> None:
    if section := parent.section(name):
        read(section)
        section.close()
        parent.not_yet(name, what)


def _each(parent: Section, name: str, what: str, read: Callable[[Section], None], *, fine: Callable[[Section], bool] | None = None) -> None:
    refused = False
    for section in parent.sections(name):
        read(section)
        refused = refused or fine is None or not fine(section)
        section.close()
    if refused:
        parent.not_yet(name, what)


def _refuse_simple(app: Section) -> None:
    if app.texts("dependencies"):
        app.not_yet("dependencies", "dependencies between apps")
    if app.flag("tty"):
        app.not_yet("tty", "a terminal")
    if (app.text("executor", empty=True) or "//cmd") != "//cmd":
        app.not_yet("executor", "an executor of the app's own")


def _refuse_uris(app: Section) -> None:
    uris = app.texts("uris")
    if uris and app.items("fetch"):
        app.wrong("uris", "must not be set together with fetch")
    if uris:
        app.not_yet("uris", "files to fetch")


# --- secrets ----------------------------------------------------------------------------------------


def _refuse_secrets(app: Section) -> None:
    entries = app.entries("secrets")
    for name, value in entries.items():
        secret = Section(value, (*app.at("secrets"), name), app.report)
        secret.need("source")
        secret.text("source")
        secret.close()
    if entries:
        app.not_yet("secrets", "secrets")


def read_env(app: Section) -> dict[str, str]:
    """The environment's plain texts; a reference to a secret is refused."""
    found: dict[str, str] = {}
    secrets = app.entries("secrets")
    for name, value in app.entries("env").items():
        path = (*app.at("env"), name)
        if not name or "=" in name:
            app.report.wrong(path, f"is no name for an environment variable: {show(name)}")
        elif isinstance(value, Mapping):
            _refuse_secret_reference(Section(value, path, app.report), secrets)
        elif check_text(app.report, path, name) is not None and (text := check_text(app.report, path, value, empty=True)) is not None:
            found[name] = text
    return found


def _refuse_secret_reference(reference: Section, secrets: Mapping[str, object]) -> None:
    reference.need("secret")
    name = reference.text("secret")
    if name and name not in secrets:
        reference.wrong("secret", f"must be one of the app's secrets, not {show(name)}")
    reference.close()
    reference.not_yet("", "secrets")


# --- checks -----------------------------------------------------------------------------------------


def _read_health_check(check: Section) -> None:
    check.choice("protocol", _HEALTH_PROTOCOLS, "HTTP")
    check.choice("ipProtocol", ("IPv4", "IPv6"), "IPv4")
    check.text("path")
    check.whole("port", 0, most=_PORT)
    check.whole("portIndex", 0, most=_PORT)
    check.flag("ignoreHttp1xx")
    _read_times(check)
    check.whole("gracePeriodSeconds", 300)
    check.whole("maxConsecutiveFailures", 3)
    if command := check.section("command"):
        command.need("value")
        command.text("value")
        command.close()


def _read_check(check: Section) -> None:
    kinds = [kind for kind in ("http", "tcp", "exec") if check.has(kind)]
    if len(kinds) != 1:
        check.wrong("", f"needs exactly one of http, tcp and exec; it has {' and '.join(kinds) or 'none'}")
    for kind in kinds:
        if section := check.section(kind):
            _read_check_kind(section, kind)
            section.close()
    _read_times(check)


def _read_check_kind(section: Section, kind: str) -> None:
    if kind == "exec":
        section.need("command")
        if command := section.section("command"):
            command.text("shell")
            command.texts("argv")
            command.close()
        return
    section.whole("portIndex", 0, most=_PORT)
    if kind == "http":
        section.text("path")
        section.choice("scheme", ("HTTP", "HTTPS"), "HTTP")


def _read_times(check: Section) -> None:
    check.whole("intervalSeconds", 60)
    check.whole("timeoutSeconds", 20)
    check.whole("delaySeconds", 15)


def _read_readiness_check(check: Section) -> None:
    check.text("name")
    check.choice("protocol", ("HTTP", "HTTPS"), "HTTP")
    check.text("path")
    check.text("portName", pattern=_PORT_NAME, rule="must be a port's name")
    interval, timeout = check.whole("intervalSeconds", 30), check.whole("timeoutSeconds", 10)
    if timeout >= interval:
        check.wrong("timeoutSeconds", f"must be less than intervalSeconds, {interval}; it is {timeout}")
    for index, code in enumerate(check.items("httpStatusCodesForReady")):
        if isinstance(code, bool) or not isinstance(code, int) or not 100 <= code <= 999:
            check.report.wrong(check.at("httpStatusCodesForReady", index), f"must be an HTTP status, not {show(code)}")
    check.flag("preserveLastResponse")


# --- files, networks, resources -----------------------------------------------------------------------


def _read_fetch(fetch: Section) -> None:
    fetch.need("uri")
    for name in ("uri", "destPath", "outputFile"):
        fetch.text(name)
    for name in ("extract", "executable", "cache"):
        fetch.flag(name)


def _read_network(network: Section) -> None:
    mode = network.choice("mode", _NETWORK_MODES, "container")
    name = network.text("name")
    if name and mode != "container":
        network.wrong("name", f"is only for networks of mode container, not {mode}")
    network.pairs("labels")


def _is_host_network(network: Section) -> bool:
    return bool(network.get("mode") == "host")


def _read_ip_address(address: Section) -> None:
    address.texts("groups")
    address.pairs("labels")
    address.text("networkName")
    if discovery := address.section("discovery"):
        for port in discovery.sections("ports"):
            port.need("name")
            port.text("name")
            port.whole("number", 0, most=_PORT)
            port.choice("protocol", PROTOCOLS, "tcp")
            port.pairs("labels")
            port.close()
        discovery.close()


def _read_resources(resources: Section) -> None:
    resources.number("cpus", 0.1, least=0.001)
    resources.number("mem", 32.0)
    resources.number("disk", 10.0)


def _read_limits(limits: Section) -> None:
    for name in ("cpus", "mem"):
        if limits.get(name) != "unlimited":
            limits.number(name, 0.0)


# --- containers ---------------------------------------------------------------------------------------


def _read_docker(image: Section, *, docker: bool) -> None:
    image.need("image")
    image.text("image")
    for flag in ("forcePullImage", "privileged"):
        image.flag(flag)
    image.choice("network", ("BRIDGE", "HOST", "NONE", "USER"), "HOST")
    for parameter in image.sections("parameters"):
        parameter.need("key", "value")
        parameter.text("key")
        parameter.text("value", empty=True)
        parameter.close()
    for mapping in image.sections("portMappings"):
        _read_port_mapping(mapping)
        mapping.close()
    for name, keys in (("credential", ("principal", "secret")), ("pullConfig", ("secret",))):
        if section := image.section(name):
            for key in keys:
                section.text(key)
            section.close()
    if docker and image.has("pullConfig"):
        image.wrong("pullConfig", "is not for containers of type DOCKER")


def _read_appc(image: Section) -> None:
    image.need("image")
    for name in ("image", "id"):
        image.text(name)
    image.pairs("labels")
    image.flag("forcePullImage")


def _read_linux_info(info: Section) -> None:
    for section in _given(info, "seccomp", "ipcInfo"):
        if section.path[-1] == "seccomp":
            section.text("profileName")
            section.flag("unconfined")
        else:
            section.choice("mode", ("PRIVATE", "SHARE_PARENT"), "PRIVATE")
            section.whole("shmSize", 0, most=INT64)
        section.close()


def _given(parent: Section, *names: str) -> Iterator[Section]:
    return (section for name in names if (section := parent.section(name)) is not None)


def _read_port_mapping(mapping: Section) -> None:
    for name in ("containerPort", "hostPort", "servicePort"):
        mapping.whole(name, 0, most=_PORT)
    mapping.text("name")
    mapping.choice("protocol", PROTOCOLS, "tcp")
    mapping.pairs("labels")
    mapping.texts("networkNames")
