"""The node's own file, /etc/polly/agent.toml, which nobody needs to write: what differs on this node from what the broker says.

    node = "vm-17"                    # what the platforms call this node, where that is not the agent's hostname
    staging_dir = "/run/polly"        # where volumes are mounted before a task gets them; one folder for all executors
    [platforms.rack]                  # settings that win over those of the broker for platform `rack`
    node = "i-0123456789abcdef0"      # what this platform calls this node; else the node asks, as the adapter says
    root = "/mnt/rack"

What an executor does as root follows from this file, so it must belong to root (or to the user that executors run as),
and nobody else may write to it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from storage.errors import Invalid

STAGING_DIR = "POLLY_STAGING_DIR"
"""The variable that names the staging folder where no file does; from `[executor] environment` of polly.toml."""


def default_staging_dir() -> Path:
    if named := os.environ.get(STAGING_DIR):
        return Path(named)
    uid = os.geteuid()
    return Path("/run/polly") if uid == 0 else Path(f"/tmp/polly-{uid}")  # noqa: S108 (its owner and mode are checked before use)


class NodeConfig(Struct, frozen=True, kw_only=True):
    node: str = ""
    """Empty: as the broker says."""
    staging_dir: Path = field(default_factory=default_staging_dir)
    platforms: Mapping[str, Mapping[str, object]] = {}
    """Settings by the platform's name, without `node`."""
    identities: Mapping[str, str] = {}
    """What the platforms call this node: the `node` of each `[platforms.NAME]` that has one."""


def read_config(path: Path) -> NodeConfig:
    """The file's settings; all defaults if there is no file. Raises Invalid."""
    try:
        with open(path, "rb") as file:
            _refuse_strangers(path, os.fstat(file.fileno()))
            text = file.read()
    except FileNotFoundError:
        return NodeConfig()
    except OSError as error:
        raise Invalid(field=str(path), value="", reason=str(error)) from error
    return _checked(path, _parsed(path, text))


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    import tomllib  # 20 ms that only a node with such a file pays

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise Invalid(field=str(path), value="", reason=str(error)) from error


def _refuse_strangers(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise Invalid(field=str(path), value=f"owner {found.st_uid}", reason="it must belong to root or to the executor's user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Invalid(field=str(path), value=f"mode {stat.S_IMODE(found.st_mode):o}", reason="only its owner may write to it")


def _checked(path: Path, table: dict[str, Any]) -> NodeConfig:
    known: dict[str, type] = {"node": str, "staging_dir": str, "platforms": dict}
    for key, value in table.items():
        if key not in known or not isinstance(value, known[key]):
            raise Invalid(
                field=f"{path}: {key}", value=value, reason=f"the keys are {', '.join(known)}: texts, and blocks [platforms.NAME]"
            )
    for name, settings in table.get("platforms", {}).items():
        if not isinstance(settings, dict):
            raise Invalid(field=f"{path}: platforms.{name}", value=settings, reason="it must be a block of settings")
        if "node" in settings and not (isinstance(settings["node"], str) and settings["node"]):
            reason = "it is what the platform calls this node, as text"
            raise Invalid(field=f"{path}: platforms.{name}.node", value=settings["node"], reason=reason)
    staging_dir = Path(table["staging_dir"]) if "staging_dir" in table else default_staging_dir()
    if not staging_dir.is_absolute():
        raise Invalid(field=f"{path}: staging_dir", value=str(staging_dir), reason="it must be an absolute path")
    blocks: dict[str, dict[str, Any]] = table.get("platforms", {})
    return NodeConfig(
        node=table.get("node", ""),
        staging_dir=staging_dir,
        platforms={name: {key: value for key, value in block.items() if key != "node"} for name, block in blocks.items()},
        identities={name: block["node"] for name, block in blocks.items() if "node" in block},
    )


def prepare_staging_dir(folder: Path) -> None:
    """Makes the folder, or makes sure that it is ours alone. Raises Invalid."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise Invalid(field="staging_dir", value=str(folder), reason=str(error)) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Invalid(
            field="staging_dir", value=str(folder), reason="it must be a folder of the executor's user that nobody else may write to"
        )
