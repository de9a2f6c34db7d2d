"""From a match to its claims, and from the claims to the TaskInfo that Mesos carries to the agent. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from executors.wire import HostVolume, Launch, PlatformSettings, encode
from framework.config import Config
from framework.marathon.environment import Environment
from framework.marathon.model import App
from framework.mesos.asking import Need
from framework.mesos.instances import Phase, Task, TaskRecord
from framework.mesos.taskinfo import ExecutorInfo, TaskInfo, raw, span
from offers.matching import ChosenVolume, Match
from offers.records import Offer, Value
from storage.inventory import ClaimRequest, NewVolume, Placement, PlaceRequest
from storage.lifecycle import VolumeState
from storage.model import Access, AccessMode, Claim, ClaimId, NodeId, PlacementId, Volume, VolumeId, VolumePlan

DEFAULT_GRACE_S = 3.0


def claim_requests(match: Match, needs: Mapping[str, Need], app: App, ids: Callable[[], str]) -> tuple[ClaimRequest, ...]:
    """One request for each volume of the match; a volume that does not exist yet is planned with it."""
    return tuple(_claim_request(chosen, needs[chosen.container_path], app, ids) for chosen in match.volumes)


def _claim_request(chosen: ChosenVolume, need: Need, app: App, ids: Callable[[], str]) -> ClaimRequest:
    claim_id = ClaimId(ids())
    if volume := chosen.existing:
        return ClaimRequest(
            claim_id=claim_id, volume_id=volume.volume_id, access=need.access, epoch=volume.epoch, new=None, renew=volume.unborn
        )
    volume_id = VolumeId(ids())
    new = NewVolume(
        volume_id=volume_id,
        name=need.name,
        platform=chosen.platform,
        pool=chosen.pool,
        size_mib=chosen.size_mib,
        profile=need.profile.name,
        access_mode=_access_mode(need),
        filesystem=(need.external.filesystem if need.external else "") or need.profile.filesystem,
        owner="" if need.external else app.app_id,
        role=app.role or "",
        region=chosen.region,
        zone=chosen.zone,
        labels=need.profile.labels,
    )
    return ClaimRequest(claim_id=claim_id, volume_id=volume_id, access=need.access, epoch=0, new=new)


def _access_mode(need: Need) -> AccessMode:
    return (need.external.access_mode if need.external else None) or need.profile.access_mode


def new_record(
    match: Match,
    offer: Offer,
    attributes: Mapping[str, str],
    version: str,
    claims: Sequence[ClaimRequest],
    now: float,
    by_broker: frozenset[str] = frozenset(),
) -> TaskRecord:
    """`by_broker`: the platforms whose volumes the broker attaches."""
    return TaskRecord(
        hostname=match.hostname,
        version=version,
        region=offer.region,
        zone=offer.zone,
        attributes=attributes,
        ports=match.ports,
        containers={claim.volume_id: chosen.container_path for claim, chosen in zip(claims, match.volumes, strict=True)},
        by_broker=tuple(sorted(by_broker.intersection(chosen.platform for chosen in match.volumes))) if by_broker else (),
        launched_at=now,
    )


def place_request(
    match: Match, slot: int, task_id: PlacementId, record: TaskRecord, claims: tuple[ClaimRequest, ...], scheduler: str, lease_s: float
) -> PlaceRequest:
    placement = Placement(
        placement_id=task_id,
        scheduler=scheduler,
        workload=match.ask.workload,
        slot=slot,
        node=NodeId(match.agent_id),
        state=Phase.LAUNCHED,
        data=encode_record(record),
        created_at=record.launched_at,
        updated_at=record.launched_at,
    )
    return PlaceRequest(placement=placement, claims=claims, lease_s=lease_s)


def encode_record(record: TaskRecord) -> str:
    return msgspec.json.encode(record).decode()


_decode_record = msgspec.json.Decoder(TaskRecord).decode


def decode_record(data: str) -> TaskRecord:
    return _decode_record(data)


def scheduler_name(config: Config) -> str:
    """What the ledger calls this way in."""
    return f"mesos/{config.framework.name}"


def claimed_volume(request: ClaimRequest, claim: Claim, existing: Volume | None, now: float) -> Volume:
    """The volume as the ledger has it after the claim."""
    if existing is not None:
        token, external_id = (claim.claim_id, None) if request.renew else (existing.token, existing.external_id)
        state = VolumeState.PLANNED if request.renew else existing.state
        return replace(existing, epoch=claim.epoch, token=token, external_id=external_id, state=state)
    new = request.new
    if new is None:
        raise TypeError("a claim is on a volume that exists or on a new one")
    return Volume(
        volume_id=new.volume_id,
        name=new.name,
        platform=new.platform,
        pool=new.pool,
        size_mib=new.size_mib,
        profile=new.profile,
        token=claim.claim_id,
        epoch=claim.epoch,
        access_mode=new.access_mode,
        filesystem=new.filesystem,
        owner=new.owner,
        role=new.role,
        region=new.region,
        zone=new.zone,
        labels=new.labels,
        created_at=now,
    )


def plan_of(claim: Claim, volume: Volume, need: Need) -> VolumePlan:
    """What the node is told of one volume."""
    return VolumePlan(
        claim_id=claim.claim_id,
        volume_id=volume.volume_id,
        name=volume.name,
        epoch=claim.epoch,
        access=claim.access,
        platform=volume.platform,
        pool=volume.pool,
        size_mib=volume.size_mib,
        token=volume.token,
        external_id=volume.external_id,
        snapshot=volume.snapshot,
        source=volume.source,
        filesystem=volume.filesystem,
        mkfs_options=need.profile.mkfs_options,
        mount_options=need.mount_options,
        access_mode=volume.access_mode,
        birth=volume.birth,
        parameters=need.parameters,
        labels=volume.labels,
        container_path=need.container_path,
    )


class Recipe:
    """How the tasks of one app are launched; what all of them share is made once."""

    __slots__ = (
        "_command",
        "_config",
        "_environment",
        "_executor_name",
        "_framework_id",
        "_grace_s",
        "_host_volumes",
        "_id",
        "_kill_policy",
        "_labels",
        "_settings",
        "_shutdown_grace",
        "app",
    )

    def __init__(self, app: App, config: Config, settings: Mapping[str, PlatformSettings], framework_id: str) -> None:
        self.app, self._config, self._settings = app, config, settings
        self._environment = Environment(app)
        self._grace_s = app.kill_grace_s if app.kill_grace_s is not None else DEFAULT_GRACE_S
        self._host_volumes = tuple(
            HostVolume(host_path=v.host_path, container_path=v.container_path, read_only=v.access is Access.RO) for v in app.host_volumes
        )
        self._id = app.app_id.strip("/").replace("/", ".")
        self._executor_name = f"Polly executor of {app.app_id}"
        self._kill_policy = raw({"grace_period": span(self._grace_s)})
        self._labels = raw({"labels": [{"key": key, "value": value} for key, value in app.labels.items()]})
        self._framework_id = raw({"value": framework_id})
        self._command = raw(_executor_command(config))
        self._shutdown_grace = span(self._grace_s + 10)

    def task_info(self, match: Match, task: Task, plans: Sequence[VolumePlan]) -> Raw:
        """The Mesos v1 TaskInfo as JSON, with an executor of the task's own. The volumes are in `data` only: Mesos did not offer them."""
        task_id = Value(task.task_id)
        executor = ExecutorInfo(
            executor_id=task_id,
            framework_id=self._framework_id,
            name=self._executor_name,
            command=self._command,
            shutdown_grace_period=self._shutdown_grace,
            resources=match.executor_resources,
        )
        info = TaskInfo(
            name=self._id,
            task_id=task_id,
            agent_id=Value(task.agent_id),
            resources=match.resources,
            executor=executor,
            data=encode(self._launch(task, plans)),
            kill_policy=self._kill_policy,
            labels=self._labels,
        )
        return raw(info)

    def _launch(self, task: Task, plans: Sequence[VolumePlan]) -> Launch:
        app, record = self.app, task.record
        return Launch(
            node=record.hostname,
            cmd=app.cmd,
            args=app.args,
            user=app.user,
            env=self._environment.of_task(task.task_id, record.hostname, record.ports),
            kill_grace_s=self._grace_s,
            lease_s=self._config.claims.lease_s,
            volumes=tuple(plans),
            host_volumes=self._host_volumes,
            platforms={plan.platform: self._settings[plan.platform] for plan in plans},
        )


def _executor_command(config: Config) -> dict[str, Any]:
    command: dict[str, Any] = {"shell": False, "value": config.executor.command[0], "arguments": list(config.executor.command)}
    if config.framework.user:
        command["user"] = config.framework.user
    if config.executor.environment:
        command["environment"] = {"variables": [{"name": k, "type": "VALUE", "value": v} for k, v in config.executor.environment.items()]}
    return command


def new_task(request: PlaceRequest, record: TaskRecord, claims: Sequence[Claim], volumes: Sequence[Volume]) -> Task:
    placement = request.placement
    return Task(
        task_id=placement.placement_id,
        app_id=placement.workload,
        slot=placement.slot,
        agent_id=placement.node,
        phase=Phase.LAUNCHED,
        record=record,
        claims={claim.claim_id: claim for claim in claims},
        volumes={volume.volume_id: volume for volume in volumes},
    )
