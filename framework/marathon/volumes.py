"""The volumes of a definition, `container.volumes[]`: each form read and held to its rules. Exactly one source each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from framework.marathon.model import AppVolume, Constraint, ExternalVolume, HostVolume, PersistentVolume
from framework.marathon.section import INT64, Section, check_text, show
from offers.ask import Operator
from storage.model import Access, AccessMode
from storage.node.filesystems import KINDS

SOURCES: Final = ("persistent", "external", "hostPath", "secret")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9._:]*[A-Za-z0-9])?")
_LABEL_RULE: Final = "must be letters, digits, '-', '.', '_' and ':', with a letter or digit at both ends"
_OPTION: Final = re.compile(rf"{_LABEL.pattern}/{_LABEL.pattern}")
_GIB: Final = 1024
_READ_ONLY_MODES: Final = frozenset({AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY})


def read_volumes(container: Section, *, docker: bool) -> tuple[AppVolume, ...]:
    found = [_read_volume(volume, docker=docker) for volume in container.sections("volumes")]
    _check_paths(container, found)
    _check_names(container, found)
    return tuple(volume for volume in found if volume is not None)


def _read_volume(volume: Section, *, docker: bool) -> AppVolume | None:
    volume.need("containerPath")
    given = [source for source in SOURCES if volume.has(source)]
    path = volume.text("containerPath") or ""
    access = Access(volume.choice("mode", ("RW", "RO"), "RW"))
    volume.close()
    if len(given) != 1:
        volume.wrong("", f"needs exactly one of {', '.join(SOURCES)}; it has {' and '.join(given) or 'none'}")
        return None
    if given == ["persistent"]:
        return _read_persistent(volume, path, access)
    _check_container_path(volume, path)
    if given == ["external"]:
        return _read_external(volume, path, access, docker=docker)
    if given == ["hostPath"]:
        return HostVolume(container_path=path, host_path=_host_path(volume), access=access)
    volume.text("secret")
    volume.not_yet("secret", "secrets")
    return None


def _check_container_path(volume: Section, path: str) -> None:
    if ".." in PurePosixPath(path).parts or (path and PurePosixPath(path) == PurePosixPath(".")):
        volume.wrong("containerPath", f"must name a folder in the task's sandbox, not {show(path)}")
    elif path.startswith("/"):
        volume.not_yet("containerPath", "a path outside the task's sandbox")


def _host_path(volume: Section) -> str:
    path = volume.text("hostPath") or ""
    if path and (not path.startswith("/") or ".." in PurePosixPath(path).parts):
        volume.wrong("hostPath", f"must be absolute and without '..', not {show(path)}")
    return path


# --- persistent -----------------------------------------------------------------------------------


def _read_persistent(volume: Section, path: str, access: Access) -> PersistentVolume | None:
    if "/" in path or path in (".", ".."):
        volume.wrong("containerPath", f"must be a name without '/', and not '.' or '..', for a persistent volume; it is {show(path)}")
    if access is not Access.RW:
        volume.wrong("mode", "must be RW for a persistent volume")
    info = volume.section("persistent")
    if info is None:
        return None
    info.need("size")
    profile = info.text("profileName")
    kind = info.choice("type", ("root", "path", "mount"), "mount" if profile else "root")
    size = info.whole("size", 1, least=1, most=INT64)
    largest = info.whole_or_none("maxSize", least=1, most=INT64)
    constraints = tuple(c for i, item in enumerate(info.items("constraints")) if (c := _path_constraint(info, i, item)))
    _check_persistent(info, profile, kind, size, largest)
    info.close()
    return PersistentVolume(container_path=path, size_mib=size, profile=profile, kind=kind, max_size_mib=largest, constraints=constraints)


def _check_persistent(info: Section, profile: str | None, kind: str, size: int, largest: int | None) -> None:
    if profile and kind != "mount":
        info.wrong("type", f"must be mount where profileName is given, not {kind}")
    if largest is not None and kind != "mount":
        info.wrong("maxSize", "only volumes of type mount can have it")
    elif largest is not None and largest <= size:
        info.wrong("maxSize", f"must be more than size, {size}; it is {largest}")
    if info.items("constraints") and kind == "root":
        info.wrong("constraints", "volumes of type root cannot have any")


def _path_constraint(info: Section, index: int, item: Any) -> Constraint | None:
    where = info.at("constraints", index)
    if not isinstance(item, list | tuple) or len(item) != 3 or item[0] != "path" or item[1] not in ("LIKE", "UNLIKE"):
        info.report.wrong(where, f'must be ["path", "LIKE" or "UNLIKE", regular expression], not {show(item)}')
        return None
    value = check_text(info.report, (*where, 2), item[2])
    if value is None:
        return None
    if problem := regex_problem(value):
        info.report.wrong((*where, 2), problem)
    return Constraint(field="path", operator=Operator(item[1]), value=value)


def regex_problem(pattern: str) -> str:
    """Why a text is no regular expression; empty if it is one."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    return ""


# --- external -------------------------------------------------------------------------------------


def _read_external(volume: Section, path: str, access: Access, *, docker: bool) -> ExternalVolume | None:
    info = volume.section("external")
    if info is None:
        return None
    info.need("provider", "name")
    name = info.text("name", pattern=_LABEL, rule=_LABEL_RULE) or ""
    provider = info.choice("provider", ("dvdi", "csi"), "")
    found: ExternalVolume | None = None
    if provider == "dvdi":
        found = _read_dvdi(volume, info, path, access, name, docker=docker)
    elif provider == "csi":
        found = _read_csi(info, path, access, name)
    else:
        for other in ("size", "shared", "options"):
            info.get(other)
    info.close()
    return found


