"""From a match to its claims, and from the claims to the TaskInfo that Mesos carries to the agent. Does no I/O."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw, json
from msgspec.structs import replace

from executors.wire import HostVolume, Launch, PlatformSettings
from framework.config import Config
from framework.marathon.environment import Environment
from framework.marathon.model import App
from framework.mesos.asking import Need
from framework.mesos.instances import Phase, Task, TaskRecord
from framework.mesos.taskinfo import members, span
from offers.matching import ChosenVolume, Match
from offers.records import Offer
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
            claim_id=claim_id,
            volume_id=volume.volume_id,
            platform=volume.platform,
            access=need.access,
            epoch=volume.epoch,
            new=None,
            renew=volume.unborn,
        )
    volume_id = VolumeId(ids())
    new = NewVolume(
        volume_id=volume_id,
        name=need.name,
        platform=chosen.platform,
        pool=chosen.pool,
        size_mib=chosen.size_mib,
        asked_mib=need.size_mib or 0,
        profile=need.profile.name,
        access_mode=_access_mode(need),
        filesystem=(need.external.filesystem if need.external else "") or need.profile.filesystem,
        owner="" if need.external else app.app_id,
        role=app.role or "",
        region=chosen.region,
        zone=chosen.zone,
        labels=need.profile.labels,
    )
    return ClaimRequest(claim_id=claim_id, volume_id=volume_id, platform=new.platform, access=need.access, epoch=0, new=new)


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
    return json.encode(record).decode()


_decode_record = json.Decoder(TaskRecord).decode


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
    made = Volume(
        volume_id=new.volume_id,
        name=new.name,
        platform=new.platform,
        pool=new.pool,
        size_mib=new.size_mib,
        profile=new.profile,
        access_mode=new.access_mode,
        filesystem=new.filesystem,
        owner=new.owner,
        role=new.role,
        region=new.region,
        zone=new.zone,
        labels=new.labels,
    )
    return replace(made, token=claim.claim_id, epoch=claim.epoch, created_at=now)


def plan_of(claim: Claim, volume: Volume, need: Need) -> VolumePlan:
    """What the node is told of one volume."""
    known = VolumePlan(
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
        access_mode=volume.access_mode,
        birth=volume.birth,
    )
    # In a step of its own: Python makes a dict of more than 15 keywords, which takes three times as long.
    return replace(
        known,
        mkfs_options=need.profile.mkfs_options,
        mount_options=need.mount_options,
        parameters=need.profile.parameters,
        labels=volume.labels,
        container_path=need.container_path,
    )


class Recipe:
    """How the tasks of one app are launched; what all of them share is written once."""

    __slots__ = ("_environment", "_executor", "_foot", "_head", "_launch", "_launches", "_settings")

    def __init__(self, app: App, config: Config, settings: Mapping[str, PlatformSettings], framework_id: str) -> None:
        self._settings = settings
        self._environment = Environment(app)
        grace_s = app.kill_grace_s if app.kill_grace_s is not None else DEFAULT_GRACE_S
        self._head = b'{%b,"task_id":{"value":' % members({"name": app.app_id.strip("/").replace("/", ".")})
        executor: dict[str, Any] = {
            "type": "CUSTOM",
            "framework_id": {"value": framework_id},
            "name": f"Polly executor of {app.app_id}",
            "command": _executor_command(config),
            "shutdown_grace_period": span(grace_s + 10),
        }
        self._executor = b',"executor":{%b,"executor_id":{"value":' % members(executor)
        labels = [{"key": key, "value": value} for key, value in app.labels.items()]
        self._foot = b'",%b}' % members({"kill_policy": {"grace_period": span(grace_s)}, "labels": {"labels": labels}})
        self._launch = Launch(
            cmd=app.cmd,
            args=app.args,
            user=app.user,
            kill_grace_s=grace_s,
            lease_s=config.claims.lease_s,
            host_volumes=tuple(
                HostVolume(host_path=v.host_path, container_path=v.container_path, read_only=v.access is Access.RO)
                for v in app.host_volumes
            ),
        )
        self._launches: dict[tuple[str, ...], bytes] = {}
        """How the launches of tasks with volumes of these platforms begin."""

    def task_info(self, match: Match, task: Task, plans: Sequence[VolumePlan]) -> Raw:
        """The Mesos v1 TaskInfo as JSON, with an executor of the task's own. The volumes are in `data` only: Mesos did not offer them."""
        task_id, agent_id = json.encode(task.task_id), json.encode(task.agent_id)
        # Joined, which takes a third of the time of filling in a format.
        parts = (
            self._head,
            task_id,
            b'},"agent_id":{"value":',
            agent_id,
            b'},"resources":',
            json.encode(match.resources),
            self._executor,
            task_id,
            b'},"resources":',
            json.encode(match.executor_resources),
            b'},"data":"',
            b2a_base64(self._launch_of(task_id, task.record, plans), newline=False),
            self._foot,
        )
        return Raw(b"".join(parts))

    def _launch_of(self, task_id: bytes, record: TaskRecord, plans: Sequence[VolumePlan]) -> bytes:
        """executors.wire.Launch, as JSON."""
        node = json.encode(record.hostname)
        env = self._environment.of_task(task_id, node, record.ports)
        shared = self._shared(tuple([plan.platform for plan in plans]))
        return b"".join((shared, node, b',"env":', env, b',"volumes":', json.encode(plans), b"}"))

    def _shared(self, platforms: tuple[str, ...]) -> bytes:
        shared = self._launches.get(platforms)
        if shared is None:
            launch = replace(self._launch, platforms={name: self._settings[name] for name in platforms})
            shared = b'{%b,"node":' % members(launch)
            self._launches[platforms] = shared
        return shared


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
