"""Adapters by their names: `kind = "local"` in polly.toml becomes a class, which is imported only then.

Third parties bring an adapter as an entry point of the group `polly.platforms`, named by its kind. Polly's own kinds come
first, so that no other distribution can take one over. An adapter whose SDK is not installed says what to install.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from storage.errors import Invalid, MissingPackage, MissingSdk, PlatformError
from storage.platforms import options
from storage.platforms.base import Platform

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

    from _typeshed import DataclassInstance

GROUP: Final = "polly.platforms"


class Adapter(Protocol):
    """What a kind's name leads to: a class that is made from a platform's name and its options."""

    Options: type[DataclassInstance]

    def __call__(self, name: str, options: Any, /) -> Platform: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    module: str
    attribute: str
    extra: str = ""
    """Which extra of Polly's distribution brings the SDK; empty where none is needed."""
    sdk: str = ""
    """The SDK's distribution, by the name that it is installed by."""


BUILTIN: Final[Mapping[str, Builtin]] = {
    "cinder": Builtin(module="storage.platforms.cinder", attribute="CinderPlatform", extra="cinder", sdk="openstacksdk"),
    "gce": Builtin(module="storage.platforms.gce", attribute="GcePlatform", extra="gce", sdk="google-cloud-compute"),
    "local": Builtin(module="storage.platforms.local", attribute="LocalPlatform"),
    "powerflex": Builtin(module="storage.platforms.powerflex", attribute="PowerFlexPlatform", extra="powerflex", sdk="httpx"),
    "powermax": Builtin(module="storage.platforms.powermax", attribute="PowerMaxPlatform", extra="powermax", sdk="httpx"),
    "powerscale": Builtin(module="storage.platforms.powerscale", attribute="PowerScalePlatform", extra="powerscale", sdk="httpx"),
    "xtremio": Builtin(module="storage.platforms.xtremio", attribute="XtremioPlatform", extra="xtremio", sdk="httpx"),
    "ebs": Builtin(module="storage.platforms.ebs", attribute="EbsPlatform", extra="ebs", sdk="boto3"),
    "virtualbox": Builtin(module="storage.platforms.virtualbox", attribute="VirtualBoxPlatform", extra="virtualbox", sdk="zeep"),
}


def kinds() -> tuple[str, ...]:
    """The names that `kind` may have here, sorted; nothing is imported for it."""
    return tuple(sorted({*BUILTIN, *(entry.name for entry in _entry_points())}))


def adapter(name: str, kind: str) -> Adapter:
    """The adapter of this kind, imported now; `name` is the platform's, for the errors.

    Raises Invalid for an unknown kind, MissingSdk where a package is not installed, PlatformError where the adapter cannot
    be imported for another reason.
    """
    if builtin := BUILTIN.get(kind):
        return _load_builtin(name, builtin)
    for entry in _entry_points().select(name=kind):
        return _load_foreign(name, entry)
    raise Invalid(field=f"platforms.{name}.kind", value=kind, reason=f"known kinds are {', '.join(kinds())}")


def build(name: str, kind: str, settings: Mapping[str, object]) -> Platform:
    """The platform `[platforms.NAME]`. `settings` are the adapter's own keys, from polly.toml or from Platform.settings().

    Raises what `adapter` raises, and Invalid for a setting that is unknown, missing or wrong. Connects to nothing.
    """
    made = adapter(name, kind)
    return made(name, options.read_options(made.Options, f"platforms.{name}", settings))


def whereabouts(name: str, kind: str, settings: Mapping[str, object]) -> Mapping[str, str]:
    """The settings that say which storage system and account `[platforms.NAME]` is; empty where its adapter does not mark them.

    Raises what `build` raises, and connects to nothing either.
    """
    return options.whereabouts(options.read_options(adapter(name, kind).Options, f"platforms.{name}", settings))


def _entry_points() -> EntryPoints:
    """Imported late: it takes longer than all the rest, and an executor that uses a kind of Polly's own never needs it."""
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def _load_builtin(name: str, builtin: Builtin) -> Adapter:
    try:
        return cast(Adapter, getattr(import_module(builtin.module), builtin.attribute))
    except ModuleNotFoundError as error:
        if not builtin.extra:
            raise
        package = builtin.sdk or error.name  # the module that failed first may be one that the SDK brings
        raise MissingSdk(platform=name, action="load", reason=str(error), package=package, extra=builtin.extra) from error


def _load_foreign(name: str, entry: EntryPoint) -> Adapter:
    source = entry.dist.name if entry.dist else entry.value
    try:
        return cast(Adapter, entry.load())
    except ModuleNotFoundError as error:
        raise MissingPackage(platform=name, action="load", reason=str(error), package=error.name, extra="", distribution=source) from error
    except Exception as error:
        raise PlatformError(platform=name, action=f"load the adapter of {source}", reason=f"{type(error).__name__}: {error}") from error
