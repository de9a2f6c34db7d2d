"""Who brings a volume to the node: the platform's adapter in this process, or somebody who has its credentials elsewhere."""

from __future__ import annotations

from typing import Protocol

from storage.errors import UnknownVolume, Unsupported
from storage.model import Birth, ExternalId, VolumePlan
from storage.platforms.base import Attachment, Capabilities, CreateRequest, VolumeReport


class Attacher(Protocol):
    """What staging asks for; a Platform is one. Each verb is as that class says."""

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...
    def inspect(self, external_id: ExternalId) -> VolumeReport: ...
    def find(self, token: str) -> VolumeReport | None: ...
    def create(self, request: CreateRequest) -> VolumeReport: ...
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment: ...
    def detach(self, external_id: ExternalId, node: str) -> None: ...
    def inheritable(self, external_id: ExternalId) -> int | None: ...
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None: ...
    def close(self) -> None: ...


def obtain(platform: Attacher, plan: VolumePlan) -> VolumeReport:
    """The plan's volume: made or found by its token where this claim may make it, else as it is. Raises UnknownVolume, and what the
    platform raises."""
    if plan.external_id is not None:
        return platform.inspect(plan.external_id)
    if not plan.may_create:
        found = platform.find(plan.token)
        if found is None:
            raise UnknownVolume(volume=plan.name)
        return found
    if plan.source is not None and not platform.capabilities.clones:
        raise Unsupported(platform=platform.name, action=f"make volume {plan.name}", reason="it does not clone volumes")
    return platform.create(
        CreateRequest(
            pool=plan.pool,
            size_mib=plan.size_mib,
            token=plan.token,
            name=plan.name,
            snapshot=plan.snapshot,
            source=plan.source,
            parameters=plan.parameters,
            labels=plan.labels,
        )
    )