def _read_dvdi(volume: Section, info: Section, path: str, access: Access, name: str, *, docker: bool) -> ExternalVolume:
    if access is not Access.RW:
        volume.wrong("mode", "must be RW for a dvdi volume")
    options = info.pairs("options")
    size_gib = info.whole_or_none("size", least=1, most=INT64 // _GIB)
    if docker and (size_gib is not None or options.keys() - {"dvdi/driver"}):
        info.wrong("", "with a DOCKER container only the option dvdi/driver may be given, and no size")
    _check_dvdi_options(info, options)
    if size_gib is None and options.get("dvdi/size", "").isdecimal():
        size_gib = int(options["dvdi/size"])
    return ExternalVolume(
        container_path=path,
        access=access,
        provider="dvdi",
        name=name,
        driver=options.get("dvdi/driver", ""),
        size_mib=None if size_gib is None else size_gib * _GIB,
        shared=info.flag("shared"),
        filesystem=options.get("dvdi/newfstype", ""),
        options={key: value for key, value in options.items() if key not in ("dvdi/driver", "dvdi/size", "dvdi/newfstype")},
    )


def _check_dvdi_options(info: Section, options: Mapping[str, str]) -> None:
    if "dvdi/driver" not in options:
        info.report.wrong((*info.at("options"), "dvdi/driver"), "is required")
    for key, value in options.items():
        if problem := _dvdi_problem(key, value):
            info.report.wrong((*info.at("options"), key), problem)


def _dvdi_problem(key: str, value: str) -> str:
    if not _OPTION.fullmatch(key):
        return "an option's name has the form label/name"
    if key in ("dvdi/driver", "dvdi/volumetype") and not _LABEL.fullmatch(value):
        return f"{_LABEL_RULE}, not {show(value)}"
    if key == "dvdi/newfstype" and value not in KINDS:
        return f"must be one of {', '.join(KINDS)}, not {show(value)}"
    if key in ("dvdi/size", "dvdi/iops") and not re.fullmatch(r"0*[1-9][0-9]{0,11}", value, re.ASCII):
        return f"must be a whole number above 0, not {show(value)}"
    if key == "dvdi/overwritefs" and value.lower() != "false":
        return f"must be false, not {show(value)}: Polly never makes a filesystem over another"
    return ""


def _read_csi(info: Section, path: str, access: Access, name: str) -> ExternalVolume | None:
    info.need("options")
    options = info.section("options")
    if options is None:
        return None
    options.need("pluginName", "capability")
    driver = options.text("pluginName", pattern=_LABEL, rule=_LABEL_RULE) or ""
    context = options.pairs("volumeContext")
    for secret in ("nodeStageSecret", "nodePublishSecret"):
        if options.pairs(secret):
            options.not_yet(secret, "secrets")
    mode, filesystem, flags = _read_capability(options)
    options.close()
    if mode in _READ_ONLY_MODES and access is Access.RW:
        info.wrong("", f"a volume with accessMode {mode} cannot be mounted RW")
    return ExternalVolume(
        container_path=path,
        access=access,
        provider="csi",
        name=name,
        driver=driver,
        access_mode=mode,
        filesystem=filesystem,
        mount_options=flags,
        options=context,
    )


def _read_capability(options: Section) -> tuple[AccessMode, str, tuple[str, ...]]:
    capability = options.section("capability")
    if capability is None:
        return AccessMode.SINGLE_NODE_WRITER, "", ()
    capability.need("accessMode", "accessType")
    mode = AccessMode(capability.choice("accessMode", tuple(AccessMode), AccessMode.SINGLE_NODE_WRITER))
    if capability.choice("accessType", ("block", "mount"), "mount") == "block":
        capability.not_yet("accessType", "raw block devices")
    filesystem = capability.text("fsType", empty=True) or ""
    if filesystem and filesystem not in KINDS:
        capability.wrong("fsType", f"must be one of {', '.join(KINDS)}, not {show(filesystem)}")
    flags = capability.texts("mountFlags")
    capability.close()
    return mode, filesystem, flags


# --- all together ---------------------------------------------------------------------------------


def _check_paths(container: Section, volumes: list[AppVolume | None]) -> None:
    seen: dict[PurePosixPath, int] = {}
    for index, volume in enumerate(volumes):
        if volume is None or not volume.container_path:
            continue
        path = PurePosixPath(volume.container_path)
        for other, at in seen.items():
            if path.is_relative_to(other) or other.is_relative_to(path):
                container.report.wrong(
                    (*container.at("volumes", index), "containerPath"), f"overlaps that of volumes[{at}], {str(other)!r}"
                )
        seen[path] = index


def _check_names(container: Section, volumes: list[AppVolume | None]) -> None:
    seen: dict[str, int] = {}
    for index, volume in enumerate(volumes):
        if not isinstance(volume, ExternalVolume) or not volume.name:
            continue
        if volume.name in seen:
            path = (*container.at("volumes", index), "external", "name")
            container.report.wrong(path, f"must be unique in the app; volumes[{seen[volume.name]}] is {volume.name!r} too")
        seen.setdefault(volume.name, index)
