"""From an App back to Marathon's JSON, defaults written out, as Marathon answers. Reading it again gives the same App."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.marathon.model import App, AppVolume, Constraint, ExternalVolume, HostVolume, KillSelection, PersistentVolume, Port
from framework.marathon.section import as_whole

_GIB = 1024


def to_json(app: App) -> dict[str, Any]:
    """The definition as plain lists, dicts, texts and numbers."""
    optional = {
        "cmd": app.cmd,
        "args": list(app.args) or None,
        "user": app.user,
        "taskKillGracePeriodSeconds": None if app.kill_grace_s is None else _number(app.kill_grace_s),
        "container": {"type": "MESOS", "volumes": [_volume(volume) for volume in app.volumes]} if app.volumes else None,
        "role": app.role,
        "acceptedResourceRoles": list(app.accepted_roles) or None,
        "killSelection": None if app.kill_selection is KillSelection.YOUNGEST_FIRST else str(app.kill_selection),
        "version": app.version,
    }
    return {"id": app.app_id, **_given(optional), **_resources(app), **_placing(app), **_keeping(app)}


def _resources(app: App) -> dict[str, Any]:
    return {
        "cpus": _number(app.cpus),
        "mem": _number(app.mem_mib),
        "disk": _number(app.disk_mib),
        "gpus": app.gpus,
        "instances": app.instances,
        "env": dict(app.env),
        "labels": dict(app.labels),
    }


def _placing(app: App) -> dict[str, Any]:
    return {
        "constraints": [_constraint(constraint) for constraint in app.constraints],
        "networks": [{"mode": "host"}],
        "portDefinitions": [_port(port) for port in app.ports],
        "requirePorts": app.require_ports,
    }


def _keeping(app: App) -> dict[str, Any]:
    unreachable = app.unreachable
    return {
        "backoffSeconds": _number(app.backoff.seconds),
        "backoffFactor": _number(app.backoff.factor),
        "maxLaunchDelaySeconds": _number(app.backoff.max_delay_s),
        "upgradeStrategy": {
            "minimumHealthCapacity": _number(app.upgrade.minimum_health_capacity),
            "maximumOverCapacity": _number(app.upgrade.maximum_over_capacity),
        },
        "unreachableStrategy": "disabled"
        if unreachable is None
        else {"inactiveAfterSeconds": _number(unreachable.inactive_after_s), "expungeAfterSeconds": _number(unreachable.expunge_after_s)},
    }


def _port(port: Port) -> dict[str, Any]:
    return _given({"port": port.port, "name": port.name, "protocol": port.protocol, "labels": dict(port.labels) or None})


def _constraint(constraint: Constraint) -> list[str]:
    value = [] if constraint.value is None else [constraint.value]
    return [constraint.field, str(constraint.operator), *value]


def _volume(volume: AppVolume) -> dict[str, Any]:
    common = {"containerPath": volume.container_path, "mode": str(volume.access)}
    match volume:
        case PersistentVolume():
            return {**common, "persistent": _persistent(volume)}
        case HostVolume():
            return {**common, "hostPath": volume.host_path}
        case ExternalVolume(provider="csi"):
            return {**common, "external": _csi(volume)}
        case ExternalVolume():
            return {**common, "external": _dvdi(volume)}


def _persistent(volume: PersistentVolume) -> dict[str, Any]:
    constraints = [_constraint(constraint) for constraint in volume.constraints] or None
    return _given(
        {
            "size": volume.size_mib,
            "type": volume.kind,
            "profileName": volume.profile,
            "maxSize": volume.max_size_mib,
            "constraints": constraints,
        }
    )


def _dvdi(volume: ExternalVolume) -> dict[str, Any]:
    options = _given({"dvdi/driver": volume.driver, "dvdi/newfstype": volume.filesystem or None, **volume.options})
    size = None if volume.size_mib is None else volume.size_mib // _GIB
    return _given({"provider": "dvdi", "name": volume.name, "size": size, "shared": volume.shared or None, "options": options})


def _csi(volume: ExternalVolume) -> dict[str, Any]:
    capability = {
        "accessMode": str(volume.access_mode),
        "accessType": "mount",
        "fsType": volume.filesystem or None,
        "mountFlags": list(volume.mount_options) or None,
    }
    options = {"pluginName": volume.driver, "capability": _given(capability), "volumeContext": dict(volume.options) or None}
    return {"provider": "csi", "name": volume.name, "options": _given(options)}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _number(value: float) -> float | int:
    """128 rather than 128.0, as people write it."""
    whole = as_whole(value)
    return value if whole is None else whole
