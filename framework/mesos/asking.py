"""From a waiting instance to what it asks of the offers, and to what stands in its way whatever is offered. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from framework.config import Config
from framework.marathon.ids import volume_name
from framework.marathon.model import App, ExternalVolume, PersistentVolume
from offers.ask import Ask, Constraint, PortAsk, VolumeAsk
from storage.errors import Invalid
from storage.lifecycle import VolumeState
from storage.model import Access, AccessMode, Claim, Profile, Volume, VolumeId, WorkloadId

Named = Mapping[str, Volume]
HoldersOf = Callable[[VolumeId], Iterable[tuple[str, Claim]]]
"""Who holds a volume: (what the holder is called, its claim)."""

DEFAULT_PROFILE = "default"


class Need(Struct, frozen=True, kw_only=True, gc=False):
    """One volume of one instance, by the name that it has in the ledger."""

    container_path: str
    name: str
    size_mib: int | None
    access: Access
    profile: Profile
    """With what the app says of the volume's parameters over the profile's own."""
    external: ExternalVolume | None = None
    mount_options: tuple[str, ...] = ()
    """The profile's and the app's."""


def instance_key(app_id: str, slot: int) -> str:
    return f"{app_id}#{slot}"


def profile_of(config: Config, app: App, volume: PersistentVolume | ExternalVolume) -> Profile:
    """The profile that a volume of an app is made by. Raises UnknownProfile, or Invalid where none can be told."""
    if isinstance(volume, ExternalVolume):
        if volume.driver in config.profiles:
            return config.profiles[volume.driver]
        if volume.driver in config.platforms:
            return Profile(name="", platforms=(volume.driver,))
        known = sorted({*config.profiles, *config.platforms})
        raise Invalid(
            field="driver", value=volume.driver, reason=f"name a profile or a platform of polly.toml: {', '.join(known) or 'it has none'}"
        )
    if volume.profile is not None:
        return config.profile(volume.profile)
    if DEFAULT_PROFILE in config.profiles:
        return config.profiles[DEFAULT_PROFILE]
    if len(config.profiles) == 1:
        return next(iter(config.profiles.values()))
    raise Invalid(
        field=f"container.volumes of {app.app_id}, persistent.profileName",
        value=None,
        reason=f"polly.toml has no profile {DEFAULT_PROFILE!r} and not just one; name one of {', '.join(sorted(config.profiles))}",
    )


def obstacle(need: Need, volume: Volume | None, holders: Iterable[tuple[str, Claim]]) -> str:
    """Why this volume cannot be claimed whatever is offered; empty if it can."""
    if volume is None:
        if need.size_mib is None:
            how = f"; polly volume create {need.name} --profile PROFILE --size SIZE makes it" if need.access is Access.RW else ""
            return f"there is no volume {need.name}, and the app gives no size to make it with{how}"
        if need.access is Access.RO:
            return f"there is no volume {need.name}, and one that is mounted RO cannot be made"
        return ""
    if volume.state is VolumeState.FAULTED:
        return f"volume {volume.name} is FAULTED: {volume.reason}"
    if volume.state is VolumeState.DELETING:
        return f"volume {volume.name} is being deleted" + (f": {volume.reason}" if volume.reason else "")
    if need.external and need.profile.platforms and volume.platform not in need.profile.platforms:
        return f"volume {volume.name} is on platform {volume.platform}, the app names {need.external.driver}"
    if volume.unborn and not volume.is_copy and need.access is Access.RO:
        return f"volume {volume.name} was never mounted RW, so there is nothing on it"
    for who, claim in holders:
        if volume.unborn or not coexist(volume.access_mode, need.access, claim.access):
            why = f": {claim.reason}" if claim.reason else ""
            return f"volume {volume.name} is claimed by {who} ({claim.state}{why})"
    if volume.access_mode in READ_ONLY and need.access is Access.RW:
        return f"volume {volume.name} is {volume.access_mode} and cannot be mounted RW"
    return ""


READ_ONLY = frozenset({AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY})


def coexist(mode: AccessMode, one: Access, other: Access) -> bool:
    """Whether two claims may be on a volume of this access mode at once."""
    if mode is AccessMode.MULTI_NODE_MULTI_WRITER:
        return True
    if mode is AccessMode.MULTI_NODE_SINGLE_WRITER:
        return not (one is Access.RW and other is Access.RW)
    return mode is AccessMode.MULTI_NODE_READER_ONLY and one is Access.RO and other is Access.RO


class Demand:
    """What the instances of one app need and ask; what all of them share is made once."""

    __slots__ = ("_app", "_ask", "_needs", "_own")

    def __init__(self, config: Config, app: App) -> None:
        """Raises UnknownProfile, or Invalid for what cannot be asked of any offer."""
        self._app = app
        self._own = len(app.persistent_volumes)
        volumes: list[PersistentVolume | ExternalVolume] = [*app.persistent_volumes, *app.external_volumes]
        self._needs = [_need(volume, profile_of(config, app, volume)) for volume in volumes]
        self._ask = Ask(
            key="",
            workload=WorkloadId(app.app_id),
            role=app.role or config.framework.roles[0],
            cpus=app.cpus,
            mem_mib=app.mem_mib,
            disk_mib=app.disk_mib,
            gpus=app.gpus,
            ports=PortAsk(wanted=tuple(port.port if app.require_ports else 0 for port in app.ports), required=app.require_ports),
            constraints=tuple(Constraint(field=c.field, operator=c.operator.value, value=c.value) for c in app.constraints),
            accepted_roles=frozenset(app.accepted_roles) or None,
            executor_cpus=config.executor.cpus,
            executor_mem_mib=config.executor.mem_mib,
            executor_disk_mib=0.0,
        )

    @property
    def role(self) -> str:
        return self._ask.role

    def needs(self, slot: int) -> list[Need]:
        """The volumes of the instance in this slot, in the app's order."""
        own, app_id = self._own, self._app.app_id
        mine = [replace(need, name=volume_name(app_id, slot, need.container_path)) for need in self._needs[:own]]
        return mine + self._needs[own:]

    def ask(self, slot: int, failures: int, needs: Iterable[Need], named: Named) -> Ask:
        """What the instance in this slot asks of the offers."""
        volumes = tuple([_volume_ask(need, named.get(need.name)) for need in needs])
        key = instance_key(self._app.app_id, slot)
        if failures:
            return replace(self._ask, key=key, volumes=volumes, ports=replace(self._ask.ports, start=failures))
        return replace(self._ask, key=key, volumes=volumes)


def _need(volume: PersistentVolume | ExternalVolume, profile: Profile) -> Need:
    """The name of an app's own volume is each instance's to give."""
    external = volume if isinstance(volume, ExternalVolume) else None
    return Need(
        container_path=volume.container_path,
        name=external.name if external else "",
        size_mib=volume.size_mib,
        access=volume.access,
        profile=replace(profile, parameters={**profile.parameters, **external.parameters}) if external else profile,
        external=external,
        mount_options=(*profile.mount_options, *(external.mount_options if external else ())),
    )


def _volume_ask(need: Need, existing: Volume | None) -> VolumeAsk:
    return VolumeAsk(
        container_path=need.container_path,
        name=need.name,
        size_mib=existing.size_mib if existing else need.size_mib or 0,
        read_only=need.access is Access.RO,
        existing=existing,
        profile=need.profile,
        platforms=need.profile.platforms,
    )
