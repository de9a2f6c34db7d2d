"""From a match to its claims, and from the claims to the TaskInfo that Mesos carries to the agent. Does no I/O."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from executors.wire import HostVolume, Launch, PlatformSettings, encode
from framework.config import Config
from framework.marathon.environment import task_environment
from framework.marathon.model import App
from framework.mesos.asking import Need
from framework.mesos.instances import AppState, Phase, Task, TaskRecord
from offers.constraints import attribute_text
from offers.matching import ChosenVolume, Match
from offers.records import Offer
from storage.inventory import ClaimRequest, NewVolume, Placement, PlaceRequest
from storage.model import Access, AccessMode, Claim, ClaimId, NodeId, PlacementId, Volume, VolumeId, VolumePlan, WorkloadId

DEFAULT_GRACE_S = 3.0


def unborn(volume: Volume) -> bool:
    """Polly was to make its filesystem and has not: no task ever used what may exist of it. An import has no token."""
    return volume.birth is None and bool(volume.token)


def claim_requests(match: Match, needs: Mapping[str, Need], app: App, ids: Callable[[], str]) -> tuple[ClaimRequest, ...]:
    """One request for each volume of the match; a volume that does not exist yet is planned with it."""
    return tuple(_claim_request(chosen, needs[chosen.container_path], app, ids) for chosen in match.volumes)


def _claim_request(chosen: ChosenVolume, need: Need, app: App, ids: Callable[[], str]) -> ClaimRequest:
    claim_id = ClaimId(ids())
    if volume := chosen.existing:
        return ClaimRequest(
            claim_id=claim_id, volume_id=volume.volume_id, access=need.access, epoch=volume.epoch, new=None, renew=unborn(volume)
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


def place_request(
    match: Match,
    offer: Offer,
    state: AppState,
    slot: int,
    task_id: PlacementId,
    claims: tuple[ClaimRequest, ...],
    config: Config,
    now: float,
) -> PlaceRequest:
    record = TaskRecord(
        hostname=match.hostname,
        version=state.version,
        region=offer.region,
        zone=offer.zone,
        attributes={attribute.name: attribute_text(attribute) for attribute in offer.attributes},
        ports=match.ports,
        containers={claim.volume_id: chosen.container_path for claim, chosen in zip(claims, match.volumes, strict=True)},
        launched_at=now,
    )
    placement = Placement(
        placement_id=task_id,
        scheduler=scheduler_name(config),
        workload=WorkloadId(state.app.app_id),
        slot=slot,
        node=NodeId(match.agent_id),
        state=Phase.LAUNCHED,
        data=encode_record(record),
        created_at=now,
        updated_at=now,
    )
    return PlaceRequest(placement=placement, claims=claims, lease_s=config.claims.lease_s)


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
        return replace(existing, epoch=claim.epoch, token=token, external_id=external_id)
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
        filesystem=volume.filesystem,
        mkfs_options=need.profile.mkfs_options,
        mount_options=(*need.profile.mount_options, *(need.external.mount_options if need.external else ())),
        access_mode=volume.access_mode,
        birth=volume.birth,
        parameters={**need.profile.parameters, **(need.external.parameters if need.external else {})},
        labels=volume.labels,
        container_path=need.container_path,
    )


def launch_of(app: App, task: Task, plans: Sequence[VolumePlan], config: Config, settings: Mapping[str, PlatformSettings]) -> Launch:
    platforms = {plan.platform: settings[plan.platform] for plan in plans}
    return Launch(
        node=task.record.hostname,
        cmd=app.cmd,
        args=app.args,
        user=app.user,
        env=task_environment(app, task_id=task.task_id, host=task.record.hostname, ports=task.record.ports),
        kill_grace_s=app.kill_grace_s if app.kill_grace_s is not None else DEFAULT_GRACE_S,
        lease_s=config.claims.lease_s,
        volumes=tuple(plans),
        host_volumes=tuple(
            HostVolume(host_path=v.host_path, container_path=v.container_path, read_only=v.access is Access.RO) for v in app.host_volumes
        ),
        platforms=platforms,
    )


def task_info(match: Match, task: Task, app: App, launch: Launch, config: Config, framework_id: str) -> dict[str, Any]:
    """The Mesos v1 TaskInfo, with an executor of the task's own. The volumes are in `data` only: Mesos did not offer them."""
    grace_s = launch.kill_grace_s
    return {
        "name": app.app_id.strip("/").replace("/", "."),
        "task_id": {"value": task.task_id},
        "agent_id": {"value": task.agent_id},
        "resources": list(match.resources),
        "executor": {
            "type": "CUSTOM",
            "executor_id": {"value": task.task_id},
            "framework_id": {"value": framework_id},
            "name": f"Polly executor of {app.app_id}",
            "command": _executor_command(config),
            "resources": list(match.executor_resources),
            "shutdown_grace_period": {"nanoseconds": int((grace_s + 10) * 1e9)},
        },
        "data": base64.b64encode(encode(launch)).decode(),
        "kill_policy": {"grace_period": {"nanoseconds": int(grace_s * 1e9)}},
        "labels": {"labels": [{"key": key, "value": value} for key, value in app.labels.items()]},
    }


def _executor_command(config: Config) -> dict[str, Any]:
    command: dict[str, Any] = {"shell": False, "value": config.executor.command[0], "arguments": list(config.executor.command)}
    if config.framework.user:
        command["user"] = config.framework.user
    if config.executor.environment:
        command["environment"] = {"variables": [{"name": k, "type": "VALUE", "value": v} for k, v in config.executor.environment.items()]}
    return command


def new_task(request: PlaceRequest, claims: Sequence[Claim], volumes: Sequence[Volume]) -> Task:
    placement = request.placement
    return Task(
        task_id=placement.placement_id,
        app_id=placement.workload,
        slot=placement.slot,
        agent_id=placement.node,
        phase=Phase.LAUNCHED,
        record=decode_record(placement.data),
        claims={claim.claim_id: claim for claim in claims},
        volumes={volume.volume_id: volume for volume in volumes},
    )
