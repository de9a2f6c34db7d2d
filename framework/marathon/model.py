"""What an app is once its definition is read: frozen records, in Polly's units. Knows no JSON.

Sizes are MiB, spans are seconds. What a definition may hold but Polly does not do yet is no part of an App.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from offers.ask import Operator
from storage.model import Access, AccessMode


class KillSelection(StrEnum):
    """Which instance goes first when an app is scaled down."""

    YOUNGEST_FIRST = "YOUNGEST_FIRST"
    OLDEST_FIRST = "OLDEST_FIRST"


class Constraint(Struct, frozen=True, kw_only=True):
    """Where instances may run: `field` is hostname, @hostname, @region, @zone or an agent attribute."""

    field: str
    operator: Operator
    value: str | None = None


class Port(Struct, frozen=True, kw_only=True):
    """One port of the agent."""

    port: int = 0
    """The host port where the app has `require_ports`, else only a name for it; 0: any."""
    name: str | None = None
    protocol: str = "tcp"
    """`tcp`, `udp` or `tcp,udp`."""
    labels: Mapping[str, str] = {}


class PersistentVolume(Struct, frozen=True, kw_only=True):
    """A volume of the instance's own: made with it, kept while the app exists."""

    container_path: str
    size_mib: int
    profile: str | None = None
    """The profile that makes it; None: the default profile."""
    kind: str = "root"
    """Mesos' disk type as the definition has it: root, path or mount."""
    max_size_mib: int | None = None
    constraints: tuple[Constraint, ...] = ()
    """On the disk's path, LIKE or UNLIKE."""

    @property
    def access(self) -> Access:
        return Access.RW


class ExternalVolume(Struct, frozen=True, kw_only=True):
    """A volume with a name, which exists apart from the app and is found by it."""

    container_path: str
    access: Access
    provider: str
    """`dvdi` or `csi`: in which form the definition names it."""
    name: str
    driver: str
    """The platform or the profile that it belongs to: dvdi/driver, or CSI's pluginName."""
    size_mib: int | None = None
    """What to make it with where it does not exist yet; None: it must exist."""
    shared: bool = False
    """Other apps may use it too."""
    access_mode: AccessMode | None = None
    """None: as the volume or its profile says."""
    filesystem: str = ""
    """Empty: as the profile says."""
    mount_options: tuple[str, ...] = ()
    options: Mapping[str, str] = {}
    """As written: dvdi's options without driver, size and newfstype; CSI's volumeContext."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """What the platform is told when it makes the volume: the options without `dvdi/` before their names."""
        return {key.removeprefix("dvdi/"): value for key, value in self.options.items() if key != "dvdi/overwritefs"}


class HostVolume(Struct, frozen=True, kw_only=True):
    """A folder of the agent, seen in the task's sandbox."""

    container_path: str
    host_path: str
    access: Access


AppVolume = PersistentVolume | ExternalVolume | HostVolume


class Backoff(Struct, frozen=True, kw_only=True):
    """How long a failing instance waits: seconds * factor ** (failures - 1), at most max_delay_s."""

    seconds: float = 1.0
    factor: float = 1.15
    max_delay_s: float = 300.0


class UnreachableStrategy(Struct, frozen=True, kw_only=True):
    """When an instance on an unreachable agent may be replaced, and when it is forgotten (and killed if it comes back).

    Its volumes know no time: they go to a replacement on proof only.
    """

    inactive_after_s: float = 0.0
    expunge_after_s: float = 0.0


class UpgradeStrategy(Struct, frozen=True, kw_only=True):
    minimum_health_capacity: float = 1.0
    maximum_over_capacity: float = 1.0


class App(Struct, frozen=True, kw_only=True):
    """A Marathon app: what to run, how often, where, and with which volumes."""

    app_id: str
    """Absolute, such as `/shop/db`."""
    cmd: str | None = None
    """A line for /bin/sh; None where `args` says what to run."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    user: str | None = None
    cpus: float = 1.0
    mem_mib: float = 128.0
    disk_mib: float = 0.0
    gpus: int = 0
    instances: int = 1
    ports: tuple[Port, ...] = ()
    require_ports: bool = False
    constraints: tuple[Constraint, ...] = ()
    volumes: tuple[AppVolume, ...] = ()
    backoff: Backoff = Backoff()
    kill_grace_s: float | None = None
    """Between SIGTERM and SIGKILL; None: as the broker has it."""
    unreachable: UnreachableStrategy | None = UnreachableStrategy()
    """None (`disabled`): an instance is replaced only on proof that it is gone."""
    upgrade: UpgradeStrategy = UpgradeStrategy()
    kill_selection: KillSelection = KillSelection.YOUNGEST_FIRST
    labels: Mapping[str, str] = {}
    role: str | None = None
    """None: the broker's own."""
    accepted_roles: tuple[str, ...] = ()
    """Of which roles' resources it may run; empty: all that are offered."""
    version: str | None = None
    """When this definition was made, as Marathon writes it; None before it was submitted."""

    @property
    def persistent_volumes(self) -> tuple[PersistentVolume, ...]:
        return tuple(volume for volume in self.volumes if isinstance(volume, PersistentVolume))

    @property
    def external_volumes(self) -> tuple[ExternalVolume, ...]:
        return tuple(volume for volume in self.volumes if isinstance(volume, ExternalVolume))

    @property
    def host_volumes(self) -> tuple[HostVolume, ...]:
        return tuple(volume for volume in self.volumes if isinstance(volume, HostVolume))

    @property
    def stateful(self) -> bool:
        """Its instances keep data that is their own; what Marathon calls a resident app."""
        return bool(self.persistent_volumes)
