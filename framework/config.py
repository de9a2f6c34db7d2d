"""polly.toml: the framework, the platforms and the profiles, read whole and refused with a sentence that names the key.

Secrets never stand in it: a key that needs one names a file. Documented in docs/operating.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from executors.wire import BROKER, EXECUTOR, MOST_MIB
from storage.errors import Invalid, PollyError, UnknownProfile
from storage.lifecycle import QUIET_AFTER_LEASES
from storage.model import Profile
from storage.near import near
from storage.node import filesystems, options
from storage.platforms.base import Platform
from storage.platforms.registry import kinds

MOST_S: Final = 1e9
"""More than 30 years: a longer time is a slip of the pen."""
Seconds = Annotated[float, msgspec.Meta(gt=0, le=MOST_S)]
Days = Annotated[float, msgspec.Meta(ge=1, le=36_500)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class UnreadableConfig(PollyError):
    """The configuration {path} cannot be read: {reason}."""

    status = 422
    exit_code = 2
    hint = "Name the file with --config FILE, or POLLY_CONFIG. README.md has a first one, docs/operating.md all keys."


class FrameworkBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[framework]`: how Polly registers with Mesos."""

    name: str = "polly"
    roles: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("*",)
    """The roles that apps may ask for; the first is the default."""
    user: str = ""
    """Whom executors run as; empty: whom the broker runs as."""
    hostname: str = ""
    failover_timeout_s: Seconds = 604800.0
    """How long Mesos keeps the tasks of a broker that is away."""
    webui_url: str = ""


class ExecutorBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[executor]`: the program on the agent, and what it takes beside each task."""

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("polly-executor",)
    """An argument list; the program must be on every agent."""
    cpus: Amount = 0.1
    mem_mib: Amount = 32.0
    environment: Mapping[str, str] = {}


class ClaimsBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[claims]`: the bounds of doubt."""

    lease_s: Seconds = 120.0
    """How long a launch may stay unheard before Mesos is asked what became of it."""
    fence_retry_s: Seconds = 5.0
    """How often a stranded volume's platform is asked whether anything still holds it."""

    @property
    def quiet_after_s(self) -> float:
        """So long after its launch no executor begins, or still makes, what its claims are for."""
        return QUIET_AFTER_LEASES * self.lease_s


class LedgerBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ledger]`: what is kept in it."""

    keep_events_days: Days | None = None
    """How old events become before they are deleted; not given: they are kept for ever."""


class _ProfileBlock(Profile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[profiles.NAME]`: a storage class, and nothing beside it. Its name stands in the heading."""


class PlatformKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of `[platforms.NAME]` that are the broker's; all others are the adapter's."""

    kind: str
    attach_by: str = EXECUTOR
    """Who attaches its volumes: `executor`, on the node, or `broker`: then no agent needs its credentials."""
    agent_attribute: str = ""
    """Only agents with this attribute reach the platform; empty: all do."""
    agent_pattern: str = ".*"
    """What the attribute's text must be, as a regular expression for the whole of it."""
    reserve_mib: Annotated[int, msgspec.Meta(ge=0, le=MOST_MIB)] = 0
    overcommit: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    slots_per_node: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None
    """How many of its volumes one agent can hold; not given: what the adapter says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformConfig:
    name: str
    keys: PlatformKeys
    settings: Mapping[str, Any]
    """The adapter's own keys, as they stand in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    framework: FrameworkBlock = field(default_factory=FrameworkBlock)
    executor: ExecutorBlock = field(default_factory=ExecutorBlock)
    claims: ClaimsBlock = field(default_factory=ClaimsBlock)
    ledger: LedgerBlock = field(default_factory=LedgerBlock)
    platforms: Mapping[str, PlatformConfig] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def profile(self, name: str) -> Profile:
        """Raises UnknownProfile."""
        try:
            return self.profiles[name]
        except KeyError:
            raise UnknownProfile(profile=name, near=near(name, self.profiles)) from None


WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list in brackets",
    "object": "a table",
}
"""What msgspec calls the values of TOML, in words."""
EXPECTED: Final = re.compile(rf"Expected `({'|'.join(WORDS)})(?: \| null)?`, got `({'|'.join(WORDS)})`$")
BOUND: Final = re.compile(r"Expected `(?:int|float)` (>=|>|<=) ([0-9.e+]+)$")
BOUNDS: Final = {">": "more than", ">=": "at least", "<=": "at most"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def load_config(path: Path) -> Config:
    """Reads a polly.toml. Raises UnreadableConfig, and Invalid for every key that is wrong."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UnreadableConfig(path=path, reason=error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnreadableConfig(path=path, reason=f"it is not TOML: {error}") from error
    return parse_config(document)


def parse_config(document: Mapping[str, Any]) -> Config:
    """The document of a polly.toml, checked. Raises Invalid."""
    known = ("framework", "executor", "claims", "ledger", "platforms", "profiles")
    for key in document:
        if key not in known:
            raise Invalid(field=key, value="a block", reason=f"polly.toml has the blocks {', '.join(known)}")
    platforms = {name: _platform(name, block) for name, block in _blocks(document, "platforms").items()}
    profiles = {name: _profile(name, block) for name, block in _blocks(document, "profiles").items()}
    for profile in profiles.values():
        for platform in profile.platforms:
            if platform not in platforms:
                reason = f"there is no block [platforms.{platform}]; there are {', '.join(platforms) or 'none'}"
                raise Invalid(field=f"profiles.{profile.name}.platforms", value=platform, reason=reason)
    return Config(
        framework=_convert("framework", document.get("framework", {}), FrameworkBlock),
        executor=_convert("executor", document.get("executor", {}), ExecutorBlock),
        claims=_convert("claims", document.get("claims", {}), ClaimsBlock),
        ledger=_convert("ledger", document.get("ledger", {}), LedgerBlock),
        platforms=platforms,
        profiles=profiles,
    )


def _blocks(document: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    blocks = document.get(kind, {})
    if not isinstance(blocks, dict) or not all(isinstance(block, dict) for block in blocks.values()):
        raise Invalid(field=kind, value=blocks, reason=f"write blocks [{kind}.NAME]")
    for name in blocks:
        if not NAME.fullmatch(name):
            raise Invalid(field=kind, value=name, reason="a name has letters, digits, '_', '.' and '-', 63 at most")
    return blocks


def _platform(name: str, block: Mapping[str, Any]) -> PlatformConfig:
    ours = {key: value for key, value in block.items() if key in PlatformKeys.__struct_fields__}
    if "kind" not in ours:
        raise Invalid(field=f"platforms.{name}.kind", value="", reason=f"it must be given; known kinds are {', '.join(kinds())}")
    keys = _convert(f"platforms.{name}", ours, PlatformKeys)
    try:
        re.compile(keys.agent_pattern)
    except re.error as error:
        raise Invalid(field=f"platforms.{name}.agent_pattern", value=keys.agent_pattern, reason=str(error)) from error
    if keys.attach_by not in (EXECUTOR, BROKER):
        raise Invalid(field=f"platforms.{name}.attach_by", value=keys.attach_by, reason=f"it is {EXECUTOR} or {BROKER}")
    return PlatformConfig(name=name, keys=keys, settings={key: value for key, value in block.items() if key not in ours})


def _profile(name: str, block: Mapping[str, Any]) -> Profile:
    if "name" in block:
        raise Invalid(field=f"profiles.{name}.name", value=block["name"], reason="a profile is named by its heading alone")
    read = msgspec.convert(_convert(f"profiles.{name}", {**block, "name": name}, _ProfileBlock), Profile, from_attributes=True)
    _check_filesystem(f"profiles.{name}", read)
    for key, size_mib in (("min_mib", read.min_mib), ("max_mib", read.max_mib)):
        if size_mib is not None and not 0 < size_mib <= MOST_MIB:
            raise Invalid(field=f"profiles.{name}.{key}", value=size_mib, reason=f"it must be 1 to {MOST_MIB}")
    if read.max_mib is not None and read.max_mib < read.min_mib:
        raise Invalid(field=f"profiles.{name}.max_mib", value=read.max_mib, reason=f"it is below min_mib, {read.min_mib}")
    return msgspec.structs.replace(read, min_mib=max(read.min_mib, filesystems.KINDS[read.filesystem].min_mib))


def _check_filesystem(where: str, read: Profile) -> None:
    kind = filesystems.KINDS.get(read.filesystem)
    if kind is None:
        raise Invalid(field=f"{where}.filesystem", value=read.filesystem, reason=f"Polly makes {' and '.join(filesystems.KINDS)}")
    try:
        options.check_mkfs(read.filesystem, read.mkfs_options)
        _check_words(read.filesystem, read.mount_options)
    except Invalid as error:
        raise Invalid(**{**error.fields, "field": f"{where}.{error.fields['field']}"}) from error
    if read.max_mib is not None and read.max_mib < kind.min_mib:
        raise Invalid(field=f"{where}.max_mib", value=read.max_mib, reason=f"{read.filesystem} needs {kind.min_mib} MiB or more")


def check_against(config: Config, platforms: Mapping[str, Platform]) -> None:
    """What only the adapters can tell of the file; those that are given are asked. Raises Invalid, naming the key."""
    for name, platform in platforms.items():
        keys = config.platforms[name].keys
        if keys.attach_by == BROKER and platform.capabilities.held_by_process:
            reason = f"an attachment of kind {keys.kind} ends with the process that made it, which must be on the node: {EXECUTOR}"
            raise Invalid(field=f"platforms.{name}.attach_by", value=BROKER, reason=reason)
    for profile in config.profiles.values():
        check_mount_options(profile, platforms)


def check_mount_options(profile: Profile, platforms: Mapping[str, Platform]) -> None:
    """Whether they can be used on each of the platforms that the profile names. Raises Invalid."""
    for platform in (platforms[name] for name in profile.platforms if name in platforms):
        device = platform.capabilities.device
        try:
            if device == "nfs":
                options.check_nfs(profile.mount_options)
            elif device == "block":
                options.check_mount(profile.filesystem, profile.mount_options)
        except Invalid as error:
            brings = {"nfs": "NFS exports", "block": "disks"}[device]
            reason = f"{error.fields['reason']}; platform {platform.name} brings {brings}"
            raise Invalid(**{**error.fields, "field": f"profiles.{profile.name}.mount_options", "reason": reason}) from error


def _check_words(filesystem: str, words: Sequence[str]) -> None:
    """Those of a profile whose platform may bring disks or exports. Raises Invalid."""
    with suppress(Invalid):
        options.check_nfs(words)
        return
    options.check_mount(filesystem, words)


def _convert(field: str, value: Any, kind: type[Any]) -> Any:
    """The block as a `kind`. Raises Invalid for a key that is unknown or wrong, with what it has."""
    keys = [key for key in kind.__struct_fields__ if key != "name" or kind is not _ProfileBlock]
    for key in value if isinstance(value, dict) else ():
        if key not in kind.__struct_fields__:
            raise Invalid(field=f"{field}.{key}", value=value[key], reason=f"there is no such key; the keys are {', '.join(sorted(keys))}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        key = where.strip(".`").partition(".")[0].partition("[")[0]
        found = value.get(key, value) if isinstance(value, dict) else value
        known = next((it.type for it in msgspec.structs.fields(kind) if it.name == key), None)
        if isinstance(known, type) and issubclass(known, StrEnum):
            reason = f"it is one of {', '.join(known)}"
        elif wanted := EXPECTED.match(reason):
            reason = f"it must be {WORDS[wanted[1]]}, not {WORDS[wanted[2]]}"
        elif bound := BOUND.match(reason):
            reason = f"it must be {BOUNDS[bound[1]]} {float(bound[2]):.15g}"
        elif reason.startswith("Expected `array` of length"):
            reason = "it must not be empty"
        raise Invalid(field=field + where.rstrip("`"), value=found, reason=reason) from error
